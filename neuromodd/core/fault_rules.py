"""The rules of the fault classification: which readings speak for which fault.

A rule is a function of the newest frame and of what is remembered of each device. It returns the evidence
that it found, nothing where it found none, and None where this host lacks the readings (or has not learned
the baseline) that it needs. A GPU that sleeps is not judged by any rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple, Self

from neuromodd.core.baselines import DEAD_RAIL_VOLTS, Device, FaultParameters, Mode, Watched
from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.core.record import Record
from neuromodd.errors import InvalidValueError

FIRMWARE_WORDS = frozenset({"LibRmVersionMismatch", "CorruptedInforom", "ResetRequired"})
"""Errors of the driver that say that driver, library or firmware state do not fit together."""

LOST_WORD = "GpuIsLost"
"""The driver's word for a device that it does not reach, and then perhaps for itself."""

BUS_XID = 79
"""The GPU has fallen off the bus."""

FIRMWARE_XIDS = frozenset({59, 61, 62, 119, 120, 122, 123, 124, 125})
"""Xids of the firmware: the power controller's error (59), breakpoint (61) and halt (62), the GSP's timeout
and error (119, 120), its flash (122 to 124) and the infoROM's file system (125).

Names in nverror.h of NVIDIA's open kernel modules; the catalogue is
https://docs.nvidia.com/deploy/xid-errors/. Xid 154, "recovery action changed", is left out: the number does
not say whether a reset is required now, or no longer.
"""

POWER_BRAKE, SLOWDOWN, THERMAL = "hw_power_brake_slowdown", "hw_slowdown", "hw_thermal_slowdown"


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

    @property
    def is_fault(self) -> bool:
        """Whether the class names something that is broken."""
        return self not in {FaultClass.HealthyStandby, FaultClass.UnknownAmbiguity}

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


class Recent(NamedTuple):
    """What a rule looks at.

    Attributes:
        frame: the newest.
        gpus: those of its GPUs that are not asleep.
        devices: those whose utilisation it tells, each with what is remembered of it, this frame included.
        parameters: where the limits lie.
    """

    frame: TelemetryFrame
    gpus: tuple[GpuSample, ...]
    devices: tuple[tuple[Watched, Device], ...]
    parameters: FaultParameters

    @classmethod
    def of(
        cls,
        frame: TelemetryFrame,
        devices: tuple[tuple[Watched, Device], ...] = (),
        parameters: FaultParameters | None = None,
    ) -> Recent:
        """Of `frame`, and nothing remembered unless it is given."""
        awake = tuple(gpu for gpu in frame.gpus if not gpu.suspended) if frame.gpus else ()
        return cls(frame, awake, devices, parameters or FaultParameters())


Found = tuple[Evidence, ...] | None


class Rule(NamedTuple):
    """One line of the table.

    Of the rules that hold those of the lowest `precedence` decide: bad firmware goes before measured rails,
    which nobody can trust then. `confidence` is how far the rule alone is to be trusted.
    """

    fault_class: FaultClass
    name: str
    precedence: int
    confidence: float
    look: Callable[[Recent], Found]


# Precedence 0: what the driver itself says


def _device_lost(recent: Recent) -> Found:
    if recent.frame.gpu_driver_error == LOST_WORD:
        return (Evidence(reading="gpu_driver_error", value=LOST_WORD, rule="device lost"),)
    if not recent.gpus:
        return None
    return tuple(
        _evidence(gpu, "lost", "device lost")
        for gpu in recent.gpus
        if gpu.lost and gpu.fault not in FIRMWARE_WORDS
    )


def _off_the_bus(recent: Recent) -> Found:
    return _xids(recent, {BUS_XID}, "off the bus")


def _driver_mismatch(recent: Recent) -> Found:
    word = recent.frame.gpu_driver_error
    if word is None:
        return () if recent.gpus else None
    if word not in FIRMWARE_WORDS:
        return ()
    return (Evidence(reading="gpu_driver_error", value=word, rule="driver and firmware disagree"),)


