// Drawing values over time. What was not measured, and the time between two lives, is a gap in the line.

import { valueOf } from "./store.js";

/** The lowest and the highest value of a column among the rows; null if it has none. */
export function extent(rows, column) {
  let low = Infinity;
  let high = -Infinity;
  for (const row of rows) {
    const value = valueOf(row, column);
    if (value === null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low > high ? null : [low, high];
}

/** The scale of a column: its own, else from what was seen, with some room. */
export function scale(column, seen) {
  const [least, most] = seen ?? [0, 1];
  let low = Math.min(column.low ?? least, least);
  let high = Math.max(column.high ?? most, most);
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  if (column.high === null || high > column.high) high += room;
  if (column.low === null) low -= room;
  return [low, high];
}

/** The pieces of a line, each a list of points. */
export function pieces(plot, column, y) {
  const { rows, interval } = plot.store;
  const found = [];
  let piece = null;
  let before = -Infinity;
  for (const row of rows) {
    const value = valueOf(row, column);
    if (value === null || row[1] - before > 2.5 * interval) piece = null;
    before = row[1];
    if (value === null) continue;
    if (piece === null) found.push((piece = []));
    piece.push([plot.x(row[1]), y(value)]);
  }
  return found;
}

/** Draw pieces as lines, single points as dots. */
export function stroke(pen, found, { ink, width = 1.5, dash = [] }) {
  pen.strokeStyle = pen.fillStyle = ink;
  pen.lineWidth = width;
  pen.lineJoin = "round";
  pen.setLineDash(dash);
  pen.beginPath();
  for (const piece of found) piece.forEach(([x, y], at) => (at ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
  pen.setLineDash([]);
  for (const [[x, y], ...more] of found)
    if (!more.length) pen.fillRect(x - width / 2, y - width, width * 1.5, width * 2);
}

/** Fill what is under pieces, down to a base line. */
export function fill(pen, found, { ink, base }) {
  pen.fillStyle = ink;
  for (const piece of found) {
    pen.beginPath();
    pen.moveTo(piece[0][0], base);
    for (const [x, y] of piece) pen.lineTo(x, y);
    pen.lineTo(piece.at(-1)[0], base);
    pen.fill();
  }
}

/** A dot where the cursor is. */
export function dot(pen, plot, column, y, ink) {
  const row = plot.pointed();
  const value = row && valueOf(row, column);
  if (value === null || value === undefined) return;
  pen.fillStyle = ink;
  pen.beginPath();
  pen.arc(Math.min(plot.x(row[1]), plot.width - 2), y(value), 3, 0, 7);
  pen.fill();
}
