/*
 * The panel with a document's text, scrolled to a quote. At the side on a wide screen, a sheet
 * from below on a phone. Long texts are drawn in a window around the quote, piece by piece, so
 * that a book opens as fast as a note.
 */

import * as api from "./api.js";
import { $, bdi, h, icon } from "./dom.js";
import { messageOf, showError } from "./dialogs.js";
import { locate, toUnits } from "./text.js";

const WINDOW = 60_000; // UTF-16 units drawn before and after the quote
const PIECE = 3_000; // smallest piece: the browser lays out only the pieces in sight

const sheet = matchMedia("(max-width: 60rem)");
let opener = null;
let loading = null;

/**
 * Opens a document. `target`: kb (id or name), id, name; optionally page, start and end (code
 * points), quote, supported (false marks the citation as unverified), and version (the text that the
 * offsets count in).
 */
export async function openDocument(target) {
  const panel = $("viewer");
  if (panel.hidden) opener = document.activeElement;
  const body = h("div", { class: "viewer-body", tabindex: "0", role: "region", label: "view" });
  panel.replaceChildren(header(target), note(target), body);
  panel.hidden = false;
  document.body.classList.add("viewing");
  coverRest();
  panel.focus({ preventScroll: true });

  loading?.abort();
  const mine = (loading = new AbortController());
  body.setAttribute("aria-busy", "true");
  try {
    const { kb, id, version } = target;
    const found = await api.documentText(kb, id, version, mine.signal);
    drawText(body, found.text, found.pages ?? [], target);
    if (found.superseded) body.before(warning("supersededHint"));
  } catch (error) {
    if (error.name !== "AbortError") body.replaceChildren(problem(error, target));
  } finally {
    body.removeAttribute("aria-busy");
  }
}

export function closeViewer() {
  if ($("viewer").hidden) return;
  loading?.abort();
  $("viewer").hidden = true;
  $("viewer").replaceChildren();
  document.body.classList.remove("viewing");
  coverRest();
  if (opener?.isConnected) opener.focus();
}

/** As a sheet the panel covers the page: the rest must not take focus. */
function coverRest() {
  const covered = !$("viewer").hidden && sheet.matches;
  $("main").inert = covered;
  $("sidebar").inert = covered;
  $("viewer-scrim").hidden = !covered;
}

function header(target) {
  const { page, name } = target;
  const download = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      label: "download",
      onclick: () => save(target).catch(showError),
    },
    icon("download"),
  );
  const close = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      label: "close",
      onclick: closeViewer,
    },
    icon("close"),
  );
  return h(
    "header",
    { class: "viewer-head" },
    h(
      "div",
      { class: "grow" },
      h("h2", { id: "viewer-title" }, bdi(name)),
      typeof page === "number" ? h("p", { class: "fine", text: ["page", { page }] }) : null,
    ),
    download,
    close,
  );
}

function note({ supported }) {
  return supported === false ? warning("unsupportedHint") : "";
}

const warning = (text) => h("p", { class: "note warn" }, icon("warn"), h("span", { text }));

const problem = (error, target) =>
  h(
    "div",
    {},
    h("p", { class: "problem", role: "alert" }, messageOf(error)),
    target.quote ? h("blockquote", { dir: "auto" }, target.quote) : null,
    h("button", {
      class: "button small",
      type: "button",
      text: "retry",
      onclick: () => openDocument(target),
    }),
  );

async function save({ kb, id, name }) {
  const url = URL.createObjectURL(await api.documentContent(kb, id));
  const link = h("a", { href: url, download: name.split("/").at(-1) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function drawText(body, text, pageStarts, { start, end, quote }) {
  if (!text.trim()) {
    body.replaceChildren(h("p", { class: "nothing", text: "emptyDocument" }));
    return;
  }
  const wanted = typeof start === "number" ? [start, end] : [0, 0];
  const [from, to, ...pages] = toUnits(text, [...wanted, ...pageStarts]);
  const place = locate(text, from, to, quote);
  const mark = place ?? { start: 0, end: 0 };
  const pieces = cut(text, pages);
  const isNear = (piece) => piece.end > mark.start - WINDOW && piece.start < mark.end + WINDOW;
  const first = pieces.findIndex(isNear);
  const last = pieces.findLastIndex(isNear);
  const draw = (piece) => pieceView(text, piece, mark);

  const parts = pieces.slice(first, last + 1).map(draw);
  if (first > 0) parts.unshift(more("earlierText", pieces.slice(0, first), draw));
  if (last < pieces.length - 1) parts.push(more("laterText", pieces.slice(last + 1), draw));
  if (!place) {
    parts.unshift(
      h(
        "div",
        { class: "note warn" },
        h("p", { text: "changedSince" }),
        h("blockquote", { dir: "auto" }, quote),
      ),
    );
  }
  body.replaceChildren(...parts);
  const found = body.querySelector("mark");
  if (found) showMark(body, found);
}

/** Twice: pieces out of sight have an estimated height until they come near. */
function showMark(body, mark) {
  const scroll = () => {
    const gap = mark.getBoundingClientRect().top - body.getBoundingClientRect().top;
    body.scrollTop += gap - body.clientHeight * 0.25;
  };
  scroll();
  requestAnimationFrame(() => {
    scroll();
    requestAnimationFrame(scroll);
  });
}

/** Cuts [0, text.length) into pieces at line ends, and wherever a page begins. */
function cut(text, pages) {
  const pieces = [];
  const numberAt = new Map(pages.map((start, index) => [start, index + 1]));
  const stops = [...new Set([0, ...pages, text.length])].sort((a, b) => a - b);
  for (let index = 0; index + 1 < stops.length; index += 1) {
    let at = stops[index];
    const stop = stops[index + 1];
    while (at < stop) {
      const line = text.indexOf("\n", at + PIECE);
      const end = line < 0 || line >= stop ? stop : line + 1;
      pieces.push({ start: at, end, page: numberAt.get(at) });
      at = end;
    }
  }
  return pieces;
}

function pieceView(text, { start, end, page }, mark) {
  const from = Math.min(Math.max(mark.start, start), end);
  const to = Math.max(Math.min(mark.end, end), from);
  return h(
    "div",
    { class: "piece", dir: "auto" },
    page ? h("p", { class: "page-mark", text: ["page", { page }] }) : null,
    text.slice(start, from),
    to > from ? h("mark", {}, text.slice(from, to)) : null,
    text.slice(to, end),
  );
}

/** A button that puts more pieces in its place, those next to the window first. */
function more(key, rest, draw) {
  const batch = Math.ceil(WINDOW / PIECE);
  const isEarlier = key === "earlierText";
  const button = h("button", {
    class: "button quiet small",
    type: "button",
    text: key,
    onclick: () => {
      const next = isEarlier ? rest.splice(-batch) : rest.splice(0, batch);
      if (isEarlier) button.after(...next.map(draw));
      else button.before(...next.map(draw));
      if (!rest.length) button.remove();
    },
  });
  return button;
}

export function startViewer() {
  sheet.addEventListener("change", coverRest);
  $("viewer-scrim").addEventListener("click", closeViewer);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) closeViewer();
  });
}
