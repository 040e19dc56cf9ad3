// Whether what is shown is live: the badge, the banner, the title; and the whole page turns grey without it.

import { clock } from "./clock.js";
import { find, mark, write } from "./elements.js";
import { lasting } from "./format.js";
import { gravity } from "./happenings.js";

const BADGES = { connecting: "connecting", live: "live", stale: "stale", lost: "not connected" };

const REASONS = {
  stale: "The daemon sends nothing.",
  lost: "No connection to the daemon; trying again.",
};

export class Link {
  constructor(store) {
    this.store = store;
    this.kind = "connecting";
  }

  /** Show how the stream is, as `Stream` judges it, and for how long there was no row. */
  judge(link, silence) {
    // What was live is lost until it is live again.
    this.kind = link === "connecting" && this.kind !== "connecting" ? "lost" : link;
    mark(document.documentElement, "data-link", this.kind);
    write(find("link"), BADGES[this.kind]);
    const reason = REASONS[this.kind];
    const banner = find("stale");
    banner.hidden = !reason;
    if (reason) write(banner, `Stale: ${this.last(silence)}. ${reason}`);
    this.title();
  }

  last(silence) {
    const { newest } = this.store;
    return newest ? `last row ${clock.moment(newest[1])}, ${lasting(silence)} ago` : "no row yet";
  }

  title() {
    const { fault, daemon, holds } = this.store;
    const alarm = fault && gravity(fault) === "bad" ? fault.code : holds ? "anomaly" : null;
    const first = REASONS[this.kind] ? "stale" : alarm;
    const title = [first, daemon.node, "neuromodd"].filter(Boolean).join(" · ");
    if (document.title !== title) document.title = title;
  }
}
