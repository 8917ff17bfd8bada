/* Search without an answer: shows what retrieval finds and why. */

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { messageOf } from "./dialogs.js";
import { say } from "./i18n.js";
import { filterOf } from "./filter.js";
import { hitList, noticeList } from "./passages.js";
import { on, state } from "./state.js";

let running = null;

async function run(event) {
  event.preventDefault();
  const question = $("search-question").value.trim();
  if (!question) {
    $("search-question").focus();
    return;
  }
  running?.abort();
  const mine = (running = new AbortController());
  const began = performance.now();
  const body = {
    question,
    top_k: Number($("search-top-k").value),
    channel: $("search-channel").value,
    ...filterOf("search-filter"),
  };
  say($("search-summary"), "searching");
  try {
    const { hits, notices } = await api.search(state.base.id, body, mine.signal);
    const ms = Math.round(performance.now() - began);
    say($("search-summary"), hits.length ? "hitSummary" : "hitNone", { n: hits.length, ms });
    $("search-hits").replaceChildren(noticeList(notices), hitList(hits));
  } catch (error) {
    if (error.name === "AbortError") return;
    $("search-summary").textContent = "";
    $("search-hits").replaceChildren(h("p", { class: "problem", role: "alert" }, messageOf(error)));
  }
}

export function startSearch() {
  $("search-form").addEventListener("submit", run);
  for (const id of ["search-channel", "search-top-k"]) {
    $(id).addEventListener("change", () => {
      if ($("search-question").value.trim()) $("search-form").requestSubmit();
    });
  }
  on("base", (baseChanged) => {
    if (!baseChanged) return;
    running?.abort();
    $("search-hits").replaceChildren();
    $("search-summary").textContent = "";
  });
}
