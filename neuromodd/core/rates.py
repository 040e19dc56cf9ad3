"""Counters -> rates, and readings -> TelemetryFrame.

A rate is the difference of two readings of a counter over the measured time between them. A counter that
went back (a device re-appeared, a driver was reloaded) gives no rate once; one whose end is known wraps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import chain, count
from typing import NamedTuple, TypeVar

from neuromodd.core.fpga import FpgaMetrics
from neuromodd.core.frame import (
    CpuSample,
    DiskSample,
    GpuSample,
    LimitsSample,
    MemorySample,
    NetworkSample,
    PowerSample,
    PressureSample,
    TelemetryFrame,
    TemperatureSample,
    WorkSample,
)
from neuromodd.core.modulators import gpu_work_ratio
from neuromodd.core.readings import (
    CgroupReading,
    CpuReading,
    DiskReading,
    EnergyReading,
    GpuReading,
    HwmonReading,
    LimitsReading,
    NetworkReading,
    PowerSupplyReading,
    PressureReading,
    ThermalZonesReading,
)

T = TypeVar("T")

GAP_INTERVALS = 5.0
"""What comes more than this many intervals after the last is a gap, not a late tick."""

PACKAGE_LIMIT_MICROWATTS = 5e9
"""More than any processor package draws."""

DOMINANT_SHARE = 0.5
"""A control group dominates when it uses more than this share of all processors' busy time."""


class Reading(NamedTuple):
    """What one sensor handed over, and the monotonic time in seconds at which it did."""

    value: object
    at_s: float


class RateMeter:
    """The last reading of every counter of a host. Mutable.

    Attributes:
        longest_s: over more seconds than these there is no rate.
    """

    def __init__(self) -> None:
        self.longest_s = math.inf
        self._last: dict[str, tuple[float, float]] = {}

    def clear(self) -> None:
        """Forget all readings: the next rate of every counter is None."""
        self._last.clear()

    def delta(
        self, counter: str, value: float | None, at_s: float, *, wraps_at: float | None = None
    ) -> tuple[float, float] | None:
        """Growth of the counter and seconds since its last reading.

        None on the first reading, after the counter went back, when no time has passed or too much, and
        for a value that is None; then the next reading is a first one. A counter that begins again after
        `wraps_at` has gone on when it went back, once at the most.
        """
        if value is None:
            self._last.pop(counter, None)
            return None
        before = self._last.get(counter)
        self._last[counter] = (value, at_s)
        if before is None or not 0.0 < at_s - before[1] <= self.longest_s:
            return None
        grown = value - before[0]
        if grown < 0.0 and wraps_at is not None:
            grown += wraps_at
        return None if grown < 0.0 else (grown, at_s - before[1])

    def per_s(
        self, counter: str, value: float | None, at_s: float, *, wraps_at: float | None = None
    ) -> float | None:
        """Rate of the counter in units per second; None as in `delta`."""
        grown = self.delta(counter, value, at_s, wraps_at=wraps_at)
        return None if grown is None else grown[0] / grown[1]


