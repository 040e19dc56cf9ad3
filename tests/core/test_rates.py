"""Counters to rates, and readings to frames."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.frame import GpuSample, MemorySample, TelemetryFrame, TemperatureSample
from neuromodd.core.rates import FrameAssembler, RateMeter, Reading, utilization_work
from neuromodd.core.readings import (
    CgroupReading,
    CpuReading,
    DiskCounters,
    DiskReading,
    EnergyCounter,
    EnergyReading,
    GpuReading,
    HwmonReading,
    InterfaceCounters,
    LimitsReading,
    NetworkReading,
    PcieCounters,
    PowerSupplyReading,
    PressureReading,
    ThermalZonesReading,
)

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Host:
    """An assembler, and the clock and readings it is fed with."""

    def __init__(self, interval_s: float = 1.0) -> None:
        self.assembler = FrameAssembler(node="host", boot_id="a", interval_s=interval_s)
        self.sequence = 0

    def look(self, at_s: float, **values: object) -> TelemetryFrame:
        self.sequence += 1
        return self.assembler.assemble(
            {name: Reading(value=value, at_s=at_s) for name, value in values.items() if value is not None},
            sequence=self.sequence,
            time_utc=NOON,
            monotonic_s=at_s,
            lateness_ms=0.0,
        )


def cpu(busy: int, total: int, switches: int = 0) -> CpuReading:
    return CpuReading(busy_ticks=busy, total_ticks=total, context_switches=switches)


def disks(**read_bytes: int) -> DiskReading:
    return DiskReading(
        disks={name: DiskCounters(read_bytes=n, write_bytes=0, busy_ms=0) for name, n in read_bytes.items()}
    )


def read_rates(*readings: tuple[float, DiskReading | None]) -> list[float | None]:
    host = Host()
    frames = [host.look(at_s, disk=reading) for at_s, reading in readings]
    return [None if frame.disk is None else frame.disk.read_bytes_per_s for frame in frames]


# The meter


def test_the_first_reading_gives_no_rate() -> None:
    meter = RateMeter()
    assert meter.per_s("x", 10.0, 1.0) is None
    assert meter.per_s("x", 30.0, 3.0) == 10.0


def test_a_counter_that_goes_back_gives_no_rate_once() -> None:
    meter = RateMeter()
    found = [meter.per_s("x", value, at_s) for at_s, value in enumerate((100.0, 110.0, 5.0, 25.0))]
    assert found == [None, 10.0, None, 20.0]


def test_no_time_or_time_that_runs_back_gives_no_rate() -> None:
    meter = RateMeter()
    found = [
        meter.per_s("x", value, at_s) for at_s, value in ((5.0, 1.0), (5.0, 2.0), (4.0, 3.0), (5.0, 4.0))
    ]
    assert found == [None, None, None, 1.0]


def test_after_a_missing_value_the_next_is_a_first() -> None:
    meter = RateMeter()
    found = [meter.per_s("x", value, at_s) for at_s, value in enumerate((1.0, None, 3.0, 4.0))]
    assert found == [None, None, None, 1.0]


def test_counters_do_not_mix() -> None:
    meter = RateMeter()
    meter.per_s("x", 1.0, 0.0)
    assert meter.per_s("y", 5.0, 1.0) is None


@given(
    readings=st.lists(
        st.tuples(st.none() | st.integers(0, 2**64 - 1), st.floats(0.0, 1e9).map(lambda t: round(t, 6))),
        max_size=20,
    )
)
def test_a_rate_is_never_negative_and_nothing_is_divided_by_zero(
    readings: list[tuple[int | None, float]],
) -> None:
    meter = RateMeter()
    for value, at_s in readings:
        rate = meter.per_s("x", value, at_s)
        assert rate is None or rate >= 0.0


# Frames


def test_the_first_frame_has_no_rates_and_no_interval() -> None:
    frame = Host().look(5.0, cpu=cpu(10, 100), disk=disks(sda=5), memory=MemorySample(used_ratio=0.5))
    assert frame.interval_s is None
    assert not frame.gap
    assert frame.cpu is not None
    assert frame.cpu.utilization_ratio is None
    assert frame.disk is not None
    assert frame.disk.read_bytes_per_s is None
    assert frame.memory == MemorySample(used_ratio=0.5)


def test_a_sensor_without_a_reading_leaves_its_group_none() -> None:
    frame = Host().look(1.0)
    groups = ("cpu", "memory", "pressure", "disk", "network", "power", "thermal", "fans", "gpus", "work")
    assert [getattr(frame, group) for group in groups] == [None] * len(groups)


def test_a_reading_of_an_unexpected_kind_is_no_reading() -> None:
    frame = Host().look(
        1.0, cpu="busy", memory=3, disk=[], network=None, pressure={}, hwmon=1, nvml=2, cgroup=3
    )
    assert frame.cpu is None
    assert frame.memory is None
    assert frame.disk is None


def test_utilisation_is_the_busy_share_of_the_time_between_two_readings() -> None:
    host = Host()
    host.look(0.0, cpu=cpu(100, 1000, switches=50))
    frame = host.look(2.0, cpu=cpu(150, 1200, switches=90))
    assert frame.interval_s == 2.0
    assert frame.cpu is not None
    assert frame.cpu.utilization_ratio == 0.25
    assert frame.cpu.context_switches_per_s == 20.0


@pytest.mark.parametrize(("busy", "total"), [(100, 1000), (90, 1100), (150, 900)])
def test_processor_time_that_stands_still_or_goes_back_gives_no_utilisation(busy: int, total: int) -> None:
    host = Host()
    host.look(0.0, cpu=cpu(100, 1000))
    frame = host.look(1.0, cpu=cpu(busy, total))
    assert frame.cpu is not None
    assert frame.cpu.utilization_ratio is None


def test_utilisation_is_at_most_one() -> None:
    host = Host()
    host.look(0.0, cpu=cpu(100, 1000))
    frame = host.look(1.0, cpu=cpu(201, 1100))
    assert frame.cpu is not None
    assert frame.cpu.utilization_ratio == 1.0


def test_a_gap_is_flagged_and_restarts_every_counter() -> None:
    host = Host()
    for at_s in (0.0, 1.0, 2.0):
        host.look(at_s, cpu=cpu(int(at_s), 100 * int(at_s)), disk=disks(sda=int(at_s)))
    after = host.look(3600.0, cpu=cpu(50, 9000), disk=disks(sda=90))
    assert after.gap
    assert after.interval_s == 3598.0
    assert after.cpu is not None
    assert after.cpu.utilization_ratio is None
    assert after.disk is not None
    assert after.disk.read_bytes_per_s is None
    later = host.look(3601.0, disk=disks(sda=190))
    assert not later.gap
    assert later.disk is not None
    assert later.disk.read_bytes_per_s == 100.0


@pytest.mark.parametrize(
    ("interval_s", "late_s", "gap"), [(1.0, 5.0, False), (1.0, 5.1, True), (0.1, 0.6, True)]
)
def test_a_gap_is_more_than_five_intervals(interval_s: float, late_s: float, gap: bool) -> None:
    host = Host(interval_s)
    host.look(0.0)
    assert host.look(late_s).gap is gap


def test_a_clock_that_steps_back_gives_no_time_and_no_rates() -> None:
    host = Host()
    host.look(100.0, disk=disks(sda=1))
    frame = host.look(50.0, disk=disks(sda=2))
    assert frame.interval_s == 0.0
    assert frame.disk is not None
    assert frame.disk.read_bytes_per_s is None


def test_two_frames_at_one_instant_divide_by_nothing() -> None:
    host = Host()
    for _ in range(2):
        frame = host.look(
            1.0, cpu=cpu(1, 2), disk=disks(sda=1), pressure=PressureReading(stalled_us={"io_some": 1})
        )
    assert frame.pressure is not None
    assert frame.pressure.io_some_ratio is None


# Devices that come and go


def test_a_disk_that_is_unplugged_takes_its_rates_along() -> None:
    both, one = disks(sda=0, sdb=0), disks(sda=10)
    assert read_rates((0.0, both), (1.0, disks(sda=10, sdb=5)), (2.0, one)) == [None, 15.0, 0.0]


def test_a_disk_that_is_plugged_in_has_no_rate_at_first() -> None:
    readings = ((0.0, disks(sda=0)), (1.0, disks(sda=10, sdb=10**9)), (2.0, disks(sda=20, sdb=10**9 + 5)))
    assert read_rates(*readings) == [None, 10.0, 15.0]


def test_a_disk_that_comes_back_starts_anew() -> None:
    # The second sdb may be another disk: what it has read before is nobody's rate.
    readings = ((0.0, disks(sdb=100)), (1.0, disks()), (2.0, disks(sdb=10**9)), (3.0, disks(sdb=10**9 + 7)))
    assert read_rates(*readings) == [None, None, None, 7.0]


def test_a_sensor_that_misses_a_tick_spreads_its_growth_over_both() -> None:
    assert read_rates((0.0, disks(sda=0)), (1.0, None), (2.0, disks(sda=10))) == [None, None, 5.0]


def test_the_busiest_disk_counts_and_bytes_are_summed() -> None:
    host = Host()
    counters = {"sda": (0, 0, 0), "sdb": (0, 0, 0)}
    host.look(0.0, disk=DiskReading(disks={name: DiskCounters(*of) for name, of in counters.items()}))
    counters = {"sda": (10, 1, 250), "sdb": (20, 2, 500)}
    frame = host.look(1.0, disk=DiskReading(disks={name: DiskCounters(*of) for name, of in counters.items()}))
    assert frame.disk is not None
    found = (frame.disk.read_bytes_per_s, frame.disk.write_bytes_per_s, frame.disk.busy_ratio)
    assert found == (30.0, 3.0, 0.5)


def test_network_interfaces_are_summed() -> None:
    host = Host()
    for at_s, n in ((0.0, 0), (2.0, 8)):
        both = {name: InterfaceCounters(n, 2 * n, 3 * n, 4 * n) for name in ("eth0", "wlan0")}
        frame = host.look(at_s, network=NetworkReading(interfaces=both))
    assert frame.network is not None
    found = (
        frame.network.receive_bytes_per_s,
        frame.network.transmit_bytes_per_s,
        frame.network.errors_per_s,
    )
    assert found == (8.0, 16.0, 24.0)


def test_drops_of_all_interfaces_are_summed() -> None:
    host = Host()
    for at_s, n in ((0.0, 0), (2.0, 8)):
        both = {name: InterfaceCounters(0, 0, 0, drops=n) for name in ("eth0", "wlan0")}
        frame = host.look(at_s, network=NetworkReading(interfaces=both))
    assert frame.network is not None
    assert frame.network.drops_per_s == 8.0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((5, 5), [None, 0.0]),
        ((5, 8), [None, 3.0]),
        ((5, None, 9, 10), [None, None, None, 1.0]),
        ((5, 2, 3), [None, None, 1.0]),
        ((None, None), [None, None]),
    ],
)
def test_throttling_is_a_rate_of_events(counts: tuple[int | None, ...], expected: list[float | None]) -> None:
    host = Host()
    found = []
    for at_s, throttles in enumerate(counts):
        frame = host.look(float(at_s), cpu=CpuReading(throttles=throttles))
        assert frame.cpu is not None
        found.append(frame.cpu.throttles_per_s)
    assert found == expected


def test_the_frequencies_of_the_processors_are_passed_on() -> None:
    frame = Host().look(0.0, cpu=CpuReading(core_frequencies_hz=(1e9, None, 2e9)))
    assert frame.cpu is not None
    assert frame.cpu.core_frequencies_hz == (1e9, None, 2e9)


# Energy

RANGE_UJ = 262143328850


def package_watts(*readings: dict[str, int] | None) -> list[float | None]:
    """The power in each frame, a second after the one before; None is a sensor that failed."""
    host = Host()
    frames = [
        host.look(
            float(at_s),
            rapl=None
            if energies is None
            else EnergyReading(packages={name: EnergyCounter(uj, RANGE_UJ) for name, uj in energies.items()}),
        )
        for at_s, energies in enumerate(readings)
    ]
    return [None if frame.power is None else frame.power.package_watts for frame in frames]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (({"a": 0}, {"a": 45_000_000}), [None, 45.0]),
        (({"a": 0, "b": 0}, {"a": 45_000_000, "b": 30_000_000}), [None, 75.0]),
        (({"a": RANGE_UJ - 10_000_000}, {"a": 5_000_000}, {"a": 20_000_000}), [None, 15.0, 15.0]),
        (
            ({"a": RANGE_UJ - 1_000_000, "b": 0}, {"a": 1_000_000, "b": 3_000_000}),
            [None, 5.0],
        ),
        (({"a": 0}, None, {"a": 90_000_000}), [None, None, 45.0]),
        (({"a": 0}, {"a": 5_000_000, "b": 9}, {"a": 9_000_000, "b": 1_000_009}), [None, None, 5.0]),
        (({"a": 0, "b": 0}, {"a": 5_000_000}), [None, 5.0]),
        (({},), [None]),
    ],
    ids=[
        "growth",
        "two packages",
        "wrap",
        "one of two wraps",
        "failure spread",
        "one of two is new",
        "one is gone",
        "none",
    ],
)
def test_package_power_is_the_growth_of_all_energy_counters(
    readings: tuple[dict[str, int] | None, ...], expected: list[float | None]
) -> None:
    assert package_watts(*readings) == expected


def test_after_a_gap_no_wrap_is_made_up() -> None:
    host = Host()
    frames = [
        host.look(at_s, rapl=EnergyReading(packages={"a": EnergyCounter(uj, RANGE_UJ)}))
        for at_s, uj in ((0.0, RANGE_UJ - 1_000_000), (3600.0, 7), (3601.0, 2_000_007))
    ]
    powers = [None if frame.power is None else frame.power.package_watts for frame in frames]
    assert powers == [None, None, 2.0]


def test_a_counter_that_was_set_back_is_no_wrap() -> None:
    # 60 kJ within a second would be 60 kW.
    assert package_watts({"a": RANGE_UJ // 2}, {"a": 7}, {"a": 3_000_007}) == [None, None, 3.0]


def test_mains_and_batteries_are_the_hosts_power() -> None:
    frame = Host().look(0.0, power_supply=PowerSupplyReading(on_mains=False, battery_ratio=0.25))
    assert frame.power is not None
    assert (frame.power.on_mains, frame.power.battery_ratio) == (False, 0.25)


# Limits


def limits(periods: int | None, throttled: int | None) -> LimitsReading:
    return LimitsReading(cpu_limit_cores=1.5, cpu_periods=periods, cpu_throttled_periods=throttled)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((100, 10), (110, 15), 0.5),
        ((100, 10), (110, 10), 0.0),
        ((100, 10), (100, 10), 0.0),
        ((100, 10), (105, 20), 1.0),
        ((100, 10), (50, 5), None),
        ((None, None), (110, 15), None),
        ((100, 10), (None, None), None),
    ],
)
def test_throttling_is_the_share_of_the_periods_that_ran_into_the_quota(
    before: tuple[int | None, int | None], after: tuple[int | None, int | None], expected: float | None
) -> None:
    host = Host()
    host.look(0.0, limits=limits(*before))
    frame = host.look(1.0, limits=limits(*after))
    assert frame.limits is not None
    assert frame.limits.cpu_throttled_ratio == expected


@pytest.mark.parametrize(
    ("limit_bytes", "used_bytes", "expected"),
    [(1000, 250, 0.25), (1000, 1100, 1.0), (1000, None, None), (None, None, None), (0, 0, None)],
)
def test_used_memory_is_a_share_of_its_limit(
    limit_bytes: int | None, used_bytes: int | None, expected: float | None
) -> None:
    reading = LimitsReading(memory_limit_bytes=limit_bytes, memory_used_bytes=used_bytes)
    frame = Host().look(0.0, limits=reading)
    assert frame.limits is not None
    assert (frame.limits.memory_limit_bytes, frame.limits.memory_used_ratio) == (limit_bytes, expected)


# GPUs


def gpus(*indices: int, pcie: dict[int, PcieCounters] | None = None) -> GpuReading:
    return GpuReading(
        gpus=tuple(GpuSample(index=index, vendor="nvidia") for index in indices), pcie=pcie or {}
    )


def cards(*indices: int) -> GpuReading:
    return GpuReading(gpus=tuple(GpuSample(index=index, vendor="amd") for index in indices))


def test_gpus_of_amd_are_numbered_after_those_of_nvidia() -> None:
    frame = Host().look(0.0, nvml=gpus(0, 1), amdgpu=cards(0, 1))
    assert frame.gpus is not None
    assert [gpu.index for gpu in frame.gpus] == [0, 1, 2, 3]


def test_gpus_of_amd_keep_their_numbers_while_the_other_driver_is_silent() -> None:
    host = Host()
    host.look(0.0, nvml=gpus(0, 1), amdgpu=cards(0))
    frame = host.look(1.0, amdgpu=cards(0))
    assert frame.gpus is not None
    assert [gpu.index for gpu in frame.gpus] == [2]


def test_a_gpu_keeps_its_number_when_another_driver_comes_later() -> None:
    host = Host()
    host.look(0.0, amdgpu=cards(0))
    frame = host.look(1.0, nvml=gpus(0), amdgpu=cards(0))
    assert frame.gpus is not None
    assert [(gpu.vendor, gpu.index) for gpu in frame.gpus] == [("nvidia", 1), ("amd", 0)]


def test_gpus_of_amd_alone_are_numbered_from_0() -> None:
    frame = Host().look(0.0, amdgpu=cards(0, 1))
    assert frame.gpus is not None
    assert [gpu.index for gpu in frame.gpus] == [0, 1]


def test_pcie_counters_become_rates_of_their_gpu() -> None:
    host = Host()
    found = []
    for at_s, counters in ((0.0, (0, 0)), (2.0, (800, 400))):
        frame = host.look(at_s, nvml=gpus(0, 1, pcie={1: PcieCounters(*counters)}))
        assert frame.gpus is not None
        found.append([(gpu.pcie_receive_bytes_per_s, gpu.pcie_transmit_bytes_per_s) for gpu in frame.gpus])
    assert found == [[(None, None), (None, None)], [(None, None), (400.0, 200.0)]]


def test_pressure_is_the_stalled_share_of_the_time() -> None:
    host = Host()
    host.look(0.0, pressure=PressureReading(stalled_us={"cpu_some": 0, "io_full": 0}))
    frame = host.look(2.0, pressure=PressureReading(stalled_us={"cpu_some": 500_000, "io_full": 9_000_000}))
    assert frame.pressure is not None
    assert frame.pressure.cpu_some_ratio == 0.25
    assert frame.pressure.io_full_ratio == 1.0
    assert frame.pressure.memory_some_ratio is None


# Groups that are put together


def test_the_processors_temperature_is_that_of_its_chip_or_else_its_zone() -> None:
    chip = TemperatureSample(
        name="package", temperature_celsius=50.0, max_celsius=80.0, critical_celsius=100.0
    )
    zone = TemperatureSample(name="x86_pkg_temp", temperature_celsius=49.0, max_celsius=90.0)
    both = Host().look(
        0.0, cpu=CpuReading(), hwmon=HwmonReading(cpu=chip), thermal_zones=ThermalZonesReading(cpu=zone)
    )
    only = Host().look(0.0, cpu=CpuReading(), thermal_zones=ThermalZonesReading(cpu=zone))
    assert both.cpu is not None
    assert (both.cpu.temperature_celsius, both.cpu.temperature_max_celsius) == (50.0, 100.0)
    assert only.cpu is not None
    assert (only.cpu.temperature_celsius, only.cpu.temperature_max_celsius) == (49.0, 90.0)


def test_temperatures_of_chips_and_zones_are_one_group() -> None:
    chip, zone = TemperatureSample(name="a"), TemperatureSample(name="b")
    frame = Host().look(
        0.0, hwmon=HwmonReading(temperatures=(chip,)), thermal_zones=ThermalZonesReading(temperatures=(zone,))
    )
    assert frame.thermal == (chip, zone)


def test_a_driver_without_gpus_leaves_the_group_none_and_says_why() -> None:
    frame = Host().look(0.0, nvml=GpuReading(driver_error="LibRmVersionMismatch"))
    assert frame.gpus is None
    assert frame.gpu_driver_error == "LibRmVersionMismatch"


def test_the_core_rail_is_the_hosts_power() -> None:
    frame = Host().look(0.0, hwmon=HwmonReading(core_volts=1.02))
    assert frame.power is not None
    assert frame.power.core_volts == 1.02


def cgroups(**usage_us: int) -> CgroupReading:
    return CgroupReading(usage_us=usage_us)


@pytest.mark.parametrize(
    ("busy", "user_us", "system_us", "dominant"),
    [
        (90, 900_000, 100_000, "user"),
        (90, 500_000, 500_000, None),
        (10, 900_000, 100_000, None),
        (90, 0, 0, None),
    ],
)
def test_a_control_group_dominates_a_busy_host_with_more_than_half(
    busy: int, user_us: int, system_us: int, dominant: str | None
) -> None:
    host = Host()
    host.look(0.0, cpu=cpu(0, 0), cgroup=cgroups(user=0, system=0))
    frame = host.look(1.0, cpu=cpu(busy, 100), cgroup=cgroups(user=user_us, system=system_us))
    assert frame.work is not None
    assert frame.work.cgroup == dominant


def test_work_is_the_larger_of_processor_and_gpu() -> None:
    host = Host()
    gpu = GpuSample(index=0, utilization_ratio=0.8, sm_clock_hz=1e9, sm_clock_max_hz=2e9)
    host.look(0.0, cpu=cpu(0, 0))
    frame = host.look(1.0, cpu=cpu(30, 100), nvml=GpuReading(gpus=(gpu,)))
    assert frame.work is not None
    assert (frame.work.rate, frame.work.target, frame.work.source) == (0.4, 1.0, "utilization")


def test_without_processor_and_gpu_there_is_no_work() -> None:
    assert utilization_work(None, None, target=1.0) is None
