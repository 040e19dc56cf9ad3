// Numbers and times as people read them. Null is "not measured" and is shown as a dash, never as 0.

export const DASH = "–";

const PREFIXES = ["", "k", "M", "G", "T"];
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

function scaled(value, base, names) {
  let step = 0;
  while (Math.abs(value) >= base && step < names.length - 1) {
    value /= base;
    step += 1;
  }
  return [value, names[step]];
}

/** Some three significant digits, without an exponent. */
export function short(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.001) return value < 0 ? "> -0.001" : "< 0.001";
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(2);
}

const SHOWN = {
  ratio: (value) => `${(value * 100).toFixed(value < 0.0995 ? 1 : 0)} %`,
  celsius: (value) => `${value.toFixed(1)} °C`,
  watts: (value) => `${short(value)} W`,
  volts: (value) => `${value.toFixed(3)} V`,
  hz: (value) => scaled(value, 1000, PREFIXES.map((name) => `${name}Hz`)).map((of, at) => (at ? of : short(of))).join(" "),
  bytes: (value) => scaled(value, 1024, BINARY).map((of, at) => (at ? of : short(of))).join(" "),
  bytes_per_s: (value) => `${SHOWN.bytes(value)}/s`,
  per_s: (value) => scaled(value, 1000, PREFIXES).map((of, at) => (at ? of : short(of))).join(" ").trim() + "/s",
  rpm: (value) => `${value.toFixed(0)} rpm`,
  ms: (value) => `${short(value)} ms`,
  ns: (value) => `${short(value)} ns`,
  cores: (value) => `${short(value)} cores`,
};

/** A value of a column, with its unit. */
export function shown(value, column) {
  if (value === null || value === undefined) return DASH;
  const of = SHOWN[column.unit];
  return of ? of(value) : column.group === "modulators" || column.group === "parts" ? value.toFixed(3) : short(value);
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const MINUTE = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

/** The time of day where the reader is. */
export const clock = (seconds) => CLOCK.format(new Date(seconds * 1000));

export const minute = (seconds) => MINUTE.format(new Date(seconds * 1000));

/** The time of day, and the day if it is not today. */
export function when(seconds) {
  const time = new Date(seconds * 1000);
  const today = new Date().toDateString() === time.toDateString();
  return today ? clock(seconds) : `${DAY.format(time)}, ${clock(seconds)}`;
}

export const utc = (seconds) => new Date(seconds * 1000).toISOString();

/** "12 s", "3 min", "5 h", "2 d". */
export function lasting(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
