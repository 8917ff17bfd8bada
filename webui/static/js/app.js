/*
 * The page itself: starts the parts, turns the address (#/kb/ID/VIEW) into the view shown, takes
 * drops anywhere on the page, and says when the server is lost and back.
 */

import * as api from "./api.js";
import { startAsk } from "./ask.js";
import { addressOf, createBase, findBase, refreshBases, startBases } from "./bases.js";
import { showError } from "./dialogs.js";
import { startDocuments } from "./documents.js";
import { $ } from "./dom.js";
import { readDrop, readPicker } from "./files.js";
import { bindPage, isolate, say, t, toggleLanguage } from "./i18n.js";
import { startSearch } from "./search.js";
import { emit, on, state } from "./state.js";
import { toggleTheme } from "./theme.js";
import { resumeJobs, showUploadsOf, uploadBatches } from "./upload.js";
import { closeViewer, startViewer } from "./viewer.js";

const VIEWS = ["ask", "documents", "search"];
const RETRY_MS = 2000;

/** Shows what the address says; an address without a knowledge base shows the first one. */
function route() {
  const [, kind, name = "", tab = ""] = location.hash.split("/");
  const before = state.base?.id;
  const wanted = kind === "kb" ? findBase(decode(name)) : undefined;
  if (kind === "kb" && !wanted && state.bases.length) showError(new Error(t("linkUnknown")));
  state.base = wanted ?? state.bases[0] ?? null;
  state.tab = VIEWS.includes(tab) ? tab : "ask";
  if (state.base) history.replaceState(null, "", addressOf(state.base));
  showView();
  if (before !== state.base?.id) closeViewer();
  emit("base", before !== state.base?.id);
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function showView() {
  const shown = state.base ? state.tab : "welcome";
  for (const name of [...VIEWS, "welcome"]) $(`view-${name}`).hidden = name !== shown;
  $("base-head").classList.toggle("bare", !state.base);
  for (const link of $("tabs").children) {
    if (state.base) link.href = addressOf(state.base, link.dataset.tab);
    if (link.dataset.tab === state.tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = state.base ? `${state.base.name} · ${t("brand")}` : t("brand");
  showUploadsOf(state.base?.id);
  openSidebar(false);
}

/** On a phone the list of knowledge bases is a drawer. */
function openSidebar(open) {
  document.body.classList.toggle("drawer", open);
  $("scrim").hidden = !open;
  $("main").inert = open || !$("viewer-scrim").hidden;
  $("open-sidebar").setAttribute("aria-expanded", String(open));
  if (open) $("close-sidebar").focus();
}

/** Uploads into the knowledge base shown; where there is none, one is created first. */
async function add(batches) {
  if (!batches.length) return;
  const base = state.base ?? (await createBase(batches.find(({ root }) => root)?.root));
  if (!base) return;
  location.hash = addressOf(base, "documents");
  uploadBatches(base, batches);
  showUploadsOf(base.id);
}

function startDrops() {
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const overlay = $("drop-overlay");
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    overlay.hidden = false;
    if (state.base) say($("drop-overlay-text"), "dropHere", { name: isolate(state.base.name) });
    else say($("drop-overlay-text"), "dropNew");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) overlay.hidden = true;
  });
  addEventListener("drop", (event) => {
    overlay.hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    readDrop(event.dataTransfer).then(add).catch(showError);
  });
}

function startPickers() {
  for (const [button, input] of [
    ["pick-files", "files"],
    ["pick-folder", "folder"],
  ]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => {
      const batches = readPicker([...$(input).files]);
      $(input).value = ""; // so that choosing the same folder again is a change
      add(batches).catch(showError);
    });
  }
}

/** While the server is lost, asks until it answers, then reads what may have changed. */
function watchNetwork() {
  let timer = null;
  on("network", (reachable) => {
    $("banner").hidden = reachable;
    if (reachable && timer) {
      clearInterval(timer);
      timer = null;
      load().catch(showError);
    } else if (!reachable) {
      timer ??= setInterval(() => api.reachable().catch(() => {}), RETRY_MS);
    }
  });
}

let jobsShown = false;

async function load() {
  await refreshBases();
  state.info ??= await api.info().catch(showError); // the page works without it
  route();
  if (!jobsShown) await resumeJobs();
  jobsShown = true;
}

bindPage();
startBases();
startAsk();
startDocuments();
startSearch();
startViewer();
startDrops();
startPickers();
watchNetwork();
$("language").addEventListener("click", toggleLanguage);
$("theme").addEventListener("click", toggleTheme);
$("open-sidebar").addEventListener("click", () => openSidebar(true));
$("close-sidebar").addEventListener("click", () => openSidebar(false));
$("scrim").addEventListener("click", () => openSidebar(false));
$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address belongs to the router
  $("main").focus();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("scrim").hidden) {
    openSidebar(false);
    $("open-sidebar").focus();
  }
});
on("language", showView);
addEventListener("hashchange", route);
load().catch(showError);
