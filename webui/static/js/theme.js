/* Light and dark: the system's choice until the user makes one. early.js sets the first value. */

import { lasting } from "./store.js";

const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");

export function toggleTheme() {
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  root.dataset.theme = theme;
  lasting.set("kb.theme", theme);
}

system.addEventListener("change", () => {
  if (!lasting.get("kb.theme")) root.dataset.theme = system.matches ? "dark" : "light";
});
