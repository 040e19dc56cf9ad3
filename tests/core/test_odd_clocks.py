"""Clocks that leap, stand still or are set back, and the real way from readings to ticks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromodd.core.brain import Brain, BrainParameters, Tick
from neuromodd.core.cadence import Cadence, Gate
from neuromodd.core.diagnostics import FaultParameters
from neuromodd.core.frame import PowerSample, TelemetryFrame, WorkSample
from neuromodd.core.homeassistant import SETTLE_S, Announcement
from neuromodd.core.messages import state_message
from neuromodd.core.rates import FrameAssembler, Reading
from neuromodd.core.readings import (
    CpuReading,
    DiskCounters,
    DiskReading,
    EnergyCounter,
    EnergyReading,
    HwmonReading,
    InterfaceCounters,
    NetworkReading,
)
from neuromodd.core.rewards import BreakthroughFound, RewardEvent, RewardParameters, WorkAccepted

HOUR_S, DAY_S, YEAR_S = 3600.0, 86_400.0, 31_536_000.0
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
QUICK = FaultParameters(baseline_ticks=20, standing_ticks=3, hold_s=5.0)


class World:
    """A machine that really moves, the clocks that it shows, and a brain that lives through its frames.

    Every real second its network receives 1,000 bytes, its disk reads 2,000 and is busy for 0.1 s, its
    package uses 30 J, and its processors work for four fifths of the time.
    """

    def __init__(self, *, interval_s: float = 1.0, faults: FaultParameters = QUICK) -> None:
        self.brain = Brain(BrainParameters(faults=faults))
        self.interval_s = interval_s
        self.real_s = 0.0
        self.boot_ahead_s = 50_000.0
        self.wall_ahead_s = 0.0
        self.core_volts = 1.0
        self.work: WorkSample | None = None
        self.start("boot-a")

    def start(self, boot_id: str) -> None:
        """Start the daemon (anew)."""
        self.assembler = FrameAssembler(node="lab", boot_id=boot_id, interval_s=self.interval_s)

    @property
    def boot_s(self) -> float:
        return self.real_s + self.boot_ahead_s

    def restart(self, boot_id: str) -> None:
        """End the daemon with a checkpoint, and start it from there."""
        state = json.dumps(self.brain.state(), allow_nan=False)
        self.brain = Brain(self.brain.parameters)
        self.brain.restore(json.loads(state))
        self.start(boot_id)

    def tick(self, after_s: float = 1.0, *, stopped_s: float = 0.0) -> Tick:
        """A tick after so many real seconds; then stop for `stopped_s` in the midst of the readings."""
        self.real_s += after_s
        monotonic_s, time_utc = self.boot_s, NOON + timedelta(seconds=self.real_s + self.wall_ahead_s)
        readings = self._read("cpu", "network", "hwmon")
        self.real_s += stopped_s
        readings |= self._read("disk", "rapl")
        if stopped_s:
            monotonic_s = self.boot_s
        frame = self.assembler.assemble(
            readings,
            sequence=self.brain.sequence,
            time_utc=time_utc,
            monotonic_s=monotonic_s,
            lateness_ms=0.0,
            work=self.work,
        )
        return self.brain.step(frame)

    def ticks(self, count: int) -> list[Tick]:
        return [self.tick() for _ in range(count)]

    def _read(self, *names: str) -> dict[str, Reading]:
        real_s = self.real_s
        values = {
            "cpu": CpuReading(busy_ticks=round(real_s * 80), total_ticks=round(real_s * 100)),
            "network": NetworkReading(interfaces={"eth0": InterfaceCounters(round(real_s * 1000), 0, 0, 0)}),
            "hwmon": HwmonReading(core_volts=self.core_volts),
            "disk": DiskReading(disks={"sda": DiskCounters(round(real_s * 2000), 0, round(real_s * 100))}),
            "rapl": EnergyReading(packages={"package-0": EnergyCounter(round(real_s * 30e6), 2**48)}),
        }
        return {name: Reading(value=values[name], at_s=self.boot_s) for name in names}


@pytest.fixture
def world() -> World:
    """A world after a few quiet ticks."""
    world = World()
    world.ticks(3)
    return world


def rates(frame: TelemetryFrame) -> list[float | None]:
    """All that is a difference of two counters."""
    assert frame.cpu is not None
    assert frame.network is not None
    assert frame.disk is not None
    watts = None if frame.power is None else frame.power.package_watts
    return [
        frame.cpu.utilization_ratio,
        frame.network.receive_bytes_per_s,
        frame.disk.read_bytes_per_s,
        frame.disk.busy_ratio,
        watts,
    ]


NO_RATES = [None] * 5
TRUE_RATES = pytest.approx([0.8, 1000.0, 2000.0, 0.1, 30.0])


def leap_hours(world: World) -> None:
    world.boot_ahead_s += 5 * HOUR_S


def set_back_hours(world: World) -> None:
    world.boot_ahead_s -= 5 * HOUR_S


def set_back_a_little(world: World) -> None:
    world.boot_ahead_s -= 1.5


def sleep_for_a_night(world: World) -> None:
    world.real_s += 10 * HOUR_S


def take_ten_intervals(world: World) -> None:
    world.real_s += 9.0


BREAKS = [leap_hours, set_back_hours, set_back_a_little, sleep_for_a_night, take_ten_intervals]
breaks = pytest.mark.parametrize("happen", BREAKS)


def wall_a_year_ahead(world: World) -> None:
    world.wall_ahead_s += YEAR_S


def wall_a_year_back(world: World) -> None:
    world.wall_ahead_s -= YEAR_S


walls = pytest.mark.parametrize("happen", [wall_a_year_ahead, wall_a_year_back])


# Frames


@breaks
def test_a_break_of_the_clock_is_one_gap(world: World, happen: Callable[[World], None]) -> None:
    happen(world)
    assert [tick.frame.gap for tick in world.ticks(4)] == [True, False, False, False]


@breaks
def test_over_a_break_of_the_clock_there_are_no_rates(world: World, happen: Callable[[World], None]) -> None:
    happen(world)
    assert rates(world.tick().frame) == NO_RATES


@breaks
def test_after_a_break_of_the_clock_the_rates_are_true(world: World, happen: Callable[[World], None]) -> None:
    happen(world)
    assert [rates(tick.frame) for tick in world.ticks(3)[1:]] == [TRUE_RATES] * 2


@breaks
def test_no_interval_is_negative(world: World, happen: Callable[[World], None]) -> None:
    happen(world)
    assert min(tick.frame.interval_s or 0.0 for tick in world.ticks(3)) >= 0.0


@walls
def test_a_step_of_the_wall_clock_is_no_gap_and_leaves_the_rates_alone(
    world: World, happen: Callable[[World], None]
) -> None:
    happen(world)
    frame = world.tick().frame
    assert (frame.gap, frame.interval_s) == (False, 1.0)
    assert rates(frame) == TRUE_RATES


def test_a_stop_in_the_midst_of_a_look_is_in_no_rate(world: World) -> None:
    stopped = world.tick(stopped_s=60.0)
    after = world.ticks(3)
    assert [tick.frame.gap for tick in (stopped, *after)] == [True, False, False, False]
    assert rates(stopped.frame) == NO_RATES
    # What was read before the stop has no rate in the next frame either; what was read after it has.
    assert rates(after[0].frame) == [None, None, *[pytest.approx(of) for of in (2000.0, 0.1, 30.0)]]
    assert rates(after[1].frame) == TRUE_RATES


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.001, 0.5, 1.0, 4.9, 5.1, 60.0, 1e5]),
            st.sampled_from([0.0, 0.0, 0.0, 0.2, -0.2, -1.0, -60.0, 60.0, -3e4, 1e7]),
            st.sampled_from([0.0, 0.0, YEAR_S, -YEAR_S]),
        ),
        max_size=12,
    )
)
def test_whatever_the_clocks_do_nothing_is_negative_and_nothing_is_out_of_range(
    courses: list[tuple[float, float, float]],
) -> None:
    world = World()
    world.brain.take(BreakthroughFound())
    for after_s, leap_s, step_s in courses:
        world.boot_ahead_s += leap_s
        world.wall_ahead_s += step_s
        tick = world.tick(after_s)
        numbers = [of for of in (tick.frame.interval_s, *rates(tick.frame)) if of is not None]
        assert all(of >= 0.0 for of in numbers)
        assert 0.0 <= tick.phasic.dopamine <= 1.0
        assert json.loads(state_message(tick).payload)["sequence"] == tick.frame.sequence
    json.dumps(world.brain.state(), allow_nan=False)


# Levels


@pytest.mark.parametrize("away_s", [6.0, 20.0, 60.0, HOUR_S, 30 * DAY_S])
def test_asleep_a_reward_decays_as_it_would_awake(world: World, away_s: float) -> None:
    world.brain.take(BreakthroughFound())
    before = world.tick().phasic.dopamine
    assert world.tick(away_s).phasic.dopamine == pytest.approx(before * 0.95**away_s, abs=1e-300)


@walls
def test_a_step_of_the_wall_clock_decays_nothing(world: World, happen: Callable[[World], None]) -> None:
    world.brain.take(BreakthroughFound())
    before = world.tick().phasic.dopamine
    happen(world)
    assert world.tick().phasic.dopamine == pytest.approx(before * 0.95)


def test_while_the_clock_goes_back_nothing_decays_and_then_it_goes_on(world: World) -> None:
    world.brain.take(BreakthroughFound())
    before = world.tick().phasic.dopamine
    set_back_hours(world)
    levels = [tick.phasic.dopamine for tick in world.ticks(3)]
    assert levels == pytest.approx([before, before * 0.95, before * 0.95**2])


@pytest.mark.parametrize(
    ("wall_ahead_s", "left"),
    [(0.0, 0.95**30), (YEAR_S, 0.0), (1e9, 0.0), (-31.0, 1.0), (-YEAR_S, 1.0)],
)
def test_across_a_reboot_a_reward_decays_by_the_wall_clock_and_never_grows(
    world: World, wall_ahead_s: float, left: float
) -> None:
    world.brain.take(BreakthroughFound())
    before = world.tick().phasic.dopamine
    world.boot_ahead_s = -world.real_s
    world.wall_ahead_s = wall_ahead_s
    world.restart("boot-b")
    assert world.tick(30.0).phasic.dopamine == pytest.approx(before * left, abs=1e-300)


@pytest.mark.parametrize("wall_ahead_s", [YEAR_S, -YEAR_S])
def test_after_a_reboot_with_another_wall_clock_time_goes_on_by_the_new_boot(
    world: World, wall_ahead_s: float
) -> None:
    world.boot_ahead_s = -world.real_s
    world.wall_ahead_s = wall_ahead_s
    world.restart("boot-b")
    world.brain.take(BreakthroughFound())
    levels = [tick.phasic.dopamine for tick in world.ticks(3)]
    assert levels == pytest.approx([1.0, 0.95, 0.95**2])


# Faults


def broken_rail(world: World) -> list[Tick]:
    """Learn a rail's baseline, then let it sag until that is a fault."""
    world.ticks(30)
    world.core_volts = 0.8
    return world.ticks(6)


