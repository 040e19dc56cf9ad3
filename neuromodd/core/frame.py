"""TelemetryFrame: one instant of the machine.

A value or a group is None when it was not measured: no such sensor, a sensor that failed, or a rate
that has no earlier counter to compare with. Zero always means that zero was measured.
"""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from neuromodd.core.diagnostics import FpgaMetrics
from neuromodd.core.record import NonNegative, Ratio, Record


class CpuSample(Record):
    """The processors as one.

    Attributes:
        utilization_ratio: busy share of all processors' time since the last frame; waiting for I/O is idle.
        frequency_hz: mean current frequency over the frequency domains.
        frequency_max_hz: the largest maximum of the frequency domains.
        load_1m: the kernel's one-minute load average (runnable and uninterruptible tasks).
        context_switches_per_s: of all processors together.
        temperature_celsius: the package's sensor, or the hottest of the processor's sensors.
        temperature_max_celsius: where the processor throttles, by that sensor.
        throttles_per_s: thermal throttle events.
    """

    utilization_ratio: Ratio | None = None
    frequency_hz: NonNegative | None = None
    frequency_max_hz: NonNegative | None = None
    load_1m: NonNegative | None = None
    context_switches_per_s: NonNegative | None = None
    temperature_celsius: float | None = None
    temperature_max_celsius: float | None = None
    throttles_per_s: NonNegative | None = None


class MemorySample(Record):
    """Main memory and swap; `used_ratio` is 1 - available / total, `swap_used_ratio` None without swap."""

    used_ratio: Ratio | None = None
    available_bytes: int | None = Field(default=None, ge=0)
    total_bytes: int | None = Field(default=None, ge=0)
    swap_used_ratio: Ratio | None = None


class PressureSample(Record):
    """Pressure stall information: the share of the last interval in which some or all tasks waited."""

    cpu_some_ratio: Ratio | None = None
    memory_some_ratio: Ratio | None = None
    memory_full_ratio: Ratio | None = None
    io_some_ratio: Ratio | None = None
    io_full_ratio: Ratio | None = None


class DiskSample(Record):
    """Whole physical disks: bytes summed, `busy_ratio` of the busiest."""

    read_bytes_per_s: NonNegative | None = None
    write_bytes_per_s: NonNegative | None = None
    busy_ratio: Ratio | None = None


class NetworkSample(Record):
    """Network interfaces summed; the loopback counts only if it is asked for."""

    receive_bytes_per_s: NonNegative | None = None
    transmit_bytes_per_s: NonNegative | None = None
    errors_per_s: NonNegative | None = None


class PowerSample(Record):
    """Power of the host: processor package, core rail, mains and battery."""

    package_watts: NonNegative | None = None
    core_volts: NonNegative | None = None
    on_mains: bool | None = None
    battery_ratio: Ratio | None = None


class TemperatureSample(Record):
    """One temperature sensor with its own limits: `max` is where it is hot, `critical` too hot."""

    name: str
    temperature_celsius: float | None = None
    max_celsius: float | None = None
    critical_celsius: float | None = None


class FanSample(Record):
    """One fan; 0 rpm is a fan that stands still."""

    name: str
    speed_rpm: NonNegative | None = None


class VoltageSample(Record):
    """One voltage input; some are negative rails."""

    name: str
    volts: float | None = None


class GpuSample(Record):
    """One GPU; every value None where the device does not support it.

    Attributes:
        index: the driver's number of the device.
        uuid: its identity across boots.
        slowdown_celsius: where it starts to throttle.
        power_limit_watts: the enforced limit.
        throttle_reasons: the names of what holds its clocks back; None if not reported.
        lost: the driver knows the device but no longer reaches it; its other values are None.
    """

    index: int = Field(ge=0)
    uuid: str | None = None
    name: str | None = None
    utilization_ratio: Ratio | None = None
    memory_used_bytes: int | None = Field(default=None, ge=0)
    memory_total_bytes: int | None = Field(default=None, ge=0)
    temperature_celsius: float | None = None
    slowdown_celsius: float | None = None
    power_watts: NonNegative | None = None
    power_limit_watts: NonNegative | None = None
    sm_clock_hz: NonNegative | None = None
    sm_clock_max_hz: NonNegative | None = None
    core_volts: NonNegative | None = None
    fan_ratio: NonNegative | None = None
    throttle_reasons: tuple[str, ...] | None = None
    lost: bool = False


class WorkSample(Record):
    """The work that the host is rewarded for.

    Attributes:
        rate: units per second, in the unit of its source.
        target: the rate that earns full dopamine; None leaves it to the setpoints.
        latency_ms: of the last unit.
        source: what measures it; `utilization` unless the user names another.
        cgroup: the top-level control group that does most of the processors' work.
    """

    rate: NonNegative | None = None
    target: float | None = Field(default=None, gt=0.0)
    latency_ms: NonNegative | None = None
    source: str | None = None
    cgroup: str | None = None


class TelemetryFrame(Record):
    """One instant of the machine.

    Attributes:
        node: the host's name in topics.
        sequence: counts frames of the node, goes on after a restart.
        time_utc: wall clock, for people; it may jump.
        monotonic_s: seconds since boot, time asleep included; for dynamics.
        boot_id: the kernel's random name of this boot; `monotonic_s` compares only within one.
        interval_s: measured time since the last frame; None on the first after a start.
        lateness_ms: how long after its due time the tick began.
        gap: the time since the last frame was far longer than the tick interval (suspend, stall), so
            rates are None.
        gpu_driver_error: the driver's own word for why no GPU can be asked although there is a driver.
    """

    node: str = ""
    sequence: int = Field(default=0, ge=0)
    time_utc: AwareDatetime | None = None
    monotonic_s: float = 0.0
    boot_id: str | None = None
    interval_s: NonNegative | None = None
    lateness_ms: NonNegative | None = None
    gap: bool = False
    cpu: CpuSample | None = None
    memory: MemorySample | None = None
    pressure: PressureSample | None = None
    disk: DiskSample | None = None
    network: NetworkSample | None = None
    power: PowerSample | None = None
    thermal: tuple[TemperatureSample, ...] | None = None
    fans: tuple[FanSample, ...] | None = None
    voltages: tuple[VoltageSample, ...] | None = None
    gpus: tuple[GpuSample, ...] | None = None
    gpu_driver_error: str | None = None
    work: WorkSample | None = None
    fpga: FpgaMetrics | None = None
