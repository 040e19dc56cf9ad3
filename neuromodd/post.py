"""The daemon's MQTT side put together: outbox, courier, publisher, ear, and what Home Assistant is told."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from neuromodd import __version__
from neuromodd.config import BrokerAddress, Settings
from neuromodd.core.brain import Tick
from neuromodd.core.cadence import Cadence
from neuromodd.core.frame import WorkSample
from neuromodd.core.messages import OFFLINE, REQUEST_TOPICS, TOPICS, Message, topic
from neuromodd.core.payloads import InboundHealth
from neuromodd.core.rewards import RewardEvent
from neuromodd.ear import Actions, Ear
from neuromodd.errors import InvalidRecordError
from neuromodd.eye import clock_s
from neuromodd.mqtt import Backoff, Endpoint, Incoming, Outgoing
from neuromodd.sinks.courier import Courier
from neuromodd.sinks.outbox import FILE_NAME, Outbox
from neuromodd.sinks.publisher import Cadences, Publisher
from neuromodd.tls import Tls

if TYPE_CHECKING:
    from neuromodd.core.homeassistant import Announcement

OPEN_S = 1.5
"""What a slow disk may take to tell what an earlier run left."""

LONGEST_EXPIRY_S = 2**32 - 1
"""The most that MQTT 5 can say."""

HOME_FRAMES = 3
LONG_TICK_S = 10.0
"""Home Assistant is told after so many frames, or with the first where they are far apart."""

NOTE = "homeassistant"
BIRTH = b"online"

log = structlog.get_logger()


class Post:
    """Everything between the tick loop and the broker.

    Args:
        settings: all of them.
        broker: where to publish.
        password: for the broker.
        directory: where the outbox is.
        boot: names this boot.
        actions: what requests can ask for.
        announce: the `info` and `health` messages of this moment.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        broker: BrokerAddress,
        password: str | None,
        directory: Path,
        boot: str | None,
        actions: Actions,
        announce: Callable[[], list[Message]],
    ) -> None:
        mqtt = settings.mqtt
        self._settings = settings
        self._node = settings.node_name()
        self._root = f"{mqtt.prefix}/{self._node}"
        self.courier = Courier(
            Outbox(
                directory / FILE_NAME,
                max_events=mqtt.outbox.max_events,
                max_bytes=mqtt.outbox.max_bytes,
                max_age_s=mqtt.outbox.max_age_s,
                boot=boot,
                clock=clock_s,
            ),
            rate_per_s=mqtt.outbox.rate_per_s,
            clock=clock_s,
        )
        self._ear = Ear(
            node=self._node,
            root=self._root,
            guarded=(mqtt.prefix, settings.homeassistant.prefix),
            rate_per_s=mqtt.inbound.rate_per_s,
            work_fresh_s=mqtt.inbound.work_fresh_s,
            actions=actions,
            clock=clock_s,
            now_utc=lambda: datetime.now(UTC),
        )
        self._home = self._announcement() if settings.homeassistant.enabled else None
        self._home_frames = 0
        self._note_read = False
        self._forgotten: set[str] = set()
        self.publisher = Publisher(
            endpoint=self._endpoint(broker, password),
            protocol="3.1.1" if broker.embedded else mqtt.protocol,
            prefix=mqtt.prefix,
            node=self._node,
            courier=self.courier,
            cadences=_cadences(settings),
            expiry_s=_expiry_s(settings),
            keep_telemetry=mqtt.buffer_telemetry,
            announce=announce,
            identity=_identity,
            requests=self._requests(),
            hear=self._hear,
            extras=self._extras,
            extra_sent=self._extra_sent,
            inbound_health=self._inbound_health,
            # Not the engine's generator: how often a broker fails must not change what is learned.
            backoff=Backoff(random.Random()),  # noqa: S311 - jitter, no secret
            clock=clock_s,
        )

    async def open(self) -> list[RewardEvent]:
        """What an earlier run took in and did not live through; and what it told Home Assistant."""
        try:
            async with asyncio.timeout(OPEN_S):
                left = await self.courier.left_over()
                note = await self.courier.note(NOTE)
        except TimeoutError:
            log.warning("outbox_slow", waited_s=OPEN_S)
            return []
        if isinstance(note, dict):
            if self._home is not None:
                self._home.restore(note)
                self._home_frames = HOME_FRAMES
            else:
                from neuromodd.core.homeassistant import remembered_topics  # noqa: PLC0415 - as below

                self._forgotten = set(remembered_topics(note))
        self._note_read = True
        return [event for event in map(_event_of, left) if event is not None]

    def observe(self, tick: Tick) -> None:
        """Tell Home Assistant of what this tick is the first to show."""
        if self._home is None:
            return
        changed = self._home.observe(tick.frame, tick.frame.monotonic_s)
        self._home_frames += 1
        if (changed and self._home_known) or self._home_frames == HOME_FRAMES:
            self.publisher.send(_document(self._home))
            self._take_note()

    @property
    def work(self) -> WorkSample | None:
        """The work that a program of the user's reports, while it is fresh."""
        return self._ear.work if self._settings.mqtt.inbound.enabled else None

    def reload(self, settings: Settings) -> None:
        """Take over what may change while running."""
        self._settings = settings
        self.publisher.expiry_s = _expiry_s(settings)
        self.publisher.pace(_cadences(settings))

    def _endpoint(self, broker: BrokerAddress, password: str | None) -> Endpoint:
        mqtt = self._settings.mqtt
        return Endpoint(
            host=broker.host,
            port=broker.port,
            identifier=mqtt.client_id or f"neuromodd-{self._node}",
            will=Outgoing(
                topic(mqtt.prefix, self._node, "status"), OFFLINE, 1, retain=True, content_type="text/plain"
            ),
            username=mqtt.username,
            password=password,
            tls=Tls.of(mqtt.tls) if mqtt.tls_enabled else None,
            keepalive_s=mqtt.keepalive_s,
            # The embedded broker forgets everything with us.
            session_expiry_s=mqtt.inbound.session_expiry_s
            if mqtt.inbound.enabled and not broker.embedded
            else 0,
        )

    def _requests(self) -> Mapping[str, int]:
        asked: dict[str, int] = {}
        if self._settings.mqtt.inbound.enabled:
            asked |= {f"{self._root}/{name}": qos for name, qos in REQUEST_TOPICS.items()}
        if self._settings.homeassistant.enabled:
            asked[self._birth_topic] = 0
        return asked

    async def _hear(self, message: Incoming) -> Outgoing | None:
        if message.topic == self._birth_topic:
            if message.payload == BIRTH and not message.retained and self._home and self._home_known:
                self.publisher.send(_document(self._home))
            return None
        return await self._ear.hear(message)

    def _extras(self) -> list[Outgoing]:
        """What is published after each connect: a broker may have lost what it kept."""
        gone = sorted(self._forgotten) if self._home is None else self._home.withdrawals()
        messages = [Outgoing(told, b"", 1, retain=True) for told in gone]
        return [*messages, _document(self._home)] if self._home and self._home_known else messages

    def _extra_sent(self, message: Outgoing) -> None:
        if message.payload:
            return
        if self._home is not None:
            self._home.withdrawn(message.topic)
            self._take_note()
        else:
            self._forgotten.discard(message.topic)
            if not self._forgotten:
                self.courier.take_note(NOTE, None)

    def _take_note(self) -> None:
        # Over one that could not be read in time, what is to be removed would be forgotten.
        if self._note_read and self._home is not None:
            self.courier.take_note(NOTE, self._home.state())

    @property
    def _home_known(self) -> bool:
        """Whether frames have shown most of what there is: the first has no rates."""
        return self._home_frames >= HOME_FRAMES or self._settings.tick.interval_s > LONG_TICK_S

    def _announcement(self) -> Announcement:
        # Not at the top: a megabyte that a daemon without Home Assistant is spared.
        from neuromodd.core.homeassistant import Announcement  # noqa: PLC0415

        return Announcement(
            node=self._node,
            base=self._root,
            discovery_prefix=self._settings.homeassistant.prefix,
            version=__version__,
        )

    @property
    def _birth_topic(self) -> str:
        return f"{self._settings.homeassistant.prefix}/status"

    def _inbound_health(self) -> InboundHealth | None:
        return self._ear.health if self._settings.mqtt.inbound.enabled else None


