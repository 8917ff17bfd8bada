/* How an answer was made: what was looked up, what was found and dropped, what the model read. */

import { readTrace } from "./api.js";
import { messageOf } from "./dialogs.js";
import { bdi, h } from "./dom.js";

const COLUMNS = ["document", "score", "dense", "lexical", "rerank", "dropped"];

/** A panel that is read from the server when it is first opened; null for an unstored answer. */
export function howView(reply) {
  if (!reply.trace_id) return null;
  const body = h("div", {});
  const panel = h("details", { class: "how" }, h("summary", { text: "how" }), body);
  panel.addEventListener("toggle", async () => {
    if (!panel.open || body.childElementCount) return;
    try {
      body.replaceChildren(...parts(await readTrace(reply.trace_id)));
    } catch (error) {
      body.replaceChildren(h("p", { class: "problem", role: "alert" }, messageOf(error)));
    }
  });
  return panel;
}

function parts(trace) {
  if (trace.redacted) return [h("p", { class: "fine", text: "howRedacted" })];
  const shown = trace.candidates ?? [];
  return [
    trace.rewritten ? h("p", { class: "fine" }, h("span", { text: "lookedUp" }), " ", bdi(trace.rewritten)) : null,
    shown.length ? table(shown) : null,
    trace.prompt
      ? h("details", {}, h("summary", { text: "prompt" }), trace.prompt.messages.map(message))
      : null,
    h("p", { class: "fine" }, h("code", {}, `kb replay ${trace.trace_id}`)),
  ].filter(Boolean);
}

function table(candidates) {
  const head = COLUMNS.map((name) => h("th", { scope: "col", text: `how_${name}` }));
  return h(
    "div",
    { class: "how-table" },
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, candidates.map(row))),
  );
}

function row(candidate) {
  const number = (value) => (typeof value === "number" ? value.toFixed(3) : "–");
  return h(
    "tr",
    {},
    h("td", {}, bdi(candidate.document || "–")),
    ["score", "dense", "lexical", "rerank"].map((name) => h("td", {}, number(candidate[name]))),
    h("td", { text: `dropped_${candidate.dropped || "shown"}` }),
  );
}

const message = ({ role, text }) =>
  h("div", {}, h("p", { class: "fine" }, role), h("pre", { class: "prompt", dir: "auto" }, text));
