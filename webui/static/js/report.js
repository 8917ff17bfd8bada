/*
 * What one sync did: a count per kind of change, each opening the list of its paths. This is the
 * incremental update made visible: an unchanged file is counted and nothing more.
 */

import { h, pathView } from "./dom.js";
import { label } from "./i18n.js";

const KINDS = ["added", "changed", "moved", "unchanged", "removed", "empty", "failed", "notes"];
const FIRST = 100; // rows shown before "show all"

/** `report`: the ingest contract of the API; `files`: the job's, which say what is unchanged. */
export function reportView(report, files) {
  const list = h("div", { class: "report-list", hidden: true });
  const kinds = KINDS.filter((kind) => kind !== "notes" || report.notes?.length);
  const buttons = kinds.map((kind) => kindButton(kind, rowsOf(report, files, kind), report, list));
  return h(
    "div",
    { class: "report" },
    h("div", { class: "report-kinds" }, buttons),
    list,
    h("p", {
      class: "fine",
      text: [
        "chunkCounts",
        {
          embedded: report.chunks_embedded ?? 0,
          reused: report.chunks_reused ?? 0,
          removed: report.chunks_removed ?? 0,
          seconds: report.seconds ?? 0,
        },
      ],
    }),
  );
}

/** [{path, error?}] of one kind; `report.changes` has the paths that the counts only count. */
function rowsOf(report, files, kind) {
  if (kind === "unchanged") return files.filter(({ state }) => state === kind);
  if (kind === "notes") return report.notes.map(({ path, note }) => ({ path, error: note }));
  if (kind === "failed" || kind === "empty") return report[kind] ?? [];
  return (report.changes?.[kind] ?? []).map((path) => ({ path }));
}

function kindButton(kind, rows, report, list) {
  const count = Array.isArray(report[kind]) ? report[kind].length : (report[kind] ?? 0);
  const button = h(
    "button",
    {
      class: `kind ${kind}`,
      type: "button",
      disabled: rows.length === 0,
      "aria-expanded": "false",
    },
    h("span", { class: "kind-count" }, String(count)),
    h("span", { text: `report_${kind}` }),
  );
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    for (const other of button.parentElement.children) other.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-expanded", String(open));
    list.hidden = !open;
    if (!open) return;
    label(list, `report_${kind}`);
    list.replaceChildren(pathList(rows));
  });
  return button;
}

/** Paths with their reasons, the first hundred until asked for more. */
export function pathList(rows) {
  const row = ({ path, error }) =>
    h("li", {}, pathView(path), error ? h("span", { class: "reason" }, error) : null);
  const items = h("ul", { class: "paths" }, rows.slice(0, FIRST).map(row));
  if (rows.length <= FIRST) return items;
  const more = h("button", {
    class: "button quiet small",
    type: "button",
    text: ["showAll", { n: rows.length }],
    onclick: () => {
      items.append(...rows.slice(FIRST).map(row));
      more.remove();
    },
  });
  return h("div", {}, items, more);
}
