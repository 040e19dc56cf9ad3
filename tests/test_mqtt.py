from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness import Mosquitto, free_port

from neuromodd.errors import MqttLinkError
from neuromodd.mqtt import TIMEOUT_S, Backoff, Endpoint, connect

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
        assert (await failure(to(port))).refused_login


@pytest.mark.parametrize("code", [2, 3])
async def test_another_refusal_is_not_the_login(code: int) -> None:
    async with broker_that_answers(bytes((0x20, 2, 0, code))) as port:
        assert not (await failure(to(port))).refused_login


async def test_a_broker_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromodd.mqtt.TIMEOUT_S", 0.05)
    async with broker_that_answers(None) as port, asyncio.timeout(10.0):
        assert not (await failure(to(port))).refused_login


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_broker_that_speaks_no_tls_is_a_failed_connection(mosquitto: Mosquitto) -> None:
    reason = str(asyncio.run(failure(to(mosquitto.port, tls=True))))
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
                await link.publish("t", b"", qos=1, retain=False)


async def test_a_connection_that_stands_is_not_lost(mosquitto: Mosquitto) -> None:
    async with connect(to(mosquitto.port)) as link:
        waiting = asyncio.create_task(link.lost())
        await link.publish("t", b"x", qos=1, retain=False)
        assert not waiting.done()
        waiting.cancel()


async def test_a_publication_of_qos_1_returns_only_with_an_acknowledgement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with broker_that_answers(bytes((0x20, 2, 0, 0))) as port, connect(to(port)) as link:
        monkeypatch.setattr("neuromodd.mqtt.TIMEOUT_S", 0.05)
        with pytest.raises(MqttLinkError):
            await link.publish("t", b"x", qos=1, retain=False)


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
