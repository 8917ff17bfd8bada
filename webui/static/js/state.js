/*
 * What the whole page shares, and the events by which its parts hear of changes:
 *   base       another knowledge base, or another tab, is shown
 *   bases      the list of knowledge bases was read again
 *   documents  the documents of a knowledge base changed (detail: its id)
 *   progress   a running job stored more of them (detail: the knowledge base's id)
 *   language   the language was switched
 *   network    the server was lost or is back (detail: true when it is reachable)
 */

export const state = {
  bases: [],
  base: null, // the knowledge base shown, one of `bases`
  tab: "ask",
  info: null, // GET /info
};

/** The id of a knowledge base named in a reply; it stays right when the name changes later. */
export const idOfBase = (name) => state.bases.find((base) => base.name === name)?.id ?? name;

const bus = new EventTarget();

export const emit = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));

export const on = (name, listener) => bus.addEventListener(name, (event) => listener(event.detail));
