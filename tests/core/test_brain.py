"""The whole pure path: frames and events in, ticks out."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from neuromodd.core.anomaly import Anomaly
from neuromodd.core.brain import FAULT_STRESS, Brain, BrainParameters, Phasic, Tick
from neuromodd.core.diagnostics import FaultClass, FaultParameters
from neuromodd.core.fpga import FpgaMetrics
from neuromodd.core.frame import (
    CpuSample,
    GpuSample,
    MemorySample,
    PowerSample,
    TelemetryFrame,
    TemperatureSample,
    WorkSample,
)
from neuromodd.core.messages import (
    anomaly_event,
    fault_event,
    reward_event,
    spikes_message,
    state_message,
    telemetry_event,
)
from neuromodd.core.modulators import NeuroModulators, Setpoints
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.rewards import BreakthroughFound, RewardParameters, SourceSwitch, WorkAccepted
from neuromodd.core.surprise import SurpriseParameters
from neuromodd.errors import CheckpointMismatchError, InvalidValueError

MakeFrame = Callable[..., TelemetryFrame]


def live(brain: Brain, frames: Sequence[TelemetryFrame]) -> list[Tick]:
    return [brain.step(frame) for frame in frames]


def payloads(ticks: Sequence[Tick]) -> list[tuple[str, bytes]]:
    """All that ticks have to say."""
    said = []
    for tick in ticks:
        events = [telemetry_event(tick.frame), *(reward_event(event) for event in tick.events)]
        events.append(fault_event(tick.frame.node, tick.fault))
        events += [anomaly_event(tick.frame.node, change) for change in changes([tick])]
        said += [(event.name, event.encoded(replayed=False)) for event in events]
        said += [(message.name, message.payload) for message in (state_message(tick), spikes_message(tick))]
    return said


def day(frame: MakeFrame, count: int) -> list[TelemetryFrame]:
    """Frames with busy episodes, clock jitter, faults, switches, missing groups and a gap."""
    frames = []
    for i in range(count):
        busy = 0.9 if i % 30 < 12 else 0.1
        cpu = CpuSample(utilization_ratio=busy, frequency_hz=2e9 + 1e8 * (i % 7), frequency_max_hz=4e9)
        gpu = GpuSample(
            index=0, uuid="A", utilization_ratio=0.2, power_watts=90.0 + i % 20, lost=80 <= i < 110
        )
        away_s = 500.0 if i >= 140 else 0.0
        frames.append(
            frame(
                i + away_s,
                cpu=None if i % 17 == 0 else cpu,
                gpus=None if i % 13 == 0 else (gpu,),
                memory=MemorySample(used_ratio=0.5 + 0.3 * math.sin(i / 9)),
                power=PowerSample(on_mains=i % 60 < 40),
                thermal=(TemperatureSample(name="x", temperature_celsius=60.0 + i % 40),),
                work=WorkSample(rate=busy, source="utilization"),
                gap=i == 140,
                interval_s=None if i == 0 else 500.0 if i == 140 else 1.0,
                lateness_ms=400.0 if i % 50 == 0 else 1.0,
            )
        )
    return frames


# Rewards last


def test_a_reward_shows_at_once_and_is_half_gone_after_thirteen_seconds(frame: MakeFrame) -> None:
    brain = Brain()
    brain.step(frame(0.0))
    brain.take(BreakthroughFound())
    ticks = live(brain, [frame(float(i)) for i in range(1, 40)])
    phasic = [tick.phasic.dopamine for tick in ticks]
    assert phasic == pytest.approx([0.95**i for i in range(39)])
    assert ticks[0].modulators.dopamine == 1.0
    assert ticks[14].rewarded
    assert not ticks[30].rewarded


@pytest.mark.parametrize("rate_hz", [1, 10])
def test_what_is_left_of_a_reward_does_not_depend_on_the_tick_rate(frame: MakeFrame, rate_hz: int) -> None:
    # Without a bank nothing but the events moves the phasic part.
    brain = Brain(BrainParameters(engine=EngineConfig(izhikevich_neurons=0)))
    brain.step(frame(0.0))
    brain.take(SourceSwitch())
    brain.take(WorkAccepted())
    ticks = live(brain, [frame(i / rate_hz, interval_s=1.0 / rate_hz) for i in range(20 * rate_hz + 1)])
    first, last = ticks[0].phasic, ticks[-1].phasic
    assert (first.dopamine, first.cortisol, first.acetylcholine) == pytest.approx((-0.8, 0.3, 0.05))
    expected = (-0.8 * 0.95**20, 0.3 * 0.90**20, 0.05 * 0.99**20)
    assert (last.dopamine, last.cortisol, last.acetylcholine) == pytest.approx(expected)


def test_telemetry_does_not_overwrite_a_reward(frame: MakeFrame) -> None:
    brain = Brain()
    brain.step(frame(0.0, work=WorkSample(rate=0.5)))
    brain.take(WorkAccepted())
    tick = brain.step(frame(1.0, work=WorkSample(rate=0.5)))
    assert tick.tonic.dopamine == 0.5
    assert tick.modulators.dopamine == pytest.approx(0.7)


def test_phasic_parts_stay_within_one(frame: MakeFrame) -> None:
    brain = Brain()
    for _ in range(20):
        brain.take(WorkAccepted(latency_ms=500.0))
        brain.take(SourceSwitch())
    tick = brain.step(frame(0.0))
    assert tick.phasic == Phasic(dopamine=-1.0, cortisol=1.0, acetylcholine=-1.0)
    assert (tick.modulators.dopamine, tick.modulators.cortisol, tick.modulators.acetylcholine) == (
        0.0,
        1.0,
        0.0,
    )


def test_an_event_acts_in_the_next_step_and_only_once(frame: MakeFrame) -> None:
    brain = Brain()
    event = WorkAccepted(id="x")
    brain.take(event)
    first, second = live(brain, [frame(0.0), frame(1.0)])
    assert [event.id for event in first.events] == ["x"]
    assert second.events == ()
    assert second.phasic.dopamine == pytest.approx(0.2 * 0.95)


def test_timing_stress_reaches_cortisol_in_the_next_tick(frame: MakeFrame) -> None:
    brain = Brain()
    ticks = live(brain, [frame(float(i), fpga=FpgaMetrics(wns_ns=-5.0)) for i in range(30)])
    rang = [tick.result.izhikevich_spikes[4] for tick in ticks]
    first = next(i for i, spikes in enumerate(rang) if spikes)
    assert [tick.phasic.cortisol for tick in ticks[: first + 1]] == [0.0] * (first + 1)
    assert ticks[first + 1].phasic.cortisol == pytest.approx(0.15 * rang[first] * 0.90)


# Tonic levels


def test_terms_without_readings_drift_to_the_baseline(frame: MakeFrame) -> None:
    brain = Brain()
    hot = frame(
        0.0,
        cpu=CpuSample(
            utilization_ratio=0.9, frequency_hz=4e9, frequency_max_hz=2e9, temperature_celsius=95.0
        ),
        power=PowerSample(core_volts=1.2),
        work=WorkSample(rate=1.0),
    )
    first, after_ten, after_long = live(brain, [hot, frame(10.0), frame(5000.0)])
    start = NeuroModulators(dopamine=1.0, cortisol=1.0, acetylcholine=0.6, tempo=2.0)
    assert first.tonic.model_dump() == pytest.approx(start.model_dump())
    drifted = {
        "dopamine": 0.3 + 0.7 * 0.95**10,
        "cortisol": 0.90**10,
        "acetylcholine": 1.0 - 0.4 * 0.99**10,
        "tempo": 1.0 + 0.95**10,
    }
    assert after_ten.tonic.model_dump() == pytest.approx(drifted)
    assert after_long.tonic.model_dump() == pytest.approx(NeuroModulators().model_dump(), abs=1e-9)


def test_a_term_with_readings_follows_them_at_once(frame: MakeFrame) -> None:
    brain = Brain()
    rates = [1.0, 0.4, 0.8]
    ticks = live(brain, [frame(float(i), work=WorkSample(rate=rate)) for i, rate in enumerate(rates)])
    assert [tick.tonic.dopamine for tick in ticks] == rates


def clocked(frame: MakeFrame, at_s: float, clock_hz: float, utilization: float = 0.5) -> TelemetryFrame:
    return frame(at_s, cpu=CpuSample(utilization_ratio=utilization, frequency_hz=clock_hz))


def test_an_unsteady_clock_distracts_a_host_without_a_voltage_sensor(frame: MakeFrame) -> None:
    brain = Brain()
    steady = live(brain, [clocked(frame, float(i), 2e9) for i in range(59)])
    assert {tick.tonic.acetylcholine for tick in steady} == {1.0}
    tick = brain.step(clocked(frame, 59.0, 1.8e9))
    mean = (59 * 2e9 + 1.8e9) / 60
    assert tick.tonic.acetylcholine == pytest.approx(1.0 - 2.0 * (mean - 1.8e9) / mean)


def test_the_clock_of_an_idle_host_is_ignored(frame: MakeFrame) -> None:
    brain = Brain()
    ticks = live(brain, [clocked(frame, float(i), 1e9 * (1 + i % 4), 0.09) for i in range(100)])
    assert {tick.tonic.acetylcholine for tick in ticks} == {1.0}


def test_the_mean_clock_is_that_of_the_last_sixty_ticks(frame: MakeFrame) -> None:
    brain = Brain()
    ticks = live(brain, [clocked(frame, float(i), 1e9 if i < 200 else 2e9) for i in range(300)])
    assert ticks[200].tonic.acetylcholine == 0.4
    assert ticks[258].tonic.acetylcholine != 1.0
    assert ticks[259].tonic.acetylcholine == 1.0


def test_a_few_clock_readings_say_nothing_of_steadiness(frame: MakeFrame) -> None:
    ticks = live(Brain(), [clocked(frame, float(i), 1e9 * (1 + i % 4)) for i in range(10)])
    assert [tick.tonic.acetylcholine for tick in ticks[:9]] == [1.0] * 9
    assert ticks[9].tonic.acetylcholine != 1.0


# Time


def test_across_a_reboot_the_gap_is_taken_from_the_wall_clock(frame: MakeFrame) -> None:
    brain = Brain()
    brain.take(BreakthroughFound())
    brain.step(frame(0.0))
    tick = brain.step(frame(20.0, boot_id="boot-b", monotonic_s=3.0))
    assert tick.phasic.dopamine == pytest.approx(0.95**20)


def test_within_a_boot_the_wall_clock_does_not_count(frame: MakeFrame) -> None:
    brain = Brain()
    brain.take(BreakthroughFound())
    start = frame(0.0)
    brain.step(start)
    tick = brain.step(frame(2.0, time_utc=datetime(2030, 1, 1, tzinfo=UTC)))
    assert tick.phasic.dopamine == pytest.approx(0.95**2)


@pytest.mark.parametrize("boot_id", ["boot-a", "boot-b"])
def test_a_clock_that_steps_back_is_no_time(frame: MakeFrame, boot_id: str) -> None:
    brain = Brain()
    brain.take(BreakthroughFound())
    brain.step(frame(100.0))
    tick = brain.step(frame(0.0, boot_id=boot_id))
    assert tick.phasic.dopamine == 1.0


def test_a_gap_decays_the_dynamics(frame: MakeFrame) -> None:
    brain = Brain()
    brain.take(BreakthroughFound())
    brain.step(frame(0.0))
    assert brain.step(frame(3600.0, gap=True)).phasic.dopamine < 1e-70


def test_a_frame_without_time_is_refused_and_moves_nothing(frame: MakeFrame) -> None:
    brain = Brain()
    live(brain, day(frame, 5))
    before = json.dumps(brain.state())
    with pytest.raises(InvalidValueError, match="time_utc"):
        brain.step(frame(6.0, time_utc=None))
    assert json.dumps(brain.state()) == before


# Replay and checkpoints


def test_the_same_frames_give_the_same_payloads(frame: MakeFrame) -> None:
    frames = day(frame, 60)
    assert payloads(live(Brain(seed=3), frames)) == payloads(live(Brain(seed=3), frames))


def test_resuming_and_never_stopping_are_the_same_bit_for_bit(frame: MakeFrame) -> None:
    frames = day(frame, 200)
    straight = Brain(seed=4)
    expected = live(straight, frames)
    stopped = Brain(seed=4)
    found = live(stopped, frames[:100])
    stopped.take(WorkAccepted(units=2.0))
    resumed = Brain(seed=77)
    resumed.restore(json.loads(json.dumps(stopped.state())))
    straight_again = Brain(seed=4)
    live(straight_again, frames[:100])
    straight_again.take(WorkAccepted(units=2.0))
    expected[100:] = live(straight_again, frames[100:])
    found += live(resumed, frames[100:])
    assert found == expected
    assert payloads(found) == payloads(expected)
    assert resumed.engine.weights == straight_again.engine.weights
    assert json.dumps(resumed.state()) == json.dumps(straight_again.state())


def test_the_day_of_these_tests_is_eventful(frame: MakeFrame) -> None:
    ticks = live(Brain(), day(frame, 200))
    kinds = {type(event) for tick in ticks for event in tick.events}
    assert kinds == {WorkAccepted, SourceSwitch}
    assert {tick.fault.fault_class for tick in ticks} == {FaultClass.HealthyStandby, FaultClass.GpuDieDead}
    assert sum(sum(tick.result.lif_spikes) for tick in ticks) > 100
    assert sum(sum(tick.result.izhikevich_spikes) for tick in ticks) > 5


def test_a_state_is_a_snapshot(frame: MakeFrame) -> None:
    brain = Brain()
    frames = day(frame, 60)
    live(brain, frames[:30])
    brain.take(WorkAccepted())
    state = brain.state()
    before = json.dumps(state)
    live(brain, frames[30:])
    assert json.dumps(state) == before


def test_a_fresh_brain_round_trips_its_state() -> None:
    brain = Brain(seed=1)
    brain.restore(json.loads(json.dumps(Brain(seed=2).state())))
    assert json.dumps(brain.state()) == json.dumps(Brain(seed=2).state())


def test_a_state_of_other_dimensions_is_refused_and_moves_nothing(frame: MakeFrame) -> None:
    brain = Brain()
    live(brain, day(frame, 5))
    before = json.dumps(brain.state())
    other = Brain(BrainParameters(engine=EngineConfig(lif_neurons=16)))
    with pytest.raises(CheckpointMismatchError, match=r"lif_neurons 16.*lif_neurons 8"):
        brain.restore(other.state())
    assert json.dumps(brain.state()) == before


def test_the_sequence_goes_on_after_a_restart(frame: MakeFrame) -> None:
    brain = Brain()
    brain.step(frame(0.0, sequence=41))
    again = Brain()
    again.restore(brain.state())
    assert again.sequence == 42


# Events


def test_a_busy_episode_ends_in_exactly_one_piece_of_work(frame: MakeFrame) -> None:
    loads = [0.1] * 5 + [0.9] * 10 + [0.1] * 20
    ticks = live(Brain(), [frame(float(i), cpu=load) for i, load in enumerate(loads)])
    events = [(i, type(event)) for i, tick in enumerate(ticks) for event in tick.events]
    assert events == [(17, WorkAccepted)]


def test_the_first_observation_of_any_source_is_no_switch(frame: MakeFrame) -> None:
    gpu = GpuSample(index=0, lost=True)
    ticks = live(
        Brain(), [frame(float(i), gpus=(gpu,), power=PowerSample(on_mains=False)) for i in range(10)]
    )
    assert [tick.events for tick in ticks] == [()] * 10


def test_a_lost_gpu_is_a_switch_after_three_ticks_and_takes_the_reward(frame: MakeFrame) -> None:
    ticks = live(Brain(), [frame(float(i), gpus=(GpuSample(index=0, lost=i >= 5),)) for i in range(10)])
    assert [i for i, tick in enumerate(ticks) if tick.events] == [7]
    assert ticks[7].phasic.dopamine == -1.0
    assert ticks[7].modulators.dopamine == 0.0


def test_ids_are_distinct_within_a_frame_whoever_the_event_comes_from(frame: MakeFrame) -> None:
    brain = Brain(BrainParameters(rewards=RewardParameters(work_units=1.0)))
    loads = [0.9] * 3 + [0.1] * 3
    for i, load in enumerate(loads):
        if i == 5:
            brain.take(WorkAccepted())
            brain.take(WorkAccepted())
        tick = brain.step(frame(float(i), cpu=load, work=WorkSample(rate=load + 1.0)))
    ids = [event.id for event in tick.events]
    assert [type(event) for event in tick.events] == [WorkAccepted] * 4
    assert len(set(ids)) == 4
    assert {uuid.UUID(of).version for of in ids if of is not None} == {7}


def test_an_event_from_outside_gets_what_it_lacks_from_its_frame(frame: MakeFrame) -> None:
    brain = Brain()
    brain.take(WorkAccepted(source="user"))
    now = frame(3.0)
    (event,) = brain.step(now).events
    assert (event.origin, event.node, event.time_utc) == ("external", "host", now.time_utc)
    assert event.id is not None


def test_ids_are_the_same_on_replay(frame: MakeFrame) -> None:
    frames = day(frame, 120)
    first, second = (
        [event.id for tick in live(Brain(seed=s), frames) for event in tick.events] for s in (1, 2)
    )
    assert first == second
    assert len(first) == len(set(first)) > 3


# Faults, flags, settings


def test_a_change_of_fault_is_told_once(frame: MakeFrame) -> None:
    frames = [frame(float(i), gpus=(GpuSample(index=0, lost=5 <= i < 8),)) for i in range(30)]
    ticks = live(Brain(BrainParameters(faults=FaultParameters(hold_s=4.0))), frames)
    assert [i for i, tick in enumerate(ticks) if tick.fault_changed] == [0, 5, 11]


def faulty(frame: MakeFrame, at_s: float, *, lost: bool, **groups: Any) -> TelemetryFrame:
    return frame(at_s, gpus=(GpuSample(index=0, lost=lost, xid_errors=()),), **groups)


def test_a_fault_is_stress_from_the_tick_that_shows_it_until_it_ends(frame: MakeFrame) -> None:
    brain = Brain(BrainParameters(faults=FaultParameters(hold_s=3.0)))
    ticks = live(brain, [faulty(frame, float(i), lost=5 <= i < 8) for i in range(15)])
    stressed = [tick.fault.fault_class is FaultClass.GpuDieDead for tick in ticks]
    assert stressed == [False] * 5 + [True] * 5 + [False] * 5
    cortisol = [tick.tonic.cortisol for tick in ticks]
    assert cortisol[:10] == [0.0] * 5 + [FAULT_STRESS * 0.9] * 5
    # Without readings of stress it drifts like any level.
    assert cortisol[10:] == pytest.approx([FAULT_STRESS * 0.9 * 0.90 ** (1 + i) for i in range(5)])


def test_the_network_runs_under_the_stress_of_a_fault_in_the_same_tick(frame: MakeFrame) -> None:
    tick = Brain().step(faulty(frame, 0.0, lost=True))
    assert tick.modulators.cortisol == FAULT_STRESS * 0.9
    assert tick.stressed


@pytest.mark.parametrize(("celsius", "cortisol"), [(40.0, FAULT_STRESS * 0.9), (90.0, 0.7)])
def test_the_stress_of_a_fault_is_a_least_one(frame: MakeFrame, celsius: float, cortisol: float) -> None:
    brain = Brain(BrainParameters(faults=FaultParameters(hold_s=0.0)))
    cpu = CpuSample(temperature_celsius=celsius)
    first, second = (
        brain.step(faulty(frame, float(i), lost=i == 0, cpu=cpu)).tonic.cortisol for i in range(2)
    )
    assert first == pytest.approx(cortisol)
    assert second == pytest.approx(max(celsius - 83.0, 0.0) / 10.0)


def test_two_faults_at_once_are_stress_too(frame: MakeFrame) -> None:
    tick = Brain().step(faulty(frame, 0.0, lost=True, gpu_driver_error="ResetRequired"))
    assert tick.fault.fault_class is FaultClass.UnknownAmbiguity
    assert tick.tonic.cortisol == FAULT_STRESS * 0.45


def test_a_lack_of_sensors_is_no_stress(frame: MakeFrame) -> None:
    tick = Brain().step(frame(0.0, gpu_driver_error="Timeout"))
    assert tick.fault.fault_class is FaultClass.UnknownAmbiguity
    assert tick.tonic.cortisol == 0.0


def test_faults_are_counted_across_restarts(frame: MakeFrame) -> None:
    brain = Brain(BrainParameters(faults=FaultParameters(hold_s=0.0)))
    live(brain, [faulty(frame, float(i), lost=i % 2 == 1) for i in range(6)])
    again = Brain(brain.parameters)
    again.restore(json.loads(json.dumps(brain.state())))
    again.step(faulty(frame, 6.0, lost=False))
    began = {"HealthyStandby": 4, "GpuDieDead": 3}
    assert again.fault_counts == dict.fromkeys((of.value for of in FaultClass), 0) | began


def test_a_restored_brain_does_not_tell_a_known_fault_again(frame: MakeFrame) -> None:
    brain = Brain()
    brain.step(frame(0.0))
    again = Brain()
    again.restore(json.loads(json.dumps(brain.state())))
    assert not again.step(frame(1.0)).fault_changed


@pytest.mark.parametrize(
    ("level", "flag", "raised"),
    [
        ({"cortisol": 0.5}, "stressed", False),
        ({"cortisol": 0.51}, "stressed", True),
        ({"dopamine": 0.6}, "rewarded", False),
        ({"dopamine": 0.61}, "rewarded", True),
        ({"acetylcholine": 0.7}, "focused", False),
        ({"acetylcholine": 0.71}, "focused", True),
    ],
)
def test_a_flag_is_raised_above_its_level(
    frame: MakeFrame, level: dict[str, float], flag: str, raised: bool
) -> None:
    levels: dict[str, Any] = {"dopamine": 0.0, "acetylcholine": 0.0, **level}
    tick = Brain().step(frame()).model_copy(update={"modulators": NeuroModulators(**levels)})
    assert getattr(tick, flag) is raised


def test_the_error_of_the_network_is_the_mean_of_the_channels_that_are_present(frame: MakeFrame) -> None:
    brain = Brain()
    tick = brain.step(frame(0.0, cpu=0.8, memory=MemorySample(used_ratio=0.4)))
    assert tick.error_total == pytest.approx(0.6)
    assert brain.step(frame(1.0)).error_total is None


# Surprise


CALM_TICKS = 7200


def watching(*channels: str, **more: Any) -> BrainParameters:
    """A brain's parameters, with a network that does little."""
    return BrainParameters(
        engine=EngineConfig(steps_per_tick=1),
        surprise=SurpriseParameters(channels=channels, **more),
    )


