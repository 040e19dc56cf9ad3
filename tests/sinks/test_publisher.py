from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import structlog
from harness import Listener, Mosquitto, free_port

from neuromodd.broker import embedded_broker
from neuromodd.core.brain import Tick
from neuromodd.core.cadence import Cadence
from neuromodd.core.messages import OFFLINE, TOPICS, Message, topic
from neuromodd.errors import MqttLinkError
from neuromodd.mqtt import Backoff, Endpoint, Incoming, Link, Outgoing, connect
from neuromodd.sinks import publisher as publisher_module
from neuromodd.sinks.courier import Courier
from neuromodd.sinks.outbox import Outbox
from neuromodd.sinks.publisher import Cadences, Publisher, _first_of

WAIT_S = 20.0
INFO, HEALTH = b'{"of": "info"}', b'{"of": "health"}'
CONTRACT = {
    "status": (1, True),
    "info": (1, True),
    "telemetry": (0, False),
    "state": (0, True),
    "spikes": (0, False),
    "reward": (1, False),
    "fault": (1, True),
    "anomaly": (1, False),
    "health": (0, True),
}
"""QoS and retention of each topic, as published to the world."""

EVERYTHING = Cadences(spikes=Cadence(1))
NUMBERS = itertools.count()

Listen = Callable[[int], Listener]
MakeTick = Callable[..., Tick]


class RoadTo(Protocol):
    """The way to the broker that `conftest` builds."""

    port: int

    async def open(self) -> None: ...

    def stop(self) -> None: ...

    async def cut(self) -> None: ...


