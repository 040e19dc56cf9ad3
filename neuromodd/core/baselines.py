"""What is usual for a device, learned: its idle draw, its core rail idle and under load.

A level is a slow exponential mean over the ticks in which the device stood idle (or loaded). What is off
the level is not learned, so that a fault does not become the measure of itself. But idle levels do change
for good reasons: a second monitor, another fan curve. So a level that has stood off the baseline for
`relearn_s` in all is accepted beside it, for good, and only what lies beyond it is off from then on. The
price is said openly: such a change shows as a fault until then (lower `relearn_s` and reload to accept it
at once), and a real fault that nobody minded is taken for normal after that time. What is wrong already
when the learning begins can't be seen at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import Field

from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.core.record import Record

DEAD_RAIL_VOLTS = 0.05
"""A core rail under this is not a low-power state: nothing computes there."""

IDLE_RATIO = 0.05
LOADED_RATIO = 0.5
IDLE_CLOCK_RATIO = 0.5
"""What is idle, and what is a load: utilisation, and the clock in terms of its maximum."""

CLOCK_TOLERANCE = 0.1
"""A clock further off the one that a level was learned at explains another level."""

WINDOW_TICKS = 3600
"""A mean forgets over so many ticks of its kind; until it has as many it is their plain mean."""

FORGET_S = 86_400.0
DEVICE_LIMIT = 64
"""A device that was looked for in vain so long is forgotten, and of more than so many the longest unseen."""

HOST = "host"

Mode = Literal["idle", "loaded", "between"]


class FaultParameters(Record):
    """Settings of the classification."""

    hold_s: float = Field(
        default=10.0, ge=0.0, le=86400.0, description="a fault ends when its evidence is gone so long"
    )
    core_rail_tolerance_ratio: float = Field(
        default=0.1, gt=0.0, lt=1.0, description="share of its baseline that a core rail may lack"
    )
    idle_excess_ratio: float = Field(
        default=1.5, ge=1.0, le=100.0, description="times its baseline that an idle GPU may draw"
    )
    idle_excess_watts: float = Field(
        default=5.0, ge=0.0, le=10_000.0, description="watts over its baseline that it may always draw"
    )
    standing_ticks: int = Field(
        default=10, ge=1, le=WINDOW_TICKS, description="ticks in a row that make a load a standing one"
    )
    baseline_ticks: int = Field(
        default=60, ge=1, le=WINDOW_TICKS, description="ticks that it takes to learn a baseline"
    )
    relearn_s: float = Field(
        default=86_400.0, ge=0.0, le=31_536_000.0, description="a level that is off so long is accepted"
    )


@dataclass(slots=True)
class Mean:
    """An exponential mean of WINDOW_TICKS; 0 before the first sample."""

    value: float = 0.0
    samples: int = 0

    def take(self, value: float) -> None:
        """Take in one more sample."""
        self.samples = min(self.samples + 1, WINDOW_TICKS)
        self.value += (value - self.value) / self.samples


@dataclass(slots=True)
class Level:
    """One usual level of one device.

    Attributes:
        usual: the baseline.
        clock_hz: the clock that goes with it; without samples where it is not told.
        accepted: a second level that is usual too.
        off: what was measured while it stood off the baseline.
        off_s: for how long it stood so, in all.
        off_ticks: for how many ticks in a row it is off now.
    """

    usual: Mean = field(default_factory=Mean)
    clock_hz: Mean = field(default_factory=Mean)
    accepted: float | None = None
    off: Mean = field(default_factory=Mean)
    off_s: float = 0.0
    off_ticks: int = 0

    def learned(self, parameters: FaultParameters) -> bool:
        """Whether the baseline has the samples that it takes to compare with it."""
        return self.usual.samples >= parameters.baseline_ticks

    def above(self, watts: float, clock_hz: float | None, parameters: FaultParameters) -> bool:
        """Whether a draw is off; not where a higher clock explains it."""
        if not self.learned(parameters):
            return False
        if clock_hz is not None and self.clock_hz.samples:
            limit_hz = self.clock_hz.value * (1.0 + CLOCK_TOLERANCE)
            if clock_hz > limit_hz:
                return False
        usual = max(self.usual.value, self.accepted or 0.0)
        enough = usual + parameters.idle_excess_watts
        return watts > usual * parameters.idle_excess_ratio and watts >= enough

    def below(self, volts: float, clock_hz: float | None, parameters: FaultParameters) -> bool:
        """Whether a rail is off; not where a lower clock explains it."""
        if not self.learned(parameters):
            return False
        if clock_hz is not None and self.clock_hz.samples:
            limit_hz = self.clock_hz.value * (1.0 - CLOCK_TOLERANCE)
            if clock_hz < limit_hz:
                return False
        usual = self.usual.value if self.accepted is None else min(self.usual.value, self.accepted)
        return volts < usual * (1.0 - parameters.core_rail_tolerance_ratio)

    def stand_off(self, value: float, elapsed_s: float, parameters: FaultParameters) -> None:
        """Count a value that is off, and accept the level once it has stood long enough."""
        self.off_ticks += 1
        # What lasts no longer is the way from one level to another: it is no level of its own.
        if self.off_ticks <= parameters.standing_ticks:
            return
        self.off.take(value)
        self.off_s = min(self.off_s + elapsed_s, parameters.relearn_s)
        if self.off_s >= parameters.relearn_s:
            self.accepted = self.off.value
            self.off, self.off_s, self.off_ticks = Mean(), 0.0, 0

    def learn(self, value: float, clock_hz: float | None) -> None:
        """Let the baseline follow a value."""
        self.usual.take(value)
        if clock_hz is not None:
            self.clock_hz.take(clock_hz)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Level:
        """The level that a checkpoint kept."""
        means = {name: Mean(**state[name]) for name in ("usual", "clock_hz", "off")}
        return cls(**{**state, **means})


@dataclass(slots=True)
class Device:
    """What is remembered of one device; `mode_ticks` counts how long it has been in its mode."""

    mode: Mode
    mode_ticks: int
    unseen_s: float = 0.0
    idle_watts: Level = field(default_factory=Level)
    idle_volts: Level = field(default_factory=Level)
    loaded_volts: Level = field(default_factory=Level)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Device:
        """The device that a checkpoint kept."""
        names = ("idle_watts", "idle_volts", "loaded_volts")
        return cls(**{**state, **{name: Level.restored(state[name]) for name in names}})

    def rail(self, mode: Mode) -> Level:
        """The level of the core rail in a mode that has one."""
        return self.loaded_volts if mode == "loaded" else self.idle_volts

    def enter(self, mode: Mode, standing_ticks: int) -> None:
        """Count the ticks in a mode; leaving it breaks a row, unless it stands already at idle.

        Such a row is broken by a tick at the baseline only: a short load in between does not end it.
        """
        self.mode_ticks = self.mode_ticks + 1 if mode == self.mode else 1
        self.mode = mode
        if mode != "loaded":
            self.loaded_volts.off_ticks = 0
        if mode != "idle":
            for level in (self.idle_watts, self.idle_volts):
                if level.off_ticks < standing_ticks:
                    level.off_ticks = 0


class Watched(NamedTuple):
    """A device in the newest frame, beside what is remembered of it.

    `path` is its place in the frame. A GPU's idle draw goes with its memory clock, which its displays set;
    a rail goes with the core clock.
    """

    key: str
    path: str
    mode: Mode
    watts: float | None
    volts: float | None
    clock_hz: float | None
    memory_clock_hz: float | None


class Baselines:
    """The memory of all devices, by uuid (else by place or number) and `host` for the host's core rail."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}

    def observe(
        self, frame: TelemetryFrame, watched_s: float, parameters: FaultParameters
    ) -> tuple[tuple[Watched, Device], ...]:
        """Take in a frame; each device whose utilisation it tells, with what is now known of it.

        Of the time since the last frame `watched_s` seconds were watched: none of a gap.
        """
        for known in self.devices.values():
            known.unseen_s += watched_s
        found = []
        for watched in _watched(frame):
            device = self.devices.get(watched.key)
            if device is None:
                # Fresh ones count as settled: there was no change of mode to lag behind.
                device = self.devices[watched.key] = Device(watched.mode, parameters.standing_ticks)
            else:
                device.enter(watched.mode, parameters.standing_ticks)
            device.unseen_s = 0.0
            _take(device, watched, watched_s, parameters)
            found.append((watched, device))
        if self.devices:
            self._forget()
        return tuple(found)

    def _forget(self) -> None:
        for key in [key for key, device in self.devices.items() if device.unseen_s > FORGET_S]:
            del self.devices[key]
        if len(self.devices) > DEVICE_LIMIT:
            newest = sorted(self.devices, key=lambda key: (self.devices[key].unseen_s, key))
            for key in newest[DEVICE_LIMIT:]:
                del self.devices[key]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {key: asdict(self.devices[key]) for key in sorted(self.devices)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.devices = {key: Device.restored(device) for key, device in state.items()}


def _watched(frame: TelemetryFrame) -> list[Watched]:
    # A GPU that is lost, asleep or hung tells no utilisation; what is known of it stays as it is.
    found = [
        Watched(
            gpu.uuid or gpu.pci_bus_id or f"gpu{gpu.index}",
            f"gpus.{gpu.index}",
            _gpu_mode(gpu, gpu.utilization_ratio),
            gpu.power_watts,
            gpu.core_volts,
            gpu.sm_clock_hz,
            gpu.memory_clock_hz,
        )
        for gpu in frame.gpus or ()
        if gpu.utilization_ratio is not None
    ]
    cpu, power = frame.cpu, frame.power
    if power is not None and power.core_volts is not None and cpu is not None:
        busy = cpu.utilization_ratio
        if busy is not None:
            mode: Mode = "loaded" if busy >= LOADED_RATIO else "idle" if busy <= IDLE_RATIO else "between"
            found.append(Watched(HOST, "power", mode, None, power.core_volts, cpu.frequency_hz, None))
    return found


def _gpu_mode(gpu: GpuSample, busy: float) -> Mode:
    if busy >= LOADED_RATIO:
        return "loaded"
    engines = (gpu.encoder_utilization_ratio or 0.0, gpu.decoder_utilization_ratio or 0.0)
    clock_hz, clock_max_hz = gpu.sm_clock_hz, gpu.sm_clock_max_hz
    is_slow = clock_hz is None or not clock_max_hz or clock_hz <= IDLE_CLOCK_RATIO * clock_max_hz
    is_idle = max(busy, *engines) <= IDLE_RATIO and not gpu.compute_processes and is_slow
    return "idle" if is_idle else "between"


def _take(device: Device, watched: Watched, elapsed_s: float, parameters: FaultParameters) -> None:
    # Power and clocks lag behind a change of load by some ticks: a mean is fed once they have settled.
    settled = device.mode_ticks >= parameters.standing_ticks
    if watched.mode == "idle" and watched.watts is not None:
        watts, clock_hz = watched.watts, watched.memory_clock_hz
        level = device.idle_watts
        if level.above(watts, clock_hz, parameters):
            level.stand_off(watts, elapsed_s, parameters)
        else:
            level.off_ticks = 0
            if settled:
                level.learn(watts, clock_hz)
    if watched.volts is None or watched.mode == "between" or (watched.mode == "loaded" and not settled):
        return
    level = device.rail(watched.mode)
    if level.below(watched.volts, watched.clock_hz, parameters):
        level.stand_off(watched.volts, elapsed_s, parameters)
    else:
        level.off_ticks = 0
        if settled and watched.volts >= DEAD_RAIL_VOLTS:
            level.learn(watched.volts, watched.clock_hz)
