"""What sensors hand over: raw counters and instant values, before any rate is taken.

A sensor that measures no counter hands over the frame's own group instead (`MemorySample`). None is
what could not be read; a device that is gone is missing from its mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from neuromodd.core.frame import FanSample, GpuSample, TemperatureSample, VoltageSample


class DiskCounters(NamedTuple):
    """One whole disk since boot (or since it was plugged in)."""

    read_bytes: int
    write_bytes: int
    busy_ms: int


class InterfaceCounters(NamedTuple):
    """One network interface since it came up; errors are those of both directions."""

    receive_bytes: int
    transmit_bytes: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuReading:
    """Processor time in clock ticks since boot, and what /proc and cpufreq say right now."""

    busy_ticks: int | None = None
    total_ticks: int | None = None
    context_switches: int | None = None
    load_1m: float | None = None
    frequency_hz: float | None = None
    frequency_max_hz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureReading:
    """Stall time in microseconds since boot; keys as in PressureSample without `_ratio` (`cpu_some`)."""

    stalled_us: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskReading:
    """Counters by disk name (`sda`)."""

    disks: Mapping[str, DiskCounters]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkReading:
    """Counters by interface name (`eth0`)."""

    interfaces: Mapping[str, InterfaceCounters]


@dataclass(frozen=True, slots=True, kw_only=True)
class HwmonReading:
    """All hardware monitoring chips.

    Attributes:
        cpu: the sensor that stands for the processor package, if one is recognised.
        core_volts: the rail that the user named as the core rail.
    """

    temperatures: tuple[TemperatureSample, ...] = ()
    fans: tuple[FanSample, ...] = ()
    voltages: tuple[VoltageSample, ...] = ()
    cpu: TemperatureSample | None = None
    core_volts: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalZonesReading:
    """The kernel's thermal zones; `cpu` as in HwmonReading, used where no chip stands for the processor."""

    temperatures: tuple[TemperatureSample, ...] = ()
    cpu: TemperatureSample | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """All GPUs of one driver; `driver_error` when there is a driver but it can't be asked."""

    gpus: tuple[GpuSample, ...] = ()
    driver_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupReading:
    """Processor time in microseconds of each top-level control group (`system.slice`)."""

    usage_us: Mapping[str, int]
