"""A recording in little: what a replay shows goes by, and what a person wants to know of it stays.

Memory does not grow with the length of a recording, but for some numbers an hour.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from neuromodd.core.anomaly import Moment
from neuromodd.core.brain import Brain, Tick
from neuromodd.core.diagnostics import Fault, FaultClass
from neuromodd.core.encoding import CHANNELS, DRIVES
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.modulators import Setpoints
from neuromodd.core.rewards import KINDS, BreakthroughFound, RewardEvent, WorkAccepted
from neuromodd.core.surprise import SurpriseParameters
from neuromodd.dashboard.anomalies import Anomalies
from neuromodd.dashboard.fold import COLUMNS_MAX, Columns, Fold
from neuromodd.dashboard.series import READINGS, hottest_celsius

LEVEL_NAMES = ("dopamine", "cortisol", "acetylcholine", "tempo")
GROUPS = len(CHANNELS)
READING_AT = {name: at for at, name in enumerate(READINGS)}
LEVELS_FROM = len(READINGS)
ERROR_FROM = LEVELS_FROM + len(LEVEL_NAMES)
ERROR_TOTAL_AT = ERROR_FROM + GROUPS
WEIGHTS_FROM = ERROR_TOTAL_AT + 1
SURPRISE_AT = WEIGHTS_FROM + GROUPS
WATCHED_FROM = SURPRISE_AT + 1
"""Where the levels of a column stand: readings, modulators, prediction errors, their mean, primary weights,
the surprise of all, and that of each channel which is watched, in the order of `Digest.watched`."""

BANK_FROM = GROUPS
STEPS_AT = BANK_FROM + len(DRIVES)
REWARDS_FROM = STEPS_AT + 1
ORIGINS = ("detected", "external")
COUNTS = REWARDS_FROM + len(KINDS) * len(ORIGINS)
"""Where the counts of a column stand: spikes of LIF neurons and of the bank, network steps, rewards."""

MISSED_INTERVALS = 1.5
"""A frame whose last one is farther away than its own measured interval was not the next."""

GAPS_KEPT = 200
FAULTS_KEPT = 100
REWARDS_KEPT = 12
SOURCES_KEPT = 50
MISSES_KEPT = 3

MISS_S = 60.0
"""Of the prediction errors within so many seconds the largest counts."""

YOUNG_TICKS = 50
"""So long a fresh network is wrong about whatever there is."""

NAN = math.nan
_NO_WEIGHTS = (NAN,) * GROUPS

GapKind = Literal["suspend or stall", "restart", "reboot", "frames missing"]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Time that nobody watched, from the last frame before it to the first after it."""

    seconds: float
    from_utc: datetime
    to_utc: datetime
    kind: GapKind


@dataclass(frozen=True, kw_only=True)
class Miss:
    """A prediction error: what the network expected of a channel, and what came, both in [0, 1]."""

    error: float
    time_utc: datetime
    channel: str
    expected: float
    came: float
    young: bool


@dataclass(kw_only=True)
class Episode:
    """A fault class other than health, from its beginning, perhaps before the recording, to its end."""

    fault: Fault
    since_utc: datetime
    seen_utc: datetime
    until_utc: datetime | None = None