def test_a_baseline_outlasts_a_weekend_asleep() -> None:
    world = World()
    world.ticks(30)
    world.real_s += 3 * DAY_S
    world.tick()
    world.core_volts = 0.8
    assert [tick.fault.fault_class for tick in world.ticks(6)][-1].is_fault


@pytest.mark.parametrize("wall_ahead_s", [0.0, YEAR_S])
def test_a_baseline_outlasts_days_without_the_daemon(wall_ahead_s: float) -> None:
    world = World()
    world.ticks(30)
    world.real_s += 3 * DAY_S
    world.boot_ahead_s, world.wall_ahead_s = -world.real_s, wall_ahead_s
    world.restart("boot-b")
    world.tick()
    world.core_volts = 0.8
    assert [tick.fault.fault_class for tick in world.ticks(6)][-1].is_fault


@pytest.mark.parametrize("wall_ahead_s", [0.0, YEAR_S])
def test_a_fault_is_not_taken_for_usual_by_what_nobody_watched(wall_ahead_s: float) -> None:
    world = World()
    assert broken_rail(world)[-1].fault.fault_class.is_fault
    world.real_s += 3 * DAY_S
    world.boot_ahead_s, world.wall_ahead_s = -world.real_s, wall_ahead_s
    world.restart("boot-b")
    assert {tick.fault.fault_class.is_fault for tick in world.ticks(10)} == {True}


