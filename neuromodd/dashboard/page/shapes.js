// A shape for each kind of event, the same on the time line and in the list: never by colour alone.

import { make } from "./elements.js";

function path(points) {
  return (pen, x, y, ink) => {
    pen.fillStyle = ink;
    pen.beginPath();
    points.forEach(([right, down], at) =>
      at ? pen.lineTo(x + right, y + down) : pen.moveTo(x + right, y + down),
    );
    pen.fill();
  };
}

function round(pen, x, y, ink) {
  pen.fillStyle = ink;
  pen.beginPath();
  pen.arc(x, y, 4.5, 0, 7);
  pen.fill();
}

export const SHAPES = {
  WorkAccepted: { sign: "●", ink: "--work", draw: round },
  BreakthroughFound: {
    sign: "◆",
    ink: "--best",
    draw: path([
      [0, -7],
      [6, 0],
      [0, 7],
      [-6, 0],
    ]),
  },
  SourceSwitch: {
    sign: "■",
    ink: "--switch",
    draw: path([
      [-4.5, -4.5],
      [4.5, -4.5],
      [4.5, 4.5],
      [-4.5, 4.5],
    ]),
  },
  bad: { sign: "▲", ink: "--bad" },
  unsure: { sign: "?", ink: "--unsure" },
  ok: { sign: "✓", ink: "--ok" },
  anomaly: { sign: "≠", ink: "--anomaly" },
  calm: { sign: "=", ink: "--ok" },
};

/** The shape as text; what it stands for is said beside it. */
export const glyph = (kind) =>
  make("span", { class: "glyph", "data-kind": kind, "aria-hidden": "true" }, SHAPES[kind]?.sign ?? "●");
