"""What surprise costs: time a channel and row, plain and compiled, and memory a channel.

    python benchmarks/surprise_cost.py [--rows 3000] [--days 14] [--repeat 3]

The readings have a day, noise and now and then a jump, at one row a minute. Time is the best of the
repetitions, after a first day that does not count. Memory is what Python and numpy have allocated for a
detector of many channels, after one day and after so many: it must not grow. Prints a Markdown table with the
machine and the date.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
from measuring import machine_line, print_table

from neuromodd.core.engine import numba_installed
from neuromodd.core.surprise import SurpriseDetector

CHANNELS = (1, 10, 20)
MEMORY_CHANNELS = 20
DAY_ROWS = 1440
STEP_S = 60.0
JUMP_ROWS = 1000


def rows(channels: int, count: int, first: int = 0) -> Iterator[tuple[list[float], float]]:
    """Readings and times, the same for the same arguments."""
    rng = np.random.default_rng((channels, first))
    for at in range(first, first + count):
        level = 10.0 + 3.0 * math.sin(2.0 * math.pi * at / DAY_ROWS)
        values = level + rng.normal(size=channels)
        if not at % JUMP_ROWS:
            values[0] += 50.0
        yield values.tolist(), STEP_S * at


def made(channels: int, *, compiled: bool) -> SurpriseDetector:
    return SurpriseDetector([f"channel{at}" for at in range(channels)], compiled=compiled)


def us_per_channel(channels: int, count: int, repeat: int, *, compiled: bool) -> float:
    """Microseconds a channel and row."""
    detector = made(channels, compiled=compiled)
    for values, time_s in rows(channels, DAY_ROWS):
        detector.update(values, time_s)
    best = math.inf
    for turn in range(repeat):
        taken = list(rows(channels, count, DAY_ROWS + turn * count))
        began = time.perf_counter()
        for values, time_s in taken:
            detector.update(values, time_s)
        best = min(best, time.perf_counter() - began)
    return best / count / channels * 1e6


def bytes_per_channel(days: int, *, compiled: bool) -> tuple[float, float, float]:
    """Bytes a channel after a day and after so many, and of the state in a checkpoint."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        detector = made(MEMORY_CHANNELS, compiled=compiled)
        sizes = []
        for day in range(days):
            for values, time_s in rows(MEMORY_CHANNELS, DAY_ROWS, day * DAY_ROWS):
                detector.update(values, time_s)
            if day in (0, days - 1):
                sizes.append((tracemalloc.get_traced_memory()[0] - before) / MEMORY_CHANNELS)
    finally:
        tracemalloc.stop()
    stored = len(json.dumps(detector.state(), separators=(",", ":"))) / MEMORY_CHANNELS
    return sizes[0], sizes[-1], stored


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=3000, help="to time at once (3000)")
    parser.add_argument("--days", type=int, default=14, help="of rows for the memory (14)")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    kinds = {"plain Python": False} | ({"compiled": True} if numba_installed() else {})
    table = []
    for channels in CHANNELS:
        costs = [
            us_per_channel(channels, arguments.rows, arguments.repeat, compiled=compiled)
            for compiled in kinds.values()
        ]
        name = "1 channel" if channels == 1 else f"{channels} channels"
        table.append([f"time a channel and row, {name}", *(f"{cost:.2f} us" for cost in costs)])
    memory = [bytes_per_channel(arguments.days, compiled=compiled) for compiled in kinds.values()]
    names = ("memory a channel after a day", f"after {arguments.days} days", "a channel in a checkpoint")
    for at, name in enumerate(names):
        table.append([name, *(f"{of[at] / 1024:.1f} KiB" for of in memory)])
    print(f"{machine_line()}; {MEMORY_CHANNELS} channels for the memory\n")
    print_table(["measured", *kinds], table)


if __name__ == "__main__":
    main()
