"""`neuromodd run` with a day in minutes: ticks follow one another at once, each an interval later.

    python benchmarks/fastforward.py run [options of `neuromodd run`]

All is the daemon's own but the grid of the ticks, which waits for nothing, and the clock of the frames, the
sensors, the checkpoints and the health, which goes on by `tick.interval_s` with each tick. What waits for
others keeps the time of the world: the connection, the outbox, the deadlines of the sensors.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
import sys
import time
from collections.abc import AsyncIterator, Callable

from neuromodd import daemon, eye, sensors
from neuromodd.__main__ import main
from neuromodd.eye import Due

ROUNDS = 8
"""Of the event loop between two ticks: a message that is published takes some."""

NAMES = 25_000
STARTED_TICKS = 100
"""When all is imported, so many names are interned and dropped again.

The interpreter's table of names counts those that were ever put into it, paths of files among them, and is
made anew when it is full: once twice as large, 0.96 MB, and then always of that size. Left to itself that
comes after some hours or some ten hours, and would pass for a leak.
"""


class Clock:
    """Stands still between two ticks."""

    def __init__(self) -> None:
        self.now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._ticks = 0

    def __call__(self) -> float:
        """Seconds, as `eye.clock_s`."""
        return self.now_s

    async def beats(self, interval_s: Callable[[], float], *_: object) -> AsyncIterator[Due]:
        """In place of `eye.beats`."""
        while True:
            for _round in range(ROUNDS):
                await asyncio.sleep(0)
            self.now_s += interval_s()
            self._ticks += 1
            if self._ticks == STARTED_TICKS:
                for number in range(NAMES):
                    sys.intern(f"name {number}")
            yield Due(0.0, 0)


def install(clock: Clock) -> None:
    """Give the clock to whoever is to follow it."""
    for module in (eye, daemon):
        for name, value in (("clock_s", clock), ("beats", clock.beats)):
            # A name that has moved on would leave the day as long as it is.
            assert hasattr(module, name), f"{module.__name__} has no {name}"  # noqa: S101
            setattr(module, name, value)
    told = 0
    for found in pkgutil.iter_modules(sensors.__path__, "neuromodd.sensors."):
        module = importlib.import_module(found.name)
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ != found.name or not inspect.isfunction(kind.__init__):
                continue
            defaults = kind.__init__.__kwdefaults__ or {}
            if "clock" in defaults:
                defaults["clock"] = clock
                told += 1
    assert told > 0, "no sensor has a clock to replace"  # noqa: S101


if __name__ == "__main__":
    install(Clock())
    main()
    sys.exit("not reached")
