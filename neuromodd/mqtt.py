"""The MQTT client: the only importer of aiomqtt and of paho beneath it.

`connect` gives one connection; whoever holds it reconnects with the delays of `Backoff`. aiomqtt has no
reconnect of its own, hides what a broker answers to a message, and acknowledges what comes in before anybody
has seen it: those are ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, MQTTMessageInfo, error_string
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from neuromodd.errors import MqttDeniedError, MqttLinkError
from neuromodd.tls import Complaints, Tls, plain

Protocol = Literal["5", "3.1.1"]

TIMEOUT_S = 5.0
"""For connecting, and for the broker's word on a message of QoS 1."""

LEAVE_S = 1.0
"""A broker that does not read is not waited for, to be told that we leave."""

REFUSAL_S = 0.1
"""What the word of a broker that closes the connection may take to reach us."""

IN_FLIGHT = 20
"""Messages of QoS 1 that are on their way to the broker at once."""

INCOMING_LIMIT = 256
"""Messages that came in and wait to be looked at; of QoS 0 half as many."""

INCOMING_IN_FLIGHT = 64
"""Messages of QoS 1 that a broker may send before the first is acknowledged (MQTT 5)."""

INCOMING_BYTES = 65_536
"""The largest packet that a broker may send us (MQTT 5)."""

PAYLOAD_BYTES = 16_384
"""Of a larger payload only the size is kept."""

FIRST_DELAY_S = 0.1
SHORT_DELAY_S = 1.0
LONG_DELAY_S = 30.0
SHORT_OUTAGE_S = 300.0

_BAD_LOGIN = frozenset({4, 5, 134, 135})
"""Bad user name or password, not authorised: of MQTT 3.1.1 and of 5."""

_UNSUPPORTED = frozenset({1, 132})
"""Unacceptable protocol version: of MQTT 3.1.1 and of 5."""

_PUBLISH = 0x30
_TAKEN_OVER = 142
_NOBODY_LISTENS = 16
_UNSPECIFIED = 128

_NO_ANSWER = "Operation timed out"
"""aiomqtt's words."""


class Outgoing(NamedTuple):
    """One publication.

    Attributes:
        topic: in full.
        payload: bytes.
        qos: quality of service.
        retain: whether the broker keeps it.
        content_type: MIME type (MQTT 5); given one, the payload is said to be UTF-8.
        expiry_s: when the broker forgets it (MQTT 5).
        properties: names and values for whoever reads it (MQTT 5).
        correlation: of the request that this answers (MQTT 5).
        response_topic: where an answer is expected (MQTT 5).
    """

    topic: str
    payload: bytes
    qos: Literal[0, 1] = 0
    retain: bool = False
    content_type: str | None = None
    expiry_s: int | None = None
    properties: tuple[tuple[str, str], ...] = ()
    correlation: bytes | None = None
    response_topic: str | None = None


