/*
 * Building elements. Everything that comes from a server or a file enters the page through
 * `textContent` or a text node; no function of this page takes HTML.
 */

import { hint, label, placeholder, say } from "./i18n.js";

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/**
 * Creates an element. In `props`: `onclick` and so on add listeners; `text`, `label`,
 * `hint` and `placeholder` name a message ("key" or ["key", values]); a value that is not a string sets
 * the property of that name; null and false are skipped; the rest are attributes.
 */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") say(node, ...[value].flat());
    else if (name === "label") label(node, ...[value].flat());
    else if (name === "placeholder") placeholder(node, ...[value].flat());
    else if (name === "hint") hint(node, ...[value].flat());
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (typeof value !== "string" && name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return node;
}

/** A symbol of the sprite in index.html; decoration only, so hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A name given by a user: its direction cannot disturb what stands around it. */
export const bdi = (name, props = {}) => h("bdi", props, String(name));

/** A path whose folders step back behind the name. */
export function pathView(path) {
  const name = path.split("/").at(-1);
  const folder = path.slice(0, path.length - name.length);
  return h("bdi", {}, folder ? h("span", { class: "folder" }, folder) : null, name);
}

export function sizeOf(bytes) {
  const units = ["B", "KB", "MB", "GB"];
  let value = Number(bytes) || 0;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Local date and time, the same in both languages: 2025-03-01 14:05. */
export function timeOf(stamp) {
  const time = new Date(stamp);
  if (Number.isNaN(time.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}`;
}
