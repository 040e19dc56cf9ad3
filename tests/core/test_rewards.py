"""Events: their ids, and how they are found in frames."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from neuromodd.core.frame import GpuSample, PowerSample, TelemetryFrame, WorkSample
from neuromodd.core.rewards import (
    BreakthroughFound,
    RewardDetector,
    RewardEvent,
    RewardParameters,
    SourceSwitch,
    WorkAccepted,
    event_id,
    stamped,
)
from neuromodd.errors import InvalidRecordError, InvalidValueError

MakeFrame = Callable[..., TelemetryFrame]

NOON = datetime(2024, 5, 1, 12, 0, 0, 123_456, tzinfo=UTC)


def watch(
    detector: RewardDetector, frames: Iterable[TelemetryFrame], elapsed_s: float = 1.0
) -> list[RewardEvent]:
    return [event for frame in frames for event in detector.update(frame, elapsed_s)]


def identity(*, time_utc: datetime = NOON, kind: str = "WorkAccepted", ordinal: int = 0) -> uuid.UUID:
    return uuid.UUID(
        event_id(time_utc=time_utc, node="host", boot_id="a", sequence=7, kind=kind, ordinal=ordinal)
    )


# Ids


def test_an_id_is_a_uuid7_of_its_time() -> None:
    found = identity()
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == 1_714_564_800_123


def test_the_milliseconds_of_an_id_are_exact() -> None:
    for milliseconds in range(1000):
        time_utc = datetime(2024, 5, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
        assert identity(time_utc=time_utc).int >> 80 == 1_714_521_600_000 + milliseconds


def test_an_id_does_not_depend_on_the_time_zone() -> None:
    assert identity(time_utc=NOON.astimezone(timezone(timedelta(hours=2)))) == identity()


def test_ids_are_told_apart_by_kind_and_ordinal() -> None:
    ids = {identity(kind=kind, ordinal=ordinal) for kind in ("WorkAccepted", "x") for ordinal in range(50)}
    assert len(ids) == 100


def test_detected_events_are_stamped_with_their_frame(frame: MakeFrame) -> None:
    busy = [frame(float(i), cpu=0.9 if i < 3 else 0.1) for i in range(6)]
    (event,) = watch(RewardDetector(), busy)
    assert (event.origin, event.node, event.time_utc) == ("detected", "host", busy[-1].time_utc)
    assert event.id is not None


def test_a_stamp_leaves_what_an_event_has(frame: MakeFrame) -> None:
    event = WorkAccepted(id="mine", time_utc=NOON, node="there")
    assert stamped(event, frame(), 0) == event


def test_an_event_without_time_can_not_be_stamped(frame: MakeFrame) -> None:
    with pytest.raises(InvalidValueError, match="time_utc"):
        stamped(WorkAccepted(), frame(time_utc=None), 0)


# From outside


@pytest.mark.parametrize("kind", ["null", "[]", "{}", "1", '"workaccepted"', '"RewardEvent"'])
def test_an_unknown_kind_is_refused_by_name(kind: str) -> None:
    with pytest.raises(
        InvalidRecordError, match="expected one of WorkAccepted, BreakthroughFound, SourceSwitch"
    ):
        RewardEvent.from_json(f'{{"kind": {kind}}}')


def test_an_event_needs_no_field_but_its_kind() -> None:
    assert RewardEvent.from_json('{"kind": "WorkAccepted", "extra": 1}') == WorkAccepted()


@pytest.mark.parametrize(
    "text", ['{"kind": "WorkAccepted", "latency_ms": -1}', '{"kind": "SourceSwitch", "current": 3}']
)
def test_an_event_with_a_wrong_field_is_refused(text: str) -> None:
    with pytest.raises(InvalidRecordError):
        RewardEvent.from_json(text)


# Busy episodes


def test_a_busy_episode_ends_in_exactly_one_piece_of_work(frame: MakeFrame) -> None:
    loads = [0.1] * 5 + [0.9] * 10 + [0.1] * 20
    (event,) = watch(RewardDetector(), (frame(float(i), cpu=load) for i, load in enumerate(loads)))
    assert isinstance(event, WorkAccepted)
    assert event.source == "cpu"
    assert event.latency_ms is None


@pytest.mark.parametrize(
    "loads",
    [
        [0.9, 0.9, 0.1, 0.1, 0.1],
        [0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1],
        [0.49] * 10 + [0.1] * 5,
        [0.9] * 5 + [0.31] * 10,
        [0.9] * 5 + [0.1, 0.1, 0.4, 0.1, 0.1],
        [0.9] * 5 + [None] * 10,
        [],
    ],
)
def test_short_bursts_and_unfinished_episodes_are_no_work(
    frame: MakeFrame, loads: list[float | None]
) -> None:
    frames = [frame(float(i), cpu=load) for i, load in enumerate(loads)]
    assert watch(RewardDetector(), frames) == []


def test_frames_without_readings_do_not_interrupt_an_episode(frame: MakeFrame) -> None:
    loads = [0.9, 0.9, None, 0.9, 0.1, None, 0.1, 0.1]
    assert len(watch(RewardDetector(), (frame(float(i), cpu=load) for i, load in enumerate(loads)))) == 1


def test_the_busiest_device_begins_the_episode(frame: MakeFrame) -> None:
    loads = [0.9] * 3 + [0.1] * 3
    frames = [
        frame(float(i), cpu=0.2, gpus=(GpuSample(index=1, utilization_ratio=load),))
        for i, load in enumerate(loads)
    ]
    (event,) = watch(RewardDetector(), frames)
    assert isinstance(event, WorkAccepted)
    assert event.source == "gpus.1"


def test_the_units_of_an_episode_are_its_work_rate_summed_over_its_seconds(frame: MakeFrame) -> None:
    loads = [0.8] * 10 + [0.0] * 3
    frames = [
        frame(float(i), cpu=load, work=WorkSample(rate=load, source="utilization"))
        for i, load in enumerate(loads)
    ]
    (event,) = watch(RewardDetector(), frames, elapsed_s=2.0)
    assert isinstance(event, WorkAccepted)
    assert event.units == pytest.approx(0.8 * 10 * 2.0)


def test_a_gap_counts_no_units(frame: MakeFrame) -> None:
    detector = RewardDetector(RewardParameters(work_units=10.0))
    asleep = frame(3600.0, work=WorkSample(rate=1.0), gap=True)
    assert detector.update(asleep, 3600.0) == []


def test_a_long_restart_counts_no_units_and_a_short_one_does(frame: MakeFrame) -> None:
    parameters = RewardParameters(work_units=10.0)
    for away_s, count in ((3600.0, 0), (30.0, 1)):
        detector = RewardDetector(parameters)
        detector.restore(RewardDetector(parameters).state())
        first = frame(away_s, interval_s=None, work=WorkSample(rate=1.0))
        assert len(detector.update(first, away_s)) == count


def test_a_frame_without_interval_counts_units_where_nothing_was_restarted(frame: MakeFrame) -> None:
    detector = RewardDetector(RewardParameters(work_units=10.0))
    (event,) = detector.update(frame(interval_s=None, work=WorkSample(rate=1.0)), 600.0)
    assert isinstance(event, WorkAccepted)


def test_work_is_accepted_every_so_many_units(frame: MakeFrame) -> None:
    detector = RewardDetector(RewardParameters(work_units=10.0))
    frames = [frame(float(i), work=WorkSample(rate=4.0, source="jobs")) for i in range(10)]
    events = watch(detector, frames)
    assert [(type(event), getattr(event, "units", None)) for event in events] == [(WorkAccepted, 10.0)] * 4


def test_units_that_come_at_once_are_one_event(frame: MakeFrame) -> None:
    detector = RewardDetector(RewardParameters(work_units=10.0))
    (event,) = detector.update(frame(work=WorkSample(rate=35.0)), 1.0)
    assert isinstance(event, WorkAccepted)
    assert event.units == 30.0


def test_a_rate_as_large_as_a_double_is_lived_through(frame: MakeFrame) -> None:
    largest = sys.float_info.max
    detector = RewardDetector(RewardParameters(work_units=1.0))
    for i in range(10):
        events = detector.update(
            frame(float(i), cpu=0.9 if i < 5 else 0.0, work=WorkSample(rate=largest)), 10.0
        )
        assert all(isinstance(event, WorkAccepted) and event.units == largest for event in events)


# Breakthroughs


def breakthroughs(
    rates: Iterable[float], frame: MakeFrame, step_s: float = 60.0
) -> list[tuple[int, RewardEvent]]:
    detector = RewardDetector()
    return [
        (i, event)
        for i, rate in enumerate(rates)
        for event in detector.update(frame(i * step_s, work=WorkSample(rate=rate, source="jobs")), step_s)
    ]


def test_a_tenth_more_than_the_best_of_an_hour_is_a_breakthrough(frame: MakeFrame) -> None:
    ((at, event),) = breakthroughs([1.0] * 61 + [1.1], frame)
    assert at == 61
    assert isinstance(event, BreakthroughFound)
    assert (event.metric, event.value, event.previous_best) == ("work.rate", 1.1, 1.0)


def test_less_than_a_tenth_more_is_no_breakthrough(frame: MakeFrame) -> None:
    assert breakthroughs([1.0] * 100 + [1.09, 1.15], frame) == []


def test_no_breakthrough_before_an_hour_was_watched(frame: MakeFrame) -> None:
    assert breakthroughs([1.0] * 59 + [2.0], frame) == []


def test_a_gap_is_no_hour_of_watching(frame: MakeFrame) -> None:
    detector = RewardDetector()
    assert not detector.update(frame(0.0, work=WorkSample(rate=1.0)), 0.0)
    assert not detector.update(frame(7200.0, work=WorkSample(rate=1.0), gap=True), 7200.0)
    assert not detector.update(frame(7201.0, work=WorkSample(rate=9.0)), 1.0)


def test_after_nothing_but_zeros_nothing_is_a_breakthrough(frame: MakeFrame) -> None:
    assert breakthroughs([0.0] * 70 + [5.0], frame) == []


def test_breakthroughs_are_a_minute_apart(frame: MakeFrame) -> None:
    rates = [1.0] * 3601 + [2.0 * 1.2**i for i in range(130)]
    at = [i for i, _ in breakthroughs(rates, frame, step_s=1.0)]
    assert at == [3601, 3661, 3721]


def test_another_source_of_work_starts_a_new_record(frame: MakeFrame) -> None:
    detector = RewardDetector()
    for i in range(70):
        assert not detector.update(frame(i * 60.0, work=WorkSample(rate=1.0, source="a")), 60.0)
    assert not detector.update(frame(70 * 60.0, work=WorkSample(rate=9.0, source="b")), 60.0)


# Work sources


def on(frame: MakeFrame, at_s: float, *, mains: bool | None) -> TelemetryFrame:
    return frame(at_s, power=PowerSample(on_mains=mains))


def test_the_first_sources_are_no_switch(frame: MakeFrame) -> None:
    assert watch(RewardDetector(), (on(frame, float(i), mains=False) for i in range(10))) == []


def test_a_source_that_appears_later_is_no_switch(frame: MakeFrame) -> None:
    frames = [on(frame, float(i), mains=None if i < 5 else True) for i in range(20)]
    assert watch(RewardDetector(), frames) == []


def test_a_gpu_that_is_lost_is_a_switch_after_three_ticks(frame: MakeFrame) -> None:
    def gpus(at: int) -> TelemetryFrame:
        return frame(
            float(at), gpus=(GpuSample(index=0, uuid="A"), GpuSample(index=1, uuid="B", lost=at >= 5))
        )

    detector = RewardDetector()
    events = {at: detector.update(gpus(at), 1.0) for at in range(20)}
    assert [at for at, found in events.items() if found] == [7]
    (event,) = events[7]
    assert isinstance(event, SourceSwitch)
    assert (event.previous, event.current) == ("gpu:A,gpu:B", "gpu:A")


def test_a_gpu_that_is_found_again_is_a_switch(frame: MakeFrame) -> None:
    lost = [i < 10 for i in range(20)]
    frames = [frame(float(i), gpus=(GpuSample(index=0, lost=gone),)) for i, gone in enumerate(lost)]
    (event,) = watch(RewardDetector(), frames)
    assert isinstance(event, SourceSwitch)
    assert (event.previous, event.current) == ("", "gpu:0")


def test_the_first_compute_process_on_a_gpu_is_a_switch_and_the_second_is_none(frame: MakeFrame) -> None:
    counts = [0] * 5 + [1] * 10 + [2] * 10
    frames = [
        frame(float(i), gpus=(GpuSample(index=0, uuid="A", compute_processes=count),))
        for i, count in enumerate(counts)
    ]
    (event,) = watch(RewardDetector(), frames)
    assert isinstance(event, SourceSwitch)
    assert (event.previous, event.current) == ("gpu:A", "compute:A,gpu:A")


def test_a_gpu_that_wakes_up_for_the_first_time_is_no_switch(frame: MakeFrame) -> None:
    place = "0000:01:00.0"
    asleep = GpuSample(index=0, pci_bus_id=place, suspended=True)
    awake = GpuSample(index=0, pci_bus_id=place, uuid="A", compute_processes=0)
    frames = [frame(float(i), gpus=(asleep if i < 5 else awake,)) for i in range(20)]
    assert watch(RewardDetector(), frames) == []


def test_from_mains_to_battery_is_a_switch(frame: MakeFrame) -> None:
    (event,) = watch(RewardDetector(), (on(frame, float(i), mains=i < 5) for i in range(10)))
    assert isinstance(event, SourceSwitch)
    assert (event.previous, event.current) == ("mains", "battery")


def test_another_dominant_control_group_is_a_switch(frame: MakeFrame) -> None:
    frames = [
        frame(float(i), work=WorkSample(rate=0.9, cgroup="user.slice" if i < 5 else "system.slice"))
        for i in range(10)
    ]
    (event,) = watch(RewardDetector(), frames)
    assert isinstance(event, SourceSwitch)
    assert (event.previous, event.current) == ("cgroup:user.slice", "cgroup:system.slice")


@pytest.mark.parametrize("mains", [[True, False] * 10, [True, False, False] * 7, [True] + [None] * 10])
def test_a_source_that_flickers_or_is_unknown_is_no_switch(
    frame: MakeFrame, mains: list[bool | None]
) -> None:
    frames = [on(frame, float(i), mains=there) for i, there in enumerate(mains)]
    assert watch(RewardDetector(), frames) == []


def test_sources_that_take_turns_are_no_switch(frame: MakeFrame) -> None:
    names = ["a.slice"] * 5 + ["b.slice", "c.slice"] * 5
    frames = [frame(float(i), work=WorkSample(rate=1.0, cgroup=name)) for i, name in enumerate(names)]
    assert watch(RewardDetector(), frames) == []


# State


def test_a_state_is_a_snapshot(frame: MakeFrame) -> None:
    detector = RewardDetector()
    watch(detector, [on(frame, 0.0, mains=True)])
    state = detector.state()
    before = json.dumps(state)
    watch(detector, [frame(1.0, cpu=0.9, gpus=(GpuSample(index=0),), work=WorkSample(rate=1.0, cgroup="a"))])
    assert json.dumps(state) == before


def test_a_restored_detector_finds_what_the_first_would_have_found(frame: MakeFrame) -> None:
    frames = [
        frame(float(i), cpu=0.9 if i % 10 < 5 else 0.1, power=PowerSample(on_mains=i < 25)) for i in range(40)
    ]
    straight = watch(RewardDetector(), frames)
    detector = RewardDetector()
    found = watch(detector, frames[:23])
    again = RewardDetector()
    again.restore(json.loads(json.dumps(detector.state())))
    found += watch(again, frames[23:])
    assert found == straight
    assert {type(event) for event in straight} == {WorkAccepted, SourceSwitch}