@dataclass(kw_only=True)
class Hour:
    """What an hour of UTC was like; sums are over seconds that were watched."""

    watched_s: float = 0.0
    celsius_s: float = 0.0
    celsius_known_s: float = 0.0
    celsius_peak: float = -math.inf
    cpu_s: float = 0.0
    cpu_known_s: float = 0.0
    cpu_peak: float = 0.0
    cortisol_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a network knew at a time.

    Of a network with more neurons than channels all that listen to a channel count as one, their mean.

    Attributes:
        weights: a row for each LIF neuron or group, a column for each channel.
        thresholds: of each row.
        predictions: the intensity that is expected of each channel.
        step: of the network.
    """

    weights: tuple[tuple[float, ...], ...]
    thresholds: tuple[float, ...]
    predictions: tuple[float, ...]
    step: int

    @classmethod
    def of(cls, brain: Brain) -> Learned:
        """What a brain knows now."""
        engine = brain.engine
        rows, thetas = engine.weights, engine.thresholds
        groups = [range(group, len(rows), GROUPS) for group in range(min(len(rows), GROUPS))]
        return cls(
            weights=tuple(
                tuple(sum(rows[n][channel] for n in group) / len(group) for channel in range(GROUPS))
                for group in groups
            ),
            thresholds=tuple(sum(thetas[n] for n in group) / len(group) for group in groups),
            predictions=engine.predictions,
            step=engine.step_count,
        )


@dataclass(kw_only=True)
class Gaps:
    """Gaps: how many, how long, and the longest of them."""

    count: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    _kept: list[tuple[float, int, Gap]] = field(default_factory=list)

    def add(self, gap: Gap) -> None:
        """Count it; keep it if it is among the longest."""
        self.count += 1
        self.seconds += gap.seconds
        self.kinds[gap.kind] += 1
        entry = (gap.seconds, -self.count, gap)
        if len(self._kept) < GAPS_KEPT:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heappushpop(self._kept, entry)

    @property
    def longest_first(self) -> list[Gap]:
        """The longest; of equal ones the earlier first."""
        return [gap for _, _, gap in sorted(self._kept, reverse=True)]


@dataclass(kw_only=True)
class Rewards:
    """Rewards: how many of each sort, and some of each kind."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    kept: dict[str, list[tuple[datetime, RewardEvent]]] = field(
        default_factory=lambda: {kind: [] for kind in KINDS}
    )
    best: BreakthroughFound | None = None
    best_utc: datetime | None = None

    def add(self, event: RewardEvent, time_utc: datetime) -> None:
        """Count it by kind, origin and source; the time is that of its frame, whatever it says itself."""
        source = (event.source or "") if isinstance(event, WorkAccepted) else ""
        key = (event.kind, event.origin, source)
        if key not in self.counts and len(self.counts) >= SOURCES_KEPT:
            key = (event.kind, event.origin, "others")
        self.counts[key] += 1
        kept = self.kept[event.kind]
        if len(kept) < REWARDS_KEPT:
            kept.append((time_utc, event))
        if isinstance(event, BreakthroughFound) and step_ratio(event) > step_ratio(self.best):
            self.best, self.best_utc = event, time_utc


