from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import pytest
import structlog
from harness import Listener, Mosquitto

from neuromodd.core.brain import Tick
from neuromodd.core.messages import OFFLINE, TOPICS, Message, topic
from neuromodd.mqtt import Backoff, Endpoint
from neuromodd.sinks.publisher import Publisher, _first_of

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
    "health": (0, True),
}
"""QoS and retention of each topic, as published to the world."""

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

    def __init__(self, port: int, *, event_limit: int = 100, spikes: bool = False) -> None:
        self.backoff = Prompt()
        self.publisher = Publisher(
            endpoint=Endpoint(
                host="127.0.0.1",
                port=port,
                identifier="neuromodd-lab",
                will=(topic("neuromodd", "lab", "status"), OFFLINE),
            ),
            prefix="neuromodd",
            node="lab",
            event_limit=event_limit,
            spikes=spikes,
            announce=lambda: [Message("info", INFO), Message("health", HEALTH)],
            backoff=self.backoff,
            clock=time.monotonic,
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
async def make_run() -> AsyncIterator[StartRun]:
    """Makes publishers; all are stopped at the end."""
    made: list[Run] = []

    def make(port: int, *, event_limit: int = 100, spikes: bool = False) -> Run:
        made.append(Run(port, event_limit=event_limit, spikes=spikes))
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


async def test_after_a_tick_the_introduction_has_state_and_fault(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    run = make_run(mosquitto.port)
    run.publisher.offer(make_tick())
    publisher = run.start()
    await until(lambda: publisher.health.published >= 5)
    found = await retained(listen, mosquitto.port)
    assert found.keys() == {"status", "info", "health", "state", "fault"}


async def everything_said(run: Run, listener: Listener, make_tick: MakeTick) -> None:
    publisher = run.start()
    await until(lambda: publisher.health.connected)
    publisher.offer(make_tick(["job"]))
    await until(lambda: {heard.name for heard in list(listener.heard)} >= CONTRACT.keys())


async def test_every_topic_has_its_quality_of_service(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await everything_said(make_run(mosquitto.port, spikes=True), listener, make_tick)
    heard = {heard.name: heard.qos for heard in list(listener.heard) if heard.name != "hello"}
    assert heard == {name: qos for name, (qos, _) in CONTRACT.items()}


async def test_topics_are_retained_as_the_contract_says(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await everything_said(make_run(mosquitto.port, spikes=True), listener, make_tick)
    found = await retained(listen, mosquitto.port)
    assert found.keys() == {name for name, (_, retain) in CONTRACT.items() if retain}


def test_the_contract_covers_every_topic() -> None:
    assert TOPICS.keys() == CONTRACT.keys()


async def test_topics_are_those_of_the_node(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await everything_said(make_run(mosquitto.port, spikes=True), listener, make_tick)
    topics = {heard.topic for heard in list(listener.heard) if heard.name != "hello"}
    assert topics == {f"neuromodd/lab/{name}" for name in CONTRACT}


async def test_spikes_are_published_only_when_asked_for(
    make_run: StartRun, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    publisher = make_run(mosquitto.port).start()
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
    # Four states and four frames.
    assert publisher.health.dropped == 8


async def test_beyond_the_limit_the_oldest_events_give_way(
    make_run: StartRun, road: RoadTo, mosquitto: Mosquitto, listen: Listen, make_tick: MakeTick
) -> None:
    listener = await heard_by(listen(mosquitto.port))
    await after_an_outage(make_run(road.port, event_limit=3), road, listener, make_tick, range(5))
    assert sources(listener) == ["before", "2", "3", "4"]


async def test_events_that_gave_way_are_counted(
    make_run: StartRun, road: RoadTo, make_tick: MakeTick
) -> None:
    publisher = make_run(road.port, event_limit=3).publisher
    publisher.offer(make_tick([str(number) for number in range(5)]))
    # The first tick also says which fault holds.
    assert (publisher.health.dropped, publisher.health.waiting_events) == (3, 3)


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
    await until(lambda: publisher.health.connected)
    publisher.offer(make_tick())
    await until(lambda: listener.named("fault"))
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
    # The first says what holds now, as in every introduction.
    await until(lambda: len(listener.named("fault")) == before + 1 + len(changes))
    said = [heard.json["class"] for heard in listener.named("fault")[before + 1 :]]
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
    # Frame and state: what waits for an acknowledgement is on its way too.
    await until(lambda: publisher.health.published == 5)
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
    await until(lambda: publisher.health.published >= 5)
    mosquitto.stop()
    mosquitto.start()
    await until(lambda: publisher.health.connections == 2 and publisher.health.published >= 10)
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
