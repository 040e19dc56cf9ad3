"""Frames and documents for the checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.homeassistant import SETTLE_S, Announcement

EVERYTHING = TelemetryFrame.from_json(Path(__file__).with_name("everything.json").read_bytes())


def announcement(node: str = "lab-7") -> Announcement:
    return Announcement(
        node=node, base=f"neuromodd/{node}", discovery_prefix="homeassistant", version="1.2.3"
    )


def announced(*frames: TelemetryFrame, node: str = "lab-7") -> Announcement:
    """What is announced after those frames, a second apart."""
    made = announcement(node)
    for at_s, frame in enumerate(frames):
        made.observe(frame, float(at_s))
    return made


def shrunk() -> Announcement:
    """After a restart in which nothing of the frame was found again: its components are removed."""
    made = announcement()
    made.restore(json.loads(json.dumps(announced(EVERYTHING).state())))
    made.observe(TelemetryFrame(), 0.0)
    made.observe(TelemetryFrame(), SETTLE_S)
    return made


def parsed(made: Announcement) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(made.document())
    return document
