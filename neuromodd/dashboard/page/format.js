// Numbers as people read them: always as many digits, so that they stand still.

export const NONE = "–";

const DECIMAL = ["", "k", "M", "G", "T", "P"];
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** A number with a minus that is as wide as a plus. */
function fixed(value, digits) {
  const text = value.toFixed(digits);
  return text.startsWith("-") ? (Number(text) === 0 ? text.slice(1) : `−${text.slice(1)}`) : text;
}

/** Three digits that count, of a size that nobody knows. */
function three(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return value.toExponential(2).replace("-", "−").replace("e+", "e");
  if (size >= 100) return fixed(value, 0);
  return fixed(value, size >= 10 ? 1 : 2);
}

function scaled(value, base, names) {
  let place = 0;
  while (Math.abs(value) >= base * 0.9995 && place < names.length - 1) {
    value /= base;
    place += 1;
  }
  const whole = base === 1024 && place === 0;
  return [whole ? fixed(value, 0) : three(value), names[place]];
}

const WRITERS = {
  "": (value) => [Math.abs(value) < 100 && !Number.isInteger(value) ? fixed(value, 3) : three(value), ""],
  ratio: (value) => [fixed(value * 100, 1), "%"],
  celsius: (value) => [fixed(value, 1), "°C"],
  watts: (value) => [fixed(value, 1), "W"],
  volts: (value) => [fixed(value, 3), "V"],
  joules: (value) =>
    scaled(
      value,
      1000,
      DECIMAL.map((prefix) => `${prefix}J`),
    ),
  hz: (value) =>
    scaled(
      value,
      1000,
      DECIMAL.map((prefix) => `${prefix}Hz`),
    ),
  bytes: (value) => scaled(value, 1024, BINARY),
  bytes_per_s: (value) =>
    scaled(
      value,
      1024,
      BINARY.map((name) => `${name}/s`),
    ),
  per_s: (value) =>
    scaled(
      value,
      1000,
      DECIMAL.map((prefix) => `${prefix}/s`),
    ),
  rpm: (value) => [fixed(value, 0), "rpm"],
  cores: (value) => [three(value), "cores"],
  s: (value) => [three(value), "s"],
  ms: (value) => [three(value), "ms"],
  ns: (value) => [fixed(value, 3), "ns"],
};

const YES_NO = new Set(["telemetry.power.on_mains"]);

/** The digits and the unit of a column's value; the unit is empty where there is none. */
export function parts(value, column) {
  if (value === null || value === undefined) return [NONE, ""];
  if (YES_NO.has(column.name)) return [value ? "yes" : "no", ""];
  if (column.level) return [fixed(value, 3), ""];
  return (WRITERS[column.unit] ?? WRITERS[""])(value);
}

/** A column's value as a text. */
export function written(value, column) {
  if (value === null || value === undefined) return "not measured";
  const [digits, unit] = parts(value, column);
  return unit ? `${digits} ${unit}` : digits;
}

/** From the lowest to the highest, the unit once where it is the same. */
export function range(low, high, column) {
  const [from, unit] = parts(low, column);
  const [to, same] = parts(high, column);
  if (from === to && unit === same) return `${from} ${unit}`.trim();
  return `${from}${unit === same || !unit ? "" : ` ${unit}`} to ${to} ${same}`.trim();
}

/** The end of a scale: digits, and as much of the unit as tells its size. */
export function short(value, column) {
  const [digits, unit] = parts(value, column);
  return `${digits} ${unit.replace(/Hz$|\/s$|rpm$|cores$/, "")}`.trim();
}

/** A level or a weight, with three digits after the point. */
export const level = (value) => (value === null || value === undefined ? NONE : fixed(value, 3));

const MANY = [
  [1e9, " billion"],
  [1e6, " million"],
];

/** A surprise as one moment in so many, two digits of it. */
export function odds(surprise) {
  const moments = Number((10 ** (10 * Math.min(Math.max(surprise, 0), 1))).toPrecision(2));
  const [size, word] = MANY.find(([of]) => moments >= of) ?? [1, ""];
  return `1 in ${count(word ? moments / size : Math.round(moments))}${word}`;
}

/** How rare the moments are that are so strange, or that they are nothing special. */
export const rarity = (surprise) => (surprise < 0.1 ? "usual" : odds(surprise));

/** A change, with its sign. */
export const signed = (value, digits) => (value > 0 ? `+${fixed(value, digits)}` : fixed(value, digits));

/** A count with its thousands apart. */
export const count = (value) =>
  value === null || value === undefined ? NONE : String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");

/** "12 s", "3 min", "5 h", "2 d". */
export function lasting(seconds) {
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}
