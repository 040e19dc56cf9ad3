"""The file of scores: a row for each row, and how strange it was."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from neuromodd.core.anomaly import Moment
from neuromodd.detect.rows import Row
from neuromodd.outputs import is_stdout, replacing
from neuromodd.replay import naming

Taker = Callable[[int, Row, Moment], None]
"""Takes the number of a row, from 1, the row, and what it led to."""


@contextlib.contextmanager
def scores(out: Path, names: Sequence[str]) -> Iterator[Taker]:
    """Write scores into a file, which is whole or as it was before; `-` is standard output."""
    with ExitStack() as opened:
        if is_stdout(out):
            opened.enter_context(naming("standard output"))
            file: IO[bytes] = sys.stdout.buffer
        else:
            file = opened.enter_context(replacing(out))
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        opened.callback(text.detach)
        write = csv.writer(text, lineterminator="\n").writerow
        write(score_columns(names))
        # A row for one channel is of two shapes less to look at.
        yield (
            (lambda _, row, moment: write(_score_of_one(row, moment)))
            if len(names) == 1
            else (lambda _, row, moment: write(_score_of_many(row, moment)))
        )
        text.flush()


def score_columns(names: Sequence[str]) -> list[str]:
    """The header of a file of scores."""
    if len(names) == 1:
        return ["timestamp", "value", "anomaly_score", "surprise"]
    head = ["timestamp", "anomaly_score", "surprise"]
    return [*head, *(f"{name} (channel)" if name in head else name for name in names)]


def _score_of_one(row: Row, moment: Moment) -> tuple[object, ...]:
    return (row.stamp, row.values[0], moment.score or 0.0, moment.surprise)


def _score_of_many(row: Row, moment: Moment) -> tuple[object, ...]:
    return (row.stamp, moment.score or 0.0, moment.surprise, *[of.surprise for of in moment.channels])