def calm(frame: MakeFrame, count: int, first: int = 0) -> list[TelemetryFrame]:
    """A processor that is always as busy, but for a little."""
    return [frame(float(at), cpu=0.1 + 0.01 * (at % 3)) for at in range(first, first + count)]


def wild(frame: MakeFrame) -> list[TelemetryFrame]:
    """The minute after the calm, in which the processor is far busier than ever."""
    return [frame(float(CALM_TICKS + at), cpu=0.99) for at in range(60)]


def changes(ticks: Sequence[Tick]) -> list[Anomaly]:
    moments = [tick.surprise for tick in ticks if tick.surprise is not None]
    return [of.change for of in moments if of.change is not None]


@pytest.fixture(scope="module")
def calmed(frame: MakeFrame) -> str:
    """The state of a brain that has known nothing but calm, as JSON."""
    brain = Brain(watching("cpu"))
    assert changes(live(brain, calm(frame, CALM_TICKS))) == []
    return json.dumps(brain.state())


def resumed(state: str, parameters: BrainParameters | None = None) -> Brain:
    brain = Brain(parameters or watching("cpu"))
    brain.restore(json.loads(state))
    return brain


def test_what_is_watched_is_read_from_the_frame(frame: MakeFrame) -> None:
    brain = Brain(watching("cpu", "gpus.0.power_watts", "memory"))
    tick = brain.step(frame(0.0, cpu=0.25, gpus=(GpuSample(index=0, power_watts=30.0),)))
    assert tick.surprise is not None
    observed = {of.name: of.observed for of in tick.surprise.channels}
    assert observed == {"cpu": 0.25, "gpus.0.power_watts": 30.0, "memory": None}


