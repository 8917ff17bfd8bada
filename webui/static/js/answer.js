/*
 * One question and its answer: the text as it streams, citation chips, the list of citations, the
 * passages, and what went wrong. Chips are the server's citations only; a marker without one
 * stays plain text.
 */

import { bdi, h, icon } from "./dom.js";
import { messageOf, notice } from "./dialogs.js";
import { label, say, t } from "./i18n.js";
import { renderMarkdown } from "./markdown.js";
import { hitList } from "./passages.js";
import { state } from "./state.js";
import { openDocument } from "./viewer.js";

const MARKER = /\[(\d{1,3})\]/;

/** `onRetry` asks the same question again. */
export function turnView(question, onRetry) {
  const status = h("p", { class: "turn-status fine", role: "status", text: "searching" });
  const text = h("div", { class: "answer-text", dir: "auto" });
  const after = h("div", {});
  const answer = h("div", { class: "answer", "aria-busy": "true" }, text, status, after);
  const node = h("article", { class: "turn" }, h("h2", { class: "asked", dir: "auto" }, question), answer);
  let streamed = "";
  let frame = null;

  function draw() {
    frame = null;
    text.replaceChildren(...body(streamed, state.info?.answerer.model));
  }

  function end() {
    cancelAnimationFrame(frame);
    frame = null;
    answer.removeAttribute("aria-busy");
    status.hidden = true;
  }

  return {
    node,
    retrieved(passages) {
      say(status, "readingPassages", { n: passages.length });
    },
    token(piece) {
      streamed += piece;
      status.hidden = true;
      answer.classList.add("streaming");
      frame ??= requestAnimationFrame(draw);
    },
    finished(reply) {
      end();
      answer.classList.remove("streaming");
      if (reply.refused) answer.replaceChildren(refusal(reply));
      else {
        text.replaceChildren(...body(reply.answer, reply.model, reply));
        after.replaceChildren(citationList(reply.citations), passageList(reply.passages), footer(reply));
      }
    },
    /** Stopped by the user: what has arrived stays. */
    stopped() {
      end();
      draw();
      answer.classList.remove("streaming");
      after.replaceChildren(h("p", { class: "fine" }, h("span", { class: "badge", text: "stopped" })));
    },
    failed(error) {
      end();
      answer.classList.remove("streaming");
      after.replaceChildren(
        h("p", { class: "problem", role: "alert" }, messageOf(error)),
        h("button", { class: "button small", type: "button", text: "retry", onclick: onRetry }),
      );
    },
  };
}

/** Extractive answers quote the documents verbatim, so their signs are not Markdown. */
function body(text, model, reply = null) {
  const chips = chipMaker(reply?.citations ?? []);
  if (model !== "extractive") return renderMarkdown(text, chips);
  const paragraphs = text.split(/\n{2,}/).filter((part) => part.trim());
  const span = reply?.answer_span?.text;
  let emphasised = false;
  return paragraphs.map((paragraph) => {
    const at = span && !emphasised ? paragraph.indexOf(span) : -1;
    if (at < 0) return h("p", { class: "verbatim" }, chips(paragraph));
    emphasised = true;
    const rest = paragraph.slice(at + span.length);
    return h("p", { class: "verbatim" }, chips(paragraph.slice(0, at)), h("strong", {}, span), chips(rest));
  });
}

const numberOf = (citation) => String(citation.marker).replace(/\D/g, "");

/**
 * Makes the function that turns the markers in a run of text into chips. Several citations may
 * share a marker (two quotes of one passage); they are used in the order of their occurrence.
 */
function chipMaker(citations) {
  const waiting = new Map();
  for (const citation of citations) {
    const number = numberOf(citation);
    waiting.set(number, [...(waiting.get(number) ?? []), citation]);
  }
  return (text) =>
    text.split(/(\[\d{1,3}\])/).filter(Boolean).map((part) => {
      const number = part.match(MARKER)?.[1];
      const queue = part.length === number?.length + 2 ? waiting.get(number) : undefined;
      if (!queue) return part;
      return chip(queue.length > 1 ? queue.shift() : queue[0]);
    });
}

