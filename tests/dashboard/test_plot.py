"""The picture and the page: whole, the same each time, and harmless whatever the recording says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from recorded import START, frame, frames, record, warm
from web_moments import SENTENCE, episode

from neuromodd.core.brain import Brain, BrainParameters
from neuromodd.core.frame import NetworkSample, TelemetryFrame, WorkSample
from neuromodd.core.inputs import OutsideInput, RewardInput
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.rewards import BreakthroughFound, SourceSwitch, WorkAccepted
from neuromodd.dashboard import plot, traces
from neuromodd.dashboard.digest import Digest, Gap
from neuromodd.dashboard.fold import Fold
from neuromodd.errors import InvalidValueError, MissingExtraError
from neuromodd.replay import Replay

SVG = "{http://www.w3.org/2000/svg}"
PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = '<script>alert("x")</script>\x07&'

Taken = Sequence[TelemetryFrame | OutsideInput]
Draw = Callable[..., bytes]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Replays what was taken in, and draws it."""

    def drawn(taken: Taken, form: plot.Format = "svg", *, parameters: BrainParameters | None = None) -> bytes:
        path = record(tmp_path / "r.jsonl", taken, parameters=parameters)
        digest = Digest()
        Replay([path], watch=digest.take).run()
        return plot.drawn(digest, [path], form)

    return drawn


