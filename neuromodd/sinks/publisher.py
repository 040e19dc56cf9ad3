"""The MQTT sink: publishes ticks, and keeps the connection.

States may be dropped, newest kept. Events (rewards, changes of fault) wait in order until the broker has
acknowledged them, as many as `event_limit`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog

from neuromodd.core.brain import Tick
from neuromodd.core.messages import (
    OFFLINE,
    ONLINE,
    Message,
    MqttHealth,
    fault_message,
    reward_message,
    state_message,
    tick_messages,
    topic,
)
from neuromodd.core.rewards import RewardEvent
from neuromodd.errors import MqttLinkError
from neuromodd.mqtt import Backoff, Endpoint, Link, connect
from neuromodd.sinks.base import Newest, Queue

FAREWELL_S = 1.0
"""What a clean exit may take for the events that still wait, and again for the last `offline`."""

STABLE_S = 10.0
"""A connection that stood this long was no chance."""

CANCEL_S = 0.1

log = structlog.get_logger()


class _Waiting(NamedTuple):
    """An event in the queue: the reward itself, or the message of a fault."""

    content: RewardEvent | Message
    connections: int


class Publisher:
    """Publishes to one broker for as long as it runs, through every outage.

    Args:
        endpoint: the broker, with the will already in it.
        prefix: first part of the topics.
        node: the second.
        event_limit: events that may wait.
        spikes: whether to publish `spikes`.
        announce: the `info` and `health` messages of this moment, published after each connect.
        backoff: delays between attempts.
        clock: monotonic seconds.
    """

    name = "mqtt"

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        prefix: str,
        node: str,
        event_limit: int,
        spikes: bool,
        announce: Callable[[], list[Message]],
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._prefix = prefix
        self._node = node
        self._spikes = spikes
        self._announce = announce
        self._backoff = backoff
        self._clock = clock
        self._states: Newest[Message] = Newest()
        self._events: Queue[_Waiting] = Queue(event_limit)
        self._last: Tick | None = None
        self._link: Link | None = None
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()
        self._connections = 0
        self._published = 0
        self._error: str | None = None

    def offer(self, tick: Tick) -> None:
        """Put the tick's messages where the connection picks them up."""
        # The first one says what holds, changed or not: the broker may have lost what was retained.
        announce_fault = tick.fault_changed or self._last is None
        self._last = tick
        for message in tick_messages(tick, spikes=self._spikes):
            if message.rule.state_like:
                self._states.put(message.name, message)
        for event in tick.events:
            self._events.put(_Waiting(event, self._connections))
        if announce_fault:
            self._events.put(_Waiting(fault_message(tick.frame.node, tick.fault), self._connections))

    def publish(self, message: Message) -> None:
        """Put one state-like message where the connection picks it up."""
        self._states.put(message.name, message)

    @property
    def health(self) -> MqttHealth:
        """How the connection is."""
        return MqttHealth(
            connected=self._link is not None,
            connections=self._connections,
            published=self._published,
            dropped=self._states.dropped + self._events.dropped,
            waiting_events=len(self._events),
            # The last trouble is over as soon as there is a connection to say so on.
            error=None if self._link is not None else self._error,
        )

    async def run(self) -> None:
        """Connect, publish, and connect again, until `stop`."""
        self._stopped.clear()
        try:
            while not self._stopping.is_set():
                refused = False
                began_s = self._clock()
                try:
                    async with connect(self._endpoint) as link:
                        began_s = self._clock()
                        await self._serve(link)
                except MqttLinkError as error:
                    refused = error.refused_login
                    self._note_error(str(error))
                # A link that falls at once is no end of the outage: two daemons of one name take it from
                # each other as often as they are let.
                if self._clock() - began_s >= STABLE_S:
                    self._backoff.reset()
                await self._pause(self._backoff.delay_s(self._clock(), refused_login=refused))
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Send what waits, say `offline`, disconnect; gives up after twice FAREWELL_S."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * FAREWELL_S + 0.5):
                await self._stopped.wait()

    async def _serve(self, link: Link) -> None:
        """Use one connection until it is lost or we stop."""
        try:
            self._link = link
            self._connections += 1
            await self._introduce(link)
            self._error = None
            log.info(
                "mqtt_connected",
                broker=f"{self._endpoint.host}:{self._endpoint.port}",
                times=self._connections,
            )
            tasks = [
                asyncio.create_task(link.lost(), name="mqtt-lost"),
                asyncio.create_task(self._send_states(link), name="mqtt-states"),
                asyncio.create_task(self._send_events(link), name="mqtt-events"),
                asyncio.create_task(self._stopping.wait(), name="mqtt-stopping"),
            ]
            await _first_of(tasks)
            await self._flush(link)
        finally:
            self._link = None
            # Without this, leaving cleanly would keep the will from being sent, and `status` would lie.
            with contextlib.suppress(MqttLinkError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._send(link, Message("status", OFFLINE))

    async def _introduce(self, link: Link) -> None:
        """Say who we are; retained messages may be gone with the broker's last life."""
        await self._send(link, Message("status", ONLINE))
        for message in self._announce():
            await self._send(link, message)
        if self._last is not None:
            await self._send(link, state_message(self._last))
            await self._send(link, fault_message(self._node, self._last.fault))

    async def _send_states(self, link: Link) -> None:
        while True:
            await self._send(link, await self._states.take())

    async def _send_events(self, link: Link) -> None:
        while True:
            waiting = await self._events.first()
            await self._send(link, self._event_message(waiting))
            self._events.remove(waiting)

    async def _flush(self, link: Link) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                while len(self._events):
                    waiting = await self._events.first()
                    await self._send(link, self._event_message(waiting))
                    self._events.remove(waiting)

    def _event_message(self, waiting: _Waiting) -> Message:
        if isinstance(waiting.content, Message):
            return waiting.content
        return reward_message(waiting.content, replayed=waiting.connections != self._connections)

    async def _send(self, link: Link, message: Message) -> None:
        rule = message.rule
        full = topic(self._prefix, self._node, message.name)
        await link.publish(full, message.payload, qos=rule.qos, retain=rule.retain)
        self._published += 1

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()

    def _note_error(self, error: str) -> None:
        if error != self._error:
            log.warning(
                "mqtt_unavailable", broker=f"{self._endpoint.host}:{self._endpoint.port}", error=error
            )
        self._error = error


async def _first_of(tasks: list[asyncio.Task[Any]]) -> None:
    """Wait for the first task to end, end the others, and raise what the first raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Up to Python 3.11 asyncio.wait_for, which aiomqtt uses, swallows a cancellation that comes together
        # with the result: one call to cancel may not be enough.
        while pending := [task for task in tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_S)
    # An exception that was asked for is not reported by the loop as one that nobody wanted.
    failures = {task: task.exception() for task in tasks if not task.cancelled()}
    for task in done:
        failure = failures.get(task)
        if failure is not None:
            raise failure
