"""Faults: their codes, the rules alone and in pairs, what is learned, how long a class holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from neuromodd.core.diagnostics import Fault, FaultClass, FaultMonitor, FaultParameters
from neuromodd.core.fault_rules import RULES
from neuromodd.core.frame import CpuSample, GpuSample, PowerSample, TelemetryFrame
from neuromodd.errors import InvalidValueError

MakeFrame = Callable[..., TelemetryFrame]

DEAD, FIRMWARE = FaultClass.GpuDieDead, FaultClass.FirmwareStateBad
VRM, MLCC = FaultClass.VrmPhaseShort, FaultClass.MlccShortLoad
HEALTHY, AMBIGUOUS = FaultClass.HealthyStandby, FaultClass.UnknownAmbiguity

LEARNING = 70
"""Ticks after which baselines of the default 60 are learned."""

STANDING = 10

IDLE: dict[str, Any] = {
    "utilization_ratio": 0.0,
    "power_watts": 20.0,
    "power_limit_watts": 300.0,
    "sm_clock_hz": 3e8,
    "sm_clock_max_hz": 2e9,
    "memory_clock_hz": 4e8,
    "core_volts": 0.7,
    "compute_processes": 0,
}
BUSY: dict[str, Any] = {
    **IDLE,
    "utilization_ratio": 0.9,
    "power_watts": 250.0,
    "sm_clock_hz": 1.9e9,
    "core_volts": 1.0,
    "compute_processes": 1,
}
"""What a healthy GPU with every sensor reads, idle and loaded."""


def gpu(index: int = 0, /, **values: Any) -> GpuSample:
    return GpuSample(index=index, uuid=f"GPU-{index}", **values)


GOOD = gpu(0, core_volts=0.9)
LOST = gpu(1, lost=True, fault="GpuIsLost")
BROKEN: dict[str, Any] = {"gpus": (GOOD, LOST)}
"""GpuDieDead, by the driver's word."""

MISMATCH: dict[str, Any] = {"gpus": (GOOD,), "gpu_driver_error": "LibRmVersionMismatch"}
RAIL: dict[str, Any] = {"gpus": (GOOD, gpu(1, core_volts=0.01))}
SLOWED: dict[str, Any] = {
    "gpus": (
        GOOD,
        gpu(
            1,
            **{**BUSY, "power_watts": 310.0, "throttle_reasons": ("sw_power_cap", "hw_power_brake_slowdown")},
        ),
    )
}
FINE: dict[str, Any] = {"gpus": (GOOD,)}
BLIND: dict[str, Any] = {"gpus": (GOOD, gpu(1, hung=True))}


class Case(NamedTuple):
    """How one rule comes to hold: what its GPU reads first, and then; or what the frame says."""

    rule: str
    fault_class: FaultClass
    evidence: dict[str, float | str | bool]
    now: dict[str, Any] | None = None
    usual: dict[str, Any] = IDLE
    groups: dict[str, Any] = {}  # noqa: RUF012 - never written


# `@` is the place of the GPU in the frame.
CASES = (
    Case("device lost", DEAD, {"@.lost": True}, {"lost": True, "fault": "GpuIsLost"}),
    Case("off the bus", DEAD, {"@.xid_errors": 79.0}, {**IDLE, "xid_errors": (13, 79)}),
    Case(
        "driver and firmware disagree",
        FIRMWARE,
        {"gpu_driver_error": "LibRmVersionMismatch"},
        groups={"gpu_driver_error": "LibRmVersionMismatch"},
    ),
    Case(
        "lost to its firmware",
        FIRMWARE,
        {"@.fault": "ResetRequired"},
        {"lost": True, "fault": "ResetRequired"},
    ),
    Case("infoROM corrupted", FIRMWARE, {"@.inforom_valid": False}, {**IDLE, "inforom_valid": False}),
    Case("firmware error", FIRMWARE, {"@.xid_errors": 119.0}, {**IDLE, "xid_errors": (119, 119, 45)}),
    Case(
        "uncorrectable ECC",
        FIRMWARE,
        {"@.ecc_uncorrected": 1.0, "@.reset_pending": True},
        {**IDLE, "ecc_uncorrected": 1, "reset_pending": True},
    ),
    Case("core rail dead", DEAD, {"@.core_volts": 0.049}, {"core_volts": 0.049}),
    Case(
        "slowed above its limit",
        VRM,
        {"@.throttle_reasons": "hw_slowdown", "@.power_watts": 300.5},
        {**BUSY, "power_watts": 300.5, "throttle_reasons": ("hw_slowdown",)},
    ),
    Case("rail sags under load", VRM, {"@.core_volts": 0.89}, {**BUSY, "core_volts": 0.89}, usual=BUSY),
    Case("standing load at idle", MLCC, {"@.power_watts": 31.0}, {**IDLE, "power_watts": 31.0}),
    Case("rail depressed at idle", MLCC, {"@.core_volts": 0.62}, {**IDLE, "core_volts": 0.62}),
    Case(
        "driver does not answer",
        AMBIGUOUS,
        {"gpu_driver_error": "Uninitialized"},
        groups={"gpu_driver_error": "Uninitialized"},
    ),
    Case("call hangs", AMBIGUOUS, {"@.hung": True}, {"hung": True}),
    Case("too few readings", AMBIGUOUS, {"@.lost": False}, {"temperature_celsius": 40.0}),
)

