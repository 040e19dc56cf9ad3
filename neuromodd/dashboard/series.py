"""What of a frame is drawn and summed up: a list of numbers, the same for every host."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.modulators import temperature_sensors

Reading = Callable[[TelemetryFrame], float | None]


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _gpu_memory(frame: TelemetryFrame) -> float | None:
    return _largest(
        gpu.memory_used_bytes / gpu.memory_total_bytes
        for gpu in frame.gpus or ()
        if gpu.memory_used_bytes is not None and gpu.memory_total_bytes
    )


def _gpu_watts(frame: TelemetryFrame) -> float | None:
    known = [gpu.power_watts for gpu in frame.gpus or () if gpu.power_watts is not None]
    return sum(known) if known else None


def hottest_celsius(frame: TelemetryFrame) -> float | None:
    """The highest temperature of the processor, the GPUs and all other sensors; None without any."""
    return _largest(
        (
            *(sensor.temperature_celsius for sensor in temperature_sensors(frame)),
            *(gpu.temperature_celsius for gpu in frame.gpus or ()),
        )
    )


READINGS: dict[str, Reading] = {
    "cpu.utilization_ratio": lambda f: f.cpu.utilization_ratio if f.cpu else None,
    "gpus.utilization_ratio": lambda f: _largest(gpu.utilization_ratio for gpu in f.gpus or ()),
    "memory.used_ratio": lambda f: f.memory.used_ratio if f.memory else None,
    "gpus.memory_used_ratio": _gpu_memory,
    "cpu.temperature_celsius": lambda f: f.cpu.temperature_celsius if f.cpu else None,
    "gpus.temperature_celsius": lambda f: _largest(gpu.temperature_celsius for gpu in f.gpus or ()),
    "thermal.temperature_celsius": lambda f: _largest(of.temperature_celsius for of in f.thermal or ()),
    "power.package_watts": lambda f: f.power.package_watts if f.power else None,
    "gpus.power_watts": _gpu_watts,
    "pressure.cpu_some_ratio": lambda f: f.pressure.cpu_some_ratio if f.pressure else None,
    "pressure.memory_some_ratio": lambda f: f.pressure.memory_some_ratio if f.pressure else None,
    "pressure.io_some_ratio": lambda f: f.pressure.io_some_ratio if f.pressure else None,
    "disk.busy_ratio": lambda f: f.disk.busy_ratio if f.disk else None,
    "disk.read_bytes_per_s": lambda f: f.disk.read_bytes_per_s if f.disk else None,
    "disk.write_bytes_per_s": lambda f: f.disk.write_bytes_per_s if f.disk else None,
    "network.receive_bytes_per_s": lambda f: f.network.receive_bytes_per_s if f.network else None,
    "network.transmit_bytes_per_s": lambda f: f.network.transmit_bytes_per_s if f.network else None,
    "work.rate": lambda f: f.work.rate if f.work else None,
}
"""Of several devices the busiest, the fullest, the hottest; of GPU power the sum."""
