from __future__ import annotations

import inspect

import pytest

from neuromodd import errors
from neuromodd.errors import (
    ConfigurationError,
    ConfigurationFault,
    InvalidRecordError,
    InvalidValueError,
    NeuromoddError,
    shortened,
)

RAISED = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, NeuromoddError) and error is not NeuromoddError
]


@pytest.mark.parametrize("error", RAISED)
def test_every_exception_is_a_builtin_too(error: type[NeuromoddError]) -> None:
    builtins = [base for base in error.__mro__ if base.__module__ == "builtins"]
    assert builtins[0] not in (Exception, BaseException, object)


def test_a_value_out_of_range_is_told_with_its_place_and_what_was_expected() -> None:
    assert str(InvalidValueError("engine.budget", -1, "> 0")) == "engine.budget: got -1, expected > 0"


def test_a_record_tells_all_its_faults() -> None:
    error = InvalidRecordError("CpuSample", ["a: got 1, expected 2", "b: got 3, expected 4"])
    assert str(error) == "CpuSample: a: got 1, expected 2; b: got 3, expected 4"


def test_a_configuration_fault_tells_where_its_value_came_from() -> None:
    fault = ConfigurationFault(
        place="mqtt.port", got="0", expected="1 or more", origin="NEUROMODD_MQTT__PORT"
    )
    assert str(fault) == "mqtt.port: got 0, expected 1 or more (from NEUROMODD_MQTT__PORT)"


def test_a_configuration_fault_without_an_origin_tells_none() -> None:
    fault = ConfigurationFault(place="mqtt.host", got="nothing", expected="a broker")
    assert str(fault) == "mqtt.host: got nothing, expected a broker"


def test_configuration_faults_have_a_line_each() -> None:
    faults = [ConfigurationFault(place=place, got="x", expected="y") for place in ("a", "b", "c")]
    assert str(ConfigurationError(faults)).splitlines() == [str(fault) for fault in faults]


@pytest.mark.parametrize("value", ["x" * 1000, ["x"] * 1000, 10**500])
def test_a_long_value_is_cut_to_the_limit(value: object) -> None:
    assert len(shortened(value, limit=40)) == 40


def test_a_value_at_the_limit_is_shown_whole() -> None:
    assert shortened("x" * 38, limit=40) == repr("x" * 38)


def test_a_value_stays_on_one_line() -> None:
    assert "\n" not in shortened("a\nb")