# For each rule, in the order above, what it makes together with each that comes after it: the first letter
# of a class, `?` for the ambiguity, `-` for two that can't be (the driver says one word at a time).
PAIRS = """
device lost                    D ? ? ? ? ?  D  D D D D  D D D
off the bus                      ? ? ? ? ?  D  D D D D  D D D
driver and firmware disagree       F F F F  F  F F F F  - F F
lost to its firmware                 F F F  F  F F F F  F F F
infoROM corrupted                      F F  F  F F F F  F F F
firmware error                           F  F  F F F F  F F F
uncorrectable ECC                           F  F F F F  F F F
core rail dead                                 D D D D  D D D
slowed above its limit                           V ? ?  V V V
rail sags under load                               ? ?  V V V
standing load at idle                                M  M M M
rail depressed at idle                                  M M M
driver does not answer                                    ? ?
call hangs                                                  ?
too few readings
"""
LETTERS = {"D": DEAD, "F": FIRMWARE, "V": VRM, "M": MLCC, "?": AMBIGUOUS}


def expected_pairs() -> list[Any]:
    letters = [letter for line in PAIRS.splitlines() for letter in line.split() if letter in "DFVM?-"]
    together = zip(combinations(CASES, 2), letters, strict=True)
    return [
        pytest.param(first, second, LETTERS[letter], id=f"{first.rule} + {second.rule}")
        for (first, second), letter in together
        if letter != "-"
    ]


def brought_about(frame: MakeFrame, cases: Sequence[Case]) -> Fault:
    """What is found when all of `cases`, each with a GPU of its own, have come to hold."""
    monitor = FaultMonitor(FaultParameters(hold_s=0.0))
    for tick in range(LEARNING + STANDING):
        broken = tick >= LEARNING
        gpus = [
            gpu(index, **(case.now if broken else case.usual))
            for index, case in enumerate(cases, 1)
            if case.now is not None
        ]
        groups = {name: value for case in cases for name, value in case.groups.items()} if broken else {}
        found = monitor.update(frame(float(tick), gpus=(GOOD, *gpus), **groups), 1.0)
        if not broken:
            assert found.fault_class is HEALTHY
    return found


def live(monitor: FaultMonitor, frames: Iterable[TelemetryFrame]) -> list[Fault]:
    return [monitor.update(of, 1.0) for of in frames]


def classes(found: Iterable[Fault]) -> list[FaultClass]:
    return [fault.fault_class for fault in found]


def course(frame: MakeFrame, readings: Iterable[dict[str, Any]], **parameters: Any) -> list[FaultClass]:
    """The classes over the ticks of one GPU."""
    frames = [frame(float(tick), gpus=(gpu(**values),)) for tick, values in enumerate(readings)]
    return classes(live(FaultMonitor(FaultParameters(**parameters)), frames))


# The classes


@pytest.mark.parametrize(
    ("fault_class", "code"),
    [
        (MLCC, "ERR_MLCC_001"),
        (VRM, "ERR_VRM_PHASE"),
        (FIRMWARE, "ERR_FW_CRC_FAIL"),
        (DEAD, "ERR_SILICON_DEAD"),
        (HEALTHY, "STATUS_OK"),
        (AMBIGUOUS, "WARN_AMBIGUOUS"),
    ],
)
def test_a_class_has_its_canonical_code(fault_class: FaultClass, code: str) -> None:
    assert fault_class.code == code


def test_four_classes_name_something_broken() -> None:
    assert {of for of in FaultClass if of.is_fault} == {MLCC, VRM, FIRMWARE, DEAD}


@pytest.mark.parametrize("text", ['"GpuDied"', "null", "[]", "{", "ERR_SILICON_DEAD"])
def test_text_that_names_no_class_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="one of MlccShortLoad"):
        FaultClass.from_json(text)


def test_evidence_keeps_the_kind_of_its_value() -> None:
    fault = Fault.from_json(
        '{"fault_class":"GpuDieDead","confidence":1.0,"evidence":['
        '{"reading":"a","value":true,"rule":"r"},{"reading":"b","value":1.0,"rule":"r"},'
        '{"reading":"c","value":"1.0","rule":"r"}]}'
    )
    assert [type(evidence.value) for evidence in fault.evidence] == [bool, float, str]


# Rules, alone


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_finds_its_fault_and_says_by_what(frame: MakeFrame, case: Case) -> None:
    found = brought_about(frame, [case])
    assert found.fault_class is case.fault_class
    at = {path.replace("@", "gpus.1"): value for path, value in case.evidence.items()}
    assert {of.reading: of.value for of in found.evidence} == at
    assert len(found.evidence) == len(at)
    assert {of.rule for of in found.evidence} == {case.rule}
    assert [found.confidence] == [rule.confidence for rule in RULES if rule.name == case.rule]


def test_every_rule_has_a_case_and_a_name_of_its_own() -> None:
    assert [(case.rule, case.fault_class) for case in CASES] == [
        (rule.name, rule.fault_class) for rule in RULES
    ]
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("word", ["LibRmVersionMismatch", "CorruptedInforom", "ResetRequired"])
def test_firmware_is_what_the_driver_names_so(frame: MakeFrame, word: str) -> None:
    (of_driver,) = live(FaultMonitor(), [frame(gpu_driver_error=word)])
    (of_device,) = live(FaultMonitor(), [frame(gpus=(gpu(lost=True, fault=word),))])
    assert classes([of_driver, of_device]) == [FIRMWARE, FIRMWARE]


