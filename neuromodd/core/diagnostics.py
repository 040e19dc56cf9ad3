"""Diagnostics: what is wrong with the hardware, with evidence, and for how long it holds.

The rules are in `fault_rules`, what they compare with in `baselines`. Here their findings become one
class, which holds until its evidence has been gone for a while, so that a flickering reading does not flap
the fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import AwareDatetime

from neuromodd.core.baselines import Baselines, FaultParameters
from neuromodd.core.fault_rules import RULES, Evidence, FaultClass, Recent, Rule
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.record import Ratio, Record

__all__ = [
    "Evidence",
    "Fault",
    "FaultClass",
    "FaultMonitor",
    "FaultParameters",
    "Finding",
    "classify",
]

_FAULT_RULES = sum(rule.fault_class.is_fault for rule in RULES)
_OF_FAULTS = frozenset(rule.name for rule in RULES if rule.fault_class.is_fault)
_PRECEDENCES = {rule.name: rule.precedence for rule in RULES}
_LAST = max(_PRECEDENCES.values())


class Fault(Record):
    """A classification.

    Attributes:
        fault_class: the class.
        confidence: for a fault, how far the rules that hold are to be trusted; for an ambiguity half of
            that, or 0.2 where sensors are lacking; for HealthyStandby, the share of the rules whose
            readings this host has and whose baselines it has learned. A host without a GPU is healthy at
            0: no rule had anything to look at.
        evidence: what the rules found; empty when healthy.
        since_utc: when this class began.
    """

    fault_class: FaultClass
    confidence: Ratio
    evidence: tuple[Evidence, ...] = ()
    since_utc: AwareDatetime | None = None

    @property
    def is_damage(self) -> bool:
        """Whether something is broken, be it one thing or several that can't be told apart."""
        return any(found.rule in _OF_FAULTS for found in self.evidence)


class Finding(NamedTuple):
    """What the rules say of one frame.

    Attributes:
        fault_class: the class; UnknownAmbiguity where there is more than one contender.
        confidence: as in `Fault`.
        evidence: of all rules of the contenders.
        contenders: the classes whose rules hold at the best precedence.
        precedence: that precedence.
    """

    fault_class: FaultClass
    confidence: float
    evidence: tuple[Evidence, ...]
    contenders: frozenset[FaultClass]
    precedence: int


def classify(recent: Recent) -> Finding:
    """What the rules say: of those that hold, the ones of the best precedence decide.

    One class among them is the finding, with the evidence of all its rules; several are an ambiguity with
    the evidence of all of theirs.
    """
    holding: list[tuple[Rule, tuple[Evidence, ...]]] = []
    judged = 0
    for rule in RULES:
        found = rule.look(recent)
        if found is not None:
            judged += rule.fault_class.is_fault
            if found:
                holding.append((rule, found))
    if not holding:
        return Finding(FaultClass.HealthyStandby, judged / _FAULT_RULES, (), frozenset(), _LAST + 1)
    best = min(rule.precedence for rule, _ in holding)
    contenders = frozenset(rule.fault_class for rule, _ in holding if rule.precedence == best)
    evidence = tuple(of for rule, found in holding if rule.fault_class in contenders for of in found)
    confidence = max(rule.confidence for rule, _ in holding if rule.precedence == best)
    if len(contenders) > 1:
        return Finding(FaultClass.UnknownAmbiguity, confidence / 2, evidence, contenders, best)
    (fault_class,) = contenders
    return Finding(fault_class, confidence, evidence, contenders, best)


