"""What `import neuromodd` gives, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import neuromodd
from neuromodd import errors

PROMISED = {
    "BreakthroughFound",
    "FaultClass",
    "FpgaMetrics",
    "IzhikevichNeuron",
    "LifNeuron",
    "NeuroModulators",
    "PoissonEncoder",
    "RewardEvent",
    "SourceSwitch",
    "SpikingInferenceEngine",
    "TelemetryFrame",
    "WorkAccepted",
    "apply_stdp",
    "synaptic_scaling",
}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_every_promised_name_can_be_imported() -> None:
    assert set(neuromodd.__all__) >= PROMISED
    assert all(getattr(neuromodd, name) is not None for name in neuromodd.__all__)


def test_names_are_imported_from_where_they_are_defined() -> None:
    assert neuromodd.SpikingInferenceEngine.__module__ == "neuromodd.core.engine"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Perceptron'"):
        _ = neuromodd.Perceptron


def test_an_unknown_name_can_not_be_imported() -> None:
    with pytest.raises(ImportError):
        exec("from neuromodd import Perceptron")  # noqa: S102 - the statement under test


def test_importing_the_package_loads_neither_numpy_nor_pydantic() -> None:
    assert not loaded_by("import neuromodd") & {"numpy", "pydantic", "asyncio"}


def test_using_a_name_loads_its_home() -> None:
    assert loaded_by("from neuromodd import SpikingInferenceEngine") >= {"json", "pydantic"}


def test_a_small_network_ticks_without_numpy() -> None:
    code = """
from neuromodd import NeuroModulators, SpikingInferenceEngine
engine = SpikingInferenceEngine(seed=1, compiled=False)
engine.tick([0.5] * 8, NeuroModulators(dopamine=1.0))
SpikingInferenceEngine(compiled=False).restore(engine.state())
assert engine.weights and engine.neurons
"""
    assert "numpy" not in loaded_by(code)


def test_the_core_loads_nothing_of_the_daemon() -> None:
    foreign = {"aiomqtt", "amqtt", "numba", "paho", "psutil", "pydantic_settings", "pynvml", "structlog"}
    assert (
        not loaded_by("import neuromodd.core.brain, neuromodd.core.messages, neuromodd.core.rates") & foreign
    )


def test_the_version_is_a_version() -> None:
    assert [part.isdigit() for part in neuromodd.__version__.split(".")] == [True] * 3


def test_every_exception_has_the_common_base_and_a_builtin() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception) and value is not errors.NeuromoddError
    ]
    assert len(classes) > 5
    for cls in classes:
        assert issubclass(cls, errors.NeuromoddError)
        assert any(base.__module__ == "builtins" and base is not Exception for base in cls.__mro__[2:-3])


def test_a_message_names_place_value_and_expectation() -> None:
    fault = errors.InvalidValueError("engine.budget", -1, "a number > 0")
    assert str(fault) == "engine.budget: got -1, expected a number > 0"


def test_a_long_value_is_cut_in_a_message() -> None:
    assert len(str(errors.InvalidValueError("x", "y" * 1000, "z"))) < 120


def test_a_configuration_error_shows_every_fault_and_its_origin() -> None:
    faults = [
        errors.ConfigurationFault(place="a", got="1", expected="2", origin="file.toml"),
        errors.ConfigurationFault(place="b", got="3", expected="4"),
    ]
    assert (
        str(errors.ConfigurationError(faults))
        == "a: got 1, expected 2 (from file.toml)\nb: got 3, expected 4"
    )
