"""Episodes of strange moments, how probable they are, and the sentences that tell of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from neuromodd.core.anomaly import (
    CALM_ROWS,
    CHANNELS_TOLD,
    Anomaly,
    AnomalyChannel,
    ChannelMoment,
    Episodes,
    probability,
    sentence,
)

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
THRESHOLD = 0.5
CALM = 0.3


def channel(name: str, observed: float | None = 9.0, surprise: float = 0.8) -> AnomalyChannel:
    return AnomalyChannel(name=name, observed=observed, expected=2.0, low=1.0, high=3.0, surprise=surprise)


def unknown(name: str, observed: float | None = 9.0) -> AnomalyChannel:
    return AnomalyChannel(name=name, observed=observed, expected=None, low=None, high=None, surprise=0.8)


def follow(
    episodes: Episodes, surprise: float | None, own: Sequence[float | None] = (), at_s: float | None = 0.0
) -> tuple[float | None, Anomaly | None]:
    """A moment of channels c0, c1, ... of which each has its own surprise."""
    now = None if at_s is None else START + timedelta(seconds=at_s)
    channels = [ChannelMoment(f"c{at}", 1.0, 2.0, 1.0, 3.0, of) for at, of in enumerate(own)]
    return episodes.follow(
        surprise,
        channels,
        lambda at: ChannelMoment(f"c{at}", 9.0, 2.0, 1.0, 3.0, None),
        now,
        THRESHOLD,
    )


def begun(own: Sequence[float | None] = (0.9, 0.1, 0.4), surprise: float = 0.6) -> tuple[Episodes, Anomaly]:
    episodes = Episodes()
    _, change = follow(episodes, surprise, own)
    assert change is not None
    return episodes, change


@pytest.mark.parametrize(("surprise", "expected"), [(0.0, 1.0), (0.1, 0.1), (0.5, 1e-5), (1.0, 1e-10)])
def test_a_surprise_is_a_probability(surprise: float, expected: float) -> None:
    assert probability(surprise) == pytest.approx(expected)


def test_below_the_threshold_nothing_begins() -> None:
    episodes = Episodes()
    assert follow(episodes, 0.499, (0.9,)) == (0.499, None)
    assert episodes.current is None


def test_an_episode_begins_at_the_threshold() -> None:
    episodes, change = begun(surprise=THRESHOLD)
    assert change.phase == "begin"
    assert episodes.current == change


def test_the_score_of_its_first_moment_is_the_surprise() -> None:
    assert follow(Episodes(), 0.7, (0.9,))[0] == 0.7


def test_the_score_is_held_down_while_it_lasts() -> None:
    episodes, _ = begun()
    assert [follow(episodes, of)[0] for of in (1.0, 0.31, CALM, 0.2, 0.0)] == [CALM, CALM, CALM, 0.2, 0.0]


def test_channels_that_are_strange_are_told_the_strangest_first() -> None:
    _, change = begun((0.31, 0.1, 0.9, None, 0.4))
    assert [of.name for of in change.channels] == ["c2", "c4", "c0"]


def test_a_channel_is_told_as_it_was_at_its_strangest() -> None:
    _, change = begun((0.9,))
    assert (change.channels[0].observed, change.channels[0].surprise) == (9.0, 0.9)


def test_if_none_is_strange_alone_all_are_told() -> None:
    _, change = begun((0.1, None, 0.2))
    assert [of.name for of in change.channels] == ["c2", "c0"]


def test_no_more_channels_are_told_than_the_limit() -> None:
    _, change = begun([0.9] * (CHANNELS_TOLD + 5))
    assert len(change.channels) == CHANNELS_TOLD


def test_an_episode_ends_after_calm_moments_in_a_row() -> None:
    episodes, _ = begun()
    changes = [follow(episodes, 0.1)[1] for _ in range(CALM_ROWS)]
    assert changes[:-1] == [None] * (CALM_ROWS - 1)
    assert changes[-1] is not None
    assert changes[-1].phase == "end"
    assert episodes.current is None


def test_a_moment_that_is_not_calm_prolongs_it() -> None:
    episodes, _ = begun()
    row = [*[0.1] * (CALM_ROWS - 1), CALM, *[0.1] * (CALM_ROWS - 1)]
    assert [follow(episodes, of)[1] for of in row] == [None] * len(row)


def test_a_moment_without_surprise_neither_begins_nor_calms() -> None:
    episodes, current = begun()
    for _ in range(2 * CALM_ROWS):
        assert follow(episodes, None, (0.9,)) == (None, None)
    assert episodes.current == current


def test_calm_moments_count_across_those_without_surprise() -> None:
    episodes, _ = begun()
    for _ in range(CALM_ROWS - 1):
        follow(episodes, 0.1)
        follow(episodes, None)
    assert follow(episodes, 0.1)[1] is not None


def calmed(episodes: Episodes, at_s: float | None = 600.0) -> Anomaly:
    end = [follow(episodes, 0.0, at_s=at_s)[1] for _ in range(CALM_ROWS)][-1]
    assert end is not None
    return end


def test_the_end_tells_the_largest_surprise_and_when_it_began() -> None:
    episodes, _ = begun(surprise=0.6)
    follow(episodes, 0.95)
    end = calmed(episodes)
    assert (end.surprise, end.since_utc, end.duration_s) == (0.95, START, 600.0)
    assert end.time_utc == START + timedelta(seconds=600.0)


def test_the_end_tells_channels_that_joined_later() -> None:
    episodes, _ = begun((0.9, 0.0))
    follow(episodes, 0.7, (0.2, 1.0))
    assert [of.name for of in calmed(episodes).channels] == ["c1", "c0"]


def test_an_episode_of_data_without_times_has_no_times() -> None:
    episodes = Episodes()
    follow(episodes, 0.6, (0.9,), at_s=None)
    end = calmed(episodes, at_s=None)
    assert (end.since_utc, end.time_utc, end.duration_s) == (None, None, 0.0)


def test_a_clock_that_went_back_gives_no_negative_duration() -> None:
    episodes, _ = begun()
    assert calmed(episodes, at_s=-3600.0).duration_s == 0.0


def test_a_new_episode_knows_nothing_of_the_last() -> None:
    episodes, _ = begun((1.0, 0.0), surprise=1.0)
    calmed(episodes)
    _, change = follow(episodes, 0.6, (0.0, 0.8))
    assert change is not None
    assert (change.surprise, [of.name for of in change.channels]) == (0.6, ["c1"])


def test_a_restored_episode_ends_as_it_would_have() -> None:
    episodes, _ = begun()
    follow(episodes, 0.9, (0.2, 1.0))
    follow(episodes, 0.1)
    other = Episodes()
    other.restore(json.loads(json.dumps(episodes.state(), allow_nan=False)))
    ends = [[follow(of, 0.1, at_s=60.0) for _ in range(CALM_ROWS)] for of in (episodes, other)]
    assert ends[0] == ends[1]
    assert other.state() == episodes.state()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("a", "a is 9 where 1 to 3 is usual"),
        ("ab", "a is 9 where 1 to 3 is usual and b is 9 where 1 to 3 is usual"),
        (
            "abc",
            "a is 9 where 1 to 3 is usual, b is 9 where 1 to 3 is usual and c is 9 where 1 to 3 is usual",
        ),
        (
            "abcde",
            (
                "a is 9 where 1 to 3 is usual, b is 9 where 1 to 3 is usual, c is 9 where 1 to 3 is usual "
                "and 2 more"
            ),
        ),
    ],
)
def test_a_sentence_tells_three_channels_and_how_many_more(names: str, expected: str) -> None:
    assert sentence([channel(name) for name in names]) == expected


def test_a_sentence_of_no_channel_is_one_too() -> None:
    assert sentence([]) == "the channels differ from what is usual, each a little"


def test_a_channel_of_which_nothing_was_expected_is_told_without() -> None:
    assert sentence([unknown("a"), channel("b")]) == "a is 9 and b is 9 where 1 to 3 is usual"


def test_a_channel_that_is_missing_is_told_as_missing() -> None:
    assert sentence([channel("a", None)]) == "a is missing where 1 to 3 is usual"


def test_a_band_that_reads_the_same_at_both_ends_is_told_once() -> None:
    of = channel("a").model_copy(update={"low": 4.001, "high": 4.002})
    assert sentence([of]) == "a is 9 where about 4 is usual"


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (1_234_567.0, "1230000"),
        (-11.94, "-11.9"),
        (1e-7, "1e-07"),
        (99.96, "100"),
    ],
)
def test_numbers_have_three_digits(observed: float, expected: str) -> None:
    assert sentence([unknown("a", observed)]) == f"a is {expected}"


def test_an_anomaly_tells_its_channels_in_its_sentence() -> None:
    _, change = begun((0.9,))
    assert change.sentence == sentence(change.channels) == "c0 is 9 where 1 to 3 is usual"
