"""The picture of surprise: what was measured, what was expected, and how strange that was.

Blue is what was expected, black what came, purple what was strange. Nothing is told by colour alone: what was
expected is a band and what came a line, strange moments have marks, and the strangest are told in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from neuromodd.core.anomaly import Anomaly
from neuromodd.dashboard import report, traces
from neuromodd.dashboard.canvas import (
    DPI,
    FAINT,
    INK,
    LARGE,
    LETTER_IN,
    RULE,
    SMALL,
    USUAL,
    WIDTH_IN,
    accessible,
    heading,
    left_below,
    mark_times,
    saved,
    style,
)
from neuromodd.dashboard.surprise_digest import PARTS, Episode, SurpriseDigest, column
from neuromodd.errors import InvalidValueError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

Format = Literal["png", "svg", "pdf"]
FORMATS: tuple[Format, ...] = ("png", "svg", "pdf")

LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN = 0.8, 0.55, 0.66, 0.34
NUMBERS_IN, ZONE_PT = 0.13, 30.0
HEADING_IN, BETWEEN_IN, TIMES_IN = 0.22, 0.14, 0.2
ROW_IN, LINE_IN = 0.145, 0.165
TIMED_IN = WIDTH_IN - LEFT_IN - RIGHT_IN

PANELS_MAX, STRIPS_MAX, TOLD_MAX = 12, 40, 8
EXPECTED, STRANGE, SHADE = "#0072b2", "#a3376f", "#f6e3ee"
STRANGE_FROM = 0.3
"""One normal moment in a thousand is as strange."""

MARKS_MAX = 120
"""In a long recording there is a strange moment in each column: the strangest have marks."""

BREAK_STEPS = 4.0
"""A line ends where the next column is so many times farther away than nearly all others are."""


def form_of(out: Path) -> Format:
    """The format that the name of a file asks for.

    Raises:
        InvalidValueError: it has another ending.
    """
    ending = out.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        expected = f"a name that ends in .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}"
        raise InvalidValueError("--plot", str(out), expected)
    return ending


def drawn(digest: SurpriseDigest, title: str, form: Format) -> bytes:
    """The picture as the bytes of a file."""
    title = report.plain(title)
    with style():
        picture = _Picture(digest, title)
        words = _described(digest)
        if form == "png":
            named = {"Title": f"neuromodd: {title}", "Description": words, "Software": None}
            return saved(picture.figure, "png", named)
        if form == "pdf":
            named = {"Title": f"neuromodd: {title}", "Subject": words, "Creator": None, "Producer": None}
            return saved(picture.figure, "pdf", {**named, "CreationDate": None})
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        svg = saved(picture.figure, "svg", unsaid).decode()
        return accessible(svg, f"neuromodd: {title}", words).encode()


def _described(digest: SurpriseDigest) -> str:
    told = " ".join(f"{_since(of, digest)}: {of.anomaly.sentence}." for of in _told(digest))
    return (
        f"Readings over what was expected of them, and their surprise below: {digest.rows:,} rows of "
        f"{len(digest.names)} channels, {digest.anomalies} anomalies. {told}"
    )


def _told(digest: SurpriseDigest) -> list[Episode]:
    """The strangest anomalies in order of time, as many as there is room for."""
    strangest = sorted(digest.episodes(), key=lambda of: -of.anomaly.surprise)[:TOLD_MAX]
    return sorted(strangest, key=lambda of: of.begin)


def _since(episode: Episode, digest: SurpriseDigest) -> str:
    return _place(episode.begin, timed=digest.timed)


def _place(at: float, *, timed: bool) -> str:
    """A time to the second, or the number of a row."""
    if not timed:
        return f"row {at:,.0f}"
    return datetime.fromtimestamp(at, UTC).isoformat(" ", "seconds")[:19]


class _Slot(NamedTuple):
    """A panel: its height, what fills it, and whether the times stand below."""

    height_in: float
    draw: Callable[[Axes], None]
    timed: bool = False


class _Picture:
    """Draws a digest from top to bottom; all places are in inches."""

    def __init__(self, digest: SurpriseDigest, title: str) -> None:
        from matplotlib.figure import Figure  # noqa: PLC0415 - large, and an extra

        self._digest = digest
        self._columns = digest.columns()
        order = digest.strangest_first()
        measured = [of for of in order if not np.isnan(column(self._columns.mean, of, 0)).all()]
        self._order = measured or order
        self._never = [digest.names[of] for of in order if of not in self._order]
        self._episodes, self._told = digest.episodes(), _told(digest)
        self._begin = digest.begin
        self._end = max(digest.end, digest.begin + 1.0)
        self._breaks = _breaks(self._columns.start_s)
        middle = self._columns.start_s + (0.5 * self._columns.width_s if self._folded else 0.0)
        self._middle = np.clip(middle, self._begin, self._end)
        self._x = traces.line(self._axis(self._middle), self._breaks)
        slots = self._slots()
        above_in = BETWEEN_IN + HEADING_IN
        timed_in = [slot.height_in + above_in + (TIMES_IN if slot.timed else 0.0) for slot in slots]
        words_in = 0.3 + LINE_IN * len(self._told) if self._told else 0.0
        self._height_in = TOP_IN + sum(timed_in) + words_in + BOTTOM_IN
        self.figure = Figure(figsize=(WIDTH_IN, self._height_in), facecolor="white")
        self._title(title)
        top_in = TOP_IN
        for at, (slot, height_in) in enumerate(zip(slots, timed_in, strict=True)):
            axes = self._axes(top_in + above_in, slot, numbered=at == 0)
            slot.draw(axes)
            top_in += height_in
        self._words(top_in)
        self._footer()

    @property
    def _folded(self) -> bool:
        return bool(np.median(self._columns.frames) > 1)

    @property
    def _shown(self) -> list[int]:
        return self._order[:PANELS_MAX]

    def _slots(self) -> list[_Slot]:
        shown = self._shown
        height_in = 2.6 if len(shown) == 1 else 1.25 if len(shown) < 5 else 0.78  # noqa: PLR2004
        slots = [_Slot(height_in, partial(self._channel, channel=of)) for of in shown]
        several = len(self._order) > 1
        slots.append(_Slot(0.8, self._surprise, timed=not several))
        if several:
            rows = min(len(self._order), STRIPS_MAX)
            slots.append(_Slot(ROW_IN * rows, self._strips, timed=True))
        return slots

    # Places

    def _axis(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        # Matplotlib counts days.
        return at / 86400.0 if self._digest.timed else at

    def _axes(self, top_in: float, slot: _Slot, *, numbered: bool) -> Axes:
        """Axes over the time axis, on which the anomalies are shaded."""
        bottom_in = self._height_in - top_in - slot.height_in
        axes = self.figure.add_axes(
            (
                LEFT_IN / WIDTH_IN,
                bottom_in / self._height_in,
                TIMED_IN / WIDTH_IN,
                slot.height_in / self._height_in,
            )
        )
        low, high = self._axis(np.array([self._begin, self._end]))
        axes.set_xlim(low, high)
        # What is shorter than a pixel is to be seen all the same.
        least = (high - low) / (TIMED_IN * DPI)
        for episode in self._episodes:
            begin, end = self._axis(np.array([episode.begin, episode.end]))
            axes.axvspan(begin, max(end, begin + least), facecolor=SHADE, edgecolor="none", zorder=0.05)
        if numbered:
            self._number(axes)
        if self._digest.timed:
            mark_times(axes, told=slot.timed, zone_pt=ZONE_PT)
        else:
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.grid(axis="x", color=RULE, linewidth=0.5, zorder=0.1)
            axes.set_axisbelow(True)
            axes.tick_params(axis="x", labelbottom=slot.timed, length=3.0 if slot.timed else 0.0)
            if slot.timed:
                left_below(axes, "row", ZONE_PT)
        return axes

    def _number(self, axes: Axes) -> None:
        """The numbers of the anomalies that are told below, above their begin."""
        begins = self._axis(np.array([of.begin for of in self._told] or [self._begin]))
        low, high = axes.get_xlim()
        scale = TIMED_IN / (high - low)
        wanted = [(float(begin) - low) * scale for begin in begins]
        places = traces.apart(wanted, 2.2 * LETTER_IN, 0.0, TIMED_IN)
        for number, (_, place) in enumerate(zip(self._told, places, strict=False), 1):
            axes.annotate(
                str(number),
                (place / TIMED_IN, 1.0),
                xytext=(0.0, 2.0),
                xycoords="axes fraction",
                textcoords="offset points",
                size=SMALL,
                weight="bold",
                color=STRANGE,
                ha="left",
                va="bottom",
                annotation_clip=False,
                zorder=6,
            )

    def _text(self, left_in: float, top_in: float, text: str, **options: Any) -> None:  # noqa: ANN401
        self.figure.text(left_in / WIDTH_IN, 1.0 - top_in / self._height_in, text, **options)

    def _title(self, title: str) -> None:
        digest, count = self._digest, self._digest.anomalies
        self._text(LEFT_IN, 0.34, f"neuromodd  {title}", size=LARGE, weight="bold", va="baseline")
        span = ""
        if digest.timed:
            first, last = (_place(of, timed=True) for of in (digest.begin, digest.end))
            span = f"{first} to {last} UTC; "
        channels = "1 channel" if len(digest.names) == 1 else f"{len(digest.names)} channels"
        what = f"{count:,} anomal{'y' if count == 1 else 'ies'}"
        if count > len(self._episodes):
            what += f", the {len(self._episodes)} strangest shaded"
        words = f"{span}{digest.rows:,} rows of {channels}; {what}"
        self._text(LEFT_IN, 0.53, words, size=USUAL, color=FAINT, va="baseline")

    def _footer(self) -> None:
        parts = []
        if self._folded:
            width = self._columns.width_s
            within = report.duration(width) if self._digest.timed else f"{width:,.0f} rows"
            parts.append(f"A line is the mean and the grey around it the range within {within}")
        left = len(self._order) - len(self._shown)
        if left:
            names = ", ".join(report.plain(self._digest.names[of]) for of in self._order[PANELS_MAX:])
            parts.append(f"{left} less strange channels are not drawn: {names}")
        if self._never:
            parts.append(f"never measured: {', '.join(map(report.plain, self._never))}")
        words = report.shortened("; ".join(parts), int((WIDTH_IN - LEFT_IN) / LETTER_IN))
        self._text(LEFT_IN, self._height_in - 0.14, words, size=SMALL, color=FAINT)

    # Panels

    def _channel(self, axes: Axes, channel: int) -> None:
        columns = self._columns
        smallest, largest = column(columns.low, channel, 0), column(columns.high, channel, 0)
        mean, strange = column(columns.mean, channel, 0), column(columns.high, channel, 3)
        low, high = column(columns.mean, channel, 1), column(columns.mean, channel, 2)
        factor, prefix = _scale(smallest, largest)
        x, line = self._x, partial(traces.line, places=self._breaks)
        axes.fill_between(
            x, line(low * factor), line(high * factor), color=EXPECTED, alpha=0.25, linewidth=0.0, zorder=1
        )
        if self._folded:
            within = (line(smallest * factor), line(largest * factor))
            axes.fill_between(x, *within, color=INK, alpha=0.45, linewidth=0.4, zorder=2)
            for edge in (low, high):
                axes.plot(x, line(edge * factor), color=EXPECTED, linewidth=0.7, zorder=2.5)
        axes.plot(x, line(mean * factor), color=INK, linewidth=0.8, zorder=3, solid_joinstyle="round")
        here = np.flatnonzero(strange >= STRANGE_FROM)
        here = np.sort(here[np.argsort(-strange[here], kind="stable")][:MARKS_MAX])
        above = (largest - high) >= (low - smallest)
        y = np.where(above, largest, smallest)[here] * factor
        sizes = 3.0 + 12.0 * strange[here]
        at = self._axis(self._middle[here])
        axes.scatter(at, y, s=sizes, color=STRANGE, linewidth=0.0, zorder=4, clip_on=False)
        self._limits(axes, smallest * factor, largest * factor)
        name = report.plain(self._digest.names[channel])
        self._heading(axes, f"{name} ({prefix})" if prefix else name, self._note(channel), channel)

    def _limits(self, axes: Axes, smallest: NDArray[np.float64], largest: NDArray[np.float64]) -> None:
        """As far as the readings go: a band that is wider does not make them small."""
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

        if np.isnan(smallest).all():
            axes.set_yticks([])
            axes.text(0.5, 0.5, "never measured", transform=axes.transAxes, size=SMALL, color=FAINT)
            return
        low, high = float(np.nanmin(smallest)), float(np.nanmax(largest))
        margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3 if len(self._shown) > 1 else 6))
        axes.yaxis.set_major_formatter("{x:,.6g}")

    def _heading(self, axes: Axes, title: str, note: str, channel: int) -> None:
        # Above the first there are the numbers of the anomalies.
        first = bool(self._told) and channel == self._order[0]
        heading(self.figure, axes, title, note, up_in=NUMBERS_IN if first else 0.0)

    def _note(self, channel: int) -> str:
        """When the channel was strangest."""
        most = self._digest.strangest[channel]
        if most is None:
            return "too little is known of it"
        at, of = most
        words = f"strangest, {of.surprise:.2f}, {_place(at, timed=self._digest.timed)}"
        if of.observed is None or of.low is None or of.high is None:
            return words
        return f"{words}: {_figure(of.observed)}, where {_figure(of.low)} to {_figure(of.high)} was expected"

    def _surprise(self, axes: Axes) -> None:
        total = self._columns.high[:, PARTS * len(self._digest.names)]
        y = traces.line(total, self._breaks)
        threshold = self._digest.threshold
        axes.fill_between(self._x, 0.0, y, color=STRANGE, alpha=0.35, linewidth=0.0, zorder=1)
        axes.plot(self._x, y, color=STRANGE, linewidth=0.8, zorder=2)
        axes.axhline(threshold, color=INK, linewidth=0.7, linestyle=(0, (4, 2)), zorder=3)
        axes.set_ylim(0.0, 1.04)
        axes.set_yticks([0.0, 0.5, 1.0])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.annotate(
            f"{threshold:g}",
            (1.0, threshold),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            size=SMALL,
            va="center",
            annotation_clip=False,
        )
        title = "Surprise of all" if len(self._order) > 1 else "Surprise"
        note = "0.3: one normal moment in a thousand is as strange, 0.5: one in 100,000; dashed: threshold"
        heading(self.figure, axes, title, note)

    def _strips(self, axes: Axes) -> None:
        """A row of cells for each channel: the largest surprise within a cell."""
        shown = self._order[:STRIPS_MAX]
        values = self._columns.high[:, [PARTS * of + 3 for of in shown]]
        grid = traces.strip(
            values,
            self._columns,
            self._breaks,
            from_s=self._begin,
            to_s=self._end,
            cells=round(TIMED_IN * DPI),
            largest=True,
        )
        rows = len(shown)
        low, high = axes.get_xlim()
        image = axes.imshow(
            grid,
            aspect="auto",
            interpolation="nearest",
            cmap="RdPu",
            vmin=0.0,
            vmax=1.0,
            extent=(low, high, rows - 0.5, -0.5),
            zorder=0.3,
        )
        names = [report.shortened(report.plain(self._digest.names[of]), 12) for of in shown]
        axes.set_yticks(range(rows), names)
        axes.tick_params(axis="y", length=0.0)
        for row in range(1, rows):
            axes.axhline(row - 0.5, color="white", linewidth=0.8)
        axes.spines[["left", "bottom"]].set_visible(False)
        where = axes.get_position()
        scale = self.figure.add_axes((where.x1 + 0.1 / WIDTH_IN, where.y0, 0.08 / WIDTH_IN, where.height))
        bar = self.figure.colorbar(image, cax=scale, ticks=[0.0, 0.5, 1.0])
        bar.set_ticklabels(["0", "0.5", "1"])
        bar.outline.set_linewidth(0.4)
        scale.tick_params(length=2.0, labelsize=SMALL)
        left = len(self._order) - rows
        heading(self.figure, axes, "Surprise by channel", f"the {rows} strangest" if left else "")

    def _words(self, top_in: float) -> None:
        """The strangest anomalies in words."""
        if not self._told:
            return
        more = self._digest.anomalies - len(self._told)
        title = f"The {len(self._told)} strangest anomalies" if more > 0 else "Anomalies"
        self._text(LEFT_IN, top_in + 0.2, title, size=USUAL, weight="bold", va="baseline")
        for at, episode in enumerate(self._told, 1):
            line_in = top_in + 0.22 + LINE_IN * at
            anomaly = episode.anomaly
            cells: tuple[tuple[float, str, dict[str, Any]], ...] = (
                (0.0, f"{at}", {"color": STRANGE, "weight": "bold"}),
                (0.17, _since(episode, self._digest), {}),
                (1.42, self._lasted(anomaly, episode), {}),
                (2.2, f"{anomaly.surprise:.2f}", {"color": STRANGE}),
                (2.55, _sentence(anomaly, TIMED_IN + RIGHT_IN - 2.6), {}),
            )
            for left_in, text, options in cells:
                self._text(LEFT_IN + left_in, line_in, text, size=SMALL, va="baseline", **options)

    def _lasted(self, anomaly: Anomaly, episode: Episode) -> str:
        if self._digest.timed:
            lasted = report.duration(episode.end - episode.begin)
        else:
            lasted = f"{episode.end - episode.begin:,.0f} rows"
        return lasted if anomaly.phase == "end" else f"{lasted} …"


def _sentence(anomaly: Anomaly, room_in: float) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in anomaly.sentence)
    return report.shortened(text, int(room_in / (0.52 * SMALL / 72.0)))


def _figure(value: float) -> str:
    """A reading in four digits, with all before the point while there are not too many."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"  # noqa: PLR2004


def _breaks(start: NDArray[np.float64]) -> list[int]:
    """The columns before which nothing was measured."""
    if len(start) < 3:  # noqa: PLR2004 - with fewer there is no usual step
        return []
    steps = np.diff(start)
    usual = float(np.quantile(steps, 0.95))
    return [int(at) + 1 for at in np.flatnonzero(steps > BREAK_STEPS * usual)]


def _scale(smallest: NDArray[np.float64], largest: NDArray[np.float64]) -> tuple[float, str]:
    """A factor and its SI prefix for readings of many digits."""
    most = float(np.nanmax(np.abs([smallest, largest]), initial=0.0))
    return traces.prefixed(most) if most >= 1e5 and math.isfinite(most) else (1.0, "")  # noqa: PLR2004
