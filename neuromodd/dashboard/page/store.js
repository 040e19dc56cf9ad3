// What the page knows: ten minutes of rows, events, weights, health. The stream fills it, the views read it.

const EVENTS_LIMIT = 256;

/** Groups whose values are levels, shown with three digits after the point. */
const LEVELS = new Set(["modulators", "parts", "surprise", "rates"]);

/** What an event of the stream changes, where that is not what it is called. */
const PARTS = { row: "rows", live: "rows", event: "events" };

export class Store {
  /** `changed` is told of "hello", "columns", "rows", "weights", "events", "health" and "info". */
  constructor(changed) {
    this.changed = changed;
    this.begin({});
  }

  begin(hello) {
    this.daemon = hello;
    this.window = hello.window_s ?? 600;
    this.interval = hello.row_interval_s ?? 1;
    this.rows = [];
    this.seen = new Set();
    this.gaps = [];
    this.complete = false;
    this.events = hello.events ?? [];
    this.fault = hello.fault ?? null;
    this.surprise = hello.surprise ?? null;
    this.anomaly = hello.anomaly ?? null;
    this.weights = hello.weights ?? null;
    this.health = hello.health ?? null;
    this.info = hello.info ?? {};
    this.setColumns(hello.columns ?? []);
  }

  setColumns(columns) {
    this.columns = columns.map((column, place) => ({ ...column, place, level: LEVELS.has(column.group) }));
    this.places = new Map(this.columns.map((column) => [column.name, column]));
  }

  /** The events of the stream, by their names. */
  take(name, data) {
    switch (name) {
      case "hello":
        this.begin(data);
        break;
      case "rows":
        data.forEach((row) => this.add(row));
        break;
      case "live":
        this.complete = true;
        break;
      case "row":
        this.add(data);
        break;
      case "columns":
        this.setColumns(data);
        break;
      case "event":
        this.events.push(data);
        if (this.events.length > EVENTS_LIMIT) this.events.shift();
        if (data.topic === "fault") this.fault = data.payload;
        if (data.topic === "anomaly") this.anomaly = data.payload.phase === "begin" ? data.payload : null;
        break;
      default:
        this[name] = data;
    }
    this.changed(PARTS[name] ?? name);
  }

  add(row) {
    // Where the host's clock was set back, what was said of that time before gives way.
    while (this.rows.length && this.rows.at(-1)[1] >= row[1]) this.rows.pop();
    const before = this.rows.at(-1);
    if (before && row[1] - before[1] > 2.5 * this.interval) this.gaps.push([before[1], row[1]]);
    this.rows.push(row);
    this.forget(row[1] - this.window);
    for (let at = 2; at < row.length; at += 1) {
      if (row[at] !== null && !this.seen.has(at - 2)) {
        this.seen.add(at - 2);
        this.changed("columns");
      }
    }
  }

  forget(oldest) {
    let gone = 0;
    while (this.rows[gone][1] < oldest) gone += 1;
    if (gone) this.rows.splice(0, gone);
    const newest = this.rows.at(-1)[1];
    this.gaps = this.gaps.filter(([, end]) => end >= oldest && end <= newest);
  }

  /** The columns of a group that have ever had a value. */
  measured(group) {
    return this.columns.filter((column) => column.group === group && this.seen.has(column.place));
  }

  /** The column of that name; null if there is none. */
  named(name) {
    return this.places.get(name) ?? null;
  }

  get newest() {
    return this.rows.at(-1) ?? null;
  }

  /** The anomaly that holds; null if there is none. One that a daemon has forgotten has no end. */
  get holds() {
    const flag = this.named("state.flags.anomaly");
    const raised = flag && this.newest ? valueOf(this.newest, flag) : 0;
    return raised ? this.anomaly : null;
  }

  /** Both ends of every chart's axis, in seconds since 1970. */
  get span() {
    const end = this.newest?.[1] ?? 0;
    return [end - this.window, end];
  }

  /** The place in `rows` of the row nearest to a time; -1 if there are none. */
  nearest(time) {
    let low = 0;
    let high = this.rows.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle][1] < time) low = middle + 1;
      else high = middle;
    }
    const before = this.rows[low - 1];
    return before && time - before[1] < this.rows[low][1] - time ? low - 1 : high;
  }
}

/** Columns as a text: another one means that what was built for them does not fit. */
export const shapeOf = (columns) => columns.map(({ name, place }) => `${place} ${name}`).join("\n");

/** A column's value in a row; null where it was not measured. */
export const valueOf = (row, column) => row?.[column.place + 2] ?? null;
