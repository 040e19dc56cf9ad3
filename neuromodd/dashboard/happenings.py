"""Rewards, faults and anomalies on the time line, each in a line of text that does a terminal no harm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from neuromodd.dashboard.glyphs import age
from neuromodd.dashboard.measures import number, text
from neuromodd.dashboard.strange import odds

EVIDENCE_LIMIT = 8
SENTENCE_LIMIT = 240
NAME_LIMIT = 40

WELL = "STATUS_OK"
"""The code that says that nothing is wrong."""

HAPPENINGS = {
    "WorkAccepted": ("latency_ms", "units", "source"),
    "BreakthroughFound": ("metric", "value", "previous_best"),
    "SourceSwitch": ("previous", "current"),
}


class Happening(NamedTuple):
    """A reward, a change of fault, or the begin or end of an anomaly, on the time line.

    Attributes:
        time_utc: when, as the node said it: the time of day.
        kind: `reward`, `fault` or `anomaly`; `well` and `calm` for the end of one.
        name: of the event or class.
        text: what there is to say of it.
    """

    time_utc: str
    kind: str
    name: str
    text: str


class Fault(NamedTuple):
    """The class that holds; its code is a word of the contract, or what somebody else made of it."""

    code: str
    name: str
    confidence: float | None
    since_utc: str
    evidence: tuple[str, ...]


class Anomaly(NamedTuple):
    """One that holds, as it was when it began."""

    since_utc: str
    sentence: str
    surprise: float | None
    channels: tuple[str, ...]


def reward_told(values: Mapping[str, Any]) -> Happening:
    """A reward, by its payload."""
    kind = text(values.get("kind"), 24)
    said: list[str] = []
    for key in HAPPENINGS.get(kind, ()):
        if shown := text(values.get(key), 60):
            unit = " ms" if key.endswith("_ms") else ""
            said.append(f"{key.removesuffix('_ms').replace('_', ' ')} {shown}{unit}")
    if values.get("origin") == "external":
        said.append("from outside")
    return Happening(_time_of_day(values), "reward", kind or "?", ", ".join(said))


def fault_told(values: Mapping[str, Any]) -> Fault:
    """A fault, by its payload."""
    evidence = values.get("evidence")
    found = [of for of in evidence if isinstance(of, dict)] if isinstance(evidence, list) else []
    return Fault(
        text(values.get("code"), 24) or "?",
        text(values.get("class"), 24),
        number(values, "confidence"),
        _time_of_day(values, "since_utc"),
        tuple(
            f"{text(of.get('reading'), 60)} {text(of.get('value'), 40)} ({text(of.get('rule'), 100)})"
            for of in found[:EVIDENCE_LIMIT]
        ),
    )


def fault_happening(fault: Fault) -> Happening:
    """The beginning of a fault, or its end."""
    sure = "" if fault.confidence is None or not fault.evidence else f"{fault.confidence:.0%} sure: "
    kind = "well" if fault.code == WELL else "fault"
    return Happening(
        fault.since_utc, kind, fault.code, f"{fault.name} {sure}{'; '.join(fault.evidence)}".strip()
    )


def anomaly_told(values: Mapping[str, Any]) -> Anomaly:
    """An anomaly, by its payload."""
    channels = values.get("channels")
    found = [of for of in channels if isinstance(of, dict)] if isinstance(channels, list) else []
    return Anomaly(
        _time_of_day(values, "since_utc"),
        text(values.get("sentence"), SENTENCE_LIMIT),
        number(values, "surprise"),
        tuple(text(of.get("name"), NAME_LIMIT) for of in found[:EVIDENCE_LIMIT]),
    )


def anomaly_happening(values: Mapping[str, Any]) -> Happening:
    """The begin of an anomaly, or its end."""
    told = anomaly_told(values)
    ended = values.get("phase") == "end"
    lasted_s = number(values, "duration_s")
    said = [
        f"over after {age(lasted_s)}" if ended and lasted_s is not None else "over" if ended else "",
        told.sentence or ", ".join(told.channels),
        "" if told.surprise is None else f"surprise {told.surprise:.2f}, {odds(told.surprise)}",
    ]
    name = "ANOMALY" if not ended else "calm again"
    return Happening(
        _time_of_day(values), "calm" if ended else "anomaly", name, "; ".join(of for of in said if of)
    )


def _time_of_day(values: Mapping[str, Any], key: str = "time_utc") -> str:
    _, _, time = text(values.get(key), 40).partition("T")
    return time[:8]
