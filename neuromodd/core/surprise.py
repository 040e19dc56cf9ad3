"""SurpriseDetector: the host's own normal, learned online, and how strange each moment is against it.

`associations` has the model, `anomaly` makes episodes of strange moments. Memory is constant: some 100 KB a
channel, nothing grows with time. No clock and no randomness: the same rows give the same surprise.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from neuromodd.core import associations as model
from neuromodd.core.anomaly import Anomaly, ChannelMoment, Episodes, Moment
from neuromodd.core.record import Record
from neuromodd.core.surprise_state import checked_numbers, floats, packed, plain, unpacked
from neuromodd.errors import InvalidValueError

MODEL = 1
"""Which model a state is of: one that means something else takes the next number."""

DEFAULT_CHANNELS = (
    "cpu",
    "memory",
    "gpu",
    "gpu_memory",
    "power",
    "thermal",
    "io",
    "work",
    "network",
    "pressure",
)

FIRST_ROWS = 288
"""Readings over whose range a channel's cells are laid: a day of 5-minute rows, minutes of a daemon's."""

RELAID_ROWS = (2 * FIRST_ROWS, 4 * FIRST_ROWS)
"""Readings after which they are laid anew, over all that was seen until then."""

CHECK_ROWS = 60
"""Rows from one look whether the cells still fit to the next."""

BEYOND_SHARE = 0.2
"""Of the last thousand readings beyond the cells: then these are laid over all that came of late."""

WEEK_S = 7.0 * 86_400.0
NARROWER = 4.0
"""After a week whose readings would fit in cells so much narrower, a channel begins anew with such.

