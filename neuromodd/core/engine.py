"""SpikingInferenceEngine: eight LIF neurons that learn, five Izhikevich neurons that ring.

One step is 1 ms of network time; one tick of the host runs `steps_per_tick` of them. The engine holds
parameters and state and draws the random numbers; `dynamics.advance` moves the state.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from neuromodd.core.dynamics import Constants, advance
from neuromodd.core.modulators import (
    ACETYLCHOLINE_BASELINE,
    CORTISOL_BASELINE,
    DOPAMINE_BASELINE,
    TEMPO_BASELINE,
    NeuroModulators,
)
from neuromodd.core.neurons import IzhikevichNeuron, LifNeuron
from neuromodd.core.record import NonNegative, Ratio, Record
from neuromodd.core.stdp import A_MINUS, A_PLUS, TAU_STEPS, WEIGHT_MAX, stdp_window
from neuromodd.errors import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    InvalidValueError,
    NeuromoddError,
    shortened,
)

PARAMETERS_FORMAT = "neuromodd-parameters"
PARAMETERS_VERSION = 1

PAIR_TAUS = 40.0
"""A pair older than this many time constants would move a weight by less than 1e-19: it is left out."""

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
    learning_gain: NonNegative = Field(default=0.5, description="learning rate of full dopamine")
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


class SpikingInferenceEngine:
    """A reward-modulated spiking network. Mutable: every call of `step` and `tick` moves it on.

    Same config, seed and inputs give the same spikes and weights, bit for bit. Random numbers come from
    one PCG64 generator, in this order: channels x neurons uniforms for the fresh weights, then, each
    step, one uniform a channel, present or absent.

    Raises:
        InvalidValueError: the seed is negative.
    """

    def __init__(self, config: EngineConfig | None = None, seed: int = 0) -> None:
        if seed < 0:
            raise InvalidValueError("SpikingInferenceEngine.seed", seed, "a whole number >= 0")
        self.config = config or EngineConfig()
        self.seed = seed
        c = self.config
        self._pair_plus = [
            stdp_window(age, a_plus=c.a_plus, tau_plus=c.tau_plus_steps)
            for age in range(math.ceil(PAIR_TAUS * c.tau_plus_steps))
        ]
        # At age 0 a pair is potentiation; the table's first entry is never read.
        self._pair_minus = [
            -stdp_window(-age, a_minus=c.a_minus, tau_minus=c.tau_minus_steps) if age else 0.0
            for age in range(math.ceil(PAIR_TAUS * c.tau_minus_steps))
        ]
        self.reset()

    def reset(self) -> None:
        """Start afresh, as if just built with the same config and seed."""
        c = self.config
        self._rng = np.random.Generator(np.random.PCG64(self.seed))
        draws = self._rng.random((c.lif_neurons, c.channels))
        low = np.full_like(draws, c.other_weight_min)
        high = np.full_like(draws, c.other_weight_max)
        rows = np.arange(c.lif_neurons)
        low[rows, rows % c.channels] = c.primary_weight_min
        high[rows, rows % c.channels] = c.primary_weight_max
        self._weights: list[float] = (low + (high - low) * draws).ravel().tolist()
        self._step = 0
        self._v = [0.0] * c.lif_neurons
        self._theta = [c.theta_start] * c.lif_neurons
        self._last_post = [-1] * c.lif_neurons
        self._last_pre = [-1] * c.channels
        resting = IzhikevichNeuron.regular_spiking()
        self._bank_kind = (resting.a, resting.b, resting.c, resting.d)
        self._bank_v = [resting.v] * c.izhikevich_neurons
        self._bank_u = [resting.u] * c.izhikevich_neurons
        self._prediction = [0.0] * c.channels
        self._error: list[float | None] = [None] * c.channels

    @property
    def step_count(self) -> int:
        """Network steps since the first start."""
        return self._step

    @property
    def neurons(self) -> tuple[LifNeuron, ...]:
        """The LIF neurons as they are now: copies, so that what is done to them does not reach the engine."""
        c = self.config
        return tuple(
            LifNeuron(
                membrane_potential=self._v[i],
                decay_rate=c.decay_rate,
                threshold=self._theta[i],
                base_threshold=c.theta_start,
                last_spike=self._last_post[i] == self._step - 1 >= 0,
                last_spike_time=self._last_post[i],
                weights=self._weights[i * c.channels : (i + 1) * c.channels],
            )
            for i in range(c.lif_neurons)
        )

    @property
    def izhikevich_neurons(self) -> tuple[IzhikevichNeuron, ...]:
        """The Izhikevich bank as it is now, copies likewise."""
        a, b, c, d = self._bank_kind
        return tuple(
            IzhikevichNeuron(a, b, c, d, v, u) for v, u in zip(self._bank_v, self._bank_u, strict=True)
        )

    @property
    def weights(self) -> tuple[tuple[float, ...], ...]:
        """W, a row for each LIF neuron."""
        c = self.config.channels
        return tuple(tuple(self._weights[i : i + c]) for i in range(0, len(self._weights), c))

    @property
    def potentials(self) -> tuple[float, ...]:
        """The potential v of each LIF neuron."""
        return tuple(self._v)

    def step(
        self,
        stimuli: Sequence[float | None],
        modulators: NeuroModulators,
        drives: Sequence[float | None] | None = None,
    ) -> StepResult:
        """Advance one step of 1 ms.

        The prediction of the stimuli moves once in `steps_per_tick` steps, so that so many equal calls
        of `step` are one `tick`.

        Args:
            stimuli: intensity of each channel in [0, 1], clipped; None for an absent channel, which
                neither spikes nor learns: only the scaling of a row moves its weights.
            modulators: the levels; None counts as the baseline.
            drives: of the Izhikevich bank, in [0, 1], clipped; None for no current. Not given: power,
                heat and work from channels 4, 5 and 7 of the default eight.

        Raises:
            InvalidValueError: a wrong length, NaN or infinity; the engine has not moved.
        """
        return self._run(1, stimuli, modulators, drives, predict=self._step % self.config.steps_per_tick == 0)

    def tick(
        self,
        stimuli: Sequence[float | None],
        modulators: NeuroModulators,
        drives: Sequence[float | None] | None = None,
    ) -> StepResult:
        """Advance `steps_per_tick` steps under the same stimuli; arguments and errors as in `step`."""
        return self._run(self.config.steps_per_tick, stimuli, modulators, drives, predict=True)

    def _run(
        self,
        steps: int,
        stimuli: Sequence[float | None],
        modulators: NeuroModulators,
        drives: Sequence[float | None] | None,
        *,
        predict: bool,
    ) -> StepResult:
        c = self.config
        x = _levels("stimuli", stimuli, c.channels)
        if drives is None:
            drives = _default_drives(x, c.izhikevich_neurons)
        bank_drives = _levels("drives", drives, c.izhikevich_neurons)
        dopamine, cortisol, acetylcholine, tempo = _levels_or_baseline(modulators)
        if predict:
            self._predict(x)
        for j, level in enumerate(x):
            if level is None:
                self._error[j] = None
                # A spike from before the channel went away would still be paired.
                self._last_pre[j] = -1
        stress = max(c.stress_floor, 1.0 - cortisol)
        constants = Constants(
            decay=min(max(c.decay_rate - c.decay_acetylcholine * acetylcholine, 0.0), 1.0),
            gain=c.input_gain * stress,
            theta_shift=c.theta_cortisol * cortisol - c.theta_dopamine * dopamine,
            theta_min=c.theta_min,
            theta_max=c.theta_max,
            inhibition=c.inhibition,
            homeostasis_rate=c.homeostasis_rate,
            target_rate=c.target_rate,
            learning_rate=c.learning_gain * dopamine,
            budget=c.budget,
            primary_floor=c.primary_floor,
            a=self._bank_kind[0],
            b=self._bank_kind[1],
            c=self._bank_kind[2],
            d=self._bank_kind[3],
        )
        probability = [
            0.0 if level is None else c.input_rate * min(level + c.surprise_gain * (error or 0.0), 1.0)
            for level, error in zip(x, self._error, strict=True)
        ]
        bank_gain = c.izhikevich_gain * stress * tempo
        currents = [0.0 if drive is None else bank_gain * drive for drive in bank_drives]
        input_spikes = [0] * c.channels
        lif_spikes = [0] * c.lif_neurons
        bank_spikes = [0] * c.izhikevich_neurons
        advance(
            self._step,
            self._rng.random(steps * c.channels).tolist(),
            probability,
            currents,
            constants,
            self._pair_plus,
            self._pair_minus,
            self._v,
            self._theta,
            self._weights,
            self._last_post,
            self._last_pre,
            self._bank_v,
            self._bank_u,
            input_spikes,
            lif_spikes,
            bank_spikes,
        )
        self._step += steps
        return StepResult(
            step=self._step,
            steps=steps,
            input_spikes=tuple(input_spikes),
            lif_spikes=tuple(lif_spikes),
            izhikevich_spikes=tuple(bank_spikes),
            prediction_error=tuple(self._error),
        )

    def _predict(self, x: Sequence[float | None]) -> None:
        rate = self.config.prediction_rate
        for j, level in enumerate(x):
            if level is not None:
                self._error[j] = abs(level - self._prediction[j])
                self._prediction[j] = rate * level + (1.0 - rate) * self._prediction[j]

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs to go on exactly, as plain JSON values; a copy."""
        return {
            "dimensions": self.config.dimensions,
            "seed": self.seed,
            "step": self._step,
            "v": list(self._v),
            "theta": list(self._theta),
            "weights": list(self._weights),
            "last_post": list(self._last_post),
            "last_pre": list(self._last_pre),
            "bank_v": list(self._bank_v),
            "bank_u": list(self._bank_u),
            "prediction": list(self._prediction),
            "error": list(self._error),
            "generator": self._rng.bit_generator.state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            CheckpointMismatchError: the state is of a network of other dimensions.
            InvalidValueError: a list in it has not the length that the dimensions ask for.
        """
        c = self.config
        if state["dimensions"] != c.dimensions:
            raise CheckpointMismatchError(None, _spelt(state["dimensions"]), _spelt(c.dimensions))
        for length, names in (
            (c.lif_neurons, ("v", "theta", "last_post")),
            (c.lif_neurons * c.channels, ("weights",)),
            (c.channels, ("last_pre", "prediction", "error")),
            (c.izhikevich_neurons, ("bank_v", "bank_u")),
        ):
            for name in names:
                if len(state[name]) != length:
                    place = f"SpikingInferenceEngine.restore.{name}"
                    raise InvalidValueError(place, len(state[name]), f"{length} values")
        self.seed = int(state["seed"])
        self._step = int(state["step"])
        self._v = list(state["v"])
        self._theta = list(state["theta"])
        self._weights = list(state["weights"])
        self._last_post = list(state["last_post"])
        self._last_pre = list(state["last_pre"])
        self._bank_v = list(state["bank_v"])
        self._bank_u = list(state["bank_u"])
        self._prediction = list(state["prediction"])
        self._error = list(state["error"])
        self._rng.bit_generator.state = state["generator"]

    def to_json(self) -> str:
        """The engine with config, seed and state as one line of JSON."""
        config = json.loads(self.config.to_json())
        return json.dumps({"config": config, "state": self.state()}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The engine that `to_json` wrote; it goes on exactly where that one stood.

        Raises:
            InvalidValueError: the text is not what `to_json` writes.
            InvalidRecordError: a config field is out of range.
            CheckpointMismatchError: the state is not of the config's dimensions.
        """
        try:
            document = json.loads(text)
            engine = cls(EngineConfig.from_dict(document["config"]), document["state"]["seed"])
            engine.restore(document["state"])
        except NeuromoddError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError):
            raise InvalidValueError("SpikingInferenceEngine.from_json", text, "what to_json writes") from None
        return engine

    def save_parameters(self, path: str | os.PathLike[str]) -> None:
        """Write what was learned (weights and thresholds) to a JSON file, replacing it as a whole.

        Raises:
            OSError: the file can't be written.
        """
        document = {
            "format": PARAMETERS_FORMAT,
            "version": PARAMETERS_VERSION,
            "dimensions": self.config.dimensions,
            "weights": self.weights,
            "thresholds": self._theta,
        }
        target = Path(path)
        draft = target.with_name(f"{target.name}.tmp")
        draft.write_text(json.dumps(document) + "\n", encoding="utf-8")
        draft.replace(target)

    def load_parameters(self, path: str | os.PathLike[str]) -> None:
        """Take over weights and thresholds that `save_parameters` wrote; potentials and time stay.

        Raises:
            OSError: the file can't be read.
            CheckpointDamagedError: it is not such a file, or a number in it is out of range.
            CheckpointMismatchError: it is of other dimensions or of a newer version.
        """
        c, source = self.config, Path(path)
        try:
            document = json.loads(source.read_text(encoding="utf-8"))
            kind, version, dimensions = (document[name] for name in ("format", "version", "dimensions"))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointDamagedError(source, f"not readable: {type(error).__name__}: {error}") from None
        if kind != PARAMETERS_FORMAT:
            raise CheckpointDamagedError(source, f"not a {PARAMETERS_FORMAT} file")
        if version != PARAMETERS_VERSION:
            raise CheckpointMismatchError(source, f"version {version}", f"version {PARAMETERS_VERSION}")
        if dimensions != c.dimensions:
            raise CheckpointMismatchError(source, _spelt(dimensions), _spelt(c.dimensions))
        try:
            weights = np.array(document["weights"], dtype=np.float64)
            theta = np.array(document["thresholds"], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointDamagedError(source, f"not readable: {type(error).__name__}: {error}") from None
        if weights.shape != (c.lif_neurons, c.channels) or theta.shape != (c.lif_neurons,):
            raise CheckpointDamagedError(source, "the arrays do not have the dimensions that the file names")
        if not ((weights >= 0.0) & (weights <= WEIGHT_MAX)).all():
            raise CheckpointDamagedError(source, f"a weight outside [0, {WEIGHT_MAX}]")
        if not ((theta > 0.0) & np.isfinite(theta)).all():
            raise CheckpointDamagedError(source, "a threshold that is not above 0")
        self._weights = weights.ravel().tolist()
        self._theta = theta.tolist()


def _levels(place: str, values: Sequence[float | None], length: int) -> list[float | None]:
    if len(values) != length:
        raise InvalidValueError(f"SpikingInferenceEngine.{place}", len(values), f"{length} values")
    levels: list[float | None] = []
    for index, value in enumerate(values):
        if value is None:
            levels.append(None)
            continue
        # Clipped first, NaN stays NaN: a whole number may be too large for a double.
        level = float(min(max(value, 0.0), 1.0))
        if math.isnan(level) or abs(value) == math.inf:
            raise InvalidValueError(
                f"SpikingInferenceEngine.{place}[{index}]", value, "a finite number or None"
            )
        levels.append(level)
    return levels


def _default_drives(x: Sequence[float | None], bank: int) -> list[float | None]:
    power, heat, work = (x[j] if j < len(x) else None for j in (4, 5, 7))
    known: list[float | None] = [None, power, heat, work, None]
    return [*known[:bank], *[None] * (bank - len(known))]


def _levels_or_baseline(modulators: NeuroModulators) -> tuple[float, float, float, float]:
    return (
        _or(modulators.dopamine, DOPAMINE_BASELINE),
        _or(modulators.cortisol, CORTISOL_BASELINE),
        _or(modulators.acetylcholine, ACETYLCHOLINE_BASELINE),
        _or(modulators.tempo, TEMPO_BASELINE),
    )


def _or(level: float | None, baseline: float) -> float:
    return baseline if level is None else level


def _spelt(dimensions: object) -> str:
    if not isinstance(dimensions, Mapping):
        return f"dimensions {shortened(dimensions)}"
    return ", ".join(f"{name} {count}" for name, count in dimensions.items())
