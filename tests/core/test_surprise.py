"""The detector: what raises an alarm, what does not, and that a restored one goes on bit for bit."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.anomaly import CALM_SHARE, Anomaly, Moment
from neuromodd.core.rates import RateMeter
from neuromodd.core.surprise import FIRST_ROWS, SurpriseDetector, SurpriseParameters
from neuromodd.errors import InvalidValueError

Row = Sequence[float | None]
Clock = Callable[[int], float | None]

NAMES = ("a", "b", "c", "d")
TEN = tuple("abcdefghij")
MIDNIGHT_S = 1_699_920_000.0
INTERVAL_S = 300.0
LATE_FROM = 500


def each_interval(at: int) -> float:
    return MIDNIGHT_S + INTERVAL_S * at


def noise(rows: int, channels: int, seed: int = 0) -> list[list[float | None]]:
    """Rows of channels that don't know of each other: Gaussian, around 10, of deviation 1."""
    source = random.Random(seed)  # noqa: S311 - noise, no secret
    return [[source.gauss(10.0, 1.0) for _ in range(channels)] for _ in range(rows)]


def feed(
    detector: SurpriseDetector,
    rows: Sequence[Row],
    clock: Clock = each_interval,
    *,
    begin: int = 0,
    gaps: Sequence[int] = (),
) -> list[Moment]:
    return [
        detector.update(row, clock(at), gap=at in gaps) for at, row in enumerate(rows[begin:], start=begin)
    ]


def begun(moments: Sequence[Moment]) -> list[int]:
    """The rows with which an episode began or ended."""
    return [at for at, moment in enumerate(moments) if moment.change is not None]


def changes(moments: Sequence[Moment]) -> list[Anomaly]:
    return [moment.change for moment in moments if moment.change is not None]


def bits(detector: SurpriseDetector) -> str:
    return json.dumps(detector.state(), sort_keys=True)


def flicker(rows: list[list[float | None]], begin: int, channels: Sequence[int], count: int = 10) -> None:
    """Let channels jump up and down together, some deviations from their middle."""
    for at in range(begin, begin + count):
        for channel in channels:
            rows[at][channel] = 13.5 if at % 2 else 6.5


def daily(days: int = 10, flat_from_day: float = math.inf) -> list[Row]:
    """A busy noon and a quiet night each day; from some moment on it stays at the middle."""
    source = random.Random(0)  # noqa: S311 - noise, no secret
    day = round(86_400 / INTERVAL_S)
    return [
        [
            50.0
            - (40.0 * math.cos(math.tau * at / day) if at < flat_from_day * day else 0.0)
            + source.gauss(0, 1)
        ]
        for at in range(days * day)
    ]


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """The state after 700 rows of noise of NAMES."""
    detector = SurpriseDetector(NAMES)
    feed(detector, noise(700, len(NAMES)))
    state: dict[str, Any] = json.loads(json.dumps(detector.state()))
    return state


def continued(state: dict[str, Any], names: Sequence[str] = NAMES) -> SurpriseDetector:
    detector = SurpriseDetector(names)
    detector.restore(state)
    return detector


# What is no alarm.


def test_a_channel_that_goes_and_comes_back_is_no_anomaly() -> None:
    rows = noise(2000, 4)
    for row in rows[1000:1300]:
        row[2] = None
    assert begun(feed(SurpriseDetector(NAMES), rows)) == []


def test_channels_that_are_missing_now_and_then_are_no_anomaly() -> None:
    source = random.Random(5)  # noqa: S311 - noise, no secret
    rows = [[None if source.random() < 0.3 else value for value in row] for row in noise(2000, 4)]
    assert begun(feed(SurpriseDetector(NAMES), rows)) == []


def test_a_channel_that_comes_later_is_no_anomaly() -> None:
    rows = noise(2000, 4)
    for row in rows[:LATE_FROM]:
        row[3] = None
    assert begun(feed(SurpriseDetector(NAMES), rows)) == []


def test_a_moment_without_any_reading_tells_nothing(trained: dict[str, Any]) -> None:
    moment = continued(trained).update([None] * 4, each_interval(700))
    assert (moment.surprise, moment.score, moment.change) == (None, None, None)
    assert {of.surprise for of in moment.channels} == {None}


