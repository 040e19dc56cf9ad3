"""Sensors, sampler and assembler together: one look, one frame; and the rhythm of the looks."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from neuromodd.clocks import Steady
from neuromodd.config import Settings
from neuromodd.core.frame import TelemetryFrame, WorkSample
from neuromodd.core.rates import GAP_INTERVALS, FrameAssembler
from neuromodd.sensors.amdgpu import AmdGpuSensor
from neuromodd.sensors.base import Sampler, Sensor
from neuromodd.sensors.cgroup import CgroupSensor
from neuromodd.sensors.cpu import CpuSensor
from neuromodd.sensors.disk import DiskSensor
from neuromodd.sensors.fpga import FpgaSensor
from neuromodd.sensors.host import boot_id
from neuromodd.sensors.hwmon import HwmonSensor
from neuromodd.sensors.limits import LimitsSensor
from neuromodd.sensors.memory import MemorySensor
from neuromodd.sensors.network import NetworkSensor
from neuromodd.sensors.nvml import NvmlSensor
from neuromodd.sensors.nvml_trace import NvmlTrace
from neuromodd.sensors.power_supply import PowerSupplySensor
from neuromodd.sensors.pressure import PressureSensor
from neuromodd.sensors.rapl import RaplSensor
from neuromodd.sensors.thermal_zones import ThermalZonesSensor


def boot_s() -> float:
    """Seconds since boot, time asleep included: the clock of the frames."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_steady = Steady(boot_s)


def clock_s() -> float:
    """The same, but never back: what is due and what has an age counts on it."""
    return _steady()


def build_sensors(settings: Settings, nvml_trace: NvmlTrace | None = None) -> list[Sensor]:
    """All sensors but the disabled ones, in the order in which they are read; `nvml_trace` hears NVML."""
    options, clock = settings.sensors, clock_s
    procfs, sysfs = options.procfs_root, options.sysfs_root
    sensors: list[Sensor] = [
        CpuSensor(procfs_root=procfs, sysfs_root=sysfs, clock=clock),
        MemorySensor(procfs_root=procfs),
        PressureSensor(procfs_root=procfs),
        DiskSensor(procfs_root=procfs, sysfs_root=sysfs, clock=clock),
        NetworkSensor(
            procfs_root=procfs,
            sysfs_root=sysfs,
            include_loopback=options.network.include_loopback,
            clock=clock,
        ),
        HwmonSensor(sysfs_root=sysfs, core_rail=options.hwmon.core_rail, clock=clock),
        ThermalZonesSensor(sysfs_root=sysfs, clock=clock),
        RaplSensor(sysfs_root=sysfs, clock=clock),
        PowerSupplySensor(sysfs_root=sysfs, clock=clock),
        CgroupSensor(sysfs_root=sysfs, clock=clock),
        LimitsSensor(
            procfs_root=options.limits.procfs_root, sysfs_root=options.limits.sysfs_root, clock=clock
        ),
        NvmlSensor(sysfs_root=sysfs, clock=clock, trace=nvml_trace),
        AmdGpuSensor(sysfs_root=sysfs, clock=clock),
        FpgaSensor(
            timing_report=settings.fpga.timing_report, utilization_report=settings.fpga.utilization_report
        ),
    ]
    return [sensor for sensor in sensors if sensor.name not in options.disabled]


LONGEST_SLEEP_S = 1.0
"""So that another interval takes effect soon, however long the old one is."""


class Eye:
    """Sampler and assembler together: one call, one frame."""

    def __init__(self, settings: Settings, sensors: Sequence[Sensor] | None = None) -> None:
        self.sampler = Sampler(
            build_sensors(settings) if sensors is None else sensors,
            deadline_s=settings.sensors.deadline_s,
            clock=clock_s,
        )
        self.assembler = FrameAssembler(
            node=settings.node_name(),
            boot_id=boot_id(settings.sensors.procfs_root),
            interval_s=settings.tick.interval_s,
            work_target=settings.modulators.work_target,
        )

    async def look(
        self, *, sequence: int, lateness_ms: float | None, work: WorkSample | None = None
    ) -> TelemetryFrame:
        """The frame of this moment, with the work that a program of the user's reports, if one does."""
        monotonic_s, time_utc = boot_s(), datetime.now(UTC)
        readings = await self.sampler.sample()
        now_s = boot_s()
        if not 0.0 <= now_s - monotonic_s <= GAP_INTERVALS * self.assembler.interval_s:
            # The gap came in the midst of the look: it is before this frame, not before the next.
            monotonic_s, time_utc = now_s, datetime.now(UTC)
        return self.assembler.assemble(
            readings,
            sequence=sequence,
            time_utc=time_utc,
            monotonic_s=monotonic_s,
            lateness_ms=lateness_ms,
            work=work,
        )

    def close(self) -> None:
        """Let go of the sensors."""
        self.sampler.close()


class Due(NamedTuple):
    """One tick of the grid: how late it begins, and how many before it never took place."""

    lateness_s: float
    missed: int


async def beats(
    interval_s: Callable[[], float], clock: Callable[[], float], waiting: Callable[[], None] = lambda: None
) -> AsyncIterator[Due]:
    """Wake up on a grid of absolute times, first after one interval; another interval begins another grid.

    `waiting` is called once in LONGEST_SLEEP_S at least.
    """
    interval, start_s, count = interval_s(), clock(), 0
    while True:
        due_s = start_s + (count + 1) * interval
        while interval_s() == interval and (wait_s := due_s - clock()) > 0.0:
            await asyncio.sleep(min(wait_s, LONGEST_SLEEP_S))
            waiting()
        if interval_s() != interval:
            # From the last due time, but with nothing to make up for.
            start_s, interval, count = start_s + count * interval, interval_s(), 0
            start_s = max(start_s, clock() - interval)
            continue
        count += 1
        lateness_s = max(clock() - (start_s + count * interval), 0.0)
        missed = math.floor(lateness_s / interval)
        count += missed
        yield Due(lateness_s, missed)