class Digest:
    """Watches a replay. Mutable.

    Args:
        from_utc: frames before it are left out.
        columns_max: of the time axis.
    """

    def __init__(self, *, from_utc: datetime | None = None, columns_max: int = COLUMNS_MAX) -> None:
        self._from_utc = from_utc
        self._fold = Fold(levels=WATCHED_FROM, counts=COUNTS, columns_max=columns_max)
        self._brain: Brain | None = None
        self._weighed: int | None = None
        self.first: TelemetryFrame | None = None
        self.last: TelemetryFrame | None = None
        self.frames = 0
        self.watched_s = 0.0
        self.went_back = 0
        self.nodes: dict[str, None] = {}
        self.gaps = Gaps()
        self.rewards = Rewards()
        self.hours: dict[int, Hour] = {}
        self.flagged_s = {"stress": 0.0, "reward": 0.0, "focus": 0.0}
        self.episodes: list[Episode] = []
        self.fault_counts: Counter[str] = Counter()
        self.misses: list[Miss] = []
        self.anomalies = Anomalies()
        self.watched: dict[str, int] = {}
        self.start: Learned | None = None
        self.lif_neurons = 0
        self.bank_neurons = 0

    @property
    def end(self) -> Learned | None:
        """What the network knows after the last frame; None without frames."""
        return None if self._brain is None else Learned.of(self._brain)

    @property
    def setpoints(self) -> Setpoints:
        """Those of the brain after the last frame."""
        return Setpoints() if self._brain is None else self._brain.parameters.setpoints

    @property
    def surprise(self) -> SurpriseParameters:
        """The settings of the brain after the last frame."""
        return SurpriseParameters() if self._brain is None else self._brain.parameters.surprise

    def columns(self) -> Columns:
        """The time axis so far."""
        return self._fold.columns()

    def take(self, tick: Tick, brain: Brain) -> None:
        """Take in a tick, and the brain as it is after it."""
        frame, time_utc = tick.frame, tick.frame.time_utc
        if time_utc is None or (self._from_utc is not None and time_utc < self._from_utc):
            return
        if self.start is None:
            self.start = Learned.of(brain)
            self.first = frame
            self.lif_neurons = brain.parameters.engine.lif_neurons
            self.bank_neurons = brain.parameters.engine.izhikevich_neurons
        since_s = self._watched_since_last(frame, time_utc)
        self._brain = brain
        self.frames += 1
        self.watched_s += since_s
        if len(self.nodes) < SOURCES_KEPT:
            self.nodes[frame.node] = None
        for name, raised in (("stress", tick.stressed), ("reward", tick.rewarded), ("focus", tick.focused)):
            if raised:
                self.flagged_s[name] += since_s
        for event in tick.events:
            self.rewards.add(event, time_utc)
        self._take_hour(tick, time_utc, since_s)
        self._take_fault(tick, time_utc)
        self._take_miss(tick, brain, time_utc)
        if tick.surprise is not None:
            self.anomalies.take(tick.surprise, time_utc)
        self._take_column(tick, brain, time_utc.timestamp())
        self.last = frame

    def _watched_since_last(self, frame: TelemetryFrame, time_utc: datetime) -> float:
        """Seconds since the last frame, if all of them were watched; else 0, and a gap is noted."""
        last = self.last
        if last is None or last.time_utc is None:
            return 0.0
        by_clock_s = (time_utc - last.time_utc).total_seconds()
        same_boot = frame.boot_id == last.boot_id
        elapsed_s = frame.monotonic_s - last.monotonic_s if same_boot else by_clock_s
        if elapsed_s < 0.0 or by_clock_s < 0.0:
            self.went_back += 1
        if elapsed_s < 0.0:
            return 0.0
        kind = _gap_kind(frame, last, elapsed_s)
        if kind is None:
            return elapsed_s
        self.gaps.add(Gap(seconds=elapsed_s, from_utc=last.time_utc, to_utc=time_utc, kind=kind))
        return 0.0

    def _take_hour(self, tick: Tick, time_utc: datetime, since_s: float) -> None:
        key = int(time_utc.timestamp() // 3600)
        hour = self.hours.get(key)
        if hour is None:
            hour = self.hours[key] = Hour()
        hour.watched_s += since_s
        hour.cortisol_s += (tick.modulators.cortisol or 0.0) * since_s
        celsius = hottest_celsius(tick.frame)
        if celsius is not None:
            hour.celsius_s += celsius * since_s
            hour.celsius_known_s += since_s
            hour.celsius_peak = max(hour.celsius_peak, celsius)
        busy = tick.frame.cpu.utilization_ratio if tick.frame.cpu else None
        if busy is not None:
            hour.cpu_s += busy * since_s
            hour.cpu_known_s += since_s
            hour.cpu_peak = max(hour.cpu_peak, busy)

    def _take_fault(self, tick: Tick, time_utc: datetime) -> None:
        fault = tick.fault
        current = self.episodes[-1] if self.episodes and self.episodes[-1].until_utc is None else None
        if current is not None and current.fault.fault_class is fault.fault_class:
            current.seen_utc = time_utc
            if fault.confidence > current.fault.confidence:
                current.fault = fault
            return
        if current is not None:
            current.until_utc = time_utc
        if fault.fault_class is FaultClass.HealthyStandby:
            return
        self.fault_counts[fault.fault_class.value] += 1
        if len(self.episodes) < FAULTS_KEPT:
            since_utc = fault.since_utc or time_utc
            self.episodes.append(Episode(fault=fault, since_utc=since_utc, seen_utc=time_utc))

    def _take_miss(self, tick: Tick, brain: Brain, time_utc: datetime) -> None:
        errors = tick.result.prediction_error
        error, nearer = max((of, -at) for at, of in enumerate((*errors, -1.0)) if of is not None)
        least = self.misses[-1].error if len(self.misses) == MISSES_KEPT else 0.0
        if error <= least:
            return
        # Of channels that are as wrong the first, which work often only follows.
        channel = -nearer
        came = tick.stimuli[channel] or 0.0
        # The prediction has moved towards what came, and no farther.
        above = came >= brain.engine.predictions[channel]
        miss = Miss(
            error=error,
            time_utc=time_utc,
            channel=CHANNELS[channel],
            expected=came - error if above else came + error,
            came=came,
            young=tick.result.step <= YOUNG_TICKS * tick.result.steps,
        )
        near = [of for of in self.misses if abs((of.time_utc - time_utc).total_seconds()) < MISS_S]
        if any(of.error >= error for of in near):
            return
        others = [of for of in self.misses if of not in near]
        self.misses = sorted((*others, miss), key=lambda of: -of.error)[:MISSES_KEPT]

    def _take_column(self, tick: Tick, brain: Brain, time_s: float) -> None:
        frame, levels, result = tick.frame, tick.modulators, tick.result
        column = self._fold.column_of(time_s)
        weights: Sequence[float] = _NO_WEIGHTS
        if column != self._weighed:
            # Once a column: they are slow, and asking for them is not quick.
            self._weighed = column
            weights = _primary(brain)
        known = (
            *(read(frame) for read in READINGS.values()),
            levels.dopamine,
            levels.cortisol,
            levels.acetylcholine,
            levels.tempo,
            *result.prediction_error,
            tick.error_total,
        )
        surprises = self._surprises(tick.surprise)
        rewards = [0] * (len(KINDS) * len(ORIGINS))
        for event in tick.events:
            rewards[reward_at(event.kind, event.origin)] += 1
        self._fold.add(
            time_s,
            (*(NAN if value is None else value for value in known), *weights, *surprises),
            (*_by_group(result.lif_spikes), *_padded(result.izhikevich_spikes), result.steps, *rewards),
        )

    def _surprises(self, moment: Moment | None) -> Sequence[float]:
        """The surprise of all and that of each channel; one that was not watched before is given a place."""
        if moment is None:
            return (NAN,) * (1 + len(self.watched))
        new = [of.name for of in moment.channels if of.name not in self.watched]
        if new:
            self.watched.update({name: len(self.watched) + at for at, name in enumerate(new)})
            self._fold.widen(WATCHED_FROM + len(self.watched))
        found = [NAN] * (1 + len(self.watched))
        if moment.surprise is not None:
            found[0] = moment.surprise
        for of in moment.channels:
            if of.surprise is not None:
                found[1 + self.watched[of.name]] = of.surprise
        return found


_KIND_AT = {kind: at for at, kind in enumerate(KINDS)}


def reward_at(kind: str, origin: str) -> int:
    """Where the rewards of a kind and an origin stand among those of a column."""
    return _KIND_AT[kind] * len(ORIGINS) + ORIGINS.index(origin)


def step_ratio(event: BreakthroughFound | None) -> float:
    """How far a breakthrough went beyond the best before, as a share of that; -1 if that is not known."""
    if event is None or event.value is None or not event.previous_best:
        return -1.0
    return abs(event.value - event.previous_best) / abs(event.previous_best)


def _gap_kind(frame: TelemetryFrame, last: TelemetryFrame, elapsed_s: float) -> GapKind | None:
    if frame.boot_id != last.boot_id:
        return "reboot"
    if frame.interval_s is None and not frame.gap:
        return "restart"
    if frame.interval_s is not None and frame.sequence != last.sequence + 1:
        if elapsed_s > MISSED_INTERVALS * frame.interval_s:
            return "frames missing"
        return None
    return "suspend or stall" if frame.gap else None


def _primary(brain: Brain) -> Sequence[float]:
    rows = brain.engine.weights
    totals, counts = [0.0] * GROUPS, [0] * GROUPS
    for neuron, row in enumerate(rows):
        totals[neuron % GROUPS] += row[neuron % GROUPS]
        counts[neuron % GROUPS] += 1
    return [total / count if count else NAN for total, count in zip(totals, counts, strict=True)]


def _by_group(spikes: Sequence[int]) -> Sequence[float]:
    """Spikes of the LIF neurons of each channel, their mean; one neuron to a channel is the rule."""
    if len(spikes) == GROUPS:
        return spikes
    groups = [spikes[group::GROUPS] for group in range(GROUPS)]
    return [sum(group) / len(group) if group else 0.0 for group in groups]


def _padded(spikes: Sequence[int]) -> Sequence[int]:
    """Spikes of the neurons of the bank that have a drive."""
    known = len(DRIVES)
    return (*spikes[:known], *(0,) * (known - len(spikes)))
