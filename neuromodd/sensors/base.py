"""The Sensor protocol, and the Sampler that reads all sensors on a thread of its own.

A sensor may block: SMBus, a dead GPU, a network file system. Each has a deadline. One that misses it is
left behind with the thread that it holds, a new thread goes on with the others, and the sensor is not
asked again until it has returned; so there is never more than one stuck thread a sensor. A sensor of many
devices may name a successor that goes on without the one that hangs: then it is one a device.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import structlog

from neuromodd.core.rates import Reading
from neuromodd.errors import SensorAbsentError

ABSENT_RETRY_S = 60.0
"""An absent sensor is looked for again after this: devices are plugged in, drivers are loaded."""

OVERSLEPT_S = 0.1
"""A deadline that is noticed so late tells of a process that was stopped, not of a sensor that hangs."""

log = structlog.get_logger()

SensorState = Literal["ok", "absent", "failed", "hung"]


class Sensor(Protocol):
    """One source of telemetry. All calls come from one thread at a time."""

    @property
    def name(self) -> str:
        """Its name in settings, health and logs."""

    def read(self) -> object:
        """One reading, of a type of `core.readings` or of the frame's own.

        Raises:
            SensorAbsentError: this machine has no such sensor.
            Exception: anything else is a failure of this sensor alone.
        """

    def close(self) -> None:
        """Let go of descriptors and libraries."""


@runtime_checkable
class Divisible(Protocol):
    """A sensor of several devices, of which one may hang."""

    def successor(self) -> Sensor | None:
        """A sensor for the devices that this one does not hang on; None if there is no telling.

        Called from another thread than the one that hangs.
        """


class SensorStatus(NamedTuple):
    """How a sensor is; `duration_ms` is how long its last reading took."""

    state: SensorState
    error: str | None = None
    failures: int = 0
    duration_ms: float | None = None


class Sampler:
    """Reads all sensors once per call of `sample`.

    Args:
        sensors: in the order in which they are read.
        deadline_s: what each sensor may take.
        clock: monotonic seconds, those of the frames.
    """

    def __init__(self, sensors: Sequence[Sensor], *, deadline_s: float, clock: Callable[[], float]) -> None:
        self._sensors = {sensor.name: sensor for sensor in sensors}
        self._deadline_s = deadline_s
        self._clock = clock
        self._worker = _Worker()
        self._stuck: set[Sensor] = set()
        self._absent_until_s: dict[str, float] = {}
        self.statuses: dict[str, SensorStatus] = {}

    async def sample(self) -> dict[str, Reading]:
        """One reading of each sensor that has one to give, by the sensor's name."""
        now_s = self._clock()
        todo = [
            sensor
            for name, sensor in self._sensors.items()
            if sensor not in self._stuck and self._absent_until_s.get(name, now_s) <= now_s
        ]
        readings: dict[str, Reading] = {}
        inherited: set[str] = set()
        while todo:
            job = _Job(todo, self._clock, asyncio.get_running_loop(), self._returned)
            self._worker.submit(job)
            hung = await job.wait(self._deadline_s)
            for outcome in job.outcomes:
                self._note(outcome)
                if outcome.reading is not None:
                    readings[outcome.name] = outcome.reading
            if hung is None:
                break
            heir = self._leave_behind(hung)
            done = {outcome.name for outcome in job.outcomes} | {hung}
            todo = [sensor for sensor in todo if sensor.name not in done]
            if heir is not None and hung not in inherited:
                # Once a sample, so that many devices that hang share the delay among the ticks.
                inherited.add(hung)
                todo.append(heir)
        return readings

    @property
    def found(self) -> tuple[str, ...]:
        """Names of the sensors that exist on this machine."""
        return tuple(name for name, status in self.statuses.items() if status.state != "absent")

    def close(self) -> None:
        """Let the thread close the sensors and end; does not wait for it."""
        self._worker.stop([sensor for sensor in self._sensors.values() if sensor not in self._stuck])

    def _note(self, outcome: _Outcome) -> None:
        before = self.statuses.get(outcome.name)
        failures = 0 if before is None else before.failures
        if outcome.state == "failed":
            failures += 1
        self._absent_until_s.pop(outcome.name, None)
        if outcome.state == "absent":
            self._absent_until_s[outcome.name] = self._clock() + ABSENT_RETRY_S
        self._set(
            outcome.name,
            SensorStatus(
                state=outcome.state, error=outcome.error, failures=failures, duration_ms=outcome.duration_ms
            ),
        )

    def _leave_behind(self, name: str) -> Sensor | None:
        """Go on without the sensor that hangs; who goes on in its place, if anybody does."""
        sensor = self._sensors[name]
        heir = sensor.successor() if isinstance(sensor, Divisible) else None
        if heir is None:
            self._stuck.add(sensor)
        else:
            self._sensors[name] = heir
        self._worker = _Worker()
        before = self.statuses.get(name)
        error = f"no answer within {self._deadline_s} s"
        failures = 1 if before is None else before.failures + 1
        self._set(name, SensorStatus(state="hung", error=error, failures=failures))
        return heir

    def _returned(self, sensor: Sensor) -> None:
        self._stuck.discard(sensor)

    def _set(self, name: str, status: SensorStatus) -> None:
        before = self.statuses.get(name)
        self.statuses[name] = status
        if before is not None and (before.state, before.error) == (status.state, status.error):
            return
        if status.state == "absent":
            # Most machines lack most sensors: at the start that is no news, and `health` tells it.
            say = log.debug if before is None else log.info
            say("sensor_absent", sensor=name, reason=status.error)
        elif status.state != "ok":
            log.warning(
                "sensor_hung" if status.state == "hung" else "sensor_failed", sensor=name, error=status.error
            )
        elif before is not None:
            log.info("sensor_back", sensor=name)


