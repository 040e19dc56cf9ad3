"""Single neurons: leaky integrate-and-fire, Izhikevich, and the Poisson encoder that feeds them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, ValidationInfo

from neuromodd.core.record import MutableState, Record
from neuromodd.errors import InvalidValueError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PEAK_MV = 30.0
"""The Izhikevich model's spike cut-off, in mV."""

HALF_STEP_MS = 0.5


class LifNeuron(MutableState):
    """A leaky integrate-and-fire neuron in discrete steps.

    v <- v + I, then v <- v (1 - decay_rate); a spike when v >= threshold, after which v is 0. With a
    constant input I it fires every ceil(ln(1 - threshold (1 - q) / (I q)) / ln q) steps, q = 1 - decay_rate.

    Attributes:
        membrane_potential: v, dimensionless.
        decay_rate: the leak of one step, in [0, 1].
        threshold: v at which it fires; homeostasis may move it away from `base_threshold`.
        last_spike: whether the last `check_fire` fired.
        last_spike_time: step of the last spike, -1 for never; set by whoever counts the steps.
        weights: one input weight a channel.
    """

    membrane_potential: float = 0.0
    decay_rate: float = Field(default=0.15, ge=0.0, le=1.0)
    threshold: float = 0.02
    base_threshold: float = 0.02
    last_spike: bool = False
    last_spike_time: int = -1
    weights: list[float] = Field(default_factory=list)

    def integrate(self, current: float) -> None:
        """Take in one step's input, then leak.

        Raises:
            InvalidRecordError: the new potential is not finite; the old one stays.
        """
        v = self.membrane_potential + current
        self.membrane_potential = v - v * self.decay_rate

    def check_fire(self) -> float | None:
        """The peak potential if the neuron fires, which resets it to 0; None if it stays silent."""
        peak = self.membrane_potential
        self.last_spike = peak >= self.threshold
        if not self.last_spike:
            return None
        self.membrane_potential = 0.0
        return peak


def _resting_u(value: object, info: ValidationInfo) -> object:
    # b or v may themselves be invalid, and then missing here: their own fault is the one to report.
    return info.data.get("b", 0.0) * info.data.get("v", 0.0) if value is None else value


class IzhikevichNeuron(MutableState):
    """The simple model of spiking neurons (Izhikevich 2003, IEEE Trans. Neural Networks 14:1569).

    v' = 0.04 v^2 + 5 v + 140 - u + I, u' = a (b v - u); at v >= 30 mV: v <- c, u <- u + d.

    One `step` is 1 ms, taken as two forward Euler half-steps of 0.5 ms in which both variables move from
    their old values, with the threshold tested after each. The paper's own script halves only v; the Rust
    crate took two whole steps of v, in which the fast-spiking kind ran to NaN.

    Attributes:
        a: rate of recovery, 1/ms.
        b: sensitivity of u to v.
        c: v after a spike, mV.
        d: jump of u after a spike.
        v: membrane potential, mV.
        u: recovery variable; b v where it is not given.
    """

    positional_fields: ClassVar[tuple[str, ...]] = ("a", "b", "c", "d", "v", "u")

    a: float = 0.02
    b: float = 0.2
    c: float = -65.0
    d: float = 8.0
    v: float = -65.0
    u: Annotated[float, BeforeValidator(_resting_u)] = Field(default=None, validate_default=True)

    if TYPE_CHECKING:

        def __init__(
            self,
            a: float = 0.02,
            b: float = 0.2,
            c: float = -65.0,
            d: float = 8.0,
            v: float = -65.0,
            u: float | None = None,
        ) -> None: ...

    def step(self, current: float) -> bool:
        """Advance 1 ms under the input `current` (the paper's unit); True if it fired.

        Raises:
            InvalidValueError: `current` is not finite.
        """
        if not math.isfinite(current):
            raise InvalidValueError("IzhikevichNeuron.step.current", current, "a finite number")
        v, u, fired = self.v, self.u, False
        for _ in range(2):
            dv = 0.04 * v * v + 5.0 * v + 140.0 - u + current
            du = self.a * (self.b * v - u)
            v += HALF_STEP_MS * dv
            u += HALF_STEP_MS * du
            if v >= PEAK_MV:
                v, u, fired = self.c, u + self.d, True
        self.v, self.u = v, u
        return fired

    @classmethod
    def regular_spiking(cls) -> Self:
        """RS: most cortical excitatory cells."""
        return cls(a=0.02, b=0.2, c=-65.0, d=8.0)

    @classmethod
    def intrinsically_bursting(cls) -> Self:
        """IB: a burst, then single spikes."""
        return cls(a=0.02, b=0.2, c=-55.0, d=4.0)

    @classmethod
    def chattering(cls) -> Self:
        """CH: bursts of closely spaced spikes."""
        return cls(a=0.02, b=0.2, c=-50.0, d=2.0)

    @classmethod
    def fast_spiking(cls) -> Self:
        """FS: inhibitory cells that do not adapt."""
        return cls(a=0.1, b=0.2, c=-65.0, d=2.0)

    @classmethod
    def low_threshold_spiking(cls) -> Self:
        """LTS: inhibitory cells with a low threshold that adapt."""
        return cls(a=0.02, b=0.25, c=-65.0, d=2.0)

    @classmethod
    def thalamo_cortical(cls) -> Self:
        """TC: tonic from rest, a rebound burst from hyperpolarisation."""
        return cls(a=0.02, b=0.25, c=-65.0, d=0.05)

    @classmethod
    def resonator(cls) -> Self:
        """RZ: sustained oscillation below threshold."""
        return cls(a=0.1, b=0.26, c=-65.0, d=2.0)


class PoissonEncoder(Record):
    """Turns an intensity into a train of Bernoulli spikes, the discrete Poisson process.

    Attributes:
        num_steps: length of the train.
    """

    positional_fields: ClassVar[tuple[str, ...]] = ("num_steps",)

    num_steps: int = Field(ge=0)

    if TYPE_CHECKING:

        def __init__(self, num_steps: int) -> None: ...

    def encode(self, intensity: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A train of 0 and 1, shape (num_steps,), each 1 with p = clip(intensity, 0, 1).

        Raises:
            InvalidValueError: `intensity` is NaN or infinite.
        """
        if not math.isfinite(intensity):
            raise InvalidValueError("PoissonEncoder.encode.intensity", intensity, "a finite number")
        return (rng.random(self.num_steps) < intensity).astype("uint8")
