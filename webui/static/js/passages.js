/* Hits and passages as a list: where each stands, its score and what each channel said of it. */

import { bdi, h } from "./dom.js";
import { label } from "./i18n.js";
import { pageView } from "./citations.js";
import { idOfBase } from "./state.js";
import { openDocument } from "./viewer.js";

const CHANNELS = [
  ["dense", "denseScore"],
  ["lexical", "lexicalScore"],
  ["rerank", "rerankScore"],
];

/** `hits`: the search contract of the API, best first. */
export const hitList = (hits) => h("ol", { class: "hits" }, hits.map(hitItem));

/** What a reader should know of how something was found; "" where there is nothing. */
export const noticeList = (notices = []) =>
  notices.length
    ? h(
        "ul",
        { class: "notices fine" },
        notices.map(({ kind, kb, detail }) =>
          h("li", { title: detail }, h("span", { text: [`notice_${kind}`, { kb }] })),
        ),
      )
    : "";

function alsoIn(duplicates) {
  const names = duplicates.flatMap((each, i) => [i ? ", " : " ", bdi(each.document)]);
  return h("p", { class: "fine" }, h("span", { text: "alsoIn" }), names);
}

function hitItem(hit) {
  const base = idOfBase(hit.kb);
  const open = () =>
    openDocument({
      kb: base,
      id: hit.document_id,
      name: hit.document,
      page: hit.page,
      start: hit.start,
      end: hit.end,
      quote: hit.text,
    });
  const meter = h("meter", { min: 0, max: 1, value: hit.score });
  label(meter, "score", { score: hit.score });
  const channels = CHANNELS.filter(([name]) => typeof hit.channels?.[name] === "number").map(
    ([name, text]) => h("span", {}, h("span", { text }), ` ${hit.channels[name].toFixed(3)}`),
  );
  return h(
    "li",
    { class: "hit" },
    h(
      "header",
      {},
      h("button", { class: "link", type: "button", onclick: open }, bdi(hit.document)),
      pageView(hit.page),
      hit.heading ? bdi(hit.heading, { class: "fine heading-path" }) : null,
    ),
    hit.also_in?.length ? alsoIn(hit.also_in) : null,
    h("p", { class: "hit-text", dir: "auto" }, hit.text.trim().replace(/\n\s*\n/g, "\n")),
    h(
      "p",
      { class: "scores fine" },
      meter,
      h("span", { text: ["score", { score: hit.score }] }),
      channels,
    ),
  );
}
