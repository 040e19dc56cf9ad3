// How a part is, as a sign and a word.

import { make } from "./elements.js";

const SIGNS = { good: "✓", warn: "!", bad: "✕", none: "–" };

export const state = (kind, text) =>
  make(
    "span",
    { class: "state", "data-kind": kind },
    make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[kind]),
    ` ${text}`,
  );