@pytest.mark.parametrize("away_s", [8.0, HOUR_S])
def test_a_gap_whose_frame_lacks_the_evidence_ends_no_fault(away_s: float) -> None:
    world = World()
    assert broken_rail(world)[-1].fault.fault_class.is_fault
    world.real_s += away_s
    assert [tick.fault_changed for tick in world.ticks(4)] == [False] * 4


@pytest.mark.parametrize("away_s", [2.0, 30.0])
def test_a_restart_whose_first_frame_lacks_the_evidence_ends_no_fault(away_s: float) -> None:
    world = World()
    assert broken_rail(world)[-1].fault.fault_class.is_fault
    world.real_s += away_s
    world.restart("boot-a")
    assert [tick.fault_changed for tick in world.ticks(4)] == [False] * 4


# Rewards


def reward_ids(world: World) -> list[str]:
    world.brain.take(WorkAccepted())
    world.brain.take(WorkAccepted())
    events: tuple[RewardEvent, ...] = world.tick().events
    return [str(event.id) for event in events]


def test_the_ids_of_rewards_are_of_the_time_that_the_wall_clock_shows(world: World) -> None:
    for step_s in (0.0, YEAR_S, -2 * YEAR_S):
        world.wall_ahead_s += step_s
        shown = NOON + timedelta(seconds=world.real_s + 1.0 + world.wall_ahead_s)
        for identity in reward_ids(world):
            milliseconds = uuid.UUID(identity).int >> 80
            assert milliseconds == round(shown.timestamp() * 1000.0)