def _firmware_lost(recent: Recent) -> Found:
    if not recent.gpus:
        return None
    return tuple(
        _evidence(gpu, "fault", "lost to its firmware") for gpu in recent.gpus if gpu.fault in FIRMWARE_WORDS
    )


def _inforom_corrupted(recent: Recent) -> Found:
    asked = [gpu for gpu in recent.gpus if gpu.inforom_valid is not None]
    if not asked:
        return None
    return tuple(
        _evidence(gpu, "inforom_valid", "infoROM corrupted") for gpu in asked if not gpu.inforom_valid
    )


def _firmware_error(recent: Recent) -> Found:
    return _xids(recent, FIRMWARE_XIDS, "firmware error")


def _ecc_needs_reset(recent: Recent) -> Found:
    asked = [gpu for gpu in recent.gpus if _tells_ecc(gpu)]
    if not asked:
        return None
    return tuple(
        evidence
        for gpu in asked
        if gpu.ecc_uncorrected and gpu.reset_pending
        for evidence in (
            _evidence(gpu, "ecc_uncorrected", "uncorrectable ECC", min(gpu.ecc_uncorrected, 2**53)),
            _evidence(gpu, "reset_pending", "uncorrectable ECC"),
        )
    )


# Precedence 1 and 2: what is measured


def _core_rail_dead(recent: Recent) -> Found:
    rails = [gpu for gpu in recent.gpus if gpu.core_volts is not None]
    if not rails:
        return None
    return tuple(
        _evidence(gpu, "core_volts", "core rail dead")
        for gpu in rails
        if gpu.core_volts is not None and gpu.core_volts < DEAD_RAIL_VOLTS
    )


def _slowdown_above_limit(recent: Recent) -> Found:
    asked = [gpu for gpu in recent.gpus if _tells_slowdown(gpu)]
    if not asked:
        return None
    found: list[Evidence] = []
    for gpu in asked:
        reasons = gpu.throttle_reasons or ()
        # The slowdown is the sum of its causes; with heat among them it says nothing of power.
        causes = [POWER_BRAKE] if THERMAL in reasons else [POWER_BRAKE, SLOWDOWN]
        cause = next((name for name in causes if name in reasons), None)
        if cause is not None and (gpu.power_watts or 0.0) > (gpu.power_limit_watts or 0.0):
            found.append(_evidence(gpu, "throttle_reasons", "slowed above its limit", cause))
            found.append(_evidence(gpu, "power_watts", "slowed above its limit"))
    return tuple(found)


def _rail_sags(recent: Recent) -> Found:
    return _rails(recent, "loaded", 1, "rail sags under load")


def _idle_load(recent: Recent) -> Found:
    known = [
        (watched, device.idle_watts)
        for watched, device in recent.devices
        if watched.watts is not None and device.idle_watts.learned(recent.parameters)
    ]
    if not known:
        return None
    return tuple(
        Evidence(reading=f"{watched.path}.power_watts", value=watched.watts, rule="standing load at idle")
        for watched, level in known
        if watched.watts is not None
        and watched.mode == "idle"
        and level.off_ticks >= recent.parameters.standing_ticks
    )


def _rail_depressed(recent: Recent) -> Found:
    return _rails(recent, "idle", recent.parameters.standing_ticks, "rail depressed at idle")


# Precedence 3: too few sensors to tell


def _driver_silent(recent: Recent) -> Found:
    word = recent.frame.gpu_driver_error
    if word is None or word == LOST_WORD or word in FIRMWARE_WORDS:
        return ()
    return (Evidence(reading="gpu_driver_error", value=word, rule="driver does not answer"),)


def _hangs(recent: Recent) -> Found:
    return tuple(_evidence(gpu, "hung", "call hangs") for gpu in recent.gpus if gpu.hung)


