"""SpikingInferenceEngine: eight LIF neurons that learn, five Izhikevich neurons that ring.

One step is 1 ms of network time; one tick of the host runs `steps_per_tick` of them. The engine holds
parameters and state and draws the random numbers; `dynamics.run` moves the state.
"""

from __future__ import annotations

import importlib.util
import json
import math
import operator
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, TypeVar

from neuromodd.core import dynamics, parameter_file
from neuromodd.core.engine_state import checked
from neuromodd.core.generator import Pcg64
from neuromodd.core.modulators import NeuroModulators
from neuromodd.core.neurons import IzhikevichNeuron, LifNeuron
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.results import RunResult, StepResult
from neuromodd.core.stdp import WEIGHT_MAX
from neuromodd.core.stimuli import intensities, levels_of, numbers, table
from neuromodd.errors import (
    InvalidValueError,
    MissingExtraError,
    NeuromoddError,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from neuromodd.core.stimuli import Levels

T = TypeVar("T", int, float)

LARGE_SYNAPSES = 1000
"""From so many synapses on an engine compiles itself if it can: then the loops cost more than the call."""

DRAWS_AT_ONCE = 1 << 18
"""Random numbers that a long `run` holds at a time."""


class SpikingInferenceEngine:
    """A reward-modulated spiking network. Mutable: every call of `step`, `tick` and `run` moves it on.

    Same config, seed and inputs give the same spikes and weights, bit for bit, compiled or not. Random
    numbers come from one PCG64 generator, in this order: neurons x channels uniforms for the fresh
    weights, then, each step, one uniform a channel, present or absent.

    Args:
        config: dimensions and constants; the design's if not given.
        seed: of the generator, 0 or more.
        compiled: run under numba (extra `fast`); if not given, where it is installed and the network has
            1000 synapses or more. A small network is quick enough as it is, and starts at once; for a
            large one without numba there is a RuntimeWarning.

    Raises:
        InvalidValueError: the seed is negative, or no whole number.
        MissingExtraError: `compiled` is asked for, and numba is not installed.
    """

    def __init__(
        self, config: EngineConfig | None = None, seed: SupportsIndex = 0, *, compiled: bool | None = None
    ) -> None:
        self.config = config or EngineConfig()
        self.seed = _seed(seed)
        if compiled is None:
            compiled = self.large and numba_installed()
            if self.large and not compiled:
                # Python says it once a process for each place that makes such an engine.
                remedy = "pip install 'neuromodd[fast]'"
                text = f"a large network without numba runs slower: {remedy}"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
        self._machine = machine_code() if compiled else None
        self._run: Callable[..., None] = dynamics.run if self._machine is None else self._machine.run
        self._p = _parameters(self.config)
        self.reset()

    @property
    def compiled(self) -> bool:
        """Whether the steps run as machine code."""
        return self._machine is not None

    @property
    def large(self) -> bool:
        """Whether the network is so large that compiling pays even for single ticks."""
        return self.config.lif_neurons * self.config.channels >= LARGE_SYNAPSES

    def reset(self) -> None:
        """Start afresh, as if just built with the same config and seed."""
        c = self.config
        self._rng = Pcg64(self.seed)
        self._step = 0
        self._bank_kind = IzhikevichNeuron.regular_spiking()
        bank = c.izhikevich_neurons
        self._s = dynamics.State(
            v=self._floats([0.0] * c.lif_neurons),
            theta=self._floats([c.theta_start] * c.lif_neurons),
            weights=self._floats(self._fresh_weights()),
            scale=self._floats([1.0] * c.lif_neurons),
            settled=self._floats([0.0] * c.lif_neurons),
            eligibility=self._floats([0.0] * self._traces),
            pre=self._floats([0.0] * c.channels),
            post=self._floats([0.0] * c.lif_neurons),
            last_post=self._ints([-1] * c.lif_neurons),
            bank_v=self._floats([self._bank_kind.v] * bank),
            bank_u=self._floats([self._bank_kind.u] * bank),
            prediction=self._floats([0.0] * c.channels),
            error=self._floats([math.nan] * c.channels),
        )
        self._room = dynamics.Scratch(
            probability=self._floats([0.0] * c.channels),
            bank_current=self._floats([0.0] * bank),
            current=self._floats([0.0] * c.lif_neurons),
            lost=self._floats([0.0] * c.lif_neurons),
            active=self._ints([0] * c.channels),
            fired=self._ints([0] * c.lif_neurons),
        )

    def _fresh_weights(self) -> list[float]:
        """Uniform draws: between other bounds where the channel is the neuron's primary one."""
        c = self.config
        draws = self._rng.random(c.lif_neurons * c.channels)
        other, other_span = c.other_weight_min, c.other_weight_max - c.other_weight_min
        weights = [other + other_span * draw for draw in draws]
        primary, primary_span = c.primary_weight_min, c.primary_weight_max - c.primary_weight_min
        for neuron in range(c.lif_neurons):
            place = neuron * c.channels + neuron % c.channels
            weights[place] = primary + primary_span * draws[place]
        # Drawn row by row, held channel by channel.
        return [weight for channel in range(c.channels) for weight in weights[channel :: c.channels]]

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
                membrane_potential=v,
                decay_rate=c.decay_rate,
                threshold=theta,
                base_threshold=c.theta_start,
                last_spike=last == self._step - 1 >= 0,
                last_spike_time=last,
                weights=list(row),
            )
            for v, theta, last, row in zip(
                _plain(self._s.v),
                _plain(self._s.theta),
                _plain(self._s.last_post),
                self.weights,
                strict=True,
            )
        )

    @property
    def izhikevich_neurons(self) -> tuple[IzhikevichNeuron, ...]:
        """The Izhikevich bank as it is now, copies likewise."""
        bank = zip(_plain(self._s.bank_v), _plain(self._s.bank_u), strict=True)
        return tuple(self._bank_kind.model_copy(update={"v": v, "u": u}) for v, u in bank)

    @property
    def weights(self) -> tuple[tuple[float, ...], ...]:
        """W, a row for each LIF neuron."""
        shares, scale = _plain(self._s.weights), _plain(self._s.scale)
        neurons = len(scale)
        # The product of share and factor may come out a bit above 2.
        return tuple(
            tuple(min(share * factor, WEIGHT_MAX) for share in shares[neuron::neurons])
            for neuron, factor in enumerate(scale)
        )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The adaptive threshold theta of each LIF neuron."""
        return tuple(_plain(self._s.theta))

    @property
    def predictions(self) -> tuple[float, ...]:
        """The intensity that is expected of each channel; 0 of one that was never present."""
        return tuple(_plain(self._s.prediction))

    @property
    def potentials(self) -> tuple[float, ...]:
        """The potential v of each LIF neuron."""
        return tuple(_plain(self._s.v))

    def step(
        self,
        stimuli: Levels,
        modulators: NeuroModulators,
        drives: Levels | None = None,
        *,
        phasic_dopamine: float | None = None,
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
            phasic_dopamine: what turns eligibility traces into weight, clipped to [-1, 1]; below 0 it
                does nothing. Not given: what dopamine has above its baseline of 0.3.

        Raises:
            InvalidValueError: a wrong length, NaN or infinity; the engine has not moved.
        """
        predict = self._step % self.config.steps_per_tick == 0
        return self._advance(1, stimuli, modulators, drives, phasic_dopamine, predict=predict)

    def tick(
        self,
        stimuli: Levels,
        modulators: NeuroModulators,
        drives: Levels | None = None,
        *,
        phasic_dopamine: float | None = None,
    ) -> StepResult:
        """Advance `steps_per_tick` steps under the same stimuli; arguments and errors as in `step`."""
        steps = self.config.steps_per_tick
        return self._advance(steps, stimuli, modulators, drives, phasic_dopamine, predict=True)

    def run(
        self,
        stimuli: ArrayLike,
        modulators: NeuroModulators | Sequence[NeuroModulators],
        drives: ArrayLike | None = None,
        *,
        phasic_dopamine: float | Sequence[float] | NDArray[np.floating[Any]] | None = None,
    ) -> RunResult:
        """Advance T ticks in one call: the same bits as T calls of `tick`, and far quicker if compiled.

        Args:
            stimuli: (T, channels), in [0, 1], clipped; NaN for an absent channel.
            modulators: the levels of all ticks, or of each.
            drives: (T, neurons of the bank), NaN for no current; not given, as in `step`.
            phasic_dopamine: for all ticks, or for each; not given, as in `step`.

        Raises:
            InvalidValueError: a wrong shape, infinity, or NaN among the phasic dopamine; the engine has
                not moved.
        """
        import numpy as np  # noqa: PLC0415 - the daemon never calls this, and does without numpy

        c = self.config
        x = table("stimuli", stimuli, c.channels)
        ticks = len(x)
        if drives is None:
            bank_drives = np.full((ticks, c.izhikevich_neurons), math.nan)
            for neuron, channel in _DRIVING_CHANNELS:
                if neuron < c.izhikevich_neurons and channel < c.channels:
                    bank_drives[:, neuron] = x[:, channel]
        else:
            bank_drives = table("drives", drives, c.izhikevich_neurons)
        each = modulators if isinstance(modulators, Sequence) else [modulators] * ticks
        phasic: Sequence[float | None] = (
            [None if phasic_dopamine is None else float(phasic_dopamine)] * ticks
            if phasic_dopamine is None or isinstance(phasic_dopamine, Real)
            else numbers(
                "SpikingInferenceEngine.phasic_dopamine", phasic_dopamine, f"{ticks} numbers"
            ).tolist()
        )
        rows = {"drives": len(bank_drives), "modulators": len(each), "phasic_dopamine": len(phasic)}
        for place, came in rows.items():
            if came != ticks:
                raise InvalidValueError(f"SpikingInferenceEngine.{place}", came, f"{ticks} rows")
        levels = [level for pair in zip(each, phasic, strict=True) for level in levels_of(*pair)]
        steps = c.steps_per_tick
        counts = self._counts(ticks)
        at_once = max(DRAWS_AT_ONCE // (steps * c.channels), 1)
        for first in range(0, ticks, at_once):
            last = min(first + at_once, ticks)
            part = self._move(
                steps,
                x[first:last].ravel().tolist(),
                bank_drives[first:last].ravel().tolist(),
                levels[first * dynamics.LEVELS : last * dynamics.LEVELS],
                predict=True,
            )
            for name, piece in part._asdict().items():
                width = len(piece) // (last - first)
                getattr(counts, name)[first * width : last * width] = piece
        return RunResult(
            step=self._step,
            steps_per_tick=steps,
            input_spikes=np.array(counts.input, dtype=np.int64).reshape(ticks, c.channels),
            lif_spikes=np.array(counts.lif, dtype=np.int64).reshape(ticks, c.lif_neurons),
            izhikevich_spikes=np.array(counts.bank, dtype=np.int64).reshape(ticks, c.izhikevich_neurons),
            prediction_error=np.array(counts.error, dtype=np.float64).reshape(ticks, c.channels),
        )

    def _advance(
        self,
        steps: int,
        stimuli: Levels,
        modulators: NeuroModulators,
        drives: Levels | None,
        phasic_dopamine: float | None,
        *,
        predict: bool,
    ) -> StepResult:
        c = self.config
        x = intensities("stimuli", stimuli, c.channels)
        if drives is None:
            bank_drives = [math.nan] * c.izhikevich_neurons
            for neuron, channel in _DRIVING_CHANNELS:
                if neuron < c.izhikevich_neurons and channel < c.channels:
                    bank_drives[neuron] = x[channel]
        else:
            bank_drives = intensities("drives", drives, c.izhikevich_neurons)
        counts = self._move(steps, x, bank_drives, levels_of(modulators, phasic_dopamine), predict=predict)
        return StepResult(
            step=self._step,
            steps=steps,
            input_spikes=tuple(_plain(counts.input)),
            lif_spikes=tuple(_plain(counts.lif)),
            izhikevich_spikes=tuple(_plain(counts.bank)),
            prediction_error=tuple(_or_none(_plain(counts.error))),
        )

    def _move(
        self,
        steps: int,
        stimuli: Sequence[float],
        drives: Sequence[float],
        levels: Sequence[float],
        *,
        predict: bool,
    ) -> dynamics.Counts:
        ticks = len(levels) // dynamics.LEVELS
        count = ticks * steps * self.config.channels
        counts = self._counts(ticks)
        self._run(
            self._step,
            steps,
            predict,
            self._rng.random(count) if self._machine is None else self._rng.random_array(count),
            self._as_array(stimuli),
            self._as_array(drives),
            self._as_array(levels),
            self._p,
            self._s,
            self._room,
            counts,
        )
        self._step += ticks * steps
        return counts

    def _counts(self, ticks: int) -> dynamics.Counts:
        c = self.config
        return dynamics.Counts(
            input=self._zeros(ticks * c.channels, int),
            lif=self._zeros(ticks * c.lif_neurons, int),
            bank=self._zeros(ticks * c.izhikevich_neurons, int),
            error=self._zeros(ticks * c.channels, float),
        )

    def _zeros(self, count: int, kind: type[T]) -> list[T]:
        return [kind(0)] * count if self._machine is None else self._machine.zeros(count, kind)

    def _floats(self, values: Sequence[float]) -> list[float]:
        """As the dynamics take them: an array for machine code, which to the type checker is a list too."""
        return list(values) if self._machine is None else self._machine.floats(values)

    def _as_array(self, values: Sequence[float]) -> Sequence[float]:
        """What is only read, without a copy where none is needed."""
        return values if self._machine is None else self._floats(values)

    def _ints(self, values: Sequence[int]) -> list[int]:
        return list(values) if self._machine is None else self._machine.ints(values)

    @property
    def _traces(self) -> int:
        c = self.config
        return c.lif_neurons * c.channels if c.plasticity == "eligibility" else 0

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs to go on exactly, as plain JSON values; a copy."""
        moving = {name: _plain(values) for name, values in self._s._asdict().items()}
        return {
            "dimensions": self.config.dimensions,
            "seed": self.seed,
            "step": self._step,
            **moving,
            "error": _or_none(moving["error"]),
            "generator": self._rng.state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned.

        Traces of eligibility begin at 0 where the state is of a network without them.

        Raises:
            CheckpointMismatchError: the state is of a network of other dimensions.
            InvalidValueError: something in it is missing, of another kind, or out of range; the engine has
                not moved.
        """
        lengths = {name: len(values) for name, values in self._s._asdict().items()}
        saved = checked(state, self.config.dimensions, lengths)
        last_post = self._ints([int(step) for step in saved.moving.pop("last_post")])
        floats = {name: self._floats(values) for name, values in saved.moving.items()}
        self.seed, self._step = saved.seed, saved.step
        self._rng = saved.generator
        self._s = dynamics.State(last_post=last_post, **floats)

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
        parameter_file.write(Path(path), self.config.dimensions, self.weights, self.thresholds)

    def load_parameters(self, path: str | os.PathLike[str]) -> None:
        """Take over weights and thresholds that `save_parameters` wrote; potentials and time stay.

        Raises:
            OSError: the file can't be read.
            CheckpointDamagedError: it is not such a file, or a number in it is out of range.
            CheckpointMismatchError: it is of other dimensions or of a newer version.
        """
        weights, theta = parameter_file.read(Path(path), self.config.dimensions)
        rows = len(theta)
        self._s = self._s._replace(
            weights=self._floats(weights.T.ravel().tolist()),
            scale=self._floats([1.0] * rows),
            settled=self._floats([0.0] * rows),
            theta=self._floats(theta.tolist()),
        )


_DRIVING_CHANNELS = ((1, 4), (2, 5), (3, 7))
"""What a neuron of the bank hears where no drives are given: power, heat and work."""


def _seed(seed: SupportsIndex) -> int:
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if number < 0:
        raise InvalidValueError("SpikingInferenceEngine.seed", seed, "a whole number >= 0")
    return number


def numba_installed() -> bool:
    """Whether an engine can be compiled (extra `fast`)."""
    return importlib.util.find_spec("numba") is not None


def machine_code() -> Any:  # noqa: ANN401 - a module
    """What runs under numba.

    Raises:
        MissingExtraError: it is not installed.
    """
    if not numba_installed():
        raise MissingExtraError("a compiled engine", "fast")
    from neuromodd.core import compiled  # noqa: PLC0415 - numba is large, and an extra

    return compiled


def _parameters(c: EngineConfig) -> dynamics.Parameters:
    kind = IzhikevichNeuron.regular_spiking()
    derived = {
        "eligibility": c.plasticity == "eligibility",
        "keep_plus": math.exp(-1.0 / c.tau_plus_steps),
        "keep_minus": math.exp(-1.0 / c.tau_minus_steps),
        "keep_eligibility": math.exp(-c.steps_per_tick / c.eligibility_tau_steps),
        **{name: getattr(kind, name) for name in "abcd"},
    }
    same = [name for name in dynamics.Parameters._fields if name not in derived]
    return dynamics.Parameters(**derived, **{name: getattr(c, name) for name in same})


def _or_none(values: Iterable[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def _plain(values: Any) -> list[Any]:  # noqa: ANN401 - a list or an array of numbers
    return list(values) if isinstance(values, list) else values.tolist()