@pytest.mark.parametrize("value", [0.0, 5.0, 1e6])
def test_a_constant_is_no_anomaly(value: float) -> None:
    moments = feed(SurpriseDetector(["a"]), [[value]] * 1500)
    assert begun(moments) == []
    assert max(moment.surprise or 0.0 for moment in moments) < 0.01


@pytest.mark.parametrize("value", [5.0, 1e6])
def test_a_constant_that_was_always_rounded_here_and_there_is_no_anomaly(value: float) -> None:
    source = random.Random(3)  # noqa: S311 - noise, no secret
    rows = [[value + source.choice((0, 0, 0, -1, 1)) * math.ulp(value)] for _ in range(1500)]
    assert begun(feed(SurpriseDetector(["a"]), rows)) == []


def test_gaps_are_no_anomaly() -> None:
    rows = noise(2000, 3)
    assert begun(feed(SurpriseDetector("abc"), rows, gaps=range(0, 2000, 50))) == []


def test_a_clock_that_jumps_back_and_forth_is_no_anomaly() -> None:
    def jumping(at: int) -> float:
        return each_interval(at) + (259_200.0 if at % 700 < 300 else -50_000.0 * (at % 3))

    assert begun(feed(SurpriseDetector("abc"), noise(2000, 3), jumping)) == []


def test_ten_channels_without_times_are_no_anomaly() -> None:
    assert begun(feed(SurpriseDetector(TEN), noise(2000, 10), lambda _: None)) == []


def test_a_counter_that_is_reset_is_no_anomaly() -> None:
    meter, counter = RateMeter(), 0.0
    rows: list[Row] = []
    for at, (grown,) in enumerate(noise(1500, 1, seed=2)):
        counter = 0.0 if at in {900, 1200} else counter + (grown or 0.0)
        rows.append([meter.per_s("bytes", counter, float(at))])
    assert [at for at, row in enumerate(rows) if row == [None]] == [0, 900, 1200]
    moments = feed(SurpriseDetector(["a"]), rows)
    near = [at for at in begun(moments) if at in {*range(900, 910), *range(1200, 1210)}]
    assert near == []


@pytest.mark.parametrize("seed", range(4))
def test_quiet_noise_in_ten_channels_is_no_anomaly_in_3_000_rows(seed: int) -> None:
    assert begun(feed(SurpriseDetector(TEN), noise(3000, 10, seed))) == []


def test_of_a_noisy_channel_alone_records_are_told_but_few() -> None:
    """What goes beyond all that was seen is an anomaly: of 5,000 Gaussian values there are few such."""
    begins = 0
    for seed in range(4):
        moments = feed(SurpriseDetector(["a"]), noise(5000, 1, seed))
        begins += sum(change.phase == "begin" for change in changes(moments))
    assert begins <= 8


def test_what_moves_within_a_twentieth_of_the_span_is_no_news() -> None:
    source = random.Random(4)  # noqa: S311 - noise, no secret
    rows = [[20.0]] * 600 + [[20.0 + source.uniform(-0.09, 0.09)] for _ in range(600)]
    moments = feed(SurpriseDetector(["a"], spans=[2.0]), rows)
    assert begun(moments) == []


def test_the_same_movement_is_news_without_a_span() -> None:
    rows = [[20.0]] * 600 + [[20.0], [20.09], [19.91], [20.05]] * 5
    moments = feed(SurpriseDetector(["a"]), rows)
    assert max(moment.surprise or 0.0 for moment in moments) > 0.3


# What is one.


def test_a_value_far_outside_of_a_single_channel_is_an_anomaly_at_once() -> None:
    rows = noise(800, 1)
    rows[700] = [40.0]
    moments = feed(SurpriseDetector(["a"]), rows)
    (first,) = (moment for moment in moments if moment.change is not None and moment.change.phase == "begin")
    assert first is moments[700]
    assert first.change is not None
    (channel,) = first.change.channels
    assert (channel.name, channel.observed) == ("a", 40.0)


def test_channels_that_jump_together_are_an_anomaly_and_named_first() -> None:
    rows = noise(1100, 10)
    flicker(rows, 1000, (2, 4, 6, 8))
    moments = feed(SurpriseDetector(TEN), rows)
    begin, end = changes(moments)
    assert 1000 <= begun(moments)[0] < 1010
    assert {of.name for of in begin.channels[:3]} < set("cegi")
    assert {of.name for of in end.channels[:4]} == set("cegi")
    assert {of.observed for of in end.channels[:4]} <= {13.5, 6.5}