class FaultMonitor:
    """Classifies frame after frame, learns what is usual, and remembers since when a fault holds.

    Mutable; `state` and `restore` carry it through a checkpoint. Of the class that holds and the class
    that is found in a frame:

    ============== ==================== ==========================================================
    holds          found                then
    ============== ==================== ==========================================================
    any            the same             it goes on, with the newest evidence
    healthy        anything             the found one begins at once
    ambiguity      a fault              the fault begins at once: the evidence decides now
    ambiguity      healthy              healthy begins after `hold_s` of it
    a fault        a fault of better    the better one begins at once: it says that what held can't
                   precedence           be trusted
    a fault        an ambiguity that    the evidence is not gone, and the fault stays; the ambiguity
                   it contends in       begins once the contest has lasted `hold_s` without a break
    a fault        anything else        the evidence is gone; the found one begins after `hold_s` of it
    ============== ==================== ==========================================================

    So an ambiguity never delays a fault, and takes none away before its time: neither when a second class
    flickers, nor when the sensors fail for a moment. The time counts anew whenever the evidence is back.

    Attributes:
        parameters: may be changed between two frames.
        current: the class that holds.
        counts: how often each class has begun, by its name, since the first start.
    """

    def __init__(self, parameters: FaultParameters | None = None) -> None:
        self.parameters = parameters or FaultParameters()
        self.current: Fault | None = None
        self.counts = dict.fromkeys((of.value for of in FaultClass), 0)
        self._baselines = Baselines()
        self._absent_s = 0.0
        self._contested_s = 0.0
        self._resumed = False

    def update(self, frame: TelemetryFrame, elapsed_s: float) -> Fault:
        """Classify `frame`, `elapsed_s` seconds after the last one."""
        resumed, self._resumed = self._resumed and frame.interval_s is None, False
        # Nobody saw what stood, or that it was gone, during a gap or while there was no daemon.
        watched_s = 0.0 if frame.gap or resumed else elapsed_s
        devices = self._baselines.observe(frame, watched_s, self.parameters)
        found = classify(Recent.of(frame, devices, self.parameters))
        held = self.current
        if held is None:
            return self._begin(found, frame.time_utc)
        if found.fault_class is held.fault_class:
            self._absent_s = self._contested_s = 0.0
            if (found.confidence, found.evidence) != (held.confidence, held.evidence):
                held = _fault(found, held.since_utc)
            self.current = held
            return held
        if self._gives_way(held, found, watched_s):
            return self._begin(found, frame.time_utc)
        return held

    def _gives_way(self, held: Fault, found: Finding, watched_s: float) -> bool:
        if held.fault_class is FaultClass.HealthyStandby:
            return True
        if found.fault_class.is_fault and (
            not held.fault_class.is_fault or found.precedence < _precedence(held)
        ):
            return True
        if held.fault_class in found.contenders:
            self._absent_s = 0.0
            self._contested_s += watched_s
            return self._contested_s >= self.parameters.hold_s
        self._contested_s = 0.0
        self._absent_s += watched_s
        return self._absent_s >= self.parameters.hold_s

    def _begin(self, found: Finding, since_utc: datetime | None) -> Fault:
        self._absent_s = self._contested_s = 0.0
        self.counts[found.fault_class.value] += 1
        self.current = _fault(found, since_utc)
        return self.current

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "current": None if self.current is None else json.loads(self.current.to_json()),
            "absent_s": self._absent_s,
            "contested_s": self._contested_s,
            "counts": dict(self.counts),
            "devices": self._baselines.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; what the state of an older checkpoint lacks begins anew."""
        self.current = None if state["current"] is None else Fault.from_dict(state["current"])
        self._absent_s = float(state["absent_s"])
        self._contested_s = float(state.get("contested_s", 0.0))
        counts = state.get("counts", {})
        self.counts = {of.value: int(counts.get(of.value, 0)) for of in FaultClass}
        self._baselines = Baselines()
        self._baselines.restore(state.get("devices", {}))
        self._resumed = True


def _fault(found: Finding, since_utc: datetime | None) -> Fault:
    return Fault(
        fault_class=found.fault_class,
        confidence=found.confidence,
        evidence=found.evidence,
        since_utc=since_utc,
    )


def _precedence(held: Fault) -> int:
    """The best precedence of the rules that a fault was found by."""
    return min((_PRECEDENCES.get(evidence.rule, _LAST) for evidence in held.evidence), default=_LAST)
