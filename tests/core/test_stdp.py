"""Plasticity: the STDP window, its clamps, and synaptic scaling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.neurons import LifNeuron
from neuromodd.core.stdp import apply_stdp, stdp_window, synaptic_scaling
from neuromodd.errors import InvalidValueError

Golden = Callable[[str], dict[str, Any]]

POST = 1000


def neuron(*weights: float, last_spike_time: int = POST) -> LifNeuron:
    return LifNeuron(weights=list(weights), last_spike_time=last_spike_time)


def test_the_window_agrees_with_the_golden_numbers(golden: Golden) -> None:
    numbers = golden("stdp")
    for dt, raw in zip(numbers["delta_t"], numbers["raw_delta_w"], strict=True):
        assert stdp_window(dt) == pytest.approx(raw, rel=0.0, abs=2e-9)


def test_apply_stdp_agrees_with_the_golden_clamps(golden: Golden) -> None:
    for w, dt, learning_rate, after in golden("stdp")["clamp"]:
        cell = neuron(w)
        apply_stdp(cell, [POST - dt], learning_rate)
        assert cell.weights[0] == pytest.approx(after, rel=1e-6)


def test_the_golden_clamps_reach_both_ends(golden: Golden) -> None:
    after = [row[3] for row in golden("stdp")["clamp"]]
    assert {0.0, 2.0} < set(after)


def test_an_input_before_the_spike_is_strengthened_and_one_after_it_weakened() -> None:
    cell = neuron(1.0, 1.0, 1.0)
    apply_stdp(cell, [POST - 5, POST, POST + 5], 1.0)
    before, together, after = cell.weights
    assert together > before > 1.0 > after


@given(
    weights=st.lists(st.floats(-1.0, 3.0), max_size=6),
    time=st.integers(-5, 2000),
    post=st.integers(-5, 2000),
)
def test_no_dopamine_leaves_every_weight_bit_for_bit(weights: list[float], time: int, post: int) -> None:
    cell = neuron(*weights, last_spike_time=post)
    apply_stdp(cell, [time] * len(weights), 0.0)
    assert [w.hex() for w in cell.weights] == [w.hex() for w in weights]


def test_times_below_zero_mean_never() -> None:
    cell = neuron(0.5, 0.5)
    apply_stdp(cell, [-1, POST], 1.0)
    assert cell.weights[0] == 0.5
    assert cell.weights[1] > 0.5
    silent = neuron(0.5, last_spike_time=-1)
    apply_stdp(silent, [POST], 1.0)
    assert silent.weights == [0.5]


def test_as_many_times_as_weights_are_expected() -> None:
    with pytest.raises(InvalidValueError, match="got 1, expected 2 times, one a weight"):
        apply_stdp(neuron(0.5, 0.5), [1], 1.0)


@pytest.mark.parametrize("learning_rate", [-0.1, math.nan, math.inf])
def test_a_learning_rate_below_zero_or_not_finite_is_refused(learning_rate: float) -> None:
    cell = neuron(0.5)
    with pytest.raises(InvalidValueError, match="dopamine_lr"):
        apply_stdp(cell, [1], learning_rate)
    assert cell.weights == [0.5]


@given(
    rows=st.lists(st.lists(st.floats(-1e308, 1e308), min_size=3, max_size=3), max_size=4),
    budget=st.floats(0.0, 1e6),
)
def test_every_row_gets_the_budget_and_a_row_of_zeros_stays(rows: list[list[float]], budget: float) -> None:
    scaled = synaptic_scaling(np.array(rows).reshape(-1, 3), budget)
    for before, after in zip(rows, scaled, strict=True):
        if any(before):
            assert np.abs(after).sum() == pytest.approx(budget, rel=1e-12)
        else:
            assert not after.any()


def test_scaling_keeps_the_proportions_and_signs() -> None:
    assert synaptic_scaling([1.0, -2.0, 5.0], 4.0).tolist() == [0.5, -1.0, 2.5]


def test_scaling_leaves_its_argument_alone() -> None:
    weights = np.array([[1.0, 3.0]])
    assert synaptic_scaling(weights, 2.0).tolist() == [[0.5, 1.5]]
    assert weights.tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("weights", [[1e308, 1e308], [5e-324, 5e-324]])
def test_scaling_survives_the_ends_of_the_doubles(weights: list[float]) -> None:
    assert synaptic_scaling(weights, 2.0).tolist() == [1.0, 1.0]


def test_scaling_of_nothing_is_nothing() -> None:
    assert synaptic_scaling(np.empty((0, 4)), 2.0).shape == (0, 4)
    assert synaptic_scaling(np.empty((4, 0)), 2.0).shape == (4, 0)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_scaling_refuses_a_weight_that_is_not_finite(weight: float) -> None:
    with pytest.raises(InvalidValueError, match="weights"):
        synaptic_scaling([1.0, weight], 2.0)


@pytest.mark.parametrize("budget", [-1.0, math.nan, math.inf])
def test_scaling_refuses_a_budget_below_zero_or_not_finite(budget: float) -> None:
    with pytest.raises(InvalidValueError, match="budget"):
        synaptic_scaling([1.0], budget)
