"""TelemetryFrame -> the stimuli of the network: eight channels and the five drives of the Izhikevich bank."""

from __future__ import annotations

from collections.abc import Iterable

from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.modulators import (
    Setpoints,
    heat_stress,
    hot_limit,
    power_level,
    power_stress,
    temperature_sensors,
)

CHANNELS = ("cpu", "memory", "gpu", "gpu_memory", "power", "thermal", "io", "work")
DRIVES = ("instability", "power", "heat", "work", "timing")

ROOM_CELSIUS = 30.0
"""Where the thermal channel begins: what an idle device in a warm room has."""

Stimuli = tuple[float | None, ...]


def encode(frame: TelemetryFrame, setpoints: Setpoints) -> Stimuli:
    """The eight channels of `CHANNELS`, each an intensity in [0, 1], None where its sensors are absent."""
    return (
        frame.cpu.utilization_ratio if frame.cpu else None,
        frame.memory.used_ratio if frame.memory else None,
        _largest(gpu.utilization_ratio for gpu in frame.gpus or ()),
        _largest(
            min(gpu.memory_used_bytes, gpu.memory_total_bytes) / gpu.memory_total_bytes
            for gpu in frame.gpus or ()
            if gpu.memory_used_bytes is not None and gpu.memory_total_bytes
        ),
        power_level(frame, setpoints),
        _thermal_level(frame, setpoints),
        _largest(
            (
                frame.disk.busy_ratio if frame.disk else None,
                frame.pressure.io_some_ratio if frame.pressure else None,
            )
        ),
        _work_level(frame, setpoints),
    )


def drives(frame: TelemetryFrame, setpoints: Setpoints, *, instability: float | None) -> Stimuli:
    """The five drives of `DRIVES`, each in [0, 1], None where nothing is known.

    Instability counts fully from 0.5 on, where acetylcholine has no room left to fall. Timing is the
    larger of the FPGA build's stress and the share of the tick interval by which the tick was late.
    """
    late = None
    if frame.lateness_ms is not None and frame.interval_s:
        late = frame.lateness_ms / 1000.0 / frame.interval_s
    return (
        _largest((None if instability is None else 2.0 * instability,)),
        power_stress(frame, setpoints),
        heat_stress(frame, setpoints),
        _work_level(frame, setpoints),
        _largest((frame.fpga.stress if frame.fpga else None, late)),
    )


def _thermal_level(frame: TelemetryFrame, setpoints: Setpoints) -> float | None:
    readings = [(gpu.temperature_celsius, gpu.slowdown_celsius) for gpu in frame.gpus or ()]
    readings += [
        (sensor.temperature_celsius, sensor.critical_celsius) for sensor in temperature_sensors(frame)
    ]
    return _largest(
        (celsius - ROOM_CELSIUS) / max(hot_limit(limit, setpoints) - ROOM_CELSIUS, 1.0)
        for celsius, limit in readings
        if celsius is not None
    )


def _work_level(frame: TelemetryFrame, setpoints: Setpoints) -> float | None:
    if frame.work is None or frame.work.rate is None:
        return None
    return min(frame.work.rate / (frame.work.target or setpoints.work_target), 1.0)


def _largest(levels: Iterable[float | None]) -> float | None:
    known = [level for level in levels if level is not None]
    return min(max(*known, 0.0), 1.0) if known else None