class Incoming(NamedTuple):
    """One message that came in; to be acknowledged with `Link.acknowledge`.

    Attributes:
        topic: in full.
        payload: bytes; None if there are more than PAYLOAD_BYTES.
        size: of the payload.
        qos: quality of service.
        retained: whether the broker kept it for us.
        response_topic: where an answer is expected (MQTT 5).
        correlation: to be sent along with it.
        number: of the packet.
    """

    topic: str
    payload: bytes | None
    size: int
    qos: int
    retained: bool
    response_topic: str | None
    correlation: bytes | None
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and as whom to connect.

    Attributes:
        identifier: the client id; stable, so that the broker knows us again.
        will: what the broker publishes when we vanish.
        tls: how to speak TLS; None for a plain connection.
        protocol: which MQTT.
        session_expiry_s: how long the broker keeps our subscriptions and what comes for them while we are
            away; 0 for not at all. MQTT 3.1.1 knows no time: for as long as the broker likes.
    """

    host: str
    port: int
    identifier: str
    will: Outgoing | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    keepalive_s: int = 30
    protocol: Protocol = "5"
    session_expiry_s: int = 0

    def __repr__(self) -> str:
        return f"Endpoint({self.host}:{self.port})"


class Link:
    """One connection to a broker.

    Attributes:
        protocol: that it speaks.
        dropped: messages that came in faster than they were looked at.
    """

    def __init__(self, client: aiomqtt.Client, protocol: Protocol) -> None:
        self.protocol: Protocol = protocol
        self.dropped = 0
        self._client = client
        # What the broker answers to a message, and acknowledging only what was dealt with, aiomqtt does not
        # offer; its paho client does.
        self._paho = client._client  # noqa: SLF001
        self._loop = asyncio.get_running_loop()
        self._publishing = False
        self._emptied = asyncio.Event()
        self._answers: dict[int, asyncio.Future[ReasonCode]] = {}
        self._incoming: asyncio.Queue[Incoming] = asyncio.Queue()
        self._ended: asyncio.Future[BaseException | ReasonCode] = self._loop.create_future()
        self._paho.on_message = self._came_in
        self._on_disconnect: Callable[..., None] = client._on_disconnect  # noqa: SLF001 - as above
        self._paho.on_disconnect = self._disconnected
        self._paho.manual_ack_set(on=True)

    async def publish(self, message: Outgoing) -> bool:
        """Publish; with QoS 1, return when the broker has acknowledged.

        Returns:
            False if the broker said that nobody has subscribed to the topic.

        Raises:
            MqttLinkError: the connection is lost, or the broker took too long.
            MqttDeniedError: the broker refused the message.
        """
        if message.qos == 0:
            await self.post([message])
            return True
        info = self._begin(message)
        answer = self._answers[info.mid] = self._loop.create_future()
        # Only while somebody waits: paho makes two objects for each call, also of QoS 0.
        self._paho.on_publish = self._answered
        try:
            await asyncio.wait(
                (answer, self._ended),
                timeout=TIMEOUT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._answers.pop(info.mid, None)
            if not self._answers:
                self._paho.on_publish = None
        if not answer.done():
            if self._ended.done():
                raise self._loss()
            raise MqttLinkError("the broker did not answer in time")
        if answer.result().is_failure:
            raise MqttDeniedError(message.topic, str(answer.result()).lower())
        return bool(answer.result().value != _NOBODY_LISTENS)

    async def post(self, messages: Sequence[Outgoing]) -> None:
        """Publish messages of QoS 0 in one write; return when the socket has taken them.

        Through paho each would cost a tick a tenth of what it costs as a whole.

        Raises:
            MqttLinkError: the connection is lost, or the broker took too long.
        """
        rest = self._send_now(b"".join(_packet(message, self.protocol) for message in messages))
        if not rest:
            return
        self._publishing = True
        try:
            # Behind what waits there; it may be a part of a packet, or several: paho only writes it.
            self._paho._packet_queue(_PUBLISH, rest, 0, 0, MQTTMessageInfo(0))  # noqa: SLF001 - as above
        finally:
            self._publishing = False
        self._write()
        if not self._emptied.is_set():
            await self._wait_until_written()

    def _send_now(self, data: bytes) -> bytes:
        """Send to the socket what it takes at once; what is left."""
        plain = self._paho.socket()
        if plain is None:
            raise self._loss() if self._ended.done() else MqttLinkError("the connection was lost")
        if self._paho.want_write() or isinstance(plain, ssl.SSLSocket):
            # TLS wants the same bytes again that it did not take, and paho keeps them.
            return data
        try:
            return data[plain.send(data) :]
        except OSError:
            # It would block, or is lost; paho finds out which.
            return data

    async def _wait_until_written(self) -> None:
        emptied = asyncio.ensure_future(self._emptied.wait())
        try:
            await asyncio.wait((emptied, self._ended), timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            emptied.cancel()
        if not self._emptied.is_set():
            raise self._loss() if self._ended.done() else MqttLinkError("the broker did not answer in time")

    def _begin(self, message: Outgoing) -> MQTTMessageInfo:
        """Give a message to paho, and have it written at once if the socket takes it.

        Raises:
            MqttLinkError: the connection is lost.
        """
        self._publishing = True
        try:
            info = self._paho.publish(
                message.topic,
                message.payload,
                message.qos,
                message.retain,
                _properties(message) if self.protocol == "5" else None,
            )
        except ValueError as error:
            raise MqttLinkError(str(error)) from None
        finally:
            self._publishing = False
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._loss() if self._ended.done() else MqttLinkError(error_string(info.rc))
        self._write()
        return info

    def _write(self) -> None:
        """Write what waits; what the socket does not take is written when it does."""
        _write_out(self._paho, self._client._disconnected)  # noqa: SLF001 - as above
        watched = self._paho.socket()
        if not self._paho.want_write():
            self._emptied.set()
            return
        self._emptied.clear()
        if watched is not None and watched.fileno() >= 0:
            self._loop.add_writer(watched.fileno(), self._write)

    def _wants_to_write(self, *_: Any) -> None:  # noqa: ANN401 - paho's
        if not self._publishing:
            self._loop.call_soon(self._write)

    async def subscribe(
        self, topics: Mapping[str, int], *, as_published: Container[str] = ()
    ) -> dict[str, str]:
        """Subscribe to topics at a quality of service each; which of them the broker refused, and why.

        On those of `as_published` a message that was to be kept is told from others also when it comes live
        (MQTT 5); else only those that had been kept before are `retained`.

        Raises:
            MqttLinkError: the connection is lost, or the broker took too long.
        """
        try:
            granted = await self._client.subscribe(self._wishes(topics, as_published), timeout=TIMEOUT_S)
        except (aiomqtt.MqttError, ValueError) as error:
            raise MqttLinkError(str(error)) from None
        return {
            topic: str(code).lower()
            for topic, code in zip(topics, granted, strict=True)
            if isinstance(code, ReasonCode) and code.is_failure
        }

    def _wishes(self, topics: Mapping[str, int], as_published: Container[str]) -> Any:  # noqa: ANN401 - paho's
        if self.protocol != "5":
            return list(topics.items())
        return [
            (topic, SubscribeOptions(qos=qos, retainAsPublished=topic in as_published))
            for topic, qos in topics.items()
        ]

    async def incoming(self) -> AsyncIterator[Incoming]:
        """What comes in, for as long as somebody asks."""
        while True:
            yield await self._incoming.get()

    def acknowledge(self, message: Incoming) -> None:
        """Tell the broker that it need not send this again."""
        self._paho.ack(message.number, message.qos)

    async def lost(self) -> None:
        """Wait until the connection is lost.

        Raises:
            MqttLinkError: always, when it is.
        """
        await asyncio.wait((self._ended,))
        raise self._loss()

    def watch(self) -> None:
        """From now on the connection stands; aiomqtt keeps failures of the socket to itself."""
        self._client._disconnected.add_done_callback(self._broke)  # noqa: SLF001 - as above
        # From here on only the loop's own thread writes.
        self._paho.on_socket_register_write = self._wants_to_write
        # aiomqtt looks after the connection once a second: a twentieth of what a daemon at 1 Hz costs.
        if self._client._misc_task is not None:  # noqa: SLF001 - as above
            self._client._misc_task.cancel()  # noqa: SLF001 - as above
        self._look_after()

    def _look_after(self) -> None:
        """Ping the broker if nothing else has been heard or said, and see whether it answered."""
        if self._ended.done():
            return
        try:
            stands = self._paho.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError as error:
            self._ended.set_result(error)
            return
        if stands:
            # Of what is agreed with the broker, which waits half of it longer than it says.
            self._loop.call_later(max(self._paho.keepalive / 8.0, 1.0), self._look_after)

    def _loss(self) -> MqttLinkError:
        """Why the connection was lost."""
        reason = self._ended.result()
        if not isinstance(reason, ReasonCode):
            return MqttLinkError(plain(reason))
        if reason.value == _TAKEN_OVER:
            return MqttLinkError("another client with our id has taken the session over", taken_over=True)
        if not reason.is_failure or reason.value == _UNSPECIFIED:
            return MqttLinkError("the connection was lost")
        return MqttLinkError(f"the broker closed the connection: {str(reason).lower()}")

    def _disconnected(self, *arguments: Any) -> None:  # noqa: ANN401 - paho's
        reason = arguments[3]
        if not self._ended.done():
            self._ended.set_result(reason)
        self._on_disconnect(*arguments)

    def _broke(self, broken: asyncio.Future[None]) -> None:
        error = None if broken.cancelled() else broken.exception()
        if error is not None and not self._ended.done():
            self._ended.set_result(error)

    def _answered(
        self,
        _client: object,
        _data: object,
        number: int,
        code: ReasonCode,
        _properties: object,
    ) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(code)

    def _came_in(self, _client: object, _data: object, message: Any) -> None:  # noqa: ANN401 - paho's
        limit = INCOMING_LIMIT if message.qos else INCOMING_LIMIT // 2
        if self._incoming.qsize() >= limit:
            # Of QoS 1 only a broker of MQTT 3.1.1 sends so much; it comes again with the next connection.
            self.dropped += 1
            return
        payload = bytes(message.payload)
        properties = message.properties
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._incoming.put_nowait(
            Incoming(
                topic=topic,
                payload=payload if len(payload) <= PAYLOAD_BYTES else None,
                size=len(payload),
                qos=message.qos,
                retained=bool(message.retain),
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
                number=message.mid,
            )
        )


@contextlib.asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[Link]:
    """Connect, hand over the link, disconnect.

    Raises:
        MqttLinkError: the broker can't be reached or refuses us.
    """
    encrypted = endpoint.tls is not None
    try:
        # Reads the files anew, so that a renewed certificate is used; off the loop.
        context = None if endpoint.tls is None else await asyncio.to_thread(endpoint.tls.context)
        complaints = Complaints()
        client = _client(endpoint, context, complaints)
        link = Link(client, endpoint.protocol)
        await _open(client, complaints)
        link.watch()
    except aiomqtt.exceptions.MqttConnectError as error:
        raise _refusal(error, endpoint) from None
    except MqttLinkError as error:
        if not error.unanswered or encrypted:
            raise
        raise MqttLinkError(f"{error}; is it a TLS port?", unanswered=True) from None
    except TimeoutError:
        raise MqttLinkError("the broker did not answer in time", unanswered=True) from None
    except (aiomqtt.MqttError, OSError, UnicodeError) as error:
        if str(error) == _NO_ANSWER:
            raise MqttLinkError("the broker did not answer in time", unanswered=True) from None
        raise MqttLinkError(plain(error, tls=encrypted)) from None
    try:
        yield link
    finally:
        with contextlib.suppress(aiomqtt.MqttError, OSError):
            try:
                async with asyncio.timeout(LEAVE_S):
                    await client.__aexit__(None, None, None)
            except TimeoutError:
                # paho would close it when the keepalive is over, if anybody still looked after it.
                client._client._sock_close()  # noqa: SLF001 - as above


def _refusal(error: aiomqtt.exceptions.MqttConnectError, endpoint: Endpoint) -> MqttLinkError:
    known = isinstance(error.rc, ReasonCode)
    code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
    login = f" the login of {endpoint.username or 'nobody (no mqtt.username)'}" if code in _BAD_LOGIN else ""
    return MqttLinkError(
        f"the broker refused{login}: {str(error.rc).lower() if known else error}",
        refused_login=code in _BAD_LOGIN,
        unsupported=code in _UNSUPPORTED,
    )


async def _open(client: aiomqtt.Client, complaints: Complaints) -> None:
    """Enter the client; a connection that comes to nothing is closed at once.

    aiomqtt does not notice a broker that accepts and hangs up, as a proxy before a dead broker does, leaves
    its socket open when no answer comes, and may ask the loop to watch one that is closed by then. Its paho
    client is the only way to any of this.
    """
    paho = client._client  # noqa: SLF001 - see above
    loop, hung_up, on_socket_close = asyncio.get_running_loop(), asyncio.Event(), paho.on_socket_close

    def closed(*arguments: Any) -> None:  # noqa: ANN401 - paho's
        complaints.listen(arguments[-1])
        if on_socket_close is not None:
            on_socket_close(*arguments)
        # A client that was given up is collected at the end of the process, after the loop.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(hung_up.set)

    def write() -> None:
        _write_out(paho, broken)

    def watch(watched: socket.socket) -> None:
        # Closed meanwhile, its number may be another file's.
        if watched.fileno() >= 0:
            loop.add_writer(watched.fileno(), write)

    def wants_to_write(*arguments: Any) -> None:  # noqa: ANN401 - paho's
        loop.call_soon_threadsafe(watch, arguments[-1])

    paho.on_socket_close = closed
    paho.on_socket_register_write = wants_to_write
    broken = client._disconnected  # noqa: SLF001 - a broker's alert ends up there, and nowhere else
    # aiomqtt may put another in its place; what nobody asks for, the loop would complain of.
    broken.add_done_callback(_hear_out)
    opening = asyncio.create_task(client.__aenter__(), name="mqtt-open")
    watching = asyncio.create_task(hung_up.wait(), name="mqtt-hung-up")
    try:
        async with asyncio.timeout(2 * TIMEOUT_S):
            await asyncio.wait((opening, watching, broken), return_when=asyncio.FIRST_COMPLETED)
            # A refusal closes the socket too, and is then about to be raised.
            await asyncio.wait((opening,), timeout=None if opening.done() else REFUSAL_S)
        if not opening.done():
            raise _no_opening(broken, complaints)  # noqa: TRY301 - close it below
        opening.result()
    except BaseException:
        opening.cancel()
        # One that hangs in a resolver may still connect later, and must not live beside its successor.
        paho.on_connect = lambda late, *_: late.disconnect()
        paho.disconnect()
        raise
    finally:
        watching.cancel()


def _write_out(paho: PahoClient, broken: asyncio.Future[None]) -> None:
    try:
        paho.loop_write()
    except Exception as error:  # noqa: BLE001 - as aiomqtt does
        if not broken.done():
            broken.set_exception(error)


def _hear_out(broken: asyncio.Future[None]) -> None:
    if not broken.cancelled():
        broken.exception()


def _no_opening(broken: asyncio.Future[None], complaints: Complaints) -> MqttLinkError:
    """Why a connection that was closed did not come about."""
    if complaints.alerted:
        return MqttLinkError(plain(complaints.error))
    if broken.done() and (error := broken.exception()) is not None:
        return MqttLinkError(plain(error))
    return MqttLinkError("the broker hung up before it answered", unanswered=True)


def _client(endpoint: Endpoint, context: ssl.SSLContext | None, complaints: Complaints) -> aiomqtt.Client:
    # A logger that nobody else has, so that what it hears is of this connection.
    logger = logging.Logger("mqtt", logging.WARNING)  # noqa: LOG001 - see above
    logger.addHandler(complaints)
    newest = endpoint.protocol == "5"
    clean = endpoint.session_expiry_s == 0
    will = endpoint.will
    return aiomqtt.Client(
        endpoint.host,
        endpoint.port,
        logger=logger,
        identifier=endpoint.identifier,
        username=endpoint.username,
        password=endpoint.password,
        protocol=aiomqtt.ProtocolVersion.V5 if newest else aiomqtt.ProtocolVersion.V311,
        # Each version has its own word for it, and paho refuses the other's.
        clean_session=None if newest else clean,
        clean_start=clean if newest else MQTT_CLEAN_START_FIRST_ONLY,
        properties=_connect_properties(endpoint) if newest else None,
        will=None
        if will is None
        else aiomqtt.Will(
            will.topic, will.payload, will.qos, will.retain, _will_properties(will) if newest else None
        ),
        keepalive=endpoint.keepalive_s,
        timeout=TIMEOUT_S,
        max_inflight_messages=IN_FLIGHT,
        # All holders together have so many on their way; paho's queue has no bound of its own.
        max_queued_outgoing_messages=2 * IN_FLIGHT,
        tls_context=context,
        # Otherwise Nagle's algorithm holds a small message back for up to 40 ms.
        socket_options=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
    )


def _connect_properties(endpoint: Endpoint) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = endpoint.session_expiry_s
    properties.ReceiveMaximum = INCOMING_IN_FLIGHT
    properties.MaximumPacketSize = INCOMING_BYTES
    return properties


def _will_properties(will: Outgoing) -> Properties:
    properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
    if will.content_type is not None:
        properties.ContentType = will.content_type
        properties.PayloadFormatIndicator = 1
    return properties


def _packet(message: Outgoing, protocol: Protocol) -> bytes:
    """A PUBLISH packet of QoS 0 (MQTT 5, 3.3; MQTT 3.1.1, 3.3)."""
    topic = message.topic.encode()
    properties = _properties(message).pack() if protocol == "5" else b""
    left = 2 + len(topic) + len(properties) + len(message.payload)
    head = bytearray((_PUBLISH | message.retain,))
    while left > 0x7F:  # noqa: PLR2004 - seven bits a byte
        head.append(left & 0x7F | 0x80)
        left >>= 7
    head.append(left)
    return b"".join((head, len(topic).to_bytes(2, "big"), topic, properties, message.payload))


def _properties(message: Outgoing) -> _Properties:
    if message.correlation is None and message.response_topic is None:
        return _common_properties(message.content_type, message.expiry_s, message.properties)
    properties = _common_properties.__wrapped__(message.content_type, message.expiry_s, message.properties)
    if message.correlation is not None:
        properties.CorrelationData = message.correlation
    if message.response_topic is not None:
        properties.ResponseTopic = message.response_topic
    return properties


class _Properties(Properties):
    """Those of a message; they do not change once they have been sent, and are packed once."""

    _packed: bytes | None = None

    def __init__(self) -> None:
        super().__init__(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]

    def pack(self) -> bytes:
        if self._packed is None:
            # Its own way to set an attribute knows those of MQTT alone.
            object.__setattr__(self, "_packed", super().pack())  # type: ignore[no-untyped-call]
        return self._packed or b""


@functools.lru_cache(maxsize=64)
def _common_properties(
    content_type: str | None, expiry_s: int | None, named: tuple[tuple[str, str], ...]
) -> _Properties:
    properties = _Properties()
    if content_type is not None:
        properties.ContentType = content_type
        properties.PayloadFormatIndicator = 1
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    for pair in named:
        properties.UserProperty = pair
    return properties


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
