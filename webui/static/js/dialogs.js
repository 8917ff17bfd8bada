/*
 * Dialogs and notices. A dialog stays open, with what was typed, until its action has succeeded;
 * the server's message appears inside it.
 */

import { $, h } from "./dom.js";
import { NetworkError, onKeyNeeded, useKey } from "./api.js";
import { t } from "./i18n.js";

const NOTICE_MS = 8000;

/** The sentence to show for an error: the server's own words where it gave some. */
export function messageOf(error) {
  return error instanceof NetworkError ? t("networkError") : error.message || String(error);
}

/** Shows a passing notice; errors stay until dismissed. */
export function notice(message, { isError = false } = {}) {
  const close = () => node.remove();
  const node = h(
    "div",
    { class: isError ? "toast bad" : "toast" },
    h("p", {}, message),
    h("button", { class: "button quiet small", type: "button", text: "dismiss", onclick: close }),
  );
  $("toasts").append(node);
  if (!isError) setTimeout(close, NOTICE_MS);
}

export const showError = (error) => notice(messageOf(error), { isError: true });

/**
 * Opens a modal dialog. `parts`: title, text, action (messages as in h), content (nodes), danger.
 * `act` runs on the action and may fail; resolves to its value, or null when dismissed.
 */
function openDialog({ title, text, action, content = [], danger = false }, act) {
  return new Promise((resolve) => {
    let outcome = null;
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const confirm = h("button", { class: `button ${danger ? "danger" : "primary"}`, text: action });
    const cancel = h("button", {
      class: "button",
      type: "button",
      text: "cancel",
      onclick: () => dialog.close(),
    });
    const form = h(
      "form",
      { onsubmit: submit },
      h("h2", { text: title }),
      text ? h("p", { text }) : null,
      content,
      problem,
      h("div", { class: "row end" }, cancel, confirm),
    );
    const dialog = h("dialog", { class: "dialog", onclose: done }, form);

    async function submit(event) {
      event.preventDefault();
      confirm.disabled = true;
      problem.hidden = true;
      try {
        outcome = (await act()) ?? true;
        dialog.close();
      } catch (error) {
        problem.textContent = messageOf(error);
        problem.hidden = false;
      } finally {
        confirm.disabled = false;
      }
    }
    function done() {
      dialog.remove();
      resolve(outcome);
    }

    document.body.append(dialog);
    dialog.showModal();
    if (danger) cancel.focus();
  });
}

/** Asks before something is lost; `act` does it. */
export const confirmDialog = (parts, act) => openDialog({ ...parts, danger: true }, act);

/** Asks for one line of text; `act(value)` uses it and may refuse by throwing. */
export function promptDialog({ field, value = "", missing, type = "text", ...parts }, act) {
  const input = h("input", { type, autocomplete: "off", autofocus: true });
  input.value = value;
  const content = h("label", { class: "field" }, h("span", { text: field }), input);
  return openDialog({ ...parts, content: [content] }, () => {
    const given = input.value.trim();
    if (!given) throw new Error(t(missing));
    return act(given);
  });
}

onKeyNeeded((rejected) =>
  promptDialog(
    {
      title: "keyNeeded",
      text: rejected ? "keyRejected" : "keyText",
      field: "key",
      missing: "keyNeeded",
      action: "ok",
      type: "password",
    },
    (key) => {
      // A header value can hold nothing else, and fetch would fail with a riddle.
      if (!/^[\x21-\x7e]+$/.test(key)) throw new Error(t("keyCharacters"));
      useKey(key);
      return true;
    },
  ).then(Boolean),
);
