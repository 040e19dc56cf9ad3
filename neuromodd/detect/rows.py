"""Rows of readings for whoever looks at them one by one, from a recording or a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Row(NamedTuple):
    """The readings of one moment.

    Attributes:
        stamp: its time as it was written, or its number where there is none.
        time_s: seconds since 1970 UTC; None for data without times.
        values: one a channel, None where it is missing.
        gap: whether nobody watched before it.
    """

    stamp: str
    time_s: float | None
    values: tuple[float | None, ...]
    gap: bool = False


class Rows(Protocol):
    """Where rows come from. Memory does not grow with their number.

    Attributes:
        names: of the channels.
        timed: whether the rows have times.
        skipped: rows that were broken and left out so far.
        total: bytes to read; None where that is not known.
    """

    names: tuple[str, ...]
    timed: bool
    skipped: int
    total: int | None

    @property
    def position(self) -> int:
        """Bytes that were read."""
        ...

    def __iter__(self) -> Iterator[Row]:
        """All rows, once."""
        ...
