"""One node, drawn in as much room as there is: levels, surprise, spikes, measures, health, time line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest

from neuromodd.core.encoding import CHANNELS, DRIVES
from neuromodd.dashboard import lines, measures
from neuromodd.dashboard.glyphs import Glyphs, age, amount, fitted, wrapped
from neuromodd.dashboard.happenings import WELL, Happening
from neuromodd.dashboard.lines import BLANK, Line, Piece, Style, beside, clipped, heading
from neuromodd.dashboard.strange import rarity, words
from neuromodd.dashboard.watch import BANK_SHOWN, COLUMNS, LEVELS, LIF_SHOWN, Node

TWO_COLUMNS = 72
"""Narrower, all is in one column, and is scrolled."""

TALL = 29
"""From so many rows on there is room for longer histories, and for air."""

LABEL = 14
SHORT_LABEL = 12
SPAN_S = 120.0
"""What the sparklines show, whatever their width: a character may stand for several ticks."""

FULL_RATE = 0.2
"""Spikes a step that are drawn as high as it goes: four in a tick of twenty steps."""

SURPRISE_TOPS = (0.5, 1.0)
ERROR_TOPS = (0.05, 0.1, 0.2, 0.5, 1.0)
SPACES = "   "
"""Between the parts of a heading."""

CHANNELS_SHOWN = 10
"""Of more channels the strangest of the time that is shown."""

EVENTS_LEAST = 1
EVENTS_SCROLLED = 9
FAILING_SHOWN = 3
EVENT_LINES = 4
INDENT = 18
_STYLES: dict[str, Style] = {
    "dopamine": "dopamine",
    "cortisol": "cortisol",
    "acetylcholine": "acetylcholine",
    "tempo": "tempo",
}
_DRIVE_LABELS = tuple(name if name == "instability" else f"{name} drive" for name in DRIVES)
_SCALES = {"celsius": (20.0, 100.0), "ratio": (0.0, 1.0)}
_KINDS: dict[str, Style] = {
    "reward": "dopamine",
    "fault": "bad",
    "well": "good",
    "anomaly": "bad",
    "calm": "good",
}
_TOPICS = {"well": "fault", "calm": "anomaly"}


class CloseUp:
    """What is drawn of one node.

    Args:
        node: that is looked at.
        glyphs: to draw with.
        now_s: the monotonic time.
        columns: of the screen.
    """

    def __init__(self, node: Node, glyphs: Glyphs, now_s: float, columns: int) -> None:
        self._node = node
        self._glyphs = glyphs
        self._now_s = now_s
        self._columns = columns
        self._half = (columns - 2) // 2 if columns >= TWO_COLUMNS else columns
        self._states = list(node.states)

    def lines(self, rows: int) -> list[Line]:
        """The page; more lines than `rows` only where it can't be made smaller."""
        if self._columns < TWO_COLUMNS:
            return [clipped(line, self._columns) for line in self._in_one_column()]
        tall = rows >= TALL
        gap = [BLANK] if tall else []
        right = list(self._raster())
        if tall:
            right += [BLANK, heading("health", self._glyphs, self._half), *self._health(self._half)]
        left = list(self._surprise())
        left.append(heading("telemetry", self._glyphs, self._half))
        left += self._measures(self._half)[: max(len(right) - len(left), 0)]
        both = [
            beside(one or BLANK, other or BLANK, self._columns) for one, other in zip_longest(left, right)
        ]
        health = [] if tall else list(self._health(self._columns))
        page = [*self._anomaly(), *self._levels(tall=tall), *gap, *both, *gap, *health, *self._failing()]
        return [*page, *self._events(max(rows - len(page) - 1, EVENTS_LEAST))]

    def _in_one_column(self) -> list[Line]:
        return [
            *self._anomaly(),
            *self._levels(tall=True),
            *self._surprise(),
            *self._raster(),
            heading("telemetry", self._glyphs, self._columns),
            *self._measures(self._columns),
            *self._health(self._columns),
            *self._failing(),
            *self._events(EVENTS_SCROLLED),
        ]

    def _history(self, name: str, width: int) -> list[float]:
        """The means of so many spans up to now; not a number where nothing was measured."""
        return self._past(COLUMNS[name], width)

    def _past(self, place: int, width: int) -> list[float]:
        # Of a channel that is new, the rows before have nothing.
        values = [row[place] if place < len(row) else math.nan for row in self._states]
        return self._spans(values, self._node.taken, width)

    def _spans(self, values: Sequence[float], taken: int, width: int) -> list[float]:
        per = self._ticks_a_span(width)
        # Spans begin where their number says: what is drawn of the past does not change with each tick.
        last = taken // per
        sums, counts = [0.0] * width, [0] * width
        for back, value in enumerate(reversed(values)):
            column = width - 1 - (last - (taken - back) // per)
            if column < 0:
                break
            if not math.isnan(value):
                sums[column] += value
                counts[column] += 1
        return [sum_ / count if count else math.nan for sum_, count in zip(sums, counts, strict=True)]

    def _ticks_a_span(self, width: int) -> int:
        return max(math.ceil(SPAN_S / self._node.interval_s / max(width, 1)), 1)

    def _levels(self, *, tall: bool) -> Iterator[Line]:
        cells = [self._level(name, self._columns if tall else self._half) for name in LEVELS]
        if tall:
            yield from cells
            return
        yield beside(cells[0], cells[2], self._columns)
        yield beside(cells[1], cells[3], self._columns)

    def _level(self, name: str, width: int) -> Line:
        value = self._node.levels.get(name)
        high = 2.0 if name == "tempo" else 1.0
        bar = 20 if width > self._half else 6
        style = _STYLES[name]
        shown = "-" if value is None else f"{value:.2f}"
        filled = self._glyphs.bar(None if value is None else value / high, bar)
        empty = filled.lstrip(self._glyphs.full)
        spark = width - LABEL - 5 - bar - 2
        return (
            Piece(fitted(name, LABEL), "plain"),
            Piece(f"{shown:>5} ", "bold"),
            Piece(filled[: len(filled) - len(empty)], style),
            Piece(f"{empty} ", "rule"),
            Piece(self._glyphs.spark(self._history(name, spark), 0.0, high), style),
        )

    def _anomaly(self) -> Iterator[Line]:
        """What is strange, on as many lines as it takes; none where nothing is."""
        if not self._node.anomalous:
            return
        told = self._node.anomaly
        since = f"since {told.since_utc} UTC: " if told and told.since_utc else ""
        said = told.sentence if told else "it began before this view did, which has not heard what is strange"
        begin = f"ANOMALY {since}"
        first, *rest = wrapped(said, self._columns - len(begin), self._columns - 2)
        yield (Piece(begin, "bad"), Piece(first))
        yield from ((Piece("  "), Piece(text)) for text in rest[: EVENT_LINES - 1])

    def _surprise(self) -> Iterator[Line]:
        node = self._node
        newest = self._states[-1][COLUMNS["surprise"]] if self._states else math.nan
        known = "-" if math.isnan(newest) else f"{newest:.3f}"
        rare = f", {rarity(newest)}" if node.calibrated and not math.isnan(newest) else ""
        width = max(self._half - LABEL - 6, 0)
        present = self._surprises(width)
        known_values = (value for _, of, _ in present for value in of if not math.isnan(value))
        highest = max(known_values, default=0.0)
        tops = SURPRISE_TOPS if node.calibrated else ERROR_TOPS
        top = next((top for top in tops if highest <= top), tops[-1])
        span = age(width * self._ticks_a_span(width) * node.interval_s)
        title = "surprise" if node.calibrated else "prediction error"
        value: Line = (Piece(f"{known}{rare}", "surprise"),)
        room = self._half - len(title) - lines.width(value) - len(SPACES)
        notes = (f"{span}, 0 to {top:g}", f"0 to {top:g}")
        yield heading(
            title, self._glyphs, self._half, value, next((note for note in notes if len(note) <= room), "")
        )
        for name, history, now in present:
            yield (
                Piece(fitted(words(name), LABEL)),
                Piece(f"{'-' if math.isnan(now) else f'{now:.3f}':>5} ", "bold"),
                Piece(self._glyphs.spark(history, 0.0, top), "surprise"),
            )
        yield from self._silent([name for name, _, _ in present])

    def _surprises(self, width: int) -> list[tuple[str, list[float], float]]:
        """Of each channel that tells, its name, its history and its newest; of too many the strangest."""
        found = []
        for place, name in enumerate(self._node.channels, len(COLUMNS)):
            history = self._past(place, width)
            if not all(map(math.isnan, history)):
                row = self._states[-1]
                found.append((name, history, row[place] if place < len(row) else math.nan))
        if len(found) <= CHANNELS_SHOWN:
            return found
        found.sort(key=lambda of: -max(value for value in of[1] if not math.isnan(value)))
        return found[:CHANNELS_SHOWN]

    def _silent(self, shown: Sequence[str]) -> Iterator[Line]:
        absent = [name for name in self._node.channels if name not in shown]
        if shown and not absent:
            return
        names = ", ".join(map(words, absent))
        more = f"{len(absent)} more" if len(shown) == CHANNELS_SHOWN else f"nothing of {names}"
        said = more if shown else "nothing known yet" if absent else "nothing is watched"
        yield (Piece(fitted(said, self._half), "dim"),)

    def _raster(self) -> Iterator[Line]:
        lif, bank = self._node.neurons
        known = min(lif, LIF_SHOWN) + min(bank, BANK_SHOWN)
        of_all = f" of {lif + bank}" if lif + bank > known else ""
        width = max(self._half - SHORT_LABEL - 1, 0)
        span = age(width * self._node.interval_s)
        yield heading("spikes", self._glyphs, self._half, (), f"{known}{of_all} neurons, {span}")
        rows = self._states[-width:] if width else []
        for kind, names in (("lif", CHANNELS), ("bank", _DRIVE_LABELS)):
            for neuron, name in enumerate(names):
                place = COLUMNS[f"{kind}.{neuron}"]
                drawn = self._glyphs.spikes([row[place] for row in rows], FULL_RATE)
                yield (
                    Piece(fitted(name.replace("_", " "), SHORT_LABEL), "plain" if kind == "lif" else "dim"),
                    Piece(f" {drawn:>{width}}", "spikes"),
                )

    def _measures(self, width: int) -> list[Line]:
        rows = list(self._node.telemetry)
        newest = rows[-1] if rows else {}
        return [self._measure(label, newest, rows, width) for label in newest]

    def _measure(
        self, label: str, newest: dict[str, float], rows: Sequence[dict[str, float]], width: int
    ) -> Line:
        unit = measures.ALL[label].unit
        value, shown_unit = amount(newest[label], unit, self._glyphs)
        spark = max(width - LABEL - 5 - 1 - 6, 0)
        values = [row.get(label, math.nan) for row in rows]
        history = self._spans(values, self._node.telemetry_taken, spark)
        highest = max((value for value in history if not math.isnan(value)), default=0.0)
        low, high = _SCALES.get(unit, (0.0, highest or 1.0))
        return (
            Piece(fitted(label, LABEL - 1)),
            Piece(f"{value:>6} ", "bold"),
            Piece(fitted(shown_unit, 6), "dim"),
            Piece(self._glyphs.spark(history, low, high), "measure"),
        )

    def _health(self, columns: int) -> Iterator[Line]:
        condition = self._node.condition
        if condition is None:
            yield (Piece("health      "), Piece("nothing heard yet", "dim"))
            return
        sensors = [f"{count} {state}" for state, count in condition.sensors.items() if count or state == "ok"]
        since_s = condition.checkpoint_s(self._now_s)
        checkpoint = "none yet" if since_s is None else f"{age(since_s)} ago, {condition.written} written"
        dropped = f", {condition.dropped} dropped" if condition.dropped else ""
        told = (
            ("broker", f"MQTT {condition.protocol or '?'}, {condition.waiting} waiting{dropped}"),
            ("sensors", ", ".join(sensors)),
            ("checkpoint", checkpoint),
            ("ticks", f"{condition.late} late, {condition.missed} missed"),
        )
        cells: list[Line] = [(Piece(fitted(name, SHORT_LABEL)), Piece(what, "dim")) for name, what in told]
        if columns < TWO_COLUMNS:
            yield from cells
            return
        for left, right in zip(cells[:2], cells[2:], strict=True):
            yield beside(left, right, columns)

    def _failing(self) -> Iterator[Line]:
        condition = self._node.condition
        for failing in condition.failing[:FAILING_SHOWN] if condition else ():
            what = fitted(failing, self._columns - SHORT_LABEL)
            yield (Piece(fitted("fails", SHORT_LABEL), "bad"), Piece(what))

    def _events(self, count: int) -> Iterator[Line]:
        fault = self._node.fault
        value: Line = ()
        note = ""
        if fault is not None:
            style: Style = "good" if fault.code == WELL else "warn" if "WARN" in fault.code else "bad"
            value = (Piece(fault.code, style), Piece(f" {fault.name}", "dim"))
            note = f"since {fault.since_utc} UTC" if fault.since_utc else ""
        yield heading("faults, rewards, anomalies", self._glyphs, self._columns, value, note)
        told = (line for happening in reversed(self._node.events) for line in self._event(happening))
        shown = list(islice(told, max(count, 0)))
        yield from shown
        yield from [BLANK] * (count - len(shown))

    def _event(self, happening: Happening) -> Iterator[Line]:
        """What happened, on as many lines as it takes to tell the evidence."""
        begin: Line = (
            Piece(f"{happening.time_utc:<8}  ", "dim"),
            Piece(f"{_TOPICS.get(happening.kind, happening.kind):<7} "),
            Piece(f"{happening.name}  ", _KINDS[happening.kind]),
        )
        room = self._columns - lines.width(begin)
        first, *rest = wrapped(happening.text, room, self._columns - INDENT)
        yield clipped((*begin, Piece(first, "dim")), self._columns)
        for text in rest[: EVENT_LINES - 1]:
            yield clipped((Piece(" " * INDENT), Piece(text, "dim")), self._columns)