class Prompt(Backoff):
    """Tries again at once, and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(random.Random(0))  # noqa: S311 - jitter, no secret
        self.refusals: list[bool] = []

    def delay_s(self, now_s: float, *, refused_login: bool = False) -> float:
        self.refusals.append(refused_login)
        assert super().delay_s(now_s, refused_login=refused_login) >= 0.0
        return 0.02


class Run:
    """A publisher, and the task in which it runs."""

    def __init__(
        self,
        port: int,
        directory: Path,
        *,
        event_limit: int = 100,
        cadences: Cadences = EVERYTHING,
        info: bytes = INFO,
        **more: Any,
    ) -> None:
        self.backoff = Prompt()
        outbox = Outbox(
            directory / f"outbox-{next(NUMBERS)}.sqlite3",
            max_events=event_limit,
            max_bytes=2**20,
            max_age_s=3600.0,
            boot="boot-a",
            clock=time.monotonic,
        )
        values: dict[str, Any] = {
            "prefix": "neuromodd",
            "node": "lab",
            "courier": Courier(outbox, rate_per_s=10_000.0, clock=time.monotonic),
            "cadences": cadences,
            "expiry_s": dict.fromkeys(TOPICS, 300),
            "announce": lambda: [Message("info", info), Message("health", HEALTH)],
            "identity": lambda values: values.get("of"),
            "backoff": self.backoff,
            "clock": time.monotonic,
        }
        self.publisher = Publisher(
            endpoint=Endpoint(
                host="127.0.0.1",
                port=port,
                identifier="neuromodd-lab",
                will=Outgoing(topic("neuromodd", "lab", "status"), OFFLINE, 1, retain=True),
            ),
            **{**values, **more},
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> Publisher:
        self.task = asyncio.create_task(self.publisher.run())
        return self.publisher

    async def end(self) -> None:
        await self.publisher.stop()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait((self.task,))


StartRun = Callable[..., Run]


@pytest.fixture
async def make_run(tmp_path: Path) -> AsyncIterator[StartRun]:
    """Makes publishers; all are stopped at the end."""
    made: list[Run] = []

    def make(port: int, **values: Any) -> Run:
        made.append(Run(port, tmp_path, **values))
        return made[-1]

    yield make
    for run in made:
        await run.end()


async def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


async def heard_by(listener: Listener) -> Listener:
    """Wait until the broker hands on whatever is published from now on."""
    # Retained messages come before the answer: the broker keeps the order of one connection.
    while not listener.named("hello"):
        listener._client.publish("hello", b"")
        await asyncio.sleep(0.01)
    return listener


async def retained(listen: Listen, port: int) -> dict[str, bytes]:
    """What somebody who comes now finds on the broker."""
    newcomer = await heard_by(listen(port))
    return {heard.name: heard.payload for heard in list(newcomer.heard) if heard.retained}


def rewards(listener: Listener) -> list[dict[str, Any]]:
    return [heard.json for heard in listener.named("reward")]


def sources(listener: Listener) -> list[str]:
    return [reward["source"] for reward in rewards(listener)]


def sequences(listener: Listener, name: str) -> list[int]:
    return [heard.json["sequence"] for heard in listener.named(name)]


# What is said, and how


async def test_a_publisher_introduces_itself(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen
) -> None:
    publisher = make_run(mosquitto.port).start()
    await until(lambda: publisher.health.published == 3)
    assert await retained(listen, mosquitto.port) == {"status": b"online", "info": INFO, "health": HEALTH}


async def test_what_comes_during_the_introduction_is_not_taken_for_older(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen
) -> None:
    newer = b'{"of": "info", "interval_s": 0.1}'

    def announce() -> list[Message]:
        # As a reload may: after the introduction was written, before it is sent.
        asyncio.get_running_loop().call_soon(run.publisher.publish, Message("info", newer))
        return [Message("info", INFO)]

    run = make_run(mosquitto.port, announce=announce)
    publisher = run.start()
    await until(lambda: publisher.health.published == 3)
    assert (await retained(listen, mosquitto.port))["info"] == newer


async def test_after_a_tick_the_introduction_has_state_and_fault(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    run = make_run(mosquitto.port)
    run.publisher.offer(make_tick())
    publisher = run.start()
    # Frame, spikes and what is retained.
    await until(lambda: publisher.health.published == 7)
    found = await retained(listen, mosquitto.port)
    assert found.keys() == {"status", "info", "health", "state", "fault"}


async def everything_said(run: Run, listener: Listener, make_tick: MakeTick) -> None:
    publisher = run.start()
    await until(lambda: publisher.health.connected)
    publisher.offer(make_tick(["job"], anomaly="begin"))
    await until(lambda: {heard.name for heard in list(listener.heard)} >= CONTRACT.keys())


async def test_every_topic_has_its_quality_of_service(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await everything_said(make_run(mosquitto.port), listener, make_tick)
    heard = {heard.name: heard.qos for heard in list(listener.heard) if heard.name != "hello"}
    assert heard == {name: qos for name, (qos, _) in CONTRACT.items()}


async def test_topics_are_retained_as_the_contract_says(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await everything_said(make_run(mosquitto.port), listener, make_tick)
    found = await retained(listen, mosquitto.port)
    assert found.keys() == {name for name, (_, retain) in CONTRACT.items() if retain}


def test_the_contract_covers_every_topic() -> None:
    assert TOPICS.keys() == CONTRACT.keys()


async def test_topics_are_those_of_the_node(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await everything_said(make_run(mosquitto.port), listener, make_tick)
    topics = {heard.topic for heard in list(listener.heard) if heard.name != "hello"}
    assert topics == {f"neuromodd/lab/{name}" for name in CONTRACT}


async def test_spikes_are_published_only_when_asked_for(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    publisher = make_run(mosquitto.port, cadences=Cadences()).start()
    await until(lambda: publisher.health.connected)
    for _ in range(2):
        publisher.offer(make_tick())
        await until(lambda: len(listener.named("state")) == len(listener.named("telemetry")) > 0)
    assert listener.named("spikes") == []


async def test_an_event_that_is_sent_at_once_is_no_replay(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    publisher = make_run(mosquitto.port).start()
    await until(lambda: publisher.health.connected)
    publisher.offer(make_tick(["job"]))
    await until(lambda: rewards(listener))
    assert rewards(listener)[0]["replayed"] is False


# The end


async def test_a_publisher_that_stops_leaves_offline_behind(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen
) -> None:
    run = make_run(mosquitto.port)
    publisher = run.start()
    await until(lambda: publisher.health.published == 3)
    await publisher.stop()
    assert (await retained(listen, mosquitto.port))["status"] == b"offline"


async def test_a_publisher_that_vanishes_leaves_offline_behind(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, road: RoadTo
) -> None:
    await road.open()
    publisher = make_run(road.port).start()
    await until(lambda: publisher.health.published == 3)
    listener = await heard_by(listen(mosquitto.port))
    await road.cut()
    await until(lambda: listener.status() == "offline")
    assert (await retained(listen, mosquitto.port))["status"] == b"offline"


async def test_events_that_wait_are_sent_before_the_end(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    publisher = make_run(mosquitto.port).start()
    await until(lambda: publisher.health.published == 3)
    publisher.offer(make_tick([str(number) for number in range(20)]))
    await publisher.stop()
    await until(lambda: listener.status() == "offline")
    # The one on its way when the end came may have been sent twice.
    assert list(dict.fromkeys(sources(listener))) == [str(number) for number in range(20)]


async def test_offline_is_the_last_word(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    publisher = make_run(mosquitto.port).start()
    await until(lambda: publisher.health.published == 3)
    publisher.offer(make_tick(["job"]))
    await publisher.stop()
    await until(lambda: listener.status() == "offline")
    await heard_by(listen(mosquitto.port))
    assert [heard.name for heard in listener.heard if heard.name != "hello"][-1] == "status"


async def test_a_publisher_without_a_broker_stops_too(make_run: StartRun, road: RoadTo) -> None:
    run = make_run(road.port)
    publisher = run.start()
    await until(lambda: publisher.health.error)
    async with asyncio.timeout(10.0):
        await publisher.stop()
        assert run.task is not None
        await run.task


async def test_a_publisher_that_never_ran_stops_at_once(make_run: StartRun, mosquitto: Mosquitto) -> None:
    async with asyncio.timeout(1.0):
        await make_run(mosquitto.port).publisher.stop()


# Outages


async def test_events_from_before_the_first_connection_are_sent_in_order(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    run = make_run(mosquitto.port)
    for number in range(5):
        run.publisher.offer(make_tick([str(number)]))
    run.start()
    await until(lambda: len(rewards(listener)) == 5)
    assert sources(listener) == ["0", "1", "2", "3", "4"]


async def after_an_outage(
    run: Run, road: RoadTo, listener: Listener, make_tick: MakeTick, numbers: range
) -> None:
    """Connect; reward `before`; reward each number while the broker is away; connect again."""
    await road.open()
    publisher = run.start()
    await until(lambda: publisher.health.connected)
    publisher.offer(make_tick(["before"]))
    await until(lambda: rewards(listener) and publisher.health.waiting_events == 0)
    await road.cut()
    await until(lambda: not publisher.health.connected)
    for number in numbers:
        publisher.offer(make_tick([str(number)]))
    await road.open()
    await until(lambda: publisher.health.connected and publisher.health.waiting_events == 0)
    await until(lambda: sources(listener)[-1] == str(numbers[-1]))


async def test_events_wait_in_order_while_the_broker_is_away(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await after_an_outage(make_run(road.port), road, listener, make_tick, range(5))
    assert sources(listener) == ["before", "0", "1", "2", "3", "4"]


async def test_events_that_waited_are_marked_as_replayed(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await after_an_outage(make_run(road.port), road, listener, make_tick, range(3))
    assert [reward["replayed"] for reward in rewards(listener)] == [False, True, True, True]


async def test_of_states_only_the_newest_is_sent_after_an_outage(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await after_an_outage(make_run(road.port), road, listener, make_tick, range(5))
    await until(lambda: 5 in sequences(listener, "telemetry"))
    assert sequences(listener, "telemetry") == [0, 5]


async def test_states_that_gave_way_are_counted(
    make_run: StartRun, make_tick: MakeTick, road: RoadTo
) -> None:
    publisher = make_run(road.port).publisher
    for _ in range(5):
        publisher.offer(make_tick())
    # Four states, four frames, four times the spikes.
    assert publisher.health.dropped == 12


async def test_beyond_the_limit_the_oldest_events_give_way(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    # One place is for the fault that a new connection is told.
    await after_an_outage(make_run(road.port, event_limit=4), road, listener, make_tick, range(5))
    assert sources(listener) == ["before", "2", "3", "4"]


async def test_events_that_gave_way_are_counted(
    make_run: StartRun, road: RoadTo, make_tick: MakeTick
) -> None:
    publisher = make_run(road.port, event_limit=3).publisher
    publisher.offer(make_tick([str(number) for number in range(5)]))
    assert (publisher.health.dropped, publisher.health.waiting_events) == (2, 3)


async def test_the_first_tick_says_the_fault_that_holds_though_it_did_not_change(
    mosquitto: Mosquitto, listen: Listen, make_run: StartRun, make_tick: MakeTick
) -> None:
    # As after a restart: the brain knows the fault, the broker may not.
    make_tick()
    publisher = make_run(mosquitto.port).start()
    await until(lambda: publisher.health.connected)
    tick = make_tick()
    assert not tick.fault_changed
    publisher.offer(tick)
    listener = listen(mosquitto.port)
    await until(lambda: listener.named("fault"))


async def test_changes_of_fault_are_all_sent_after_an_outage(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await road.open()
    publisher = make_run(road.port).start()
    await until(lambda: publisher.health.published == 3)
    publisher.offer(make_tick())
    await until(lambda: listener.named("fault") and publisher.health.waiting_events == 0)
    await road.cut()
    await until(lambda: not publisher.health.connected)
    before = len(listener.named("fault"))
    changes = [
        tick for tick in (make_tick(gpu_lost=second < 5) for second in range(30)) if tick.fault_changed
    ]
    for tick in changes:
        publisher.offer(tick)
    await road.open()
    await until(lambda: publisher.health.connected and publisher.health.waiting_events == 0)
    # The last says what holds, as with every new connection: by its id it is a repeat.
    await until(lambda: len(listener.named("fault")) == before + len(changes) + 1)
    messages = [heard.json for heard in listener.named("fault")[before:]]
    assert messages[-1]["id"] == messages[-2]["id"]
    said = [message["class"] for message in messages[:-1]]
    assert said == [tick.fault.fault_class.value for tick in changes]
    assert len(changes) == 2


async def test_no_event_is_lost_to_a_connection_that_breaks_midway(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await road.open()
    publisher = make_run(road.port, event_limit=1000).start()
    await until(lambda: publisher.health.connected)
    offered = make_tick([str(number) for number in range(900)])
    publisher.offer(offered)
    await until(lambda: listener.named("reward"))
    await road.cut()
    assert publisher.health.waiting_events
    await road.open()
    await until(lambda: publisher.health.waiting_events == 0)
    ids = [event.id for event in offered.events]
    # A repeat is allowed, and recognised by its id.
    await until(lambda: list(dict.fromkeys(reward["id"] for reward in rewards(listener))) == ids)


async def test_an_event_that_is_on_its_way_when_the_connection_breaks_is_sent_again(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await road.open()
    publisher = make_run(road.port).start()
    await until(lambda: publisher.health.published == 3)
    road.stop()
    publisher.offer(make_tick(["job"]))
    # Frame, state and spikes: what waits for an acknowledgement is on its way too.
    await until(lambda: publisher.health.published == 6)
    await road.cut()
    await road.open()
    await until(lambda: rewards(listener))
    assert [(reward["source"], reward["replayed"]) for reward in rewards(listener)] == [("job", True)]


async def test_a_broker_that_comes_late_is_found(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen
) -> None:
    publisher = make_run(road.port).start()
    await until(lambda: publisher.health.error)
    await road.open()
    await until(lambda: publisher.health.published == 3)
    assert (await retained(listen, mosquitto.port))["status"] == b"online"


async def test_a_broker_that_forgot_everything_is_told_again(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    run = make_run(mosquitto.port)
    run.publisher.offer(make_tick())
    publisher = run.start()
    await until(lambda: publisher.health.published == 7)
    mosquitto.stop()
    mosquitto.start()
    await until(lambda: publisher.health.connections == 2 and publisher.health.published == 12)
    found = await retained(listen, mosquitto.port)
    assert found.keys() == {"status", "info", "health", "state", "fault"}


async def test_connections_are_counted(make_run: StartRun, road: RoadTo) -> None:
    publisher = make_run(road.port).start()
    for count in (1, 2, 3):
        await road.open()
        await until(lambda: publisher.health.connected)
        assert publisher.health.connections == count
        await road.cut()
        await until(lambda: not publisher.health.connected)


async def test_while_the_broker_is_away_health_says_why(make_run: StartRun, road: RoadTo) -> None:
    publisher = make_run(road.port).start()
    await until(lambda: publisher.health.error)
    assert "refused" in (publisher.health.error or "").lower()


async def test_a_connection_ends_the_error(make_run: StartRun, road: RoadTo) -> None:
    publisher = make_run(road.port).start()
    await until(lambda: publisher.health.error)
    await road.open()
    await until(lambda: publisher.health.connected)
    assert publisher.health.error is None


async def test_an_outage_is_logged_once(make_run: StartRun, road: RoadTo) -> None:
    run = make_run(road.port)
    with structlog.testing.capture_logs() as entries:
        run.start()
        await until(lambda: len(run.backoff.refusals) >= 5)
    assert [entry["event"] for entry in entries] == ["mqtt_unavailable"]


async def test_a_broker_that_is_away_is_no_refused_login(make_run: StartRun, road: RoadTo) -> None:
    run = make_run(road.port)
    run.start()
    await until(lambda: run.backoff.refusals)
    assert run.backoff.refusals[0] is False


async def test_a_refused_login_is_told_to_the_backoff(
    make_run: StartRun, start_mosquitto: Callable[..., Mosquitto]
) -> None:
    run = make_run(start_mosquitto(["allow_anonymous false"]).port)
    run.start()
    await until(lambda: run.backoff.refusals)
    assert run.backoff.refusals[0] is True


# Waiting for the first of several tasks


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("odd")


async def nothing() -> None:
    return


async def swallow_a_cancellation() -> None:
    try:
        await forever()
    except asyncio.CancelledError:
        await forever()


async def test_the_first_task_to_end_ends_the_others() -> None:
    other = asyncio.create_task(forever())
    await _first_of([asyncio.create_task(nothing()), other])
    assert other.cancelled()


async def test_what_the_first_task_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="odd"):
        await _first_of([asyncio.create_task(fail()), asyncio.create_task(forever())])


async def test_a_task_that_swallows_a_cancellation_ends_too() -> None:
    stubborn = asyncio.create_task(swallow_a_cancellation())
    await asyncio.sleep(0)
    async with asyncio.timeout(10.0):
        await _first_of([asyncio.create_task(nothing()), stubborn])
    assert stubborn.cancelled()


async def fail_when_cancelled() -> None:
    try:
        await forever()
    finally:
        raise ValueError("odd")


async def test_what_the_other_tasks_raise_is_not_left_to_the_loop() -> None:
    left: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))
    others = [asyncio.create_task(fail_when_cancelled()) for _ in range(2)]
    await asyncio.sleep(0)
    await _first_of([asyncio.create_task(nothing()), *others])
    others.clear()
    gc.collect()
    assert left == []


async def test_of_tasks_that_fail_together_none_is_left_to_the_loop() -> None:
    left: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))
    with pytest.raises(ValueError, match="odd"):
        await _first_of([asyncio.create_task(fail()) for _ in range(3)])
    gc.collect()
    assert left == []


async def test_a_wait_that_is_cancelled_ends_its_tasks() -> None:
    task = asyncio.create_task(swallow_a_cancellation())
    waiting = asyncio.create_task(_first_of([task]))
    await asyncio.sleep(0)
    waiting.cancel()
    async with asyncio.timeout(10.0):
        await asyncio.wait((waiting,))
    assert (task.cancelled(), waiting.cancelled()) == (True, True)


async def test_a_connection_that_falls_at_once_does_not_end_the_outage(
    make_run: StartRun, road: RoadTo
) -> None:
    # Two daemons of one name take the connection from each other as often as they are let.
    run = make_run(road.port)
    run.start()
    for _ in range(3):
        await road.open()
        await until(lambda: run.publisher.health.connected)
        await road.cut()
        await until(lambda: not run.publisher.health.connected)
    assert run.backoff._attempt >= 3


# How often


def paced(name: str, cadence: Cadence) -> Cadences:
    return Cadences(**{**EVERYTHING._asdict(), name: cadence})


async def offered_one_by_one(
    run: Run, listener: Listener, make_tick: MakeTick, count: int, name: str
) -> list[int]:
    """The sequences that were published on a topic; each tick is on its way before the next is offered."""
    publisher = run.start()
    await until(lambda: publisher.health.connected)
    await until(lambda: publisher.health.published >= 3)
    for _ in range(count):
        publisher.offer(make_tick())
        # Spikes are published with every tick, after the others.
        newest = run.publisher._last
        assert newest is not None
        await until(lambda: newest.frame.sequence in sequences(listener, "spikes"))  # noqa: B023 - waited for
    return sequences(listener, name)


@pytest.mark.parametrize("name", ["telemetry", "state"])
async def test_a_topic_is_published_every_so_many_ticks(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick, name: str
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    run = make_run(mosquitto.port, cadences=paced(name, Cadence(3)))
    assert await offered_one_by_one(run, listener, make_tick, 7, name) == [0, 3, 6]


@pytest.mark.parametrize("name", ["telemetry", "state"])
async def test_a_topic_that_is_off_is_not_published(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick, name: str
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    run = make_run(mosquitto.port, cadences=paced(name, Cadence(0)))
    assert await offered_one_by_one(run, listener, make_tick, 3, name) == []


async def test_telemetry_on_change_leaves_out_what_is_the_same(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    run = make_run(mosquitto.port, cadences=EVERYTHING._replace(telemetry=Cadence(1, 0.0)))
    assert await offered_one_by_one(run, listener, make_tick, 5, "telemetry") == [0]


async def test_events_that_are_off_are_not_kept_either(
    make_run: StartRun, road: RoadTo, make_tick: MakeTick
) -> None:
    off = EVERYTHING._replace(reward=False, fault=False, anomaly=False)
    publisher = make_run(road.port, cadences=off).publisher
    publisher.offer(make_tick(["job"], anomaly="begin"))
    assert publisher.health.waiting_events == 0


async def test_what_changed_at_once_is_published_at_the_new_pace(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    run = make_run(mosquitto.port)
    run.publisher.pace(EVERYTHING._replace(state=Cadence(2)))
    assert await offered_one_by_one(run, listener, make_tick, 3, "state") == [0, 2]


# Telemetry in outages


async def test_telemetry_can_be_kept_through_an_outage(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await after_an_outage(make_run(road.port, keep_telemetry=True), road, listener, make_tick, range(5))
    found = [(heard.json["sequence"], heard.json["replayed"]) for heard in listener.named("telemetry")]
    assert found == [(0, False), (1, True), (2, True), (3, True), (4, True), (5, True)]


# Anomalies


async def test_begin_and_end_of_an_anomaly_are_sent_after_an_outage(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    publisher = make_run(road.port).publisher
    for anomaly in ("begin", None, "end", None):
        publisher.offer(make_tick(anomaly=anomaly))
    await road.open()
    run = asyncio.create_task(publisher.run())
    await until(lambda: len(listener.named("anomaly")) > 1 and publisher.health.waiting_events == 0)
    heard = [of.json for of in listener.named("anomaly")]
    await publisher.stop()
    await run
    assert [(of["phase"], of["replayed"]) for of in heard] == [("begin", True), ("end", True)]
    assert len({of["episode"] for of in heard}) == 1


# The fault that holds


async def test_a_new_start_says_its_fault_once(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    run = make_run(mosquitto.port)
    run.publisher.offer(make_tick(["job"]))
    run.start()
    await until(lambda: rewards(listener) and run.publisher.health.waiting_events == 0)
    assert len(listener.named("fault")) == 1


async def test_a_fault_is_known_by_the_same_id_however_often_it_is_said(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await road.open()
    publisher = make_run(road.port).start()
    await until(lambda: publisher.health.connected)
    publisher.offer(make_tick())
    await until(lambda: listener.named("fault") and publisher.health.waiting_events == 0)
    before = len(listener.named("fault"))
    await road.cut()
    await until(lambda: not publisher.health.connected)
    await road.open()
    await until(lambda: len(listener.named("fault")) > before)
    assert len({heard.json["id"] for heard in listener.named("fault")}) == 1


# Which MQTT


class Dials:
    """Stands in for `connect` and remembers with which protocol it was called."""

    def __init__(self) -> None:
        self.protocols: list[str] = []

    def __call__(self, endpoint: Endpoint) -> contextlib.AbstractAsyncContextManager[Link]:
        self.protocols.append(endpoint.protocol)
        return connect(endpoint)


@pytest.fixture
def dials(monkeypatch: pytest.MonkeyPatch) -> Dials:
    dials = Dials()
    monkeypatch.setattr(publisher_module, "connect", dials)
    # The embedded broker says nothing to a version that it does not know.
    monkeypatch.setattr("neuromodd.mqtt.TIMEOUT_S", 0.5)
    return dials


async def test_mqtt_5_is_spoken_first(make_run: StartRun, mosquitto: Mosquitto) -> None:
    publisher = make_run(mosquitto.port).start()
    await until(lambda: publisher.health.connected)
    assert publisher.health.protocol == "5"


async def test_a_broker_that_does_not_speak_it_is_spoken_to_in_the_old_way(
    make_run: StartRun, dials: Dials
) -> None:
    port = free_port()
    async with embedded_broker("127.0.0.1", port):
        run = make_run(port)
        run.start()
        await until(lambda: run.publisher.health.connected)
        assert (dials.protocols, run.publisher.health.protocol) == (["5", "3.1.1"], "3.1.1")
        await run.end()


async def test_what_a_broker_speaks_is_remembered(make_run: StartRun, dials: Dials) -> None:
    port = free_port()
    run = make_run(port)
    for times in (1, 2):
        async with embedded_broker("127.0.0.1", port):
            if times == 1:
                run.start()
            # Once it is introduced: amqtt may not come to an end with a message of quality 1 on its way.
            await until(lambda: run.publisher.health.published == 3 * times)  # noqa: B023 - waited for
    await run.end()
    assert "5" not in dials.protocols[1:]


async def test_a_version_that_is_set_is_spoken(
    make_run: StartRun, mosquitto: Mosquitto, dials: Dials
) -> None:
    publisher = make_run(mosquitto.port, protocol="3.1.1").start()
    await until(lambda: publisher.health.connected)
    assert dials.protocols == ["3.1.1"]


async def test_a_version_that_is_set_is_not_given_up(make_run: StartRun, dials: Dials) -> None:
    port = free_port()
    async with embedded_broker("127.0.0.1", port):
        run = make_run(port, protocol="5")
        run.start()
        await until(lambda: len(run.backoff.refusals) >= 3)
        assert (set(dials.protocols), run.publisher.health.connected) == ({"5"}, False)


async def test_a_broker_that_spoke_mqtt_5_and_falls_silent_is_still_asked_for_it(
    make_run: StartRun, mosquitto: Mosquitto, dials: Dials
) -> None:
    publisher = make_run(mosquitto.port).start()
    await until(lambda: publisher.health.published == 3)
    # As behind a proxy, while the broker restarts.
    assert not publisher._versions.give_way(MqttLinkError("hung up", unanswered=True))
    assert (publisher._versions.current, set(dials.protocols)) == ("5", {"5"})


# Two daemons of one name


async def two_of_one_name(make_run: StartRun, port: int) -> tuple[Run, Run]:
    """The one that yields, and the other."""
    runs = [make_run(port, info=b'{"of": "%d"}' % number) for number in range(2)]
    for run in runs:
        run.start()
    await until(lambda: any(run.publisher.health.taken_over for run in runs))
    runs.sort(key=lambda run: not run.publisher.health.taken_over)
    await until(lambda: runs[1].publisher.health.connected)
    return runs[0], runs[1]


async def test_of_two_daemons_of_one_name_one_yields(make_run: StartRun, mosquitto: Mosquitto) -> None:
    first, second = await two_of_one_name(make_run, mosquitto.port)
    states = [(run.publisher.health.taken_over, run.publisher.health.connected) for run in (first, second)]
    assert states == [(True, False), (False, True)]


async def test_the_one_that_yields_says_why(make_run: StartRun, mosquitto: Mosquitto) -> None:
    with structlog.testing.capture_logs() as entries:
        first, _ = await two_of_one_name(make_run, mosquitto.port)
    (said,) = [entry for entry in entries if entry["event"] == "mqtt_taken_over"]
    assert (said["error"], said["looks_again_in_s"]) == ("another daemon publishes as node lab", 60.0)
    assert first.publisher.health.error == said["error"]


async def test_the_one_that_yields_leaves_the_status_of_the_other_alone(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    first, second = await two_of_one_name(make_run, mosquitto.port)
    await until(lambda: second.publisher.health.connected and listener.status() == "online")
    await first.end()
    assert (await retained(listen, mosquitto.port))["status"] == b"online"


async def test_looking_again_does_not_disturb_the_other(
    make_run: StartRun, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "YIELD_S", 0.05)
    monkeypatch.setattr(publisher_module, "LONGEST_YIELD_S", 0.05)
    with structlog.testing.capture_logs() as entries:
        _, second = await two_of_one_name(make_run, mosquitto.port)
        connections = second.publisher.health.connections
        await until(lambda: sum(entry["event"] == "mqtt_taken_over" for entry in entries) >= 4)
    assert second.publisher.health.connections == connections


async def test_the_one_that_yields_comes_back_when_the_other_has_gone(
    make_run: StartRun, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "YIELD_S", 0.05)
    monkeypatch.setattr(publisher_module, "LONGEST_YIELD_S", 0.05)
    first, second = await two_of_one_name(make_run, mosquitto.port)
    await until(lambda: second.publisher.health.published >= 3)
    # It leaves cleanly: its `info` stays at the broker.
    await second.end()
    published = first.publisher.health.published
    await until(lambda: first.publisher.health.published >= published + 3)
    assert (first.publisher.health.connected, first.publisher.health.taken_over) == (True, False)


async def test_each_look_is_twice_as_far_away_up_to_an_hour(make_run: StartRun, road: RoadTo) -> None:
    publisher = make_run(road.port).publisher
    assert [publisher._yield() for _ in range(8)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]


async def test_what_an_earlier_run_left_is_no_other_daemon(make_run: StartRun, mosquitto: Mosquitto) -> None:
    before = make_run(mosquitto.port, info=b'{"of": "before"}')
    before.start()
    await until(lambda: before.publisher.health.published == 3)
    await before.end()
    after = make_run(mosquitto.port)
    after.start()
    await until(lambda: after.publisher.health.published == 3)
    # The order of one connection: what was retained has been looked at by now.
    await until(after.publisher._owner_seen.is_set)
    assert after.publisher.health.connected


# Refused by the broker


@pytest.fixture
def start_locked(tmp_path: Path, start_mosquitto: Callable[..., Mosquitto]) -> Callable[[str], Mosquitto]:
    """Starts a broker on which everything but one topic of the node is free."""

    def start(name: str) -> Mosquitto:
        rules = tmp_path / "acl"
        rules.write_text(f"topic readwrite #\ntopic deny neuromodd/lab/{name}\n")
        return start_mosquitto(["allow_anonymous true", f"acl_file {rules}"])

    return start


async def test_a_topic_that_is_refused_is_named_in_health(
    make_run: StartRun, start_locked: Callable[[str], Mosquitto], make_tick: MakeTick
) -> None:
    publisher = make_run(start_locked("reward").port).start()
    await until(lambda: publisher.health.connected)
    publisher.offer(make_tick(["job"]))
    await until(lambda: publisher.health.error)
    assert "neuromodd/lab/reward: the broker refused it: not authorized" in str(publisher.health.error)


async def test_a_topic_that_is_refused_does_not_hold_up_the_others(
    make_run: StartRun, start_locked: Callable[[str], Mosquitto], listen: Listen, make_tick: MakeTick
) -> None:
    broker = start_locked("reward")
    listener = await heard_by(listen(broker.port))
    publisher = make_run(broker.port).start()
    await until(lambda: publisher.health.published == 3)
    publisher.offer(make_tick(["job"]))
    await until(lambda: listener.named("fault"))
    await until(lambda: publisher.health.waiting_events == 1)
    assert rewards(listener) == []


async def test_a_refusal_is_logged_once(
    make_run: StartRun, start_locked: Callable[[str], Mosquitto], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "DENIALS_S", 0.0)
    with structlog.testing.capture_logs() as entries:
        publisher = make_run(start_locked("info").port).start()
        await until(lambda: any(entry["event"] == "mqtt_denied" for entry in entries))
        for published in (3, 4):
            publisher.publish(Message("info", INFO))
            await until(lambda: not publisher._states._items)
            publisher.publish(Message("health", HEALTH))
            await until(lambda: publisher.health.published == published)  # noqa: B023 - waited for
    assert [entry["event"] for entry in entries].count("mqtt_denied") == 1


# What comes in


async def test_what_is_heard_is_passed_on_and_answered(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen
) -> None:
    async def hear(message: Incoming) -> Outgoing:
        return Outgoing("answers", b"got " + (message.payload or b""), 1)

    listener = await heard_by(listen(mosquitto.port))
    publisher = make_run(mosquitto.port, requests={"questions": 1}, hear=hear).start()
    await until(lambda: publisher.health.published == 3)
    listener.ask("questions", b"it")
    await until(lambda: listener.named("answers"))
    assert listener.named("answers")[0].payload == b"got it"


async def test_what_is_heard_while_it_can_not_be_dealt_with_comes_again(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen
) -> None:
    heard: list[bytes | None] = []
    free = asyncio.Event()

    async def hear(message: Incoming) -> None:
        heard.append(message.payload)
        await free.wait()

    listener = await heard_by(listen(mosquitto.port))
    await road.open()
    run = make_run(road.port, requests={"questions": 1}, hear=hear)
    run.publisher._endpoint = dataclasses.replace(run.publisher._endpoint, session_expiry_s=60)
    run.start()
    await until(lambda: run.publisher.health.published == 3)
    listener.ask("questions", b"it")
    await until(lambda: heard)
    await road.cut()
    free.set()
    await road.open()
    await until(lambda: len(heard) == 2)
    assert heard == [b"it", b"it"]
