"""The page: its numbers, its words, and that it fits a page."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from recorded import frame, frames, record, warm
from web_moments import SENTENCE, anomaly, episode, felt, moment

from neuromodd.core.brain import Brain, Tick
from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.core.inputs import OutsideInput, RewardInput
from neuromodd.core.rewards import BreakthroughFound, SourceSwitch, WorkAccepted
from neuromodd.dashboard.digest import Digest
from neuromodd.dashboard.facts import facts
from neuromodd.dashboard.report import as_json, duration, plain, text
from neuromodd.errors import InvalidValueError
from neuromodd.replay import Replay

Told = dict[str, Any]


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., Told]:
    """Replays what was taken in, and returns the facts of it."""

    def tell(taken: Sequence[TelemetryFrame | OutsideInput], **options: Any) -> Told:
        path = record(tmp_path / "r.jsonl", taken)
        digest = Digest(**options)
        Replay([path], watch=digest.take).run()
        return facts(digest, [path])

    return tell


def test_the_facts_tell_what_was_watched(told: Callable[..., Told]) -> None:
    found = told([*frames(61), frame(120.0, sequence=61, gap=True, interval_s=None)])
    assert (found["frames"], found["step"], found["nodes"]) == (62, 1240, ["lab"])
    assert (found["watched_s"], found["gaps"]["seconds"], found["watched_ratio"]) == (60.0, 60.0, 0.5)
    assert (found["from_utc"], found["to_utc"]) == ("2024-05-01T12:00:00.000Z", "2024-05-01T12:02:00.000Z")
    assert found["interval_s"] == 1.0


def test_a_single_frame_is_told_without_a_share(told: Callable[..., Told]) -> None:
    found = told(frames(1))
    assert (found["watched_ratio"], found["interval_s"], found["flags"]["stress"]) == (None, None, None)
    assert "1, one in -" in text(found)


def test_no_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="expected a recording with frames"):
        facts(Digest(), [tmp_path / "r.jsonl"])


def test_hours_are_ranked_by_temperature_where_there_is_one(told: Callable[..., Told]) -> None:
    taken = [
        frame(at, **warm(50.0 + 10.0 * ((at // 3600) % 2)), interval_s=60.0, sequence=at // 60)
        for at in range(0, 4 * 3600, 60)
    ]
    hours = told(taken)["hours"]
    assert hours["ranked_by"] == "temperature_celsius"
    assert [of["begins_utc"][11:16] for of in hours["hottest"]] == ["13:00", "15:00", "12:00"]
    assert hours["hottest"][0]["temperature_celsius_peak"] == 60.0


def test_without_temperatures_hours_are_ranked_by_the_processor_and_that_is_said(
    told: Callable[..., Told],
) -> None:
    found = told(frames(30))
    assert found["hours"]["ranked_by"] == "cpu_utilization_ratio"
    assert "no temperature was measured, so by CPU utilisation" in text(found)


def test_without_both_hours_are_ranked_by_cortisol_and_that_is_said(told: Callable[..., Told]) -> None:
    found = told([frame(at) for at in range(30)])
    assert found["hours"]["ranked_by"] == "cortisol"
    assert "no temperature and no CPU was measured, so by cortisol" in text(found)


def test_what_was_never_measured_is_named_and_not_expected(told: Callable[..., Told]) -> None:
    found = told(frames(30))
    assert found["not_measured"] == [
        "cpu.temperature_celsius",
        "gpus",
        "thermal",
        "power",
        "pressure",
        "disk",
    ]
    expects = {of["channel"]: of["expected"] for of in found["expects"]}
    assert [channel for channel, expected in expects.items() if expected is None] == [
        "gpu",
        "gpu_memory",
        "power",
        "thermal",
        "io",
    ]


def test_what_is_expected_is_told_in_the_units_of_the_channel(told: Callable[..., Told]) -> None:
    found = told([frame(at, **warm(65.0)) for at in range(200)])
    words = {of["channel"]: of["in_units"] for of in found["expects"]}
    # The GPU, at 60, is nearer to its limit of 83 than the board, at 65, to its 100.
    assert (words["thermal"], words["gpu"], words["power"]) == ("60 °C", "50 % busy", "16 % of limit")


def test_the_strongest_other_input_is_one_that_was_there(told: Callable[..., Told]) -> None:
    others = {of["neuron"]["strongest_other"] for of in told(frames(300))["expects"]}
    assert others <= {"cpu", "memory", "work"}


def test_rewards_are_told_by_kind_and_source(told: Callable[..., Told]) -> None:
    events = [
        WorkAccepted(source="render"),
        BreakthroughFound(metric="loss", value=0.1, previous_best=0.2),
        SourceSwitch(previous="a", current="b"),
    ]
    taken = [*frames(2), *(RewardInput(event=event) for event in events), *frames(1, 2)]
    rewards = told(taken)["rewards"]
    assert {(of["kind"], of["origin"], of["source"]) for of in rewards["counts"]} == {
        ("WorkAccepted", "external", "render"),
        ("BreakthroughFound", "external", None),
        ("SourceSwitch", "external", None),
    }
    assert rewards["best_breakthrough"]["step_ratio"] == 0.5


def test_a_fault_that_holds_is_told_as_such(told: Callable[..., Told]) -> None:
    gpu = GpuSample(index=0, uuid="g", vendor="nvidia", lost=True, fault="GpuIsLost")
    found = told([frame(at, gpus=(gpu,)) for at in range(100)])
    (episode,) = found["faults"]["episodes"]
    assert (episode["code"], episode["until_utc"], episode["seconds"]) == ("ERR_SILICON_DEAD", None, 99.0)
    assert "1 min 39 s, still" in text(found)


@pytest.fixture
def strange() -> Callable[..., Told]:
    """The facts of a minute with made-up surprise."""

    def tell(surprise: Callable[[list[Tick]], Sequence[Tick]]) -> Told:
        brain, digest = Brain(None, 7, compiled=False), Digest()
        for tick in surprise([brain.step(of) for of in frames(60)]):
            digest.take(tick, brain)
        return facts(digest, [Path("r.jsonl")])

    return tell


def test_an_anomaly_is_told_with_its_time_its_channels_and_its_sentence(strange: Callable[..., Told]) -> None:
    found = strange(lambda ticks: episode(ticks, 20, 45))
    page = text(found)
    assert "Anomalies: 1, 25 s in all\n" in page
    row = "2024-05-01 12:00:20  25 s  0.64, 1 in 2.5 million  cpu, network\n"
    assert f"{row}    {SENTENCE[:70]}" in page
    (held,) = found["anomalies"]["episodes"]
    assert (held["since_utc"], held["until_utc"]) == ("2024-05-01T12:00:20.000Z", "2024-05-01T12:00:45.000Z")
    assert [channel["name"] for channel in held["channels"]] == ["cpu", "network"]
    assert held["probability"] == pytest.approx(10**-6.4)


def test_an_anomaly_that_goes_on_is_told_as_such(strange: Callable[..., Told]) -> None:
    assert "39 s, still" in text(strange(lambda ticks: episode(ticks, 20, None)))


def test_of_many_anomalies_the_strangest_are_told_and_all_counted(strange: Callable[..., Told]) -> None:
    def many(ticks: list[Tick]) -> list[Tick]:
        begun = [anomaly(since_s=float(at), surprise=0.5 + at / 1000) for at in range(0, 60, 6)]
        return [
            felt(tick, moment(change=begun[at // 6], episode=begun[at // 6]) if at % 6 == 0 else moment())
            for at, tick in enumerate(ticks)
        ]

    page = text(strange(many))
    assert "Anomalies: 10," in page
    assert "7 more, less strange" in page
    assert [second for second in range(60) if f"12:00:{second:02}  1 s " in page] == [42, 48, 54]


def test_without_an_anomaly_it_is_said_what_is_normal_and_what_is_still_learned(
    strange: Callable[..., Told],
) -> None:
    calm = moment(learning=("io", "power"))
    found = strange(lambda ticks: [felt(tick, calm) for tick in ticks])
    page = text(found)
    assert "Anomalies\n  none\n  still being learned: power, io\n" in page
    assert re.search(r"  cpu +5.0 % to 20 % +10 % +0.03\n", page)
    assert re.search(r"  io +still being learned +10 % +-\n", page)
    states = {of["name"]: of["state"] for of in found["surprise"]["channels"]}
    assert (states["cpu"], states["io"], states["gpu"]) == ("learned", "learning", "never measured")


def test_where_surprise_was_disabled_it_is_said(strange: Callable[..., Told]) -> None:
    found = strange(lambda ticks: [felt(tick, None) for tick in ticks])
    assert found["surprise"] is None
    assert "Anomalies\n  not looked for: surprise was disabled\n" in text(found)
    assert "What is normal here" not in text(found)


def test_the_sentence_of_an_anomaly_is_as_harmless_as_all_else(strange: Callable[..., Told]) -> None:
    hostile = anomaly(sentence="\x1b]0;owned\x07\u202eevil " * 40)
    told_of = moment(0.7, change=hostile, episode=hostile)
    page = text(strange(lambda ticks: [felt(ticks[0], told_of), *(felt(of, moment()) for of in ticks[1:])]))
    assert [letter for letter in page if not letter.isprintable() and letter != "\n"] == []
    assert max(map(len, page.splitlines())) <= 80


def test_the_worst_of_hosts_fits_a_page(told: Callable[..., Told]) -> None:
    rng = random.Random(1)  # noqa: S311 - test data
    taken: list[TelemetryFrame | OutsideInput] = []
    for at in range(0, 6 * 3600, 20):
        broken = bool(at // 1800 % 2)
        gpu = GpuSample(
            index=0, uuid="g", vendor="nvidia", lost=broken, fault="GpuIsLost" if broken else None
        )
        gap = rng.random() < 0.1
        values = {**warm(40.0 + 50.0 * rng.random()), "gpus": (gpu,), "gap": gap}
        taken.append(frame(at, **values, sequence=at // 20, interval_s=None if gap else 20.0))
        if rng.random() < 0.1:
            taken.append(RewardInput(event=WorkAccepted(source="x" * 60 + str(rng.randrange(30)))))
    event = BreakthroughFound(metric="loss" * 30, value=1e300, previous_best=1e-300)
    taken += [RewardInput(event=event), frame(6 * 3600)]
    lines = text(told(taken)).splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 80


def test_strings_from_outside_do_not_reach_the_terminal_as_they_are(told: Callable[..., Told]) -> None:
    event = WorkAccepted(source="\x1b]0;owned\x07\u202eevil\n")
    page = text(told([*frames(2), RewardInput(event=event), *frames(1, 2)]))
    assert [letter for letter in page if not letter.isprintable() and letter != "\n"] == []
    assert "?]0;owned" in page


def test_the_json_is_plain_json(told: Callable[..., Told]) -> None:
    found = told([frame(at) for at in range(3)])
    assert json.loads(as_json(found)) == found


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.25, "0.25 s"),
        (59.94, "59.9 s"),
        (59.99, "1 min"),
        (61.0, "1 min 1 s"),
        (3600.0, "1 h"),
        (3605.0, "1 h"),
        (90061.0, "1 d 1 h"),
    ],
)
def test_a_time_span_in_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_long_strings_are_cut() -> None:
    assert (len(plain("x" * 500)), plain(None)) == (40, "")
