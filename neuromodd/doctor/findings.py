"""What the doctor says: findings, and the report that they make, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import AwareDatetime, Field

from neuromodd.core.record import Record

Verdict = Literal["ok", "note", "warning", "failure"]

SEVERITY: tuple[Verdict, ...] = ("ok", "note", "warning", "failure")
"""From good to bad."""

FORMAT = 1
"""Of the JSON document: it grows when a key is renamed, removed, or means something else."""


class Finding(Record):
    """One thing that was looked at."""

    area: str = Field(description="what it belongs to: `versions`, `sensors`, `broker` ...")
    name: str = Field(description="what was looked at; among the sensors, a place in the frame")
    verdict: Verdict = Field(
        description="ok; note: nothing is wrong, but good to know; warning: something is missing or will go "
        "wrong; failure: something does not work"
    )
    finding: str = Field(description="what was found, in words")
    remedy: str | None = Field(default=None, description="what to do about it; null where there is nothing")


class Report(Record):
    """All findings, as `--json` prints them."""

    format: Literal[1] = 1
    version: str = Field(description="of neuromodd")
    node: str = Field(description="this host's name in topics")
    user: str = Field(description="who looked: another user may measure and write more, or less")
    time_utc: AwareDatetime
    verdict: Verdict = Field(description="the worst of all")
    counts: dict[Verdict, int] = Field(description="how many findings have each verdict")
    findings: tuple[Finding, ...]


def counted(findings: Sequence[Finding]) -> dict[Verdict, int]:
    """How many findings have each verdict, from bad to good."""
    counts = Counter(of.verdict for of in findings)
    return {verdict: counts[verdict] for verdict in reversed(SEVERITY)}


def worst(findings: Sequence[Finding]) -> Verdict:
    """The worst verdict; `ok` without any."""
    return max((of.verdict for of in findings), key=SEVERITY.index, default="ok")


def area_text(findings: Sequence[Finding]) -> str:
    """The findings of one area: its name, then a line each, with the remedy below."""
    width = max(len(of.name) for of in findings)
    lines = [findings[0].area]
    for of in findings:
        lines.append(f"  {of.verdict:<8} {of.name:<{width}}  {_one_line(of.finding)}")
        if of.remedy is not None:
            lines.append(f"           {'':<{width}}  -> {_one_line(of.remedy)}")
    return "\n".join(lines)


def summary(findings: Sequence[Finding]) -> str:
    """All of it in a line."""
    counts = counted(findings)
    told = [
        number_text(counts[verdict], verdict) for verdict in ("failure", "warning", "note") if counts[verdict]
    ]
    return ", ".join([*told, f"{counts['ok']} ok"])


def number_text(count: int, word: str) -> str:
    """How many of something there are: `1 file`, `2 files`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def _one_line(text: str) -> str:
    # What a driver or a broker says may hold anything, an escape sequence for the terminal too.
    return "".join(char if char.isprintable() else " " for char in text)
