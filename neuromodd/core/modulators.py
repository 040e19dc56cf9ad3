"""NeuroModulators: dopamine, cortisol, acetylcholine and tempo, from telemetry and from events.

The tonic part follows the telemetry of the moment; the phasic part jumps with an event and decays.
What is published is clip(tonic + phasic).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from neuromodd.core.frame import GpuSample, TelemetryFrame, TemperatureSample
from neuromodd.core.record import Ratio, Record
from neuromodd.core.rewards import BreakthroughFound, RewardEvent, SourceSwitch, WorkAccepted
from neuromodd.errors import InvalidValueError

DOPAMINE_DECAY = 0.95
CORTISOL_DECAY = 0.90
ACETYLCHOLINE_DECAY = 0.99
TEMPO_DECAY = 0.95
"""Share that is left after one second.

The crate's lineage decays no tempo; ours drifts back like dopamine.
"""

DOPAMINE_BASELINE = 0.3
CORTISOL_BASELINE = 0.0
ACETYLCHOLINE_BASELINE = 1.0
TEMPO_BASELINE = 1.0

WORK_REWARD = 0.2
SWITCH_STRESS = 0.3
SLOW_WORK_MS = 100.0
FOCUS_GAIN = 0.05
FOCUS_LOSS = 0.1

ACETYLCHOLINE_FLOOR = 0.4
HEAT_MARGIN_CELSIUS = 10.0
POWER_ONSET_RATIO = 0.95
POWER_SPAN_RATIO = 0.1

Tempo = Annotated[float, Field(ge=0.0, le=2.0)]


class Setpoints(Record):
    """Where the telemetry of a healthy, working host lies.

    `clock_nominal_hz` and `work_target` give way to what a device or a work source says of itself,
    unless the user set them; what is written is therefore only what was set.
    """

    work_target: float = Field(default=1.0, gt=0.0, description="work rate that earns full dopamine")
    dopamine_floor: Ratio = Field(default=0.3, description="dopamine of an idle host")
    heat_onset_celsius: float = Field(
        default=83.0, description="where heat stress begins, for a device without limits"
    )
    heat_span_celsius: float = Field(default=10.0, gt=0.0, description="from the onset to full heat stress")
    power_onset_watts: float = Field(
        default=400.0, gt=0.0, description="where power stress begins, without a limit"
    )
    power_span_watts: float = Field(default=50.0, gt=0.0, description="from the onset to full power stress")
    voltage_nominal_volts: float = Field(default=1.0, gt=0.0, description="the core rail's nominal voltage")
    clock_nominal_hz: float = Field(
        default=2.64e9, gt=0.0, description="clock at tempo 1, for a device without maximum"
    )

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class NeuroModulators(Record):
    """The four levels; None is a term without readings.

    Attributes:
        dopamine: reward for work, [0, 1].
        cortisol: stress from heat and power, [0, 1].
        acetylcholine: focus: how steady clock and voltage are, [0, 1].
        tempo: clock relative to nominal, [0, 2].
    """

    dopamine: Ratio | None = DOPAMINE_BASELINE
    cortisol: Ratio | None = CORTISOL_BASELINE
    acetylcholine: Ratio | None = ACETYLCHOLINE_BASELINE
    tempo: Tempo | None = TEMPO_BASELINE

    @classmethod
    def from_telemetry(
        cls, frame: TelemetryFrame, setpoints: Setpoints | None = None, *, instability: float | None = None
    ) -> Self:
        """The tonic levels that one frame speaks for.

        dopamine = clip(work / target, floor, 1); cortisol = max(heat, power);
        acetylcholine = clip(1 - 2 instability, 0.4, 1); tempo = clip(clock / nominal, 0.5, 2).

        Args:
            frame: one instant; whatever it lacks gives None for that term.
            setpoints: where a healthy host lies.
            instability: of the clock, for a host without a voltage sensor; a voltage in the frame wins.
        """
        points = setpoints or Setpoints()
        unsteady = voltage_instability(frame, points)
        if unsteady is None:
            unsteady = instability
        return cls(
            dopamine=_work_reward(frame, points),
            cortisol=_largest((heat_stress(frame, points), power_stress(frame, points))),
            acetylcholine=None
            if unsteady is None
            else min(max(1.0 - 2.0 * unsteady, ACETYLCHOLINE_FLOOR), 1.0),
            tempo=_tempo(frame, points),
        )

    def apply_event(self, event: RewardEvent) -> Self:
        """These levels after `event`; a level that is None stays None, unless the event sets it.

        Raises:
            InvalidValueError: it is none of the three events.
        """
        dopamine, cortisol, acetylcholine = self.dopamine, self.cortisol, self.acetylcholine
        match event:
            case WorkAccepted():
                gain = focus_change(event)
                dopamine = None if dopamine is None else _unit(dopamine + WORK_REWARD)
                acetylcholine = None if acetylcholine is None else _unit(acetylcholine + gain)
            case BreakthroughFound():
                dopamine = 1.0
            case SourceSwitch():
                dopamine = 0.0
                cortisol = None if cortisol is None else _unit(cortisol + SWITCH_STRESS)
            case _:
                kinds = "WorkAccepted, BreakthroughFound or SourceSwitch"
                raise InvalidValueError("NeuroModulators.apply_event", event, kinds)
        return self.model_copy(
            update={"dopamine": dopamine, "cortisol": cortisol, "acetylcholine": acetylcholine}
        )

    def decay(self, dt_s: float) -> Self:
        """These levels `dt_s` seconds later without input: times 0.95, 0.90 and 0.99 to the power of dt_s.

        Tempo has no decay of its own. Two decays of half the time equal one of the whole.

        Raises:
            InvalidValueError: `dt_s` is negative or not finite.
        """
        if not (math.isfinite(dt_s) and dt_s >= 0.0):
            raise InvalidValueError("NeuroModulators.decay.dt_s", dt_s, "seconds, finite and >= 0")
        return self.model_copy(
            update={
                "dopamine": _times(self.dopamine, DOPAMINE_DECAY**dt_s),
                "cortisol": _times(self.cortisol, CORTISOL_DECAY**dt_s),
                "acetylcholine": _times(self.acetylcholine, ACETYLCHOLINE_DECAY**dt_s),
            }
        )


def focus_change(event: WorkAccepted) -> float:
    """What one unit of work does to acetylcholine: slow work distracts; unknown latency counts as 0."""
    return -FOCUS_LOSS if (event.latency_ms or 0.0) > SLOW_WORK_MS else FOCUS_GAIN


def heat_stress(frame: TelemetryFrame, setpoints: Setpoints) -> float | None:
    """The hottest device's stress in [0, 1], each measured by its own limits; None without temperatures."""
    terms = [
        _heat(gpu.temperature_celsius, None, gpu.slowdown_celsius, setpoints)
        for gpu in frame.gpus or ()
        if gpu.temperature_celsius is not None
    ]
    terms += [
        _heat(sensor.temperature_celsius, sensor.max_celsius, sensor.critical_celsius, setpoints)
        for sensor in temperature_sensors(frame)
        if sensor.temperature_celsius is not None
    ]
    return _largest(terms)


