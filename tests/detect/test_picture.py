"""The picture of surprise: whole, the same each time, bounded, and harmless whatever a table says."""

from __future__ import annotations

import re
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from measured import START

from neuromodd.core.anomaly import Anomaly, AnomalyChannel, ChannelMoment, Moment
from neuromodd.dashboard import surprise_plot
from neuromodd.dashboard.surprise_digest import EPISODES_KEPT, SurpriseDigest
from neuromodd.errors import InvalidValueError

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("x")</script>\x07$x$ & 温度'


def anomaly(phase: str, begin: datetime | None, name: str, surprise: float = 0.8) -> Anomaly:
    channel = AnomalyChannel(name=name, observed=9.0, expected=1.0, low=0.5, high=1.5, surprise=surprise)
    return Anomaly.from_dict(
        {
            "phase": phase,
            "since_utc": begin,
            "time_utc": begin,
            "duration_s": 0.0,
            "surprise": surprise,
            "channels": (channel,),
            "sentence": f"{name} is 9, where 0.5 to 1.5 was expected",
        }
    )


def moment(names: Sequence[str], change: Anomaly | None = None, episode: Anomaly | None = None) -> Moment:
    """The later a name, the stranger the channel."""
    channels = tuple(
        ChannelMoment(name, 1.0, 1.0, 0.5, 1.5, (at + 1) / (len(names) + 1)) for at, name in enumerate(names)
    )
    return Moment(channels[-1].surprise, channels[-1].surprise, channels, change, episode)


def digest(
    names: Sequence[str], count: int = 20, *, timed: bool = True, strange: Sequence[int] = ()
) -> SurpriseDigest:
    """Rows a minute apart; at each of `strange` an anomaly begins that ends with the next row."""
    made = SurpriseDigest(names, timed=timed, threshold=0.5)
    for at in range(count):
        time = START + timedelta(minutes=at)
        change = None
        if at in strange:
            change = anomaly("begin", time, names[-1])
        elif at - 1 in strange:
            change = anomaly("end", time, names[-1])
        made.take(at + 1, time.timestamp() if timed else None, moment(names, change))
    return made


def words(made: SurpriseDigest, title: str = "a.csv") -> list[str]:
    """All texts of the picture."""
    root = ET.fromstring(surprise_plot.drawn(made, title, "svg"))  # noqa: S314 - our own
    return [text for of in root.iter(f"{SVG}text") if (text := "".join(of.itertext()).strip())]


# Files