def test_a_daily_pattern_that_stops_is_an_anomaly() -> None:
    detector = SurpriseDetector(["load"])
    moments = feed(detector, daily(flat_from_day=8.35))
    begin = changes(moments)[0]
    assert 8.35 * 288 < begun(moments)[0] < 9 * 288
    assert [of.name for of in begin.channels] == ["load"]


def test_a_daily_pattern_that_goes_on_is_none() -> None:
    assert begun(feed(SurpriseDetector(["load"]), daily())) == []


def test_what_was_expected_lies_between_its_ends_and_within_what_was_seen() -> None:
    rows = noise(1100, 4)
    flicker(rows, 1000, (1, 2))
    lowest, highest = [math.inf] * 4, [-math.inf] * 4
    known = 0
    for at, moment in enumerate(feed(SurpriseDetector(NAMES), rows)):
        for channel, of in enumerate(moment.channels):
            if of.expected is not None and of.low is not None and of.high is not None:
                known += 1
                assert lowest[channel] <= of.low <= of.expected <= of.high <= highest[channel]
            value = rows[at][channel]
            if at >= FIRST_ROWS - 2 or value is not None:
                lowest[channel] = min(lowest[channel], value or 0.0)
                highest[channel] = max(highest[channel], value or 0.0)
    assert known > 3000


def test_what_is_expected_of_noise_is_its_middle_nine_tenths(trained: dict[str, Any]) -> None:
    rows = noise(1500, 4, seed=9)
    inside = told = 0
    for row, moment in zip(rows, feed(continued(trained), rows), strict=True):
        for value, of in zip(row, moment.channels, strict=True):
            if of.low is not None and of.high is not None and value is not None:
                told += 1
                inside += of.low <= value <= of.high
    assert 0.8 < inside / told < 0.97


# Episodes.


def test_an_episode_begins_once_and_ends_once() -> None:
    rows = noise(1100, 10)
    flicker(rows, 1000, (2, 4, 6, 8))
    moments = feed(SurpriseDetector(TEN), rows)
    assert [change.phase for change in changes(moments)] == ["begin", "end"]


def test_within_an_episode_the_score_stays_down() -> None:
    rows = noise(1100, 10)
    flicker(rows, 1000, (2, 4, 6, 8))
    detector = SurpriseDetector(TEN)
    moments = feed(detector, rows)
    first, last = begun(moments)
    calm = CALM_SHARE * detector.parameters.threshold
    assert moments[first].score == moments[first].surprise
    assert max(moment.score or 0.0 for moment in moments[first + 1 : last + 1]) == calm
    assert max(moment.surprise or 0.0 for moment in moments[first + 1 : last + 1]) > calm


def test_no_anomaly_begins_below_the_threshold() -> None:
    rows = noise(1100, 10)
    highest = max(moment.surprise or 0.0 for moment in feed(SurpriseDetector(TEN), rows))
    detector = SurpriseDetector(TEN, SurpriseParameters(threshold=1.01 * highest))
    assert begun(feed(detector, rows)) == []
    detector = SurpriseDetector(TEN, SurpriseParameters(threshold=highest))
    assert begun(feed(detector, rows)) != []


# Silence, ranges, refusals.


def test_the_first_288_readings_say_nothing() -> None:
    rows = noise(FIRST_ROWS, 2)
    rows[200] = [1e9, -1e9]
    for moment in feed(SurpriseDetector("ab"), rows):
        assert (moment.surprise, moment.score, moment.change, moment.episode) == (None,) * 4
        assert {of.surprise for of in moment.channels} == {None}


def test_after_twice_half_as_many_rows_more_there_is_a_surprise() -> None:
    moments = feed(SurpriseDetector("ab"), noise(FIRST_ROWS + 3, 2))
    assert moments[-1].surprise is not None


def test_a_channel_that_comes_later_says_nothing_for_its_first_288_readings() -> None:
    rows = noise(LATE_FROM + FIRST_ROWS + 3, 2)
    for row in rows[:LATE_FROM]:
        row[1] = None
    late = [moment.channels[1].surprise for moment in feed(SurpriseDetector("ab"), rows)]
    assert set(late[: LATE_FROM + FIRST_ROWS]) == {None}
    assert late[-1] is not None


