"""Ticks made to order, and a way to the broker that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from harness import Mosquitto

from neuromodd.core.anomaly import Anomaly, Moment
from neuromodd.core.brain import Brain, Tick
from neuromodd.core.frame import CpuSample, GpuSample, TelemetryFrame
from neuromodd.core.rewards import WorkAccepted

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def brain() -> Brain:
    return Brain()


@pytest.fixture
def make_tick(brain: Brain) -> Callable[..., Tick]:
    """Lives through the next second.

    `rewards` name what is rewarded, `gpu_lost` is a change of fault, `anomaly` begins or ends one.
    """

    def make(rewards: Sequence[str] = (), *, gpu_lost: bool = False, anomaly: str | None = None) -> Tick:
        for source in rewards:
            brain.take(WorkAccepted(source=source))
        second = brain.sequence
        tick = brain.step(
            TelemetryFrame(
                node="lab",
                sequence=second,
                time_utc=START + timedelta(seconds=second),
                monotonic_s=1000.0 + second,
                boot_id="boot-a",
                interval_s=1.0,
                cpu=CpuSample(utilization_ratio=0.25),
                gpus=(GpuSample(index=0, uuid="GPU-a", name="A", lost=gpu_lost),),
            )
        )
        if anomaly is None:
            return tick
        values = {
            "phase": anomaly,
            "since_utc": START,
            "time_utc": tick.frame.time_utc,
            "duration_s": float(second),
            "surprise": 0.7,
            "channels": (),
            "sentence": "cpu is 0.97, where 0.05 to 0.2 was expected",
        }
        moment = Moment(0.7, 0.7, (), change=Anomaly.from_dict(values), episode=None)
        return tick.model_copy(update={"surprise": moment})

    return make


class Road:
    """A loopback port that leads to a broker while it is open.

    `stop` lets nothing through any more, unnoticed by either side; `cut` loses every connection on it.
    """

    def __init__(self, destination: int) -> None:
        self._destination = destination
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._traffic: set[asyncio.Task[None]] = set()
        self._free = asyncio.Event()
        self._free.set()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._free.clear()

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._free.set()
        if self._traffic:
            await asyncio.wait(self._traffic)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._traffic.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._destination)
        ends = {writer, back}
        self._writers |= ends
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        finally:
            self._writers -= ends
            self._traffic.discard(task)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await self._free.wait()
                target.write(data)
                await target.drain()
        target.close()
        with contextlib.suppress(ConnectionError):
            await target.wait_closed()


@pytest.fixture
async def road(mosquitto: Mosquitto) -> AsyncIterator[Road]:
    """A road to the broker, still closed: a broker that is away."""
    road = Road(mosquitto.port)
    await road.open()
    await road.cut()
    yield road
    await road.cut()
