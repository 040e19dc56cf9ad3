"""What a picture is made of: lines that break, strips without holes, labels that stand apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neuromodd.core.rewards import BreakthroughFound, RewardEvent, SourceSwitch, WorkAccepted
from neuromodd.dashboard import report
from neuromodd.dashboard.digest import Gap
from neuromodd.dashboard.fold import Columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHORTEST_GAP_COLUMNS = 2.0
"""A gap of less can't be told from the width of the columns beside it."""


LEAST_CHANGE = 0.005
"""What is less is 0 at two digits."""


class Series(NamedTuple):
    """One line of a panel: the reading, and its label."""

    reading: str
    label: str


class Panel(NamedTuple):
    """Lines of one unit.

    Attributes:
        title: with the unit; `{unit}` stands for one with a prefix that fits the numbers.
        unit: the base unit, for that.
        factor: from the reading to the unit.
        top: of the axis; None for the largest value.
        series: the lines; those that were never measured are left out.
    """

    title: str
    unit: str
    factor: float
    top: float | None
    series: tuple[Series, ...]


PANELS = (
    Panel(
        "Utilisation (%)",
        "",
        100.0,
        100.0,
        (
            Series("cpu.utilization_ratio", "CPU"),
            Series("gpus.utilization_ratio", "GPU"),
            Series("memory.used_ratio", "memory"),
            Series("gpus.memory_used_ratio", "GPU memory"),
        ),
    ),
    Panel(
        "Temperature (°C)",
        "",
        1.0,
        None,
        (
            Series("cpu.temperature_celsius", "CPU"),
            Series("gpus.temperature_celsius", "GPU"),
            Series("thermal.temperature_celsius", "others"),
        ),
    ),
    Panel(
        "Power (W)",
        "",
        1.0,
        None,
        (Series("power.package_watts", "CPU"), Series("gpus.power_watts", "GPUs")),
    ),
    Panel(
        "Waiting: pressure (% of time that some task waits), disk busy (%)",
        "",
        100.0,
        None,
        (
            Series("pressure.cpu_some_ratio", "for CPU"),
            Series("pressure.io_some_ratio", "for I/O"),
            Series("pressure.memory_some_ratio", "for memory"),
            Series("disk.busy_ratio", "disk busy"),
        ),
    ),
    Panel(
        "Disk ({unit}/s)",
        "B",
        1.0,
        None,
        (Series("disk.read_bytes_per_s", "read"), Series("disk.write_bytes_per_s", "written")),
    ),
    Panel(
        "Network ({unit}/s)",
        "B",
        1.0,
        None,
        (
            Series("network.receive_bytes_per_s", "received"),
            Series("network.transmit_bytes_per_s", "sent"),
        ),
    ),
)


def breaks(columns: Columns, gaps: Sequence[Gap]) -> list[int]:
    """The columns before which nobody watched."""
    start_s, found = columns.start_s, set()
    for gap in gaps:
        if gap.seconds < SHORTEST_GAP_COLUMNS * columns.width_s:
            continue
        before, after = np.searchsorted(
            start_s, (gap.from_utc.timestamp(), gap.to_utc.timestamp()), side="right"
        )
        if after == before + 1:
            found.add(int(after) - 1)
    return sorted(found)


def line(values: NDArray[np.float64], places: Sequence[int]) -> NDArray[np.float64]:
    """The values of the columns with a NaN at each break, where the line is to end."""
    return np.insert(values.astype(np.float64), list(places), math.nan)


def strip(
    values: NDArray[np.float64],
    columns: Columns,
    places: Sequence[int],
    *,
    from_s: float,
    to_s: float,
    cells: int,
    largest: bool,
) -> NDArray[np.float64]:
    """Values of the columns on an even grid; what lies between two frames is the earlier, a gap NaN.

    Args:
        values: (columns, rows).
        columns: the time axis.
        places: the breaks in it.
        from_s: where the grid begins, since the epoch.
        to_s: where it ends.
        cells: of the grid.
        largest: of several columns in a cell take the largest value; else the mean.

    Returns:
        (rows, cells).
    """
    size_s = (to_s - from_s) / cells
    begins = np.clip(((columns.start_s - from_s) / size_s).astype(np.int64), 0, cells - 1)
    first = np.flatnonzero(np.r_[True, begins[1:] != begins[:-1]])
    if largest:
        pooled = np.fmax.reduceat(values, first)
    else:
        known = np.add.reduceat(~np.isnan(values), first)
        total = np.add.reduceat(np.nan_to_num(values), first)
        pooled = np.full(total.shape, math.nan)
        np.divide(total, known, out=pooled, where=known > 0)
    at = np.searchsorted(begins[first], np.arange(cells), side="right") - 1
    held = pooled[np.maximum(at, 0)].T.copy()
    middle_s = from_s + (np.arange(cells) + 0.5) * size_s
    for place in places:
        end_s = columns.start_s[place - 1] + columns.width_s
        held[:, (middle_s > end_s) & (middle_s < columns.start_s[place])] = math.nan
    return held


def apart(wanted: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Places for labels: as near as can be to where they are wanted, `least` apart, within the bounds."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    places = [min(max(wanted[at], low), high) for at in order]
    for at in range(1, len(places)):
        places[at] = max(places[at], places[at - 1] + least)
    # What was pushed out above pushes the others down.
    ceiling = high
    for at in reversed(range(len(places))):
        places[at] = min(places[at], ceiling)
        ceiling = places[at] - least
    found = [0.0] * len(wanted)
    for at, place in zip(order, places, strict=True):
        found[at] = place
    return found


def prefixed(largest: float) -> tuple[float, str]:
    """A factor and the SI prefix that it stands for, so that `largest` times it is between 1 and 1,000."""
    for factor, prefix in ((1e-12, "T"), (1e-9, "G"), (1e-6, "M"), (1e-3, "k")):
        if largest * factor >= 1.0:
            return factor, prefix
    return 1.0, ""


def words(event: RewardEvent) -> str:
    """What an event was, in a word or some."""
    match event:
        case WorkAccepted():
            parts = [report.plain(event.source)]
            if event.latency_ms is not None:
                parts.append(f"{event.latency_ms:.3g} ms")
            return " ".join(part for part in parts if part)
        case BreakthroughFound():
            known = event.value is not None and event.previous_best is not None
            step = f" {event.previous_best:.3g} to {event.value:.3g}" if known else ""
            return f"{report.plain(event.metric)}{step}".strip()
        case SourceSwitch():
            return f"{report.plain(event.previous) or '-'} to {report.plain(event.current) or '-'}"
    return ""


def filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column's values, where there are none those of the column before."""
    held = values.copy()
    for at in range(1, len(held)):
        missing = np.isnan(held[at])
        held[at, missing] = held[at - 1, missing]
    return held


def nice(largest: float) -> float:
    """A round number with a round half, not below `largest`; 1 if that is not above 0."""
    if not largest > 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
    return next(of * power for of in steps if of * power >= largest * (1.0 - 1e-9))


def figure(weight: float, *, signed: bool) -> str:
    """A weight for a small cell: two digits, a change with its sign and without its leading 0."""
    if not signed:
        return f"{weight:.2f}"
    return f"{weight:+.2f}".replace("0.", ".", 1) if abs(weight) >= LEAST_CHANGE else "0"
