"""Rewards and faults on the time line, each told in a line of text that does a terminal no harm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from neuromodd.dashboard.measures import number, text

EVIDENCE_LIMIT = 8

WELL = "STATUS_OK"
"""The code that says that nothing is wrong."""

HAPPENINGS = {
    "WorkAccepted": ("latency_ms", "units", "source"),
    "BreakthroughFound": ("metric", "value", "previous_best"),
    "SourceSwitch": ("previous", "current"),
}


class Happening(NamedTuple):
    """A reward or a change of fault, on the time line.

    Attributes:
        time_utc: when, as the node said it: the time of day.
        kind: `reward`, `fault`, or `well` for the end of one.
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


def _time_of_day(values: Mapping[str, Any], key: str = "time_utc") -> str:
    _, _, time = text(values.get(key), 40).partition("T")
    return time[:8]
