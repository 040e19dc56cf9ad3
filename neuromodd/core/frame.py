"""TelemetryFrame: one instant of the machine.

A value or a group is None when it was not measured: no such sensor, a sensor that failed, or a rate
that has no earlier counter to compare with. Zero always means that zero was measured.

Each field tells where it comes from, what that needs, and when it is null: the table in the README and
the JSON Schema of `telemetry` are made of it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from neuromodd.core.fpga import FpgaMetrics
from neuromodd.core.record import FIRST_FRAME, NonNegative, Ratio, Record, measured


class CpuSample(Record):
    """The processors as one; waiting for I/O is idle."""

    utilization_ratio: Ratio | None = measured("/proc/stat, busy share of all processors", null=FIRST_FRAME)
    frequency_hz: NonNegative | None = measured(
        "mean of cpufreq's scaling_cur_freq, else of /proc/cpuinfo", null="the kernel tells none"
    )
    frequency_max_hz: NonNegative | None = measured("largest cpuinfo_max_freq", needs="cpufreq")
    core_frequencies_hz: tuple[NonNegative | None, ...] | None = measured(
        "scaling_cur_freq of each logical processor, in their order",
        needs="cpufreq",
        null="in `telemetry`, of more than 4",
    )
    load_1m: NonNegative | None = measured("/proc/loadavg, runnable and uninterruptible tasks")
    context_switches_per_s: NonNegative | None = measured("/proc/stat", null=FIRST_FRAME)
    temperature_celsius: float | None = measured(
        "hottest package sensor of hwmon, else the processor's thermal zone", needs="a sensor"
    )
    temperature_max_celsius: float | None = measured(
        "that sensor's critical limit, else its maximum", null="the sensor tells no limit"
    )
    throttles_per_s: NonNegative | None = measured(
        "thermal_throttle counts of cores and packages", needs="an Intel processor", null=FIRST_FRAME
    )


class MemorySample(Record):
    """Main memory and swap."""

    used_ratio: Ratio | None = measured("/proc/meminfo, 1 - available / total")
    available_bytes: int | None = measured("/proc/meminfo", ge=0)
    total_bytes: int | None = measured("/proc/meminfo", ge=0)
    swap_used_ratio: Ratio | None = measured("/proc/meminfo", null="there is no swap")


class PressureSample(Record):
    """Pressure stall information: the share of the last interval in which some or all tasks waited."""

    cpu_some_ratio: Ratio | None = measured("/proc/pressure/cpu", needs="PSI", null=FIRST_FRAME)
    memory_some_ratio: Ratio | None = measured("/proc/pressure/memory", needs="PSI", null=FIRST_FRAME)
    memory_full_ratio: Ratio | None = measured("/proc/pressure/memory", needs="PSI", null=FIRST_FRAME)
    io_some_ratio: Ratio | None = measured("/proc/pressure/io", needs="PSI", null=FIRST_FRAME)
    io_full_ratio: Ratio | None = measured("/proc/pressure/io", needs="PSI", null=FIRST_FRAME)


class DiskSample(Record):
    """Whole physical disks: bytes summed, `busy_ratio` of the busiest."""

    read_bytes_per_s: NonNegative | None = measured("/proc/diskstats", null=FIRST_FRAME)
    write_bytes_per_s: NonNegative | None = measured("/proc/diskstats", null=FIRST_FRAME)
    busy_ratio: Ratio | None = measured("/proc/diskstats, the busiest disk's time with I/O", null=FIRST_FRAME)


class NetworkSample(Record):
    """Network interfaces summed, both directions for errors and drops."""

    receive_bytes_per_s: NonNegative | None = measured("/proc/net/dev", null=FIRST_FRAME)
    transmit_bytes_per_s: NonNegative | None = measured("/proc/net/dev", null=FIRST_FRAME)
    errors_per_s: NonNegative | None = measured("/proc/net/dev", null=FIRST_FRAME)
    drops_per_s: NonNegative | None = measured("/proc/net/dev", null=FIRST_FRAME)


class PowerSample(Record):
    """Power of the host: processor packages, core rail, mains and battery."""

    package_watts: NonNegative | None = measured(
        "RAPL energy counters of the packages, summed", needs="powercap, readable by root", null=FIRST_FRAME
    )
    core_volts: NonNegative | None = measured(
        "the hwmon input that sensors.hwmon.core_rail names", needs="that option"
    )
    on_mains: bool | None = measured(
        "/sys/class/power_supply",
        needs="a mains adapter or a battery",
        null="no adapter is online, and no battery",
    )
    battery_ratio: Ratio | None = measured("/sys/class/power_supply, all batteries", needs="a battery")


class LimitsSample(Record):
    """What control groups (v2) allow this process: in a container, its size. The tightest of all levels."""

    cpu_limit_cores: NonNegative | None = measured("cpu.max, quota / period", null="no limit is set")
    cpu_throttled_ratio: Ratio | None = measured(
        "cpu.stat, share of the periods that ran into the quota", null=FIRST_FRAME + ", or no limit"
    )
    memory_limit_bytes: int | None = measured("memory.max", null="no limit is set", ge=0)
    memory_used_ratio: Ratio | None = measured("memory.current / memory.max", null="no limit is set")


class TemperatureSample(Record):
    """One temperature sensor with its own limits: `max` is where it is hot, `critical` too hot."""

    name: str = Field(description="chip and label, the same across boots")
    temperature_celsius: float | None = measured(
        "hwmon temp*_input, thermal_zone*/temp", null="not connected"
    )
    max_celsius: float | None = measured("hwmon temp*_max, a zone's hot trip", null="the driver tells none")
    critical_celsius: float | None = measured(
        "hwmon temp*_crit, a zone's critical trip", null="the driver tells none"
    )


class FanSample(Record):
    """One fan; 0 rpm is a fan that stands still."""

    name: str = Field(description="chip and label, the same across boots")
    speed_rpm: NonNegative | None = measured("hwmon fan*_input", null="not connected")


class VoltageSample(Record):
    """One voltage input; some are negative rails."""

    name: str = Field(description="chip and label, the same across boots")
    volts: float | None = measured("hwmon in*_input", null="not connected")


class GpuSample(Record):
    """One GPU; every value None where the device does not support it, or while it is not asked.

    Attributes:
        index: the device's number, the driver's when it was first seen; it stays with the device.
        lost: the driver knows the device but no longer reaches it; it has identity and no values.
        suspended: it sleeps, and is not woken to be asked; identity and no values, likewise.
        hung: a call for it has not come back; likewise.
        fault: the driver's word for why the device is lost; then `xid_errors` may be known too.
    """

    index: int = Field(ge=0, description="NVML, in the order in which they were found; amdgpu after them")
    vendor: Literal["nvidia", "amd"] | None = measured("the driver")
    uuid: str | None = measured("NVML; amdgpu unique_id", null="amdgpu: cards before Vega 20")
    name: str | None = measured("NVML; amdgpu product_name", null="amdgpu: most consumer cards")
    pci_bus_id: str | None = measured("NVML; sysfs")
    lost: bool = Field(
        default=False,
        description="NVML: lost, reset required, or counted no more; amdgpu: no attribute answers",
    )
    suspended: bool = Field(default=False, description="sysfs power/runtime_status")
    hung: bool = Field(default=False, description="a call that missed sensors.deadline_s")
    fault: str | None = measured("NVML's name of the error; amdgpu errno's", null="it is not lost")
    utilization_ratio: Ratio | None = measured("NVML utilization.gpu; amdgpu gpu_busy_percent", null="MIG")
    memory_utilization_ratio: Ratio | None = measured(
        "NVML utilization.memory; amdgpu mem_busy_percent", null="MIG"
    )
    encoder_utilization_ratio: Ratio | None = measured("NVML", needs="NVENC")
    decoder_utilization_ratio: Ratio | None = measured("NVML", needs="NVDEC")
    memory_used_bytes: int | None = measured("NVML; amdgpu mem_info_vram_used", ge=0)
    memory_total_bytes: int | None = measured("NVML; amdgpu mem_info_vram_total", ge=0)
    temperature_celsius: float | None = measured("NVML; amdgpu edge, else junction")
    memory_temperature_celsius: float | None = measured("NVML; amdgpu mem", needs="HBM or GDDR6X")
    slowdown_celsius: float | None = measured("NVML; amdgpu, that sensor's crit")
    shutdown_celsius: float | None = measured("NVML; amdgpu, that sensor's emergency")
    power_watts: NonNegative | None = measured("NVML; amdgpu power1_average or power1_input")
    power_limit_watts: NonNegative | None = measured("NVML enforced limit; amdgpu power1_cap")
    energy_joules: NonNegative | None = measured("NVML, since the driver was loaded", needs="Volta or later")
    core_volts: NonNegative | None = measured("amdgpu in0_input (vddgfx)", needs="amdgpu")
    sm_clock_hz: NonNegative | None = measured("NVML; amdgpu freq1_input (sclk)")
    sm_clock_max_hz: NonNegative | None = measured("NVML; amdgpu pp_dpm_sclk")
    memory_clock_hz: NonNegative | None = measured("NVML; amdgpu freq2_input (mclk)")
    memory_clock_max_hz: NonNegative | None = measured("NVML; amdgpu pp_dpm_mclk")
    fan_ratio: NonNegative | None = measured("NVML; amdgpu pwm1", needs="a fan of its own")
    performance_state: int | None = measured("NVML, 0 the highest", ge=0, le=15)
    throttle_reasons: tuple[str, ...] | None = measured("NVML, the names of what holds its clocks back")
    xid_errors: tuple[int, ...] | None = measured(
        "NVML events, the driver's error numbers since the last frame", null="events are not supported"
    )
    ecc_corrected: int | None = measured("NVML, since the driver was loaded; every 10 s", needs="ECC", ge=0)
    ecc_uncorrected: int | None = measured("NVML, since the driver was loaded; every 10 s", needs="ECC", ge=0)
    retired_pages: int | None = measured(
        "NVML, for either cause; every 10 s", needs="ECC, before Ampere", ge=0
    )
    remapped_rows: int | None = measured(
        "NVML, for either cause; every 10 s", needs="ECC, Ampere or later", ge=0
    )
    reset_pending: bool | None = measured(
        "NVML, every 10 s: a page or row waits for a reset to be retired", needs="ECC"
    )
    inforom_valid: bool | None = measured("NVML, when the device was found")
    pcie_receive_bytes_per_s: NonNegative | None = measured(
        "NVML byte counters, else its 20 ms throughput", null=FIRST_FRAME + "; older drivers with many GPUs"
    )
    pcie_transmit_bytes_per_s: NonNegative | None = measured(
        "NVML byte counters, else its 20 ms throughput", null=FIRST_FRAME + "; older drivers with many GPUs"
    )
    pcie_link_width: int | None = measured("NVML, every 10 s; sysfs current_link_width", ge=0)
    pcie_link_width_max: int | None = measured("NVML; sysfs max_link_width", ge=0)
    compute_processes: int | None = measured("NVML, how many; every 10 s", ge=0)
    mig_enabled: bool | None = measured("NVML, every 10 s", needs="a GPU that can be partitioned")


class WorkSample(Record):
    """The work that the host is rewarded for."""

    rate: NonNegative | None = measured("the larger of CPU utilisation and GPU utilisation times clock ratio")
    target: float | None = measured("modulators.work_target", gt=0.0)
    latency_ms: NonNegative | None = measured("of the last unit", needs="a work source", null="not told")
    source: str | None = measured("what measures it: `utilization` unless the user names another")
    cgroup: str | None = measured(
        "cpu.stat of the top-level control groups: who uses more than half of the busy time",
        needs="cgroup v2",
        null="the processors are less than half busy",
    )


class TelemetryFrame(Record):
    """One instant of the machine."""

    node: str = Field(default="", description="the host's name in topics")
    sequence: int = Field(
        default=0, ge=0, description="counts the frames of the node; goes on after a restart"
    )
    time_utc: AwareDatetime | None = measured("wall clock, for people; it may jump")
    monotonic_s: float = Field(default=0.0, description="seconds since boot, asleep too; for dynamics")
    boot_id: str | None = measured("/proc/sys/kernel/random/boot_id: monotonic_s compares within one")
    interval_s: NonNegative | None = measured("measured time since the last frame", null=FIRST_FRAME)
    lateness_ms: NonNegative | None = measured("how long after its due time the tick began")
    gap: bool = Field(
        default=False,
        description="no rates: the last frame is many intervals ago (suspend, stall), or the clock went back",
    )
    cpu: CpuSample | None = None
    memory: MemorySample | None = None
    pressure: PressureSample | None = None
    disk: DiskSample | None = None
    network: NetworkSample | None = None
    power: PowerSample | None = None
    limits: LimitsSample | None = None
    thermal: tuple[TemperatureSample, ...] | None = None
    fans: tuple[FanSample, ...] | None = None
    voltages: tuple[VoltageSample, ...] | None = None
    gpus: tuple[GpuSample, ...] | None = None
    gpu_driver_error: str | None = measured(
        "the driver's own word for why no GPU can be asked", null="there is no such trouble"
    )
    work: WorkSample | None = None
    fpga: FpgaMetrics | None = None
