/* The documents of the knowledge base shown: status, filter, pages, removal. */

import * as api from "./api.js";
import { $, h, icon, pathView, sizeOf, timeOf } from "./dom.js";
import { confirmDialog, messageOf, showError } from "./dialogs.js";
import { isolate, say } from "./i18n.js";
import { emit, on, state } from "./state.js";
import { openDocument } from "./viewer.js";

const PAGE = 50;
const TYPING_MS = 250;

let offset = 0;
let loading = null; // AbortController of the newest request; an older answer must not win

export async function loadDocuments() {
  if (!state.base || state.tab !== "documents") return;
  loading?.abort();
  const mine = (loading = new AbortController());
  const query = { offset, limit: PAGE };
  const q = $("document-query").value.trim();
  const status = $("document-status").value;
  if (q) query.q = q;
  if (status) query.status = status;
  const list = $("document-list");
  list.setAttribute("aria-busy", "true");
  try {
    const { documents, total } = await api.listDocuments(state.base.id, query, mine.signal);
    if (!documents.length && offset > 0) {
      offset = Math.max(0, Math.ceil(total / PAGE) - 1) * PAGE; // the last page was emptied
      return loadDocuments();
    }
    draw(documents, total, Boolean(q || status));
  } catch (error) {
    if (error.name !== "AbortError") drawProblem(error);
  } finally {
    if (mine === loading) list.removeAttribute("aria-busy");
  }
  return undefined;
}

function drawProblem(error) {
  const retry = h("button", { class: "button small", text: "retry", onclick: loadDocuments });
  $("document-list").replaceChildren(
    h("p", { class: "problem", role: "alert" }, messageOf(error)),
    retry,
  );
}

function draw(documents, total, filtered) {
  say($("document-total"), "documentTotal", { n: total });
  $("document-filter").hidden = total === 0 && !filtered;
  $("pager").hidden = total <= PAGE;
  $("page-back").disabled = offset === 0;
  $("page-next").disabled = offset + PAGE >= total;
  say($("page-range"), "pageRange", { from: offset + 1, to: offset + documents.length, total });
  if (!documents.length) {
    const empty = h("p", { class: "nothing", text: filtered ? "noneFound" : "noDocuments" });
    $("document-list").replaceChildren(empty);
    return;
  }
  const head = ["documents", "status", "size", "chunks", "updated"].map((key) =>
    h("th", { scope: "col", text: key }),
  );
  const table = h(
    "table",
    { class: "documents" },
    h("thead", {}, h("tr", {}, head, h("td"))),
    h("tbody", {}, documents.map(row)),
  );
  $("document-list").replaceChildren(table);
}

function row(doc) {
  const path = doc.path ?? doc.name;
  const kb = state.base.id;
  const view = () => openDocument({ kb, id: doc.id, name: path });
  const name = pathView(path);
  const readable = doc.status === "ready" || doc.stale;
  const title = readable
    ? h("button", { class: "link", type: "button", onclick: view }, name)
    : h("span", {}, name);
  const bin = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      label: "removeDocument",
      onclick: () => remove(kb, doc, path),
    },
    icon("bin"),
  );
  const eye = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      label: "view",
      disabled: !readable,
      onclick: view,
    },
    icon("eye"),
  );
  return h(
    "tr",
    { data: { document: doc.id } },
    h("td", { class: "name" }, title, doc.error ? h("p", { class: "reason" }, doc.error) : null),
    h("td", { class: "status" }, badges(doc)),
    h("td", { class: "number" }, sizeOf(doc.size_bytes)),
    h(
      "td",
      { class: "number" },
      h("span", { class: "only-phone", text: "chunks" }),
      ` ${doc.chunks}`,
    ),
    h("td", { class: "date" }, timeOf(doc.updated_at)),
    h("td", { class: "actions" }, eye, bin),
  );
}

function badges(doc) {
  const all = [h("span", { class: `badge ${doc.status}`, text: statusKey(doc.status) })];
  if (doc.stale) {
    all.push(h("span", { class: "badge stale", text: "statusStale", hint: "staleHint" }));
  }
  if (doc.encoding_guessed) {
    const text = ["encodingGuessed", { encoding: doc.encoding }];
    all.push(h("span", { class: "badge", text, hint: "encodingGuessedHint" }));
  }
  for (const kind of new Set(doc.flags?.map((flag) => flag.kind))) {
    const details = doc.flags.filter((flag) => flag.kind === kind).map((flag) => flag.detail);
    const hint = [`flagHint_${kind}`, { details: details.join("; ") }];
    all.push(h("span", { class: "badge flag", text: `flag_${kind}`, hint }));
  }
  return all;
}

const statusKey = (status) => `status${status[0].toUpperCase()}${status.slice(1)}`;

async function remove(kb, doc, path) {
  const removed = await confirmDialog(
    {
      title: "removeDocument",
      text: ["removeDocumentText", { name: isolate(path) }],
      action: "removeIt",
    },
    () => api.removeDocument(kb, doc.id),
  );
  if (!removed) return;
  emit("documents", kb);
  $("document-query").focus();
}

export function startDocuments() {
  let typing;
  const first = () => {
    offset = 0;
    loadDocuments().catch(showError);
  };
  const turn = (step) => {
    offset = Math.max(0, offset + step * PAGE);
    loadDocuments();
    $("document-filter").scrollIntoView({ block: "start" });
  };
  $("document-filter").addEventListener("submit", (event) => event.preventDefault());
  $("document-query").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(first, TYPING_MS);
  });
  $("document-status").addEventListener("change", first);
  $("page-back").addEventListener("click", () => turn(-1));
  $("page-next").addEventListener("click", () => turn(1));
  on("base", (baseChanged) => {
    if (baseChanged) {
      $("document-query").value = "";
      $("document-status").value = "";
      $("document-list").replaceChildren();
      offset = 0;
    }
    loadDocuments();
  });
  on("documents", (kb) => kb === state.base?.id && loadDocuments());
  on("progress", (kb) => {
    const isUsed = $("document-list").contains(document.activeElement);
    if (kb === state.base?.id && !isUsed) loadDocuments(); // drawing again would lose the focus
  });
}
