"""Tables that any detector must find strange."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

START = datetime(2024, 5, 1, tzinfo=UTC)
CALM, JUMP = 1500, 40
"""Minutes: a day and more of calm, then a jump far outside, then calm again."""


class Ended(NamedTuple):
    """What a command left behind."""

    status: object
    out: str
    err: str


Run = Callable[..., Ended]


def table(path: Path, names: Sequence[str] = ("cpu",), *, timed: bool = True, after: int = 200) -> Path:
    """A table in which the first channel jumps far outside after `CALM` minutes."""
    rng = random.Random(1)  # noqa: S311 - test data
    lines = [",".join(("time", *names) if timed else names)]
    for at in range(CALM + JUMP + after):
        cells = [f"{rng.gauss(10.0, 1.0):.3f}" for _ in names]
        if CALM <= at < CALM + JUMP:
            cells[0] = "100000"
        stamp = [f"{START + timedelta(minutes=at):%Y-%m-%d %H:%M:%S}"] if timed else []
        lines.append(",".join((*stamp, *cells)))
    path.write_text("\n".join(lines) + "\n")
    return path
