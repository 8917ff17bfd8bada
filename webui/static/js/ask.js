/*
 * The conversation with a knowledge base: one per knowledge base, kept while the page is open.
 * Earlier turns go along with a follow-up; a stopped, failed or refused one does not.
 */

import * as api from "./api.js";
import { turnView } from "./answer.js";
import { addressOf } from "./bases.js";
import { $, bdi, h } from "./dom.js";
import { filterOf } from "./filter.js";
import { isolate } from "./i18n.js";
import { on, state } from "./state.js";
import { session } from "./store.js";

const HISTORY_TURNS = 6;
// On a touch screen, focus would raise the keyboard over the page.
const hasKeyboard = matchMedia("(hover: hover)");

const talks = new Map(); // knowledge base id -> {node, history, stop, also}

function currentTalk() {
  const { id } = state.base;
  if (!talks.has(id)) {
    const node = h("div", { class: "turns", role: "log" });
    talks.set(id, { node, history: [], stop: null, also: new Set() });
  }
  return talks.get(id);
}

/** Shows the conversation of the knowledge base that is shown, or what to do first. */
function draw() {
  if (!state.base) return;
  const talk = currentTalk();
  const begun = talk.node.childElementCount > 0;
  // Put in place once only: moving it would lose the focus and the scroll position.
  if (!begun) $("talk").replaceChildren(emptyTalk());
  else if (!talk.node.isConnected) $("talk").replaceChildren(talk.node);
  $("new-talk").hidden = !begun;
  drawButtons(talk);
  drawAlso(talk);
}

function emptyTalk() {
  const values = { name: isolate(state.base.name) };
  if (state.base.documents) {
    return h(
      "div",
      { class: "blank" },
      h("h2", { text: ["askEmpty", values] }),
      h("p", { text: "askEmptyText" }),
    );
  }
  return h(
    "div",
    { class: "blank" },
    h("h2", { text: ["askNoDocuments", values] }),
    h("p", { text: "askNoDocumentsText" }),
    h("a", {
      class: "button primary",
      href: addressOf(state.base, "documents"),
      text: "addDocuments",
    }),
  );
}

function drawButtons(talk) {
  $("send").hidden = talk.stop !== null;
  $("stop").hidden = talk.stop === null;
}

function drawAlso(talk) {
  const others = state.bases.filter(({ id }) => id !== state.base.id);
  $("also").hidden = others.length === 0;
  const count = () => ($("also-count").textContent = talk.also.size ? `+${talk.also.size}` : "");
  const boxes = others.map(({ id, name }) => {
    const box = h("input", { type: "checkbox", checked: talk.also.has(id) });
    box.addEventListener("change", () => {
      if (box.checked) talk.also.add(id);
      else talk.also.delete(id);
      count();
    });
    return h("label", {}, box, bdi(name));
  });
  $("also-list").replaceChildren(...boxes);
  count();
}

async function ask(base, talk, question) {
  const turn = turnView(question, () => {
    turn.node.remove();
    ask(base, talk, question);
  });
  const isShown = () => state.base?.id === base.id;
  talk.node.append(turn.node);
  talk.stop?.abort();
  const mine = (talk.stop = new AbortController());
  if (isShown()) draw();
  turn.node.scrollIntoView({ block: "start" }); // and it stays there while the answer grows

  const history = talk.history.slice(-HISTORY_TURNS);
  const body = { question, history, ...filterOf("ask-filter") };
  const others = state.bases.map(({ id }) => id).filter((id) => talk.also.has(id));
  if (others.length) body.kbs = others;
  try {
    const reply = await read(base, body, turn, mine.signal);
    if (!reply.refused) talk.history.push({ question, answer: reply.answer, trace_id: reply.trace_id });
  } catch (error) {
    if (error.name === "AbortError") turn.stopped();
    else turn.failed(error);
  } finally {
    if (talk.stop === mine) talk.stop = null;
    if (isShown()) drawButtons(talk);
  }
}

/** Reads the events of one answer into `turn`; resolves to the finished reply. */
async function read(base, body, turn, signal) {
  for await (const { event, data } of api.ask(base.id, body, signal)) {
    if (event === "retrieved") turn.retrieved(data.passages);
    else if (event === "token") turn.token(data.text);
    else if (event === "error") throw new api.ApiError(200, data.type, data.message);
    else if (event === "finished") {
      turn.finished(data);
      return data;
    }
  }
  throw new api.NetworkError("the answer ended early");
}

function submit(event) {
  event.preventDefault();
  const box = $("question");
  const question = box.value.trim();
  if (!question || !state.base || currentTalk().stop) return;
  box.value = "";
  saveDraft();
  fit();
  ask(state.base, currentTalk(), question);
}

/** Enter sends, except while an input method is composing: there it picks a word. */
function onKey(event) {
  const composing = event.isComposing || event.keyCode === 229;
  if (event.key === "Enter" && !event.shiftKey && !composing) submit(event);
}

const draftName = () => `kb.draft.${state.base?.id}`;

function saveDraft() {
  if (state.base) session.set(draftName(), $("question").value);
}

/** Grows the box with its text; ask.css limits the height. */
function fit() {
  const box = $("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

function newTalk() {
  currentTalk().stop?.abort();
  talks.delete(state.base.id);
  draw();
  $("question").focus();
}

export function startAsk() {
  $("composer").addEventListener("submit", submit);
  $("question").addEventListener("keydown", onKey);
  $("question").addEventListener("input", () => {
    saveDraft();
    fit();
  });
  $("stop").addEventListener("click", () => {
    currentTalk().stop?.abort();
    $("question").focus();
  });
  $("new-talk").addEventListener("click", newTalk);
  addEventListener("click", ({ target }) => {
    for (const id of ["also", "ask-filter", "search-filter"]) {
      if (!$(id).contains(target)) $(id).open = false;
    }
  });
  on("bases", draw);
  on("base", (baseChanged) => {
    draw();
    if (baseChanged && state.base) $("question").value = session.get(draftName()) ?? "";
    if (state.tab !== "ask") return;
    fit();
    if (hasKeyboard.matches) $("question").focus({ preventScroll: true });
  });
}