def _too_few_readings(recent: Recent) -> Found:
    # That it is not lost is all that it tells.
    return tuple(
        _evidence(gpu, "lost", "too few readings")
        for gpu in recent.gpus
        if not (gpu.lost or gpu.hung or _tells_anything(gpu))
    )


RULES: tuple[Rule, ...] = (
    Rule(FaultClass.GpuDieDead, "device lost", 0, 0.9, _device_lost),
    Rule(FaultClass.GpuDieDead, "off the bus", 0, 0.9, _off_the_bus),
    Rule(FaultClass.FirmwareStateBad, "driver and firmware disagree", 0, 0.9, _driver_mismatch),
    Rule(FaultClass.FirmwareStateBad, "lost to its firmware", 0, 0.9, _firmware_lost),
    Rule(FaultClass.FirmwareStateBad, "infoROM corrupted", 0, 0.8, _inforom_corrupted),
    Rule(FaultClass.FirmwareStateBad, "firmware error", 0, 0.8, _firmware_error),
    Rule(FaultClass.FirmwareStateBad, "uncorrectable ECC", 0, 0.8, _ecc_needs_reset),
    Rule(FaultClass.GpuDieDead, "core rail dead", 1, 0.8, _core_rail_dead),
    Rule(FaultClass.VrmPhaseShort, "slowed above its limit", 2, 0.7, _slowdown_above_limit),
    Rule(FaultClass.VrmPhaseShort, "rail sags under load", 2, 0.6, _rail_sags),
    Rule(FaultClass.MlccShortLoad, "standing load at idle", 2, 0.6, _idle_load),
    Rule(FaultClass.MlccShortLoad, "rail depressed at idle", 2, 0.6, _rail_depressed),
    Rule(FaultClass.UnknownAmbiguity, "driver does not answer", 3, 0.2, _driver_silent),
    Rule(FaultClass.UnknownAmbiguity, "call hangs", 3, 0.2, _hangs),
    Rule(FaultClass.UnknownAmbiguity, "too few readings", 3, 0.2, _too_few_readings),
)


def _tells_ecc(gpu: GpuSample) -> bool:
    return gpu.ecc_uncorrected is not None and gpu.reset_pending is not None


def _tells_slowdown(gpu: GpuSample) -> bool:
    return None not in (gpu.throttle_reasons, gpu.power_watts, gpu.power_limit_watts)


def _tells_anything(gpu: GpuSample) -> bool:
    """Whether any rule has a sensor to judge this GPU by; what it has yet to learn does not matter."""
    return (
        gpu.core_volts is not None
        or gpu.xid_errors is not None
        or gpu.inforom_valid is not None
        or (gpu.power_watts is not None and gpu.utilization_ratio is not None)
        or _tells_ecc(gpu)
        or _tells_slowdown(gpu)
    )


def _evidence(gpu: GpuSample, reading: str, rule: str, value: float | str | None = None) -> Evidence:
    """That a reading met a rule; `value` is what of it did, where that is not the whole."""
    found = getattr(gpu, reading) if value is None else value
    return Evidence(reading=f"gpus.{gpu.index}.{reading}", value=found, rule=rule)


def _xids(recent: Recent, numbers: Iterable[int], rule: str) -> Found:
    asked = [gpu for gpu in recent.gpus if gpu.xid_errors is not None]
    if not asked:
        return None
    return tuple(
        _evidence(gpu, "xid_errors", rule, number)
        for gpu in asked
        for number in dict.fromkeys(gpu.xid_errors or ())
        if number in numbers
    )


def _rails(recent: Recent, mode: Mode, ticks: int, rule: str) -> Found:
    known = [
        (watched, device.rail(mode))
        for watched, device in recent.devices
        if watched.volts is not None and device.rail(mode).learned(recent.parameters)
    ]
    if not known:
        return None
    return tuple(
        Evidence(reading=f"{watched.path}.core_volts", value=watched.volts, rule=rule)
        for watched, level in known
        if watched.volts is not None and watched.mode == mode and level.off_ticks >= ticks
    )
