"""What stays of a recording that went by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import START, frame, frames, record
from web_moments import anomaly, episode, felt, moment

from neuromodd.core.brain import Brain, BrainParameters, Tick
from neuromodd.core.diagnostics import FaultClass
from neuromodd.core.encoding import CHANNELS
from neuromodd.core.frame import CpuSample, GpuSample, TelemetryFrame
from neuromodd.core.inputs import OutsideInput, ResetInput, RewardInput
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.rewards import BreakthroughFound, SourceSwitch, WorkAccepted
from neuromodd.dashboard.anomalies import KEPT, Anomalies
from neuromodd.dashboard.digest import (
    BANK_FROM,
    ERROR_FROM,
    LEVELS_FROM,
    READING_AT,
    REWARDS_FROM,
    SOURCES_KEPT,
    STEPS_AT,
    SURPRISE_AT,
    WATCHED_FROM,
    WEIGHTS_FROM,
    Digest,
    reward_at,
)
from neuromodd.replay import Replay

Taken = Sequence[TelemetryFrame | OutsideInput]


@pytest.fixture
def digested(tmp_path: Path) -> Callable[..., Digest]:
    """Replays what was taken in, and returns the digest of it."""

    def digest(taken: Taken, *, parameters: BrainParameters | None = None, **options: Any) -> Digest:
        path = record(tmp_path / "r.jsonl", taken, parameters=parameters)
        found = Digest(**options)
        Replay([path], watch=found.take).run()
        return found

    return digest


def ticks(taken: Taken) -> tuple[list[Tick], Brain]:
    brain, found = Brain(None, 7, compiled=False), []
    for of in taken:
        if isinstance(of, TelemetryFrame):
            found.append(brain.step(of))
        else:
            brain.apply(of)
    return found, brain


# The time axis


def test_a_column_has_the_peaks_and_the_mean_of_what_was_felt(digested: Callable[..., Digest]) -> None:
    taken = frames(40)
    lived, _ = ticks(taken)
    columns = digested(taken, columns_max=1).columns()
    dopamine = [tick.modulators.dopamine or 0.0 for tick in lived]
    assert columns.low[0, LEVELS_FROM] == min(dopamine)
    assert columns.high[0, LEVELS_FROM] == max(dopamine)
    assert columns.mean[0, LEVELS_FROM] == pytest.approx(sum(dopamine) / len(dopamine))
    errors = [tick.result.prediction_error[0] or 0.0 for tick in lived]
    assert columns.high[0, ERROR_FROM] == max(errors)


def test_spikes_are_summed_neuron_by_neuron(digested: Callable[..., Digest]) -> None:
    taken = frames(60)
    lived, _ = ticks(taken)
    sums = digested(taken, columns_max=4).columns().sums.sum(axis=0)
    assert sums[:8].tolist() == [sum(tick.result.lif_spikes[of] for tick in lived) for of in range(8)]
    bank = [sum(tick.result.izhikevich_spikes[of] for tick in lived) for of in range(5)]
    assert sums[BANK_FROM : BANK_FROM + 5].tolist() == bank
    assert sums[STEPS_AT] == 60 * 20
    assert sums[:8].sum() > 0


def test_what_was_not_measured_is_no_zero(digested: Callable[..., Digest]) -> None:
    columns = digested(frames(10)).columns()
    assert np.isnan(columns.mean[:, READING_AT["gpus.power_watts"]]).all()
    assert np.isnan(columns.mean[:, ERROR_FROM + CHANNELS.index("gpu")]).all()


def test_the_primary_weights_are_those_of_the_network(digested: Callable[..., Digest]) -> None:
    taken = frames(30)
    _, brain = ticks(taken)
    digest = digested(taken)
    last = digest.columns().mean[-1, WEIGHTS_FROM : WEIGHTS_FROM + 8]
    assert last.tolist() == [brain.engine.weights[of][of] for of in range(8)]
    assert digest.end is not None
    assert digest.end.weights == brain.engine.weights
    assert digest.end.predictions == brain.engine.predictions


def test_of_a_large_network_the_neurons_of_a_channel_count_as_one(digested: Callable[..., Digest]) -> None:
    parameters = BrainParameters(engine=EngineConfig(lif_neurons=24, izhikevich_neurons=2))
    digest = digested(frames(10), parameters=parameters)
    assert digest.end is not None
    assert (len(digest.end.weights), len(digest.end.thresholds)) == (8, 8)
    assert [sum(row) for row in digest.end.weights] == [pytest.approx(2.0, abs=0.9)] * 8


def test_a_small_network_has_fewer_rows(digested: Callable[..., Digest]) -> None:
    parameters = BrainParameters(engine=EngineConfig(lif_neurons=3, izhikevich_neurons=0))
    digest = digested(frames(10), parameters=parameters)
    assert digest.end is not None
    assert len(digest.end.weights) == 3


def test_frames_before_the_time_that_is_asked_for_are_lived_and_not_told(
    digested: Callable[..., Digest],
) -> None:
    taken = frames(40)
    _, brain = ticks(taken)
    digest = digested(taken, from_utc=START + timedelta(seconds=30))
    assert digest.frames == 10
    assert digest.end is not None
    assert digest.end.step == brain.engine.step_count == 800


# Gaps


def gap(digest: Digest) -> tuple[int, str, float]:
    (found,) = digest.gaps.longest_first
    return digest.gaps.count, found.kind, found.seconds


def test_frames_without_a_break_have_no_gap(digested: Callable[..., Digest]) -> None:
    digest = digested(frames(20))
    assert (digest.gaps.count, digest.watched_s) == (0, 19.0)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"gap": True, "interval_s": None}, "suspend or stall"),
        ({"interval_s": None}, "restart"),
        ({"interval_s": None, "boot_id": "boot-b"}, "reboot"),
        ({"sequence": 50}, "frames missing"),
    ],
)
def test_a_gap_has_its_length_and_its_kind(
    digested: Callable[..., Digest], values: dict[str, Any], kind: str
) -> None:
    taken = [*frames(10), frame(69.0, **{"sequence": 10, **values})]
    digest = digested(taken)
    assert gap(digest) == (1, kind, 60.0)
    assert digest.watched_s == 9.0


def test_a_clock_that_is_set_back_is_no_gap_and_is_counted(digested: Callable[..., Digest]) -> None:
    taken = [*frames(10), frame(10.0, time_utc=START - timedelta(hours=1))]
    digest = digested(taken)
    assert (digest.gaps.count, digest.went_back, digest.watched_s) == (0, 1, 10.0)


# Events


def test_rewards_are_counted_by_kind_origin_and_source(digested: Callable[..., Digest]) -> None:
    events = [WorkAccepted(source="render"), WorkAccepted(source="render"), SourceSwitch()]
    taken = [*frames(5), *(RewardInput(event=event) for event in events), *frames(1, 5)]
    digest = digested(taken)
    assert digest.rewards.counts == {
        ("WorkAccepted", "external", "render"): 2,
        ("SourceSwitch", "external", ""): 1,
    }
    sums = digest.columns().sums.sum(axis=0)
    assert sums[REWARDS_FROM + reward_at("WorkAccepted", "external")] == 2
    assert sums[REWARDS_FROM + reward_at("WorkAccepted", "detected")] == 0


def test_an_event_is_where_its_frame_is_whatever_time_it_claims(digested: Callable[..., Digest]) -> None:
    event = WorkAccepted(source="a", time_utc=START - timedelta(days=9000))
    digest = digested([*frames(5), RewardInput(event=event), *frames(1, 5)])
    ((time_utc, _),) = digest.rewards.kept["WorkAccepted"]
    assert time_utc == START + timedelta(seconds=5)


def test_sources_without_number_do_not_fill_the_memory(digested: Callable[..., Digest]) -> None:
    events = [RewardInput(event=WorkAccepted(source=f"s{of}")) for of in range(4 * SOURCES_KEPT)]
    counts = digested([*frames(2), *events, *frames(1, 2)]).rewards.counts
    assert len(counts) == SOURCES_KEPT + 1
    assert sum(counts.values()) == 4 * SOURCES_KEPT


def test_the_best_breakthrough_is_the_largest_step(digested: Callable[..., Digest]) -> None:
    steps = [(1.0, 1.1), (0.5, 0.1), (2.0, 2.5)]
    events = [
        RewardInput(event=BreakthroughFound(metric="loss", value=value, previous_best=before))
        for before, value in steps
    ]
    best = digested([*frames(2), *events, *frames(1, 2)]).rewards.best
    assert best is not None
    assert best.value == 0.1


def test_a_fault_has_a_beginning_and_an_end(digested: Callable[..., Digest]) -> None:
    def with_gpu(count: int, first: int, **values: Any) -> list[TelemetryFrame]:
        return frames(count, first, gpus=(GpuSample(index=0, uuid="g", vendor="nvidia", **values),))

    taken = [
        *with_gpu(10, 0, utilization_ratio=0.1),
        *with_gpu(20, 10, lost=True, fault="GpuIsLost"),
        *with_gpu(200, 30, utilization_ratio=0.1),
    ]
    digest = digested(taken)
    (episode,) = (of for of in digest.episodes if of.fault.fault_class is FaultClass.GpuDieDead)
    assert episode.since_utc == START + timedelta(seconds=10)
    assert episode.until_utc is not None
    assert episode.until_utc > START + timedelta(seconds=30)


# Surprise and anomalies


def lived(count: int) -> tuple[list[Tick], Brain]:
    return ticks(frames(count))


def watched(taken: Sequence[Tick], brain: Brain, **options: Any) -> Digest:
    digest = Digest(**options)
    for tick in taken:
        digest.take(tick, brain)
    return digest


def test_a_column_has_the_highest_surprise_of_all_and_of_each_channel() -> None:
    found, brain = lived(40)
    columns = watched(episode(found, 10, 20), brain, columns_max=1).columns()
    assert columns.high[0, SURPRISE_AT] == 0.64
    names = [of.name for of in moment().channels]
    assert columns.high[0, WATCHED_FROM + names.index("network")] == 0.41
    assert np.isnan(columns.high[0, WATCHED_FROM + names.index("gpu")])


def test_channels_that_are_watched_later_are_told_from_then_on() -> None:
    found, brain = lived(30)
    first = [felt(tick, None) for tick in found[:10]]
    few = [felt(tick, moment(0.1, names=("cpu", "io"))) for tick in found[10:20]]
    more = [felt(tick, moment(0.2, names=("disk.busy_ratio", "cpu"))) for tick in found[20:]]
    digest = watched([*first, *few, *more], brain)
    assert digest.watched == {"cpu": 0, "io": 1, "disk.busy_ratio": 2}
    known = digest.columns().known.sum(axis=0)[SURPRISE_AT:]
    assert known.tolist() == [20, 20, 10, 10]


def test_an_anomaly_has_a_beginning_and_an_end() -> None:
    found, brain = lived(60)
    digest = watched(episode(found, 20, 45), brain)
    (held,) = digest.anomalies.episodes
    assert (held.since_utc, held.until_utc) == (START + timedelta(seconds=20), START + timedelta(seconds=45))
    assert (digest.anomalies.count, digest.anomalies.seconds_in_all) == (1, 25.0)
    assert held.anomaly.phase == "end"


def test_an_anomaly_that_began_before_or_goes_on_is_told_as_far_as_it_is_known() -> None:
    found, brain = lived(60)
    within = watched(episode(found, 20, None), brain, from_utc=START + timedelta(seconds=30))
    (held,) = within.anomalies.episodes
    assert (held.since_utc, held.until_utc) == (START + timedelta(seconds=20), None)
    assert held.seconds == 39.0


def test_an_anomaly_that_was_forgotten_is_over() -> None:
    found, brain = lived(60)
    taken = [*episode(found[:40], 20, None), *(felt(tick, moment()) for tick in found[40:])]
    (held,) = watched(taken, brain).anomalies.episodes
    assert held.until_utc == START + timedelta(seconds=40)


def test_of_countless_anomalies_the_strangest_are_kept_and_all_are_counted() -> None:
    kept = Anomalies()
    for at in range(3 * KEPT):
        begun = anomaly(since_s=10.0 * at, surprise=0.5 + 0.4 * (at % 7) / 7)
        kept.take(moment(0.6, change=begun, episode=begun), START + timedelta(seconds=10 * at))
        over = begun.model_copy(update={"phase": "end"})
        kept.take(moment(change=over), START + timedelta(seconds=10 * at + 4))
    assert (kept.count, kept.seconds_in_all, len(kept.episodes)) == (3 * KEPT, 12.0 * KEPT, KEPT)
    assert min(of.anomaly.surprise for of in kept.episodes) > 0.7


# Prediction errors


def steady(level: float, count: int, first: int) -> list[TelemetryFrame]:
    return [frame(at, cpu=CpuSample(utilization_ratio=level)) for at in range(first, first + count)]


@pytest.mark.parametrize(("before", "after"), [(0.2, 0.9), (0.9, 0.2)])
def test_a_prediction_error_tells_what_was_expected_and_what_came(
    digested: Callable[..., Digest], before: float, after: float
) -> None:
    taken = [*steady(before, 200, 0), *steady(after, 100, 200)]
    # Without the first minutes, in which all is new.
    digest = digested(taken, from_utc=START + timedelta(seconds=150))
    largest = digest.misses[0]
    assert largest.time_utc == START + timedelta(seconds=200)
    assert (largest.channel, largest.came) == ("cpu", after)
    assert largest.expected == pytest.approx(before, abs=1e-6)
    assert not largest.young


def test_of_prediction_errors_close_together_one_is_told(digested: Callable[..., Digest]) -> None:
    taken = [*steady(0.1, 300, 0), *steady(0.8, 5, 300), *steady(0.1, 300, 305), *steady(0.5, 90, 605)]
    digest = digested(taken, from_utc=START + timedelta(seconds=250))
    times = [(of.time_utc - START).total_seconds() for of in digest.misses]
    assert times[:2] == [300.0, 605.0]
    assert all(abs(one - other) >= 60.0 for one in times for other in times if one != other)


def test_what_a_fresh_network_is_wrong_about_is_told_as_such(digested: Callable[..., Digest]) -> None:
    assert digested(steady(0.9, 100, 0)).misses[0].young


def test_a_network_that_forgets_is_fresh_again(digested: Callable[..., Digest]) -> None:
    taken = [*steady(0.5, 300, 0), ResetInput(), *steady(0.5, 10, 300)]
    digest = digested(taken, from_utc=START + timedelta(seconds=250))
    assert digest.misses[0].young