def test_a_name_of_a_reading_that_no_frame_has_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"surprise\.channels: got 'cpux'.*did you mean cpu\?"):
        Brain(watching("cpux"))


def test_without_surprise_there_is_no_moment(frame: MakeFrame) -> None:
    brain = Brain(watching("cpu", enabled=False))
    tick = brain.step(frame(0.0, cpu=0.25))
    assert (tick.surprise, tick.anomalous, brain.state()["surprise"]) == (None, False, None)


def test_a_jump_after_hours_of_calm_is_an_anomaly(frame: MakeFrame, calmed: str) -> None:
    ticks = live(resumed(calmed), wild(frame))
    first = changes(ticks)[0]
    assert (first.phase, [of.name for of in first.channels]) == ("begin", ["cpu"])


def test_an_anomaly_goes_on_from_the_tick_in_which_it_begins(frame: MakeFrame, calmed: str) -> None:
    ticks = live(resumed(calmed), wild(frame))
    began = next(at for at, tick in enumerate(ticks) if changes([tick]))
    assert [tick.anomalous for tick in ticks[: began + 1]] == [False] * began + [True]


def test_anomalies_are_counted_across_restarts(frame: MakeFrame, calmed: str) -> None:
    brain = resumed(calmed)
    begun = [of for of in changes(live(brain, wild(frame))) if of.phase == "begin"]
    assert resumed(json.dumps(brain.state())).anomaly_count == len(begun) > 0


