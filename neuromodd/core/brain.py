r"""The whole pure path: a TelemetryFrame in, a Tick out.

    frame -> tonic levels -\
    events -> phasic levels -> modulators -> engine -> spikes
    frame -> stimuli ------------------------/

No clock, no I/O, no randomness of its own: the same frames and events give the same ticks, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from neuromodd.core.anomaly import Moment
from neuromodd.core.diagnostics import Fault, FaultMonitor, FaultParameters
from neuromodd.core.encoding import CHANNELS, drives, encode
from neuromodd.core.engine import SpikingInferenceEngine
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.inputs import OutsideInput, ResetInput, RewardInput, SettingsInput
from neuromodd.core.modulators import (
    ACETYLCHOLINE_BASELINE,
    ACETYLCHOLINE_DECAY,
    CORTISOL_BASELINE,
    CORTISOL_DECAY,
    DOPAMINE_BASELINE,
    DOPAMINE_DECAY,
    SWITCH_STRESS,
    TEMPO_BASELINE,
    TEMPO_DECAY,
    WORK_REWARD,
    NeuroModulators,
    Setpoints,
    busiest_clock,
    focus_change,
    voltage_instability,
)
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.record import Record
from neuromodd.core.results import StepResult
from neuromodd.core.rewards import (
    BreakthroughFound,
    RewardDetector,
    RewardEvent,
    RewardParameters,
    SourceSwitch,
    WorkAccepted,
    stamped,
)
from neuromodd.core.surprise import SurpriseDetector, SurpriseParameters
from neuromodd.core.watched import check_names, readings, span
from neuromodd.errors import InvalidValueError

TIMING_NEURON = 4
"""The neuron of the Izhikevich bank whose spikes are stress: the host does not keep its time."""

TIMING_CORTISOL = 0.15
"""What one of its spikes adds to phasic cortisol, as of the next tick."""

CLOCK_WINDOW_TICKS = 60
CLOCK_MINIMUM_TICKS = 10
"""A mean of fewer clock readings says nothing about steadiness."""

GOVERNOR_IDLE_RATIO = 0.1
"""Under this utilisation a frequency governor moves the clock as it likes: that is no instability."""

FAULT_STRESS = 0.6
"""Tonic cortisol of a hardware fault that is beyond doubt: it stands, so it is standing stress.

While a fault class holds, or several that can't be told apart, tonic cortisol is at least this times the
confidence, from the very tick that shows it. A lack of sensors raises nothing.
"""

SURPRISE_RELOADABLE = ("threshold", "feedback")
"""Of the settings of surprise, those that a running brain takes over."""

UNUSUAL = 0.3
"""Surprise from which uncertainty is unexpected: one normal moment in a thousand is as strange."""

UNCERTAIN_ACETYLCHOLINE = 0.3
UNCERTAIN_CORTISOL = 0.2
"""What full unexpected uncertainty raises phasic acetylcholine and cortisol to, if they are lower.

After Yu and Dayan (2005), "Uncertainty, neuromodulation, and attention", Neuron 46: the brain expects some
uncertainty, which a context's usual errors measure, and is set to learn by what goes beyond it. There
norepinephrine signals the latter and works together with acetylcholine, which holds the former; here there is
none, and cortisol stands for its arousal. With the surprise of all s,

    u = max(0, (s - 0.3) / 0.7)
    phasic acetylcholine <- max(phasic acetylcholine, 0.3 u)
    phasic cortisol      <- max(phasic cortisol, 0.2 u)

s itself is the error in terms of the expected uncertainty (its usual mean and variance). Acetylcholine slows
the leak of the membranes: inputs count longer, neurons fire more, and STDP has more pairs to learn from, so
that the network learns faster while the host is not what it was.
"""

STRESS_LEVEL = 0.5
REWARD_LEVEL = 0.6
FOCUS_LEVEL = 0.7
"""Where the flags of `state` are raised: cortisol, dopamine and acetylcholine above these."""


class BrainParameters(Record):
    """Everything that a brain is made with, besides its seed."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    setpoints: Setpoints = Field(default_factory=Setpoints)
    rewards: RewardParameters = Field(default_factory=RewardParameters)
    faults: FaultParameters = Field(default_factory=FaultParameters)
    surprise: SurpriseParameters = Field(default_factory=SurpriseParameters)


