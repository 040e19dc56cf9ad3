// What is said to who listens: connection lost and back, new rewards, faults, anomalies. Not
// each tick.

import { clock } from "./clock.js";
import { find, make } from "./elements.js";
import { told } from "./happenings.js";

/** Events that come together are said together. */
const GATHER_MS = 800;

export class Announcer {
  constructor(store) {
    this.store = store;
    this.link = null;
    this.waiting = [];
    this.timer = null;
  }

  /** Of a new event. */
  event(event) {
    const { topic, title, detail, evidence } = told(event, this.store);
    // The sentence of an anomaly has it all.
    const known = topic === "anomaly" ? [] : evidence;
    const proof = known.map(({ reading, value, rule }) => `${reading} ${value}, ${rule}`).join("; ");
    this.waiting.push([title.replace(/:$/, ""), detail, proof].filter(Boolean).join(". "));
    this.timer ??= setTimeout(() => this.flush(), GATHER_MS);
  }

  flush() {
    const { length } = this.waiting;
    this.say(length > 3 ? `${length} events; the newest: ${this.waiting.at(-1)}` : this.waiting.join(". "));
    this.waiting = [];
    this.timer = null;
  }

  /** Of the stream, as `Stream` judges it. */
  judge(link) {
    const good = link === "live";
    if (link === "connecting" || link === this.link) return;
    const { newest } = this.store;
    if (!good && this.link === "live") {
      this.say(`Stale: nothing new since ${newest ? clock.second(newest[1]) : "the beginning"}`);
    } else if (good && this.link !== null) {
      this.say("The connection is back");
    }
    this.link = link;
  }

  say(text) {
    // A new element, so that the same words are said again.
    find("said").replaceChildren(make("span", {}, text));
  }
}
