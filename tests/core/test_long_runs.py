"""What the network does over hours and days of network time, compiled to get there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromodd.core.engine import SpikingInferenceEngine
from neuromodd.core.modulators import NeuroModulators
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.results import RunResult

MODES = {"gated": EngineConfig(), "eligibility": EngineConfig(plasticity="eligibility")}
STEPS = 20
WINDOW_TICKS = 1000
"""20,000 steps."""

LEVELS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])


class Spell(NamedTuple):
    """A while under the same circumstances; NaN is an absent channel."""

    ticks: int
    stimuli: tuple[float, ...]
    dopamine: float
    cortisol: float
    acetylcholine: float


SPELLS = st.builds(
    Spell,
    ticks=st.sampled_from([40, 300, 1000, 3000, 20_000]),
    stimuli=st.tuples(*[st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0, float("nan")])] * 8),
    dopamine=LEVELS,
    cortisol=LEVELS,
    acetylcholine=LEVELS,
)


def live(engine: SpikingInferenceEngine, spell: Spell) -> RunResult:
    modulators = NeuroModulators(
        dopamine=spell.dopamine, cortisol=spell.cortisol, acetylcholine=spell.acetylcholine
    )
    return engine.run(np.tile(spell.stimuli, (spell.ticks, 1)), modulators)


def busiest_window(spikes: np.ndarray) -> float:
    """The highest mean rate of a neuron over any 20,000 successive steps, or a bit more.

    Such a window has part in 1,001 ticks at most, so it has at most the spikes of these.
    """
    totals = np.vstack([np.zeros((1, spikes.shape[1])), np.cumsum(spikes, axis=0)])
    width = min(WINDOW_TICKS + 1, len(spikes))
    return float((totals[width:] - totals[:-width]).max() / (WINDOW_TICKS * STEPS))


@settings(max_examples=20)
@given(spells=st.lists(SPELLS, min_size=1, max_size=5), mode=st.sampled_from(list(MODES)))
def test_no_neuron_fires_more_than_three_in_ten_steps_for_long(spells: list[Spell], mode: str) -> None:
    engine = SpikingInferenceEngine(MODES[mode], compiled=True)
    spikes = np.vstack([live(engine, spell).lif_spikes for spell in spells])
    assert busiest_window(spikes) <= 0.3


@pytest.mark.parametrize("mode", MODES)
def test_the_hardest_awakening_is_within_that_bound_and_not_far_from_it(mode: str) -> None:
    # Thresholds fall to their floor in silence; then half of the channels come on at once.
    engine = SpikingInferenceEngine(MODES[mode], compiled=True)
    silent = Spell(20_000, (1.0,) * 8, dopamine=0.0, cortisol=1.0, acetylcholine=1.0)
    live(engine, silent)
    loud = Spell(3000, (1.0,) * 4 + (0.0,) * 4, dopamine=1.0, cortisol=0.0, acetylcholine=1.0)
    assert 0.2 < busiest_window(live(engine, loud).lif_spikes) <= 0.3


def fires_again(engine: SpikingInferenceEngine, channel: int, rest: float, cortisol: float) -> bool:
    """Whether the neuron of `channel`, driven at 0.1, fires within 200,000 steps."""
    stimuli = [rest] * 8
    stimuli[channel] = 0.1
    later = Spell(10_000, tuple(stimuli), dopamine=0.0, cortisol=cortisol, acetylcholine=0.0)
    return bool(live(engine, later).lif_spikes[:, channel].any())


@settings(max_examples=20)
@given(
    spells=st.lists(SPELLS, min_size=1, max_size=4),
    mode=st.sampled_from(list(MODES)),
    channel=st.integers(0, 7),
    rest=st.sampled_from([0.0, 0.3, 1.0, float("nan")]),
)
def test_a_driven_neuron_fires_again_whatever_came_before(
    spells: list[Spell], mode: str, channel: int, rest: float
) -> None:
    engine = SpikingInferenceEngine(MODES[mode], compiled=True)
    for spell in spells:
        live(engine, spell)
    assert fires_again(engine, channel, rest, cortisol=0.5)


NIGHT = Spell(20_000, (0.3, 0.3, 0.3, 0.0, 0.3, 0.3, 0.3, 0.3), 0.5, cortisol=0.0, acetylcholine=1.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rest", [0.3, float("nan")])
def test_a_channel_that_was_silent_for_20_000_ticks_wakes_its_neuron(mode: str, rest: float) -> None:
    engine = SpikingInferenceEngine(MODES[mode], compiled=True)
    live(engine, NIGHT)
    # The other inputs have taken all that they can.
    assert 0.5 <= engine.weights[3][3] < 0.51
    assert fires_again(engine, 3, rest, cortisol=0.5)


def test_without_a_primary_floor_it_does_not() -> None:
    engine = SpikingInferenceEngine(EngineConfig(primary_floor=0.0), compiled=True)
    live(engine, NIGHT)
    assert not fires_again(engine, 3, rest=float("nan"), cortisol=0.5)


@given(seed=st.integers(0, 2**32), mode=st.sampled_from(list(MODES)))
def test_the_mean_rates_climb_with_each_step_of_a_staircase(seed: int, mode: str) -> None:
    engine = SpikingInferenceEngine(MODES[mode], seed, compiled=True)
    results = [
        live(engine, Spell(100, (level,) * 8, dopamine=0.3, cortisol=0.0, acetylcholine=1.0))
        for level in (0.2, 0.5, 0.9)
    ]
    for rates in (
        [result.lif_spikes.mean() for result in results],
        [result.izhikevich_spikes.mean() for result in results],
    ):
        assert rates[0] < rates[1] < rates[2]


@pytest.mark.parametrize("mode", MODES)
def test_nothing_runs_away_in_10_million_steps(mode: str) -> None:
    engine = SpikingInferenceEngine(MODES[mode], compiled=True)
    rng = np.random.default_rng(0)
    for _ in range(20):
        stimuli = np.repeat(rng.random((250, 8)), 100, axis=0)
        dopamine = rng.random()
        result = engine.run(stimuli, NeuroModulators(dopamine=dopamine, cortisol=0.3 * rng.random()))
        rates = result.lif_spikes.mean(axis=0) / STEPS
        assert 0.005 < rates.min() <= rates.max() < 0.15
        assert 0.05 <= min(engine.thresholds) <= max(engine.thresholds) < 2.0
        assert np.array(engine.weights).sum(axis=1) == pytest.approx(np.full(8, 2.0), abs=1e-12)
    assert engine.step_count == 10_000_000


# Conditioning


def conditioned(seed: int, rewarded: int | None, gain: float = 0.05) -> tuple[float, float]:
    """The two weights of one neuron after 60 turns of each of two channels, one followed by reward.

    A turn is 20 ticks at 0.8 and 120 or more quiet ones; the reward is 0.3 phasic dopamine, 10 ticks after
    the channel has fallen silent, which decays as an event's does at a tick a second.
    """
    config = EngineConfig(
        channels=2,
        lif_neurons=1,
        izhikevich_neurons=0,
        plasticity="eligibility",
        eligibility_gain=gain,
        primary_floor=0.0,
        primary_weight_min=1.0,
        primary_weight_max=1.0,
        other_weight_min=1.0,
        other_weight_max=1.0,
    )
    engine = SpikingInferenceEngine(config, seed, compiled=True)
    rng = np.random.default_rng(seed)
    turns = rng.permutation([0, 1] * 60)
    stimuli: list[list[float]] = []
    phasic: list[float] = []
    level = 0.0
    for channel in turns:
        for tick in range(140 + int(rng.integers(60))):
            level *= 0.95
            if tick == 29 and channel == rewarded:
                level += 0.3
            phasic.append(level)
            stimuli.append([0.8 if tick < 20 and j == channel else 0.0 for j in range(2)])
    engine.run(stimuli, NeuroModulators(dopamine=0.3), phasic_dopamine=phasic)
    ((first, second),) = engine.weights
    return first, second


@pytest.mark.parametrize("seed", range(10))
def test_the_channel_that_reward_follows_wins(seed: int) -> None:
    first, second = conditioned(seed, rewarded=0)
    assert first - second >= 1.0
    first, second = conditioned(seed, rewarded=1)
    assert second - first >= 1.0


@pytest.mark.parametrize("seed", range(3))
def test_without_reward_neither_channel_wins(seed: int) -> None:
    assert conditioned(seed, rewarded=None) == (1.0, 1.0)


def test_without_eligibility_gain_reward_teaches_nothing() -> None:
    assert conditioned(0, rewarded=0, gain=0.0) == (1.0, 1.0)