class Phasic(Record):
    """What events have left in the levels: each in [-1, 1], decaying to 0."""

    dopamine: float = Field(default=0.0, ge=-1.0, le=1.0)
    cortisol: float = Field(default=0.0, ge=-1.0, le=1.0)
    acetylcholine: float = Field(default=0.0, ge=-1.0, le=1.0)

    def after(self, event: RewardEvent) -> Phasic:
        """These parts after `event`."""
        dopamine, cortisol, acetylcholine = self.dopamine, self.cortisol, self.acetylcholine
        match event:
            case WorkAccepted():
                dopamine += WORK_REWARD
                acetylcholine += focus_change(event)
            case BreakthroughFound():
                dopamine = 1.0
            case SourceSwitch():
                dopamine = -1.0
                cortisol += SWITCH_STRESS
        return Phasic(
            dopamine=_signed(dopamine), cortisol=_signed(cortisol), acetylcholine=_signed(acetylcholine)
        )

    def unsettled(self, surprise: float) -> Phasic:
        """These parts under a surprise of all, as at `UNCERTAIN_CORTISOL`."""
        unexpected = (surprise - UNUSUAL) / (1.0 - UNUSUAL)
        if unexpected <= 0.0:
            return self
        return Phasic(
            dopamine=self.dopamine,
            cortisol=max(self.cortisol, UNCERTAIN_CORTISOL * unexpected),
            acetylcholine=max(self.acetylcholine, UNCERTAIN_ACETYLCHOLINE * unexpected),
        )

    def decayed(self, dt_s: float) -> Phasic:
        """These parts `dt_s` seconds later."""
        return Phasic(
            dopamine=self.dopamine * DOPAMINE_DECAY**dt_s,
            cortisol=self.cortisol * CORTISOL_DECAY**dt_s,
            acetylcholine=self.acetylcholine * ACETYLCHOLINE_DECAY**dt_s,
        )


class Tick(Record):
    """What one frame led to.

    Attributes:
        frame: what came in.
        modulators: the levels that the network ran under, clip(tonic + phasic).
        tonic: the part that telemetry speaks for.
        phasic: the part that events left.
        stimuli: the channels of `encoding.CHANNELS`.
        result: spikes and prediction errors.
        potentials: LIF potentials after the tick.
        events: detected in this frame, or taken in since the last one.
        fault: the classification that holds.
        fault_changed: whether its class is another than a tick ago; true on the very first.
        surprise: how strange it is, in all and by channel; None if surprise is disabled.
    """

    frame: TelemetryFrame
    modulators: NeuroModulators
    tonic: NeuroModulators
    phasic: Phasic
    stimuli: tuple[float | None, ...]
    result: StepResult
    potentials: tuple[float, ...]
    events: tuple[RewardEvent, ...]
    fault: Fault
    fault_changed: bool
    surprise: Moment | None = None

    @property
    def error_total(self) -> float | None:
        """The mean prediction error of the network's channels that are present; None without any."""
        known = [error for error in self.result.prediction_error if error is not None]
        return sum(known) / len(known) if known else None

    @property
    def stressed(self) -> bool:
        """Cortisol above 0.5."""
        return (self.modulators.cortisol or 0.0) > STRESS_LEVEL

    @property
    def rewarded(self) -> bool:
        """Dopamine above 0.6."""
        return (self.modulators.dopamine or 0.0) > REWARD_LEVEL

    @property
    def focused(self) -> bool:
        """Acetylcholine above 0.7."""
        return (self.modulators.acetylcholine or 0.0) > FOCUS_LEVEL

    @property
    def anomalous(self) -> bool:
        """An anomaly goes on."""
        return self.surprise is not None and self.surprise.episode is not None


