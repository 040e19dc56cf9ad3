"""What a step, a tick or a run of the engine did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromodd.core.record import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class StepResult(Record):
    """What one call of `step` or `tick` did.

    Attributes:
        step: network steps since the first start, after the call.
        steps: network steps of this call.
        input_spikes: spikes of each channel in it.
        lif_spikes: spikes of each LIF neuron in it.
        izhikevich_spikes: spikes of each neuron of the bank in it.
        prediction_error: |x - prediction| of each channel; None for an absent one.
    """

    step: int
    steps: int
    input_spikes: tuple[int, ...]
    lif_spikes: tuple[int, ...]
    izhikevich_spikes: tuple[int, ...]
    prediction_error: tuple[float | None, ...]

    @property
    def lif_rates(self) -> tuple[float, ...]:
        """Spikes a step of each LIF neuron, in [0, 1]."""
        return tuple(count / self.steps for count in self.lif_spikes)

    @property
    def izhikevich_rates(self) -> tuple[float, ...]:
        """Spikes a step of each neuron of the bank, in [0, 1]."""
        return tuple(count / self.steps for count in self.izhikevich_spikes)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResult:
    """What a `run` of T ticks did, a row a tick.

    Attributes:
        step: network steps since the first start, after the run.
        steps_per_tick: network steps of each row.
        input_spikes: (T, channels).
        lif_spikes: (T, LIF neurons).
        izhikevich_spikes: (T, neurons of the bank).
        prediction_error: (T, channels), NaN where the channel was absent.
    """

    step: int
    steps_per_tick: int
    input_spikes: NDArray[np.int64]
    lif_spikes: NDArray[np.int64]
    izhikevich_spikes: NDArray[np.int64]
    prediction_error: NDArray[np.float64]
