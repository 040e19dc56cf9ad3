"""Records: exact JSON, faults of the package's own kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from neuromodd.core.brain import BrainParameters
from neuromodd.core.diagnostics import Evidence, Fault, FaultClass
from neuromodd.core.fpga import FpgaMetrics
from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.core.modulators import NeuroModulators, Setpoints
from neuromodd.core.neurons import IzhikevichNeuron, LifNeuron, PoissonEncoder
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.record import JsonModel
from neuromodd.core.results import StepResult
from neuromodd.core.rewards import BreakthroughFound, RewardEvent, SourceSwitch, WorkAccepted
from neuromodd.errors import InvalidRecordError

RecordOf = Callable[[type[BaseModel]], st.SearchStrategy[Any]]

ROUND_TRIPS = (
    BreakthroughFound,
    Evidence,
    Fault,
    FpgaMetrics,
    GpuSample,
    IzhikevichNeuron,
    LifNeuron,
    NeuroModulators,
    PoissonEncoder,
    Setpoints,
    SourceSwitch,
    StepResult,
    TelemetryFrame,
    WorkAccepted,
)


def doubles(record: BaseModel) -> list[str]:
    """Every float of the record to the last bit, zeros with their sign."""

    def walk(value: object) -> list[str]:
        if isinstance(value, float):
            return [value.hex()]
        parts = (
            value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        )
        return [text for part in parts for text in walk(part)]

    return walk(record.model_dump())


@pytest.mark.parametrize("cls", ROUND_TRIPS)
@given(data=st.data())
def test_round_trip_through_json_is_exact(
    cls: type[JsonModel], record_of: RecordOf, data: st.DataObject
) -> None:
    record = data.draw(record_of(cls))
    again = cls.from_json(record.to_json())
    assert again == record
    assert doubles(again) == doubles(record)


@given(event=st.data())
def test_an_event_comes_back_as_its_own_class(record_of: RecordOf, event: st.DataObject) -> None:
    for cls in (WorkAccepted, BreakthroughFound, SourceSwitch):
        record = event.draw(record_of(cls))
        again = RewardEvent.from_json(record.to_json())
        assert type(again) is cls
        assert again == record


@pytest.mark.parametrize("fault_class", FaultClass)
def test_a_fault_class_round_trips(fault_class: FaultClass) -> None:
    assert FaultClass.from_json(fault_class.to_json()) is fault_class


def test_parameters_come_back_as_they_were_set() -> None:
    parameters = BrainParameters(setpoints=Setpoints(work_target=2.0), engine=EngineConfig(lif_neurons=3))
    again = BrainParameters.from_json(parameters.to_json())
    assert again == parameters
    assert again.setpoints.model_fields_set == {"work_target"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(InvalidRecordError, match="finite number"):
        FpgaMetrics(wns_ns=value)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_of_a_number_that_is_not_finite_is_refused(word: str) -> None:
    with pytest.raises(InvalidRecordError):
        FpgaMetrics.from_json(f'{{"wns_ns": {word}}}')


def test_text_that_utf8_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidRecordError, match="source"):
        WorkAccepted(source="\ud800")


def test_the_constructor_refuses_a_misspelt_field() -> None:
    with pytest.raises(InvalidRecordError, match=r"wns: got 1\.0, expected no such field"):
        FpgaMetrics(wns=1.0)


def test_a_reader_ignores_fields_that_it_does_not_know() -> None:
    assert FpgaMetrics.from_json('{"wns_ns": 1.5, "of_tomorrow": {"x": []}}') == FpgaMetrics(wns_ns=1.5)


def test_all_faults_of_a_record_are_named_at_once() -> None:
    with pytest.raises(InvalidRecordError) as caught:
        GpuSample(index=-1, utilization_ratio=2.0)
    assert [text.split(":")[0] for text in caught.value.faults] == ["index", "utilization_ratio"]


def test_too_many_positional_values_are_refused() -> None:
    with pytest.raises(InvalidRecordError, match="got 2 positional values, expected 1 at most"):
        PoissonEncoder(3, 4)  # type: ignore[call-arg]


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "null", "[" * 100_000, b"\xff"])
def test_text_that_is_no_record_is_refused(text: str | bytes) -> None:
    for cls in (FpgaMetrics, RewardEvent, WorkAccepted):
        with pytest.raises(InvalidRecordError):
            cls.from_json(text)


def test_a_record_is_frozen() -> None:
    levels = NeuroModulators()
    with pytest.raises(InvalidRecordError, match="frozen"):
        levels.dopamine = 1.0  # type: ignore[misc]


def test_a_neuron_checks_what_it_is_assigned() -> None:
    neuron = LifNeuron()
    neuron.weights = [1.0, 2.0]
    neuron.last_spike_time = 10
    with pytest.raises(InvalidRecordError, match="decay_rate"):
        neuron.decay_rate = 2.0
    assert (neuron.weights, neuron.last_spike_time, neuron.decay_rate) == ([1.0, 2.0], 10, 0.15)