def test_a_resumed_brain_tells_of_an_anomaly_as_one_that_never_stopped(frame: MakeFrame, calmed: str) -> None:
    frames = [*wild(frame), *calm(frame, 120, CALM_TICKS + 60)]
    straight = resumed(calmed)
    expected = payloads(live(straight, frames))
    stopped = resumed(calmed)
    found = payloads(live(stopped, frames[:30]))
    again = resumed(json.dumps(stopped.state()))
    found += payloads(live(again, frames[30:]))
    assert found == expected
    assert "anomaly" in {name for name, _ in expected}
    assert json.dumps(again.state()) == json.dumps(straight.state())


def test_the_threshold_may_change_while_running(calmed: str) -> None:
    brain = resumed(calmed)
    before = brain.parameters
    brain.configure(
        setpoints=before.setpoints,
        rewards=before.rewards,
        faults=before.faults,
        surprise=SurpriseParameters(threshold=0.9, feedback=False),
    )
    expected = before.surprise.model_copy(update={"threshold": 0.9, "feedback": False})
    assert brain.parameters.surprise == expected
    assert brain._surprise is not None
    assert brain._surprise.parameters == expected


def test_settings_that_say_nothing_of_surprise_leave_it_as_it_is() -> None:
    brain = Brain(watching("cpu", threshold=0.75))
    given = BrainParameters()
    brain.configure(setpoints=given.setpoints, rewards=given.rewards, faults=given.faults)
    assert brain.parameters.surprise.threshold == 0.75


