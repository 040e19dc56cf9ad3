"""FaultClass: what is wrong with the hardware, with evidence.

A rule looks at one frame and returns the evidence that it found. A fault holds until its evidence has
been gone for a while, so that a flickering reading does not flap the fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import AwareDatetime, Field

from neuromodd.core.record import Ratio, Record
from neuromodd.errors import InvalidValueError

if TYPE_CHECKING:
    from neuromodd.core.frame import TelemetryFrame

DEAD_RAIL_VOLTS = 0.05
"""A core rail under this is not a low-power state: nothing computes there."""

FIRMWARE_ERRORS = frozenset({"LibRmVersionMismatch", "CorruptedInforom", "ResetRequired"})
"""Driver errors that say that driver, library or firmware state do not fit together."""


class FaultClass(Enum):
    """What can be wrong; each class has its canonical `code`."""

    MlccShortLoad = "MlccShortLoad"
    VrmPhaseShort = "VrmPhaseShort"
    FirmwareStateBad = "FirmwareStateBad"
    GpuDieDead = "GpuDieDead"
    HealthyStandby = "HealthyStandby"
    UnknownAmbiguity = "UnknownAmbiguity"

    @property
    def code(self) -> str:
        """The canonical code, as on labels and in tickets."""
        return _CODES[self]

    def to_json(self) -> str:
        """The class name as a JSON string."""
        return json.dumps(self.value)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The class that `to_json` wrote.

        Raises:
            InvalidValueError: the text names no fault class.
        """
        try:
            return cls(json.loads(text))
        except ValueError:
            raise InvalidValueError("FaultClass", text, f"one of {', '.join(cls.__members__)}") from None


_CODES = {
    FaultClass.MlccShortLoad: "ERR_MLCC_001",
    FaultClass.VrmPhaseShort: "ERR_VRM_PHASE",
    FaultClass.FirmwareStateBad: "ERR_FW_CRC_FAIL",
    FaultClass.GpuDieDead: "ERR_SILICON_DEAD",
    FaultClass.HealthyStandby: "STATUS_OK",
    FaultClass.UnknownAmbiguity: "WARN_AMBIGUOUS",
}


class Evidence(Record):
    """One reading that speaks for a fault: its path in the frame, its value, and the rule that it met."""

    reading: str
    value: float | str | bool
    rule: str


class Fault(Record):
    """A classification.

    Attributes:
        fault_class: the class.
        confidence: for a fault, how far the rules that hold are to be trusted; for HealthyStandby, the
            share of the rules whose readings this host has. A host without a GPU is healthy at 0: no
            rule had anything to look at.
        evidence: what the rules found; empty when healthy.
        since_utc: when this class began.
    """

    fault_class: FaultClass
    confidence: Ratio
    evidence: tuple[Evidence, ...] = ()
    since_utc: AwareDatetime | None = None


class FaultParameters(Record):
    """Settings of the classification."""

    hold_s: float = Field(
        default=10.0, ge=0.0, le=86400.0, description="a fault ends when its evidence is gone so long"
    )


class Rule(NamedTuple):
    """One line of the table: None from `look` means that its readings are missing."""

    fault_class: FaultClass
    name: str
    confidence: float
    look: Callable[[TelemetryFrame], tuple[Evidence, ...] | None]


def _lost_gpus(frame: TelemetryFrame) -> tuple[Evidence, ...] | None:
    if not frame.gpus:
        return None
    return tuple(
        Evidence(reading=f"gpus.{gpu.index}.lost", value=True, rule="device lost")
        for gpu in frame.gpus
        if gpu.lost
    )


def _dead_rails(frame: TelemetryFrame) -> tuple[Evidence, ...] | None:
    rails = [(gpu.index, gpu.core_volts) for gpu in frame.gpus or () if gpu.core_volts is not None]
    if not rails:
        return None
    return tuple(
        Evidence(reading=f"gpus.{index}.core_volts", value=volts, rule="core rail dead")
        for index, volts in rails
        if volts < DEAD_RAIL_VOLTS
    )


def _driver_mismatch(frame: TelemetryFrame) -> tuple[Evidence, ...] | None:
    if frame.gpu_driver_error is None:
        return () if frame.gpus else None
    if frame.gpu_driver_error not in FIRMWARE_ERRORS:
        return ()
    return (
        Evidence(
            reading="gpu_driver_error", value=frame.gpu_driver_error, rule="driver and firmware disagree"
        ),
    )


RULES: tuple[Rule, ...] = (
    Rule(FaultClass.GpuDieDead, "device lost", 0.9, _lost_gpus),
    Rule(FaultClass.GpuDieDead, "core rail dead", 0.8, _dead_rails),
    Rule(FaultClass.FirmwareStateBad, "driver and firmware disagree", 0.9, _driver_mismatch),
)


class FaultMonitor:
    """Classifies frame after frame and remembers since when a fault holds.

    Mutable; `state` and `restore` carry it through a checkpoint.
    """

    def __init__(self, parameters: FaultParameters | None = None) -> None:
        self.parameters = parameters or FaultParameters()
        self.current: Fault | None = None
        self._absent_s = 0.0

    def update(self, frame: TelemetryFrame, elapsed_s: float) -> Fault:
        """Classify `frame`, `elapsed_s` seconds after the last one."""
        found = classify(frame)
        held = self.current
        if held is None or found.fault_class is held.fault_class:
            self._absent_s = 0.0
        elif (
            held.fault_class is not FaultClass.HealthyStandby
            and found.fault_class is FaultClass.HealthyStandby
        ):
            self._absent_s += elapsed_s
            if self._absent_s < self.parameters.hold_s:
                return held
        if held is not None and held.fault_class is found.fault_class:
            found = found.model_copy(update={"since_utc": held.since_utc})
        else:
            self._absent_s = 0.0
        self.current = found
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        current = None if self.current is None else json.loads(self.current.to_json())
        return {"current": current, "absent_s": self._absent_s}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.current = None if state["current"] is None else Fault.from_dict(state["current"])
        self._absent_s = float(state["absent_s"])


def classify(frame: TelemetryFrame) -> Fault:
    """What the rules say of one frame; rules of different classes at once are an ambiguity."""
    evidence: list[Evidence] = []
    holding: list[Rule] = []
    judged = 0
    for rule in RULES:
        found = rule.look(frame)
        judged += found is not None
        if found:
            holding.append(rule)
            evidence.extend(found)
    since: datetime | None = frame.time_utc
    classes = {rule.fault_class for rule in holding}
    if not classes:
        healthy = FaultClass.HealthyStandby
        return Fault(fault_class=healthy, confidence=judged / len(RULES), since_utc=since)
    confidence = max(rule.confidence for rule in holding)
    if len(classes) > 1:
        ambiguous = FaultClass.UnknownAmbiguity
        return Fault(
            fault_class=ambiguous, confidence=confidence / 2, evidence=tuple(evidence), since_utc=since
        )
    return Fault(fault_class=classes.pop(), confidence=confidence, evidence=tuple(evidence), since_utc=since)
