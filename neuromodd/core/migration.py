"""States of older versions, as this version writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from neuromodd.core.stdp import TAU_STEPS


def engine_from_1(state: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's state of checkpoint format 1: it had times of spikes where there are traces now.

    Weights were neuron-major and had no factors. The traces are those of the default time constants.
    """
    channels, neurons = state["dimensions"]["channels"], state["dimensions"]["lif_neurons"]
    now, weights = state["step"], state["weights"]

    def traces(times: Sequence[int]) -> list[float]:
        # A trace decays at the beginning of a step: the last step's spike still has 1.
        return [0.0 if time < 0 else math.exp((time + 1 - now) / TAU_STEPS) for time in times]

    return {
        **{name: value for name, value in state.items() if name != "last_pre"},
        "weights": [weights[i * channels + j] for j in range(channels) for i in range(neurons)],
        "scale": [1.0] * neurons,
        "settled": [0.0] * neurons,
        "eligibility": [],
        "pre": traces(state["last_pre"]),
        "post": traces(state["last_post"]),
    }
