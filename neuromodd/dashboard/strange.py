"""How surprise is told to people, wherever it is shown."""

from __future__ import annotations

from neuromodd.core.anomaly import probability
from neuromodd.core.encoding import CHANNELS
from neuromodd.dashboard.history import UNITS

USUAL = 0.1
"""One moment in ten is stranger."""

SHARES = frozenset({*CHANNELS, "pressure"})
"""Channels that are shares of a whole."""

_LARGE = ((1e9, " billion"), (1e6, " million"), (1.0, ""))


def unit_of(channel: str) -> str:
    """What a channel is measured in: one of `history.UNITS`, or empty for a count."""
    if channel in SHARES:
        return "ratio"
    if channel == "network":
        return "bytes_per_s"
    field = channel.rpartition(".")[2]
    return next((unit for unit in UNITS if field == unit or field.endswith(f"_{unit}")), "")


def words(channel: str) -> str:
    """The name of a channel for people; a path in the frame is one as it is."""
    return channel if "." in channel else channel.replace("_", " ")


def rarity(surprise: float) -> str:
    """How rare the moments are that are so strange, or that they are nothing special."""
    return "usual" if surprise < USUAL else odds(surprise)


def odds(surprise: float) -> str:
    """A surprise as one moment in so many, two digits of it: `1 in 100,000`."""
    moments = float(f"{1.0 / probability(min(max(surprise, 0.0), 1.0)):.2g}")
    size, word = next((size, word) for size, word in _LARGE if moments >= size)
    number = moments / size
    return f"1 in {number:,.0f}{word}" if number >= 10.0 or not word else f"1 in {number:g}{word}"  # noqa: PLR2004
