"""The last ten minutes in numbers: what a page that has just been opened is shown, and what it is sent on.

Every number has a column, named by its path in the MQTT payloads (`state.modulators.dopamine`,
`telemetry.cpu.utilization_ratio`), and every row has a tick's numbers in the order of the columns. A row is
an array of doubles, NaN for what was not measured: ten minutes take a few hundred kilobytes.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from pydantic.fields import FieldInfo

from neuromodd.core.brain import Tick
from neuromodd.core.encoding import CHANNELS, DRIVES
from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.core.messages import rounded
from neuromodd.core.record import Ratio, Record

WINDOW_S = 600.0

ROW_S = 1.0
"""Rows are at least so far apart: of faster ticks only every so manieth makes one."""

COLUMNS_LIMIT = 512
"""A host with more sensors than that shows those that were found first."""

LIF_LIMIT = 32
BANK_LIMIT = 16
"""Of a larger network the first neurons are shown."""

SNAPSHOT_S = 60.0
"""The weights of ten minutes ago are known to the minute."""

UNITS = (
    "bytes_per_s",
    "ratio",
    "celsius",
    "watts",
    "volts",
    "bytes",
    "per_s",
    "hz",
    "rpm",
    "ms",
    "ns",
    "cores",
)
"""What names of quantities end in; `bytes_per_s` before `per_s`."""

GROUPS = ("cpu", "memory", "pressure", "disk", "network", "power", "limits", "work", "fpga")

DEVICES = {
    "thermal": ("temperature_celsius",),
    "fans": ("speed_rpm",),
    "voltages": ("volts",),
    "gpus": (
        "utilization_ratio",
        "memory_used_bytes",
        "memory_total_bytes",
        "temperature_celsius",
        "memory_temperature_celsius",
        "power_watts",
        "power_limit_watts",
        "sm_clock_hz",
        "memory_clock_hz",
        "fan_ratio",
        "pcie_receive_bytes_per_s",
        "pcie_transmit_bytes_per_s",
    ),
}
"""What is shown of each device of the lists in a frame."""

NOT_MEASURED = math.nan


class Column(NamedTuple):
    """What one number of each row is.

    Attributes:
        name: its path in the MQTT payloads: the topic, then the keys.
        group: what it is shown with.
        label: for people.
        unit: one of `UNITS`, or empty for a level or a count.
        low: where its scale begins; None if that is to be taken from what is seen.
        high: where its scale ends, likewise.
        whole: whether it is a whole number, in the payload too.
        device: the name of the device in a list, a GPU's number as text; None for all else.
        help: where it comes from.
    """

    name: str
    group: str
    label: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    whole: bool = False
    device: str | None = None
    help: str = ""

    @property
    def field(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]

    def values(self) -> dict[str, Any]:
        """What a page is told of it."""
        told = ("name", "group", "label", "unit", "low", "high")
        return {name: getattr(self, name) for name in told}


class Row(NamedTuple):
    """The numbers of a tick: its sequence, its time in seconds since 1970, and a value for each column."""

    sequence: int
    time_s: float
    values: array[float]


class Snapshot(NamedTuple):
    """The weights at an instant, a row a neuron."""

    time_s: float
    weights: tuple[tuple[float, ...], ...]


class History:
    """Rows of the last ten minutes, and weights of each minute in them. Mutable.

    Args:
        interval_s: from one tick to the next.
        lif: neurons of that kind.
        bank: Izhikevich neurons.
        surprise: names of the channels that surprise watches, in the order of its moments.
        weights: those of now, a row a LIF neuron.
    """

    def __init__(
        self,
        *,
        interval_s: float,
        lif: int,
        bank: int,
        surprise: Sequence[str],
        weights: Callable[[], Sequence[Sequence[float]]],
    ) -> None:
        self._weights = weights
        self._lif = min(lif, LIF_LIMIT)
        self._bank = min(bank, BANK_LIMIT)
        self._surprise = len(surprise)
        self.columns: list[Column] = list(_state_columns(self._lif, self._bank, surprise))
        self._state_columns = len(self.columns)
        self.columns.extend(_frame_columns())
        self._fixed_columns = len(self.columns)
        self._devices: dict[tuple[str, str], int] = {}
        self._fired = [0] * (self._lif + self._bank)
        self._steps = 0
        self._ticks = 0
        self.rows: deque[Row] = deque()
        self._snapshots: deque[Snapshot] = deque()
        self.follow(interval_s)

    def follow(self, interval_s: float) -> None:
        """Expect ticks at another interval."""
        self._ticks_a_row = max(math.ceil(ROW_S / interval_s - 1e-9), 1)
        self.row_interval_s = self._ticks_a_row * interval_s

    def take(self, tick: Tick) -> Row | None:
        """Take in a tick; the row, if it makes one."""
        fired = (*tick.result.lif_spikes[: self._lif], *tick.result.izhikevich_spikes[: self._bank])
        self._fired = [sum_ + count for sum_, count in zip(self._fired, fired, strict=True)]
        self._steps += tick.result.steps
        self._ticks += 1
        # The very first is shown at once.
        if self._ticks < self._ticks_a_row and self.rows:
            return None
        time_utc = tick.frame.time_utc
        time_s = 0.0 if time_utc is None else time_utc.timestamp()
        rates = [count / self._steps for count in self._fired]
        values = array("d", map(_double, _state_numbers(tick, self._surprise, rates)))
        values.extend(map(_double, self.numbers(tick.frame)))
        self._fired = [0] * len(fired)
        self._steps = self._ticks = 0
        row = Row(tick.frame.sequence, time_s, values)
        self._keep(row)
        return row

    def _keep(self, row: Row) -> None:
        # Where the clock was set back, what was said of that time before gives way.
        for past in (self.rows, self._snapshots):
            while past and past[-1].time_s >= row.time_s:
                past.pop()
        self.rows.append(row)
        if not self._snapshots or row.time_s - self._snapshots[-1].time_s >= SNAPSHOT_S:
            self._snapshots.append(self.snapshot())
        oldest_s = row.time_s - WINDOW_S
        while self.rows[0].time_s < oldest_s:
            self.rows.popleft()
        while self._snapshots[0].time_s < oldest_s - SNAPSHOT_S:
            self._snapshots.popleft()

    def snapshot(self) -> Snapshot:
        """The weights of now, at the time of the newest row."""
        shown = tuple(tuple(row[:LIF_LIMIT]) for row in self._weights()[: self._lif])
        return Snapshot(self.rows[-1].time_s, shown)

    @property
    def earlier(self) -> Snapshot | None:
        """The oldest weights that are known of, at most some ten minutes old; None at the very beginning."""
        return self._snapshots[0] if self._snapshots else None

    def encodable(self, row: Row) -> list[Any]:
        """The row as JSON values, with the digits that MQTT has."""
        numbers = (
            None if math.isnan(value) else _told(value, column)
            for value, column in zip(row.values, self.columns, strict=False)
        )
        return [row.sequence, row.time_s, *numbers]

    @property
    def telemetry_columns(self) -> list[Column]:
        """The columns of `numbers`."""
        return self.columns[self._state_columns :]

    def numbers(self, frame: TelemetryFrame) -> Iterator[float | None]:
        """The numbers of a frame, in the order of `telemetry_columns`; None for what is not measured."""
        yield frame.lateness_ms
        for group, fields in _FIELDS.items():
            sample = getattr(frame, group)
            for field in fields:
                yield None if sample is None else getattr(sample, field)
        # Devices come and go; a column stays with its own.
        found: dict[int, float | None] = {}
        for group, shown in DEVICES.items():
            for device in getattr(frame, group) or ():
                first = self._column_of(group, device)
                if first is not None:
                    found.update((first + place, getattr(device, field)) for place, field in enumerate(shown))
        for column in range(self._fixed_columns, len(self.columns)):
            yield found.get(column)

    def _column_of(self, group: str, device: Record) -> int | None:
        """The first column of a device, which is given its columns when it is first seen."""
        name = str(device.index) if isinstance(device, GpuSample) else str(getattr(device, "name", ""))
        first = self._devices.get((group, name))
        if first is None:
            if len(self.columns) + len(DEVICES[group]) > COLUMNS_LIMIT:
                return None
            first = self._devices[group, name] = len(self.columns)
            self.columns.extend(_device_columns(group, name, type(device)))
        return first


def _double(value: float | None) -> float:
    return NOT_MEASURED if value is None else float(value)


def _told(value: float, column: Column) -> float:
    if column.whole:
        return int(value)
    return rounded(value) if column.name.startswith("telemetry.") else value


def _state_columns(lif: int, bank: int, surprise: Sequence[str]) -> Iterator[Column]:
    of = "state.modulators"
    for name in ("dopamine", "cortisol", "acetylcholine"):
        yield Column(f"{of}.{name}", "modulators", name, low=0.0, high=1.0)
    yield Column(f"{of}.tempo", "modulators", "tempo", low=0.0, high=2.0)
    for name in ("dopamine", "cortisol", "acetylcholine"):
        yield Column(f"{of}.tonic.{name}", "parts", f"tonic {name}", low=0.0, high=1.0)
    yield Column(f"{of}.tonic.tempo", "parts", "tonic tempo", low=0.0, high=2.0)
    for name in ("dopamine", "cortisol", "acetylcholine"):
        yield Column(f"{of}.phasic.{name}", "parts", f"phasic {name}", low=-1.0, high=1.0)
    for name in ("stress", "reward", "focus", "anomaly"):
        yield Column(f"state.flags.{name}", "flags", name, low=0.0, high=1.0, whole=True)
    yield Column("state.surprise.total", "surprise", "all", low=0.0, high=1.0)
    for name in surprise:
        label = name if "." in name else _words(name)
        yield Column(f"state.surprise.channels.{name}", "surprise", label, low=0.0, high=1.0)
    for kind, count, names in (("lif", lif, CHANNELS), ("izhikevich", bank, DRIVES)):
        for neuron in range(count):
            label = _words(names[neuron % len(names)])
            yield Column(f"state.rates.{kind}.{neuron}", "rates", label, low=0.0, high=1.0)


def _state_numbers(tick: Tick, surprise: int, rates: Iterable[float]) -> Iterator[float | None]:
    for levels in (tick.modulators, tick.tonic):
        yield from (levels.dopamine, levels.cortisol, levels.acetylcholine, levels.tempo)
    yield from (tick.phasic.dopamine, tick.phasic.cortisol, tick.phasic.acetylcholine)
    moment = tick.surprise
    anomaly = moment is not None and moment.episode is not None
    yield from (tick.stressed, tick.rewarded, tick.focused, anomaly)
    if moment is None:
        yield from (None,) * (1 + surprise)
    else:
        yield moment.surprise
        yield from (of.surprise for of in moment.channels)
    yield from rates


def _frame_columns() -> Iterator[Column]:
    lateness = TelemetryFrame.model_fields["lateness_ms"]
    yield Column("telemetry.lateness_ms", "frame", "lateness", "ms", 0.0, help=lateness.description or "")
    for group, fields in _FIELDS.items():
        for field, info in fields.items():
            yield _column(f"telemetry.{group}.{field}", group, info)


def _device_columns(group: str, device: str, kind: type[Record]) -> Iterator[Column]:
    title = f"GPU {device}" if group == "gpus" else device
    for field in DEVICES[group]:
        column = _column(f"telemetry.{group}[{device}].{field}", group, kind.model_fields[field])
        label = title if group != "gpus" else f"{title} {column.label}"
        yield column._replace(label=label, device=device)


def _column(name: str, group: str, info: FieldInfo) -> Column:
    field = name.rpartition(".")[2]
    unit = next((unit for unit in UNITS if field == unit or field.endswith(f"_{unit}")), "")
    high = 1.0 if Ratio in get_args(info.annotation) else None
    low = None if unit in {"celsius", "volts", "ns"} else 0.0
    whole = info.annotation in (int | None, bool | None)
    label = _words(field.removesuffix(unit).rstrip("_") or field)
    return Column(name, group, label, unit, low, high, whole, help=info.description or "")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _numeric_fields(group: str) -> dict[str, FieldInfo]:
    """Those fields of a part of the frame that are one number each, or yes and no."""
    kind = TelemetryFrame.model_fields[group].annotation
    sample = next(of for of in kind.__args__ if of is not type(None))  # type: ignore[union-attr]
    return {name: info for name, info in sample.model_fields.items() if _is_number(info)}


def _is_number(info: FieldInfo) -> bool:
    text = str(info.annotation)
    return "str" not in text and "tuple" not in text


_FIELDS = {group: _numeric_fields(group) for group in GROUPS}
