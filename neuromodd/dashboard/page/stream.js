// The stream of the daemon, and whether it is alive. A reconnect is the browser's business; each begins with `hello`.

const SLACK_S = 2;
const HALF_OPEN_S = 30;

export class Stream {
  /** `on` has a function for each kind of event, and `changed`, which is told "live", "stale" or "lost". */
  constructor(store, on) {
    this.store = store;
    this.on = on;
    this.heard = performance.now();
    this.state = "connecting";
    this.open();
    setInterval(() => this.judge(), 500);
  }

  open() {
    this.source?.close();
    this.opened = performance.now();
    this.source = new EventSource("events");
    for (const name of ["hello", "rows", "live", "row", "columns", "weights", "event", "health", "info"]) {
      this.source.addEventListener(name, (event) => {
        if (name === "row") this.heard = performance.now();
        this.on[name]?.(JSON.parse(event.data));
        if (name === "row" || name === "live") this.judge();
      });
    }
    // A refusal (too many pages, a proxy's error) ends an EventSource for good.
    const source = this.source;
    source.onerror = () => {
      if (source === this.source && source.readyState === EventSource.CLOSED) setTimeout(() => this.open(), 3000);
      this.judge();
    };
  }

  /** Take the newest row for so many seconds old. */
  aged(seconds) {
    this.heard = performance.now() - seconds * 1000;
  }

  /** Seconds since the last row. */
  get silence() {
    return (performance.now() - this.heard) / 1000;
  }

  judge() {
    const bound = 3 * (this.store.hello.row_interval_s ?? 1) + SLACK_S;
    let state = "live";
    if (this.source.readyState !== EventSource.OPEN) state = this.store.live ? "lost" : "connecting";
    else if (!this.store.live) state = "connecting";
    else if (this.silence > bound) state = "stale";
    // After a suspend of this computer, say, nobody tells that the other end is gone.
    const open = (performance.now() - this.opened) / 1000;
    if (state === "stale" && Math.min(this.silence, open) > Math.max(HALF_OPEN_S, 2 * bound)) this.open();
    const before = this.state;
    this.state = state;
    this.on.changed(state, before);
  }
}
