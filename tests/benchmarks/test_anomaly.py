"""The scoring of the benchmarks, on cases that can be counted by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import anomaly
import asd
import nab
import numpy as np
import pytest

STANDARD = nab.PROFILES["standard"]
SURE = math.tanh(2.5)
"""What the first row of a window is worth before it is made 1."""


def times(count: int) -> list[str]:
    return [f"2024-05-01 {at // 60:02}:{at % 60:02}:00" for at in range(count)]


def weighed(scores: list[float], *windows: tuple[int, int]) -> nab.Weighed:
    stamps = times(len(scores))
    return nab.weigh(stamps, scores, [(stamps[first], stamps[last]) for first, last in windows])


def flagged(count: int, *rows: int) -> list[float]:
    return [1.0 if at in rows else 0.0 for at in range(count)]


# NAB


def test_the_first_row_of_each_window_and_nothing_else_is_perfect() -> None:
    found = nab.score([weighed(flagged(100, 30, 60), (30, 39), (60, 69))], STANDARD)
    assert found == nab.Scored(score=100.0, threshold=1.0, hit=2, windows=2, false=0, raw=2.0)


def test_nothing_flagged_is_nothing() -> None:
    found = nab.score([weighed(flagged(100), (30, 39))], STANDARD, threshold=0.5)
    assert (found.score, found.hit, found.false, found.raw) == (0.0, 0, 0, -1.0)


def test_the_last_row_of_a_window_is_worth_little() -> None:
    found = nab.score([weighed(flagged(100, 39), (30, 39))], STANDARD)
    assert found.raw == pytest.approx(math.tanh(2.5 * 0.1) / SURE)


def test_of_the_rows_in_a_window_only_the_best_counts() -> None:
    one, all_of_them = flagged(100, 30), flagged(100, *range(30, 40))
    scores = [nab.score([weighed(of, (30, 39))], STANDARD).raw for of in (one, all_of_them)]
    assert scores[0] == scores[1] == 1.0


@pytest.mark.parametrize(
    ("row", "cost"), [(20, 0.11), (39, 0.0), (42, 0.11 * math.tanh(2.5 / 3)), (99, 0.11)]
)
def test_a_false_alarm_costs_the_more_the_farther_it_is_behind_a_window(row: int, cost: float) -> None:
    # The window's last row is 39; its width less one is 9.
    found = nab.score([weighed(flagged(100, 30, row), (30, 39))], STANDARD, threshold=0.5)
    assert found.raw == pytest.approx(1.0 - cost)


@pytest.mark.parametrize(("count", "first"), [(100, 15), (101, 15), (10_000, 750)])
def test_the_first_rows_do_not_count(count: int, first: int) -> None:
    of = nab.weigh([str(at) for at in range(count)], [0.0] * count, [])
    assert len(of.scores) == count - first


def test_a_window_within_the_first_rows_can_not_be_hit_but_is_part_of_perfection() -> None:
    found = nab.score([weighed(flagged(100, 5, 50), (5, 9), (50, 59))], STANDARD)
    # Nothing is -1, perfection 2, and what was reached 1.
    assert found.windows == 1
    assert found.score == pytest.approx(100.0 * 2.0 / 3.0)


def test_one_threshold_holds_for_all_files() -> None:
    loud = [0.9 if at == 30 else 0.5 for at in range(100)]
    quiet = [0.4 if at == 30 else 0.0 for at in range(100)]
    files = [weighed(loud, (30, 39)), weighed(quiet, (30, 39))]
    found = nab.score(files, STANDARD)
    assert (found.threshold, found.hit, found.false) == (0.9, 1, 0)


def test_rows_of_one_score_are_flagged_together() -> None:
    found = nab.score([weighed([0.5] * 100, (30, 39))], STANDARD, threshold=0.5)
    assert (found.hit, found.false) == (1, 75)


@pytest.mark.parametrize(
    ("name", "raw"), [("reward low FN", -2.0), ("reward low FP", -1.0), ("standard", -1.0)]
)
def test_a_missed_window_costs_what_the_profile_says(name: str, raw: float) -> None:
    assert nab.score([weighed(flagged(100), (30, 39))], nab.PROFILES[name]).raw == raw


def test_times_that_are_there_twice_are_no_stumbling_block() -> None:
    stamps = [*times(60), *times(60)[50:], "end"]
    of = nab.weigh(stamps, [0.0] * len(stamps), [(stamps[40], stamps[55])])
    assert np.flatnonzero(of.window == 0).tolist() == [at - 10 for at in range(40, 56)]


def test_both_layouts_are_read_and_files_that_are_not_there_left_out(tmp_path: Path) -> None:
    flat, whole = tmp_path / "flat", tmp_path / "whole"
    window = ["2024-05-01 00:00:00.000000", "2024-05-01 00:05:00.000000"]
    labels = json.dumps({"real/b.csv": [], "real/a.csv": [window], "real/gone.csv": []})
    for data, file in ((flat, flat), (whole / "data", whole / "labels")):
        (data / "real").mkdir(parents=True)
        file.mkdir(exist_ok=True)
        (file / "combined_windows.json").write_text(labels)
        for name in ("a.csv", "b.csv"):
            (data / "real" / name).write_text("timestamp,value\n")
    for directory in (flat, whole):
        found = nab.corpus(directory)
        assert [of.key for of in found] == ["real/a.csv", "real/b.csv"]
        assert found[0].windows == (("2024-05-01 00:00:00", "2024-05-01 00:05:00"),)


def test_a_file_is_in_the_half_that_its_name_says() -> None:
    # crc32("123456789") is 0xCBF43926.
    assert nab.Labelled(key="a/123456789", path=Path("a/123456789"), windows=()).half == 1


def test_crossed_halves_are_scored_under_the_threshold_of_the_other() -> None:
    first = nab.Labelled(key="a/123456789", path=Path("a/123456789"), windows=())
    names = (f"{at}.csv" for at in range(100))
    made = (nab.Labelled(key=f"a/{name}", path=Path("a") / name, windows=()) for name in names)
    second = next(of for of in made if of.half == 0)
    strong = [0.9 if at == 30 else 0.0 for at in range(100)]
    weak = [0.6 if at == 30 else 0.0 for at in range(100)]
    files = {first: weighed(strong, (30, 39)), second: weighed(weak, (30, 39))}
    zero, one, both = nab.crossed(files, STANDARD)
    # The weak one is missed under the threshold of the strong one, which is found under either.
    assert (zero.hit, one.hit) == (0, 1)
    assert both == pytest.approx(50.0)


# ASD


def segment(first: int, last: int, *metrics: int) -> asd.Segment:
    return asd.Segment(first, last, frozenset(metrics))


def alarms(count: int, *rows: int) -> np.ndarray:
    return np.array(flagged(count, *rows))


@pytest.mark.parametrize(
    ("rows", "found"), [((97,), 0), ((98,), 1), ((110,), 1), ((111,), 0), ((90, 111), 0), ((90, 105), 1)]
)
def test_a_segment_is_found_from_two_rows_before_it_to_its_end(rows: tuple[int, ...], found: int) -> None:
    assert asd.count([alarms(300, *rows)], [[segment(100, 110)]], 0.5).found == found


@pytest.mark.parametrize(("row", "false"), [(87, 1), (88, 0), (122, 0), (123, 1)])
def test_an_event_is_false_if_it_is_far_from_every_segment(row: int, false: int) -> None:
    assert asd.count([alarms(300, row)], [[segment(100, 110)]], 0.5).false == false


@pytest.mark.parametrize(
    ("rows", "events"), [((), []), ((5,), [(5, 5)]), ((5, 17), [(5, 17)]), ((5, 18, 20), [(5, 5), (18, 20)])]
)
def test_alarms_near_to_one_another_are_one_event(
    rows: tuple[int, ...], events: list[tuple[int, int]]
) -> None:
    assert asd.events(np.array(rows, np.int64)) == events


def test_the_curve_finds_the_most_that_the_limit_allows() -> None:
    # Ten machine-days: limits of 1, 2, 5 and 10 false events. The lowest level that finds both counts.
    score = np.zeros(2880)
    score[500:510] = np.linspace(0.01, 0.1, 10)
    score[1000], score[2000] = 0.9, 0.7
    score[[100, 200, 300]] = 0.8
    best = asd.curve([score], [[segment(1000, 1010), segment(2000, 2010)]])
    assert {limit: (of.found, of.false) for limit, of in best.items()} == {
        0.1: (1, 0),
        0.2: (1, 0),
        0.5: (2, 4),
        1.0: (2, 4),
    }
    assert best[0.1].alarmed_ratio == 1 / 2880


def test_a_segment_is_attributed_if_one_of_its_metrics_is_among_the_three_strangest() -> None:
    channels = np.zeros((50, 5))
    channels[10, [0, 1, 2]], channels[10, 3] = 0.9, 0.5
    channels[30, 4] = 1.0
    of = ([segment(5, 15, 4), segment(25, 35, 4, 5)],)
    assert asd.attributed([channels], of) == 1


# The range rule


def test_the_range_rule_flags_what_is_outside_of_the_range_by_more_than_a_twentieth() -> None:
    rule = anomaly.RangeRule(1)
    values = (0.0, 10.0, 10.5, 10.4, 11.2, -3.0, math.nan, 5.0)
    found = [float(rule.update(np.array([value]))[0]) for value in values]
    assert [value > 0.0 for value in found] == [False, True, False, False, True, True, False, False]
    assert found[4] == pytest.approx(0.7 / 10.5)


# The whole


def test_the_benchmark_runs_on_a_small_corpus(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    stamps = times(1000)
    rows = [f"{stamp},{100.0 if 800 <= at < 810 else at % 7}" for at, stamp in enumerate(stamps)]
    (tmp_path / "real" / "a.csv").write_text("\n".join(["timestamp,value", *rows]) + "\n")
    window = [f"{stamps[795]}.000000", f"{stamps[820]}.000000"]
    (tmp_path / "combined_windows.json").write_text(json.dumps({"real/a.csv": [window]}))
    rng = np.random.default_rng(0)
    test = rng.random((600, 19))
    test[400:410, 4] = 50.0
    np.savez(tmp_path / "asd-1.npz", train=rng.random((600, 19)), test=test)
    (tmp_path / "asd-1.json").write_text(json.dumps([[400, 409, [5]]]))
    told = anomaly.measure_nab(tmp_path, 1, compiled=False)
    assert (told["files"], told["rows"], told["windows"]) == (1, 1000, 1)
    assert told["range"]["standard"]["hit"] == told["best"]["standard"]["hit"] == 1
    told = anomaly.measure_asd(tmp_path, 1, compiled=False)
    assert (told["segments"], told["range"]["attributed"], told["surprise"]["attributed"]) == (1, 1, 1)
