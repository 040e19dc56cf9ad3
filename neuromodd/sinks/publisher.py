"""The MQTT sink: keeps the connection, publishes states, and passes on what comes in.

States may be dropped, newest kept. What must not be lost (rewards, changes of fault, anomalies) is the
courier's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple

import structlog

from neuromodd.core.brain import Tick
from neuromodd.core.cadence import Cadence, Gate
from neuromodd.core.messages import (
    OFFLINE,
    ONLINE,
    TOPICS,
    Event,
    Message,
    anomaly_event,
    encoded,
    fault_event,
    reward_event,
    spikes_values,
    state_message,
    state_values,
    telemetry_event,
    topic,
)
from neuromodd.core.payloads import InboundHealth, MqttHealth
from neuromodd.core.schemas import SCHEMA_VERSION
from neuromodd.errors import MqttDeniedError, MqttLinkError
from neuromodd.mqtt import Backoff, Endpoint, Incoming, Link, Outgoing, Protocol, connect
from neuromodd.sinks.base import Newest
from neuromodd.sinks.courier import Courier

FAREWELL_S = 1.0
"""What a clean exit may take for the events that still wait, and again for the last `offline`."""

STABLE_S = 10.0
"""A connection that stood this long was no chance."""

YIELD_S = 60.0
LONGEST_YIELD_S = 3600.0
"""When we look again after another daemon of our name has taken our place: doubling from the first."""

RETAINED_S = 0.25
"""What a broker may take to hand over what it kept, once it has granted the subscription."""

DENIALS_S = 0.5
"""For so long what the broker denies is gathered into one line of the log."""

CANCEL_S = 0.1

NAMED = (("schema_version", str(SCHEMA_VERSION)),)

log = structlog.get_logger()

Hear = Callable[[Incoming], Awaitable[Outgoing | None]]


class Cadences(NamedTuple):
    """How often each topic is published."""

    telemetry: Cadence = Cadence(1)
    state: Cadence = Cadence(1)
    spikes: Cadence = Cadence(0)
    health: bool = True
    reward: bool = True
    fault: bool = True
    anomaly: bool = True


class Publisher:
    """Publishes to one broker for as long as it runs, through every outage.

    Args:
        endpoint: the broker, with the will already in it.
        protocol: `auto` for MQTT 5, and 3.1.1 where the broker does not speak it.
        prefix: first part of the topics.
        node: the second.
        courier: for what must not be lost; the publisher runs and closes it.
        cadences: how often each topic is published.
        expiry_s: seconds after which the broker forgets a message of each expiring topic.
        keep_telemetry: whether frames wait in the outbox while the broker is away.
        announce: the `info` and `health` messages of this moment, published after each connect.
        identity: what tells our `info` from that of another daemon of the same name.
        requests: topics to subscribe to besides, each with its quality of service.
        hear: takes what comes in on them; what it returns is published. It is acknowledged afterwards.
        extras: what else is to be published after each connect.
        extra_sent: hears of each of those that the broker has acknowledged.
        inbound_health: what became of requests; None if none are taken.
        backoff: delays between attempts.
        clock: monotonic seconds.
    """

    name = "mqtt"

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        protocol: Literal["auto", "5", "3.1.1"] = "auto",
        prefix: str,
        node: str,
        courier: Courier,
        cadences: Cadences,
        expiry_s: Mapping[str, int],
        keep_telemetry: bool = False,
        announce: Callable[[], list[Message]],
        identity: Callable[[Mapping[str, Any]], object],
        requests: Mapping[str, int] | None = None,
        hear: Hear | None = None,
        extras: Callable[[], list[Outgoing]] = list,
        extra_sent: Callable[[Outgoing], None] = lambda _: None,
        inbound_health: Callable[[], InboundHealth | None] = lambda: None,
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._versions = _Versions(protocol)
        self._prefix = prefix
        self._node = node
        self.courier = courier
        self._keep_telemetry = keep_telemetry
        self._announce = announce
        self._identity = identity
        self._requests = dict(requests or {})
        self._hear = hear
        self._extras = extras
        self._extra_sent = extra_sent
        self._inbound_health = inbound_health
        self._backoff = backoff
        self._clock = clock
        self.expiry_s: Mapping[str, int] = expiry_s
        self._gates: dict[str, Gate] = {}
        self.pace(cadences)
        self._states: Newest[Outgoing] = Newest()
        self._last: Tick | None = None
        self._link: Link | None = None
        self._own: object = None
        self._returning = False
        self._owner_seen = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()
        self._closed = False
        self._connections = 0
        self._published = 0
        self._protocol: Protocol | None = None
        self._yielding = False
        self._yield_s = YIELD_S
        self._denied: dict[str, str] = {}
        self._denied_told: set[str] = set()
        self._denied_anew = asyncio.Event()
        self._error: str | None = None
        self.settled = asyncio.Event()
        """Set for good when a broker has heard of us, or when one is waited for."""

    def pace(self, cadences: Cadences) -> None:
        """Publish as often as `cadences` say from now on."""
        self._cadences = cadences
        for name in ("telemetry", "state", "spikes"):
            cadence, refresh_s = getattr(cadences, name), self.expiry_s.get(name, 0) / 2
            gate = self._gates.get(name)
            if gate is None or gate.cadence != cadence:
                self._gates[name] = Gate(cadence, refresh_s=refresh_s)
            else:
                gate.refresh_s = refresh_s

    def offer(self, tick: Tick) -> None:
        """Put the tick's messages where the connection picks them up."""
        first, self._last = self._last is None, tick
        self._offer_telemetry(tick)
        for name, values_of in (("state", state_values), ("spikes", spikes_values)):
            gate = self._gates[name]
            if gate.cadence.ticks and gate.due(values := values_of(tick), self._clock()):
                self.publish(Message(name, encoded(values)))
        if tick.events:
            if self._cadences.reward:
                self.courier.offer([reward_event(event) for event in tick.events])
            self.courier.settle(event.id for event in tick.events if event.id and event.origin == "external")
        # The first tick is no change; what holds is told by the introduction, unless that was before.
        if self._cadences.fault and (self._link is not None if first else tick.fault_changed):
            self.courier.offer([fault_event(self._node, tick.fault)])
        if self._cadences.anomaly and tick.surprise is not None and tick.surprise.change is not None:
            self.courier.offer([anomaly_event(self._node, tick.surprise.change)])

    def publish(self, message: Message) -> None:
        """Put one state-like message where the connection picks it up."""
        if message.name != "health" or self._cadences.health:
            self.send(self._outgoing(message.name, message.payload))

    def send(self, message: Outgoing) -> None:
        """Put a message of any topic where the connection picks it up; the newest of a topic is kept."""
        self._states.put(message.topic, message)

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None

    @property
    def status(self) -> str:
        """The connection in a few words."""
        if self._link is not None:
            return f"connected to {self._broker}"
        return f"waiting for {self._broker}" + (f": {self._error}" if self._error else "")

    @property
    def health(self) -> MqttHealth:
        """How the connection is."""
        outbox = self.courier.health
        trouble = "; ".join(self._denied.values()) or None
        return MqttHealth(
            connected=self._link is not None,
            protocol=self._protocol,
            connections=self._connections,
            published=self._published,
            dropped=self._states.dropped + outbox.dropped,
            waiting_events=outbox.waiting,
            outbox=outbox,
            inbound=self._inbound_health(),
            taken_over=self._yielding and self._link is None,
            # The last trouble is over as soon as there is a connection to say so on.
            error=trouble if self._link is not None else self._error,
        )

    async def run(self) -> None:
        """Connect, publish, and connect again, until `stop`."""
        self._stopped.clear()
        try:
            await _first_of(
                [
                    asyncio.create_task(self._connect_again(), name="mqtt-connections"),
                    asyncio.create_task(self.courier.store(), name="mqtt-outbox"),
                ]
            )
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Send what waits, say `offline`, disconnect; gives up after twice FAREWELL_S, and a last one."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * FAREWELL_S + 0.5):
                await self._stopped.wait()
        if not self._closed:
            self._closed = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self.courier.close()

    async def _connect_again(self) -> None:
        while not self._stopping.is_set():
            await self._pause(await self._attempt())

    async def _attempt(self) -> float:
        """Use one connection for as long as it stands; seconds to wait for the next."""
        began_s, failure = self._clock(), None
        endpoint = dataclasses.replace(self._endpoint, protocol=self._versions.current)
        try:
            if self._yielding and await self._occupied(endpoint):
                return self._yield()
            async with connect(endpoint) as link:
                began_s = self._clock()
                await self._serve(link)
        except MqttLinkError as error:
            failure = error
            self.settled.set()
        stood_s = self._clock() - began_s
        # A link that falls at once is no end of the outage: two daemons of one name take it from each other
        # as often as they are let.
        if stood_s >= STABLE_S:
            self._backoff.reset()
        if stood_s >= LONGEST_YIELD_S:
            self._yield_s = YIELD_S
        if failure is None:
            return 0.0
        if failure.taken_over:
            self._error = str(failure)
            return self._yield()
        if self._versions.give_way(failure):
            # Where the broker says nothing, each version has its turn, again and again.
            if failure.unsupported:
                log.info("mqtt_version", broker=self._broker, protocol=self._versions.current)
            return 0.0
        self._note_error(str(failure))
        return self._backoff.delay_s(self._clock(), refused_login=failure.refused_login)

    async def _serve(self, link: Link) -> None:
        """Use one connection until it is lost or we stop."""
        taken_over = False
        try:
            self._link = link
            self._connections += 1
            self._protocol = link.protocol
            self._denied = {}
            self.courier.connected(self._connections)
            tasks = [
                asyncio.create_task(link.lost(), name="mqtt-lost"),
                asyncio.create_task(self._receive(link), name="mqtt-receive"),
                asyncio.create_task(self._work(link), name="mqtt-work"),
                asyncio.create_task(self._tell_denials(), name="mqtt-denials"),
                asyncio.create_task(self._stopping.wait(), name="mqtt-stopping"),
            ]
            await _first_of(tasks)
            await self._flush(link)
        except MqttLinkError as error:
            taken_over = error.taken_over
            raise
        finally:
            self._link = None
            self.courier.disconnected()
            if not taken_over:
                # Without this, leaving cleanly would keep the will from being sent, and `status` would lie.
                await self._say_offline(link)

    async def _say_offline(self, link: Link) -> None:
        farewell = self._outgoing("status", OFFLINE)
        with contextlib.suppress(MqttLinkError, MqttDeniedError, TimeoutError):
            try:
                async with asyncio.timeout(FAREWELL_S):
                    await link.publish(farewell)
            except (MqttLinkError, TimeoutError):
                # Behind messages that a slow broker has not acknowledged; this way it waits for none of them.
                async with asyncio.timeout(FAREWELL_S):
                    await link.publish(farewell._replace(qos=0))

    async def _work(self, link: Link) -> None:
        await self._subscribe(link)
        await self._introduce(link)
        self._error = None
        self._versions.stands()
        self._yielding = False
        self.settled.set()
        log.info("mqtt_connected", broker=self._broker, protocol=link.protocol, times=self._connections)
        await _first_of(
            [
                asyncio.create_task(self._send_states(link), name="mqtt-states"),
                asyncio.create_task(self._send_events(link), name="mqtt-events"),
            ]
        )

    async def _subscribe(self, link: Link) -> None:
        """Listen for requests, and for another daemon of our name.

        Both publish `info`. What the broker kept is another's if somebody took our place meanwhile; before we
        have published any, it is that of our last run.
        """
        self._owner_seen.clear()
        # After we have yielded, the place was found free: the `info` there is of the one who has left.
        self._returning = self._own is not None and not self._yielding
        refused = await link.subscribe({self._info_topic: 0, **self._requests}, as_published=self._requests)
        for name, reason in refused.items():
            self._note_denied(name, f"{name}: the broker refused the subscription: {reason}")
        if self._returning and self._info_topic not in refused:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETAINED_S):
                    await self._owner_seen.wait()

    async def _introduce(self, link: Link) -> None:
        """Say who we are; retained messages may be gone with the broker's last life."""
        messages = [self._outgoing("status", ONLINE)]
        for message in self._announce():
            if message.name == "info":
                self._own = self._identity(json.loads(message.payload))
            if message.name != "health" or self._cadences.health:
                messages.append(self._outgoing(message.name, message.payload))
        extras = self._extras()
        if self._last is not None and self._cadences.state.ticks:
            messages.append(self._outgoing("state", state_message(self._last).payload))
        for outgoing in (*messages, *extras):
            # What waited from before is older; what comes while these are on their way is not.
            self._states.discard(outgoing.topic)
        for outgoing in (*messages, *extras):
            if await self._send(link, outgoing) and outgoing in extras:
                self._extra_sent(outgoing)
        if self._last is not None and self._cadences.fault:
            # Not at once: it must not overtake an earlier change that waits. By its id it may be a repeat.
            self.courier.offer([fault_event(self._node, self._last.fault)])

    async def _receive(self, link: Link) -> None:
        async for message in link.incoming():
            if message.topic == self._info_topic:
                link.acknowledge(message)
                self._look_at_owner(message)
                continue
            # A session that the broker kept may hold subscriptions that are not ours any more.
            if self._hear is None or message.topic not in self._requests:
                link.acknowledge(message)
                continue
            try:
                answer = await self._hear(message)
            except Exception:
                # Once is enough: it would come again with every connection.
                link.acknowledge(message)
                raise
            # Before the answer: a broker that hangs up on that would send the request again for ever.
            link.acknowledge(message)
            if answer is not None:
                # Who asks chooses the topic: one entry for all that may not be answered.
                await self._send(link, answer, denied_as=f"{self._prefix}/{self._node}/response")
            # Of many that wait none makes us wait: a tick that is due meanwhile comes first.
            await asyncio.sleep(0)

    def _look_at_owner(self, message: Incoming) -> None:
        """Leave if this `info` is not ours.

        Raises:
            MqttLinkError: another daemon publishes as our node.
        """
        judged = self._returning if message.retained else self._own is not None
        if judged and self._is_foreign(message.payload):
            raise MqttLinkError(f"another daemon publishes as node {self._node}", taken_over=True)
        self._owner_seen.set()

    def _is_foreign(self, payload: bytes | None) -> bool:
        try:
            values = json.loads(payload or b"null")
        except (ValueError, RecursionError):
            return False
        return isinstance(values, dict) and self._identity(values) != self._own

    async def _occupied(self, endpoint: Endpoint) -> bool:
        """Whether the other daemon is still there: asked under another client id, so as not to disturb it."""
        stranger = dataclasses.replace(
            endpoint, identifier=f"{endpoint.identifier}-probe", will=None, session_expiry_s=0
        )
        status_topic = topic(self._prefix, self._node, "status")
        found: dict[str, bytes | None] = {}
        async with connect(stranger) as link:
            await link.subscribe({status_topic: 0, self._info_topic: 0})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETAINED_S):
                    async for message in link.incoming():
                        found[message.topic] = message.payload
                        if len(found) == 2:  # noqa: PLR2004 - both topics
                            break
        return found.get(status_topic) == ONLINE and self._is_foreign(found.get(self._info_topic))

    def _yield(self) -> float:
        """Leave the place to the other daemon; seconds until we look again."""
        self._yielding = True
        delay_s, self._yield_s = self._yield_s, min(2.0 * self._yield_s, LONGEST_YIELD_S)
        log.warning("mqtt_taken_over", broker=self._broker, error=self._error, looks_again_in_s=delay_s)
        return delay_s

    async def _send_states(self, link: Link) -> None:
        while True:
            message = await self._states.take()
            if message.qos:
                await self._send(link, message)
            else:
                quick = [message, *self._states.take_waiting(lambda of: of.qos == 0)]
                await link.post(quick)
                self._published += len(quick)

    async def _send_events(self, link: Link) -> None:
        async def publish(event: Event, replayed: bool) -> None:  # noqa: FBT001 - the courier's
            await link.publish(self._outgoing(event.name, event.encoded(replayed=replayed), waits=True))
            self._published += 1
            self._permitted(topic(self._prefix, self._node, event.name))

        await self.courier.deliver(publish, self._note_denied)

    async def _flush(self, link: Link) -> None:
        sending = asyncio.create_task(self._send_events(link), name="mqtt-last-events")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await _first_of([sending, asyncio.create_task(self.courier.flush(), name="mqtt-flush")])

    async def _send(self, link: Link, message: Outgoing, *, denied_as: str | None = None) -> bool:
        """Whether the broker let it pass."""
        name = denied_as or message.topic
        try:
            await link.publish(message)
        except MqttDeniedError as error:
            self._note_denied(name, str(error))
            return False
        self._published += 1
        self._permitted(name)
        return True

    def _offer_telemetry(self, tick: Tick) -> None:
        gate = self._gates["telemetry"]
        if not gate.cadence.ticks:
            return
        event = telemetry_event(tick.frame)
        if not gate.due(event.payload, self._clock()):
            return
        if self._keep_telemetry and self._link is None:
            self.courier.offer([event])
        else:
            self.publish(Message("telemetry", event.encoded(replayed=False)))

    def _outgoing(self, name: str, payload: bytes, *, waits: bool = False) -> Outgoing:
        rule = TOPICS[name]
        return Outgoing(
            topic(self._prefix, self._node, name),
            payload,
            # What was kept in the outbox is to be acknowledged before it is forgotten there.
            qos=1 if waits else rule.qos,
            retain=rule.retain,
            content_type="text/plain" if name == "status" else "application/json",
            expiry_s=self.expiry_s.get(name) if rule.expires and not waits else None,
            properties=() if name == "status" else NAMED,
        )

    @property
    def _info_topic(self) -> str:
        return topic(self._prefix, self._node, "info")

    @property
    def _broker(self) -> str:
        return f"{self._endpoint.host}:{self._endpoint.port}"

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()

    def _note_error(self, error: str) -> None:
        if error != self._error:
            log.warning("mqtt_unavailable", broker=self._broker, error=error)
        self._error = error

    def _note_denied(self, name: str, reason: str) -> None:
        self._denied[name] = reason
        if name not in self._denied_told:
            self._denied_anew.set()

    def _permitted(self, name: str) -> None:
        self._denied.pop(name, None)
        self._denied_told.discard(name)

    async def _tell_denials(self) -> None:
        """Log what the broker denies, all that it denies at once in one line, and each but once."""
        while True:
            await self._denied_anew.wait()
            await asyncio.sleep(DENIALS_S)
            self._denied_anew.clear()
            new = {name: reason for name, reason in self._denied.items() if name not in self._denied_told}
            self._denied_told.update(new)
            if new:
                log.warning("mqtt_denied", broker=self._broker, error="; ".join(new.values()))


class _Versions:
    """Which MQTT to speak next: the older one where the newer is not understood, and then for good."""

    def __init__(self, setting: Literal["auto", "5", "3.1.1"]) -> None:
        self._choose = setting == "auto"
        self.current: Protocol = "3.1.1" if setting == "3.1.1" else "5"
        self._proven = False

    def stands(self) -> None:
        """A connection was made: if of MQTT 5, a later silence says nothing about the version."""
        self._proven = self._proven or self.current == "5"

    def give_way(self, error: MqttLinkError) -> bool:
        """Whether to try at once with another version after `error`.

        A broker that says that it does not speak ours is believed. One that says nothing may be an old one,
        or down behind a proxy: then each version has its turn.
        """
        if not self._choose:
            return False
        if error.unsupported and self.current == "5":
            self.current = "3.1.1"
            return True
        if error.unanswered and not self._proven:
            self.current = "3.1.1" if self.current == "5" else "5"
            return self.current == "3.1.1"
        return False


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
