/*
 * From a drop or a picker to batches: {root, files: [{file, path}], skipped}. A folder is one
 * batch with its name as `root`, which makes the upload a sync; loose files are one batch with
 * `root` null. Paths are as the user sees them, beginning with the folder's name.
 */

// Hidden and temporary files, the same that `kb ingest` leaves out (ingest/scan.py).
const isJunk = (name) => /^(\.|~\$)|^(Thumbs\.db|desktop\.ini)$/.test(name);

/** Must be called inside the drop event: the entries are gone once it has returned. */
export function readDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const plain = [...transfer.files];
  return batchesOf(entries, plain);
}

async function batchesOf(entries, plain) {
  if (!entries.length) return looseBatch(plain);
  const loose = { root: null, files: [], skipped: 0 };
  const batches = [];
  for (const entry of entries) {
    if (entry.isDirectory) {
      const folder = { root: entry.name, files: [], skipped: 0 };
      await walk(entry, entry.name, folder);
      batches.push(folder);
    } else {
      loose.files.push({ file: await fileOf(entry), path: entry.name });
    }
  }
  return loose.files.length ? [loose, ...batches] : batches;
}

async function walk(directory, path, batch) {
  for (const entry of await entriesOf(directory)) {
    const inner = `${path}/${entry.name}`;
    if (isJunk(entry.name)) batch.skipped += 1;
    else if (entry.isDirectory) await walk(entry, inner, batch);
    else batch.files.push({ file: await fileOf(entry), path: inner });
  }
}

/** Reads until a read comes back empty: browsers hand out at most 100 entries at a time. */
async function entriesOf(directory) {
  const reader = directory.createReader();
  const entries = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    entries.push(...some);
  }
}

const fileOf = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));

function looseBatch(files) {
  if (!files.length) return [];
  return [{ root: null, files: files.map((file) => ({ file, path: file.name })), skipped: 0 }];
}

/** Reads <input type=file>, with or without webkitdirectory. */
export function readPicker(list) {
  const folders = new Map();
  const loose = [];
  for (const file of list) {
    const steps = file.webkitRelativePath ? file.webkitRelativePath.split("/") : [];
    if (steps.length < 2) {
      loose.push(file);
      continue;
    }
    const root = steps[0];
    const batch = folders.get(root) ?? { root, files: [], skipped: 0 };
    folders.set(root, batch);
    if (steps.slice(1).some(isJunk)) batch.skipped += 1;
    else batch.files.push({ file, path: file.webkitRelativePath });
  }
  return [...looseBatch(loose), ...folders.values()];
}
