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
    """One network interface since it came up; errors and drops are those of both directions."""

    receive_bytes: int
    transmit_bytes: int
    errors: int
    drops: int


class EnergyCounter(NamedTuple):
    """Energy that one processor package has used, in microjoules; after `wraps_at` the counter is 0 again."""

    used_uj: int
    wraps_at_uj: int


class PcieCounters(NamedTuple):
    """Bytes over the PCIe link of one GPU, as the GPU sees them."""

    receive_bytes: int
    transmit_bytes: int


class CpuReading(NamedTuple):
    """Processor time in clock ticks and throttle events since boot, and what holds right now."""

    busy_ticks: int | None = None
    total_ticks: int | None = None
    context_switches: int | None = None
    load_1m: float | None = None
    frequency_hz: float | None = None
    frequency_max_hz: float | None = None
    core_frequencies_hz: tuple[float | None, ...] | None = None
    throttles: int | None = None


class PressureReading(NamedTuple):
    """Stall time in microseconds since boot; keys as in PressureSample without `_ratio` (`cpu_some`)."""

    stalled_us: Mapping[str, int]


class DiskReading(NamedTuple):
    """Counters by disk name (`sda`)."""

    disks: Mapping[str, DiskCounters]


class NetworkReading(NamedTuple):
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
class EnergyReading:
    """Counters by package (`package-0`)."""

    packages: Mapping[str, EnergyCounter]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSupplyReading:
    """Mains and batteries; None for what the machine does not have."""

    on_mains: bool | None = None
    battery_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsReading:
    """The tightest limits of this process's control groups; None where none is set.

    Attributes:
        cpu_limit_cores: quota / period.
        cpu_periods: periods since the group with that quota was made.
        cpu_throttled_periods: those of them that ran into the quota.
        memory_limit_bytes: the limit.
        memory_used_bytes: what the group with that limit uses.
    """

    cpu_limit_cores: float | None = None
    cpu_periods: int | None = None
    cpu_throttled_periods: int | None = None
    memory_limit_bytes: int | None = None
    memory_used_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """All GPUs of one driver; `driver_error` when there is a driver but it can't be asked.

    Attributes:
        gpus: values of now.
        pcie: counters by the GPU's index, where the driver has them.
        driver_error: the driver's word for the reason.
    """

    gpus: tuple[GpuSample, ...] = ()
    pcie: Mapping[int, PcieCounters] = field(default_factory=dict)
    driver_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupReading:
    """Processor time in microseconds of each top-level control group (`system.slice`)."""

    usage_us: Mapping[str, int]
