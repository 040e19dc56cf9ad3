"""The web view without a daemon: it serves the ticks that a test makes up."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from harness import free_port, wait_for

from neuromodd.config import WebSettings
from neuromodd.core.brain import Brain, Tick
from neuromodd.core.messages import Message
from neuromodd.dashboard.web import Source, Web

HEALTH: dict[str, Any] = {
    "node": "lab",
    "time_utc": "2024-05-01T12:00:00Z",
    "uptime_s": 601.5,
    "ticks": {
        "count": 602, "late": 3, "missed": 1, "gaps": 1, "lateness_p50_ms": 0.21, "lateness_p99_ms": 7.9,
    },
    "sensors": {
        "cpu": {"state": "ok", "error": None, "failures": 0, "duration_ms": 0.4},
        "hwmon": {"state": "ok", "error": None, "failures": 0, "duration_ms": 2.25},
        "nvml": {"state": "hung", "error": "past its deadline of 2.0 s", "failures": 4, "duration_ms": None},
        "rapl": {"state": "failed", "error": "energy_uj: not permitted", "failures": 12, "duration_ms": 0.1},
        "fpga": {"state": "absent", "error": "no report is configured", "failures": 0, "duration_ms": None},
        "amdgpu": {"state": "absent", "error": "amdgpu: no card", "failures": 0, "duration_ms": 0.1},
    },
    "mqtt": {
        "connected": True,
        "protocol": "5",
        "connections": 1,
        "published": 1234,
        "dropped": 0,
        "waiting_events": 0,
        "outbox": {"waiting": 0, "waiting_bytes": 0, "oldest_age_s": None, "dropped": 0, "error": None},
        "inbound": {"taken": 3, "refused": {"malformed": 1}},
        "taken_over": False,
        "error": None,
    },
    "checkpoint": {"age_s": 12.5, "written": 20, "failures": 0, "error": None},
    "recorder": None,
    "web": {"pages": 1, "error": None},
    "faults": {"VrmPhaseShort": 1},
    "sinks_failed": {},
}  # fmt: skip
"""The `health` that a feed tells unless told otherwise."""


class Feed:
    """The web view on a port of its own, in a thread; whatever is shown is given to it. Mutable.

    Args:
        brain: whose dimensions and weights are shown.
        health: the `health` that it tells.
        interval_s: from one tick to the next.
        port: where; any that is free unless it is told.
    """

    def __init__(
        self,
        brain: Brain,
        *,
        health: dict[str, Any] | None = None,
        interval_s: float = 1.0,
        port: int | None = None,
    ) -> None:
        self.health = HEALTH if health is None else health
        self._brain = brain
        self._interval_s = interval_s
        self._loop = asyncio.new_event_loop()
        self.web = Web(WebSettings(enabled=True, port=port or free_port()), self._source(), interval_s)
        self._thread = threading.Thread(target=self._serve, name="feed", daemon=True)
        self._thread.start()

    def _source(self) -> Source:
        engine = self._brain.engine
        dimensions = {
            "channels": len(engine.weights[0]),
            "lif_neurons": len(engine.weights),
            "izhikevich_neurons": engine.config.izhikevich_neurons,
        }
        return Source(
            node="lab",
            started_utc=datetime(2024, 5, 1, 12, 0, tzinfo=UTC),
            dimensions=dimensions,
            alive=lambda: {"verdict": "ticking", "reason": None, "health": self.health},
            info=lambda: Message("info", json.dumps(self._info(dimensions)).encode()),
            weights=lambda: engine.weights,
            surprise=lambda: self._brain.parameters.surprise,
        )

    def _info(self, dimensions: dict[str, int]) -> dict[str, Any]:
        return {
            "node": "lab",
            "steps_per_tick": self._brain.parameters.engine.steps_per_tick,
            "interval_s": self._interval_s,
            "dimensions": dimensions,
            "host": {"kernel": "Linux 6.1.0", "architecture": "x86_64", "cpu_model": "A CPU", "cpu_count": 8},
        }

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.web.run())
        self._loop.close()

    @property
    def url(self) -> str:
        """Where the page is; once there was a tick."""
        wait_for(self._answers, f"the feed on port {self.web.settings.port}")
        return self.web.page

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.web.settings.host, self.web.settings.port)) == 0

    def offer(self, ticks: Sequence[Tick]) -> None:
        """Show these ticks, in their order."""
        for tick in ticks:
            self._loop.call_soon_threadsafe(self.web.offer, tick)

    def follow(self, interval_s: float) -> None:
        """Tick at another interval from now on; all pages begin afresh."""
        self._loop.call_soon_threadsafe(self.web.follow, interval_s)

    def say(self, name: str, payload: Any) -> None:
        """Tell all pages something, as the daemon tells `health` and `info`."""
        self._loop.call_soon_threadsafe(self.web.said, Message(name, json.dumps(payload).encode()))

    def close(self) -> None:
        """End the streams and the thread."""
        asyncio.run_coroutine_threadsafe(self.web.stop(), self._loop)
        self._thread.join(10.0)