@pytest.mark.parametrize(("form", "begin"), [("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_same_rows_give_the_same_bytes(form: surprise_plot.Format, begin: bytes) -> None:
    first, again = (surprise_plot.drawn(digest(("cpu", "io"), strange=(5,)), "a.csv", form) for _ in range(2))
    assert first.startswith(begin)
    assert first == again


def test_another_ending_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"^--plot: got 'a.gif', expected .*\.png, \.svg or \.pdf$"):
        surprise_plot.form_of(Path("a.gif"))


# What is shown


def test_title_span_and_counts_are_told() -> None:
    told = words(digest(("cpu",), strange=(5, 9)))
    assert "neuromodd  a.csv" in told
    assert "2024-05-01 00:00:00 to 2024-05-01 00:19:00 UTC; 20 rows of 1 channel; 2 anomalies" in told


def test_the_anomalies_are_told_in_words_with_their_numbers() -> None:
    told = words(digest(("cpu",), strange=(5, 9)))
    assert told.count("cpu is 9, where 0.5 to 1.5 was expected") == 2
    assert [text for text in told if re.fullmatch(r"2024-05-01 00:0[59]:00", text)] == [
        "2024-05-01 00:05:00",
        "2024-05-01 00:09:00",
    ]
    # Above its begin, and before its words.
    assert (told.count("1"), told.count("2")) >= (2, 2)


def test_the_strangest_channels_are_drawn_first_and_of_the_others_the_names_told() -> None:
    names = [f"channel{at}" for at in range(20)]
    told = words(digest(names))
    headings = list(dict.fromkeys(text for text in told if text in names))
    assert headings[: surprise_plot.PANELS_MAX] == names[:-13:-1]
    (left,) = (text for text in told if "not drawn" in text)
    assert left.startswith("8 less strange channels are not drawn: channel7, channel6, ")


def test_rows_without_times_are_counted() -> None:
    told = words(digest(("cpu",), timed=False, strange=(5,)))
    assert {"row", "row 6", "20 rows of 1 channel; 1 anomaly"} <= set(told)


def test_an_anomaly_that_goes_on_is_shaded_to_the_end() -> None:
    made = digest(("cpu",))
    begin = START + timedelta(minutes=20)
    going = anomaly("begin", begin, "cpu")
    made.take(21, begin.timestamp(), moment(("cpu",), going, going))
    made.take(22, begin.timestamp() + 60, moment(("cpu",), None, going))
    (episode,) = made.episodes()
    assert (episode.begin, episode.end) == (begin.timestamp(), begin.timestamp() + 60)
    assert "1 min …" in words(made)


@pytest.mark.filterwarnings("error")
def test_what_a_table_says_is_harmless() -> None:
    made = digest((HOSTILE, "x" * 500), strange=(5,))
    picture = surprise_plot.drawn(made, HOSTILE, "svg").decode()
    assert "<script" not in picture
    assert "\x07" not in picture
    assert len(surprise_plot.drawn(made, HOSTILE, "png")) > 1000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [-1e300, None, 0.0, 1e300])
@pytest.mark.parametrize("rows", [1, 2, 50])
def test_odd_readings_can_be_drawn(value: float | None, rows: int) -> None:
    made = SurpriseDigest(("cpu", "io"), timed=True, threshold=0.5)
    nothing = ChannelMoment("cpu", value, None, None, None, None)
    for at in range(rows):
        made.take(at + 1, at * 60.0, Moment(None, None, (nothing, nothing), None, None))
    told = words(made)
    assert "too little is known of it" in told
    assert ("never measured" in told) is (value is None)


def test_times_before_1970_and_after_2100_can_be_drawn() -> None:
    made = SurpriseDigest(("cpu",), timed=True, threshold=0.5)
    for at, year in enumerate((1, 1900, 2500, 9999)):
        time = datetime(year, 6, 1, tzinfo=UTC)
        made.take(at + 1, time.timestamp(), moment(("cpu",)))
    assert "0001-06-01 00:00:00 to 9999-06-01 00:00:00 UTC; 4 rows of 1 channel; 0 anomalies" in words(made)


# What is kept


def test_of_many_anomalies_the_strangest_are_kept_and_all_counted() -> None:
    made = SurpriseDigest(("cpu",), timed=True, threshold=0.5)
    count = 3 * EPISODES_KEPT
    for at in range(count):
        time = START + timedelta(hours=at)
        for phase in ("begin", "end"):
            change = anomaly(phase, time, "cpu", surprise=0.5 + 0.5 * at / count)
            made.take(at + 1, time.timestamp(), moment(("cpu",), change))
    kept = made.episodes()
    assert (made.anomalies, len(kept)) == (count, EPISODES_KEPT)
    assert kept[0].begin == (START + timedelta(hours=count - EPISODES_KEPT)).timestamp()
    told = words(made)
    assert f"{count:,} anomalies, the {EPISODES_KEPT} strangest shaded" in next(
        text for text in told if "anomalies," in text
    )


def test_memory_does_not_grow_with_the_rows() -> None:
    names = [f"channel{at}" for at in range(20)]
    of, made = moment(names), SurpriseDigest(names, timed=True, threshold=0.5)
    sizes = []
    tracemalloc.start()
    try:
        for at in range(24 * 1024 + 1):
            made.take(at + 1, 60.0 * at, of)
            if at in (12 * 1024, 24 * 1024):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] < 1.2 * sizes[0]
    assert len(made.columns().index) <= 1500