class Brain:
    """Modulators, network and detectors of one host. Mutable: each `step` moves it on.

    Args:
        parameters: everything but the seed.
        seed: of the network.
        compiled: whether the network runs as machine code, as in `SpikingInferenceEngine`.

    Raises:
        InvalidValueError: the network has not the channels of a frame, or no frame has what is to be watched.
        MissingExtraError: `compiled` is asked for, and numba is not installed.
    """

    def __init__(
        self, parameters: BrainParameters | None = None, seed: int = 0, *, compiled: bool | None = None
    ) -> None:
        self.parameters = parameters or BrainParameters()
        if self.parameters.engine.channels != len(CHANNELS):
            raise InvalidValueError(
                "engine.channels",
                self.parameters.engine.channels,
                f"{len(CHANNELS)}, the channels of a frame",
            )
        if self.parameters.surprise.enabled:
            check_names(self.parameters.surprise.channels)
        self._compiled = compiled
        self.engine = SpikingInferenceEngine(self.parameters.engine, seed, compiled=compiled)
        self._pending: list[RewardEvent] = []
        self._last: _Instant | None = None
        self.sequence = 0
        self._begin()

    def _begin(self) -> None:
        self._rewards = RewardDetector(self.parameters.rewards)
        self._faults = FaultMonitor(self.parameters.faults)
        self._surprise = self._learner()
        self._anomalies = 0
        self._tonic = NeuroModulators()
        self._phasic = Phasic()
        self._clock = _ClockMeter()

    def _learner(self) -> SurpriseDetector | None:
        """What learns the normal from the beginning; None if nothing is to be learned."""
        surprise = self.parameters.surprise
        if not surprise.enabled:
            return None
        spans = [span(name) for name in surprise.channels]
        return SurpriseDetector(surprise.channels, surprise, spans=spans, compiled=self._compiled)

    def configure(
        self,
        *,
        setpoints: Setpoints,
        rewards: RewardParameters,
        faults: FaultParameters,
        surprise: SurpriseParameters | None = None,
    ) -> None:
        """Take over settings that may change while running; the network's own may not.

        Of `surprise` that is what `SURPRISE_RELOADABLE` names; None leaves all of it as it is.
        """
        told = self.parameters.surprise
        if surprise is not None:
            told = told.model_copy(update={name: getattr(surprise, name) for name in SURPRISE_RELOADABLE})
        self.parameters = self.parameters.model_copy(
            update={"setpoints": setpoints, "rewards": rewards, "faults": faults, "surprise": told}
        )
        self._rewards.parameters = rewards
        self._faults.parameters = faults
        if self._surprise is not None:
            self._surprise.parameters = told

    def apply(self, outside: OutsideInput) -> None:
        """Take in whatever came from outside."""
        match outside:
            case RewardInput():
                self.take(outside.event)
            case SettingsInput():
                self.configure(
                    setpoints=outside.setpoints,
                    rewards=outside.rewards,
                    faults=outside.faults,
                    surprise=outside.surprise,
                )
            case ResetInput():
                self.reset()

    def take(self, event: RewardEvent) -> None:
        """Take in an event from outside; it acts, and is reported, with the next `step`.

        What it lacks of id, time and node is that of the next frame.
        """
        self._pending.append(event)

    def reset(self) -> None:
        """Forget all that was learned, as if just built with the same parameters and seed.

        Frames are counted on, and events that were taken in still act with the next one.
        """
        self.engine.reset()
        self._begin()

    @property
    def pending(self) -> tuple[RewardEvent, ...]:
        """Events that were taken in and act with the next frame."""
        return tuple(self._pending)

    @property
    def fault_counts(self) -> dict[str, int]:
        """How often each fault class has begun, by its name, since the first start."""
        return dict(self._faults.counts)

    @property
    def anomaly_count(self) -> int:
        """How many anomalies have begun since the first start."""
        return self._anomalies

    def step(self, frame: TelemetryFrame) -> Tick:
        """Live through one frame.

        Raises:
            InvalidValueError: the frame has no `time_utc`; nothing has moved.
        """
        if frame.time_utc is None:
            raise InvalidValueError("Brain.step.frame.time_utc", None, "a time")
        now = _Instant(frame.time_utc, frame.monotonic_s, frame.boot_id)
        elapsed_s = 0.0 if self._last is None else now.seconds_since(self._last)
        self._last = now
        fault_before = None if self._faults.current is None else self._faults.current.fault_class
        fault = self._faults.update(frame, elapsed_s)
        setpoints = self.parameters.setpoints
        stimuli = encode(frame, setpoints)
        moment = self._look(frame, now, stimuli)
        unsteady = voltage_instability(frame, setpoints)
        if unsteady is None:
            unsteady = self._clock.update(frame)
        measured = NeuroModulators.from_telemetry(frame, setpoints, instability=unsteady)
        self._tonic = _stressed(_drifted(measured, self._tonic, elapsed_s), fault)
        detected = self._rewards.update(frame, elapsed_s)
        taken = [stamped(event, frame, ordinal) for ordinal, event in enumerate(self._pending, len(detected))]
        events = (*taken, *detected)
        self._pending = []
        self._phasic = self._phasic.decayed(elapsed_s)
        for event in events:
            self._phasic = self._phasic.after(event)
        if moment is not None and moment.surprise is not None and self.parameters.surprise.feedback:
            self._phasic = self._phasic.unsettled(moment.surprise)
        levels = _levels(self._tonic, self._phasic)
        phasic = self._phasic
        result = self.engine.tick(
            stimuli, levels, self._drives(frame, unsteady), phasic_dopamine=phasic.dopamine
        )
        if len(result.izhikevich_spikes) > TIMING_NEURON:
            stress = TIMING_CORTISOL * result.izhikevich_spikes[TIMING_NEURON]
            self._phasic = self._phasic.model_copy(
                update={"cortisol": _signed(self._phasic.cortisol + stress)}
            )
        self.sequence = frame.sequence + 1
        return Tick(
            frame=frame,
            modulators=levels,
            tonic=self._tonic,
            phasic=phasic,
            stimuli=stimuli,
            result=result,
            potentials=self.engine.potentials,
            events=events,
            fault=fault,
            fault_changed=fault.fault_class is not fault_before,
            surprise=moment,
        )

    def _look(self, frame: TelemetryFrame, now: _Instant, stimuli: Sequence[float | None]) -> Moment | None:
        """How strange the frame is, which belongs to the normal from now on."""
        if self._surprise is None:
            return None
        values = readings(frame, self._surprise.names, stimuli)
        moment = self._surprise.update(values, now.time_utc.timestamp(), gap=frame.gap)
        if moment.change is not None and moment.change.phase == "begin":
            self._anomalies += 1
        return moment

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs to go on exactly, as plain JSON values."""
        return {
            "sequence": self.sequence,
            "last": None if self._last is None else self._last.state(),
            "tonic": self._tonic.model_dump(),
            "phasic": self._phasic.model_dump(),
            "pending": [event.model_dump(mode="json") for event in self._pending],
            "clock": self._clock.state(),
            "rewards": self._rewards.state(),
            "faults": self._faults.state(),
            "surprise": None if self._surprise is None else self._surprise.state(),
            "anomalies": self._anomalies,
            "engine": self.engine.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            CheckpointMismatchError: the state is of a network of other dimensions.
        """
        self.engine.restore(state["engine"])
        self.sequence = int(state["sequence"])
        self._last = None if state["last"] is None else _Instant.restored(state["last"])
        self._tonic = NeuroModulators.from_dict(state["tonic"])
        self._phasic = Phasic.from_dict(state["phasic"])
        self._pending = [RewardEvent.from_dict(event) for event in state["pending"]]
        self._clock.restore(state["clock"])
        self._rewards.restore(state["rewards"])
        self._faults.restore(state["faults"])
        # A state from before there was a normal has none, and neither has one of a brain that learned none.
        self._surprise, known = self._learner(), state.get("surprise")
        if self._surprise is not None and known is not None:
            self._surprise.restore(known)
        self._anomalies = int(state.get("anomalies", 0))

    def _drives(self, frame: TelemetryFrame, instability: float | None) -> Sequence[float | None]:
        bank = self.parameters.engine.izhikevich_neurons
        known = drives(frame, self.parameters.setpoints, instability=instability)
        return (*known[:bank], *(None,) * (bank - len(known)))


