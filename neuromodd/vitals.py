"""How the daemon itself is doing: the counts behind `health`, and the facts behind `info`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime

from neuromodd import __version__
from neuromodd.config import Settings
from neuromodd.core.brain import Tick
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.messages import Message, record_message
from neuromodd.core.payloads import (
    CheckpointHealth,
    HealthPayload,
    InfoPayload,
    MqttHealth,
    RecorderHealth,
    SensorHealth,
    TicksHealth,
    WebHealth,
)
from neuromodd.core.schemas import SCHEMA_NAMES, SCHEMA_VERSION
from neuromodd.eye import Eye
from neuromodd.sensors.base import SensorStatus
from neuromodd.sensors.host import host_facts

LATE_MS = 50.0
"""A tick that begins this long after its due time counts as late."""

LATENESS_WINDOW_TICKS = 600


class Vitals:
    """Counts since the start. Mutable."""

    def __init__(self, *, started_utc: datetime, started_s: float) -> None:
        self._started_utc = started_utc
        self._started_s = started_s
        self._late = self._missed = self._gaps = 0
        self._lateness_ms: deque[float] = deque(maxlen=LATENESS_WINDOW_TICKS)
        self.ticks = 0
        self.sinks_failed: dict[str, int] = {}

    def count(self, frame: TelemetryFrame, *, missed: int) -> None:
        """Count one tick, and those before it that never took place."""
        self.ticks += 1
        self._missed += missed
        self._gaps += frame.gap
        if frame.lateness_ms is not None:
            self._late += frame.lateness_ms > LATE_MS
            self._lateness_ms.append(frame.lateness_ms)

    def count_sink_failure(self, sink: str) -> None:
        """Count one exception of a sink."""
        self.sinks_failed[sink] = self.sinks_failed.get(sink, 0) + 1

    def info(self, settings: Settings, eye: Eye, newest: Tick | None) -> Message:
        """The `info` of this moment."""
        gpus = () if newest is None else newest.frame.gpus or ()
        names = tuple(gpu.name or f"GPU {gpu.index}" for gpu in gpus)
        return record_message(
            "info",
            InfoPayload(
                node=settings.node_name(),
                version=__version__,
                boot_id=eye.assembler.boot_id,
                started_utc=self._started_utc,
                interval_s=settings.tick.interval_s,
                steps_per_tick=settings.engine.steps_per_tick,
                dimensions=settings.engine.dimensions,
                host=host_facts(settings.sensors.procfs_root, names),
                sensors=eye.sampler.found,
                schemas=dict.fromkeys(SCHEMA_NAMES, SCHEMA_VERSION),
            ),
        )

    def health(
        self,
        *,
        node: str,
        time_utc: datetime,
        now_s: float,
        sensors: Mapping[str, SensorStatus],
        mqtt: MqttHealth,
        checkpoint: CheckpointHealth,
        recorder: RecorderHealth | None,
        web: WebHealth | None,
        faults: dict[str, int],
        anomalies: int,
    ) -> Message:
        """The `health` of this moment."""
        lateness = sorted(self._lateness_ms)
        return record_message(
            "health",
            HealthPayload(
                node=node,
                time_utc=time_utc,
                uptime_s=max(now_s - self._started_s, 0.0),
                ticks=TicksHealth(
                    count=self.ticks,
                    late=self._late,
                    missed=self._missed,
                    gaps=self._gaps,
                    lateness_p50_ms=_quantile(lateness, 0.50),
                    lateness_p99_ms=_quantile(lateness, 0.99),
                ),
                sensors={
                    name: SensorHealth(
                        state=status.state,
                        error=status.error,
                        failures=status.failures,
                        duration_ms=status.duration_ms,
                    )
                    for name, status in sensors.items()
                },
                mqtt=mqtt,
                checkpoint=checkpoint,
                recorder=recorder,
                web=web,
                faults=faults,
                anomalies=anomalies,
                sinks_failed=self.sinks_failed,
            ),
        )


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None