def test_where_a_step_back_repeats_a_second_the_ids_of_rewards_are_unique(world: World) -> None:
    found: list[str] = []
    for _ in range(20):
        found += reward_ids(world)
        # The same instant again, to the microsecond.
        world.wall_ahead_s -= 1.0
    assert len(set(found)) == len(found) == 40


@breaks
def test_no_work_is_accepted_for_what_nobody_watched(happen: Callable[[World], None]) -> None:
    world = World()
    world.brain = Brain(BrainParameters(rewards=RewardParameters(work_units=2.0)))
    world.work = WorkSample(rate=0.5, source="miner")
    world.ticks(2)
    happen(world)
    units = [
        event.units for tick in world.ticks(8) for event in tick.events if isinstance(event, WorkAccepted)
    ]
    # Half a unit before the break, and seven of half a unit after it.
    assert units == [2.0, 2.0]


# What waits or ages by the clock of the frames


def restored() -> Announcement:
    """What an earlier run told Home Assistant of a package's power, which nobody has seen again."""

    def made() -> Announcement:
        return Announcement(node="lab", base="neuromodd/lab", discovery_prefix="homeassistant", version="1")

    first = made()
    first.observe(TelemetryFrame(power=PowerSample(package_watts=30.0)), 0.0)
    second = made()
    second.restore(json.loads(json.dumps(first.state())))
    return second


@pytest.mark.parametrize("away_s", [SETTLE_S, 10 * HOUR_S])
def test_asleep_nothing_is_taken_from_home_assistant(away_s: float) -> None:
    home = restored()
    home.observe(TelemetryFrame(), 100.0)
    assert not home.observe(TelemetryFrame(gap=True), 100.0 + away_s)


def test_after_a_clock_went_back_what_is_unseen_is_taken_from_home_assistant_in_its_time() -> None:
    home = restored()
    home.observe(TelemetryFrame(), 50_000.0)
    home.observe(TelemetryFrame(gap=True), 100.0)
    assert not home.observe(TelemetryFrame(), 100.0 + SETTLE_S - 1.0)
    assert home.observe(TelemetryFrame(), 100.0 + SETTLE_S)


def test_after_a_leap_a_topic_that_waits_for_a_change_is_refreshed_once() -> None:
    gate = Gate(Cadence.parse("change"), refresh_s=60.0)
    due = [gate.due({"a": 1}, at_s) for at_s in (0.0, 1.0, 36_000.0, 36_001.0, 36_002.0)]
    assert due == [True, False, True, False, False]
