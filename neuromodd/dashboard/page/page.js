// The page: the stream fills the store, the store's changes are drawn by the views. Nothing is ever sent.

import { Announcer } from "./announcer.js";
import { Alarm } from "./anomalies.js";
import { Health } from "./health.js";
import { Link } from "./link.js";
import { Masthead } from "./masthead.js";
import { Modulators } from "./modulators.js";
import { Raster } from "./raster.js";
import { Screen } from "./screen.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { Surprise } from "./surprise.js";
import { Telemetry } from "./telemetry.js";
import { Timeline } from "./timeline.js";
import { Weights } from "./weights.js";

const screen = new Screen();
let version = null;
const store = new Store((part) => {
  version ??= store.daemon.version;
  // A daemon of another version has another page.
  if (store.daemon.version !== version) location.reload();
  screen.change(part);
  if (part === "events") announcer.event(store.events.at(-1));
});
screen.store = store;

const announcer = new Announcer(store);
const shown = new Link(store);
screen.views = [Masthead, Alarm, Modulators, Surprise, Raster, Timeline, Weights, Health, Telemetry].map(
  (View) => new View(screen),
);

new Stream(store, (link, silence) => {
  shown.judge(link, silence);
  announcer.judge(link);
});