class FrameAssembler:
    """Makes the frames of one host out of its sensors' readings. Mutable: it remembers counters.

    Args:
        node: the host's name in topics.
        boot_id: the kernel's random name of this boot.
        interval_s: the tick interval that is aimed at.
        work_target: the utilisation that counts as full work.
    """

    def __init__(
        self, *, node: str, boot_id: str | None, interval_s: float, work_target: float = 1.0
    ) -> None:
        self.node = node
        self.boot_id = boot_id
        self.interval_s = interval_s
        self.work_target = work_target
        self._meter = RateMeter()
        self._devices: dict[str, dict[str, RateMeter]] = {}
        self._last_s: float | None = None
        self._gpu_numbers: dict[tuple[str | None, int], int] = {}

    def assemble(
        self,
        readings: Mapping[str, Reading],
        *,
        sequence: int,
        time_utc: datetime,
        monotonic_s: float,
        lateness_ms: float | None,
        work: WorkSample | None = None,
    ) -> TelemetryFrame:
        """The frame of this instant; a sensor that is not in `readings` leaves its groups None.

        `work` is what a program of the user's reports; without it, utilisation stands for work.
        """
        since_s = None if self._last_s is None else monotonic_s - self._last_s
        # A sensor may have been read before a stop in the midst of the last look: hence a limit to both.
        self._meter.longest_s = GAP_INTERVALS * self.interval_s
        gap = since_s is not None and not 0.0 <= since_s <= self._meter.longest_s
        if gap:
            self._meter.clear()
            self._devices.clear()
        self._last_s = monotonic_s
        hwmon = _as(HwmonReading, readings.get("hwmon"))
        zones = _as(ThermalZonesReading, readings.get("thermal_zones"))
        nvidia = _as(GpuReading, readings.get("nvml"))
        cpu = self._cpu(readings.get("cpu"), _cpu_temperature(hwmon, zones))
        memory = readings.get("memory")
        gpus = self._gpus(readings.get("nvml"), readings.get("amdgpu"))
        fpga = readings.get("fpga")
        cgroup = self._dominant_cgroup(readings.get("cgroup"), cpu)
        return TelemetryFrame(
            node=self.node,
            sequence=sequence,
            time_utc=time_utc,
            monotonic_s=monotonic_s,
            boot_id=self.boot_id,
            interval_s=None if since_s is None else max(since_s, 0.0),
            lateness_ms=lateness_ms,
            gap=gap,
            cpu=cpu,
            memory=memory.value if memory is not None and isinstance(memory.value, MemorySample) else None,
            pressure=self._pressure(readings.get("pressure")),
            disk=self._disk(readings.get("disk")),
            network=self._network(readings.get("network")),
            power=self._power(
                readings.get("rapl"), _as(PowerSupplyReading, readings.get("power_supply")), hwmon
            ),
            limits=self._limits(readings.get("limits")),
            thermal=_joined(
                None if hwmon is None else hwmon.temperatures, None if zones is None else zones.temperatures
            ),
            fans=None if hwmon is None else hwmon.fans or None,
            voltages=None if hwmon is None else hwmon.voltages or None,
            gpus=gpus,
            gpu_driver_error=None if nvidia is None else nvidia.driver_error,
            work=utilization_work(cpu, gpus, target=self.work_target, cgroup=cgroup)
            if work is None
            else work.model_copy(update={"cgroup": cgroup, "target": work.target or self.work_target}),
            fpga=fpga.value if fpga is not None and isinstance(fpga.value, FpgaMetrics) else None,
        )

    def _cpu(self, reading: Reading | None, temperature: TemperatureSample | None) -> CpuSample | None:
        if reading is None or not isinstance(reading.value, CpuReading):
            return None
        value, at_s = reading.value, reading.at_s
        busy = self._meter.delta("cpu.busy", value.busy_ticks, at_s)
        total = self._meter.delta("cpu.total", value.total_ticks, at_s)
        utilization = None
        if busy is not None and total is not None and total[0] > 0:
            utilization = min(busy[0] / total[0], 1.0)
        return CpuSample(
            utilization_ratio=utilization,
            frequency_hz=value.frequency_hz,
            frequency_max_hz=value.frequency_max_hz,
            core_frequencies_hz=value.core_frequencies_hz,
            load_1m=value.load_1m,
            context_switches_per_s=self._meter.per_s("cpu.context_switches", value.context_switches, at_s),
            temperature_celsius=None if temperature is None else temperature.temperature_celsius,
            temperature_max_celsius=None
            if temperature is None
            else temperature.critical_celsius or temperature.max_celsius,
            throttles_per_s=self._meter.per_s("cpu.throttles", value.throttles, at_s),
        )

    def _pressure(self, reading: Reading | None) -> PressureSample | None:
        if reading is None or not isinstance(reading.value, PressureReading):
            return None
        ratios = {}
        for name, stalled_us in reading.value.stalled_us.items():
            stalled = self._meter.per_s(f"pressure.{name}", stalled_us, reading.at_s)
            ratios[f"{name}_ratio"] = None if stalled is None else min(stalled / 1e6, 1.0)
        return PressureSample(**ratios)

    def _disk(self, reading: Reading | None) -> DiskSample | None:
        if reading is None or not isinstance(reading.value, DiskReading):
            return None
        at_s = reading.at_s
        read, write, busy = [], [], []
        meters = self._meters("disk", reading.value.disks)
        for name, counters in reading.value.disks.items():
            read.append(meters[name].per_s("read", counters.read_bytes, at_s))
            write.append(meters[name].per_s("write", counters.write_bytes, at_s))
            busy.append(meters[name].per_s("busy", counters.busy_ms, at_s))
        busiest = max((ms_per_s for ms_per_s in busy if ms_per_s is not None), default=None)
        return DiskSample(
            read_bytes_per_s=_sum(read),
            write_bytes_per_s=_sum(write),
            busy_ratio=None if busiest is None else min(busiest / 1000.0, 1.0),
        )

    def _network(self, reading: Reading | None) -> NetworkSample | None:
        if reading is None or not isinstance(reading.value, NetworkReading):
            return None
        at_s = reading.at_s
        receive, transmit, errors, drops = [], [], [], []
        meters = self._meters("network", reading.value.interfaces)
        for name, counters in reading.value.interfaces.items():
            receive.append(meters[name].per_s("receive", counters.receive_bytes, at_s))
            transmit.append(meters[name].per_s("transmit", counters.transmit_bytes, at_s))
            errors.append(meters[name].per_s("errors", counters.errors, at_s))
            drops.append(meters[name].per_s("drops", counters.drops, at_s))
        return NetworkSample(
            receive_bytes_per_s=_sum(receive),
            transmit_bytes_per_s=_sum(transmit),
            errors_per_s=_sum(errors),
            drops_per_s=_sum(drops),
        )

    def _power(
        self, energy: Reading | None, supply: PowerSupplyReading | None, hwmon: HwmonReading | None
    ) -> PowerSample | None:
        sample = PowerSample(
            package_watts=self._package_watts(energy),
            core_volts=None if hwmon is None else hwmon.core_volts,
            on_mains=None if supply is None else supply.on_mains,
            battery_ratio=None if supply is None else supply.battery_ratio,
        )
        return None if sample == PowerSample() else sample

    def _package_watts(self, reading: Reading | None) -> float | None:
        if reading is None or not isinstance(reading.value, EnergyReading):
            return None
        packages = reading.value.packages
        meters = self._meters("rapl", packages)
        microwatts = [
            meters[name].per_s("energy", used_uj, reading.at_s, wraps_at=wraps_at_uj)
            for name, (used_uj, wraps_at_uj) in packages.items()
        ]
        # A counter that was set back looks like one that wrapped. One package of two would look like a
        # machine that saves power.
        known = [power for power in microwatts if power is not None and power <= PACKAGE_LIMIT_MICROWATTS]
        return sum(known) / 1e6 if known and len(known) == len(microwatts) else None

    def _limits(self, reading: Reading | None) -> LimitsSample | None:
        if reading is None or not isinstance(reading.value, LimitsReading):
            return None
        value, at_s = reading.value, reading.at_s
        periods = self._meter.delta("limits.periods", value.cpu_periods, at_s)
        throttled = self._meter.delta("limits.throttled", value.cpu_throttled_periods, at_s)
        share = None
        if periods is not None and throttled is not None:
            # No period has passed where nothing ran.
            share = min(throttled[0] / periods[0], 1.0) if periods[0] else 0.0
        used = None
        if value.memory_limit_bytes and value.memory_used_bytes is not None:
            used = min(value.memory_used_bytes / value.memory_limit_bytes, 1.0)
        return LimitsSample(
            cpu_limit_cores=value.cpu_limit_cores,
            cpu_throttled_ratio=share,
            memory_limit_bytes=value.memory_limit_bytes,
            memory_used_ratio=used,
        )

    def _gpus(self, nvidia: Reading | None, amd: Reading | None) -> tuple[GpuSample, ...] | None:
        """All GPUs, each with the number that it got when it was first seen."""
        gpus: list[GpuSample] = []
        if nvidia is not None and isinstance(nvidia.value, GpuReading):
            reading = nvidia.value
            meters = self._meters("pcie", (str(index) for index in reading.pcie))
            for gpu in reading.gpus:
                if counters := reading.pcie.get(gpu.index):
                    meter = meters[str(gpu.index)]
                    rates = {
                        "pcie_receive_bytes_per_s": meter.per_s("rx", counters.receive_bytes, nvidia.at_s),
                        "pcie_transmit_bytes_per_s": meter.per_s("tx", counters.transmit_bytes, nvidia.at_s),
                    }
                    gpus.append(gpu.model_copy(update=rates))
                else:
                    gpus.append(gpu)
        if amd is not None and isinstance(amd.value, GpuReading):
            gpus += amd.value.gpus
        return tuple(self._numbered(gpu) for gpu in gpus) or None

    def _numbered(self, gpu: GpuSample) -> GpuSample:
        """The GPU with a number of its own: its driver's, unless a GPU of another driver has that."""
        key = (gpu.vendor, gpu.index)
        if key not in self._gpu_numbers:
            taken = self._gpu_numbers.values()
            self._gpu_numbers[key] = next(n for n in chain([gpu.index], count()) if n not in taken)
        number = self._gpu_numbers[key]
        return gpu if number == gpu.index else gpu.model_copy(update={"index": number})

    def _dominant_cgroup(self, reading: Reading | None, cpu: CpuSample | None) -> str | None:
        if reading is None or not isinstance(reading.value, CgroupReading):
            return None
        meters = self._meters("cgroup", reading.value.usage_us)
        used = {
            name: meters[name].per_s("usage", usage_us, reading.at_s)
            for name, usage_us in reading.value.usage_us.items()
        }
        known = {name: rate for name, rate in used.items() if rate is not None}
        total = sum(known.values())
        # An idle host's largest group is whoever woke up last: that is no change of work.
        if (
            cpu is None
            or cpu.utilization_ratio is None
            or cpu.utilization_ratio < DOMINANT_SHARE
            or total <= 0.0
        ):
            return None
        name, rate = max(known.items(), key=lambda pair: pair[1])
        return name if rate > DOMINANT_SHARE * total else None

    def _meters(self, group: str, names: Iterable[str]) -> dict[str, RateMeter]:
        """A meter for each device of the group; one that is gone is forgotten, and starts anew later."""
        known = self._devices.get(group, {})
        meters = self._devices[group] = {name: known.get(name) or RateMeter() for name in names}
        for meter in meters.values():
            meter.longest_s = self._meter.longest_s
        return meters


def utilization_work(
    cpu: CpuSample | None, gpus: Iterable[GpuSample] | None, *, target: float, cgroup: str | None = None
) -> WorkSample | None:
    """The work rate until the user names a source: the larger of CPU utilisation and GPU work.

    None without either.
    """
    rates = [gpu_work_ratio(gpu) for gpu in gpus or ()]
    rates.append(None if cpu is None else cpu.utilization_ratio)
    rate = max((rate for rate in rates if rate is not None), default=None)
    return None if rate is None else WorkSample(rate=rate, target=target, source="utilization", cgroup=cgroup)


def _as(kind: type[T], reading: Reading | None) -> T | None:
    return reading.value if reading is not None and isinstance(reading.value, kind) else None


def _cpu_temperature(
    hwmon: HwmonReading | None, zones: ThermalZonesReading | None
) -> TemperatureSample | None:
    if hwmon is not None and hwmon.cpu is not None:
        return hwmon.cpu
    return None if zones is None else zones.cpu


def _joined(*groups: tuple[TemperatureSample, ...] | None) -> tuple[TemperatureSample, ...] | None:
    return tuple(sensor for group in groups if group for sensor in group) or None


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None
