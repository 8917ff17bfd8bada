/*
 * Two languages on one page. A node says *which* message it shows (say, label, placeholder), so
 * that switching the language rewrites every text in place and no view has to be drawn again.
 * The messages themselves are in messages_*.js; a test keeps their keys equal.
 */

import { MESSAGES as en } from "./messages_en.js";
import { MESSAGES as zh } from "./messages_zh.js";
import { lasting } from "./store.js";
import { emit } from "./state.js";

const MESSAGES = { en, zh };
const TARGETS = ["text", "label", "placeholder", "hint"];
const bindings = new WeakMap(); // node -> {target: [key, values]}

export const isChinese = () => document.documentElement.lang.startsWith("zh");

/** A name inside a sentence, kept from reordering the text around it (Unicode isolates). */
export const isolate = (name) => `\u2068${name}\u2069`;

/**
 * The message `key` in the current language. `{name}` is replaced from `values`, numbers in the
 * language's format; a message that is {one, other} is chosen by `values.n`.
 */
export function t(key, values = {}) {
  const language = isChinese() ? "zh" : "en";
  let message = MESSAGES[language][key];
  if (message === undefined) return key;
  if (typeof message === "object") {
    message = message[new Intl.PluralRules("en").select(values.n)] ?? message.other;
  }
  return message.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    if (typeof value !== "number") return value ?? whole;
    return new Intl.NumberFormat(language, { maximumFractionDigits: 2 }).format(value);
  });
}

function show(node, target, key, values) {
  const message = t(key, values);
  if (target === "text") node.textContent = message;
  if (target === "placeholder") node.placeholder = message;
  if (target === "hint") node.title = message;
  if (target === "label") {
    node.setAttribute("aria-label", message);
    if (node.localName === "button") node.title = message; // a whole area needs no tooltip
  }
}

function bind(node, target, key, values) {
  bindings.set(node, { ...bindings.get(node), [target]: [key, values] });
  node.dataset.says = "";
  show(node, target, key, values);
  return node;
}

/** Sets the text of `node` to a message. */
export const say = (node, key, values) => bind(node, "text", key, values);

/** Sets the accessible name of `node`; a button shows it as a tooltip too. */
export const label = (node, key, values) => bind(node, "label", key, values);

/** Sets the tooltip of `node` and leaves its accessible name alone. */
export const hint = (node, key, values) => bind(node, "hint", key, values);

export const placeholder = (node, key, values) => bind(node, "placeholder", key, values);

/** Binds what index.html declares with data-text, data-label and data-placeholder. */
export function bindPage() {
  for (const target of TARGETS) {
    for (const node of document.querySelectorAll(`[data-${target}]`)) {
      bind(node, target, node.dataset[target]);
    }
  }
}

export function toggleLanguage() {
  const language = isChinese() ? "en" : "zh-CN";
  document.documentElement.lang = language;
  lasting.set("kb.language", language);
  for (const node of document.querySelectorAll("[data-says]")) {
    for (const [target, [key, values]] of Object.entries(bindings.get(node) ?? {})) {
      show(node, target, key, values);
    }
  }
  emit("language");
}
