from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.engine import SpikingInferenceEngine
from neuromodd.core.fpga_memory import memory_image, memory_images, q8_8
from neuromodd.core.modulators import NeuroModulators
from neuromodd.core.parameters import EngineConfig


@pytest.mark.parametrize(
    ("values", "image"), [("thresholds", "parameters.mem"), ("decays", "parameters_decay.mem")]
)
def test_images_are_those_of_the_crates_ancestor(
    golden: Callable[[str], dict[str, Any]], values: str, image: str
) -> None:
    reference = golden("fpga_mem")
    assert memory_image(reference[values]) == reference[image]


@given(st.floats(0.0, 255.0))
def test_a_word_is_less_than_one_unit_below_its_value(value: float) -> None:
    assert 0.0 <= value * 256 - q8_8(value) < 1.0


@pytest.mark.parametrize(("value", "word"), [(-1.0, 0), (1e300, 65535), (256.0, 65535), (1.0, 256)])
def test_what_does_not_fit_is_cut(value: float, word: int) -> None:
    assert q8_8(value) == word


def test_an_engine_gives_a_word_for_each_threshold_weight_and_decay() -> None:
    engine = SpikingInferenceEngine(EngineConfig(channels=3, lif_neurons=2, decay_rate=0.5))
    for _ in range(50):
        engine.tick([0.9, 0.4, 0.1], NeuroModulators(dopamine=1.0))
    images = memory_images(engine)
    words = {name: [int(line, 16) / 256 for line in text.split()] for name, text in images.items()}
    assert words["parameters.mem"] == pytest.approx(engine.thresholds, abs=1 / 256)
    # Row-major: the weights of the first neuron, then those of the second.
    assert words["parameters_weights.mem"] == pytest.approx(
        [*engine.weights[0], *engine.weights[1]], abs=1 / 256
    )
    assert words["parameters_decay.mem"] == [0.5, 0.5]
    assert all(len(line) == 4 for text in images.values() for line in text.splitlines())
