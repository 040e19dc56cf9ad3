"""What the sensors gave, and what is at hand to say why one gave nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from neuromodd.config import Settings
from neuromodd.core.frame import TelemetryFrame
from neuromodd.doctor.findings import Verdict
from neuromodd.doctor.surroundings import Surroundings
from neuromodd.eye import Eye
from neuromodd.sensors.base import SensorStatus

APART_S = 0.3
"""Between two looks, for the rates."""

LONGEST_DEADLINE_S = 1.0
"""A sensor is not waited for longer, whatever sensors.deadline_s says."""

SENSORS = "sensors"


class Sight(NamedTuple):
    """One look at the machine.

    Attributes:
        frame: what was measured; None if not even the first look came to an end.
        statuses: how each sensor is, by name.
        settings: of the sensors.
        around: where this process runs.
        devices: /dev, as this process sees it.
    """

    frame: TelemetryFrame | None
    statuses: Mapping[str, SensorStatus]
    settings: Settings
    around: Surroundings
    devices: Path = Path("/dev")

    @property
    def procfs(self) -> Path:
        """The host's /proc."""
        return self.settings.sensors.procfs_root

    @property
    def sysfs(self) -> Path:
        """The host's /sys."""
        return self.settings.sensors.sysfs_root


class Judgement(NamedTuple):
    """A finding without its place."""

    verdict: Verdict
    finding: str
    remedy: str | None = None


def on_host(sight: Sight) -> str:
    """What a remedy begins with that can't be done in a container."""
    return "on the host: " if sight.around.container is not None else ""


async def take_sight(settings: Settings, around: Surroundings, *, deadline_s: float) -> Sight:
    """Look twice, as the daemon would; what is not there after `deadline_s` is left out."""
    options = settings.sensors.model_copy(
        update={"deadline_s": min(settings.sensors.deadline_s, LONGEST_DEADLINE_S)}
    )
    # Two looks at the daemon's own interval might be a minute apart, or count as a gap.
    tick = settings.tick.model_copy(update={"interval_s": 1.0})
    eye = Eye(settings.model_copy(update={"sensors": options, "tick": tick}))
    frames: list[TelemetryFrame] = []
    looking = asyncio.create_task(_look_twice(eye, frames), name="doctor-look")
    try:
        await asyncio.wait((looking,), timeout=deadline_s)
        if looking.done():
            looking.result()
    finally:
        looking.cancel()
        eye.close()
    return Sight(frames[-1] if frames else None, dict(eye.sampler.statuses), settings, around)


async def _look_twice(eye: Eye, frames: list[TelemetryFrame]) -> None:
    frames.append(await eye.look(sequence=0, lateness_ms=None))
    await asyncio.sleep(APART_S)
    frames.append(await eye.look(sequence=1, lateness_ms=None))
