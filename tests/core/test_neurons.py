"""LIF and Izhikevich neurons against theory and golden numbers; the Poisson encoder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.neurons import IzhikevichNeuron, LifNeuron, PoissonEncoder
from neuromodd.errors import InvalidRecordError, InvalidValueError

Golden = Callable[[str], dict[str, Any]]

PRESETS = (
    "regular_spiking",
    "intrinsically_bursting",
    "chattering",
    "fast_spiking",
    "low_threshold_spiking",
    "thalamo_cortical",
    "resonator",
)

CHAOS_STEP = 300
"""From here on the order of floating-point operations shows in the Izhikevich model."""


def preset(name: str) -> IzhikevichNeuron:
    neuron: IzhikevichNeuron = getattr(IzhikevichNeuron, name)()
    return neuron


def spike_steps(neuron: IzhikevichNeuron, current: float, steps: int) -> list[int]:
    return [step for step in range(steps) if neuron.step(current)]


# Leaky integrate-and-fire


def test_lif_agrees_with_the_golden_runs(golden: Golden) -> None:
    for run in golden("lif")["runs"]:
        neuron = LifNeuron(decay_rate=run["decay_rate"], threshold=run["threshold"])
        for index, current in enumerate(run["stimulus"]):
            neuron.integrate(current)
            assert neuron.membrane_potential == pytest.approx(run["membrane_before_fire"][index], rel=1e-5)
            peak = neuron.check_fire()
            assert neuron.last_spike == bool(run["spike"][index])
            assert (peak or 0.0) == pytest.approx(run["peak"][index], rel=1e-5)
            assert neuron.membrane_potential == pytest.approx(run["membrane_potential"][index], rel=1e-5)


def test_the_golden_lif_runs_fire_and_stay_silent(golden: Golden) -> None:
    counts = [run["spike_count"] for run in golden("lif")["runs"]]
    assert max(counts) > 100
    assert min(counts) == 0


def lif_points(count: int) -> list[tuple[float, float, float, int]]:
    """(threshold, q, current, interval) with the real-valued interval away from whole numbers.

    At a whole number v meets the threshold exactly, and rounding decides the step. Beyond q^n < 1e-6 the
    potential stands so close to its limit that the same happens at every step.
    """
    rng = np.random.default_rng(1)
    points: list[tuple[float, float, float, int]] = []
    while len(points) < count:
        q = 1.0 - float(rng.uniform(0.005, 0.6))
        threshold = 10.0 ** float(rng.uniform(-2.0, 1.0))
        longest = int(min(math.log(1e-6) / math.log(q), 400.0))
        interval = int(rng.integers(1, longest, endpoint=True))
        real = interval - float(rng.uniform(0.02, 0.98))
        points.append((threshold, q, threshold * (1.0 - q) / (q * (1.0 - q**real)), interval))
    return points


def lif_interval(threshold: float, decay_rate: float, current: float, limit: int = 2000) -> int | None:
    neuron = LifNeuron(decay_rate=decay_rate, threshold=threshold)
    for step in range(1, limit):
        neuron.integrate(current)
        if neuron.check_fire() is not None:
            return step
    return None


def test_lif_fires_at_the_interval_that_theory_gives() -> None:
    for threshold, q, current, interval in lif_points(1000):
        theory = math.ceil(math.log(1.0 - threshold * (1.0 - q) / (current * q)) / math.log(q))
        assert theory == interval
        assert lif_interval(threshold, 1.0 - q, current) == theory


def test_the_points_of_theory_tell_leaking_before_the_input_from_leaking_after() -> None:
    points = lif_points(1000)
    # v <- v q + I, the other order, has the same formula without the factor q at I.
    other = [
        math.ceil(math.log(1.0 - threshold * (1.0 - q) / current) / math.log(q))
        if threshold * (1.0 - q) < current
        else None
        for threshold, q, current, _ in points
    ]
    assert len({interval for *_, interval in points}) > 100
    assert sum(a != b for a, (*_, b) in zip(other, points, strict=True)) > 300


def test_lif_below_its_rheobase_never_fires() -> None:
    for threshold, q, _, _ in lif_points(20):
        rheobase = threshold * (1.0 - q) / q
        assert lif_interval(threshold, 1.0 - q, rheobase * 0.999) is None
        assert lif_interval(threshold, 1.0 - q, rheobase * 1.01) is not None


def test_lif_fires_at_exactly_its_threshold() -> None:
    neuron = LifNeuron(membrane_potential=0.02)
    assert neuron.check_fire() == 0.02
    assert neuron.membrane_potential == 0.0
    assert neuron.last_spike


def test_a_silent_check_clears_the_last_spike() -> None:
    neuron = LifNeuron(last_spike=True)
    assert neuron.check_fire() is None
    assert not neuron.last_spike


@pytest.mark.parametrize("current", [math.nan, math.inf, 1e308])
def test_lif_refuses_what_would_leave_the_doubles_and_keeps_its_potential(current: float) -> None:
    neuron = LifNeuron(membrane_potential=1e308)
    with pytest.raises(InvalidRecordError, match="membrane_potential"):
        neuron.integrate(current)
    assert neuron.membrane_potential == 1e308


# Izhikevich


def test_izhikevich_agrees_with_the_golden_runs(golden: Golden) -> None:
    for run in golden("izhikevich")["runs"]:
        neuron = preset(run["kind"])
        assert (neuron.a, neuron.b, neuron.c, neuron.d) == (run["a"], run["b"], run["c"], run["d"])
        assert (neuron.v, neuron.u) == (run["v0"], run["u0"])
        fired, v, u = [], [], []
        for step in range(run["steps"]):
            if neuron.step(run["current"]):
                fired.append(step)
            v.append(neuron.v)
            u.append(neuron.u)
        golden_spikes = run["spike_steps"]
        assert [s for s in fired if s < CHAOS_STEP] == [s for s in golden_spikes if s < CHAOS_STEP]
        assert v[:200] == pytest.approx(run["v_after_step"], rel=1e-4)
        assert u[:200] == pytest.approx(run["u_after_step"], rel=1e-4)
        assert abs(len(fired) - len(golden_spikes)) <= max(2.0, 0.03 * len(golden_spikes))


def test_the_golden_izhikevich_runs_have_spikes_to_compare(golden: Golden) -> None:
    runs = golden("izhikevich")["runs"]
    assert sum(len([s for s in run["spike_steps"] if s < CHAOS_STEP]) for run in runs) > 100


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_runs_to_nan_at_any_current(name: str) -> None:
    for current in range(-100, 101, 4):
        neuron = preset(name)
        spike_steps(neuron, float(current), 500)
        assert math.isfinite(neuron.v)
        assert math.isfinite(neuron.u)


@given(name=st.sampled_from(PRESETS), currents=st.lists(st.floats(-100.0, 100.0), min_size=1, max_size=100))
def test_no_preset_runs_to_nan_under_changing_currents(name: str, currents: list[float]) -> None:
    neuron = preset(name)
    for current in currents:
        neuron.step(current)
        assert math.isfinite(neuron.v)
        assert neuron.v < 30.0


def test_two_whole_steps_of_v_would_run_to_nan() -> None:
    neuron, current = IzhikevichNeuron.fast_spiking(), 26.0
    a, b, v, u = neuron.a, neuron.b, neuron.v, neuron.u
    for _ in range(1000):
        for _ in range(2):
            v += 0.04 * v * v + 5.0 * v + 140.0 - u + current
        u += a * (b * v - u)
        if v >= 30.0:
            v, u = neuron.c, u + neuron.d
    assert not math.isfinite(v)


def test_every_preset_fires_when_driven_and_rests_when_not() -> None:
    for name in PRESETS:
        assert spike_steps(preset(name), 20.0, 300)
        assert not spike_steps(preset(name), -5.0, 300)


def test_regular_spiking_slows_down_as_it_fires() -> None:
    first, second, third, *_ = spike_steps(preset("regular_spiking"), 10.0, 300)
    assert third - second > 1.5 * (second - first)


def test_fast_spiking_fires_more_than_twice_as_often_as_regular_spiking() -> None:
    fast, regular = (len(spike_steps(preset(f"{kind}_spiking"), 10.0, 300)) for kind in ("fast", "regular"))
    assert fast > 2 * regular


def test_u_starts_at_b_times_v_where_it_is_not_given() -> None:
    assert IzhikevichNeuron(0.02, 0.2, -65.0, 8.0).u == 0.2 * -65.0
    assert IzhikevichNeuron(0.02, 0.2, -65.0, 8.0, -60.0).u == 0.2 * -60.0
    assert IzhikevichNeuron(0.02, 0.2, -65.0, 8.0, -60.0, 0.0).u == 0.0


@pytest.mark.parametrize("current", [math.nan, math.inf, -math.inf])
def test_izhikevich_refuses_a_current_that_is_not_finite(current: float) -> None:
    neuron = IzhikevichNeuron.regular_spiking()
    with pytest.raises(InvalidValueError, match="current"):
        neuron.step(current)
    assert neuron == IzhikevichNeuron.regular_spiking()


# Poisson encoder


@pytest.mark.parametrize(("intensity", "rate"), [(-1.0, 0.0), (0.0, 0.0), (0.3, 0.3), (1.0, 1.0), (7.0, 1.0)])
def test_a_train_has_the_rate_of_its_clipped_intensity(intensity: float, rate: float) -> None:
    train = PoissonEncoder(20_000).encode(intensity, np.random.default_rng(1))
    assert train.dtype == np.uint8
    assert train.shape == (20_000,)
    # Four standard deviations of a binomial share.
    assert train.mean() == pytest.approx(rate, abs=4.0 * math.sqrt(rate * (1.0 - rate) / 20_000))


def test_spikes_of_a_train_are_independent() -> None:
    train = PoissonEncoder(50_000).encode(0.3, np.random.default_rng(2)).astype(float)
    assert abs(np.corrcoef(train[:-1], train[1:])[0, 1]) < 0.02


def test_the_same_generator_gives_the_same_train() -> None:
    encoder = PoissonEncoder(100)
    first, second = (encoder.encode(0.5, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, encoder.encode(0.5, np.random.default_rng(4)))


@pytest.mark.parametrize("intensity", [math.nan, math.inf])
def test_an_intensity_that_is_not_finite_is_refused_without_a_draw(intensity: float) -> None:
    rng = np.random.default_rng(5)
    before = json.dumps(rng.bit_generator.state)
    with pytest.raises(InvalidValueError, match="intensity"):
        PoissonEncoder(10).encode(intensity, rng)
    assert json.dumps(rng.bit_generator.state) == before


def test_the_golden_folder_says_where_its_numbers_come_from() -> None:
    folder = Path(__file__).parent.parent / "data" / "golden"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert all(path.name in readme for path in folder.glob("*.json"))
