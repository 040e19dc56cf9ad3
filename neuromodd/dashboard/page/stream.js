// The stream of events, and whether it is alive.

const NAMES = ["hello", "rows", "live", "row", "columns", "weights", "event", "health", "info"];

/** A row may be so much later than three intervals. */
const SLACK_S = 2;

/** A connection that a dead network holds open is given up after so long, and another tried. */
const ANEW_S = 20;

/** After a refusal (too many pages are open) the browser itself does not try again. */
const REFUSED_S = 5;

const LOOK_MS = 500;

export class Stream {
  /** `judged` is told "connecting", "live", "stale" or "lost", and the silence, each half second. */
  constructor(store, judged) {
    this.store = store;
    this.judged = judged;
    this.heard = performance.now();
    this.open();
    setInterval(() => this.judge(), LOOK_MS);
  }

  open() {
    this.source?.close();
    this.opened = performance.now();
    this.source = new EventSource("events");
    for (const name of NAMES) this.source.addEventListener(name, (event) => this.take(name, event.data));
    this.source.addEventListener("error", () => this.judge());
  }

  take(name, text) {
    const data = JSON.parse(text);
    if (name === "row") this.heard = performance.now();
    // A daemon that has not ticked for long sends its history too.
    if (name === "hello") this.heard = performance.now() - 1000 * (data.alive?.tick_age_s ?? 0);
    this.store.take(name, data);
    if (name === "row" || name === "live") this.judge();
  }

  /** Seconds since the last row. */
  get silence() {
    return (performance.now() - this.heard) / 1000;
  }

  judge() {
    const { complete, interval } = this.store;
    const late = this.silence > 3 * interval + SLACK_S;
    const open = this.source.readyState === EventSource.OPEN;
    const idle = (performance.now() - this.opened) / 1000;
    const refused = this.source.readyState === EventSource.CLOSED;
    const dead = idle > ANEW_S && this.silence > Math.max(ANEW_S, 6 * interval);
    if (dead || (refused && idle > REFUSED_S)) this.open();
    const link = !complete ? "connecting" : !open ? "lost" : late ? "stale" : "live";
    this.judged(link, this.silence);
  }
}
