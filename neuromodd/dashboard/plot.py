"""The picture of a recording: all that was measured and felt, on one time axis.

It is drawn without a display, and the same recording gives the same bytes. Nothing is told by colour alone:
lines have a dash and a name beside them, marks a shape, weights a number with its sign; a scale of colours
has a lightness that grows or falls all the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from neuromodd.core.encoding import CHANNELS, DRIVES
from neuromodd.dashboard import anomalies, canvas, report, report_page, traces
from neuromodd.dashboard.canvas import (
    DPI,
    FAINT,
    INCH_A_POINT,
    INK,
    LARGE,
    LETTER_IN,
    LINES,
    RULE,
    SMALL,
    UNWATCHED,
    USUAL,
    WIDTH_IN,
    accessible,
    heading,
    mark_times,
    saved,
    style,
)
from neuromodd.dashboard.digest import (
    BANK_FROM,
    ERROR_FROM,
    GROUPS,
    LEVEL_NAMES,
    LEVELS_FROM,
    ORIGINS,
    READING_AT,
    REWARDS_FROM,
    REWARDS_KEPT,
    STEPS_AT,
    SURPRISE_AT,
    WATCHED_FROM,
    WEIGHTS_FROM,
    Digest,
    reward_at,
)
from neuromodd.dashboard.facts import facts
from neuromodd.errors import InvalidValueError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from neuromodd.core.rewards import RewardEvent

Format = Literal["png", "svg", "html"]
FORMATS: tuple[Format, ...] = ("png", "svg", "html")

LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN = 1.2, 1.15, 0.62, 0.6
HEADING_IN, BETWEEN_IN, TIMES_IN = 0.22, 0.12, 0.18
ROW_IN, CELL_IN = 0.145, 0.2
TIMED_IN = WIDTH_IN - LEFT_IN - RIGHT_IN

NAME_LETTERS = 19
"""Of a name left of the axes, as many as there is room for."""

STRANGE, STRANGE_EDGE = "#f6e3ee", "#a3376f"

EDGES_SHOWN = 12
"""Of more anomalies the shading is enough: their edges would hide what is under them."""

SURPRISE_TOP = 0.6
"""The scale of surprise goes at least so far, or a calm host would look excited."""

GAPS = {"suspend or stall": "pause", "restart": "restart", "reboot": "reboot", "frames missing": "missing"}
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}

MARKS = {"WorkAccepted": "^", "BreakthroughFound": "*", "SourceSwitch": "D"}
WORDS = {
    "WorkAccepted": "work accepted",
    "BreakthroughFound": "breakthrough",
    "SourceSwitch": "source switch",
}


def form_of(out: Path) -> Format:
    """The format that the name of a file asks for.

    Raises:
        InvalidValueError: it has another ending.
    """
    ending = out.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise InvalidValueError(
            "-o", str(out), f"a name that ends in .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}"
        )
    return ending


def require() -> None:
    """See that there is matplotlib.

    Raises:
        MissingExtraError: it is not installed.
    """
    canvas.require("plot")


def drawn(digest: Digest, files: Sequence[Path], form: Format) -> bytes:
    """The picture, or the page with it, as the bytes of a file."""
    told = facts(digest, files)
    title, description = f"neuromodd: {report.title(told)}", _described(told)
    with style():
        figure = _Picture(digest, told).figure
        if form == "png":
            return saved(figure, "png", {"Title": title, "Description": description, "Software": None})
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        svg = accessible(saved(figure, "svg", unsaid).decode(), title, description)
    return svg.encode() if form == "svg" else report_page.page(told, svg).encode()


def _described(told: dict[str, Any]) -> str:
    missing = ", ".join(told["not_measured"]) or "nothing"
    rewards = sum(of["count"] for of in told["rewards"]["counts"])
    faults = sum(told["faults"]["counts"].values())
    return (
        f"Panels over one time axis in UTC: events ({rewards} rewards, {faults} faults, "
        f"{told['anomalies']['count']} anomalies, which are shaded in all panels), neuromodulators, "
        f"surprise, prediction errors, telemetry, spikes and primary weights; "
        f"below them the weights at start and end. "
        f"{told['frames']} frames, {told['gaps']['count']} gaps. Not measured: {missing}. "
        f"`neuromodd report` tells the numbers as text."
    )


class _Slot(NamedTuple):
    """A panel of the time axis.

    Attributes:
        height_in: of the axes.
        draw: fills them.
        above_in: from the panel before, or its times, to the axes: room for a heading.
        timed: whether the times stand below.
    """

    height_in: float
    draw: Callable[[Axes], None]
    above_in: float = BETWEEN_IN + HEADING_IN
    timed: bool = False


class _Picture:
    """Draws a digest from top to bottom; all places are in inches."""

    def __init__(self, digest: Digest, told: dict[str, Any]) -> None:
        from matplotlib.figure import Figure  # noqa: PLC0415 - as above

        self._digest, self._told = digest, told
        self._columns = digest.columns()
        self._folded = bool(np.median(self._columns.frames) > 1)
        self._gaps = digest.gaps.longest_first
        self._breaks = traces.breaks(self._columns, self._gaps)
        self._from_s = _seconds(digest.first.time_utc if digest.first else None)
        self._to_s = max(_seconds(digest.last.time_utc if digest.last else None), self._from_s + 1.0)
        # The clock may have gone back: the columns know how far.
        self._from_s = min(self._from_s, float(self._columns.start_s[0]) + self._columns.width_s)
        self._to_s = max(self._to_s, float(self._columns.start_s[-1]))
        self._inch_s = (self._to_s - self._from_s) / TIMED_IN
        known = self._columns.known.sum(axis=0)
        self._present = [at for at in range(GROUPS) if known[ERROR_FROM + at]]
        self._watched = [(name, at) for name, at in digest.watched.items() if known[WATCHED_FROM + at]]
        self._strange = digest.anomalies.episodes
        self._panels = [
            panel._replace(series=series)
            for panel in traces.PANELS
            if (series := tuple(of for of in panel.series if known[READING_AT[of.reading]]))
        ]
        self._flat = [panel for panel in self._panels if not self._largest(panel) > 0.0]
        slots = self._slots()
        maps_in = self._maps_height_in()
        tops_in, top_in = [], TOP_IN
        for slot in slots:
            tops_in.append(top_in + slot.above_in)
            top_in += slot.above_in + slot.height_in + (TIMES_IN if slot.timed else 0.0)
        self._height_in = top_in + maps_in + BOTTOM_IN
        self.figure = Figure(figsize=(WIDTH_IN, self._height_in), facecolor="white")
        self._title()
        for slot, at_in in zip(slots, tops_in, strict=True):
            axes = self._timed(at_in, slot.height_in)
            mark_times(axes, told=slot.timed)
            slot.draw(axes)
        if maps_in:
            self._maps(top_in)
        self._footer()

    def _slots(self) -> list[_Slot]:
        slots = [_Slot(0.2 * (len(MARKS) + 2), self._events, timed=True), _Slot(1.15, self._levels)]
        if self._watched:
            slots += [
                _Slot(0.7, self._surprise),
                _Slot(ROW_IN * len(self._watched), self._surprises, above_in=0.08),
            ]
        if self._present:
            slots.append(_Slot(ROW_IN * len(self._present), self._errors))
        for panel in self._panels:
            if panel not in self._flat:
                slots.append(_Slot(0.8 if panel.top else 0.55, partial(self._panel, panel=panel)))
        slots.append(_Slot(ROW_IN * self._raster_rows, self._raster, timed=not self._neurons))
        if self._neurons:
            slots.append(_Slot(ROW_IN * len(self._neurons), self._weights, timed=True))
        return slots

    def _largest(self, panel: traces.Panel) -> float:
        at = [READING_AT[of.reading] for of in panel.series]
        return float(np.nanmax(self._columns.high[:, at]))

    @property
    def _raster_rows(self) -> int:
        return min(self._digest.lif_neurons, GROUPS) + min(self._digest.bank_neurons, len(DRIVES))

    @property
    def _neurons(self) -> list[int]:
        """LIF neurons, or groups of them, whose own channel was measured."""
        return [at for at in self._present if at < self._digest.lif_neurons]

    # Places

    def _axes(self, left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
        bottom_in = self._height_in - top_in - height_in
        return self.figure.add_axes(
            (
                left_in / WIDTH_IN,
                bottom_in / self._height_in,
                width_in / WIDTH_IN,
                height_in / self._height_in,
            )
        )

    def _timed(self, top_in: float, height_in: float) -> Axes:
        """Axes over the time axis; what nobody watched is hatched, and anomalies are shaded."""
        axes = self._axes(LEFT_IN, top_in, TIMED_IN, height_in)
        axes.set_xlim(_day(self._from_s), _day(self._to_s))
        for from_s, to_s in map(self._held, self._strange):
            axes.axvspan(_day(from_s), _day(to_s), facecolor=STRANGE, linewidth=0.0, zorder=0.2)
            for at_s in (from_s, to_s) if len(self._strange) <= EDGES_SHOWN else ():
                axes.axvline(_day(at_s), color=STRANGE_EDGE, linewidth=0.6, linestyle=":", zorder=2.2)
        for gap in self._gaps:
            if gap.seconds >= (self._to_s - self._from_s) / 1000.0:
                axes.axvspan(
                    _day(gap.from_utc.timestamp()),
                    _day(gap.to_utc.timestamp()),
                    facecolor=UNWATCHED,
                    edgecolor="#c4c4c4",
                    hatch="/////",
                    linewidth=0.0,
                    zorder=0.4,
                )
        return axes

    def _held(self, episode: anomalies.Episode) -> tuple[float, float]:
        """From when to when an anomaly held, as far as it is on the time axis; it can always be seen."""
        from_s = max(_seconds(episode.since_utc), self._from_s)
        end_s = max(_seconds(episode.until_utc or episode.seen_utc), from_s)
        return from_s, max(end_s, from_s + (self._to_s - self._from_s) / 1000.0)

    def _text(self, left_in: float, top_in: float, text: str, **options: Any) -> None:  # noqa: ANN401
        self.figure.text(left_in / WIDTH_IN, 1.0 - top_in / self._height_in, text, **options)

    def _heading(self, axes: Axes, title: str, note: str = "") -> None:
        heading(self.figure, axes, title, note)

    def _title(self) -> None:
        told = self._told
        nodes = ", ".join(report.plain(node) for node in told["nodes"][:3])
        self._text(LEFT_IN, 0.34, f"neuromodd  {nodes}", size=LARGE, weight="bold", va="baseline")
        share = told["watched_ratio"]
        watched = "" if share is None else f", {report.percent(share)} of the time watched"
        words = f"{report.span(told)} UTC; {told['frames']:,} frames{watched}"
        self._text(LEFT_IN, 0.53, words, size=USUAL, color=FAINT, va="baseline")

    def _footer(self) -> None:
        within = report.duration(self._columns.width_s)
        band = f"A line is the mean and a band the range within {within}; " if self._folded else ""
        strange = "shaded: an anomaly; " if self._strange else ""
        how = f"{band}{strange}hatched: nobody watched."
        how = how[0].upper() + how[1:]
        self._text(LEFT_IN, self._height_in - 0.32, how, size=SMALL, color=FAINT)
        notes = []
        if self._told["not_measured"]:
            notes.append(f"not measured: {', '.join(self._told['not_measured'])}")
        if self._flat:
            flat = ", ".join(panel.title.partition(" ")[0].strip(":").lower() for panel in self._flat)
            notes.append(f"always 0: {flat}")
        left_out = report.shortened("; ".join(notes), int((WIDTH_IN - LEFT_IN) / LETTER_IN))
        self._text(
            LEFT_IN, self._height_in - 0.16, left_out[:1].upper() + left_out[1:], size=SMALL, color=FAINT
        )

    # Lines

    def _lines(self, axes: Axes, which: Sequence[tuple[int, str]], factor: float) -> None:
        """Mean and range of each level, and its name at the end of the line."""
        columns, mean = self._columns, self._columns.mean
        middle_s = np.clip(columns.start_s + 0.5 * columns.width_s, self._from_s, self._to_s)
        x = traces.line(np.array([_day(of) for of in middle_s]), self._breaks)
        ends: list[tuple[float, str, str]] = []
        for (at, label), (colour, dash) in reversed(list(zip(which, LINES, strict=False))):
            y = traces.line(mean[:, at] * factor, self._breaks)
            if self._folded:
                low = traces.line(columns.low[:, at] * factor, self._breaks)
                high = traces.line(columns.high[:, at] * factor, self._breaks)
                axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0.0)
            axes.plot(
                x, y, color=colour, linestyle=dash, linewidth=1.0, solid_capstyle="butt", dash_capstyle="butt"
            )
            ends.append((float(mean[np.flatnonzero(columns.known[:, at])[-1], at]) * factor, label, colour))
        self._names(axes, ends)

    def _names(self, axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
        """Names right of the axes, each beside the end of its line and none over another."""
        low, high = axes.get_ylim()
        height_in = axes.get_position().height * self._height_in
        scale = height_in / (high - low)
        wanted = [(y - low) * scale for y, _, _ in ends]
        half = 0.5 * SMALL * INCH_A_POINT
        places = traces.apart(wanted, 1.25 * SMALL * INCH_A_POINT, min(half, 0.0), height_in + half)
        for (_, label, colour), place, from_in in zip(ends, places, wanted, strict=True):
            axes.annotate(
                label,
                (1.0, min(max(from_in, 0.0), height_in) / height_in),
                xytext=(1.0 + 0.17 / (TIMED_IN), place / height_in),
                xycoords="axes fraction",
                textcoords="axes fraction",
                size=SMALL,
                color=colour,
                va="center",
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "color": colour,
                    "linewidth": 0.6,
                    "shrinkA": 1,
                    "shrinkB": 1,
                    "relpos": (0.0, 0.5),
                },
            )

    def _levels(self, axes: Axes) -> None:
        highest = float(
            np.nanmax(self._columns.high[:, LEVELS_FROM : LEVELS_FROM + len(LEVEL_NAMES)], initial=1.0)
        )
        axes.set_ylim(0.0, max(1.0, highest) * 1.02)
        axes.set_yticks([0.0, 0.5, 1.0] + ([2.0] if highest > 1.5 else []))  # noqa: PLR2004
        self._lines(axes, [(LEVELS_FROM + at, name) for at, name in enumerate(LEVEL_NAMES)], 1.0)
        self._heading(
            axes, "Neuromodulators", "dopamine: reward; cortisol: stress; acetylcholine: focus; tempo: clock"
        )

    def _panel(self, axes: Axes, panel: traces.Panel) -> None:
        which = [(READING_AT[of.reading], of.label) for of in panel.series]
        at = [place for place, _ in which]
        largest = self._largest(panel) * panel.factor
        factor, prefix = traces.prefixed(largest) if panel.unit else (1.0, "")
        top = panel.top or traces.nice(largest * factor)
        low = 0.0
        if panel.title.startswith("Temperature"):
            smallest = float(np.nanmin(self._columns.low[:, at]))
            low = 10.0 * math.floor(smallest / 10.0)
            top = max(10.0 * math.ceil(largest / 10.0), low + 10.0)
        axes.set_ylim(low, top * 1.02 if low >= 0.0 else top)
        axes.set_yticks([low, (low + top) / 2.0, top])
        axes.yaxis.set_major_formatter("{x:g}")
        self._lines(axes, which, panel.factor * factor)
        self._heading(axes, panel.title.format(unit=f"{prefix}{panel.unit}"))

    def _surprise(self, axes: Axes) -> None:
        threshold, top = self._digest.surprise.threshold, self._surprise_top
        axes.set_ylim(0.0, top * 1.02)
        axes.set_yticks([of for of in (0.0, 0.3, 0.5, 1.0) if of <= top])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.axhline(threshold, color=STRANGE_EDGE, linewidth=0.8, linestyle="--", zorder=1.5)
        if self._columns.known[:, SURPRISE_AT].any():
            self._lines(axes, [(SURPRISE_AT, "all")], 1.0)
        note = (
            f"0.3: one moment in 1,000; 0.5: one in 100,000; dashed: from {threshold:g} on an anomaly begins"
        )
        self._heading(axes, "Surprise", note)

    @property
    def _surprise_top(self) -> float:
        at = [SURPRISE_AT, *(WATCHED_FROM + place for _, place in self._watched)]
        highest = float(np.nanmax(self._columns.high[:, at]))
        return min(max(SURPRISE_TOP, self._digest.surprise.threshold, math.ceil(10.0 * highest) / 10.0), 1.0)

    # Strips

    def _strip(
        self,
        axes: Axes,
        values: NDArray[np.float64],
        names: Sequence[str],
        *,
        cmap: str,
        high: float,
        largest: bool = False,
    ) -> None:
        """Rows of cells, a name to each, and the scale beside them."""
        grid = traces.strip(
            values,
            self._columns,
            self._breaks,
            from_s=self._from_s,
            to_s=self._to_s,
            cells=round(TIMED_IN * DPI),
            largest=largest,
        )
        rows = len(names)
        image = axes.imshow(
            grid,
            aspect="auto",
            interpolation="nearest",
            cmap=cmap,
            vmin=0.0,
            vmax=high,
            extent=(_day(self._from_s), _day(self._to_s), rows - 0.5, -0.5),
            zorder=0.3,
        )
        axes.set_yticks(range(rows), names)
        axes.tick_params(axis="y", length=0.0)
        for row in range(1, rows):
            axes.axhline(row - 0.5, color="white", linewidth=0.8)
        axes.spines[["left", "bottom"]].set_visible(False)
        where = axes.get_position()
        scale = self.figure.add_axes((where.x1 + 0.12 / WIDTH_IN, where.y0, 0.08 / WIDTH_IN, where.height))
        bar = self.figure.colorbar(image, cax=scale, ticks=[0.0, high / 2.0, high])
        above = "+" if float(np.nanmax(values)) > high else ""
        bar.set_ticklabels(["0", f"{high / 2.0:.3g}", f"{high:.3g}{above}"])
        bar.outline.set_linewidth(0.4)
        scale.tick_params(length=2.0, labelsize=SMALL)

    def _surprises(self, axes: Axes) -> None:
        at = [WATCHED_FROM + place for _, place in self._watched]
        names = [report.shortened(report.plain(name), NAME_LETTERS) for name, _ in self._watched]
        self._strip(
            axes, self._columns.high[:, at], names, cmap="Reds", high=self._surprise_top, largest=True
        )

    def _errors(self, axes: Axes) -> None:
        at = [ERROR_FROM + channel for channel in self._present]
        values = self._columns.high[:, at]
        names = [CHANNELS[channel] for channel in self._present]
        self._strip(
            axes, values, names, cmap="Blues", high=traces.nice(float(np.nanmax(values))), largest=True
        )
        self._heading(axes, "Prediction error", "largest |measured - predicted| of each channel")

    def _raster(self, axes: Axes) -> None:
        lif, bank = min(self._digest.lif_neurons, GROUPS), min(self._digest.bank_neurons, len(DRIVES))
        at = [*range(lif), *range(BANK_FROM, BANK_FROM + bank)]
        sums = self._columns.sums
        rates = 100.0 * sums[:, at] / sums[:, [STEPS_AT]]
        names = [*CHANNELS[:lif], *DRIVES[:bank]]
        self._strip(axes, rates, names, cmap="Greys", high=traces.nice(float(np.quantile(rates, 0.99))))
        for label in axes.get_yticklabels()[lif:]:
            label.set_fontstyle("italic")
        if bank:
            axes.axhline(lif - 0.5, color=FAINT, linewidth=0.8)
        per = "neurons" if self._digest.lif_neurons > GROUPS else "neuron"
        note = (
            f"per 100 steps; upright: the LIF {per} of each channel; "
            "italic: the Izhikevich neuron of each drive"
        )
        self._heading(axes, "Spikes", note)

    def _weights(self, axes: Axes) -> None:
        at = [WEIGHTS_FROM + neuron for neuron in self._neurons]
        values = traces.filled(self._columns.mean[:, at])
        names = [CHANNELS[neuron] for neuron in self._neurons]
        self._strip(axes, values, names, cmap="cividis", high=traces.nice(float(np.nanmax(values))))
        self._heading(axes, "Primary weights", "of each LIF neuron for its own channel")

    # Events

    def _events(self, axes: Axes) -> None:
        counts = self._told["rewards"]["counts"]
        names = []
        for row, (kind, mark) in enumerate(MARKS.items()):
            total = sum(of["count"] for of in counts if of["kind"] == kind)
            names.append(WORDS[kind] if total < 2 else f"{WORDS[kind]} \u00d7{total:,}")  # noqa: PLR2004
            self._marks(axes, row, kind, mark, few=total <= REWARDS_KEPT)
        rows = len(MARKS) + 2
        axes.set_ylim(rows - 0.5, -0.5)
        count = self._told["anomalies"]["count"]
        anomaly = f"anomaly \u00d7{count:,}" if count > 1 else "anomaly"
        axes.set_yticks(range(rows), [*names, "fault", anomaly])
        axes.tick_params(axis="y", length=0.0)
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_visible(False)
        for row in range(rows):
            axes.axhline(row, color=RULE, linewidth=0.5, zorder=0.2)
        self._faults(axes, rows - 2)
        self._anomalies(axes, rows - 1)
        self._tell_gaps(axes, rows - 2)
        self._heading(axes, "Events", "filled: detected here, hollow: from outside")

    def _marks(self, axes: Axes, row: int, kind: str, mark: str, *, few: bool) -> None:
        """A mark for each column with such rewards; where there are few of them, what they were."""
        columns = self._columns
        size = 46.0 if mark == "*" else 20.0
        for origin in ORIGINS:
            here = columns.sums[:, REWARDS_FROM + reward_at(kind, origin)] > 0
            x = [_day(of + 0.5 * columns.width_s) for of in columns.start_s[here]]
            fill = INK if origin == "detected" else "white"
            axes.scatter(
                x,
                [row] * len(x),
                s=size,
                marker=mark,
                facecolor=fill,
                edgecolor=INK,
                linewidth=0.7,
                zorder=3,
                clip_on=False,
            )
        if few:
            self._tell(axes, row, self._digest.rewards.kept[kind])

    def _tell(self, axes: Axes, row: int, events: Sequence[tuple[datetime, RewardEvent]]) -> None:
        """Words right of each mark, as far as they fit before the next."""
        times = sorted((time_utc.timestamp(), at) for at, (time_utc, _) in enumerate(events))
        for (time_s, at), (next_s, _) in pairwise((*times, (math.inf, 0))):
            self._beside(axes, time_s, row, traces.words(events[at][1]), next_s)

    def _beside(self, axes: Axes, time_s: float, row: int, words: str, next_s: float) -> None:
        """Words right of a mark, if they fit before the next one, or before the edge of the picture."""
        room_s = min(next_s, self._to_s + RIGHT_IN * self._inch_s) - time_s
        if len(words) * LETTER_IN + 0.15 > room_s / self._inch_s:
            return
        axes.annotate(
            words,
            (_day(time_s), row),
            xytext=(6, 0),
            textcoords="offset points",
            size=SMALL,
            va="center",
            zorder=4,
            bbox=PAPER,
            annotation_clip=False,
        )

    def _faults(self, axes: Axes, row: int) -> None:
        if not self._digest.episodes:
            self._none(axes, row, "none")
        episodes = self._digest.episodes
        for at, episode in enumerate(episodes):
            from_s = max(_seconds(episode.since_utc), self._from_s)
            to_s = max(_seconds(episode.until_utc or episode.seen_utc), from_s)
            x = _day(from_s)
            axes.barh(
                row,
                max(_day(to_s) - x, 1e-9),
                left=x,
                height=0.5,
                facecolor="white",
                edgecolor=INK,
                hatch="xxxxx",
                linewidth=0.7,
                zorder=2.5,
            )
            next_s = _seconds(episodes[at + 1].since_utc) if at + 1 < len(episodes) else math.inf
            self._beside(axes, to_s, row, episode.fault.fault_class.code, next_s)

    def _none(self, axes: Axes, row: int, words: str) -> None:
        axes.annotate(
            words,
            (0.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(2, 0),
            textcoords="offset points",
            size=SMALL,
            va="center",
            color=FAINT,
            bbox=PAPER,
        )

    def _anomalies(self, axes: Axes, row: int) -> None:
        """A bar for each, and the channels that were strange, if there is room."""
        if not self._strange:
            self._none(axes, row, "none" if self._told["surprise"] else "not looked for")
        for at, episode in enumerate(self._strange):
            from_s, to_s = self._held(episode)
            x = _day(from_s)
            axes.barh(
                row,
                _day(to_s) - x,
                left=x,
                height=0.5,
                facecolor=STRANGE_EDGE,
                edgecolor=STRANGE_EDGE,
                linewidth=0.7,
                zorder=2.5,
            )
            next_s = self._held(self._strange[at + 1])[0] if at + 1 < len(self._strange) else math.inf
            names = ", ".join(report.plain(channel.name) for channel in episode.anomaly.channels)
            self._beside(axes, to_s, row, report.shortened(names, 2 * NAME_LETTERS), next_s)

    def _tell_gaps(self, axes: Axes, row: int) -> None:
        """Why nobody watched and how long, within the gap if there is room."""
        for gap in self._gaps:
            room_in = (gap.to_utc - gap.from_utc).total_seconds() / self._inch_s
            kind = GAPS[gap.kind]
            tries = (f"{kind} {report.duration(gap.seconds)}", kind)
            words = next((of for of in tries if len(of) * LETTER_IN < room_in), None)
            if words is not None:
                middle = 0.5 * (_day(gap.from_utc.timestamp()) + _day(gap.to_utc.timestamp()))
                axes.text(middle, row, words, size=SMALL, color=FAINT, ha="center", va="center", bbox=PAPER)

    # Maps

    def _maps_height_in(self) -> float:
        return 1.05 + CELL_IN * len(self._neurons) if self._neurons else 0.0

    def _maps(self, top_in: float) -> None:
        """All weights at the start, at the end, and what has become of them."""
        start, end = self._digest.start, self._digest.end
        if start is None or end is None:
            return
        rows, inputs = self._neurons, self._present
        before = np.array(start.weights)[np.ix_(rows, inputs)]
        after = np.array(end.weights)[np.ix_(rows, inputs)]
        most = max(float(np.abs(after - before).max()), 0.01)
        width_in = (WIDTH_IN - LEFT_IN - 0.35 - 2 * 0.3) / 3.0
        maps = (
            ("Weights after the first frame", before, "cividis", 0.0, 2.0),
            ("Weights after the last", after, "cividis", 0.0, 2.0),
            ("What has changed", after - before, "PuOr_r", -most, most),
        )
        for at, (title, values, cmap, low, high) in enumerate(maps):
            left_in = LEFT_IN + at * (width_in + 0.3)
            axes = self._axes(left_in, top_in + 1.0, width_in, CELL_IN * len(rows))
            axes.imshow(values, aspect="auto", cmap=cmap, vmin=low, vmax=high)
            self._figures(axes, values, cmap, low, high)
            axes.set_xticks(range(len(inputs)), [CHANNELS[of] for of in inputs])
            axes.set_yticks(range(len(rows)), [CHANNELS[of] for of in rows] if at == 0 else [""] * len(rows))
            axes.tick_params(
                length=0.0, labelsize=SMALL, top=True, labeltop=True, bottom=False, labelbottom=False
            )
            for label in axes.get_xticklabels():
                label.set(rotation=35, ha="left", rotation_mode="anchor")
            axes.spines[:].set_visible(False)
            self._text(left_in, top_in + 0.42, title, size=USUAL, weight="bold")
        where = {"size": SMALL, "color": FAINT, "va": "center", "ha": "right"}
        self._text(LEFT_IN - 0.06, top_in + 0.93, "neuron \\ input", **where)

    def _figures(self, axes: Axes, values: NDArray[np.float64], cmap: str, low: float, high: float) -> None:
        from matplotlib import colormaps  # noqa: PLC0415 - as above

        for (row, column), value in np.ndenumerate(values):
            red, green, blue, _ = colormaps[cmap]((value - low) / (high - low))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55  # noqa: PLR2004 - luma
            axes.text(
                column,
                row,
                traces.figure(float(value), signed=low < 0.0),
                ha="center",
                va="center",
                size=SMALL,
                color="white" if dark else INK,
            )


def _day(time_s: float) -> float:
    """A time as matplotlib's dates are: days since the epoch."""
    return time_s / 86400.0


def _seconds(time: datetime | None) -> float:
    return 0.0 if time is None else time.timestamp()
