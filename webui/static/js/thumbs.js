/* Thumbs under an answer: kept by the server with the stored answer, see `kb feedback export`. */

import { rateAnswer, takeBackRating } from "./api.js";
import { messageOf, notice } from "./dialogs.js";
import { h, icon } from "./dom.js";
import { t } from "./i18n.js";

/** Two buttons of which at most one is pressed; pressing it again takes the rating back. */
export function thumbs(reply) {
  if (!reply.trace_id) return null; // the answer could not be stored
  const buttons = { up: button("up", "thumbUp"), down: button("down", "thumbDown") };

  function button(rating, label) {
    return h(
      "button",
      {
        class: "icon-button thumb",
        type: "button",
        label,
        "aria-pressed": "false",
        onclick: () => press(rating),
      },
      icon(`thumb-${rating}`),
    );
  }

  async function press(rating) {
    const isBack = buttons[rating].getAttribute("aria-pressed") === "true";
    for (const node of Object.values(buttons)) node.disabled = true;
    try {
      if (isBack) await takeBackRating(reply.trace_id);
      else await rateAnswer(reply.trace_id, rating);
      for (const [name, node] of Object.entries(buttons)) {
        node.setAttribute("aria-pressed", String(name === rating && !isBack));
      }
      notice(t(isBack ? "ratingTaken" : "rated"));
    } catch (error) {
      notice(messageOf(error), { isError: true });
    } finally {
      for (const node of Object.values(buttons)) node.disabled = false;
      buttons[rating].focus();
    }
  }

  return h("span", { class: "thumbs", role: "group", label: "thumbs" }, buttons.up, buttons.down);
}
