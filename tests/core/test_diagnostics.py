"""Faults: their codes, the rules, how long they hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from neuromodd.core.diagnostics import (
    RULES,
    Fault,
    FaultClass,
    FaultMonitor,
    FaultParameters,
    classify,
)
from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.errors import InvalidValueError

MakeFrame = Callable[..., TelemetryFrame]

GOOD = GpuSample(index=0, core_volts=0.9)
LOST = GpuSample(index=1, lost=True)
DARK = GpuSample(index=1, core_volts=0.01)

BROKEN: dict[str, Any] = {"gpus": (GOOD, LOST)}


@pytest.mark.parametrize(
    ("fault_class", "code"),
    [
        (FaultClass.MlccShortLoad, "ERR_MLCC_001"),
        (FaultClass.VrmPhaseShort, "ERR_VRM_PHASE"),
        (FaultClass.FirmwareStateBad, "ERR_FW_CRC_FAIL"),
        (FaultClass.GpuDieDead, "ERR_SILICON_DEAD"),
        (FaultClass.HealthyStandby, "STATUS_OK"),
        (FaultClass.UnknownAmbiguity, "WARN_AMBIGUOUS"),
    ],
)
def test_a_class_has_its_canonical_code(fault_class: FaultClass, code: str) -> None:
    assert fault_class.code == code


@pytest.mark.parametrize("text", ['"GpuDied"', "null", "[]", "{", "ERR_SILICON_DEAD"])
def test_text_that_names_no_class_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="one of MlccShortLoad"):
        FaultClass.from_json(text)


@pytest.mark.parametrize(
    ("groups", "fault_class", "rule", "reading"),
    [
        ({"gpus": (GOOD, LOST)}, FaultClass.GpuDieDead, "device lost", "gpus.1.lost"),
        ({"gpus": (GOOD, DARK)}, FaultClass.GpuDieDead, "core rail dead", "gpus.1.core_volts"),
        (
            {"gpu_driver_error": "LibRmVersionMismatch"},
            FaultClass.FirmwareStateBad,
            "driver and firmware disagree",
            "gpu_driver_error",
        ),
        (
            {"gpus": (GOOD,), "gpu_driver_error": "CorruptedInforom"},
            FaultClass.FirmwareStateBad,
            "driver and firmware disagree",
            "gpu_driver_error",
        ),
    ],
)
def test_a_rule_finds_its_fault(
    frame: MakeFrame, groups: dict[str, Any], fault_class: FaultClass, rule: str, reading: str
) -> None:
    found = classify(frame(**groups))
    (evidence,) = found.evidence
    assert found.fault_class is fault_class
    assert (evidence.rule, evidence.reading) == (rule, reading)
    assert found.confidence in {of.confidence for of in RULES if of.name == rule}


def test_every_rule_has_a_case_above_and_none_is_missing() -> None:
    assert {rule.name for rule in RULES} == {"device lost", "core rail dead", "driver and firmware disagree"}


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"gpus": (GOOD,)},
        {"gpu_driver_error": "NotPermitted"},
        {"gpus": (GpuSample(index=0, core_volts=0.05),)},
    ],
)
def test_a_host_without_evidence_is_healthy(frame: MakeFrame, groups: dict[str, Any]) -> None:
    found = classify(frame(**groups))
    assert found.fault_class is FaultClass.HealthyStandby
    assert found.evidence == ()


def test_health_is_as_certain_as_there_were_readings_to_judge(frame: MakeFrame) -> None:
    confidences = [classify(frame(gpus=gpus)).confidence for gpus in (None, (GpuSample(index=0),), (GOOD,))]
    assert confidences == [0.0, pytest.approx(2 / 3), 1.0]


def test_two_classes_at_once_are_an_ambiguity_with_the_evidence_of_both(frame: MakeFrame) -> None:
    found = classify(frame(**BROKEN, gpu_driver_error="ResetRequired"))
    assert found.fault_class is FaultClass.UnknownAmbiguity
    assert {evidence.reading for evidence in found.evidence} == {"gpus.1.lost", "gpu_driver_error"}
    assert found.confidence == 0.45


def test_two_rules_of_one_class_agree(frame: MakeFrame) -> None:
    found = classify(frame(gpus=(LOST, DARK)))
    assert found.fault_class is FaultClass.GpuDieDead
    assert len(found.evidence) == 2
    assert found.confidence == 0.9


# Over time


def classes(frame: MakeFrame, broken: list[bool], hold_s: float = 10.0) -> list[bool]:
    monitor = FaultMonitor(FaultParameters(hold_s=hold_s))
    found = [monitor.update(frame(float(i), **(BROKEN if bad else {})), 1.0) for i, bad in enumerate(broken)]
    return [fault.fault_class is FaultClass.GpuDieDead for fault in found]


def test_a_fault_begins_at_once_and_holds_until_its_evidence_was_gone_long_enough(frame: MakeFrame) -> None:
    found = classes(frame, [False, True] + [False] * 15)
    assert found == [False] + [True] * 10 + [False] * 6


def test_evidence_that_comes_back_starts_the_hold_anew(frame: MakeFrame) -> None:
    found = classes(frame, [True] + [False] * 9 + [True] + [False] * 9 + [True])
    assert all(found)


def test_without_a_hold_a_fault_ends_with_its_evidence(frame: MakeFrame) -> None:
    assert classes(frame, [True, False], hold_s=0.0) == [True, False]


def test_another_fault_takes_over_at_once(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    monitor.update(frame(0.0, **BROKEN), 0.0)
    found = monitor.update(frame(1.0, gpu_driver_error="ResetRequired"), 1.0)
    assert found.fault_class is FaultClass.FirmwareStateBad


def test_a_fault_tells_since_when_it_holds(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    frames = [frame(float(i), **(BROKEN if i >= 2 else {})) for i in range(6)]
    since = [monitor.update(of, 1.0).since_utc for of in frames]
    assert since == [frames[0].time_utc] * 2 + [frames[2].time_utc] * 4


def test_a_restored_monitor_goes_on(frame: MakeFrame) -> None:
    first = FaultMonitor()
    first.update(frame(0.0, **BROKEN), 0.0)
    first.update(frame(1.0), 4.0)
    again = FaultMonitor()
    again.restore(json.loads(json.dumps(first.state())))
    for at_s in (2.0, 3.0, 4.0):
        assert again.update(frame(at_s), 3.0) == first.update(frame(at_s), 3.0)


def test_a_fresh_monitor_restores_to_a_fresh_monitor() -> None:
    monitor = FaultMonitor()
    monitor.restore(FaultMonitor().state())
    assert monitor.current is None


def test_evidence_keeps_the_kind_of_its_value() -> None:
    fault = Fault.from_json(
        '{"fault_class":"GpuDieDead","confidence":1.0,"evidence":['
        '{"reading":"a","value":true,"rule":"r"},{"reading":"b","value":1.0,"rule":"r"},'
        '{"reading":"c","value":"1.0","rule":"r"}]}'
    )
    assert [type(evidence.value) for evidence in fault.evidence] == [bool, float, str]