def texts(svg: bytes) -> list[str]:
    return ["".join(of.itertext()).strip() for of in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - ours


@pytest.fixture
def eventful() -> Taken:
    """Load, rewards of all kinds, and a gap."""
    events = (
        WorkAccepted(latency_ms=12.0, source="render"),
        BreakthroughFound(metric="loss", value=0.1, previous_best=0.2),
        SourceSwitch(previous="batch", current="people"),
    )
    after = [
        of.model_copy(update={"gap": of.sequence == 100, "interval_s": None if of.sequence == 100 else 1.0})
        for of in frames(60, 100, **warm(60.0))
    ]
    return [*frames(60, **warm(50.0)), *(RewardInput(event=event) for event in events), *after]


# Files


def test_a_png_is_one_and_as_wide_as_a_readme(draw: Draw, eventful: Taken) -> None:
    png = draw(eventful, "png")
    assert png.startswith(PNG)
    assert int.from_bytes(png[16:20], "big") == 1200


@pytest.mark.parametrize("form", plot.FORMATS)
def test_the_same_recording_gives_the_same_bytes(draw: Draw, eventful: Taken, form: plot.Format) -> None:
    assert draw(eventful, form) == draw(eventful, form)


def test_what_the_user_has_set_up_changes_nothing(draw: Draw, eventful: Taken) -> None:
    before = draw(eventful)
    with mpl.rc_context({"axes.grid": True, "font.size": 30.0, "lines.color": "red", "svg.fonttype": "path"}):
        assert draw(eventful) == before
        assert mpl.rcParams["font.size"] == 30.0


def test_neither_date_nor_version_is_in_the_file(draw: Draw, eventful: Taken) -> None:
    assert b"metadata" not in draw(eventful)
    assert b"Matplotlib" not in draw(eventful, "png")


# What is in it


def test_text_is_text(draw: Draw, eventful: Taken) -> None:
    found = texts(draw(eventful))
    for words in ("Events", "Neuromodulators", "Spikes", "Primary weights", "What has changed"):
        assert words in found
    for name in ("dopamine", "cortisol", "acetylcholine", "tempo", "cpu", "instability", "UTC"):
        assert name in found


def test_surprise_is_drawn_once_something_is_known(draw: Draw) -> None:
    assert "Surprise" not in texts(draw(frames(200)))
    assert "Surprise" in texts(draw(frames(400)))


def test_a_screen_reader_is_told_what_it_is(draw: Draw, eventful: Taken) -> None:
    root = ET.fromstring(draw(eventful))  # noqa: S314 - ours
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert description is not None
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text == "neuromodd: lab, 2024-05-01 12:00:00 to 12:02:39 UTC"
    assert "1 gaps" in (description.text or "")


def test_every_id_is_there_once(draw: Draw, eventful: Taken) -> None:
    ids = [of.get("id") for of in ET.fromstring(draw(eventful)).iter() if of.get("id")]  # noqa: S314 - ours
    assert len(ids) == len(set(ids))


def test_a_few_events_are_told_in_words(draw: Draw, eventful: Taken) -> None:
    found = texts(draw(eventful))
    assert {"render 12 ms", "loss 0.2 to 0.1", "batch to people", "pause 41 s"} <= set(found)


def test_many_events_are_marks_and_a_count(draw: Draw) -> None:
    events = [RewardInput(event=WorkAccepted(source="render")) for _ in range(40)]
    taken = [of for pair in zip(frames(40), events, strict=True) for of in pair] + [*frames(1, 40)]
    found = texts(draw(taken))
    assert "render" not in found
    assert any(re.fullmatch("work accepted \N{MULTIPLICATION SIGN}4[0-9]", words) for words in found)


def test_a_panel_is_there_only_if_it_was_measured(draw: Draw) -> None:
    plain, full = texts(draw(frames(20))), texts(draw(frames(20, **warm(50.0))))
    assert "Temperature (°C)" in full
    assert "Temperature (°C)" not in plain
    assert any("Not measured: cpu.temperature_celsius, gpus, thermal, power" in words for words in plain)


def test_a_panel_of_nothing_but_zeros_is_told_and_not_drawn(draw: Draw) -> None:
    still = NetworkSample(receive_bytes_per_s=0.0, transmit_bytes_per_s=0.0)
    found = texts(draw(frames(20, network=still)))
    assert not any(words.startswith("Network") for words in found)
    assert any("always 0: network" in words for words in found)


def strange(end: int | None) -> tuple[Digest, bytes]:
    """Two minutes with a made-up anomaly."""
    brain, digest = Brain(None, 7, compiled=False), Digest()
    for tick in episode([brain.step(of) for of in frames(120)], 40, end):
        digest.take(tick, brain)
    return digest, plot.drawn(digest, [Path("r.jsonl")], "svg")


@pytest.mark.parametrize("end", [80, None])
def test_an_anomaly_is_a_bar_with_its_channels_and_shades_every_panel(end: int | None) -> None:
    _, svg = strange(end)
    found = texts(svg)
    assert {"anomaly", "cpu, network", "Prediction error", "all"} <= set(found)
    assert any("dashed: from 0.5 on an anomaly begins" in words for words in found)
    assert any(words.startswith("Shaded: an anomaly; hatched") for words in found)
    assert b"1 anomalies, which are shaded in all panels" in svg
    # A patch in each of the panels: events, levels, surprise twice, errors, three of telemetry, and more.
    assert svg.count(plot.STRANGE.encode()) >= 8


def test_without_an_anomaly_nothing_is_shaded_and_none_is_said(draw: Draw) -> None:
    calm = [of.model_copy(update={"cpu": None, "network": None, "work": None}) for of in frames(60)]
    svg = draw(calm)
    assert plot.STRANGE.encode() not in svg
    assert "none" in texts(svg)


def test_the_page_tells_anomalies_in_words() -> None:
    digest, _ = strange(80)
    page = plot.drawn(digest, [Path("r.jsonl")], "html").decode()
    assert f'<td colspan="4">{SENTENCE}</td>' in page
    assert "What is normal here" in page


# Odd recordings


@pytest.mark.parametrize("count", [1, 2])
def test_the_fewest_frames_can_be_drawn(draw: Draw, count: int) -> None:
    assert draw(frames(count), "png").startswith(PNG)


def test_a_host_that_measures_nothing_can_be_drawn(draw: Draw) -> None:
    assert "Neuromodulators" in texts(draw([frame(at) for at in range(5)]))


@pytest.mark.parametrize(("lif", "bank"), [(1, 0), (8, 5), (40, 9)])
def test_networks_of_other_sizes_can_be_drawn(draw: Draw, lif: int, bank: int) -> None:
    engine = EngineConfig(lif_neurons=lif, izhikevich_neurons=bank)
    assert "Spikes" in texts(draw(frames(10), parameters=BrainParameters(engine=engine)))


def test_the_largest_numbers_can_be_drawn(draw: Draw) -> None:
    work = WorkSample(rate=1.7e308, target=1.0, source="x")
    network = NetworkSample(receive_bytes_per_s=1.7e308, transmit_bytes_per_s=0.0)
    assert draw(frames(10, work=work, network=network), "png").startswith(PNG)


def test_a_clock_that_jumps_back_can_be_drawn(draw: Draw) -> None:
    before = [frame(10.0 + at, time_utc=START - timedelta(days=20000, seconds=-at)) for at in range(5)]
    assert draw([*frames(10), *before], "png").startswith(PNG)


def test_names_in_any_script_can_be_drawn(draw: Draw) -> None:
    event = WorkAccepted(source="渲染 🎉 $x_1$")
    assert draw([*frames(5), RewardInput(event=event), *frames(5, 5)], "png").startswith(PNG)


# The page


class Seen(HTMLParser):
    """The tags of a page, and the addresses that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]


def test_the_page_asks_nobody_for_anything(draw: Draw, eventful: Taken) -> None:
    page = draw(eventful, "html").decode()
    seen = Seen()
    seen.feed(page)
    assert {"script", "link", "iframe", "metadata"}.isdisjoint(seen.tags)
    assert [of for of in seen.addresses if not of.startswith(("#", "data:image/png;base64,"))] == []
    assert set(re.findall(r"https?://[^/\"' ]+", page)) == {"http://www.w3.org"}
    assert "default-src &#x27;none&#x27;" in page


def test_the_page_has_the_picture_and_the_report(draw: Draw, eventful: Taken) -> None:
    seen = Seen()
    seen.feed(page := draw(eventful, "html").decode())
    assert seen.tags.count("svg") == 1
    assert "What the network has come to expect" in page
    assert "<!DOCTYPE html>" in page
    assert "<?xml" not in page


def test_strings_from_outside_are_text_in_the_page(draw: Draw) -> None:
    event = WorkAccepted(source=HOSTILE)
    taken = [*frames(5), RewardInput(event=event), *frames(5, 5)]
    hostile = [
        of.model_copy(update={"node": HOSTILE}) if isinstance(of, TelemetryFrame) else of for of in taken
    ]
    page = draw(hostile, "html").decode()
    assert "<script" not in page
    assert "\x07" not in page
    assert "&lt;script&gt;alert" in page


# Names


@pytest.mark.parametrize(("name", "form"), [("a.png", "png"), ("b.SVG", "svg"), ("c.d.html", "html")])
def test_the_name_tells_the_format(name: str, form: str) -> None:
    assert plot.form_of(Path(name)) == form


@pytest.mark.parametrize("name", ["a", "a.pdf", "png", "a.png.gz", "-"])
def test_another_ending_is_refused(name: str) -> None:
    with pytest.raises(
        InvalidValueError, match=r"^-o: .*, expected a name that ends in .png, .svg or .html$"
    ):
        plot.form_of(Path(name))


def test_a_missing_matplotlib_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'neuromodd\[plot\]'"):
        plot.require()


# What it is made of


def test_labels_stand_apart_and_near_to_where_they_are_wanted() -> None:
    assert traces.apart([0.5, 0.5, 0.0], 0.2, 0.0, 1.0) == pytest.approx([0.5, 0.7, 0.0])
    assert traces.apart([1.0, 1.0, 0.95], 0.2, 0.0, 1.0) == pytest.approx([0.8, 1.0, 0.6])


@pytest.mark.parametrize(
    ("largest", "top"), [(0.0, 1.0), (0.07, 0.08), (1.0, 1.0), (1.2, 1.5), (290.0, 300.0), (8.1, 10.0)]
)
def test_an_axis_ends_at_a_round_number(largest: float, top: float) -> None:
    assert traces.nice(largest) == pytest.approx(top)


@pytest.mark.parametrize(
    ("largest", "prefix"), [(0.0, ""), (999.0, ""), (1e3, "k"), (2.5e6, "M"), (1e9, "G"), (1e15, "T")]
)
def test_a_prefix_fits_the_number(largest: float, prefix: str) -> None:
    assert traces.prefixed(largest)[1] == prefix


@pytest.mark.parametrize(
    ("weight", "signed", "words"),
    [
        (1.234, False, "1.23"),
        (0.0, False, "0.00"),
        (0.5, True, "+.50"),
        (-0.07, True, "-.07"),
        (0.004, True, "0"),
    ],
)
def test_a_weight_in_a_cell(weight: float, signed: bool, words: str) -> None:
    assert traces.figure(weight, signed=signed) == words


def test_a_line_ends_at_a_gap_and_a_strip_is_empty_in_it() -> None:
    fold = Fold(levels=1, counts=0)
    for at in [*range(10), *range(50, 60)]:
        fold.add(START.timestamp() + at, (float(at),), ())
    columns = fold.columns()
    gap = Gap(
        seconds=41.0,
        from_utc=START + timedelta(seconds=9),
        to_utc=START + timedelta(seconds=50),
        kind="restart",
    )
    places = traces.breaks(columns, [gap])
    assert places == [10]
    drawn = traces.line(columns.mean[:, 0], places)
    assert np.flatnonzero(np.isnan(drawn)).tolist() == [10]
    begin_s = START.timestamp()
    row = traces.strip(
        columns.mean, columns, places, from_s=begin_s, to_s=begin_s + 60.0, cells=120, largest=True
    )[0]
    # Two cells a second: each frame holds until the next one, and nothing is made up in between.
    assert row[:18].tolist() == [at // 2 for at in range(18)]
    assert np.isnan(row[20:100]).all()
    assert row[100:].tolist() == [50 + at // 2 for at in range(20)]


def test_a_strip_of_fewer_cells_than_columns_keeps_the_peak() -> None:
    fold = Fold(levels=1, counts=0)
    for at in range(100):
        fold.add(float(at), (9.0 if at == 37 else 1.0,), ())
    columns = fold.columns()
    strips = [
        traces.strip(columns.mean, columns, [], from_s=0.0, to_s=100.0, cells=10, largest=largest)[0].tolist()
        for largest in (True, False)
    ]
    assert strips[0] == [1.0, 1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert strips[1][3] == pytest.approx(1.8)
