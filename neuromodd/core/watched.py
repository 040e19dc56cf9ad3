"""TelemetryFrame -> the readings that surprise watches, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from neuromodd.core.encoding import CHANNELS
from neuromodd.core.frame import TelemetryFrame


def readings(
    frame: TelemetryFrame, names: Iterable[str], stimuli: Sequence[float | None]
) -> tuple[float | None, ...]:
    """One reading a name, None where it was not measured.

    A name is one of the network's channels, `network` (bytes/s, both directions), `pressure` (the largest
    share of time that tasks waited), or the path of a number in the frame, as `disk.write_bytes_per_s`.
    """
    known = dict(zip(CHANNELS, stimuli, strict=True))
    return tuple(known[name] if name in known else _reading(frame, name) for name in names)


def _reading(frame: TelemetryFrame, name: str) -> float | None:
    if name == "network":
        return _sum(frame.network and (frame.network.receive_bytes_per_s, frame.network.transmit_bytes_per_s))
    if name == "pressure":
        pressure = frame.pressure
        return max(
            (
                value
                for value in (
                    pressure
                    and (pressure.cpu_some_ratio, pressure.memory_some_ratio, pressure.io_some_ratio)
                )
                or ()
                if value is not None
            ),
            default=None,
        )
    return None


def _sum(values: Sequence[float | None] | None) -> float | None:
    known = [value for value in values or () if value is not None]
    return sum(known) if known else None
