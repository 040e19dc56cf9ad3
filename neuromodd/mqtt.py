"""The MQTT client: the only importer of aiomqtt.

`connect` gives one connection; whoever holds it reconnects with the delays of `Backoff`. aiomqtt has no
reconnect of its own, and paho's queue has no bound: both are ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from neuromodd.errors import MqttLinkError

TIMEOUT_S = 5.0
"""For connecting, and for the broker's word on a message of QoS 1."""

REFUSAL_S = 0.1
"""What the word of a broker that closes the connection may take to reach us."""

FIRST_DELAY_S = 0.1
SHORT_DELAY_S = 1.0
LONG_DELAY_S = 30.0
SHORT_OUTAGE_S = 300.0

_BAD_LOGIN = frozenset({4, 5, 134, 135})
"""Bad user name or password, not authorised: of MQTT 3.1.1 and of 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and as whom to connect.

    Attributes:
        identifier: the client id; stable, so that the broker knows us again.
        will: topic and payload that the broker publishes (QoS 1, retained) when we vanish.
        tls: whether to speak TLS (1.2 or later, verified), and with which CA file if not the system's.
    """

    host: str
    port: int
    identifier: str
    will: tuple[str, bytes] | None = None
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    keepalive_s: int = 30

    def __repr__(self) -> str:
        return f"Endpoint({self.host}:{self.port})"


class Link:
    """One connection to a broker."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish; with QoS 1, return when the broker has acknowledged.

        Raises:
            MqttLinkError: the connection is lost, or the broker took too long.
        """
        try:
            await self._client.publish(topic, payload, qos=qos, retain=retain, timeout=TIMEOUT_S)
        except (aiomqtt.MqttError, ValueError) as error:
            raise MqttLinkError(str(error)) from None

    async def lost(self) -> None:
        """Wait until the connection is lost.

        Raises:
            MqttLinkError: always, when it is.
        """
        try:
            async for _message in self._client.messages:
                pass
        except aiomqtt.MqttError as error:
            raise MqttLinkError(str(error.__cause__ or error)) from None


@contextlib.asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[Link]:
    """Connect, hand over the link, disconnect.

    Raises:
        MqttLinkError: the broker can't be reached or refuses us.
    """
    try:
        client = _client(endpoint)
        await _open(client)
    except aiomqtt.exceptions.MqttConnectError as error:
        code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
        raise MqttLinkError(f"the broker refused: {error}", refused_login=code in _BAD_LOGIN) from None
    except MqttLinkError:
        raise
    except TimeoutError:
        raise MqttLinkError("the broker did not answer in time") from None
    except (aiomqtt.MqttError, OSError) as error:
        raise MqttLinkError(str(error) or type(error).__name__) from None
    try:
        yield Link(client)
    finally:
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                await client.__aexit__(None, None, None)


async def _open(client: aiomqtt.Client) -> None:
    """Enter the client; a connection that comes to nothing is closed at once.

    aiomqtt does not notice a broker that accepts and hangs up, as a proxy before a dead broker does, and
    leaves its socket open when no answer comes. Its paho client is the only way to either.
    """
    paho = client._client  # noqa: SLF001 - see above
    loop, hung_up, on_socket_close = asyncio.get_running_loop(), asyncio.Event(), paho.on_socket_close

    def closed(*arguments: Any) -> None:  # noqa: ANN401 - paho's
        if on_socket_close is not None:
            on_socket_close(*arguments)
        loop.call_soon_threadsafe(hung_up.set)

    paho.on_socket_close = closed
    opening = asyncio.create_task(client.__aenter__(), name="mqtt-open")
    watching = asyncio.create_task(hung_up.wait(), name="mqtt-hung-up")
    try:
        async with asyncio.timeout(2 * TIMEOUT_S):
            await asyncio.wait((opening, watching), return_when=asyncio.FIRST_COMPLETED)
            # A refusal closes the socket too, and is then about to be raised.
            await asyncio.wait((opening,), timeout=None if opening.done() else REFUSAL_S)
        if not opening.done():
            raise MqttLinkError("the broker hung up before it answered")  # noqa: TRY301 - close it below
        opening.result()
    except BaseException:
        opening.cancel()
        # One that hangs in a resolver may still connect later, and must not live beside its successor.
        paho.on_connect = lambda late, *_: late.disconnect()
        paho.disconnect()
        raise
    finally:
        watching.cancel()


def _client(endpoint: Endpoint) -> aiomqtt.Client:
    return aiomqtt.Client(
        endpoint.host,
        endpoint.port,
        identifier=endpoint.identifier,
        username=endpoint.username,
        password=endpoint.password,
        will=None if endpoint.will is None else aiomqtt.Will(*endpoint.will, qos=1, retain=True),
        keepalive=endpoint.keepalive_s,
        timeout=TIMEOUT_S,
        # At most one publication of each of the holder's tasks is on its way.
        max_queued_outgoing_messages=10,
        max_queued_incoming_messages=1,
        tls_context=_tls_context(endpoint),
        # Otherwise Nagle's algorithm holds a small message back for up to 40 ms.
        socket_options=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
    )


def _tls_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    if not endpoint.tls:
        return None
    context = ssl.create_default_context(cafile=endpoint.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Backoff:
    """Delays between attempts to connect: full jitter under a cap that doubles from 0.1 s.

    The cap stays at 1 s in the first five minutes of an outage, so that a restarted broker is found at
    once, and then grows to 30 s. A refused login goes straight to 30 s: trying faster only fills the
    broker's log.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._attempt = 0
        self._since_s: float | None = None

    def reset(self) -> None:
        """The connection stands: the next outage begins afresh."""
        self._attempt = 0
        self._since_s = None

    def delay_s(self, now_s: float, *, refused_login: bool = False) -> float:
        """Seconds to wait after an attempt that failed at the monotonic time `now_s`."""
        if refused_login:
            return LONG_DELAY_S
        if self._since_s is None:
            self._since_s = now_s
        limit = SHORT_DELAY_S if now_s - self._since_s < SHORT_OUTAGE_S else LONG_DELAY_S
        cap = min(FIRST_DELAY_S * 2.0 ** min(self._attempt, 30), limit)
        self._attempt += 1
        return self._rng.uniform(0.0, cap)
