/* Knowledge bases: the list at the side, creating, renaming and deleting them, and which is shown. */

import * as api from "./api.js";
import { $, bdi, h } from "./dom.js";
import { confirmDialog, promptDialog, showError } from "./dialogs.js";
import { isolate, say } from "./i18n.js";
import { emit, on, state } from "./state.js";

/** The address of a knowledge base's view; ids, so that a renamed one keeps its links. */
export const addressOf = (base, tab = state.tab) => `#/kb/${base.id}/${tab}`;

/** Reads the list again and keeps the one shown, if it still exists. */
export async function refreshBases() {
  state.bases = await api.listBases();
  if (state.base) state.base = state.bases.find(({ id }) => id === state.base.id) ?? null;
  emit("bases");
}

/** Finds by id or by name, as the API does. */
export const findBase = (name) =>
  state.bases.find((base) => base.id === name || base.name === name);

function draw() {
  const { base, info } = state;
  $("base-name").textContent = base?.name ?? "";
  $("tab-count").textContent = base ? String(base.documents) : "";
  if (info) say($("about"), "about", { version: info.version, model: info.answerer.model });
  drawList();
}

function drawList() {
  const items = state.bases.map((base) =>
    h(
      "li",
      {},
      h(
        "a",
        { href: addressOf(base), "aria-current": base.id === state.base?.id ? "page" : null },
        bdi(base.name, { class: "grow" }),
        h("span", { class: "count" }, String(base.documents)),
      ),
    ),
  );
  $("bases").replaceChildren(...items);
}

/** Asks for a name and creates; resolves to the new knowledge base, or null. */
export async function createBase(suggestion = "") {
  const base = await promptDialog(
    {
      title: "createBase",
      text: "createBaseText",
      field: "name",
      value: suggestion,
      missing: "nameMissing",
      action: "create",
    },
    api.createBase,
  );
  if (!base) return null;
  await refreshBases();
  location.hash = addressOf(base, "documents");
  return base;
}

async function renameBase() {
  const { id, name } = state.base;
  const renamed = await promptDialog(
    { title: "renameBase", field: "name", value: name, missing: "nameMissing", action: "save" },
    (given) => api.renameBase(id, given),
  );
  if (renamed) await refreshBases();
}

async function removeBase() {
  const { id, name, documents } = state.base;
  const removed = await confirmDialog(
    {
      title: "deleteBase",
      text: ["deleteBaseText", { name: isolate(name), n: documents }],
      action: "deleteIt",
    },
    () => api.deleteBase(id),
  );
  if (!removed) return;
  await refreshBases();
  location.hash = state.bases.length ? addressOf(state.bases[0], "ask") : "#/";
}

export function startBases() {
  $("create-base").addEventListener("click", () => createBase());
  $("welcome-create").addEventListener("click", () => createBase());
  $("rename-base").addEventListener("click", renameBase);
  $("delete-base").addEventListener("click", removeBase);
  on("base", draw);
  on("bases", draw);
  on("documents", () => refreshBases().catch(showError));
  on("progress", () => refreshBases().catch(() => {})); // the job's card says what is wrong
}
