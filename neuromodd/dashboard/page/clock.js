// Times where the reader is, or in UTC.

const KEPT = "neuromodd.utc";

function formats(utc) {
  const zone = { hourCycle: "h23", ...(utc ? { timeZone: "UTC" } : {}) };
  const of = (fields) => new Intl.DateTimeFormat(undefined, { ...zone, ...fields });
  return {
    second: of({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
    minute: of({ hour: "2-digit", minute: "2-digit" }),
    day: of({ year: "numeric", month: "2-digit", day: "2-digit" }),
    date: of({ month: "short", day: "numeric" }),
  };
}

/** Seconds since 1970 of a time in ISO 8601; null for none. */
export const seconds = (text) => (text ? Date.parse(text) / 1000 : null);

class Clock {
  constructor() {
    this.utc = false;
    try {
      this.utc = localStorage.getItem(KEPT) === "true";
    } catch {
      // A browser that keeps nothing shows local time.
    }
    this.formats = formats(this.utc);
  }

  /** Change between local time and UTC, and keep it for the next visit. */
  turn() {
    this.utc = !this.utc;
    this.formats = formats(this.utc);
    try {
      localStorage.setItem(KEPT, String(this.utc));
    } catch {
      // As above.
    }
  }

  /** What the times are in. */
  get zone() {
    return this.utc ? "UTC" : "local time";
  }

  /** 14:03:22 */
  second(at) {
    return this.formats.second.format(at * 1000);
  }

  /** 14:03 */
  minute(at) {
    return this.formats.minute.format(at * 1000);
  }

  /** 14:03:22, and the day if it is not today. */
  moment(at) {
    const { day, date } = this.formats;
    const today = day.format(at * 1000) === day.format(Date.now());
    return today ? this.second(at) : `${date.format(at * 1000)}, ${this.second(at)}`;
  }
}

export const clock = new Clock();