@pytest.mark.parametrize("xid", [59, 61, 62, 119, 120, 122, 123, 124, 125])
def test_an_xid_of_the_firmware_is_bad_firmware(frame: MakeFrame, xid: int) -> None:
    assert course(frame, [{**IDLE, "xid_errors": (xid,)}]) == [FIRMWARE]


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param({}, id="nothing at all"),
        pytest.param({"gpus": ()}, id="no GPU"),
        pytest.param({"gpus": (gpu(**IDLE),)}, id="an idle GPU"),
        pytest.param({"gpus": (gpu(**BUSY),)}, id="a busy GPU"),
        pytest.param({"gpus": (gpu(core_volts=0.05),)}, id="a rail that is just alive"),
        pytest.param({"gpus": (gpu(suspended=True),)}, id="a GPU that sleeps"),
        pytest.param(
            {"gpus": (gpu(suspended=True, inforom_valid=False),)}, id="a GPU that sleeps is not judged"
        ),
        pytest.param({"gpus": (gpu(**IDLE, xid_errors=(13, 31, 43, 45, 154)),)}, id="Xids of applications"),
        pytest.param({"gpus": (gpu(**IDLE, xid_errors=()),)}, id="no Xids"),
        pytest.param({"gpus": (gpu(ecc_uncorrected=3, reset_pending=False),)}, id="ECC without a reset"),
        pytest.param({"gpus": (gpu(ecc_uncorrected=0, reset_pending=True),)}, id="a reset without ECC"),
        pytest.param({"gpus": (gpu(inforom_valid=True),)}, id="a sound infoROM"),
        pytest.param(
            {"gpus": (gpu(**BUSY, throttle_reasons=("hw_slowdown", "hw_power_brake_slowdown")),)},
            id="slowed, but within its limit",
        ),
        pytest.param(
            {"gpus": (gpu(**{**BUSY, "power_watts": 301.0}, throttle_reasons=("sw_power_cap",)),)},
            id="above its limit, but only capped by software",
        ),
        pytest.param(
            {
                "gpus": (
                    gpu(
                        **{**BUSY, "power_watts": 301.0},
                        throttle_reasons=("hw_slowdown", "hw_thermal_slowdown"),
                    ),
                )
            },
            id="slowed by heat",
        ),
    ],
)
def test_a_host_without_evidence_is_healthy(frame: MakeFrame, groups: dict[str, Any]) -> None:
    (found,) = live(FaultMonitor(), [frame(**groups)])
    assert found.fault_class is HEALTHY
    assert found.evidence == ()


def test_a_power_brake_counts_in_the_heat_too(frame: MakeFrame) -> None:
    reasons = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
    assert course(frame, [{**BUSY, "power_watts": 301.0, "throttle_reasons": reasons}]) == [VRM]


@pytest.mark.parametrize(
    "known",
    [
        {"core_volts": 0.9},
        {"xid_errors": ()},
        {"inforom_valid": True},
        {"power_watts": 20.0, "utilization_ratio": 0.0},
        {"ecc_uncorrected": 0, "reset_pending": False},
        {"throttle_reasons": (), "power_watts": 20.0, "power_limit_watts": 300.0},
    ],
)
def test_readings_of_any_one_rule_are_enough_to_tell(frame: MakeFrame, known: dict[str, Any]) -> None:
    assert course(frame, [known]) == [HEALTHY]
    for name in known:
        assert course(frame, [{**known, name: None}]) == [AMBIGUOUS]


def test_health_is_as_certain_as_there_were_readings_to_judge(frame: MakeFrame) -> None:
    confidences = [
        live(FaultMonitor(), [frame(gpus=gpus)])[0].confidence
        for gpus in (None, (gpu(),), (GOOD,), (gpu(**IDLE),))
    ]
    # Without readings a GPU's three rules of being lost and of the driver; with a rail one more.
    assert confidences == [0.0, 0.2, pytest.approx(4 / 12), pytest.approx(4 / 12)]


def test_health_is_more_certain_with_every_baseline_that_is_learned(frame: MakeFrame) -> None:
    found = live(FaultMonitor(), [frame(float(i), gpus=(gpu(**IDLE),)) for i in range(61)])
    assert [found[58].confidence, found[59].confidence] == [pytest.approx(4 / 12), pytest.approx(6 / 12)]
    full = {**IDLE, "throttle_reasons": (), "xid_errors": ()}
    full |= {"inforom_valid": True, "ecc_uncorrected": 0, "reset_pending": False}
    readings = [full] * LEARNING + [{**full, **BUSY}] * (LEARNING + STANDING)
    frames = [frame(float(i), gpus=(gpu(**of),)) for i, of in enumerate(readings)]
    assert live(FaultMonitor(), frames)[-1].confidence == 1.0


# Rules, in pairs


@pytest.mark.parametrize(("first", "second", "together"), expected_pairs())
def test_a_pair_of_rules_makes_its_class(
    frame: MakeFrame, first: Case, second: Case, together: FaultClass
) -> None:
    found = brought_about(frame, [first, second])
    assert found.fault_class is together
    spoken = {of.rule for of in found.evidence}
    if together is AMBIGUOUS:
        assert spoken == {first.rule, second.rule}
    else:
        assert spoken == {case.rule for case in (first, second) if case.fault_class is together}


