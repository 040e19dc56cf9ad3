"""EngineConfig: dimensions and constants of a network."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from neuromodd.core.record import NonNegative, Ratio, Record
from neuromodd.core.stdp import A_MINUS, A_PLUS, TAU_STEPS, WEIGHT_MAX

Gain = Annotated[float, Field(ge=0.0, le=1e6)]
"""A factor of currents; without a bound a membrane could reach infinity, and then NaN."""


class EngineConfig(Record):
    """Dimensions and constants of a network; the defaults are the design's.

    Symbols: theta is the adaptive threshold, W the weights (neurons x channels, row-major).
    """

    channels: int = Field(default=8, ge=1, le=1_000_000, description="input channels")
    lif_neurons: int = Field(
        default=8, ge=1, le=1_000_000, description="LIF neurons; i listens to i mod channels"
    )
    izhikevich_neurons: int = Field(
        default=5, ge=0, le=1_000_000, description="neurons of the Izhikevich bank"
    )
    steps_per_tick: int = Field(default=20, ge=1, le=10_000, description="network milliseconds in a tick")
    input_rate: Ratio = Field(default=0.1, description="input spikes a step at full intensity")
    surprise_gain: NonNegative = Field(default=0.5, description="intensity that a prediction error adds")
    prediction_rate: Ratio = Field(
        default=0.1, description="share of the new value in the prediction, a tick"
    )
    input_gain: Gain = Field(default=0.45, description="current of an input spike over weight 1")
    stress_floor: Ratio = Field(default=0.1, description="what full cortisol leaves of the currents")
    decay_rate: Ratio = Field(default=0.15, description="membrane leak a step without acetylcholine")
    decay_acetylcholine: Ratio = Field(default=0.05, description="leak that full acetylcholine takes away")
    theta_start: float = Field(default=0.2, gt=0.0, description="threshold of a fresh neuron")
    theta_min: float = Field(default=0.05, gt=0.0, description="lowest threshold")
    theta_max: float = Field(default=5.0, gt=0.0, description="highest threshold")
    theta_cortisol: NonNegative = Field(default=0.15, description="threshold that full cortisol adds")
    theta_dopamine: NonNegative = Field(default=0.05, description="threshold that full dopamine takes away")
    inhibition: NonNegative = Field(default=0.05, description="potential that silent neurons lose to a spike")
    homeostasis_rate: NonNegative = Field(default=1e-4, description="threshold change a step and spike")
    target_rate: Ratio = Field(default=0.05, description="spikes a step that leave a threshold where it is")
    a_plus: NonNegative = Field(default=A_PLUS, description="potentiation of a pair at dt 0")
    a_minus: NonNegative = Field(default=A_MINUS, description="depression of a pair at dt 0")
    tau_plus_steps: float = Field(
        default=TAU_STEPS, gt=0.0, le=1e4, description="time constant of potentiation"
    )
    tau_minus_steps: float = Field(
        default=TAU_STEPS, gt=0.0, le=1e4, description="time constant of depression"
    )
    plasticity: Literal["gated", "eligibility"] = Field(
        default="gated", description="gated: dopamine gates STDP; eligibility: it turns traces into weight"
    )
    learning_gain: NonNegative = Field(default=0.5, description="gated: learning rate of full dopamine")
    eligibility_gain: NonNegative = Field(
        default=0.05, description="eligibility: share of a trace that full phasic dopamine adds a tick"
    )
    eligibility_tau_steps: float = Field(
        default=1000.0, gt=0.0, le=1e9, description="eligibility: time constant of the traces"
    )
    budget: float = Field(default=2.0, gt=0.0, description="sum of a neuron's weights after scaling")
    primary_floor: NonNegative = Field(
        default=0.5, description="least weight of the primary synapse; 0 is off"
    )
    primary_weight_min: NonNegative = Field(
        default=0.8, le=WEIGHT_MAX, description="fresh primary weight, from"
    )
    primary_weight_max: NonNegative = Field(
        default=1.2, le=WEIGHT_MAX, description="fresh primary weight, to"
    )
    other_weight_min: NonNegative = Field(
        default=0.01, le=WEIGHT_MAX, description="other fresh weights, from"
    )
    other_weight_max: NonNegative = Field(default=0.1, le=WEIGHT_MAX, description="other fresh weights, to")
    izhikevich_gain: Gain = Field(default=10.0, description="current of a full drive of the bank")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.budget > WEIGHT_MAX * self.channels:
            most = WEIGHT_MAX * self.channels
            raise ValueError(
                f"a budget of at most 2 x channels, {most}, as weights are in [0, 2]; it is {self.budget}"
            )
        if self.primary_floor > min(self.budget, WEIGHT_MAX):
            most = min(self.budget, WEIGHT_MAX)
            raise ValueError(f"a primary_floor of at most {most}, the budget; it is {self.primary_floor}")
        for low, high in (
            ("theta_min", "theta_max"),
            ("primary_weight_min", "primary_weight_max"),
            ("other_weight_min", "other_weight_max"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} at most {high}; they are {getattr(self, low)} and {getattr(self, high)}"
                )
        return self

    @property
    def dimensions(self) -> dict[str, int]:
        """What must agree for one network's state to fit another."""
        return {
            "channels": self.channels,
            "lif_neurons": self.lif_neurons,
            "izhikevich_neurons": self.izhikevich_neurons,
        }
