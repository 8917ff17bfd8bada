/*
 * Runs before the first paint (a classic script in <head>): sets theme and language on <html>,
 * so that the page never flashes in the wrong colours. theme.js and i18n.js change them later.
 */
(() => {
  const root = document.documentElement;
  const remembered = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // storage is blocked: the choice lasts as long as the page
    }
  };
  const theme = remembered("kb.theme");
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "dark" : "light";
  const language = remembered("kb.language") || navigator.language || "en";
  root.lang = language.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
})();