NUMBERS = (
    st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1e308, -1e308])
)


@given(rows=st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=1, max_size=15))
def test_a_surprise_is_a_ratio_or_none_whatever_comes(trained: dict[str, Any], rows: list[Row]) -> None:
    detector = continued(trained)
    for moment in feed(detector, rows):
        for told in (moment.surprise, moment.score, *(of.surprise for of in moment.channels)):
            assert told is None or 0.0 <= told <= 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4))
def test_what_is_no_number_is_refused_and_nothing_moves(
    trained: dict[str, Any], bad: float, place: int
) -> None:
    detector = continued(trained)
    before = bits(detector)
    row: list[float | None] = [1e308, None, 1e308, 10.0]
    row[place] = bad
    with pytest.raises(InvalidValueError, match=f"SurpriseDetector.update.{NAMES[place]}"):
        detector.update(row, each_interval(700), gap=True)
    assert bits(detector) == before


@pytest.mark.parametrize("count", [0, 3, 5])
def test_a_row_of_another_length_is_refused_and_nothing_moves(trained: dict[str, Any], count: int) -> None:
    detector = continued(trained)
    before = bits(detector)
    with pytest.raises(InvalidValueError, match="4 values"):
        detector.update([10.0] * count, each_interval(700), gap=True)
    assert bits(detector) == before


def test_a_detector_needs_a_name() -> None:
    with pytest.raises(InvalidValueError, match="a name at least"):
        SurpriseDetector([])


def test_a_detector_needs_a_span_for_each_name_or_none() -> None:
    with pytest.raises(InvalidValueError, match="2 spans"):
        SurpriseDetector("ab", spans=[1.0])


# States.


def eventful() -> list[list[float | None]]:
    """1,250 rows of a, b, c and late d, with absences and an episode that begins at row 1,100 or so."""
    rows = noise(1250, 4, seed=1)
    for at, row in enumerate(rows):
        if at < LATE_FROM:
            row[3] = None
        if at % 97 < 5:
            row[1] = None
    flicker(rows, 1100, (0, 1, 2, 3))
    return rows


GAPS = (0, 100, 290, 640, 1000)
POINTS = (5, 150, 287, 288, 289, 400, 576, 640, 788, 1075, 1152)


@pytest.fixture(scope="module")
def whole() -> tuple[list[Moment], dict[int, str], str]:
    """The moments of eventful rows, the states at POINTS and within the episode, and the last one."""
    rows, detector = eventful(), SurpriseDetector(NAMES)
    moments, states = [], {}
    for at, row in enumerate(rows):
        if at in POINTS or (detector.episode is not None and -1 not in states):
            states[at if at in POINTS else -1] = json.dumps([at, detector.state()])
        moments.append(detector.update(row, each_interval(at), gap=at in GAPS))
    return moments, states, bits(detector)


@pytest.mark.parametrize("point", [*POINTS, -1])
def test_a_restored_detector_goes_on_bit_for_bit(
    whole: tuple[list[Moment], dict[int, str], str], point: int
) -> None:
    """Point -1 is within the episode."""
    moments, states, last = whole
    at, state = json.loads(states[point])
    detector = SurpriseDetector(NAMES)
    detector.restore(state)
    assert feed(detector, eventful(), begin=at, gaps=GAPS) == moments[at:]
    assert bits(detector) == last


def test_a_restored_detector_has_the_state_that_it_was_given(
    whole: tuple[list[Moment], dict[int, str], str],
) -> None:
    for state in whole[1].values():
        document = json.loads(state)[1]
        assert bits(continued(document)) == json.dumps(document, sort_keys=True)


def test_a_state_is_plain_json(trained: dict[str, Any]) -> None:
    state = continued(trained).state()
    assert json.loads(json.dumps(state, allow_nan=False)) == state


def test_a_state_of_the_first_rows_is_plain_json() -> None:
    detector = SurpriseDetector(NAMES)
    feed(detector, eventful()[:150])
    state = detector.state()
    assert json.loads(json.dumps(state, allow_nan=False)) == state


def test_the_same_rows_give_the_same_bits(whole: tuple[list[Moment], dict[int, str], str]) -> None:
    detector = SurpriseDetector(NAMES)
    assert feed(detector, eventful(), gaps=GAPS) == whole[0]
    assert bits(detector) == whole[2]