class _Outcome(NamedTuple):
    name: str
    state: SensorState
    duration_ms: float
    reading: Reading | None = None
    error: str | None = None


class _Job:
    """The sensors of one sample, done by one thread and awaited by the loop."""

    def __init__(
        self,
        sensors: Sequence[Sensor],
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        returned: Callable[[Sensor], None],
    ) -> None:
        self._sensors = sensors
        self._clock = clock
        self._loop = loop
        self._returned = returned
        self._done = asyncio.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        self._current: tuple[str, float] | None = None
        self.outcomes: list[_Outcome] = []

    async def wait(self, deadline_s: float) -> str | None:
        """Wait for the job; the name of the sensor that missed its deadline, else None."""
        wait_s, pardoned = deadline_s, False
        while True:
            until_s = self._loop.time() + wait_s
            try:
                async with asyncio.timeout(wait_s):
                    await self._done.wait()
            except TimeoutError:
                with self._lock:
                    stopped = self._loop.time() - until_s > OVERSLEPT_S
                    if self._current is None or (stopped and not pardoned):
                        # The sensor was not the one who took so long: all of the process stood still. Once:
                        # on a starved host, one that hangs would never be left behind.
                        pardoned = pardoned or stopped
                        wait_s = deadline_s
                        self._current = self._current and (self._current[0], self._loop.time())
                        continue
                    name, since_s = self._current
                    wait_s = since_s + deadline_s - self._loop.time()
                    if wait_s <= 0.0:
                        self._abandoned = True
                        return name
            else:
                return None

    def run(self) -> bool:
        """Read the sensors, on the worker's thread; False if the loop gave up on this thread meanwhile."""
        for sensor in self._sensors:
            with self._lock:
                self._current = (sensor.name, self._loop.time())
            outcome = _read(sensor, self._clock)
            with self._lock:
                self._current = None
                if self._abandoned:
                    self._call(partial(self._returned, sensor))
                    return False
                self.outcomes.append(outcome)
        self._call(self._done.set)
        return True

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            # The loop has closed while a sensor was stuck: nobody is waiting any more.
            return


class _Worker:
    """A daemon thread, so that a stuck sensor can't keep the process from ending."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | Sequence[Sensor]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: _Job) -> None:
        """Do `job` after those that wait."""
        self._put(job)

    def stop(self, sensors: Sequence[Sensor]) -> None:
        """Close `sensors` after the jobs that wait, then end."""
        self._put(sensors)

    def _put(self, item: _Job | Sequence[Sensor]) -> None:
        self._jobs.put(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="neuromodd-sampler", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while isinstance(job := self._jobs.get(), _Job):
            if not job.run():
                return
        for sensor in job:
            try:
                sensor.close()
            except Exception as failure:  # noqa: BLE001 - the guard around one sensor
                log.warning(
                    "sensor_close_failed", sensor=sensor.name, error=f"{type(failure).__name__}: {failure}"
                )


def _read(sensor: Sensor, clock: Callable[[], float]) -> _Outcome:
    began_s = time.monotonic()
    reading, error = None, None
    state: SensorState = "ok"
    try:
        value = sensor.read()
        reading = Reading(value=value, at_s=clock())
    except SensorAbsentError as absent:
        state, error = "absent", str(absent)
    except Exception as failure:  # noqa: BLE001 - the guard around one sensor
        state, error = "failed", f"{type(failure).__name__}: {failure}"
    duration_ms = max(time.monotonic() - began_s, 0.0) * 1000.0
    return _Outcome(name=sensor.name, state=state, duration_ms=duration_ms, reading=reading, error=error)