def test_an_ambiguity_of_faults_is_half_as_certain_as_the_surer_one(frame: MakeFrame) -> None:
    (found,) = live(FaultMonitor(), [frame(**BROKEN, gpu_driver_error="ResetRequired")])
    assert (found.fault_class, found.confidence) == (AMBIGUOUS, 0.45)


def test_an_ambiguity_for_want_of_sensors_is_not(frame: MakeFrame) -> None:
    (found,) = live(FaultMonitor(), [frame(gpus=(gpu(), gpu(1, hung=True)), gpu_driver_error="Unknown")])
    assert (found.fault_class, found.confidence, len(found.evidence)) == (AMBIGUOUS, 0.2, 3)


def test_two_rules_of_one_class_agree(frame: MakeFrame) -> None:
    (found,) = live(FaultMonitor(), [frame(gpus=(LOST, gpu(2, core_volts=0.0)))])
    assert (found.fault_class, found.confidence) == (DEAD, 0.9)
    assert [of.reading for of in found.evidence] == ["gpus.1.lost", "gpus.2.core_volts"]


def test_bad_firmware_masks_the_rails_that_nobody_can_trust_then(frame: MakeFrame) -> None:
    (found,) = live(FaultMonitor(), [frame(**RAIL, gpu_driver_error="CorruptedInforom")])
    assert found.fault_class is FIRMWARE
    assert [of.reading for of in found.evidence] == ["gpu_driver_error"]


# What is learned


def host(at: MakeFrame, second: int, volts: float, busy: float, clock_hz: float = 4e9) -> TelemetryFrame:
    return at(
        float(second),
        cpu=CpuSample(utilization_ratio=busy, frequency_hz=clock_hz),
        power=PowerSample(core_volts=volts),
    )


@pytest.mark.parametrize(
    ("busy", "volts", "fault_class", "after"), [(0.9, 0.89, VRM, 0), (0.02, 0.89, MLCC, STANDING - 1)]
)
def test_the_host_has_a_core_rail_too(
    frame: MakeFrame, busy: float, volts: float, fault_class: FaultClass, after: int
) -> None:
    monitor = FaultMonitor()
    live(monitor, [host(frame, i, 1.0, busy) for i in range(LEARNING)])
    found = live(monitor, [host(frame, LEARNING + i, volts, busy) for i in range(20)])
    assert classes(found) == [HEALTHY] * after + [fault_class] * (20 - after)
    assert [(of.reading, of.value) for of in found[-1].evidence] == [("power.core_volts", volts)]


@pytest.mark.parametrize(
    ("usual", "off"),
    [
        (IDLE, {"power_watts": 200.0}),
        (IDLE, {"core_volts": 0.3}),
        (BUSY, {"core_volts": 0.5}),
    ],
)
def test_nothing_is_judged_before_its_baseline_is_learned(
    frame: MakeFrame, usual: dict[str, Any], off: dict[str, Any]
) -> None:
    short = course(frame, [usual] * 40 + [{**usual, **off}] * 19)
    assert set(short) == {HEALTHY}
    longer = course(frame, [usual] * 60 + [{**usual, **off}] * 19)
    assert longer[-1].is_fault


@pytest.mark.parametrize(
    ("watts", "fault"),
    [(30.0, False), (30.5, True), (20.0, False)],
)
def test_an_idle_gpu_may_draw_half_as_much_again(frame: MakeFrame, watts: float, fault: bool) -> None:
    found = course(frame, [IDLE] * LEARNING + [{**IDLE, "power_watts": watts}] * 15)
    assert found[-1] is (MLCC if fault else HEALTHY)


@pytest.mark.parametrize(("watts", "fault"), [(8.9, False), (9.0, True)])
def test_a_small_idle_draw_may_grow_by_five_watts(frame: MakeFrame, watts: float, fault: bool) -> None:
    small = {**IDLE, "power_watts": 4.0}
    found = course(frame, [small] * LEARNING + [{**small, "power_watts": watts}] * 15)
    assert found[-1] is (MLCC if fault else HEALTHY)


def test_a_load_stands_after_ten_ticks_in_a_row(frame: MakeFrame) -> None:
    over = {**IDLE, "power_watts": 60.0}
    found = course(frame, [IDLE] * LEARNING + [over] * 9 + [IDLE] + [over] * 9 + [BUSY] + [over] * 10)
    assert found == [HEALTHY] * (LEARNING + 29) + [MLCC]


@pytest.mark.parametrize(
    "explained",
    [
        pytest.param({"utilization_ratio": 0.06}, id="it works a little"),
        pytest.param({"sm_clock_hz": 1.1e9}, id="its clock is not idle"),
        pytest.param({"compute_processes": 1}, id="a process holds it"),
        pytest.param({"decoder_utilization_ratio": 0.2}, id="it plays a film"),
        pytest.param({"memory_clock_hz": 7e9}, id="a display holds its memory clock up"),
        pytest.param({"utilization_ratio": None}, id="nobody knows whether it works"),
    ],
)
def test_a_draw_that_is_explained_is_no_fault(frame: MakeFrame, explained: dict[str, Any]) -> None:
    over = {**IDLE, "power_watts": 60.0}
    assert course(frame, [IDLE] * LEARNING + [over] * 30)[-1] is MLCC
    assert set(course(frame, [IDLE] * LEARNING + [{**over, **explained}] * 30)) == {HEALTHY}


