/*
 * Citations: the chips inside an answer and the list below it. The server proves and orders them
 * by their place in the answer, so they are matched in order; a marker that belongs to none of
 * them, such as one that a quoted document contains, stays plain text.
 */

import { bdi, h } from "./dom.js";
import { label } from "./i18n.js";
import { idOfBase } from "./state.js";
import { openDocument } from "./viewer.js";

const MARKERS = /(\[\d{1,3}\])/;

const numberOf = (citation) => citation.marker.replace(/\D/g, "");

/**
 * Splits a verbatim answer into text and citations. The quote itself is looked for first: a
 * document may hold signs like "[1]" of its own.
 */
export function splitVerbatim(text, citations) {
  const parts = [];
  let position = 0;
  for (const citation of citations) {
    const { marker, quote } = citation;
    const quoted = text.indexOf(`${quote} ${marker}`, position);
    const at = text.indexOf(marker, quoted < 0 ? position : quoted + quote.length);
    if (at < 0) continue;
    parts.push(text.slice(position, at), citation);
    position = at + marker.length;
  }
  return [...parts, text.slice(position)].filter(Boolean);
}

/** Makes the function that turns the markers in successive runs of text into chips. */
export function chipMaker(citations) {
  let next = 0;
  return (text) =>
    text
      .split(MARKERS)
      .filter(Boolean)
      .map((part) => {
        if (!MARKERS.test(part)) return part;
        const found = citations.findIndex(({ marker }, index) => index >= next && marker === part);
        if (found < 0) return part;
        next = found + 1;
        return chip(citations[found]);
      });
}

function open(citation) {
  return openDocument({
    kb: idOfBase(citation.kb),
    id: citation.document_id,
    name: citation.document,
    page: citation.page,
    start: citation.start,
    end: citation.end,
    quote: citation.quote,
    supported: citation.supported,
    version: citation.version_id,
  });
}

export function chip(citation) {
  const marker = numberOf(citation);
  const unsure = citation.supported === false;
  const node = h(
    "button",
    {
      class: unsure ? "chip unsupported" : "chip",
      type: "button",
      onclick: () => open(citation),
    },
    unsure ? `${marker}?` : marker,
  );
  const key = unsure ? "citationUnsupported" : "citation";
  return label(node, key, { marker, name: citation.document });
}

export function citationList(citations) {
  if (!citations.length) return "";
  return h("ol", { class: "citations", label: "citations" }, citations.map(item));
}

function item(citation) {
  const { page, supported } = citation;
  const name = h(
    "span",
    { class: "source-name" },
    bdi(citation.document),
    pageView(page),
    supported === false
      ? h("span", { class: "badge unsupported", text: "unsupported", hint: "unsupportedHint" })
      : null,
  );
  const quote = h("span", { class: "quote", dir: "auto" }, citation.quote);
  const source = h("button", { class: "source", type: "button", onclick: () => open(citation) });
  source.append(name, quote);
  return h("li", {}, chip(citation), source);
}

/** "page 3", or nothing where the format has no pages. */
export const pageView = (page) =>
  typeof page === "number" ? h("span", { class: "fine", text: ["page", { page }] }) : null;
