"""What is heard of nodes over MQTT: a model that is fed with messages and asked by who draws.

It reads no clock and trusts nobody: whoever may publish on the broker may send anything. What does not fit
is left out, texts are made harmless where they come in, and nodes, histories and events are bounded.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from neuromodd.config import NODE_PATTERN
from neuromodd.core.encoding import CHANNELS, DRIVES
from neuromodd.dashboard.condition import Condition
from neuromodd.dashboard.happenings import (
    NAME_LIMIT,
    Anomaly,
    Fault,
    Happening,
    anomaly_happening,
    anomaly_told,
    fault_happening,
    fault_told,
    reward_told,
)
from neuromodd.dashboard.measures import TEXT_LIMIT, measures, number, text

NODES_LIMIT = 512
HISTORY_LIMIT = 600
"""Ticks that are kept of each node."""

EVENTS_LIMIT = 64
FORGET_S = 60.0
"""Where there are too many nodes, one that was silent for so long gives way to a new one."""

GAPS = 5
"""The shortest of so many pauses between two states is how often they come."""

HIGHEST = 2.0
"""Of tempo; all other levels end at 1."""

SHORTEST_INTERVAL_S = 0.01
LONGEST_INTERVAL_S = 3600.0

LEVELS = ("dopamine", "cortisol", "acetylcholine", "tempo")
LIF_SHOWN = len(CHANNELS)
BANK_SHOWN = len(DRIVES)

SURPRISES_LIMIT = 64
"""Channels of surprise that are kept of a node, as many as one can watch."""

NAMES = ("status", "state", "health", "info", "fault", "reward", "anomaly")
"""The topics that tell of each node; of one that is looked at there are `telemetry` and `spikes` besides."""


class Node:
    """One node, as far as it has been heard. Mutable.

    Attributes:
        name: of its topics.
        online: what its `status` says; None while it says nothing.
        heard_s: when its newest message of any kind came.
        state_s: when its newest `state` came live; None before the first.
        first_s: since when it is known.
        levels: the newest modulators by their names; what is missing is not there.
        flags: the words for what holds.
        surprise: in all; None where it is not calibrated.
        calibrated: whether it says how improbable a moment is; of older daemons it is the prediction
            error.
        anomalous: whether an anomaly holds.
        anomaly: that one, if its begin was heard.
        channels: the names of those that surprise watches, in the order in which they were first heard.
        states: the newest last; the places of `COLUMNS`, then of `channels`, as many as were known then.
        telemetry: measures by label, the newest last.
        condition: what its newest `health` says.
        version: of neuromodd there.
        fault: the class that holds.
        events: rewards, faults and anomalies, the newest last.
        neurons: of each kind.
    """

    def __init__(self, name: str, now_s: float) -> None:
        self.name = name
        self.first_s = self.heard_s = now_s
        self.online: bool | None = None
        self.state_s: float | None = None
        self.levels: dict[str, float] = {}
        self.flags: tuple[str, ...] = ()
        self.surprise: float | None = None
        self.calibrated = True
        self.anomalous = False
        self.anomaly: Anomaly | None = None
        self.channels: list[str] = []
        self.states: deque[array[float]] = deque(maxlen=HISTORY_LIMIT)
        self.taken = 0
        self.telemetry: deque[dict[str, float]] = deque(maxlen=HISTORY_LIMIT)
        self.telemetry_taken = 0
        self.condition: Condition | None = None
        self.version = ""
        self.fault: Fault | None = None
        self.events: deque[Happening] = deque(maxlen=EVENTS_LIMIT)
        self.neurons = (0, 0)
        self._ids: deque[str] = deque(maxlen=EVENTS_LIMIT)
        self._interval_s = 1.0
        self._newest: dict[str, object] = {}
        self._gaps_s: deque[float] = deque(maxlen=GAPS)
        self._spiked: tuple[object, list[float | None]] | None = None

    @property
    def interval_s(self) -> float:
        """From one `state` to the next: of ticks as it says, or longer if it publishes fewer of them."""
        seen_s = min(self._gaps_s) if len(self._gaps_s) == GAPS else 0.0
        return min(max(self._interval_s, seen_s), LONGEST_INTERVAL_S)

    def stale(self, now_s: float) -> bool:
        """Whether its newest state is older than three intervals and two seconds, by arrival."""
        since_s = self.first_s if self.state_s is None else self.state_s
        return now_s - since_s > 3.0 * self.interval_s + 2.0

    def standing(self, now_s: float) -> str:
        """In a word: `online`, `stale` or `offline`; `silent` if it has no state at all."""
        if self.online is False:
            return "offline"
        if not self.states and self.online is None:
            return "silent"
        return "stale" if self.stale(now_s) else "online"

    def take(self, name: str, payload: bytes, now_s: float, *, retained: bool) -> None:
        """Take in a message on the topic `name`; what can't be used changes nothing."""
        if name == "status":
            word = {b"online": True, b"offline": False}
            self.online = word.get(payload)
            self.heard_s = now_s
            return
        values = _document(payload)
        if values is None or self._repeats(name, values):
            return
        self.heard_s = now_s
        if name == "state":
            self._take_state(values, now_s, retained=retained)
        elif name == "telemetry":
            # What was kept in an outage is of the past.
            if values.get("replayed") is not True:
                self.telemetry.append(measures(values))
                self.telemetry_taken += 1
        elif name == "spikes":
            self._spiked = (values.get("sequence"), _rates_of_spikes(values))
        elif name == "health":
            self.condition = Condition.of(values, now_s)
        elif name == "info":
            self.version = text(values.get("version"), 20)
            told_s = number(values, "interval_s")
            self._interval_s = max(told_s, SHORTEST_INTERVAL_S) if told_s is not None else 1.0
        elif name == "reward":
            self._note(reward_told(values), values)
        elif name == "fault":
            self._take_fault(values)
        elif name == "anomaly":
            self._take_anomaly(values)

    def _repeats(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether it came before: overlapping subscriptions bring a message twice."""
        identity = repr([values.get(key) for key in ("id", "sequence", "time_utc", "boot_id", "replayed")])
        if name in ("reward", "anomaly", "info") or self._newest.get(name) != identity:
            self._newest[name] = identity[:TEXT_LIMIT]
            return False
        return True

    def _take_state(self, values: Mapping[str, Any], now_s: float, *, retained: bool) -> None:
        levels = {name: _level(values, "modulators", name) for name in LEVELS}
        self.levels = {name: value for name, value in levels.items() if value is not None}
        flags = values.get("flags")
        known = ("anomaly", "stress", "reward", "focus")
        self.flags = tuple(name for name in known if isinstance(flags, dict) and flags.get(name) is True)
        self.anomalous = "anomaly" in self.flags
        if not self.anomalous:
            self.anomaly = None
        surprise = _level(values, "surprise", "total")
        channels = self._surprises(values, calibrated=isinstance(flags, dict) and "anomaly" in flags)
        self.surprise = surprise if self.calibrated else None
        lif, bank = _numbers(values, "rates", "lif"), _numbers(values, "rates", "izhikevich")
        self.neurons = (len(lif), len(bank))
        rates = _padded(lif, LIF_SHOWN) + _padded(bank, BANK_SHOWN)
        if self._spiked is not None and self._spiked[0] == values.get("sequence"):
            rates = self._spiked[1]
        row = chain((levels[name] for name in LEVELS), (surprise,), rates, channels)
        if retained:
            # It may be of any age; what comes live goes on from there.
            if not self.states:
                self.states.append(array("d", map(_double, row)))
            return
        if self.state_s is not None:
            self._gaps_s.append(now_s - self.state_s)
        self.state_s = now_s
        self.states.append(array("d", map(_double, row)))
        self.taken += 1

    def _surprises(self, values: Mapping[str, Any], *, calibrated: bool) -> list[float | None]:
        """Those of the channels, in the order of `channels`, to which new ones are added."""
        found = values.get("surprise")
        named = found.get("channels") if isinstance(found, dict) else None
        told = (
            {text(name, NAME_LIMIT): _level(named, name) for name in named} if isinstance(named, dict) else {}
        )
        told = dict(list(told.items())[:SURPRISES_LIMIT])
        new = [name for name in told if name not in self.channels]
        if calibrated != self.calibrated or len(self.channels) + len(new) > SURPRISES_LIMIT:
            # What was heard before is of another measure, or of channels that are watched no more.
            self.states.clear()
            self.channels, new = [], list(told)
        self.calibrated = calibrated
        self.channels.extend(new)
        return [told.get(name) for name in self.channels]

    def _take_anomaly(self, values: Mapping[str, Any]) -> None:
        if values.get("replayed") is not True:
            # A state says whether it still holds.
            self.anomaly = anomaly_told(values) if values.get("phase") == "begin" else None
        self._note(anomaly_happening(values), values)

    def _take_fault(self, values: Mapping[str, Any]) -> None:
        if values.get("replayed") is True and self.fault is not None:
            self._note(fault_happening(fault_told(values)), values)
            return
        self.fault = fault_told(values)
        self._note(fault_happening(self.fault), values)

    def _note(self, happening: Happening, values: Mapping[str, Any]) -> None:
        identity = text(values.get("id"))
        if not identity or identity not in self._ids:
            self._ids.append(identity)
            self.events.append(happening)


class Watch:
    """All nodes of a broker. Mutable.

    Args:
        prefix: the first part of their topics.

    Attributes:
        nodes: by name.
        ignored: messages of nodes beyond the limit.
    """

    def __init__(self, prefix: str) -> None:
        self.nodes: dict[str, Node] = {}
        self.ignored = 0
        self._prefix = f"{prefix}/"

    def take(self, topic: str, payload: bytes | None, now_s: float, *, retained: bool) -> None:
        """Take in a message that came at the monotonic time `now_s`; None is one that is too large."""
        if payload is None or not topic.startswith(self._prefix):
            return
        name, _, rest = topic[len(self._prefix) :].partition("/")
        if rest not in (*NAMES, "telemetry", "spikes") or not NODE_PATTERN.match(name):
            return
        node = self.nodes.get(name)
        if node is None:
            if not payload or not self._room(now_s):
                self.ignored += bool(payload)
                return
            node = self.nodes[name] = Node(name, now_s)
        node.take(rest, payload, now_s, retained=retained)

    def _room(self, now_s: float) -> bool:
        if len(self.nodes) < NODES_LIMIT:
            return True
        quietest = min(self.nodes.values(), key=lambda node: node.heard_s)
        if now_s - quietest.heard_s < FORGET_S:
            return False
        del self.nodes[quietest.name]
        return True

    def sorted(self, now_s: float) -> list[Node]:
        """By stress, the highest first; those of which nothing new is heard are behind those that live."""

        def place(node: Node) -> tuple[bool, float, str]:
            # To the digits that are shown: what looks equal keeps its place.
            return (node.standing(now_s) != "online", -round(node.levels.get("cortisol", -1.0), 2), node.name)

        return sorted(self.nodes.values(), key=place)


def _columns() -> Iterator[str]:
    yield from LEVELS
    yield "surprise"
    yield from (f"lif.{neuron}" for neuron in range(LIF_SHOWN))
    yield from (f"bank.{neuron}" for neuron in range(BANK_SHOWN))


COLUMNS = {name: place for place, name in enumerate(_columns())}
"""The places of a row in `Node.states`, but for those of the channels, which come after them."""


def _document(payload: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _numbers(values: object, *path: str) -> list[float | None]:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return [number(value) for value in values] if isinstance(values, list) else []


def _level(values: object, *path: str) -> float | None:
    """A level; what no level can be is none."""
    found = number(values, *path)
    return found if found is not None and 0.0 <= found <= HIGHEST else None


def _padded(values: Sequence[float | None], count: int) -> list[float | None]:
    return [*values[:count], *[None] * (count - len(values))]


def _rates_of_spikes(values: Mapping[str, Any]) -> list[float | None]:
    steps = number(values, "steps") or 0.0
    lif = _padded(_numbers(values, "lif_spikes"), LIF_SHOWN)
    bank = _padded(_numbers(values, "izhikevich_spikes"), BANK_SHOWN)
    return [None if count is None or steps <= 0.0 else count / steps for count in lif + bank]


def _double(value: float | None) -> float:
    return math.nan if value is None else value
