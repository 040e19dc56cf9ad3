"""What the terminal view shows of a `telemetry` payload: the measures that people look at first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from neuromodd.dashboard.glyphs import cleaned
from neuromodd.dashboard.history import UNITS

GPUS_LIMIT = 4
DEVICES_LIMIT = 64
TEXT_LIMIT = 240


class Measure(NamedTuple):
    """One line of the view: where its number stands in the payload, and what people call it."""

    group: str
    field: str
    label: str

    @property
    def unit(self) -> str:
        """One of `UNITS`, or empty for a count."""
        return next((unit for unit in UNITS if self.field == unit or self.field.endswith(f"_{unit}")), "")


GPU = (
    Measure("gpus", "utilization_ratio", "gpu {} use"),
    Measure("gpus", "temperature_celsius", "gpu {} heat"),
    Measure("gpus", "power_watts", "gpu {} power"),
    Measure("gpus", "memory_used_bytes", "gpu {} memory"),
)

SINGLE = (
    Measure("cpu", "utilization_ratio", "cpu use"),
    Measure("memory", "used_ratio", "memory used"),
    Measure("cpu", "temperature_celsius", "cpu heat"),
    Measure("power", "package_watts", "cpu power"),
    Measure("network", "receive_bytes_per_s", "net in"),
    Measure("network", "transmit_bytes_per_s", "net out"),
    Measure("disk", "read_bytes_per_s", "disk read"),
    Measure("disk", "write_bytes_per_s", "disk write"),
    Measure("cpu", "frequency_hz", "cpu clock"),
    Measure("pressure", "cpu_some_ratio", "cpu waits"),
    Measure("pressure", "io_some_ratio", "io waits"),
    Measure("pressure", "memory_some_ratio", "mem waits"),
    Measure("disk", "busy_ratio", "disk busy"),
    Measure("work", "rate", "work rate"),
    Measure("cpu", "load_1m", "load 1 min"),
    Measure("memory", "swap_used_ratio", "swap used"),
    Measure("power", "battery_ratio", "battery"),
    Measure("", "lateness_ms", "tick late"),
)

HOTTEST = Measure("thermal", "temperature_celsius", "hottest")

ALL: dict[str, Measure] = {
    measure.label: measure
    for measure in (
        *(of._replace(label=of.label.format(index)) for index in range(GPUS_LIMIT) for of in GPU),
        *SINGLE[:4],
        HOTTEST,
        *SINGLE[4:],
    )
}
"""By label, in the order in which they are shown as far as there is room."""


def measures(payload: Mapping[str, Any]) -> dict[str, float]:
    """The measures of a payload by their labels; what is not measured is not there."""
    found = dict(_found(payload))
    return {label: found[label] for label in ALL if label in found}


def _found(payload: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for measure in SINGLE:
        group = payload if not measure.group else payload.get(measure.group)
        if (value := number(group, measure.field)) is not None:
            yield measure.label, value
    for index, device in enumerate(_devices(payload, "gpus")[:GPUS_LIMIT]):
        for measure in GPU:
            if (value := number(device, measure.field)) is not None:
                yield measure.label.format(index), value
    heats = [number(device, HOTTEST.field) for device in _devices(payload, "thermal")]
    if known := [heat for heat in heats if heat is not None]:
        yield HOTTEST.label, max(known)


def _devices(payload: Mapping[str, Any], group: str) -> list[object]:
    devices = payload.get(group)
    return devices[:DEVICES_LIMIT] if isinstance(devices, list) else []


def number(values: object, *path: str) -> float | None:
    """The finite number at a path of keys in a JSON value; None if there is none."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    if isinstance(values, bool) or not isinstance(values, (int, float)):
        return None
    try:
        found = float(values)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def text(value: object, limit: int = TEXT_LIMIT) -> str:
    """A JSON value as a short line of text that does a terminal no harm; null is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        found = number(value)
        return "" if found is None else f"{found:.6g}"
    return cleaned(value, limit) if isinstance(value, str) else ""
