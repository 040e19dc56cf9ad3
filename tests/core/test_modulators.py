"""Levels from telemetry and events, against golden numbers and the design's formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.frame import (
    CpuSample,
    GpuSample,
    PowerSample,
    TelemetryFrame,
    TemperatureSample,
    WorkSample,
)
from neuromodd.core.modulators import (
    NeuroModulators,
    Setpoints,
    busiest_clock,
    focus_change,
    gpu_work_ratio,
    heat_stress,
    power_level,
    power_stress,
    voltage_instability,
)
from neuromodd.core.rewards import BreakthroughFound, RewardEvent, SourceSwitch, WorkAccepted
from neuromodd.errors import InvalidValueError

Golden = Callable[[str], dict[str, Any]]
MakeFrame = Callable[..., TelemetryFrame]

POINTS = Setpoints()


def levels(of: dict[str, float]) -> NeuroModulators:
    return NeuroModulators(**of)


def temperatures(frame: MakeFrame, *sensors: tuple[float, float | None, float | None]) -> TelemetryFrame:
    return frame(
        thermal=tuple(
            TemperatureSample(name=str(i), temperature_celsius=t, max_celsius=hot, critical_celsius=critical)
            for i, (t, hot, critical) in enumerate(sensors)
        )
    )


# Golden numbers


def test_from_telemetry_agrees_with_the_golden_rows(golden: Golden, frame: MakeFrame) -> None:
    setpoints = Setpoints(work_target=0.0105, clock_nominal_hz=2.64e9)
    for celsius, watts, rate, clock_mhz, volts, *expected in golden("modulators")["from_telemetry"]:
        gpu = GpuSample(
            index=0,
            temperature_celsius=celsius or None,
            power_watts=watts,
            sm_clock_hz=clock_mhz * 1e6,
            core_volts=volts,
        )
        found = NeuroModulators.from_telemetry(frame(gpus=(gpu,), work=WorkSample(rate=rate)), setpoints)
        got = (found.dopamine, found.cortisol, found.acetylcholine, found.tempo)
        assert got == pytest.approx(expected, rel=1e-5)


def test_apply_event_agrees_with_the_golden_rows(golden: Golden) -> None:
    for row in golden("modulators")["apply_event"]:
        kinds: dict[str, RewardEvent] = {
            "WorkAccepted": WorkAccepted(latency_ms=row.get("latency_ms")),
            "BreakthroughFound": BreakthroughFound(),
        }
        after = levels(row["before"]).apply_event(kinds[row["event"]])
        assert after.model_dump() == pytest.approx(row["after"], rel=1e-5)


def test_the_golden_events_are_quick_work_and_breakthroughs(golden: Golden) -> None:
    rows = golden("modulators")["apply_event"]
    assert {row["event"] for row in rows} == {"WorkAccepted", "BreakthroughFound"}


def test_decay_agrees_with_the_golden_rows(golden: Golden) -> None:
    first, *rest = golden("modulators")["decay_each_second"]
    now = levels(first)
    for expected in rest:
        now = now.decay(1.0)
        got = {name: getattr(now, name) for name in expected}
        assert got == pytest.approx(expected, rel=1e-5)


# Decay


@given(level=st.floats(0.0, 1.0), parts=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=20))
def test_decay_does_not_depend_on_how_time_is_cut(level: float, parts: list[float]) -> None:
    start = NeuroModulators(dopamine=level, cortisol=level, acetylcholine=level)
    cut = start
    for seconds in parts:
        cut = cut.decay(seconds)
    whole = start.decay(math.fsum(parts))
    assert cut.model_dump() == pytest.approx(whole.model_dump(), rel=1e-9, abs=1e-300)


def test_decay_of_no_time_changes_nothing() -> None:
    now = NeuroModulators(dopamine=0.7, cortisol=0.2, acetylcholine=0.9, tempo=1.5)
    assert now.decay(0.0) == now


def test_tempo_and_unknown_terms_do_not_decay() -> None:
    now = NeuroModulators(dopamine=None, cortisol=None, acetylcholine=None, tempo=1.5)
    assert now.decay(10.0) == now


@pytest.mark.parametrize("dt_s", [-1.0, math.nan, math.inf])
def test_decay_refuses_time_that_runs_back_or_is_not_finite(dt_s: float) -> None:
    with pytest.raises(InvalidValueError, match="dt_s"):
        NeuroModulators().decay(dt_s)


# Events


def test_an_event_leaves_the_levels_that_it_was_given_alone() -> None:
    now = NeuroModulators(dopamine=0.5)
    assert now.apply_event(WorkAccepted()) is not now
    assert now.dopamine == 0.5


@pytest.mark.parametrize(
    ("latency_ms", "change"), [(None, 0.05), (0.0, 0.05), (100.0, 0.05), (100.1, -0.1), (1e9, -0.1)]
)
def test_only_slow_work_distracts(latency_ms: float | None, change: float) -> None:
    assert focus_change(WorkAccepted(latency_ms=latency_ms)) == change


def test_a_source_switch_stresses_and_takes_all_reward() -> None:
    switched = NeuroModulators(dopamine=0.9, cortisol=0.5, acetylcholine=0.8).apply_event(SourceSwitch())
    assert switched == NeuroModulators(dopamine=0.0, cortisol=0.8, acetylcholine=0.8)


def test_an_event_sets_only_the_unknown_level_that_it_fixes() -> None:
    unknown = NeuroModulators(dopamine=None, cortisol=None, acetylcholine=None, tempo=None)
    assert unknown.apply_event(WorkAccepted()) == unknown
    assert unknown.apply_event(BreakthroughFound()).dopamine == 1.0
    switched = unknown.apply_event(SourceSwitch())
    assert (switched.dopamine, switched.cortisol) == (0.0, None)


# Missing readings


def test_a_frame_without_readings_says_nothing_of_any_level(frame: MakeFrame) -> None:
    found = NeuroModulators.from_telemetry(frame(), POINTS)
    assert found == NeuroModulators(dopamine=None, cortisol=None, acetylcholine=None, tempo=None)


def test_cortisol_needs_only_one_of_heat_and_power(frame: MakeFrame) -> None:
    heat = NeuroModulators.from_telemetry(temperatures(frame, (88.0, None, None)), POINTS)
    power = NeuroModulators.from_telemetry(frame(power=PowerSample(package_watts=425.0)), POINTS)
    assert heat.cortisol == pytest.approx(0.5)
    assert power.cortisol == pytest.approx(0.5)


def test_a_voltage_in_the_frame_wins_over_the_instability_of_the_clock(frame: MakeFrame) -> None:
    steady = frame(power=PowerSample(core_volts=1.1))
    assert NeuroModulators.from_telemetry(steady, POINTS, instability=0.3).acetylcholine == pytest.approx(0.8)
    assert NeuroModulators.from_telemetry(frame(), POINTS, instability=0.3).acetylcholine == 0.4


def test_the_rail_of_an_amd_gpu_says_nothing_unless_its_nominal_voltage_is_set(frame: MakeFrame) -> None:
    idle = frame(gpus=(GpuSample(index=0, vendor="amd", core_volts=0.7),))
    assert NeuroModulators.from_telemetry(idle, POINTS).acetylcholine is None
    told = Setpoints(voltage_nominal_volts=0.9)
    assert NeuroModulators.from_telemetry(idle, told).acetylcholine == pytest.approx(0.6)


# Heat


@pytest.mark.parametrize(
    ("celsius", "hot", "critical", "stress"),
    [
        (82.9, None, None, 0.0),
        (83.0, None, None, 0.0),
        (88.0, None, None, 0.5),
        (93.0, None, None, 1.0),
        (200.0, None, None, 1.0),
        (-40.0, None, None, 0.0),
        (90.0, 80.0, 100.0, 0.5),
        (80.0, 80.0, 100.0, 0.0),
        (100.0, 80.0, 100.0, 1.0),
        (95.0, None, 100.0, 0.5),
        (95.0, 100.0, 100.0, 0.5),
        (95.0, 120.0, 100.0, 0.5),
        (90.0, None, 100.0, 0.0),
        (1e300, None, 1e300, 1.0),
        (-1e300, None, 1e300, 0.0),
        (0.0, -1e300, 1e300, 0.5),
    ],
)
def test_heat_is_measured_between_a_sensors_own_limits(
    frame: MakeFrame, celsius: float, hot: float | None, critical: float | None, stress: float
) -> None:
    assert heat_stress(temperatures(frame, (celsius, hot, critical)), POINTS) == pytest.approx(stress)


def test_a_gpu_is_hot_from_ten_degrees_under_its_slowdown(frame: MakeFrame) -> None:
    gpu = GpuSample(index=0, temperature_celsius=85.0, slowdown_celsius=90.0)
    assert heat_stress(frame(gpus=(gpu,)), POINTS) == pytest.approx(0.5)


def test_the_hottest_device_counts_by_its_own_limits(frame: MakeFrame) -> None:
    # 60 C of a disk that stands at most 62 is worse than 90 C of a processor that stands 110.
    both = temperatures(frame, (90.0, 100.0, 110.0), (60.0, 52.0, 62.0))
    assert heat_stress(both, POINTS) == pytest.approx(0.8)


def test_the_processors_own_temperature_counts(frame: MakeFrame) -> None:
    cpu = CpuSample(temperature_celsius=97.0, temperature_max_celsius=100.0)
    assert heat_stress(frame(cpu=cpu), POINTS) == pytest.approx(0.7)


# Power


@pytest.mark.parametrize(
    ("watts", "limit", "stress"),
    [
        (95.0, 100.0, 0.0),
        (100.0, 100.0, 0.5),
        (105.0, 100.0, 1.0),
        (400.0, None, 0.0),
        (425.0, None, 0.5),
        (425.0, 0.0, 0.5),
        (450.0, None, 1.0),
        (1.0, 5e-324, 1.0),
    ],
)
def test_power_is_measured_by_the_enforced_limit_or_else_the_setpoints(
    frame: MakeFrame, watts: float, limit: float | None, stress: float
) -> None:
    gpu = GpuSample(index=0, power_watts=watts, power_limit_watts=limit)
    assert power_stress(frame(gpus=(gpu,)), POINTS) == pytest.approx(stress)


def test_the_device_nearest_its_limit_counts(frame: MakeFrame) -> None:
    big = GpuSample(index=0, power_watts=300.0, power_limit_watts=400.0)
    small = GpuSample(index=1, power_watts=70.0, power_limit_watts=70.0)
    assert power_stress(frame(gpus=(big, small)), POINTS) == pytest.approx(0.5)
    assert power_level(frame(gpus=(big, small)), POINTS) == 1.0


# Work, clock, voltage


@pytest.mark.parametrize(
    ("rate", "target", "dopamine"), [(0.0, None, 0.3), (0.5, None, 0.5), (2.0, None, 1.0), (0.5, 0.5, 1.0)]
)
def test_dopamine_is_work_over_its_target_between_floor_and_one(
    frame: MakeFrame, rate: float, target: float | None, dopamine: float
) -> None:
    found = NeuroModulators.from_telemetry(frame(work=WorkSample(rate=rate, target=target)), POINTS)
    assert found.dopamine == dopamine


def test_the_nominal_clock_is_the_devices_maximum_unless_the_user_set_one(frame: MakeFrame) -> None:
    gpus = (GpuSample(index=0, sm_clock_hz=2.64e9, sm_clock_max_hz=3.3e9),)
    assert NeuroModulators.from_telemetry(frame(gpus=gpus), Setpoints()).tempo == pytest.approx(0.8)
    # Setting it to what is its default anyway is setting it.
    points = Setpoints(clock_nominal_hz=2.64e9)
    assert NeuroModulators.from_telemetry(frame(gpus=gpus), points).tempo == 1.0


@pytest.mark.parametrize(("clock_hz", "tempo"), [(0.0, 0.5), (1e9, 0.5), (2.64e9, 1.0), (9e9, 2.0)])
def test_tempo_stays_between_a_half_and_two(frame: MakeFrame, clock_hz: float, tempo: float) -> None:
    cpu = CpuSample(frequency_hz=clock_hz)
    assert NeuroModulators.from_telemetry(frame(cpu=cpu), POINTS).tempo == tempo


def test_the_busiest_device_that_tells_its_clock_gives_the_tempo(frame: MakeFrame) -> None:
    cpu = CpuSample(frequency_hz=1e9, utilization_ratio=0.5)
    idle = GpuSample(index=0, sm_clock_hz=2e9, utilization_ratio=0.1)
    mute = GpuSample(index=1, utilization_ratio=1.0)
    found = busiest_clock(frame(cpu=cpu, gpus=(idle, mute)))
    assert found is not None
    assert found.device == "cpu"


def test_instability_is_that_of_the_rail_farthest_off(frame: MakeFrame) -> None:
    gpus = (GpuSample(index=0, core_volts=0.9), GpuSample(index=1, core_volts=1.3))
    power = PowerSample(core_volts=1.0)
    assert voltage_instability(frame(gpus=gpus, power=power), POINTS) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("utilization", "clock_hz", "maximum_hz", "work"),
    [
        (None, 1e9, 2e9, None),
        (0.8, 1e9, 2e9, 0.4),
        (0.8, 3e9, 2e9, 0.8),
        (0.8, None, 2e9, 0.8),
        (0.8, 1e9, 0.0, 0.8),
    ],
)
def test_a_gpu_at_half_its_clock_does_half_the_work(
    utilization: float | None, clock_hz: float | None, maximum_hz: float, work: float | None
) -> None:
    gpu = GpuSample(index=0, utilization_ratio=utilization, sm_clock_hz=clock_hz, sm_clock_max_hz=maximum_hz)
    assert gpu_work_ratio(gpu) == work


# Setpoints


def test_setpoints_write_only_what_was_set() -> None:
    assert Setpoints().to_json() == "{}"
    assert Setpoints(work_target=2.0).to_json() == '{"work_target":2.0}'


@pytest.mark.parametrize("event", ["WorkAccepted", None, RewardEvent(kind="Praise")])
def test_what_is_no_event_is_refused(event: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"apply_event: got .*, expected WorkAccepted"):
        NeuroModulators().apply_event(event)
