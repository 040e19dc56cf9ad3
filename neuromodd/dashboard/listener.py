"""The terminal view's ear: keeps a connection to the broker and hands over what comes in."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn

from neuromodd.config import BrokerAddress, Settings
from neuromodd.core.messages import TOPICS, topic
from neuromodd.dashboard.glyphs import cleaned
from neuromodd.errors import MqttLinkError
from neuromodd.mqtt import Backoff, Endpoint, Incoming, Link, Protocol, connect
from neuromodd.tls import Tls

ANY = "+"
"""In place of a node's name, each."""

ERROR_LIMIT = 200


class Connection(NamedTuple):
    """How the connection is.

    Attributes:
        broker: its address and port.
        connected: whether it stands.
        error: why it does not, or what the broker does not let us read; empty if all is well.
    """

    broker: str
    connected: bool
    error: str


class Listener:
    """Subscribes to topics of nodes, and again after each loss. Mutable.

    Args:
        settings: of the section `mqtt`.
        broker: where to connect.
        password: for the broker.
        hear: takes what comes in.

    Attributes:
        connection: how it is now.
    """

    def __init__(
        self,
        settings: Settings,
        broker: BrokerAddress,
        password: str | None,
        hear: Callable[[Incoming], None],
    ) -> None:
        mqtt = settings.mqtt
        self._prefix = mqtt.prefix
        self._hear = hear
        self._choose = mqtt.protocol == "auto" and not broker.embedded
        self._protocol: Protocol = "3.1.1" if broker.embedded or mqtt.protocol == "3.1.1" else "5"
        self._endpoint = Endpoint(
            host=broker.host,
            port=broker.port,
            identifier=f"neuromodd-top-{uuid.uuid4().hex[:12]}",
            username=mqtt.username,
            password=password,
            tls=Tls.of(mqtt.tls) if mqtt.tls_enabled else None,
            keepalive_s=mqtt.keepalive_s,
        )
        self._backoff = Backoff(random.Random())  # noqa: S311 - jitter, no secret
        self._wanted: dict[str, int] = {}
        self._asked: set[str] = set()
        self._changed = asyncio.Event()
        self.connection = Connection(f"{broker.host}:{broker.port}", connected=False, error="")

    def want(self, node: str, names: Iterable[str]) -> None:
        """Also listen to these topics of a node, or of `ANY`."""
        for name in names:
            self._wanted[topic(self._prefix, node, name)] = TOPICS[name].qos
        self._changed.set()

    async def run(self) -> NoReturn:
        """Listen until it is cancelled."""
        while True:
            try:
                async with connect(self._of_version()) as link:
                    await self._stay(link)
            except MqttLinkError as error:
                self._set(connected=False, error=str(error))
                if not self._other_version(error):
                    now_s = asyncio.get_running_loop().time()
                    await asyncio.sleep(self._backoff.delay_s(now_s, refused_login=error.refused_login))

    def _of_version(self) -> Endpoint:
        return dataclasses.replace(self._endpoint, protocol=self._protocol)

    def _other_version(self, error: MqttLinkError) -> bool:
        """Whether to try at once with MQTT 3.1.1, as some brokers speak no other."""
        if not self._choose or not (error.unsupported or error.unanswered):
            return False
        self._protocol = "3.1.1" if self._protocol == "5" or error.unsupported else "5"
        return self._protocol == "3.1.1"

    async def _stay(self, link: Link) -> None:
        """Subscribe to what is wanted and listen until the connection is lost."""
        self._asked = set()
        tasks = [
            asyncio.create_task(link.lost(), name="top-lost"),
            asyncio.create_task(self._receive(link), name="top-receive"),
            asyncio.create_task(self._subscribe(link), name="top-subscribe"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _subscribe(self, link: Link) -> NoReturn:
        refused: dict[str, str] = {}
        while True:
            self._changed.clear()
            if new := {name: qos for name, qos in self._wanted.items() if name not in self._asked}:
                refused |= await link.subscribe(new)
                self._asked |= new.keys()
            self._choose = False
            self._backoff.reset()
            denied = "; ".join(f"{name}: the broker refused it: {why}" for name, why in refused.items())
            self._set(connected=True, error=denied)
            await self._changed.wait()

    async def _receive(self, link: Link) -> None:
        async for message in link.incoming():
            self._hear(message)
            link.acknowledge(message)

    def _set(self, *, connected: bool, error: str) -> None:
        # A broker's words too are somebody's.
        self.connection = Connection(self.connection.broker, connected, cleaned(error, ERROR_LIMIT))
