/* The control that limits a question to some documents: folder, file type, days. */

import { $ } from "./dom.js";

/** Reads a form part with inputs named folder, type, since and until; {} where all are empty. */
export function filterOf(id) {
  const value = (name) => $(id).querySelector(`[name="${name}"]`).value.trim();
  const types = value("type").split(/[\s,，、]+/).filter(Boolean);
  const filter = {};
  if (value("folder")) filter.folder = value("folder");
  if (types.length) filter.types = types;
  for (const name of ["since", "until"]) if (value(name)) filter[name] = value(name);
  return Object.keys(filter).length ? { filter } : {};
}
