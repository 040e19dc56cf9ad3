"""The compiled dynamics and the plain ones: the same source, the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuromodd.core.engine import SpikingInferenceEngine
from neuromodd.core.modulators import NeuroModulators
from neuromodd.core.parameters import EngineConfig
from neuromodd.errors import InvalidValueError, MissingExtraError

CONFIGS = {
    "gated": EngineConfig(),
    "eligibility": EngineConfig(plasticity="eligibility"),
    "wide budget": EngineConfig(budget=10.0),
    "violent": EngineConfig(learning_gain=200.0),
    "violent traces": EngineConfig(plasticity="eligibility", eligibility_gain=5.0, primary_floor=0.0),
    "lopsided": EngineConfig(channels=3, lif_neurons=17, izhikevich_neurons=0, budget=0.3, primary_floor=0.3),
    "unlike taus": EngineConfig(tau_plus_steps=5.0, tau_minus_steps=50.0, steps_per_tick=7),
}


def wander(
    config: EngineConfig, ticks: int, seed: int = 1
) -> tuple[np.ndarray, list[NeuroModulators], list[float]]:
    """Stimuli with gaps, levels with spells without dopamine, phasic dopamine of both signs."""
    rng = np.random.default_rng(seed)
    stimuli = rng.random((ticks, config.channels))
    stimuli[rng.random(stimuli.shape) < 0.05] = np.nan
    levels = [
        NeuroModulators(
            dopamine=float(rng.random() * (rng.random() > 0.1)),
            cortisol=float(rng.random()),
            acetylcholine=float(rng.random()),
            tempo=float(2.0 * rng.random()),
        )
        for _ in range(ticks)
    ]
    return stimuli, levels, (2.0 * rng.random(ticks) - 1.0).tolist()


def known(row: np.ndarray) -> list[float | None]:
    return [None if np.isnan(x) else float(x) for x in row]


def bits(engine: SpikingInferenceEngine) -> str:
    """Weights, thresholds, potentials, traces, times and the generator, each digit of them."""
    return json.dumps(engine.state())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_compiled_and_plain_steps_give_the_same_bits_over_10_000_steps(config: EngineConfig) -> None:
    plain = SpikingInferenceEngine(config, seed=3, compiled=False)
    compiled = SpikingInferenceEngine(config, seed=3, compiled=True)
    fresh = plain.weights
    stimuli, levels, phasic = wander(config, 10_000 // config.steps_per_tick + 1)
    for row, modulators, dopamine in zip(stimuli, levels, phasic, strict=True):
        expected = plain.tick(known(row), modulators, phasic_dopamine=dopamine)
        assert compiled.tick(known(row), modulators, phasic_dopamine=dopamine) == expected
    assert bits(compiled) == bits(plain)
    # The run had something to differ in.
    assert plain.step_count >= 10_000
    assert plain.weights != fresh
    assert min(neuron.last_spike_time for neuron in plain.neurons) > 0


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("config", [CONFIGS["gated"], CONFIGS["violent traces"]], ids=["gated", "traces"])
def test_a_run_is_as_many_ticks(
    config: EngineConfig, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several portions of random numbers, the last one not full.
    monkeypatch.setattr("neuromodd.core.engine.DRAWS_AT_ONCE", 1500)
    one = SpikingInferenceEngine(config, seed=5, compiled=compiled)
    other = SpikingInferenceEngine(config, seed=5, compiled=compiled)
    stimuli, levels, phasic = wander(config, 50)
    whole = one.run(stimuli, levels, phasic_dopamine=phasic)
    ticks = [
        other.tick(known(row), modulators, phasic_dopamine=dopamine)
        for row, modulators, dopamine in zip(stimuli, levels, phasic, strict=True)
    ]
    assert bits(one) == bits(other)
    assert whole.step == one.step_count == ticks[-1].step == 1000
    assert whole.lif_spikes.tolist() == [list(tick.lif_spikes) for tick in ticks]
    assert whole.input_spikes.tolist() == [list(tick.input_spikes) for tick in ticks]
    assert whole.izhikevich_spikes.tolist() == [list(tick.izhikevich_spikes) for tick in ticks]
    assert [known(row) for row in whole.prediction_error] == [list(tick.prediction_error) for tick in ticks]


def test_one_level_for_all_ticks_of_a_run_is_enough() -> None:
    one, other = SpikingInferenceEngine(), SpikingInferenceEngine()
    stimuli = np.full((20, 8), 0.7)
    drives = np.full((20, 5), 0.9)
    one.run(stimuli, NeuroModulators(dopamine=0.9), drives)
    for _ in range(20):
        other.tick([0.7] * 8, NeuroModulators(dopamine=0.9), [0.9] * 5)
    assert bits(one) == bits(other)


def test_single_steps_of_a_compiled_engine_are_a_tick() -> None:
    one, other = SpikingInferenceEngine(compiled=True), SpikingInferenceEngine(compiled=True)
    for _ in range(20):
        one.step([0.9] * 8, NeuroModulators())
    other.tick([0.9] * 8, NeuroModulators())
    assert bits(one) == bits(other)


def test_a_state_goes_from_a_plain_engine_to_a_compiled_one_and_back() -> None:
    config = CONFIGS["violent traces"]
    plain = SpikingInferenceEngine(config, seed=1, compiled=False)
    plain.run(*wander(config, 100)[:2])
    compiled = SpikingInferenceEngine(config, compiled=True)
    compiled.restore(json.loads(json.dumps(plain.state())))
    back = SpikingInferenceEngine(config, compiled=False)
    back.restore(compiled.state())
    for engine in (plain, compiled, back):
        engine.run(*wander(config, 100, seed=2)[:2])
    assert bits(plain) == bits(compiled) == bits(back)


def test_parameters_go_from_a_compiled_engine_to_a_plain_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("parameters") / "learned.json"
    compiled, plain = SpikingInferenceEngine(compiled=True), SpikingInferenceEngine(compiled=False)
    compiled.run(*wander(compiled.config, 200)[:2])
    compiled.save_parameters(path)
    plain.load_parameters(path)
    assert (plain.weights, plain.thresholds) == (compiled.weights, compiled.thresholds)


def test_only_a_large_network_compiles_itself() -> None:
    assert not SpikingInferenceEngine().compiled
    assert SpikingInferenceEngine(EngineConfig(lif_neurons=200)).compiled


def test_without_numba_a_compiled_engine_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromodd.core.engine.numba_installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"needs the extra `fast`: pip install 'neuromodd\[fast\]'"):
        SpikingInferenceEngine(compiled=True)
    with pytest.warns(RuntimeWarning, match=r"pip install 'neuromodd\[fast\]'"):
        assert not SpikingInferenceEngine(EngineConfig(lif_neurons=200)).compiled


def test_an_engine_that_is_not_compiled_imports_no_numba() -> None:
    code = "import sys, neuromodd; neuromodd.SpikingInferenceEngine(); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_where_no_cache_can_be_kept_the_step_is_compiled_anew() -> None:
    # numba knows no directory for the cache of a module without a file: it raises, as on a read-only disk.
    code = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from neuromodd import NeuroModulators, SpikingInferenceEngine\n"
        "engine = SpikingInferenceEngine(compiled=True)\n"
        "print(engine.tick([0.5] * 8, NeuroModulators()).step)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "20\n"


def test_a_cache_that_can_not_be_written_stops_nobody(tmp_path: Path) -> None:
    # Files may have 4 kB: as on a full disk, the code that is to be kept does not fit.
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from neuromodd import NeuroModulators, SpikingInferenceEngine\n"
        "engine = SpikingInferenceEngine(compiled=True)\n"
        "print(engine.tick([0.5] * 8, NeuroModulators()).step)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "20\n"


def test_a_run_of_no_ticks_does_nothing() -> None:
    engine = SpikingInferenceEngine()
    before = bits(engine)
    result = engine.run(np.zeros((0, 8)), NeuroModulators())
    assert (result.step, result.lif_spikes.shape, result.prediction_error.shape) == (0, (0, 8), (0, 8))
    assert bits(engine) == before


def test_phasic_dopamine_for_each_tick_may_be_an_array() -> None:
    one, other = (SpikingInferenceEngine(CONFIGS["violent traces"]) for _ in range(2))
    stimuli, levels, phasic = wander(one.config, 20)
    one.run(stimuli, levels, phasic_dopamine=np.array(phasic))
    other.run(stimuli, levels, phasic_dopamine=phasic)
    assert bits(one) == bits(other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([["a"] * 8], NeuroModulators()), "stimuli: got"),
        (([[10**400] * 8], NeuroModulators()), "stimuli: got"),
        (([[0.5] * 8, [0.5] * 7], NeuroModulators()), "stimuli: got"),
        (([[0.5] * 8], None), "modulators: got"),
        (([[0.5] * 7], NeuroModulators()), r"stimuli: got 'shape \(1, 7\)', expected rows of 8 values"),
        (([0.5] * 8, NeuroModulators()), r"stimuli: got 'shape \(8,\)'"),
        (([[float("inf")] * 8], NeuroModulators()), "stimuli: got 'infinity'"),
        (([[0.5] * 8], [NeuroModulators()] * 2), "modulators: got 2, expected 1 rows"),
        (([[0.5] * 8], NeuroModulators(), [[0.5] * 5] * 2), "drives: got 2, expected 1 rows"),
    ],
)
def test_a_run_of_a_wrong_shape_is_refused_and_moves_nothing(
    arguments: tuple[Any, ...], message: str
) -> None:
    engine = SpikingInferenceEngine()
    before = bits(engine)
    with pytest.raises(InvalidValueError, match=message):
        engine.run(*arguments)
    with pytest.raises(InvalidValueError, match="phasic_dopamine: got nan"):
        engine.run([[0.5] * 8], NeuroModulators(), phasic_dopamine=float("nan"))
    assert bits(engine) == before
