"""Clocks that never go back, for whatever is due or has an age.

The kernel promises as much for its own. But a process that is carried over to another machine, or a guest on
a broken hypervisor, may see otherwise; and whatever is due an hour after a clock has been set back by one
would then not be done for two.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Steady:
    """A clock that goes on from where it stood when the one beneath it is set back. Mutable; for any thread.

    How much time passed over that, nobody knows; here it is none. A leap forward is passed on.

    Args:
        read: seconds of the clock beneath.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._made_up_s = 0.0
        self._last_s: float | None = None
        # Two threads that read in one order and compare in the other would see a clock go back.
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Seconds, never less than the last time."""
        with self._lock:
            now_s = self._read() + self._made_up_s
            if self._last_s is not None and now_s < self._last_s:
                self._made_up_s += self._last_s - now_s
                now_s = self._last_s
            self._last_s = now_s
            return now_s


class SteadyLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers ring although the monotonic clock was set back."""

    def __init__(self) -> None:
        self._steady = Steady(super().time)
        super().__init__()

    def time(self) -> float:
        """Seconds of the monotonic clock, never less than the last time."""
        return self._steady()