class _Instant:
    """When a frame was taken, on both clocks."""

    def __init__(self, time_utc: datetime, monotonic_s: float, boot_id: str | None) -> None:
        self.time_utc = time_utc
        self.monotonic_s = monotonic_s
        self.boot_id = boot_id

    def seconds_since(self, earlier: _Instant) -> float:
        """Elapsed seconds, never below 0; across boots the wall clock has to do."""
        if self.boot_id == earlier.boot_id:
            return max(self.monotonic_s - earlier.monotonic_s, 0.0)
        return max((self.time_utc - earlier.time_utc).total_seconds(), 0.0)

    def state(self) -> dict[str, Any]:
        return {
            "time_utc": self.time_utc.isoformat(),
            "monotonic_s": self.monotonic_s,
            "boot_id": self.boot_id,
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> _Instant:
        return cls(datetime.fromisoformat(state["time_utc"]), state["monotonic_s"], state["boot_id"])


class _ClockMeter:
    """How far the busiest device's clock is from its mean.

    The instability of a host without a voltage sensor.
    """

    def __init__(self) -> None:
        self._device: str | None = None
        self._clocks_hz: list[float] = []

    def update(self, frame: TelemetryFrame) -> float | None:
        """|clock - mean| / mean over the last 60 busy ticks; None while idle and until 10 ticks are known."""
        clock = busiest_clock(frame)
        if clock is None or (clock.utilization_ratio or 0.0) < GOVERNOR_IDLE_RATIO:
            return None
        if clock.device != self._device:
            self._device, self._clocks_hz = clock.device, []
        self._clocks_hz = [*self._clocks_hz[1 - CLOCK_WINDOW_TICKS :], clock.clock_hz]
        mean = sum(self._clocks_hz) / len(self._clocks_hz)
        if len(self._clocks_hz) < CLOCK_MINIMUM_TICKS or mean <= 0.0:
            return None
        return abs(clock.clock_hz - mean) / mean

    def state(self) -> dict[str, Any]:
        return {"device": self._device, "clocks_hz": list(self._clocks_hz)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._device = state["device"]
        self._clocks_hz = list(state["clocks_hz"])


def _drifted(measured: NeuroModulators, last: NeuroModulators, elapsed_s: float) -> NeuroModulators:
    """What was measured; a term without readings drifts from its last value to the baseline."""

    def drift(value: float | None, before: float | None, baseline: float, decay: float) -> float:
        if value is not None:
            return value
        left: float = decay**elapsed_s
        return baseline + ((baseline if before is None else before) - baseline) * left

    return NeuroModulators(
        dopamine=drift(measured.dopamine, last.dopamine, DOPAMINE_BASELINE, DOPAMINE_DECAY),
        cortisol=drift(measured.cortisol, last.cortisol, CORTISOL_BASELINE, CORTISOL_DECAY),
        acetylcholine=drift(
            measured.acetylcholine, last.acetylcholine, ACETYLCHOLINE_BASELINE, ACETYLCHOLINE_DECAY
        ),
        tempo=drift(measured.tempo, last.tempo, TEMPO_BASELINE, TEMPO_DECAY),
    )


def _stressed(tonic: NeuroModulators, fault: Fault) -> NeuroModulators:
    """The tonic levels under a fault."""
    least = FAULT_STRESS * fault.confidence
    if not fault.is_damage or (tonic.cortisol or 0.0) >= least:
        return tonic
    return tonic.model_copy(update={"cortisol": least})


def _levels(tonic: NeuroModulators, phasic: Phasic) -> NeuroModulators:
    return NeuroModulators(
        dopamine=_unit((tonic.dopamine or 0.0) + phasic.dopamine),
        cortisol=_unit((tonic.cortisol or 0.0) + phasic.cortisol),
        acetylcholine=_unit((tonic.acetylcholine or 0.0) + phasic.acetylcholine),
        tempo=tonic.tempo,
    )


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _signed(value: float) -> float:
    return min(max(value, -1.0), 1.0)
