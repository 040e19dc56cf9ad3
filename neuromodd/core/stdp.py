"""Spike-timing dependent plasticity and synaptic scaling.

The window is the exponential one of Bi and Poo (1998) as Song, Miller and Abbott (2000) write it:
dw = A+ exp(-dt / tau+) for dt >= 0, -A- exp(dt / tau-) for dt < 0, with dt = t_post - t_pre in steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from neuromodd.errors import InvalidValueError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from neuromodd.core.neurons import LifNeuron

A_PLUS = 0.01
A_MINUS = 0.012
TAU_STEPS = 20.0
WEIGHT_MAX = 2.0


def stdp_window(
    dt_steps: float,
    *,
    a_plus: float = A_PLUS,
    a_minus: float = A_MINUS,
    tau_plus: float = TAU_STEPS,
    tau_minus: float = TAU_STEPS,
) -> float:
    """The raw weight change of one pair, dt = t_post - t_pre in steps; dt = 0 is potentiation."""
    if dt_steps >= 0:
        return a_plus * math.exp(-dt_steps / tau_plus)
    return -a_minus * math.exp(dt_steps / tau_minus)


def apply_stdp(
    neuron: LifNeuron, pre_times: Sequence[int] | NDArray[np.integer[Any]], dopamine_lr: float
) -> None:
    """Pair the neuron's last spike with the last spike of each of its inputs.

    w <- clip(w + dopamine_lr * dw, 0, 2). A time below 0 means "never": that synapse stays. A
    `dopamine_lr` of 0 leaves every weight bit for bit as it was.

    Args:
        neuron: its `last_spike_time` is t_post; its `weights` are replaced.
        pre_times: t_pre of each input in steps, as many as there are weights.
        dopamine_lr: the learning rate that dopamine grants, 0 or more.

    Raises:
        InvalidValueError: lengths differ, or the learning rate is negative or not finite.
    """
    if len(pre_times) != len(neuron.weights):
        expected = f"{len(neuron.weights)} times, one a weight"
        raise InvalidValueError("apply_stdp.pre_times", len(pre_times), expected)
    if not (math.isfinite(dopamine_lr) and dopamine_lr >= 0.0):
        raise InvalidValueError("apply_stdp.dopamine_lr", dopamine_lr, "a finite number >= 0")
    t_post = neuron.last_spike_time
    if dopamine_lr == 0.0 or t_post < 0:
        return
    neuron.weights = [
        w if t_pre < 0 else min(max(w + dopamine_lr * stdp_window(int(t_post - t_pre)), 0.0), WEIGHT_MAX)
        for w, t_pre in zip(neuron.weights, pre_times, strict=True)
    ]


def synaptic_scaling(weights: ArrayLike, budget: float) -> NDArray[np.float64]:
    """Scale each neuron's row to an L1 norm of `budget` (Turrigiano 2008); rows of zeros stay.

    Args:
        weights: shape (neurons, channels), or (channels,) for one neuron; not modified.
        budget: the sum of absolute weights that a row gets, 0 or more.

    Returns:
        A new array of the same shape.

    Raises:
        InvalidValueError: a weight or the budget is not finite, or the budget is negative.
    """
    import numpy as np  # noqa: PLC0415 - the daemon never calls this, and does without numpy

    rows = np.array(weights, dtype=np.float64)
    if not np.isfinite(rows).all():
        raise InvalidValueError("synaptic_scaling.weights", "NaN or infinity", "finite numbers")
    if not (math.isfinite(budget) and budget >= 0.0):
        raise InvalidValueError("synaptic_scaling.budget", budget, "a finite number >= 0")
    peaks = np.abs(rows).max(axis=-1, keepdims=True, initial=0.0)
    # By its largest weight first: a row of huge weights has no finite sum, one of tiny weights loses bits.
    rows = rows / np.where(peaks > 0.0, peaks, 1.0)
    norms = np.abs(rows).sum(axis=-1, keepdims=True)
    return rows / np.where(norms > 0.0, norms, 1.0) * budget
