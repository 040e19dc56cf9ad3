"""The sensors: what this host measures now, and for the rest why not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from neuromodd.doctor.findings import Finding
from neuromodd.doctor.gpus import judge_amd, judge_nvidia
from neuromodd.doctor.measures import MEASURES, Measure
from neuromodd.doctor.reasons import (
    REASONS,
    examine_roots,
    failed,
    is_for_root,
    package_power_of_root,
)
from neuromodd.doctor.sight import SENSORS, Judgement, Sight

_GPUS = (("gpus.nvidia", "nvml", judge_nvidia), ("gpus.amd", "amdgpu", judge_amd))

_WRONG = frozenset({"failed", "hung"})

_found = partial(Finding, area=SENSORS)


def examine_sensors(sight: Sight) -> Iterator[Finding]:
    """Judge each group of the frame."""
    if (roots := examine_roots(sight)) is not None:
        yield _finding("container", roots)
    for measure in MEASURES:
        yield _finding(measure.name, judge(measure, sight))
    disabled = sight.settings.sensors.disabled
    for name, sensor, judge_gpus in _GPUS:
        if sensor in disabled:
            yield _finding(name, _left_alone((sensor,)))
        elif _is_wrong(sight, sensor):
            yield _finding(name, failed(sight, sensor))
        else:
            yield _finding(name, judge_gpus(sight))


def judge(measure: Measure, sight: Sight) -> Judgement:
    """What is to be said of one group."""
    asked = [name for name in measure.sensors if name not in sight.settings.sensors.disabled]
    if not asked:
        return _left_alone(measure.sensors)
    told = None if sight.frame is None else measure.told(sight.frame)
    if told is not None:
        return _measured(measure, sight, told)
    if not any(name in sight.statuses for name in asked):
        return Judgement("failure", "not asked: the sensors before it took too long", "see those that hang")
    wrong = next((name for name in asked if _is_wrong(sight, name)), None)
    if wrong is not None:
        return failed(sight, wrong)
    reason = REASONS.get(measure.name)
    return _without_value(sight, asked[0]) if reason is None else reason(sight)


def _without_value(sight: Sight, sensor: str) -> Judgement:
    told = sight.statuses[sensor].error or "it was read, and its counters stand still"
    return Judgement("failure", told, f"is {sight.procfs} a /proc that lives? correct sensors.procfs_root")


def _measured(measure: Measure, sight: Sight, told: str) -> Judgement:
    if measure.name == "power.package_watts" and (of_root := package_power_of_root(sight)) is not None:
        return of_root._replace(finding=f"{told}, {of_root.finding}")
    return Judgement("ok", told)


def _is_wrong(sight: Sight, name: str) -> bool:
    return (
        name in sight.statuses
        and sight.statuses[name].state in _WRONG
        # Known, and no failure of anything.
        and not (name == "rapl" and is_for_root(sight))
    )


def _left_alone(sensors: tuple[str, ...]) -> Judgement:
    named = " and ".join(sensors)
    return Judgement("note", "left alone, as sensors.disabled says", f"take {named} out of sensors.disabled")


def _finding(name: str, judgement: Judgement) -> Finding:
    return _found(name=name, verdict=judgement.verdict, finding=judgement.finding, remedy=judgement.remedy)
