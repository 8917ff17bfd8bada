/*
 * Offsets. The API counts characters as Python does (code points); JavaScript strings count
 * UTF-16 units, so that every emoji and rare Han character before an offset shifts it by one.
 */

const SURROGATES = /[\ud800-\udbff][\udc00-\udfff]/;

/** Converts ascending or unordered code point `offsets` into `text` to UTF-16 offsets. */
export function toUnits(text, offsets) {
  if (!SURROGATES.test(text)) return [...offsets];
  const units = new Array(offsets.length).fill(text.length);
  const order = offsets.map((_, index) => index).sort((a, b) => offsets[a] - offsets[b]);
  let next = 0;
  let points = 0;
  for (let unit = 0; unit <= text.length && next < order.length; points += 1) {
    while (next < order.length && offsets[order[next]] === points) {
      units[order[next]] = unit;
      next += 1;
    }
    const code = text.codePointAt(unit);
    unit += code > 0xffff ? 2 : 1;
  }
  return units;
}

/**
 * Where a quote stands: its own place if the text there is the quote, else the nearest other
 * place that is, else null (the document has changed since the answer was given).
 */
export function locate(text, start, end, quote) {
  if (!quote || text.slice(start, end) === quote) return { start, end };
  let best = null;
  for (let at = text.indexOf(quote); at >= 0; at = text.indexOf(quote, at + 1)) {
    if (best === null || Math.abs(at - start) < Math.abs(best - start)) best = at;
  }
  return best === null ? null : { start: best, end: best + quote.length };
}
