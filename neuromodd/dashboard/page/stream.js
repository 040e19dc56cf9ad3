// The stream of the daemon, and whether it is alive. A reconnect is the browser's business; each begins with `hello`.

const SLACK_S = 2;

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
    this.source = new EventSource("events");
    for (const name of ["hello", "rows", "live", "row", "columns", "weights", "event", "health", "info"]) {
      this.source.addEventListener(name, (event) => {
        if (name === "row" || name === "live") this.heard = performance.now();
        this.on[name]?.(JSON.parse(event.data));
        if (name === "row" || name === "live") this.judge();
      });
    }
    // A refusal (too many pages, a proxy's error) ends an EventSource for good.
    this.source.onerror = () => {
      if (this.source.readyState === EventSource.CLOSED) setTimeout(() => this.open(), 3000);
      this.judge();
    };
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
    const before = this.state;
    this.state = state;
    this.on.changed(state, before);
  }
}