function open(citation) {
  return openDocument({
    kb: citation.kb,
    id: citation.document_id,
    name: citation.document,
    page: citation.page,
    start: citation.start,
    end: citation.end,
    quote: citation.quote,
    supported: citation.supported,
  });
}

function chip(citation) {
  const marker = numberOf(citation);
  const unsure = citation.supported === false;
  const node = h("button", {
    class: unsure ? "chip unsupported" : "chip",
    type: "button",
    onclick: () => open(citation),
  }, unsure ? `${marker}?` : marker);
  return label(node, unsure ? "citationUnsupported" : "citation", { marker, name: citation.document });
}

function citationList(citations) {
  if (!citations.length) return "";
  const items = citations.map((citation) =>
    h(
      "li",
      {},
      chip(citation),
      h(
        "button",
        { class: "source", type: "button", onclick: () => open(citation) },
        h(
          "span",
          { class: "source-name" },
          bdi(citation.document),
          typeof citation.page === "number" ? h("span", { class: "fine", text: ["page", { page: citation.page }] }) : null,
          citation.supported === false
            ? h("span", { class: "badge unsupported", text: "unsupported", hint: "unsupportedHint" })
            : null,
        ),
        h("span", { class: "quote", dir: "auto" }, citation.quote),
      ),
    ),
  );
  return h("section", { class: "citations", label: "citations" }, h("ol", {}, items));
}

function passageList(passages) {
  if (!passages.length) return "";
  const summary = h("summary", { text: ["passages", { n: passages.length }] });
  return h("details", { class: "passages" }, summary, hitList(passages));
}

function refusal(reply) {
  const nearest = reply.passages.length
    ? [h("p", { class: "fine", text: "refusedNearest" }), hitList(reply.passages)]
    : [];
  return h(
    "section",
    { class: "refusal" },
    h("p", { class: "refusal-title" }, icon("target"), h("span", { text: "refused" })),
    reply.answer ? h("p", { class: "verbatim", dir: "auto" }, reply.answer) : null,
    nearest,
    h("p", { class: "turn-foot fine" }, supportView(reply)),
  );
}

const supportView = ({ support }) =>
  h("span", { text: ["support", { n: Math.round(support * 100) }], hint: "supportHint" });

function footer(reply) {
  const { total_ms: total, tokens_per_s: speed } = reply.timings ?? {};
  const copy = h("button", {
    class: "icon-button", type: "button", label: "copy", onclick: () => copyReply(reply),
  }, icon("copy"));
  const extractive = reply.model === "extractive";
  const model = extractive ? extractiveNote() : h("span", {}, reply.model);
  return h(
    "footer",
    { class: "turn-foot fine" },
    model,
    supportView(reply),
    typeof total === "number" ? h("span", { text: ["seconds", { n: total / 1000 }] }) : null,
    speed ? h("span", { text: ["tokensPerSecond", { n: speed }] }) : null,
    copy,
  );
}

/** What an extractive answer is, and the command that installs a model; style.css picks one. */
function extractiveNote() {
  const { note_zh: zh = "", note_en: en = "" } = state.info?.answerer ?? {};
  return h(
    "details",
    { class: "extractive" },
    h("summary", { text: "extractive" }),
    h("p", { lang: "zh-CN", class: "only-chinese" }, zh),
    h("p", { lang: "en", class: "only-english" }, en),
  );
}

async function copyReply(reply) {
  const sources = reply.citations.map((citation) => {
    const page = typeof citation.page === "number" ? `, ${t("page", { page: citation.page })}` : "";
    return `[${numberOf(citation)}] ${citation.document}${page}: ${citation.quote}`;
  });
  try {
    await navigator.clipboard.writeText([reply.answer, ...sources].join("\n"));
    notice(t("copied"));
  } catch (error) {
    notice(messageOf(error), { isError: true });
  }
}