@pytest.mark.parametrize(
    "unknown", ["sm_clock_hz", "sm_clock_max_hz", "memory_clock_hz", "compute_processes"]
)
def test_what_does_not_tell_explains_nothing(frame: MakeFrame, unknown: str) -> None:
    idle = {**IDLE, unknown: None}
    assert course(frame, [idle] * LEARNING + [{**idle, "power_watts": 60.0}] * STANDING)[-1] is MLCC


def test_a_rail_that_follows_its_clock_does_not_sag(frame: MakeFrame) -> None:
    slower = {**BUSY, "core_volts": 0.8, "sm_clock_hz": 1.4e9}
    assert set(course(frame, [BUSY] * LEARNING + [slower] * 30)) == {HEALTHY}


def test_power_that_lags_behind_a_load_is_no_fault(frame: MakeFrame) -> None:
    tail = [{**IDLE, "power_watts": watts, "core_volts": 0.7} for watts in (250.0, 160.0, 90.0, 50.0, 30.5)]
    day = ([BUSY] * 30 + tail + [IDLE] * 30) * 20
    assert set(course(frame, day)) == {HEALTHY}


def test_the_way_to_idle_is_not_learned(frame: MakeFrame) -> None:
    tail = [{**IDLE, "power_watts": watts} for watts in (250.0, 250.0, 250.0, 160.0, 90.0)]
    over = {**IDLE, "power_watts": 31.0}
    found = course(frame, [BUSY] * 30 + tail + [IDLE] * LEARNING + [over] * STANDING)
    assert found[-1] is MLCC


@pytest.mark.parametrize("off", [{"power_watts": 31.0}, {"core_volts": 0.62}])
def test_a_fault_is_not_learned(frame: MakeFrame, off: dict[str, Any]) -> None:
    found = course(frame, [IDLE] * LEARNING + [{**IDLE, **off}] * 5000)
    assert set(found[LEARNING + STANDING :]) == {MLCC}


def test_a_dead_rail_is_not_learned(frame: MakeFrame) -> None:
    dead = {**IDLE, "core_volts": 0.01}
    depressed = {**IDLE, "core_volts": 0.62}
    found = course(frame, [IDLE] * 30 + [dead] * 100 + [IDLE] * 40 + [depressed] * STANDING)
    assert found[-1] is MLCC


def test_a_baseline_follows_slowly(frame: MakeFrame) -> None:
    # 20 to 28 W over ten hours, and each step within what is allowed of the mean.
    creeping = [{**IDLE, "power_watts": 20.0 + 8.0 * i / 36_000} for i in range(36_000)]
    monitor = FaultMonitor()
    assert set(classes(live(monitor, [frame(gpus=(gpu(**of),)) for of in creeping[::10]]))) == {HEALTHY}
    mean = monitor.state()["devices"]["GPU-0"]["idle_watts"]["usual"]["value"]
    assert 20.0 < mean < 28.0


def test_a_rail_is_judged_once_the_load_has_settled(frame: MakeFrame) -> None:
    rising = [{**BUSY, "core_volts": volts} for volts in (0.7, 0.8, 0.85, 0.89, 0.95)]
    assert set(course(frame, [BUSY] * LEARNING + ([IDLE] * 20 + rising + [BUSY] * 20) * 5)) == {HEALTHY}


@pytest.mark.parametrize(
    ("usual", "off", "other"),
    [
        (BUSY, {"core_volts": 0.8}, IDLE),
        (IDLE, {"core_volts": 0.5}, BUSY),
        (IDLE, {"power_watts": 60.0}, BUSY),
    ],
)
def test_evidence_is_of_the_tick_that_shows_it(
    frame: MakeFrame, usual: dict[str, Any], off: dict[str, Any], other: dict[str, Any]
) -> None:
    faulty = [usual] * LEARNING + [{**usual, **off}] * STANDING
    found = course(frame, faulty + [other] * 20 + [usual] * 5, hold_s=0.0)
    assert found[len(faulty) - 1].is_fault
    assert set(found[len(faulty) :]) == {HEALTHY}


def test_a_short_load_does_not_end_a_standing_one(frame: MakeFrame) -> None:
    over = {**IDLE, "power_watts": 60.0}
    found = course(frame, [IDLE] * LEARNING + [over] * STANDING + ([BUSY] * 5 + [over] * 20) * 10)
    assert set(found[LEARNING + STANDING - 1 :]) == {MLCC}


def test_a_level_that_stood_long_enough_is_accepted_for_good(frame: MakeFrame) -> None:
    second_monitor = {**IDLE, "power_watts": 45.0}
    before = [IDLE] * LEARNING + [second_monitor] * 200
    found = course(frame, before + [IDLE] * 200 + [second_monitor] * 100, relearn_s=100.0)
    # Ten ticks until it stands, a hundred seconds more, and the hold.
    last = max(i for i, of in enumerate(found) if of is MLCC)
    assert found.index(MLCC) == LEARNING + STANDING - 1
    assert LEARNING + STANDING + 100 <= last < LEARNING + STANDING + 100 + 11
    assert classes_after_acceptance(frame, before, 67.0) is HEALTHY
    assert classes_after_acceptance(frame, before, 68.0) is MLCC


