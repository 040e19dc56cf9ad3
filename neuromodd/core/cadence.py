"""How often a topic is published: never, every so many ticks, or when something has changed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

EXPECTED = "off, every N (ticks), change, or change D (deadband)"

UNCOUNTED = frozenset({"sequence", "time_utc", "monotonic_s", "interval_s", "lateness_ms", "step", "steps"})
"""What differs from tick to tick in any case."""

_EVERY = re.compile(r"every ([1-9][0-9]{0,8})\Z")
_CHANGE = re.compile(r"change(?: ([0-9]*\.?[0-9]+))?\Z")


class Cadence(NamedTuple):
    """One of the three.

    Attributes:
        ticks: publish every so many; 0 for never.
        deadband: publish when a number has moved by more than this times the larger of 1 and its last
            published value, or anything else has changed: a share of 1 for what is small (ratios), a share of
            the value for what is large (bytes). None to publish whatever the values are.
    """

    ticks: int
    deadband: float | None = None

    @classmethod
    def parse(cls, text: str) -> Cadence:
        """The cadence that `text` names.

        Raises:
            ValueError: it names none; the message is what is expected.
        """
        words = " ".join(text.split())
        if words == "off":
            return cls(0)
        if found := _EVERY.match(words):
            return cls(int(found[1]))
        if (found := _CHANGE.match(words)) and math.isfinite(deadband := float(found[1] or 0.0)):
            return cls(1, deadband)
        raise ValueError(EXPECTED)


class Gate:
    """Lets through what a cadence says. Mutable.

    Args:
        cadence: that it keeps.
        refresh_s: after so long it is let through though nothing has changed, so that it does not expire.
    """

    def __init__(self, cadence: Cadence, *, refresh_s: float) -> None:
        self.cadence = cadence
        self.refresh_s = refresh_s
        self._ticks = 0
        self._last: Mapping[str, Any] | None = None
        self._last_s = -math.inf

    def due(self, values: Mapping[str, Any], now_s: float) -> bool:
        """Whether to publish in this tick, whose payload is `values`; they must not change afterwards."""
        if self.cadence.ticks == 0:
            return False
        if self.cadence.deadband is None:
            self._ticks += 1
            return (self._ticks - 1) % self.cadence.ticks == 0
        moved = self._last is None or _moved(self._last, values, self.cadence.deadband)
        if not moved and now_s - self._last_s < self.refresh_s:
            return False
        self._last, self._last_s = values, now_s
        return True


def _moved(before: Any, after: Any, deadband: float) -> bool:  # noqa: ANN401 - parsed JSON
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return before.keys() != after.keys() or any(
            _moved(before[name], after[name], deadband) for name in after if name not in UNCOUNTED
        )
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        return len(before) != len(after) or any(
            _moved(old, new, deadband) for old, new in zip(before, after, strict=True)
        )
    if _is_number(before) and _is_number(after):
        return bool(abs(after - before) > deadband * max(abs(before), 1.0))
    return bool(before != after)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
