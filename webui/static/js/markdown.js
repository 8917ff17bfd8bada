/*
 * Answers as Markdown, without ever making HTML. The vendored `marked` only splits the text into
 * tokens; the nodes are built here from a fixed list of elements. What is not on the list is
 * shown as the text it was: raw HTML, images (their description), links (label and address, not
 * clickable). So nothing an answer says can run, load or lead anywhere.
 */

import { Marked } from "../vendor/marked/marked.esm.js";
import { h } from "./dom.js";

const never = () => undefined; // "this rule does not match": the source stays ordinary text
const parser = new Marked({
  gfm: true,
  breaks: true,
  tokenizer: { html: never, tag: never, def: never, autolink: never, url: never },
});

/** Renders `source` into nodes. `inlineText(text)` makes the nodes for a run of plain text. */
export function renderMarkdown(source, inlineText = (text) => [text]) {
  return blocks(parser.lexer(source), inlineText);
}

function blocks(tokens, inlineText) {
  return tokens.flatMap((token) => block(token, inlineText));
}

function block(token, inlineText) {
  const children = () => inline(token.tokens ?? [], inlineText);
  switch (token.type) {
    case "space":
    case "checkbox":
      return [];
    case "heading":
      return h("p", { class: `heading heading-${Math.min(token.depth, 3)}` }, children());
    case "paragraph":
      return h("p", {}, children());
    case "text":
      return token.tokens ? children() : inlineText(token.text);
    case "code":
      return h("pre", {}, h("code", {}, token.text));
    case "blockquote":
      return h("blockquote", {}, blocks(token.tokens, inlineText));
    case "hr":
      return h("hr");
    case "list":
      return list(token, inlineText);
    case "table":
      return table(token, inlineText);
    default:
      return h("p", {}, inlineText(token.raw ?? ""));
  }
}

function list(token, inlineText) {
  const items = token.items.map((item) => h("li", {}, blocks(item.tokens, inlineText)));
  if (!token.ordered) return h("ul", {}, items);
  return h("ol", { start: Number(token.start) }, items);
}

function table(token, inlineText) {
  const row = (cells, tag) =>
    h(
      "tr",
      {},
      cells.map((cell) => h(tag, {}, inline(cell.tokens, inlineText))),
    );
  return h(
    "div",
    { class: "table-scroll", tabindex: "0", role: "group" },
    h(
      "table",
      {},
      h("thead", {}, row(token.header, "th")),
      h(
        "tbody",
        {},
        token.rows.map((cells) => row(cells, "td")),
      ),
    ),
  );
}

function inline(tokens, inlineText) {
  return tokens.flatMap((token) => {
    const children = () => inline(token.tokens ?? [], inlineText);
    switch (token.type) {
      case "strong":
      case "em":
      case "del":
        return h(token.type, {}, children());
      case "codespan":
        return h("code", {}, token.text);
      case "br":
        return h("br");
      case "image":
        return inlineText(token.text || token.href);
      case "link":
        return token.text === token.href ? children() : [...children(), ` (${token.href})`];
      case "text":
        return token.tokens ? children() : inlineText(token.text);
      case "escape":
        return inlineText(token.text);
      default:
        return inlineText(token.raw ?? "");
    }
  });
}