def classes_after_acceptance(frame: MakeFrame, before: list[dict[str, Any]], watts: float) -> FaultClass:
    return course(frame, [*before, *[{**IDLE, "power_watts": watts}] * 20], relearn_s=100.0)[-1]


@pytest.mark.parametrize("usual", [IDLE, BUSY])
def test_a_rail_is_accepted_likewise(frame: MakeFrame, usual: dict[str, Any]) -> None:
    lower, lowest = ({**usual, "core_volts": usual["core_volts"] * of} for of in (0.85, 0.75))
    before = [usual] * LEARNING + [lower] * 200
    assert course(frame, before, relearn_s=100.0)[LEARNING + STANDING].is_fault
    assert course(frame, before, relearn_s=100.0)[-1] is HEALTHY
    assert course(frame, [*before, *[lowest] * 20], relearn_s=100.0)[-1].is_fault


def test_a_level_that_comes_and_goes_is_accepted_in_the_end(frame: MakeFrame) -> None:
    over = {**IDLE, "power_watts": 45.0}
    days = [IDLE] * LEARNING + ([IDLE] * 20 + [over] * 40) * 6
    found = course(frame, days, relearn_s=100.0, hold_s=0.0)
    assert MLCC in found[:-120]
    assert set(found[-120:]) == {HEALTHY}


