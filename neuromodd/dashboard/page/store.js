// What the page knows: columns, ten minutes of rows, events, weights, health. Filled by the stream, read by the views.

const EVENTS_LIMIT = 256;

export class Store {
  constructor() {
    this.reset({});
  }

  /** Begin afresh with what the daemon says of itself. */
  reset(hello) {
    this.hello = hello;
    this.columns = hello.columns ?? [];
    this.rows = [];
    this.seen = new Set();
    this.events = hello.events ?? [];
    this.weights = hello.weights ?? null;
    this.health = hello.health ?? null;
    this.info = hello.info ?? null;
    this.fault = hello.fault ?? null;
    this.live = false;
    this.cursor = null;
    this.index = null;
  }

  addRow(row) {
    // Where the host's clock was set back, what was said of that time before gives way.
    while (this.rows.length && this.rows.at(-1)[1] >= row[1]) this.rows.pop();
    this.rows.push(row);
    const oldest = row[1] - this.hello.window_s;
    let gone = 0;
    while (this.rows[gone][1] < oldest) gone += 1;
    if (gone) this.rows.splice(0, gone);
    for (let at = 2; at < row.length; at += 1) if (row[at] !== null) this.seen.add(at - 2);
    if (this.cursor !== null && this.cursor < oldest) this.cursor = null;
  }

  addEvent(event) {
    this.events.push(event);
    if (this.events.length > EVENTS_LIMIT) this.events.shift();
    if (event.topic === "fault") this.fault = event.payload;
  }

  setColumns(columns) {
    this.columns = columns;
    this.index = null;
  }

  /** Where a column of that name is; -1 if there is none. */
  at(name) {
    this.index ??= new Map(this.columns.map((column, place) => [column.name, place]));
    return this.index.get(name) ?? -1;
  }

  group(name) {
    return this.columns.map((column, place) => ({ ...column, place })).filter((column) => column.group === name);
  }

  get newest() {
    return this.rows.at(-1) ?? null;
  }

  /** The row under the cursor, else the newest. */
  get pointed() {
    if (this.cursor === null) return this.newest;
    return this.rows.findLast((row) => row[1] <= this.cursor + 1e-6) ?? this.newest;
  }

  value(row, place) {
    return row === null || place < 0 ? null : (row[place + 2] ?? null);
  }

  /** The times at both ends of every chart, in seconds since 1970. */
  get span() {
    const end = this.newest ? this.newest[1] : 0;
    return [end - (this.hello.window_s ?? 600), end];
  }

  /** Rows further apart than this have a gap between them: a suspend, a stall. */
  get gap() {
    return 2.5 * (this.hello.row_interval_s ?? 1);
  }
}
