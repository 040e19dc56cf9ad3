"""The composition root: builds the parts, runs the tick loop, answers signals, shuts down.

Ticks are due on a grid of absolute monotonic times, so that nothing drifts. A tick that begins late is
counted and not made up for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from neuromodd import __version__, logs
from neuromodd.config import BrokerAddress, changed_options, resolve_broker
from neuromodd.core.anomaly import Anomaly
from neuromodd.core.brain import SURPRISE_RELOADABLE, Brain, Tick
from neuromodd.core.diagnostics import FaultClass
from neuromodd.core.encoding import CHANNELS
from neuromodd.core.engine import SpikingInferenceEngine, numba_installed
from neuromodd.core.inputs import OutsideInput, ResetInput, RewardInput, SettingsInput
from neuromodd.core.messages import Message
from neuromodd.core.modulators import NeuroModulators
from neuromodd.core.rewards import RewardEvent, event_id
from neuromodd.errors import CheckpointMismatchError, ConfigurationError, NotKeptError, RequestRefusedError
from neuromodd.eye import LONGEST_SLEEP_S, Due, Eye, beats, boot_s, clock_s
from neuromodd.health import runtime_directory
from neuromodd.loading import Loaded
from neuromodd.notify import ServiceManager
from neuromodd.post import Post
from neuromodd.pulse import Pulse
from neuromodd.scribe import build_recorder
from neuromodd.sinks.base import Sink
from neuromodd.sinks.checkpoint import CheckpointSink, CheckpointStore
from neuromodd.sinks.checkpoint_file import MISFITS
from neuromodd.sinks.state_directory import StateDirectory
from neuromodd.vitals import Vitals

if TYPE_CHECKING:
    from neuromodd.dashboard.web import Web

SINK_RETRY_S = 5.0
"""A sink that raised is started again after this."""

READY_RETRY_S = 0.2

SHORTEST_INTERVAL_S = 0.05
"""Between two ticks: rates over less time are noise."""

PENDING_LIMIT = 10_000
"""Rewards from outside that may wait for the next tick."""

RELOADABLE = (
    "tick.",
    "checkpoint.interval_s",
    "checkpoint.keep",
    "modulators.",
    "rewards.",
    "faults.",
    *(f"surprise.{name}" for name in SURPRISE_RELOADABLE),
    "mqtt.publish.",
    "log.level",
)

log = structlog.get_logger()


class Daemon:
    """One running neuromodd.

    Args:
        loaded: the settings.
        reload: reads the settings again, for SIGHUP.
        fresh: set the checkpoints aside instead of going on from them.

    Raises:
        ConfigurationError: there is no broker to publish to.
        CheckpointMismatchError: the newest checkpoint is of another network or a newer format.
        StateDirectoryLockedError: another daemon owns the state directory, or records where this one is to.
        StateDirectoryError: the state directory can't be used.
    """

    def __init__(self, loaded: Loaded, *, reload: Callable[[], Loaded], fresh: bool = False) -> None:
        settings = loaded.settings
        self._settings = settings
        self._file = loaded.file
        self._reload = reload
        self.broker: BrokerAddress = resolve_broker(settings)
        self.node = settings.node_name()
        if settings.node is None and self.node != socket.gethostname():
            log.warning("hostname_mapped", hostname=socket.gethostname(), node=self.node)
        self._state_directory = StateDirectory(settings.checkpoint.state_directory())
        try:
            # Without numba the log says it, and no warning besides.
            compiled = None if numba_installed() else False
            self._brain = Brain(settings.brain, settings.engine.seed, compiled=compiled)
            self._prepare_engine()
            self._store = CheckpointStore(self._state_directory.path, keep=settings.checkpoint.keep)
            self._resume(fresh=fresh)
            self._recorder = build_recorder(settings, self._brain) if settings.recorder.enabled else None
        except BaseException:
            self._state_directory.close()
            raise
        self._eye = Eye(settings)
        self._manager = ServiceManager(os.environ, time.monotonic)
        self._ticked = asyncio.Event()
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._vitals = Vitals(started_utc=datetime.now(UTC), started_s=clock_s())
        self._pulse = Pulse(
            interval_s=settings.tick.interval_s, clock=time.monotonic, health=lambda: self._health().payload
        )
        self._said_sensors: tuple[str, ...] = ()
        self._said_health: object = None
        self._health_due_s = 0.0
        self._newest: Tick | None = None
        self._checkpoints = CheckpointSink(
            store=self._store,
            snapshot=self._brain.state,
            dimensions=settings.engine.dimensions,
            interval_s=settings.checkpoint.interval_s,
            clock=clock_s,
            outbox_first=lambda: self._post.courier.put_away(),  # noqa: PLW0108 - the post is built below
        )
        self._requests_taken = 0
        self._ticking = asyncio.Lock()
        self._post = Post(
            settings,
            broker=self.broker,
            password=settings.mqtt.read_password(),
            directory=self._state_directory.path,
            boot=self._eye.assembler.boot_id,
            actions=self,
            announce=lambda: [self._info(), self._health()],
        )
        self._publisher = self._post.publisher
        self._sinks: tuple[Sink, ...] = (self._publisher, self._checkpoints)
        if self._recorder is not None:
            self._sinks += (self._recorder,)
        self._web = self._build_web() if settings.web.enabled else None
        if self._web is not None:
            self._sinks += (self._web,)

    def _build_web(self) -> Web:
        # Not imported unless it is asked for: it is an extra.
        from neuromodd.dashboard.web import Source, Web  # noqa: PLC0415

        source = Source(
            node=self.node,
            started_utc=datetime.now(UTC),
            dimensions=self._settings.engine.dimensions,
            alive=self._pulse.report,
            info=self._info,
            weights=lambda: self._brain.engine.weights,
            surprise=lambda: self._brain.parameters.surprise,
        )
        return Web(self._settings.web, source, self._settings.tick.interval_s)

    @property
    def state_path(self) -> Path:
        """The state directory."""
        return self._state_directory.path

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of the sensors that were found."""
        return self._eye.sampler.found

    @property
    def page(self) -> str | None:
        """Where a browser finds the page; None if it is not served."""
        return None if self._web is None else self._web.page

    def subscribe_command(self) -> str:
        """The one line that shows everything of this node."""
        mqtt = self._settings.mqtt
        parts = ["mosquitto_sub", f"-h {self.broker.host}", f"-p {self.broker.port}"]
        if mqtt.tls.cert_file is not None:
            parts.append(f"--cert {mqtt.tls.cert_file} --key {mqtt.tls.key_file or mqtt.tls.cert_file}")
        if mqtt.tls_enabled:
            parts.append(f"--cafile {mqtt.tls.ca_file}" if mqtt.tls.ca_file else "--tls-use-os-certs")
        if mqtt.username is not None:
            parts.append(f"-u {mqtt.username} -P ...")
        return " ".join([*parts, f"-v -t '{mqtt.prefix}/{self.node}/#'"])

    async def run(self, started: Callable[[Daemon], None] | None = None) -> None:
        """Run until SIGTERM, SIGINT or a failure; `started` is called after the first tick.

        Raises:
            BrokerStartError: the embedded broker can't start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._reload_settings)
        needed_s = 2.0 * (self._settings.sensors.deadline_s + LONGEST_SLEEP_S)
        if self._manager.watchdog_s is not None and self._manager.watchdog_s < needed_s:
            log.warning("watchdog_short", watchdog_s=self._manager.watchdog_s, needed_s=needed_s)
        try:
            async with contextlib.AsyncExitStack() as stack:
                places = filter(None, (runtime_directory(), self.state_path))
                await stack.enter_async_context(self._pulse.listen(places))
                if self.broker.embedded:
                    # amqtt is an extra: the daemon runs without it where a broker is set.
                    from neuromodd.broker import embedded_broker  # noqa: PLC0415

                    await stack.enter_async_context(embedded_broker(self.broker.host, self.broker.port))
                await self._live(started)
        finally:
            self._eye.close()
            self._state_directory.close()
            self._manager.close()

    async def _live(self, started: Callable[[Daemon], None] | None) -> None:
        await self._take_left_over()
        async with asyncio.TaskGroup() as group:
            sinks = [group.create_task(self._guard(sink), name=f"sink-{sink.name}") for sink in self._sinks]
            # Not of the group: if the ticks fail, the sinks are still to be stopped in order.
            ticks = asyncio.create_task(self._tick_loop(started), name="ticks")
            stop = asyncio.create_task(self._stop.wait(), name="stop")
            ready = asyncio.create_task(self._say_ready(), name="ready")
            await asyncio.wait((ticks, stop), return_when=asyncio.FIRST_COMPLETED)
            self._stop.set()
            log.info("stopping", reason=self._stop_reason or "the tick loop ended")
            self._manager.stopping()
            for task in (ticks, stop, ready):
                task.cancel()
            await asyncio.wait((ticks,))
            stopped = await asyncio.gather(*(sink.stop() for sink in self._sinks), return_exceptions=True)
            for sink, failure in zip(self._sinks, stopped, strict=True):
                if failure is not None:
                    log.error("sink_failed", sink=sink.name, error=f"{type(failure).__name__}: {failure}")
            for task in sinks:
                task.cancel()
        if not ticks.cancelled():
            ticks.result()
        log.info("stopped", ticks=self._vitals.ticks, step=self._brain.engine.step_count)

    async def _say_ready(self) -> None:
        """Tell the service manager when there has been a tick and the broker has it, or is waited for."""
        await self._ticked.wait()
        await self._publisher.settled.wait()
        # A manager that is busy takes nothing in; one that is never told would start us anew.
        while not self._manager.ready():  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(READY_RETRY_S)

    async def _guard(self, sink: Sink) -> None:
        """Keep one sink's failure from being anybody else's."""
        while not self._stop.is_set():
            try:
                await sink.run()
            except Exception as failure:
                self._vitals.count_sink_failure(sink.name)
                log.exception("sink_failed", sink=sink.name, error=f"{type(failure).__name__}: {failure}")
                await asyncio.sleep(SINK_RETRY_S)
            else:
                return

    async def _tick_loop(self, started: Callable[[Daemon], None] | None) -> None:
        grid = beats(
            lambda: self._settings.tick.interval_s, asyncio.get_running_loop().time, self._manager.alive
        )
        await self._tick(Due(0.0, 0))
        self._ticked.set()
        # On a terminal the greeting says it better.
        say = log.info if started is None else log.debug
        say(
            "started",
            version=__version__,
            node=self.node,
            interval_s=self._settings.tick.interval_s,
            sensors=self._eye.sampler.found,
            broker=f"{self.broker.host}:{self.broker.port}",
            embedded=self.broker.embedded,
            state_directory=str(self.state_path),
            config=None if self._file is None else str(self._file),
            step=self._brain.engine.step_count,
            subscribe=self.subscribe_command(),
        )
        if started is not None:
            started(self)
        async for due in grid:
            await self._tick(due)
            self._manager.alive()

    async def _tick(self, due: Due) -> None:
        # One at a time: a tick may be asked for besides those of the grid.
        async with self._ticking:
            await self._live_through(due, due.lateness_s * 1000.0)

    async def _live_through(self, due: Due, lateness_ms: float | None) -> None:
        frame = await self._eye.look(
            sequence=self._brain.sequence, lateness_ms=lateness_ms, work=self._post.work
        )
        self._eye.assembler.interval_s = self._settings.tick.interval_s
        tick = self._brain.step(frame)
        self._vitals.count(frame, missed=due.missed)
        if frame.gap:
            log.warning("gap", seconds=frame.interval_s)
        for sink in self._sinks:
            sink.offer(tick)
        for event in tick.events:
            log.info("reward", **event.model_dump(mode="json", exclude={"time_utc", "node"}))
        if tick.fault_changed and (self._newest is not None or tick.fault.evidence):
            healthy = tick.fault.fault_class is FaultClass.HealthyStandby
            say = log.info if healthy else log.warning
            say("fault", fault=tick.fault.fault_class.value, code=tick.fault.fault_class.code)
        if tick.surprise is not None and tick.surprise.change is not None:
            _tell_of(tick.surprise.change)
        self._newest = tick
        self._post.observe(tick)
        self._pulse.beat()
        self._say_what_changed()

    def _say_what_changed(self) -> None:
        """Publish `info` when other sensors are found, and `health` every so often and on a change."""
        found = self._eye.sampler.found
        if found != self._said_sensors:
            self._said_sensors = found
            self._tell(self._info())
        states = (
            [status.state for status in self._eye.sampler.statuses.values()],
            self._checkpoints.error,
            self._post.courier.error,
            None if self._recorder is None else self._recorder.error,
            None if self._web is None else self._web.error,
            tuple(self._vitals.sinks_failed.items()),
        )
        if states != self._said_health or clock_s() >= self._health_due_s:
            self._said_health = states
            self._health_due_s = clock_s() + self._settings.mqtt.health_interval_s
            self._tell(self._health())
        if self._manager.present:
            self._manager.status(self._status())

    def _tell(self, message: Message) -> None:
        """Publish `info` or `health`, and show it to whoever looks."""
        self._publisher.publish(message)
        if self._web is not None:
            self._web.said(message)

    def _status(self) -> str:
        """What `systemctl status` is to say."""
        statuses = self._eye.sampler.statuses.items()
        failing = [name for name, status in statuses if status.state in {"failed", "hung"}]
        fault = None if self._newest is None else self._newest.fault
        said = [f"ticking every {self._settings.tick.interval_s:g} s", self._publisher.status]
        if failing:
            said.append(f"no reading from {', '.join(failing)}")
        if self._checkpoints.error is not None:
            said.append(f"no checkpoint: {self._checkpoints.error}")
        if self._post.courier.error is not None:
            said.append(f"no outbox: {self._post.courier.error}")
        if fault is not None and fault.is_damage:
            said.append(f"fault {fault.fault_class.code}")
        if self._newest is not None and self._newest.anomalous:
            said.append("an anomaly")
        return "; ".join(said)

    def _info(self) -> Message:
        return self._vitals.info(self._settings, self._eye, self._newest)

    def _health(self) -> Message:
        return self._vitals.health(
            node=self.node,
            time_utc=datetime.now(UTC),
            now_s=clock_s(),
            sensors=self._eye.sampler.statuses,
            mqtt=self._publisher.health,
            checkpoint=self._checkpoints.health,
            recorder=None if self._recorder is None else self._recorder.health,
            web=None if self._web is None else self._web.health,
            faults=self._brain.fault_counts,
            anomalies=self._brain.anomaly_count,
        )

    # What can be asked for over MQTT

    async def take_reward(self, event: RewardEvent, *, durable: bool) -> tuple[RewardEvent, bool]:
        """Take an event in, kept before it is answered; it acts with the next tick."""
        if len(self._brain.pending) >= PENDING_LIMIT:
            raise RequestRefusedError("rate", f"{PENDING_LIMIT} rewards wait for the next tick")
        if event.id is None:
            self._requests_taken += 1
            identity = event_id(
                time_utc=datetime.now(UTC),
                node=self.node,
                boot_id=self._eye.assembler.boot_id,
                sequence=self._brain.sequence,
                kind=f"in/reward:{event.kind}",
                ordinal=self._requests_taken,
            )
            event = event.model_copy(update={"id": identity})
        taken = RewardInput(event=event)
        try:
            new = await self._post.courier.take_in(
                str(event.id), event.to_json(), lambda: self._take(taken), durable=durable
            )
        except NotKeptError as error:
            raise RequestRefusedError("failed", str(error)) from None
        return event, new

    async def write_checkpoint(self) -> dict[str, Any]:
        """Write a checkpoint."""
        try:
            return {"step": await self._checkpoints.write_now()}
        except OSError as error:
            raise RequestRefusedError("failed", str(error)) from None

    async def sample_now(self) -> dict[str, Any]:
        """Take a tick besides those of the grid."""
        async with self._ticking:
            if self._newest is not None:
                ago_s = boot_s() - self._newest.frame.monotonic_s
                if 0.0 <= ago_s < SHORTEST_INTERVAL_S:
                    raise RequestRefusedError(
                        "rate",
                        f"the last tick was {ago_s:.3f} s ago, expected {SHORTEST_INTERVAL_S} at least",
                    )
            await self._live_through(Due(0.0, 0), None)
            return {"sequence": self._brain.sequence - 1}

    async def forget(self) -> dict[str, Any]:
        """Set the checkpoints aside and begin anew."""
        try:
            count = await self._checkpoints.begin_anew(lambda: self._take(ResetInput()))
        except OSError as error:
            raise RequestRefusedError("failed", f"{error.filename}: {error.strerror}") from None
        return {"checkpoints_set_aside": count}

    async def set_interval(self, interval_s: float) -> dict[str, Any]:
        """Tick at another interval, until a reload or a restart."""
        before = self._settings.tick.interval_s
        tick = self._settings.tick.model_copy(update={"interval_s": interval_s})
        self._settings = self._settings.model_copy(update={"tick": tick})
        self._follow_settings()
        return {"interval_s": interval_s, "previous_interval_s": before}

    async def identify(self) -> dict[str, Any]:
        """Say who this is."""
        found: dict[str, Any] = json.loads(self._info().payload)
        return found

    async def _take_left_over(self) -> None:
        """Live through what came in just before the end of an earlier run."""
        known = {event.id for event in self._brain.pending}
        left = [event for event in await self._post.open() if event.id not in known]
        for event in left:
            self._take(RewardInput(event=event))
        if left:
            log.info("rewards_left_over", count=len(left))

    def _prepare_engine(self) -> None:
        engine = self._brain.engine
        if engine.compiled:
            # Now, not in the first tick: it takes seconds on the first start, less with numba's cache.
            SpikingInferenceEngine(compiled=True).tick([None] * len(CHANNELS), NeuroModulators())
        elif engine.large:
            log.warning("engine_not_compiled", remedy="pip install 'neuromodd[fast]'")

    def _resume(self, *, fresh: bool) -> None:
        if fresh:
            for path in self._store.paths():
                log.info("checkpoint_set_aside", moved_to=str(self._store.set_aside(path, "fresh")))
            return
        restored = self._store.newest(self._settings.engine.dimensions)
        if restored is None:
            log.info("no_checkpoint", state_directory=str(self._store.directory))
            return
        try:
            self._brain.restore(restored.state)
        except MISFITS as error:
            raise CheckpointMismatchError(
                restored.path,
                f"a state that does not fit ({type(error).__name__}: {error})",
                "one of this version; `neuromodd run --fresh` sets it aside and starts anew",
            ) from None
        if self._brain.engine.seed != self._settings.engine.seed:
            log.warning("seed_kept", checkpoint=self._brain.engine.seed, settings=self._settings.engine.seed)
        log.info("resumed", checkpoint=str(restored.path), step=self._brain.engine.step_count)

    def _take(self, outside: OutsideInput) -> None:
        """Give the brain what came from outside; the recording has it where the brain took it."""
        self._brain.apply(outside)
        if self._recorder is not None:
            self._recorder.offer_input(outside)

    def _ask_to_stop(self, reason: str) -> None:
        self._stop_reason = reason
        self._stop.set()

    def _reload_settings(self) -> None:
        """Take over what may change while running, and say what may not."""
        self._manager.reloading()
        try:
            self._take_settings()
        finally:
            self._manager.reloaded()

    def _take_settings(self) -> None:
        try:
            after = self._reload().settings
        except ConfigurationError as error:
            log.warning("reload_refused", faults=[str(fault) for fault in error.faults])
            return
        changed = changed_options(self._settings, after)
        taken = [name for name in changed if name.startswith(RELOADABLE)]
        mqtt = self._settings.mqtt.model_copy(update={"publish": after.mqtt.publish})
        checkpoint = self._settings.checkpoint.model_copy(
            update={"interval_s": after.checkpoint.interval_s, "keep": after.checkpoint.keep}
        )
        surprise = self._settings.surprise.model_copy(
            update={name: getattr(after.surprise, name) for name in SURPRISE_RELOADABLE}
        )
        self._settings = self._settings.model_copy(
            update={
                "tick": after.tick,
                "modulators": after.modulators,
                "rewards": after.rewards,
                "faults": after.faults,
                "surprise": surprise,
                "mqtt": mqtt,
                "log": self._settings.log.model_copy(update={"level": after.log.level}),
                "checkpoint": checkpoint,
            }
        )
        brain = self._settings.brain
        self._take(
            SettingsInput(
                setpoints=brain.setpoints,
                rewards=brain.rewards,
                faults=brain.faults,
                surprise=brain.surprise,
            )
        )
        logs.configure(level=after.log.level, form=self._settings.log.format)
        log.info("reloaded", taken=taken, needs_restart=[name for name in changed if name not in taken])
        self._follow_settings()

    def _follow_settings(self) -> None:
        """Bring every part to the settings of now, and say so."""
        settings = self._settings
        # The tick that is under way is of the old interval: with a shorter one it would pass for a gap.
        assembler = self._eye.assembler
        assembler.interval_s = max(assembler.interval_s, settings.tick.interval_s)
        self._eye.assembler.work_target = settings.modulators.work_target
        self._pulse.follow(settings.tick.interval_s)
        self._checkpoints.interval_s = settings.checkpoint.interval_s
        self._store.keep = settings.checkpoint.keep
        self._post.reload(settings)
        if self._web is not None:
            self._web.follow(settings.tick.interval_s)
        self._tell(self._info())


def _tell_of(anomaly: Anomaly) -> None:
    say = log.warning if anomaly.phase == "begin" else log.info
    say(
        "anomaly",
        phase=anomaly.phase,
        sentence=anomaly.sentence,
        channels=[of.name for of in anomaly.channels],
        surprise=round(anomaly.surprise, 3),
        duration_s=anomaly.duration_s,
    )