def test_what_stood_during_a_gap_nobody_saw(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    over = {**IDLE, "power_watts": 60.0}
    live(monitor, [frame(float(i), gpus=(gpu(**IDLE),)) for i in range(LEARNING)])
    live(monitor, [frame(100.0 + i, gpus=(gpu(**over),)) for i in range(20)])
    monitor.update(frame(7e4, gpus=(gpu(**over),), gap=True), 7e4)
    assert monitor.update(frame(14e4, gpus=(gpu(**over),), gap=True), 7e4).fault_class is MLCC


def test_each_device_has_its_own_baseline_and_keeps_it_wherever_it_is_found(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    small, large = {**IDLE, "power_watts": 10.0}, {**IDLE, "power_watts": 60.0}
    live(monitor, [frame(float(i), gpus=(gpu(0, **small), gpu(1, **large))) for i in range(LEARNING)])
    moved = [GpuSample(index=0, uuid="GPU-1", **large), GpuSample(index=1, uuid="GPU-0", **small)]
    after = live(monitor, [frame(100.0 + i, gpus=tuple(moved)) for i in range(20)])
    assert set(classes(after)) == {HEALTHY}
    swapped = live(monitor, [frame(200.0 + i, gpus=(gpu(0, **large), gpu(1, **small))) for i in range(20)])
    assert [of.reading for of in swapped[-1].evidence] == ["gpus.0.power_watts"]


def test_a_gpu_without_uuid_is_known_by_its_number(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    monitor.update(frame(gpus=(GpuSample(index=3, **IDLE),), power=PowerSample(core_volts=1.0), cpu=0.0), 1.0)
    assert list(monitor.state()["devices"]) == ["gpu3", "host"]


def test_a_device_that_was_not_seen_for_a_day_is_forgotten(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    monitor.update(frame(gpus=(gpu(0, **IDLE), gpu(1, **IDLE))), 0.0)
    monitor.update(frame(gpus=(gpu(0, **IDLE),)), 86_400.0)
    assert list(monitor.state()["devices"]) == ["GPU-0", "GPU-1"]
    monitor.update(frame(gpus=(gpu(0, **IDLE),)), 1.0)
    assert list(monitor.state()["devices"]) == ["GPU-0"]


def test_of_many_devices_the_longest_unseen_are_forgotten(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    for i in range(200):
        monitor.update(frame(float(i), gpus=(gpu(i, **IDLE),)), 1.0)
    assert set(monitor.state()["devices"]) == {f"GPU-{i}" for i in range(136, 200)}


# Over time


def held(frame: MakeFrame, groups: Iterable[dict[str, Any]], hold_s: float = 3.0) -> list[FaultClass]:
    frames = [frame(float(i), **of) for i, of in enumerate(groups)]
    return classes(live(FaultMonitor(FaultParameters(hold_s=hold_s)), frames))


BOTH: dict[str, Any] = {**BROKEN, "gpu_driver_error": "ResetRequired"}
"""DEAD and FIRMWARE, at the same precedence."""


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        pytest.param(
            [FINE, BROKEN, FINE, FINE, FINE, FINE],
            [HEALTHY, DEAD, DEAD, DEAD, HEALTHY, HEALTHY],
            id="a fault begins at once and holds until its evidence was gone long enough",
        ),
        pytest.param(
            [BROKEN, FINE, FINE, BROKEN, FINE, FINE, FINE],
            [DEAD] * 6 + [HEALTHY],
            id="evidence that comes back starts the hold anew",
        ),
        pytest.param(
            [BROKEN, MISMATCH, MISMATCH, MISMATCH, MISMATCH],
            [DEAD, DEAD, DEAD, FIRMWARE, FIRMWARE],
            id="another fault waits until the evidence of the first was gone long enough",
        ),
        pytest.param(
            [SLOWED, RAIL, MISMATCH, MISMATCH],
            [VRM, DEAD, FIRMWARE, FIRMWARE],
            id="one of better precedence does not wait",
        ),
        pytest.param(
            [MISMATCH, RAIL, SLOWED, RAIL, RAIL],
            [FIRMWARE, FIRMWARE, FIRMWARE, DEAD, DEAD],
            id="one of worse precedence waits",
        ),
        pytest.param(
            [RAIL, BROKEN, MISMATCH, RAIL, RAIL, RAIL],
            [DEAD] * 6,
            id="a fault is as good as its best evidence of late",
        ),
        pytest.param(
            [BROKEN, BOTH, BOTH, BROKEN, BOTH, BOTH, BOTH, BOTH],
            [DEAD] * 6 + [AMBIGUOUS, AMBIGUOUS],
            id="a contest begins an ambiguity once it lasts",
        ),
        pytest.param(
            [BROKEN, BOTH, BOTH, FINE, BOTH, BOTH, BOTH],
            [DEAD] * 6 + [AMBIGUOUS],
            id="a contest that breaks off begins anew",
        ),
        pytest.param(
            [BROKEN, BOTH, BOTH, FINE, FINE, FINE],
            [DEAD] * 5 + [HEALTHY],
            id="a contest does not shorten the hold",
        ),
        pytest.param(
            [BROKEN, FINE, FINE, BOTH, FINE, FINE, FINE],
            [DEAD] * 6 + [HEALTHY],
            id="evidence within a contest is evidence",
        ),
        pytest.param(
            [BOTH, BROKEN, BOTH],
            [AMBIGUOUS, DEAD, DEAD],
            id="an ambiguity never delays a fault",
        ),
        pytest.param(
            [BROKEN, BLIND, BLIND, BROKEN, BLIND, BLIND, BLIND, BLIND],
            [DEAD] * 6 + [AMBIGUOUS, AMBIGUOUS],
            id="sensors that fail for a moment take no fault away",
        ),
        pytest.param(
            [BROKEN, BLIND, FINE, FINE],
            [DEAD] * 3 + [HEALTHY],
            id="evidence is gone whatever is found instead",
        ),
        pytest.param(
            [FINE, BLIND, FINE, FINE, FINE, BLIND],
            [HEALTHY, AMBIGUOUS, AMBIGUOUS, AMBIGUOUS, HEALTHY, AMBIGUOUS],
            id="an ambiguity begins at once and holds likewise",
        ),
        pytest.param(
            [BLIND, SLOWED, BLIND, BLIND, BLIND],
            [AMBIGUOUS, VRM, VRM, VRM, AMBIGUOUS],
            id="from an ambiguity to a fault and back",
        ),
    ],
)
def test_classes_follow_each_other(
    frame: MakeFrame, groups: list[dict[str, Any]], expected: list[FaultClass]
) -> None:
    assert held(frame, groups) == expected


def test_without_a_hold_a_class_ends_with_its_evidence(frame: MakeFrame) -> None:
    groups = [BROKEN, FINE, BROKEN, BOTH, MISMATCH, BLIND, FINE]
    assert held(frame, groups, hold_s=0.0) == [DEAD, HEALTHY, DEAD, AMBIGUOUS, FIRMWARE, AMBIGUOUS, HEALTHY]


def test_a_fault_that_holds_keeps_its_last_evidence(frame: MakeFrame) -> None:
    first, second, third = live(FaultMonitor(), [frame(**SLOWED), frame(1.0, **FINE), frame(2.0, **BLIND)])
    assert first.evidence != ()
    assert first == second == third


def test_a_fault_goes_on_with_the_newest_evidence(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    monitor.update(frame(gpus=(gpu(core_volts=0.02),)), 1.0)
    found = monitor.update(frame(1.0, gpus=(gpu(core_volts=0.01),)), 1.0)
    assert [of.value for of in found.evidence] == [0.01]


def test_a_class_tells_since_when_it_holds(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    frames = [frame(float(i), **(BROKEN if i >= 2 else FINE)) for i in range(6)]
    since = [monitor.update(of, 1.0).since_utc for of in frames]
    assert since == [frames[0].time_utc] * 2 + [frames[2].time_utc] * 4


def test_it_is_counted_how_often_each_class_began(frame: MakeFrame) -> None:
    monitor = FaultMonitor(FaultParameters(hold_s=0.0))
    groups = [FINE, FINE, BROKEN, BROKEN, FINE, BROKEN, BOTH, FINE]
    live(monitor, [frame(float(i), **of) for i, of in enumerate(groups)])
    began = {"HealthyStandby": 3, "GpuDieDead": 2, "UnknownAmbiguity": 1}
    assert monitor.counts == dict.fromkeys((of.value for of in FaultClass), 0) | began


# Checkpoints


def day(frame: MakeFrame) -> list[TelemetryFrame]:
    """Loads, faults of every kind, a GPU that is away for a while, a host's rail."""
    frames = []
    for i in range(400):
        first = BUSY if i % 90 < 30 else {**IDLE, "power_watts": 20.0 + 3.0 * math.sin(i)}
        second = {**IDLE, "power_watts": 45.0 if i > 150 else 20.0}
        third = {"lost": True} if 200 <= i < 240 else BUSY
        gpus = (gpu(0, **first), gpu(1, **second), gpu(2, **third))
        word = "LibRmVersionMismatch" if 220 <= i < 260 else None
        power = PowerSample(core_volts=1.0 if i < 300 else 0.85)
        cpu = CpuSample(utilization_ratio=0.8)
        frames.append(
            frame(
                float(i),
                gpus=None if i % 50 == 7 else gpus,
                gpu_driver_error=word,
                power=power,
                cpu=cpu,
            )
        )
    return frames


def test_resuming_and_never_stopping_are_the_same(frame: MakeFrame) -> None:
    frames = day(frame)
    parameters = FaultParameters(relearn_s=60.0)
    straight = FaultMonitor(parameters)
    expected = live(straight, frames)
    assert {VRM, MLCC, DEAD, FIRMWARE, AMBIGUOUS, HEALTHY} >= set(classes(expected)) > {MLCC, DEAD, VRM}
    found = []
    monitor = FaultMonitor(parameters)
    for i, of in enumerate(frames):
        if i % 37 == 0:
            state = json.dumps(monitor.state(), sort_keys=True, allow_nan=False)
            monitor = FaultMonitor(parameters)
            monitor.restore(json.loads(state))
            assert json.dumps(monitor.state(), sort_keys=True) == state
        found.append(monitor.update(of, 1.0))
    assert found == expected
    assert json.dumps(monitor.state()) == json.dumps(straight.state())


def test_a_state_is_a_snapshot(frame: MakeFrame) -> None:
    monitor = FaultMonitor()
    frames = day(frame)
    live(monitor, frames[:100])
    state = monitor.state()
    before = json.dumps(state)
    live(monitor, frames[100:])
    assert json.dumps(state) == before


def test_a_fresh_monitor_restores_to_a_fresh_monitor() -> None:
    monitor = FaultMonitor()
    monitor.restore(json.loads(json.dumps(FaultMonitor().state())))
    assert monitor.current is None
    assert monitor.state() == FaultMonitor().state()


def test_a_state_of_older_checkpoints_goes_on(frame: MakeFrame) -> None:
    first = FaultMonitor(FaultParameters(hold_s=3.0))
    live(first, [frame(**BROKEN), frame(1.0, **FINE)])
    older = {name: first.state()[name] for name in ("current", "absent_s")}
    monitor = FaultMonitor(first.parameters)
    monitor.restore(json.loads(json.dumps(older)))
    assert set(monitor.counts.values()) == {0}
    assert monitor.state()["devices"] == {}
    found = live(monitor, [frame(2.0, **FINE), frame(3.0, **FINE)])
    assert classes(found) == [DEAD, HEALTHY]


def test_any_frames_are_classified(
    record_of: Callable[[type[BaseModel]], st.SearchStrategy[Any]], frame: MakeFrame
) -> None:
    # A quick learner, so that what is learned is judged by too.
    parameters = FaultParameters(baseline_ticks=1, standing_ticks=1, relearn_s=2.0)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(record_of(TelemetryFrame), st.floats(0.0, 1e308)), min_size=1, max_size=4))
    def check(drawn: list[tuple[TelemetryFrame, float]]) -> None:
        monitor = FaultMonitor(parameters)
        for of, elapsed_s in drawn:
            here = of.model_copy(update={"time_utc": frame().time_utc})
            found = monitor.update(here, elapsed_s)
            assert 0.0 <= found.confidence <= 1.0
            assert bool(found.evidence) == (found.fault_class is not HEALTHY)
        state = json.dumps(monitor.state(), allow_nan=False)
        again = FaultMonitor(parameters)
        again.restore(json.loads(state))
        assert json.dumps(again.state()) == state

    check()


READING = st.one_of(st.none(), st.sampled_from([0.0, 0.01, 0.04, 0.5, 0.62, 0.7, 1.0, 20.0, 60.0]))


@settings(max_examples=100)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "power_watts": READING,
                "core_volts": READING,
                "power_limit_watts": READING,
                "utilization_ratio": st.sampled_from([None, 0.0, 0.3, 0.9]),
                "throttle_reasons": st.sampled_from([None, (), ("hw_slowdown",)]),
                "lost": st.sampled_from([False, False, False, True]),
            }
        ),
        max_size=30,
    ),
    st.integers(0, 30),
)
def test_any_course_resumes_as_if_it_never_stopped(courses: list[dict[str, Any]], cut: int) -> None:
    parameters = FaultParameters(baseline_ticks=2, standing_ticks=2, relearn_s=3.0, hold_s=2.0)
    straight, stopped = FaultMonitor(parameters), FaultMonitor(parameters)
    frames = [TelemetryFrame(interval_s=1.0, gpus=(gpu(**values),)) for values in courses]
    expected = live(straight, frames)
    found = live(stopped, frames[:cut])
    resumed = FaultMonitor(parameters)
    resumed.restore(json.loads(json.dumps(stopped.state(), allow_nan=False)))
    assert found + live(resumed, frames[cut:]) == expected


def test_a_driver_that_a_lost_device_keeps_from_starting_is_a_dead_die(frame: MakeFrame) -> None:
    fault = FaultMonitor().update(frame(0.0, gpu_driver_error="GpuIsLost"), 0.0)
    assert (fault.fault_class, fault.evidence[0].reading) == (FaultClass.GpuDieDead, "gpu_driver_error")
