// The colours of the style sheet, for canvases: one set for light, one for dark.

const known = new Map();

/** The value of a custom property, such as "--dopamine". */
export function colour(name) {
  if (!known.has(name)) {
    known.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  }
  return known.get(name);
}

/** Tell when the reader's system turns light or dark. */
export function whenTurned(told) {
  for (const query of [
    "(prefers-color-scheme: dark)",
    "(forced-colors: active)",
    "(prefers-contrast: more)",
  ]) {
    matchMedia(query).addEventListener("change", () => {
      known.clear();
      told();
    });
  }
}