def _document(home: Announcement) -> Outgoing:
    return Outgoing(home.topic, home.document(), 1, retain=True, content_type="application/json")


def _event_of(left: tuple[str, str]) -> RewardEvent | None:
    identity, text = left
    try:
        return RewardEvent.from_json(text)
    except InvalidRecordError as error:
        # Of a newer version, say; it stays where it is.
        log.warning("reward_not_understood", id=identity, error=str(error))
        return None


def _cadences(settings: Settings) -> Cadences:
    publish = settings.mqtt.publish
    return Cadences(
        telemetry=Cadence.parse(publish.telemetry),
        state=Cadence.parse(publish.state),
        spikes=Cadence.parse(publish.spikes),
        health=publish.health,
        reward=publish.reward,
        fault=publish.fault,
        anomaly=publish.anomaly,
    )


def _expiry_s(settings: Settings) -> dict[str, int]:
    """When a message of each topic expires: not before the third one after it is overdue."""
    cadences, mqtt = _cadences(settings), settings.mqtt
    between_s = {
        name: settings.tick.interval_s * max(getattr(cadences, name).ticks, 1)
        for name in ("telemetry", "state", "spikes")
    }
    between_s["health"] = mqtt.health_interval_s
    return {
        name: min(max(mqtt.state_expiry_s, math.ceil(3.0 * between_s[name])), LONGEST_EXPIRY_S)
        for name, rule in TOPICS.items()
        if rule.expires
    }


def _identity(info: Mapping[str, Any]) -> object:
    """What of `info` differs from run to run; None of what is no `info`."""
    return None if "started_utc" not in info else json.dumps([info.get("boot_id"), info["started_utc"]])