def temperature_sensors(frame: TelemetryFrame) -> tuple[TemperatureSample, ...]:
    """All of the host's temperatures but the GPUs'; the processor's own counts with its limit as critical."""
    sensors = frame.thermal or ()
    if frame.cpu is not None and frame.cpu.temperature_celsius is not None:
        cpu = TemperatureSample(
            name="cpu",
            temperature_celsius=frame.cpu.temperature_celsius,
            critical_celsius=frame.cpu.temperature_max_celsius,
        )
        return (*sensors, cpu)
    return sensors


def power_stress(frame: TelemetryFrame, setpoints: Setpoints) -> float | None:
    """Stress in [0, 1] of the device that is nearest its limit; None without power readings.

    With an enforced limit from 0.95 to 1.05 of it, so that a card at its limit reads 0.5; else
    clip((P - onset) / span).
    """
    terms = []
    for watts, limit in _power_draws(frame):
        if limit:
            terms.append(_unit((watts / limit - POWER_ONSET_RATIO) / POWER_SPAN_RATIO))
        else:
            terms.append(_unit((watts - setpoints.power_onset_watts) / setpoints.power_span_watts))
    return _largest(terms)


def power_level(frame: TelemetryFrame, setpoints: Setpoints) -> float | None:
    """The largest draw / limit in [0, 1], the onset standing in for a limit; None without power readings."""
    return _largest(
        [_unit(watts / (limit or setpoints.power_onset_watts)) for watts, limit in _power_draws(frame)]
    )