def test_a_reset_forgets_the_normal_and_the_anomalies(frame: MakeFrame, calmed: str) -> None:
    brain = resumed(calmed)
    live(brain, wild(frame))
    brain.reset()
    fresh = Brain(watching("cpu"))
    assert json.dumps(brain.state()["surprise"]) == json.dumps(fresh.state()["surprise"])
    assert brain.anomaly_count == 0


@pytest.mark.parametrize("known", [{}, {"surprise": None}])
def test_with_a_state_that_has_no_normal_it_is_learned_anew(
    frame: MakeFrame, calmed: str, known: dict[str, object]
) -> None:
    state = json.loads(calmed)
    old = {name: of for name, of in state.items() if name not in {"surprise", "anomalies"}} | known
    again = Brain(watching("cpu"))
    live(again, calm(frame, 10))
    again.restore(old)
    fresh = Brain(watching("cpu")).state()["surprise"]
    assert json.dumps(again.state()) == json.dumps({**state, "surprise": fresh})


def test_a_state_of_a_brain_that_watched_something_else_is_taken(frame: MakeFrame, calmed: str) -> None:
    again = resumed(calmed, watching("network", "cpu"))
    tick = again.step(frame(float(CALM_TICKS), cpu=0.1))
    assert tick.surprise is not None
    assert [of.name for of in tick.surprise.channels] == ["network", "cpu"]


