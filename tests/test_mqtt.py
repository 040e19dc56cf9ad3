from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from harness import Listener, Mosquitto, free_port

from neuromodd.errors import MqttDeniedError, MqttLinkError
from neuromodd.mqtt import (
    PAYLOAD_BYTES,
    TIMEOUT_S,
    Backoff,
    Endpoint,
    Incoming,
    Link,
    Outgoing,
    Protocol,
    connect,
)
from neuromodd.tls import Complaints, Tls

OUTAGE_S = 1000.0
"""When the outages of these tests begin, on their own clock."""


class Extreme(random.Random):
    """Draws the end of every range, and remembers the ranges."""

    def __init__(self) -> None:
        super().__init__(0)
        self.ranges: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.ranges.append((a, b))
        return b


def test_the_cap_doubles_from_a_tenth_of_a_second_to_one_second() -> None:
    backoff = Backoff(Extreme())
    delays = [backoff.delay_s(OUTAGE_S + attempt) for attempt in range(6)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_the_cap_stays_at_one_second_for_five_minutes() -> None:
    backoff = Backoff(Extreme())
    delays = [backoff.delay_s(OUTAGE_S + second) for second in range(300)]
    assert max(delays) == 1.0


def test_after_five_minutes_the_cap_is_thirty_seconds() -> None:
    backoff = Backoff(Extreme())
    for second in range(300):
        backoff.delay_s(OUTAGE_S + second)
    assert backoff.delay_s(OUTAGE_S + 300.0) == 30.0


def test_after_five_minutes_the_cap_goes_on_doubling() -> None:
    backoff = Backoff(Extreme())
    for _ in range(4):
        backoff.delay_s(OUTAGE_S)
    delays = [backoff.delay_s(OUTAGE_S + 300.0) for _ in range(6)]
    assert delays == pytest.approx([1.6, 3.2, 6.4, 12.8, 25.6, 30.0])


def test_an_outage_of_weeks_has_a_delay_too() -> None:
    backoff = Backoff(Extreme())
    delays = [backoff.delay_s(OUTAGE_S + 30.0 * attempt) for attempt in range(50_000)]
    assert delays[-1] == 30.0


def test_jitter_is_full() -> None:
    rng = Extreme()
    backoff = Backoff(rng)
    for attempt in range(10):
        backoff.delay_s(OUTAGE_S + 100.0 * attempt)
    assert {lowest for lowest, _ in rng.ranges} == {0.0}


def test_jitter_stays_under_the_cap() -> None:
    backoff = Backoff(random.Random(0))  # noqa: S311 - jitter, no secret
    caps = [0.1, 0.2, 0.4, 0.8, *[1.0] * 96]
    delays = [backoff.delay_s(OUTAGE_S) for _ in caps]
    assert all(0.0 <= delay <= cap for delay, cap in zip(delays, caps, strict=True))


def test_equal_seeds_are_the_only_reason_for_equal_delays() -> None:
    one, other = (Backoff(random.Random(seed)) for seed in (1, 2))  # noqa: S311 - jitter, no secret
    assert one.delay_s(OUTAGE_S) != other.delay_s(OUTAGE_S)


def test_after_a_connection_the_next_outage_begins_afresh() -> None:
    backoff = Backoff(Extreme())
    for second in range(400):
        backoff.delay_s(OUTAGE_S + second)
    backoff.reset()
    assert [backoff.delay_s(OUTAGE_S + 400.0 + second) for second in range(5)][::4] == [0.1, 1.0]


def test_a_refused_login_waits_thirty_seconds_at_once() -> None:
    assert Backoff(random.Random(0)).delay_s(OUTAGE_S, refused_login=True) == 30.0  # noqa: S311


def test_an_endpoint_does_not_show_its_password() -> None:
    endpoint = Endpoint(host="h", port=1, identifier="i", username="lab", password="hunter2")  # noqa: S106
    assert "hunter2" not in f"{endpoint!r} {endpoint}"


# One connection


@contextlib.asynccontextmanager
async def broker_that_answers(connack: bytes | None) -> AsyncIterator[int]:
    """The port of a broker that answers every CONNECT with `connack`, or with silence."""
    connections = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read(1)
        if connack is not None:
            writer.write(connack)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in connections:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def to(port: int, **values: object) -> Endpoint:
    return Endpoint(host="127.0.0.1", port=port, identifier="test", **values)  # type: ignore[arg-type]


async def failure(endpoint: Endpoint) -> MqttLinkError:
    with pytest.raises(MqttLinkError) as caught:
        async with connect(endpoint):
            pass
    return caught.value


async def test_where_nobody_listens_the_reason_says_so() -> None:
    assert "refused" in str(await failure(to(free_port()))).lower()


async def test_where_nobody_listens_it_was_not_the_login() -> None:
    assert not (await failure(to(free_port()))).refused_login


@pytest.mark.parametrize("code", [4, 5])
async def test_a_refused_login_is_told_apart(code: int) -> None:
    async with broker_that_answers(bytes((0x20, 2, 0, code))) as port:
        assert (await failure(to(port, protocol="3.1.1"))).refused_login


@pytest.mark.parametrize("code", [134, 135])
async def test_a_refused_login_is_told_apart_in_mqtt_5_too(code: int) -> None:
    async with broker_that_answers(bytes((0x20, 3, 0, code, 0))) as port:
        assert (await failure(to(port))).refused_login


async def test_a_broker_that_does_not_speak_mqtt_5_says_so() -> None:
    async with broker_that_answers(bytes((0x20, 3, 0, 132, 0))) as port:
        assert (await failure(to(port))).unsupported


async def test_a_broker_of_the_old_version_says_in_its_own_way_that_it_does_not_speak_mqtt_5() -> None:
    async with broker_that_answers(bytes((0x20, 2, 0, 1))) as port:
        assert (await failure(to(port))).unsupported


@pytest.mark.parametrize("code", [2, 3])
async def test_another_refusal_is_not_the_login(code: int) -> None:
    async with broker_that_answers(bytes((0x20, 2, 0, code))) as port:
        assert not (await failure(to(port, protocol="3.1.1"))).refused_login


async def test_a_broker_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromodd.mqtt.TIMEOUT_S", 0.05)
    async with broker_that_answers(None) as port, asyncio.timeout(10.0):
        assert not (await failure(to(port))).refused_login


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_broker_that_speaks_no_tls_is_a_failed_connection(mosquitto: Mosquitto) -> None:
    reason = str(asyncio.run(failure(to(mosquitto.port, tls=Tls()))))
    gc.collect()
    assert reason


async def test_without_credentials_a_guarded_broker_refuses_the_login(tmp_path: Path) -> None:
    guarded = Mosquitto(tmp_path, ["allow_anonymous false"])
    try:
        assert (await failure(to(guarded.port))).refused_login
    finally:
        guarded.stop()


async def test_a_lost_connection_is_noticed(mosquitto: Mosquitto) -> None:
    async with connect(to(mosquitto.port)) as link:
        waiting = asyncio.create_task(link.lost())
        mosquitto.stop()
        async with asyncio.timeout(10.0):
            with pytest.raises(MqttLinkError):
                await waiting


async def test_publishing_on_a_lost_connection_fails(mosquitto: Mosquitto) -> None:
    async with connect(to(mosquitto.port)) as link:
        mosquitto.stop()
        async with asyncio.timeout(10.0):
            with contextlib.suppress(MqttLinkError):
                await link.lost()
            with pytest.raises(MqttLinkError):
                await link.publish(Outgoing("t", b"", 1))


async def test_a_connection_that_stands_is_not_lost(mosquitto: Mosquitto) -> None:
    async with connect(to(mosquitto.port)) as link:
        waiting = asyncio.create_task(link.lost())
        await link.publish(Outgoing("t", b"x", 1))
        assert not waiting.done()
        waiting.cancel()


async def test_a_publication_of_qos_1_returns_only_with_an_acknowledgement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with broker_that_answers(bytes((0x20, 3, 0, 0, 0))) as port, connect(to(port)) as link:
        monkeypatch.setattr("neuromodd.mqtt.TIMEOUT_S", 0.05)
        with pytest.raises(MqttLinkError):
            await link.publish(Outgoing("t", b"x", 1))


@contextlib.asynccontextmanager
async def peer(*, hangs_up: bool) -> AsyncIterator[int]:
    """The port of a server that hangs up at once, or listens and never answers."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        assert current is not None
        talks.add(current)
        with contextlib.suppress(OSError):
            while not hangs_up and await reader.read(100):
                pass
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.wait(talks)


def endpoint(port: int) -> Endpoint:
    return Endpoint(host="127.0.0.1", port=port, identifier="neuromodd-lab", keepalive_s=3600)


async def test_a_peer_that_accepts_and_hangs_up_is_noticed_at_once() -> None:
    # A proxy before a broker that is down.
    async with peer(hangs_up=True) as port, asyncio.timeout(TIMEOUT_S / 2):
        with pytest.raises(MqttLinkError, match="hung up"):
            async with connect(endpoint(port)):
                pass


async def test_attempts_that_get_no_answer_leave_no_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromodd.mqtt.TIMEOUT_S", 0.05)
    # The peer's end of a connection, for which this waits, ends with ours.
    async with peer(hangs_up=False) as port, asyncio.timeout(10.0):
        for _ in range(3):
            with pytest.raises(MqttLinkError):
                async with connect(endpoint(port)):
                    pass


# What comes in


async def first(link: Link) -> Incoming:
    async with asyncio.timeout(10.0):
        async for message in link.incoming():
            return message
    raise AssertionError


PROTOCOLS = ["5", "3.1.1"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_is_subscribed_to_comes_in(mosquitto: Mosquitto, protocol: str) -> None:
    async with connect(to(mosquitto.port, protocol=protocol)) as link:
        assert await link.subscribe({"t": 1}) == {}
        await link.publish(Outgoing("t", b"x", 1))
        message = await first(link)
        assert (message.topic, message.payload, message.size, message.retained) == ("t", b"x", 1, False)


async def test_a_request_tells_where_its_answer_is_expected(mosquitto: Mosquitto) -> None:
    async with connect(to(mosquitto.port)) as link:
        await link.subscribe({"t": 1})
        await link.publish(Outgoing("t", b"x", 1, response_topic="answers", correlation=b"7"))
        message = await first(link)
        assert (message.response_topic, message.correlation) == ("answers", b"7")


async def test_of_a_large_payload_only_the_size_is_kept(mosquitto: Mosquitto) -> None:
    async with connect(to(mosquitto.port)) as link:
        await link.subscribe({"t": 1})
        await link.publish(Outgoing("t", b"x" * (PAYLOAD_BYTES + 1), 1))
        message = await first(link)
        assert (message.payload, message.size) == (None, PAYLOAD_BYTES + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_was_not_acknowledged_comes_again(mosquitto: Mosquitto, protocol: str) -> None:
    endpoint = to(mosquitto.port, protocol=protocol, session_expiry_s=60)
    async with connect(endpoint) as link:
        await link.subscribe({"t": 1})
        await link.publish(Outgoing("t", b"x", 1))
        await first(link)
    async with connect(endpoint) as link:
        assert (await first(link)).payload == b"x"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_was_acknowledged_does_not_come_again(mosquitto: Mosquitto, protocol: str) -> None:
    endpoint = to(mosquitto.port, protocol=protocol, session_expiry_s=60)
    async with connect(endpoint) as link:
        await link.subscribe({"t": 1})
        await link.publish(Outgoing("t", b"x", 1))
        link.acknowledge(await first(link))
    async with connect(endpoint) as link:
        await link.publish(Outgoing("t", b"y", 1))
        assert (await first(link)).payload == b"y"


async def test_a_session_that_is_not_to_be_kept_is_not(mosquitto: Mosquitto) -> None:
    async with connect(to(mosquitto.port, session_expiry_s=60)) as link:
        await link.subscribe({"t": 1})
    async with connect(to(mosquitto.port)) as link:
        assert await link.publish(Outgoing("t", b"x", 1)) is False


async def test_publishing_where_nobody_listens_is_told(mosquitto: Mosquitto) -> None:
    async with connect(to(mosquitto.port)) as link:
        heard = await link.publish(Outgoing("t", b"x", 1))
        await link.subscribe({"t": 1})
        assert (heard, await link.publish(Outgoing("t", b"x", 1))) == (False, True)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_message_of_quality_0_is_written_within_the_call(
    mosquitto: Mosquitto, protocol: Protocol
) -> None:
    endpoint = Endpoint(
        host="127.0.0.1", port=mosquitto.port, identifier="test", protocol=protocol, keepalive_s=60
    )
    async with connect(endpoint) as link:
        sending = link.publish(Outgoing("a/b", b"now", content_type="text/plain", expiry_s=60))
        # A coroutine that never waits ends with its first step, and gives the loop no turn.
        with pytest.raises(StopIteration):
            sending.send(None)


@pytest.mark.parametrize("newest", [True, False])
async def test_packets_of_any_length_arrive_as_they_were_sent(
    mosquitto: Mosquitto, listen: Callable[..., Listener], newest: bool
) -> None:
    listener = listen(mosquitto.port, newest=newest)
    # Around the lengths at which a packet's head grows by a byte.
    lengths = [0, 1, *(2**bits - less for bits in (7, 14, 21) for less in range(60))]
    named = (("schema_version", "1"), ("größe", "µ"))
    messages = [
        Outgoing(f"test/läb/{length}", b"x" * length, content_type="text/plain", properties=named)
        for length in lengths
    ]
    endpoint = Endpoint(
        host="127.0.0.1",
        port=mosquitto.port,
        identifier="test",
        protocol="5" if newest else "3.1.1",
        keepalive_s=60,
    )
    async with connect(endpoint) as link:
        await link.post(messages)
        await link.publish(Outgoing("test/läb/last", b"", 1))
        await asyncio.to_thread(listener.wait, "last")
    arrived = [heard for heard in listener.heard if heard.name != "last"]
    assert [(heard.topic, heard.payload) for heard in arrived] == [of[:2] for of in messages]
    if newest:
        assert {(heard.content_type, heard.properties) for heard in arrived} == {("text/plain", named)}


async def test_a_retained_message_of_quality_0_is_kept(
    mosquitto: Mosquitto, listen: Callable[..., Listener]
) -> None:
    async with connect(Endpoint(host="127.0.0.1", port=mosquitto.port, identifier="test")) as link:
        await link.publish(Outgoing("test/lab/kept", b"now", retain=True))
    listener = listen(mosquitto.port)
    heard = await asyncio.to_thread(listener.wait, "kept")
    assert (heard.payload, heard.retained) == (b"now", True)


async def test_what_the_socket_does_not_take_is_written_when_it_does(
    mosquitto: Mosquitto, listen: Callable[..., Listener]
) -> None:
    listener = listen(mosquitto.port)
    large = b"x" * 20_000_000
    async with connect(
        Endpoint(host="127.0.0.1", port=mosquitto.port, identifier="test", keepalive_s=60)
    ) as link:
        mosquitto.freeze()
        sending = [
            asyncio.ensure_future(link.publish(Outgoing(topic, payload)))
            for topic, payload in (("test/lab/large", large), ("test/lab/small", b"after"))
        ]
        done, _ = await asyncio.wait(sending, timeout=0.3)
        assert not done
        mosquitto.thaw()
        await asyncio.gather(*sending)
        arrived = await asyncio.to_thread(listener.wait, "small")
        assert arrived.payload == b"after"
        assert listener.named("large")[0].payload == large


async def test_a_broker_that_does_not_read_is_left_all_the_same(mosquitto: Mosquitto) -> None:
    frozen_s = 0.0
    async with connect(Endpoint(host="127.0.0.1", port=mosquitto.port, identifier="test")) as link:
        mosquitto.freeze()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await link.publish(Outgoing("test/lab/large", b"x" * 20_000_000))
        frozen_s = time.monotonic()
    assert time.monotonic() - frozen_s < 4.0
    mosquitto.thaw()


async def test_a_flood_of_quality_0_is_bounded_and_counted(mosquitto: Mosquitto) -> None:
    async with connect(to(mosquitto.port)) as link:
        await link.subscribe({"t": 0, "end": 1})
        for _ in range(1000):
            await link.publish(Outgoing("t", b"x"))
        await link.publish(Outgoing("end", b"", 1))
        kept = 0
        async with asyncio.timeout(10.0):
            async for message in link.incoming():
                if message.topic == "end":
                    break
                kept += 1
        assert (kept + link.dropped, link.dropped > 0) == (1000, True)


@pytest.fixture
def lockable(tmp_path: Path, start_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A broker on which everybody may publish and read `free`, and nothing else."""
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite free\n")
    return start_mosquitto(["allow_anonymous true", f"acl_file {rules}"])


async def test_a_message_that_the_broker_refuses_is_told(lockable: Mosquitto) -> None:
    async with connect(to(lockable.port)) as link:
        with pytest.raises(MqttDeniedError, match=r"locked: .*not authorized"):
            await link.publish(Outgoing("locked", b"x", 1))


async def test_after_a_refused_message_the_connection_stands(lockable: Mosquitto) -> None:
    async with connect(to(lockable.port)) as link:
        with pytest.raises(MqttDeniedError):
            await link.publish(Outgoing("locked", b"x", 1))
        await link.publish(Outgoing("free", b"x", 1))


# Sessions that are taken over


async def test_a_broker_that_says_so_is_believed_about_a_take_over() -> None:
    connack, disconnect = bytes((0x20, 3, 0, 0, 0)), bytes((0xE0, 1, 142))
    async with broker_that_answers(connack + disconnect) as port, connect(to(port)) as link:
        async with asyncio.timeout(10.0):
            with pytest.raises(MqttLinkError) as caught:
                await link.lost()
    assert caught.value.taken_over


async def test_a_reason_for_the_end_of_a_connection_is_passed_on() -> None:
    connack, disconnect = bytes((0x20, 3, 0, 0, 0)), bytes((0xE0, 1, 139))
    async with broker_that_answers(connack + disconnect) as port, connect(to(port)) as link:
        async with asyncio.timeout(10.0):
            with pytest.raises(MqttLinkError, match="server shutting down"):
                await link.lost()


def test_the_word_of_the_other_side_goes_before_that_it_is_gone() -> None:
    complaints = Complaints()
    complaints.note(ssl.SSLEOFError(8, "EOF occurred in violation of protocol"))
    assert not complaints.alerted
    alert = ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired")
    complaints.note(alert)
    complaints.note(ssl.SSLEOFError(8, "EOF occurred in violation of protocol"))
    assert complaints.error is alert