def voltage_instability(frame: TelemetryFrame, setpoints: Setpoints) -> float | None:
    """|V - V_nominal| in volts of the rail that is farthest off; None without a core rail.

    An AMD GPU moves its rail with its clock: it counts only where the user has set the nominal voltage.
    """
    is_set = "voltage_nominal_volts" in setpoints.model_fields_set
    rails = [gpu.core_volts for gpu in frame.gpus or () if is_set or gpu.vendor != "amd"]
    if frame.power is not None:
        rails.append(frame.power.core_volts)
    return _largest([abs(volts - setpoints.voltage_nominal_volts) for volts in rails if volts is not None])


class BusiestClock(Record):
    """The clock of the device that works most: its name in the frame, hertz, and how busy it is."""

    device: str
    clock_hz: float
    clock_max_hz: float | None
    utilization_ratio: float | None


def busiest_clock(frame: TelemetryFrame) -> BusiestClock | None:
    """The busiest device that tells its clock; a GPU before the processor where both are as busy."""
    clocks = [
        BusiestClock(
            device=f"gpus.{gpu.index}",
            clock_hz=gpu.sm_clock_hz,
            clock_max_hz=gpu.sm_clock_max_hz,
            utilization_ratio=gpu.utilization_ratio,
        )
        for gpu in frame.gpus or ()
        if gpu.sm_clock_hz is not None
    ]
    if frame.cpu is not None and frame.cpu.frequency_hz is not None:
        clocks.append(
            BusiestClock(
                device="cpu",
                clock_hz=frame.cpu.frequency_hz,
                clock_max_hz=frame.cpu.frequency_max_hz,
                utilization_ratio=frame.cpu.utilization_ratio,
            )
        )
    return max(clocks, key=_busyness, default=None)


def gpu_work_ratio(gpu: GpuSample) -> float | None:
    """Utilisation times clock ratio: a GPU that is busy at half its clock does half the work."""
    if gpu.utilization_ratio is None:
        return None
    if gpu.sm_clock_hz is None or not gpu.sm_clock_max_hz:
        return gpu.utilization_ratio
    return gpu.utilization_ratio * min(gpu.sm_clock_hz / gpu.sm_clock_max_hz, 1.0)


def hot_limit(limit: float | None, setpoints: Setpoints) -> float:
    """The temperature that counts as full heat for a device: its own limit, else the onset."""
    return setpoints.heat_onset_celsius if limit is None else limit


def _work_reward(frame: TelemetryFrame, setpoints: Setpoints) -> float | None:
    if frame.work is None or frame.work.rate is None:
        return None
    target = frame.work.target or setpoints.work_target
    return min(max(frame.work.rate / target, setpoints.dopamine_floor), 1.0)


def _tempo(frame: TelemetryFrame, setpoints: Setpoints) -> float | None:
    clock = busiest_clock(frame)
    if clock is None:
        return None
    nominal = setpoints.clock_nominal_hz
    if clock.clock_max_hz and "clock_nominal_hz" not in setpoints.model_fields_set:
        nominal = clock.clock_max_hz
    return min(max(clock.clock_hz / nominal, 0.5), 2.0)


def _heat(celsius: float, hot: float | None, critical: float | None, setpoints: Setpoints) -> float:
    if critical is None:
        return _unit((celsius - setpoints.heat_onset_celsius) / setpoints.heat_span_celsius)
    if hot is None or hot >= critical:
        return _unit(1.0 - (critical - celsius) / HEAT_MARGIN_CELSIUS)
    return _unit((celsius - hot) / (critical - hot))


def _power_draws(frame: TelemetryFrame) -> list[tuple[float, float | None]]:
    draws = [
        (gpu.power_watts, gpu.power_limit_watts) for gpu in frame.gpus or () if gpu.power_watts is not None
    ]
    if frame.power is not None and frame.power.package_watts is not None:
        draws.append((frame.power.package_watts, None))
    return draws


def _busyness(clock: BusiestClock) -> float:
    return -1.0 if clock.utilization_ratio is None else clock.utilization_ratio


def _largest(terms: Iterable[float | None]) -> float | None:
    return max((term for term in terms if term is not None), default=None)


def _times(level: float | None, factor: float) -> float | None:
    return None if level is None else level * factor


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)