def test_a_state_with_a_normal_is_taken_where_there_is_no_surprise(frame: MakeFrame, calmed: str) -> None:
    again = resumed(calmed, watching("cpu", enabled=False))
    assert again.step(frame(float(CALM_TICKS), cpu=0.1)).surprise is None


def test_settings_may_change_while_running(frame: MakeFrame) -> None:
    brain = Brain()
    brain.configure(
        setpoints=Setpoints(work_target=2.0),
        rewards=RewardParameters(work_units=1.0),
        faults=FaultParameters(hold_s=0.0),
    )
    lost, fine = (
        frame(float(i), gpus=(GpuSample(index=0, lost=i == 0, xid_errors=()),), work=WorkSample(rate=1.0))
        for i in (0, 1)
    )
    first, second = live(brain, [lost, fine])
    assert first.tonic.dopamine == 0.5
    assert second.fault.fault_class is FaultClass.HealthyStandby
    assert [type(event) for event in second.events] == [WorkAccepted]


@pytest.mark.parametrize("bank", [0, 3, 9])
def test_the_bank_may_have_any_size(frame: MakeFrame, bank: int) -> None:
    brain = Brain(BrainParameters(engine=EngineConfig(izhikevich_neurons=bank)))
    ticks = live(brain, day(frame, 20))
    assert {len(tick.result.izhikevich_spikes) for tick in ticks} == {bank}


def test_a_network_with_other_channels_than_a_frame_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"engine.channels: got 9, expected 8"):
        Brain(BrainParameters(engine=EngineConfig(channels=9)))


def not_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_frame_can_be_lived_through(
    record_of: Callable[[type[BaseModel]], st.SearchStrategy[Any]], frame: MakeFrame, data: st.DataObject
) -> None:
    brain = Brain()
    for second in range(3):
        drawn = data.draw(record_of(TelemetryFrame))
        now = frame().time_utc or datetime.now(UTC)
        here = {"time_utc": now + timedelta(seconds=second), "monotonic_s": 1000.0 + second}
        tick = brain.step(drawn.model_copy(update=here))
        for _, payload in payloads([tick]):
            json.loads(payload, parse_constant=not_json)
    json.dumps(brain.state(), allow_nan=False)