Whoever starts with the host sees the rush of a start, and a disk's goes far beyond what follows.
"""

MARGIN = 0.25
"""Share of the range that they cover beyond it, at either end."""

ALIKE = 0.1
"""Cells of a constant channel cover its value so much to both sides, as a share of it."""

FINEST = 1e-9
"""The least width of all cells, as a share of the largest value, and absolute."""

LARGEST = 1e300
"""A reading beyond is taken for this: the difference of two must be a number."""

HOUR_DAYS = 7.0
"""Days that the synapses of an hour remember, and no fewer visits than those of other contexts."""

HOUR_ROWS_LIMIT = 1e5
"""Visits beyond which single precision would lose them."""

DAY_S, HOUR_S = 86_400.0, 3_600.0


class SurpriseParameters(Record):
    """Settings of the surprise."""

    enabled: bool = Field(default=True, description="learn what is normal here, and say what is not")
    channels: tuple[str, ...] = Field(
        default=DEFAULT_CHANNELS, description="what is watched: names of channels, or fields of the frame"
    )
    threshold: float = Field(default=0.5, gt=0.0, le=1.0, description="surprise from which an anomaly begins")
    feedback: bool = Field(default=True, description="unexpected uncertainty raises acetylcholine, cortisol")


class SurpriseDetector:
    """Learns what is normal for some channels, row by row. Mutable: each `update` moves it on.

    A channel is silent until it has 288 readings. The surprise of all is that of the coincidence of errors;
    with one channel there is nothing to coincide with, and it is that channel's.

    Args:
        names: of the channels.
        parameters: the settings; `channels` and `enabled` are not looked at here.
        spans: of each channel the least span of values that counts, in its own unit, 0 if any does; what
            moves within a twentieth of it is no news.
        compiled: run under numba (extra `fast`); if not given, in plain Python.

    Raises:
        InvalidValueError: there is no name, or not a span for each.
        MissingExtraError: `compiled` is asked for, and numba is not installed.
    """

    def __init__(
        self,
        names: Sequence[str],
        parameters: SurpriseParameters | None = None,
        *,
        spans: Sequence[float] = (),
        compiled: bool | None = None,
    ) -> None:
        self.names = tuple(names)
        if not self.names:
            raise InvalidValueError("SurpriseDetector.names", self.names, "a name at least")
        self.spans = tuple(spans) or (0.0,) * len(self.names)
        if len(self.spans) != len(self.names):
            raise InvalidValueError("SurpriseDetector.spans", len(self.spans), f"{len(self.names)} spans")
        self.parameters = parameters or SurpriseParameters()
        self._machine: Any = None
        if compiled:
            from neuromodd.core.engine import machine_code  # noqa: PLC0415 - numba is large, and an extra

            self._machine = machine_code()
        self._advance = model.advance if self._machine is None else self._machine.associate
        self.reset()

    @property
    def compiled(self) -> bool:
        """Whether it runs as machine code."""
        return self._machine is not None

    @property
    def episode(self) -> Anomaly | None:
        """The episode that goes on, as it was at its begin."""
        return self._episodes.current

    def reset(self) -> None:
        """Forget all."""
        channels = len(self.names)
        self._s = model.State(
            weights=self._zeros("f", channels * model.ROWS * model.CELLS),
            total=self._zeros("d", channels * model.ROWS),
            growth=self._zeros("d", channels * model.ROWS),
            begin=self._zeros("b", channels * model.ROWS),
            end=self._zeros("b", channels * model.ROWS),
            channel=self._zeros("d", (channels + 1) * model.NUMBERS),
            window=self._zeros("d", (channels + 1) * model.WINDOW),
        )
        self._row = self._machine.floats if self._machine is not None else _doubles
        self._out = self._zeros("d", channels * model.OUTPUTS)
        self._values = self._zeros("d", channels)
        for at in range(channels * model.ROWS):
            self._s.begin[at] = model.CELLS
        for at in range(channels + 1):
            own = at * model.NUMBERS
            self._s.channel[own + model.FIRST] = FIRST_ROWS // 2
        # Rows of the beginning, then readings of channels that come later, each with its hour.
        self._rows: list[tuple[list[float], int]] | None = []
        self._waiting: list[list[tuple[float, int]]] = [[] for _ in self.names]
        self._time_s: float | None = None
        self._interval_s = 0.0
        self._episodes = Episodes()
        self._settling = True
        self._since_check = 0
        self._week_s: float | None = None

    def update(
        self, values: Sequence[float | None], time_s: float | None = None, *, gap: bool = False
    ) -> Moment:
        """Take in one row.

        Args:
            values: one a channel, None where it is missing.
            time_s: seconds since 1970 UTC; None for data without times.
            gap: whether there is a hole in time before this row: what follows did not come from before.

        Raises:
            InvalidValueError: there is not a value for each channel, one is not a number, or the time is none
                that a calendar has; nothing has moved.
        """
        if len(values) != len(self.names):
            raise InvalidValueError(
                "SurpriseDetector.update.values", len(values), f"{len(self.names)} values"
            )
        row = [math.nan if value is None else value for value in values]
        if not -LARGEST < sum([abs(value) for value in values if value is not None]) < LARGEST:
            # One of them is too large, or no number.
            row = [self._bounded(name, value) for name, value in zip(self.names, values, strict=True)]
        now = _moment(time_s)
        hour = self._hour(time_s)
        if gap:
            self._break(hour)
        total = self._learn(row, hour)
        channels = self._channels(values)
        surprise = None if math.isnan(total) else total
        if len(channels) == 1:
            surprise = channels[0].surprise
        score, change = self._episodes.follow(
            surprise, channels, self._strangest, now, self.parameters.threshold
        )
        return Moment(surprise, score, channels, change, self._episodes.current)

    def _learn(self, row: list[float], hour: int) -> float:
        """Take in a row; the surprise of all, NaN if none is known."""
        if self._rows is not None:
            for at in range(len(self._out)):
                self._out[at] = math.nan
            self._rows.append((row, hour))
            if len(self._rows) < FIRST_ROWS:
                return math.nan
            rows, self._rows = self._rows, None
            for at in range(len(self.names)):
                seen = [values[at] for values, _ in rows if not math.isnan(values[at])]
                if len(seen) >= FIRST_ROWS // 2:
                    self._lay(at, seen)
                else:
                    self._waiting[at] = [(v[at], h) for v, h in rows if not math.isnan(v[at])]
            total = math.nan
            for values, then in rows:
                total = self._step(values, then)
            return total
        total = self._step(row, hour)
        if self._settling:
            self._settle(row, hour)
        self._since_check += 1
        if self._since_check >= CHECK_ROWS:
            self._since_check = 0
            self._check()
        return total

    def _step(self, row: list[float], hour: int) -> float:
        self._values[:] = self._row(row)
        return float(self._advance(self._values, hour, self._keep_hour(), 0, self._s, self._out))

    def _settle(self, row: Sequence[float], hour: int) -> None:
        """Lay cells where it is time to; while a channel is absent it goes on waiting."""
        self._settling = False
        for at, value in enumerate(row):
            count = self._s.channel[at * model.NUMBERS + model.N]
            if count in RELAID_ROWS:
                self._lay_again(at)
            elif count == 0.0 and not math.isnan(value):
                self._wait(at, value, hour)
            self._settling = self._settling or count < RELAID_ROWS[-1]

    def _check(self) -> None:
        """Lay cells anew that do not fit any more."""
        n = self._s.channel
        week_over = self._time_s is not None and self._time_s - (self._week_s or 0.0) >= WEEK_S
        for at in range(len(self.names)):
            own = at * model.NUMBERS
            if n[own + model.N] <= RELAID_ROWS[-1]:
                continue
            if n[own + model.BEYOND] > BEYOND_SHARE:
                inner = n[own + model.LO], n[own + model.LO] + model.INNER * n[own + model.WIDTH]
                n[own + model.LATELY_LOWEST] = min(n[own + model.LATELY_LOWEST], inner[0])
                n[own + model.LATELY_HIGHEST] = max(n[own + model.LATELY_HIGHEST], inner[1])
                self._lay_again(at)
            elif week_over and self._week_s is not None:
                seen = n[own + model.LATELY_LOWEST] <= n[own + model.LATELY_HIGHEST]
                if seen and n[own + model.WIDTH] > NARROWER * self._cells(at)[1]:
                    self._begin_anew(at)
                    continue
                n[own + model.LATELY_LOWEST], n[own + model.LATELY_HIGHEST] = math.inf, -math.inf
        if self._week_s is None or week_over:
            self._week_s = self._time_s

    def _begin_anew(self, at: int) -> None:
        """Forget a channel's synapses; it is silent until there are readings enough to lay cells anew."""
        first, end = at * model.ROWS, (at + 1) * model.ROWS
        for place in range(first, end):
            self._s.total[place] = self._s.growth[place] = 0.0
            self._s.begin[place], self._s.end[place] = model.CELLS, 0
        for place in range(first * model.CELLS, end * model.CELLS):
            self._s.weights[place] = 0.0
        self._s.channel[at * model.NUMBERS + model.N] = 0.0
        self._settling = True

    def _bounded(self, name: str, value: float | None) -> float:
        if value is None:
            return math.nan
        if not math.isfinite(value):
            raise InvalidValueError(f"SurpriseDetector.update.{name}", value, "a finite number, or None")
        return min(max(float(value), -LARGEST), LARGEST)

    def _strangest(self, at: int) -> ChannelMoment:
        """What a channel was at its strangest in the last rows."""
        n, own = self._s.channel, at * model.NUMBERS
        told = [None if math.isnan(x) else float(x) for x in n[own + model.THEN : own + model.NUMBERS]]
        return ChannelMoment._make((self.names[at], *told, None))

    def _wait(self, at: int, value: float, hour: int) -> None:
        """Collect the first readings of a channel that was not there at the beginning."""
        waiting = self._waiting[at]
        waiting.append((value, hour))
        if len(waiting) < FIRST_ROWS:
            return
        self._lay(at, [reading for reading, _ in waiting])
        alone, out = self._zeros("d", 1), self._zeros("d", model.OUTPUTS)
        for reading, then in waiting:
            alone[0] = reading
            self._advance(alone, then, self._keep_hour(), at, self._s, out)
        self._waiting[at] = []

    def _lay(self, at: int, seen: Sequence[float]) -> None:
        n, own = self._s.channel, at * model.NUMBERS
        low, high = min(seen), max(seen)
        if n[own + model.COUNT] == 0.0:
            n[own + model.LOWEST], n[own + model.HIGHEST] = low, high
            n[own + model.LATELY_LOWEST], n[own + model.LATELY_HIGHEST] = low, high
        else:
            # It begins anew, with what is known of it.
            n[own + model.LATELY_LOWEST] = min(n[own + model.LATELY_LOWEST], low)
            n[own + model.LATELY_HIGHEST] = max(n[own + model.LATELY_HIGHEST], high)
        n[own + model.BEYOND] = 0.0
        n[own + model.SPAN] = max(self.spans[at], FINEST * max(abs(low), abs(high)))
        n[own + model.LO], n[own + model.WIDTH] = self._cells(at)
        n[own + model.LAST] = n[own + model.BEFORE] = -1.0
        # So that the channel counts as one with cells.
        n[own + model.N] = 1.0

    def _cells(self, at: int) -> tuple[float, float]:
        """Where the cells of a channel begin, and their width, for all that it has shown of late."""
        n, own = self._s.channel, at * model.NUMBERS
        low, high = n[own + model.LATELY_LOWEST], n[own + model.LATELY_HIGHEST]
        least = max(self.spans[at], FINEST, FINEST * max(abs(low), abs(high)))
        if high - low <= least:
            least = max(least, 2.0 * ALIKE * abs(low))
        missing = max(least - (high - low), 0.0) / 2.0
        low, high = low - missing, high + missing
        margin = MARGIN * (high - low)
        return low - margin, (high - low + 2.0 * margin) / model.INNER

    def _lay_again(self, at: int) -> None:
        """Lay the cells over what was seen by now; what a cell has learned goes to the one at its middle."""
        s, own = self._s, at * model.NUMBERS
        low, width = s.channel[own + model.LO], s.channel[own + model.WIDTH]
        s.channel[own + model.BEYOND] = 0.0
        new_low, new_width = self._cells(at)
        # Narrower ones would not know what of a cell belongs to which.
        if (new_low, new_width) == (low, width) or new_width < width:
            return
        middles = [low + (cell - 0.5) * width for cell in range(model.CELLS)]
        moved = [model.cell_of(middle, new_low, new_width) for middle in middles]
        first, cells = at * model.ROWS, model.CELLS
        rows = {row: row for row in range(model.LAST_ROWS)}
        rows.update({model.LAST_ROWS + cell: model.LAST_ROWS + moved[cell] for cell in range(cells)})
        for before in range(cells):
            for last in range(cells):
                to = model.PAIR_ROWS + moved[before] * cells + moved[last]
                rows[model.PAIR_ROWS + before * cells + last] = to
        old: list[tuple[int, float, float, list[float]]] = []
        for row in range(model.ROWS):
            if s.total[first + row] > 0.0:
                base = (first + row) * cells
                weights = [float(w) for w in s.weights[base : base + cells]]
                old.append((row, s.total[first + row], s.growth[first + row], weights))
                for cell in range(cells):
                    s.weights[base + cell] = 0.0
                s.total[first + row] = s.growth[first + row] = 0.0
        for row, total, growth, weights in old:
            to = first + rows[row]
            # In terms of what a visit adds now, which is another for each row.
            s.growth[to] = 1.0
            s.total[to] += total / growth
            for cell, weight in enumerate(weights):
                s.weights[to * cells + moved[cell]] += weight / growth
        for row in range(model.ROWS):
            self._refresh_ends(at, row)
        s.channel[own + model.LO], s.channel[own + model.WIDTH] = new_low, new_width
        for place in (model.LAST, model.BEFORE):
            cell = int(s.channel[own + place])
            s.channel[own + place] = float(moved[cell]) if cell >= 0 else -1.0

    def _channels(self, values: Sequence[float | None]) -> tuple[ChannelMoment, ...]:
        told = [None if x != x else x for x in self._out.tolist()]  # noqa: PLR0124 - NaN
        size = model.OUTPUTS
        expected, low, high = told[model.EXPECTED :: size], told[model.LOW :: size], told[model.HIGH :: size]
        rows = zip(self.names, values, expected, low, high, told[model.SURPRISE :: size], strict=True)
        return tuple(map(ChannelMoment._make, rows))

    def _hour(self, time_s: float | None) -> int:
        """The hour of the day; on the way the usual interval is learned."""
        if time_s is None:
            return -1
        if self._time_s is not None and 0.0 < time_s - self._time_s <= HOUR_S:
            passed_s = time_s - self._time_s
            self._interval_s += (passed_s - self._interval_s) * (0.01 if self._interval_s else 1.0)
        self._time_s = time_s
        return int(time_s % DAY_S // HOUR_S)

    def _keep_hour(self) -> float:
        visits = HOUR_DAYS * HOUR_S / self._interval_s if self._interval_s else model.MEMORY_ROWS
        return 1.0 - 1.0 / min(max(visits, model.MEMORY_ROWS), HOUR_ROWS_LIMIT)

    def _break(self, hour: int) -> None:
        if self._rows:
            # Remembered as a row without readings.
            self._rows.append(([math.nan] * len(self.names), hour))
        for at in range(len(self.names)):
            own = at * model.NUMBERS
            self._s.channel[own + model.LAST] = self._s.channel[own + model.BEFORE] = -1.0

    def _refresh_ends(self, at: int, row: int) -> None:
        """Look anew where a row of synapses begins and ends."""
        place = at * model.ROWS + row
        weights = self._s.weights[place * model.CELLS : (place + 1) * model.CELLS]
        told = [cell for cell, weight in enumerate(weights) if weight > 0.0]
        self._s.begin[place], self._s.end[place] = (told[0], told[-1] + 1) if told else (model.CELLS, 0)

    def _zeros(self, code: str, count: int) -> Any:  # noqa: ANN401 - an array of numbers
        if self._machine is not None:
            return self._machine.numbers(count, code)
        return array(code, bytes(array(code).itemsize * count))

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs to go on exactly, as plain JSON values."""
        numbers = plain(self._s.channel)
        window = [float(x) for x in self._s.window]
        size = model.NUMBERS
        return {
            "model": MODEL,
            "names": list(self.names),
            "channels": {
                name: {
                    "numbers": numbers[at * size : (at + 1) * size],
                    "window": window[at * model.WINDOW : (at + 1) * model.WINDOW],
                    "synapses": packed(self._s, at),
                    "waiting": [list(of) for of in self._waiting[at]],
                }
                for at, name in enumerate(self.names)
            },
            "coincidence": {"numbers": numbers[-size:], "window": window[-model.WINDOW :]},
            "rows": None
            if self._rows is None
            else [[[None if math.isnan(v) else v for v in row], hour] for row, hour in self._rows],
            "time_s": self._time_s,
            "interval_s": self._interval_s,
            "since_check": self._since_check,
            "week_s": self._week_s,
            "episode": self._episodes.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned: channels are found by name, those it lacks begin anew.

        The state of another model is left aside: what is normal is learned anew.

        Raises:
            InvalidValueError: a number in it is out of range; all is forgotten, as after `reset`.
        """
        self.reset()
        if state.get("model") != MODEL:
            return
        try:
            self._restore(state)
        except BaseException:
            self.reset()
            raise

    def _restore(self, state: Mapping[str, Any]) -> None:
        names = state["names"]
        known = [name in names for name in self.names]
        for at, name in enumerate(self.names):
            if known[at]:
                self._restore_channel(at, state["channels"][name])
        if all(known) and len(known) == len(names):
            self._put(len(self.names), state["coincidence"])
        # With other channels, too: what began is to end.
        self._episodes.restore(state["episode"])
        if state["rows"] is None:
            self._rows = None
        else:
            places = [names.index(name) if name in names else None for name in self.names]
            self._rows = [
                ([math.nan if at is None or row[at] is None else row[at] for at in places], hour)
                for row, hour in state["rows"]
            ]
        self._time_s = state["time_s"]
        self._interval_s = float(state["interval_s"])
        self._since_check = int(state["since_check"])
        self._week_s = state["week_s"]

    def _restore_channel(self, at: int, state: Mapping[str, Any]) -> None:
        self._put(at, state)
        self._waiting[at] = [(float(value), int(hour)) for value, hour in state["waiting"]]
        rows = unpacked(state["synapses"])
        first = at * model.ROWS
        for row, total, growth, weights in rows:
            self._s.total[first + row] = total
            self._s.growth[first + row] = growth
            for cell, weight in enumerate(weights):
                self._s.weights[(first + row) * model.CELLS + cell] = weight
            self._refresh_ends(at, row)

    def _put(self, at: int, state: Mapping[str, Any]) -> None:
        for place, number in enumerate(checked_numbers(state["numbers"])):
            self._s.channel[at * model.NUMBERS + place] = number
        for place, number in enumerate(floats(state["window"], model.WINDOW)):
            self._s.window[at * model.WINDOW + place] = number


def _moment(time_s: float | None) -> datetime | None:
    try:
        return None if time_s is None else datetime.fromtimestamp(time_s, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidValueError(
            "SurpriseDetector.update.time_s", time_s, "seconds since 1970, in the years 1 to 9999"
        ) from None


def _doubles(values: Sequence[float]) -> array[float]:
    return array("d", values)
