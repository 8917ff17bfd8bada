/*
 * One question and its answer: the text as it streams, then the proven answer with its citations
 * and passages, or a refusal, or what went wrong.
 */

import { chip, chipMaker, citationList, splitVerbatim } from "./citations.js";
import { bdi, h, icon } from "./dom.js";
import { messageOf, notice } from "./dialogs.js";
import { say, t } from "./i18n.js";
import { renderMarkdown } from "./markdown.js";
import { howView } from "./how.js";
import { hitList, noticeList } from "./passages.js";
import { state } from "./state.js";
import { thumbs } from "./thumbs.js";

let isExplained = false; // the note on extractive answers is open in the first one only

/** `onRetry` asks the same question again. */
export function turnView(question, onRetry) {
  const status = h("p", { class: "turn-status fine", role: "status", text: "searching" });
  const text = h("div", { class: "answer-text", dir: "auto" });
  const after = h("div", {});
  const answer = h("div", { class: "answer", "aria-busy": "true" }, text, status, after);
  const node = h(
    "article",
    { class: "turn" },
    h("h2", { class: "asked", dir: "auto" }, question),
    answer,
  );
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
        after.replaceChildren(
          noticeList(reply.notices),
          rewrittenView(reply),
          citationList(reply.citations),
          passageList(reply.passages),
          footer(reply),
          howView(reply) ?? "",
        );
      }
    },
    /** Stopped by the user: what has arrived stays. */
    stopped() {
      end();
      draw();
      answer.classList.remove("streaming");
      after.replaceChildren(
        h("p", { class: "fine" }, h("span", { class: "badge", text: "stopped" })),
      );
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
function body(text, model, { citations = [], answer_span: span = null } = {}) {
  if (model !== "extractive") return renderMarkdown(text, chipMaker(citations));
  let emphasis = span?.text; // the short answer, once
  const parts = splitVerbatim(text, citations).map((part) => {
    if (typeof part !== "string") return chip(part);
    const at = emphasis ? part.indexOf(emphasis) : -1;
    if (at < 0) return part;
    const end = at + emphasis.length;
    emphasis = "";
    return [part.slice(0, at), h("strong", {}, part.slice(at, end)), part.slice(end)];
  });
  return [h("p", { class: "verbatim" }, parts)];
}

function passageList(passages) {
  if (!passages.length) return "";
  const summary = h("summary", { text: ["passages", { n: passages.length }] });
  return h("details", { class: "passages" }, summary, hitList(passages));
}

function refusal(reply) {
  const nearest = reply.passages.length ? hitList(reply.passages) : null;
  return h(
    "section",
    { class: "refusal" },
    h("p", { class: "refusal-title" }, icon("target"), h("span", { text: "refused" })),
    reply.answer ? h("p", { class: "verbatim", dir: "auto" }, reply.answer) : null,
    noticeList(reply.notices),
    rewrittenView(reply),
    nearest,
    h("footer", { class: "turn-foot fine" }, supportView(reply), thumbs(reply)),
    howView(reply),
  );
}

/** A follow-up as it was looked up, where that differs from what was typed. */
const rewrittenView = ({ rewritten }) =>
  rewritten
    ? h("p", { class: "fine rewritten" }, h("span", { text: "lookedUp" }), " ", bdi(rewritten))
    : "";

const supportView = ({ support }) =>
  h("span", { text: ["support", { n: Math.round(support * 100) }], hint: "supportHint" });

function footer(reply) {
  const { total_ms: total, tokens_per_s: speed } = reply.timings ?? {};
  const copy = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      label: "copy",
      onclick: () => copyReply(reply),
    },
    icon("copy"),
  );
  const extractive = reply.model === "extractive";
  const model = extractive ? extractiveNote() : h("span", {}, reply.model);
  return h(
    "footer",
    { class: "turn-foot fine" },
    model,
    supportView(reply),
    typeof total === "number" ? h("span", { text: ["seconds", { n: total / 1000 }] }) : null,
    speed ? h("span", { text: ["tokensPerSecond", { n: speed }] }) : null,
    thumbs(reply),
    copy,
  );
}

/** What an extractive answer is, and the command that installs a model; base.css shows one. */
function extractiveNote() {
  const { note_zh: zh = "", note_en: en = "" } = state.info?.answerer ?? {};
  const note = h(
    "details",
    { class: "extractive", open: !isExplained },
    h("summary", { text: "extractive" }),
    h("p", { lang: "zh-CN", class: "only-chinese" }, zh),
    h("p", { lang: "en", class: "only-english" }, en),
  );
  isExplained = true;
  return note;
}

async function copyReply(reply) {
  const sources = reply.citations.map((citation) => {
    const page = typeof citation.page === "number" ? `, ${t("page", { page: citation.page })}` : "";
    return `${citation.marker} ${citation.document}${page}: ${citation.quote}`;
  });
  try {
    await navigator.clipboard.writeText([reply.answer, ...sources].join("\n"));
    notice(t("copied"));
  } catch (error) {
    notice(messageOf(error), { isError: true });
  }
}