def test_machine_code_gives_the_same_bits() -> None:
    rows = [*eventful(), *noise(1500, 4, seed=8)]
    rows[2000][2] = 1e9
    plain, machine = SurpriseDetector(NAMES, compiled=False), SurpriseDetector(NAMES, compiled=True)
    assert (plain.compiled, machine.compiled) == (False, True)
    assert feed(machine, rows, gaps=GAPS) == feed(plain, rows, gaps=GAPS)
    assert bits(machine) == bits(plain)


def test_a_state_goes_from_a_plain_detector_to_machine_code_and_back(trained: dict[str, Any]) -> None:
    rows = noise(300, 4, seed=7)
    machine, plain = SurpriseDetector(NAMES, compiled=True), continued(trained)
    machine.restore(trained)
    back = continued(machine.state())
    assert feed(machine, rows) == feed(plain, rows) == feed(back, rows)
    assert bits(machine) == bits(plain) == bits(back)


def test_reset_forgets_all(trained: dict[str, Any]) -> None:
    detector = continued(trained)
    detector.reset()
    assert bits(detector) == bits(SurpriseDetector(NAMES))


def test_a_reset_ends_an_episode_without_a_word() -> None:
    rows = noise(801, 1)
    rows[800] = [40.0]
    detector = SurpriseDetector(["a"])
    feed(detector, rows)
    assert detector.episode is not None
    detector.reset()
    assert detector.episode is None


def test_a_state_stays_as_large_as_it_is() -> None:
    """Noise fills what there is to learn; after that the state grows no more."""
    detector = SurpriseDetector(["a"])
    sizes = []
    for part in range(4):
        feed(detector, noise(4000, 1, seed=part))
        sizes.append(len(bits(detector)))
    assert max(sizes) < 80_000
    assert sizes[3] < 1.15 * sizes[2]


@pytest.mark.parametrize("names", ["dcba", "ca", "abcdx"])
def test_channels_are_restored_by_name(trained: dict[str, Any], names: str) -> None:
    told = continued(trained, names).state()["channels"]
    fresh = SurpriseDetector(names).state()["channels"]
    for name in names:
        assert told[name] == trained["channels"].get(name, fresh[name])


def test_in_another_order_the_channels_go_on_alike(trained: dict[str, Any]) -> None:
    rows = noise(200, 4, seed=6)
    moments = feed(continued(trained), rows)
    turned = feed(continued(trained, NAMES[::-1]), [row[::-1] for row in rows])
    assert [moment.channels[::-1] for moment in turned] == [moment.channels for moment in moments]


def test_a_channel_that_was_added_is_silent_for_its_first_readings(trained: dict[str, Any]) -> None:
    moments = feed(continued(trained, "abcdx"), noise(FIRST_ROWS + 5, 5, seed=6))
    assert {moment.channels[4].surprise for moment in moments[:FIRST_ROWS]} == {None}
    assert moments[-1].channels[4].surprise is not None
    assert moments[0].channels[0].surprise is not None


@pytest.mark.parametrize("names", ["ac", "abcdx"])
def test_coincidence_is_learned_anew_for_other_channels(trained: dict[str, Any], names: str) -> None:
    assert continued(trained, names).state()["coincidence"] == SurpriseDetector(names).state()["coincidence"]


def test_the_state_of_another_model_is_left_aside(trained: dict[str, Any]) -> None:
    detector = continued({**trained, "model": trained["model"] + 1})
    assert bits(detector) == bits(SurpriseDetector(NAMES))


@pytest.mark.parametrize(
    "damage", [lambda _: "", lambda t: t[: len(t) // 2], lambda _: "no \x7f", lambda t: t[::-1]]
)
def test_damaged_synapses_are_refused(trained: dict[str, Any], damage: Callable[[str], str]) -> None:
    state = json.loads(json.dumps(trained))
    state["channels"]["b"]["synapses"] = damage(state["channels"]["b"]["synapses"])
    with pytest.raises(InvalidValueError, match="synapses"):
        continued(state)


@pytest.mark.parametrize("part", ["numbers", "window"])
def test_numbers_that_are_too_few_are_refused(trained: dict[str, Any], part: str) -> None:
    state = json.loads(json.dumps(trained))
    state["channels"]["b"][part].pop()
    with pytest.raises(InvalidValueError, match="numbers"):
        continued(state)
