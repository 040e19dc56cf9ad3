from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from neuromodd.core.messages import Event
from neuromodd.errors import MqttDeniedError, MqttLinkError
from neuromodd.sinks import courier as module
from neuromodd.sinks.courier import BATCH, DENIED_S, STUCK_S, Courier
from neuromodd.sinks.outbox import FILE_NAME, RETRY_S, Outbox

WAIT_S = 20.0


class Clock:
    """Real time, and what is added to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


class Broker:
    """Acknowledges what is published, unless it is told to do something else with some of it."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.acknowledged: list[str] = []
        self.replayed: dict[str, bool] = {}
        self.denied: list[str] = []
        self.answer: Callable[[Event], Any] = lambda _: None

    async def publish(self, event: Event, replayed: bool) -> None:
        self.began.append(event.id)
        self.replayed[event.id] = replayed
        answer = self.answer(event)
        if answer is not None:
            await answer
        self.acknowledged.append(event.id)

    def note_denied(self, topic: str, _reason: str) -> None:
        self.denied.append(topic)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture(autouse=True)
async def nothing_unheard() -> AsyncIterator[None]:
    """Fails a test after which an exception is left that nobody looked at."""
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert troubles == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


@pytest.fixture
def make_outbox(path: Path, clock: Clock) -> Iterator[Callable[..., Outbox]]:
    made: list[Outbox] = []

    def make(max_events: int = 10_000, max_bytes: int = 10**7) -> Outbox:
        made.append(
            Outbox(
                path, max_events=max_events, max_bytes=max_bytes, max_age_s=1e6, boot="boot-a", clock=clock
            )
        )
        return made[-1]

    yield make
    for outbox in made:
        outbox.close()


@pytest.fixture
def outbox(make_outbox: Callable[..., Outbox]) -> Outbox:
    return make_outbox()


class Run:
    """A courier, the task that stores, and those that deliver."""

    def __init__(self, outbox: Outbox, clock: Clock, broker: Broker, rate_per_s: float) -> None:
        self.outbox = outbox
        self.broker = broker
        self.courier = Courier(outbox, rate_per_s=rate_per_s, clock=clock)
        self.storing = asyncio.create_task(self.courier.store())
        self.connections = 0
        self.delivering: asyncio.Task[None] | None = None

    def connect(self) -> asyncio.Task[None]:
        self.connections += 1
        self.courier.connected(self.connections)
        self.delivering = asyncio.create_task(
            self.courier.deliver(self.broker.publish, self.broker.note_denied)
        )
        return self.delivering

    async def disconnect(self) -> None:
        self.courier.disconnected()
        if self.delivering is not None:
            self.delivering.cancel()
            await asyncio.wait((self.delivering,), timeout=WAIT_S)

    async def flushed(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.courier.flush()

    async def rows(self) -> list[str]:
        """What waits on the disk, read by the only thread that may."""
        return await self.courier._access(partial(waiting, self.outbox))

    async def stored(self) -> None:
        """Wait until all that was offered is in the outbox."""
        await until(lambda: not self.courier._staged and not self.courier._storing)

    async def close(self) -> None:
        await self.disconnect()
        self.storing.cancel()
        await asyncio.wait((self.storing,))
        async with asyncio.timeout(WAIT_S):
            await self.courier.close()


@pytest.fixture
async def start(clock: Clock, broker: Broker, outbox: Outbox) -> AsyncIterator[Callable[..., Run]]:
    """Starts couriers; all are closed at the end."""
    runs: list[Run] = []

    def start(*, over: Outbox | None = None, rate_per_s: float = 10_000.0) -> Run:
        runs.append(Run(over or outbox, clock, broker, rate_per_s))
        return runs[-1]

    yield start
    for run in runs:
        if not run.courier._thread._shutdown:
            await run.close()


@pytest.fixture
async def run(start: Callable[..., Run]) -> Run:
    return start()


async def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.001)


def reward(number: int, name: str = "reward") -> Event:
    return Event(f"id-{number}", name, {"number": number})


def named(numbers: Sequence[int] | range) -> list[str]:
    return [f"id-{number}" for number in numbers]


def waiting(outbox: Outbox) -> list[str]:
    return [entry.event.id for entry in outbox.oldest(100_000)]


# In order


async def test_what_is_offered_arrives_in_order(run: Run, broker: Broker) -> None:
    run.connect()
    for number in range(100):
        run.courier.offer([reward(number)])
        if number % 7 == 0:
            await asyncio.sleep(0)
    await run.flushed()
    assert broker.acknowledged == named(range(100))


async def test_what_is_acknowledged_in_another_order_was_published_in_order(
    run: Run, broker: Broker, outbox: Outbox
) -> None:
    acknowledgements: dict[str, asyncio.Future[None]] = {}

    def answer(event: Event) -> asyncio.Future[None]:
        return acknowledgements.setdefault(event.id, asyncio.get_running_loop().create_future())

    broker.answer = answer
    run.courier.offer([reward(number) for number in range(10)])
    await run.stored()
    run.connect()
    await until(lambda: len(acknowledgements) == 10)
    for future in reversed(acknowledgements.values()):
        future.set_result(None)
        await asyncio.sleep(0)
    await run.flushed()
    assert (broker.began, broker.acknowledged) == (named(range(10)), named(range(9, -1, -1)))
    assert outbox.waiting == 0


async def test_an_event_is_on_the_disk_before_it_is_published(
    run: Run, broker: Broker, outbox: Outbox, path: Path, clock: Clock
) -> None:
    seen: list[list[str]] = []

    def answer(_event: Event) -> None:
        other = Outbox(path, max_events=10, max_bytes=10**6, max_age_s=1e6, boot="boot-a", clock=clock)
        seen.append(waiting(other))
        other.close()

    broker.answer = answer
    run.connect()
    run.courier.offer([reward(0)])
    await run.flushed()
    assert (seen, outbox.waiting) == ([["id-0"]], 0)


async def test_what_waited_on_the_disk_is_sent_first(run: Run, outbox: Outbox, broker: Broker) -> None:
    outbox.add([reward(0), reward(1)], session=None)
    run.courier.offer([reward(2)])
    run.connect()
    await until(lambda: len(broker.acknowledged) == 3)
    assert broker.acknowledged == named(range(3))


async def test_only_what_is_sent_in_another_connection_is_replayed(run: Run, broker: Broker) -> None:
    run.courier.offer([reward(0)])
    run.connect()
    run.courier.offer([reward(1)])
    broker.answer = lambda event: asyncio.sleep(WAIT_S) if event.id == "id-2" else None
    run.courier.offer([reward(2)])
    await until(lambda: "id-2" in broker.began)
    assert broker.replayed == {"id-0": True, "id-1": False, "id-2": False}
    await run.disconnect()
    broker.answer = lambda _: None
    run.connect()
    await run.flushed()
    assert broker.replayed["id-2"] is True


async def test_what_an_earlier_run_left_is_replayed_in_the_first_connection_too(
    start: Callable[..., Run], broker: Broker, make_outbox: Callable[..., Outbox]
) -> None:
    before = start()
    broker.answer = lambda _: asyncio.sleep(WAIT_S)
    before.connect()
    before.courier.offer([reward(0)])
    await until(lambda: broker.began)
    await before.close()
    broker.answer = lambda _: None
    after = start(over=make_outbox())
    after.connect()
    await until(lambda: broker.acknowledged)
    assert broker.replayed == {"id-0": True}


async def test_no_more_than_the_rate_pass_after_a_burst(start: Callable[..., Run], broker: Broker) -> None:
    run = start(rate_per_s=200.0)
    run.courier.offer([reward(number) for number in range(300)])
    await run.stored()
    began_s = time.monotonic()
    run.connect()
    await run.flushed()
    took_s = time.monotonic() - began_s
    assert len(broker.acknowledged) == 300
    assert 0.45 <= took_s < 10.0


# A connection that breaks


async def test_when_the_connection_breaks_what_was_acknowledged_is_gone_and_the_rest_waits(
    run: Run, broker: Broker, outbox: Outbox
) -> None:
    async def lose(_event: Event) -> None:
        raise MqttLinkError("gone")

    broker.answer = lambda event: lose(event) if int(event.id[3:]) % 3 == 1 else None
    run.courier.offer([reward(number) for number in range(BATCH)])
    await run.stored()
    delivering = run.connect()
    await asyncio.wait((delivering,), timeout=WAIT_S)
    assert isinstance(delivering.exception(), MqttLinkError)
    assert broker.acknowledged == [of for of in named(range(BATCH)) if int(of[3:]) % 3 != 1]
    assert waiting(outbox) == named(range(1, BATCH, 3))


async def test_what_waits_goes_out_over_the_next_connection(run: Run, broker: Broker, outbox: Outbox) -> None:
    async def lose() -> None:
        raise MqttLinkError("gone")

    def lose_but_every(count: int, event: Event) -> Any:
        return lose() if int(event.id[3:]) % count else None

    for count in range(1, 30):
        run.courier.offer([reward(100 * count + place) for place in range(3)])
        await run.stored()
        broker.answer = partial(lose_but_every, count)
        delivering = run.connect()
        await asyncio.wait((delivering,), timeout=0.02)
        await run.disconnect()
    broker.answer = lambda _: None
    run.connect()
    await run.flushed()
    assert sorted(broker.acknowledged) == sorted(
        f"id-{100 * count + place}" for count in range(1, 30) for place in range(3)
    )
    assert outbox.waiting == 0


@pytest.mark.parametrize("stubborn", [False, True], ids=["at once", "with an error"])
async def test_cancelled_at_any_point_a_delivery_loses_nothing(
    start: Callable[..., Run], broker: Broker, stubborn: bool
) -> None:
    async def answer() -> None:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            if stubborn:
                raise MqttLinkError("cancelled") from None
            raise

    run = start()
    broker.answer = lambda _: answer()
    offered = 0
    for steps in range(120):
        run.courier.offer([reward(offered), reward(offered + 1)])
        offered += 2
        delivering = run.connect()
        for _ in range(steps):
            await asyncio.sleep(0 if steps % 2 else 0.0002)
        delivering.cancel()
        await asyncio.wait((delivering,), timeout=WAIT_S)
        assert delivering.done()
    run.connect()
    await run.flushed()
    assert set(broker.acknowledged) == set(named(range(offered)))
    assert len(broker.acknowledged) == offered
    await run.disconnect()
    assert await run.rows() == []


async def test_a_connection_that_never_stands_long_uses_up_no_rate(
    start: Callable[..., Run], broker: Broker
) -> None:
    run = start(rate_per_s=1.0)
    run.courier.offer([reward(number) for number in range(2 * BATCH)])
    await run.stored()
    for _ in range(20):
        run.connect()
        await asyncio.sleep(0.01)
        await run.disconnect()
    assert run.courier._pace._tokens > -1.0
    assert len(broker.acknowledged) == BATCH


async def test_an_acknowledgement_that_comes_with_the_cancellation_counts(run: Run, broker: Broker) -> None:
    async def answer() -> None:
        try:
            await asyncio.sleep(WAIT_S)
        except asyncio.CancelledError:
            return

    broker.answer = lambda _: answer()
    run.connect()
    run.courier.offer([reward(0)])
    await until(lambda: broker.began)
    await run.disconnect()
    assert (broker.acknowledged, await run.rows()) == (["id-0"], [])


# A topic that is denied


@pytest.fixture
def denying(broker: Broker) -> set[str]:
    """Topics that the broker refuses."""
    topics = {"reward"}

    async def deny(event: Event) -> None:
        raise MqttDeniedError(event.name, "not authorised")

    broker.answer = lambda event: deny(event) if event.name in topics else None
    return topics


async def test_a_denied_topic_rests_while_the_others_go_on(
    run: Run, broker: Broker, denying: set[str]
) -> None:
    assert denying
    run.connect()
    for number in range(60):
        run.courier.offer([reward(number, "reward" if number % 2 else "fault")])
    await until(lambda: len(broker.acknowledged) == 30)
    assert broker.acknowledged == named(range(0, 60, 2))
    await run.disconnect()
    assert await run.rows() == named(range(1, 60, 2))


async def test_a_denied_topic_is_said(run: Run, broker: Broker, denying: set[str]) -> None:
    run.connect()
    run.courier.offer([reward(0)])
    await until(lambda: broker.denied)
    assert broker.denied == sorted(denying)


async def test_while_it_rests_a_denied_topic_is_not_tried(
    run: Run, broker: Broker, clock: Clock, denying: set[str]
) -> None:
    assert denying
    run.connect()
    run.courier.offer([reward(0)])
    await until(lambda: broker.denied)
    clock.ahead_s += DENIED_S / 2
    run.courier.offer([reward(1), reward(2, "fault")])
    await until(lambda: broker.acknowledged)
    assert broker.began == ["id-0", "id-2"]


async def test_a_denied_topic_comes_again_after_a_while(
    run: Run, broker: Broker, clock: Clock, denying: set[str]
) -> None:
    run.connect()
    run.courier.offer([reward(0), reward(1)])
    await until(lambda: len(broker.denied) == 2)
    denying.clear()
    clock.ahead_s += DENIED_S + 1.0
    run.courier.offer([reward(2)])
    await run.flushed()
    assert broker.acknowledged == named(range(3))


async def test_a_denied_topic_comes_again_by_itself(
    run: Run, broker: Broker, denying: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DENIED_S", 0.05)
    run.connect()
    run.courier.offer([reward(0)])
    await until(lambda: broker.denied)
    denying.clear()
    await run.flushed()
    assert broker.acknowledged == ["id-0"]


# A disk that hangs or fails


class Hang:
    """Holds up one kind of access to the outbox until it is released."""

    def __init__(self, outbox: Outbox, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = threading.Event()
        self.release = threading.Event()
        real = getattr(outbox, name)

        def hang(*arguments: Any, **options: Any) -> Any:
            self.began.set()
            assert self.release.wait(WAIT_S)
            return real(*arguments, **options)

        monkeypatch.setattr(outbox, name, hang)


@pytest.fixture
def hang(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Hang]]:
    made: list[Hang] = []

    def make(name: str) -> Hang:
        made.append(Hang(outbox, name, monkeypatch))
        return made[-1]

    yield make
    for one in made:
        one.release.set()


async def test_what_is_offered_while_the_disk_hangs_arrives_in_order_afterwards(
    run: Run, broker: Broker, hang: Callable[[str], Hang]
) -> None:
    hung = hang("add")
    run.connect()
    run.courier.offer([reward(0)])
    await until(hung.began.is_set)
    for number in range(1, 50):
        run.courier.offer([reward(number)])
    hung.release.set()
    await run.flushed()
    assert broker.acknowledged == named(range(50))


async def test_what_is_offered_while_the_disk_hangs_is_bounded_and_counted(
    start: Callable[..., Run], make_outbox: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = make_outbox(max_events=10)
    hung = Hang(outbox, "add", monkeypatch)
    run = start(over=outbox)
    try:
        run.courier.offer([reward(0)])
        await until(hung.began.is_set)
        run.courier.offer([reward(1), reward(2), reward(3, "telemetry"), reward(4, "telemetry")])
        run.courier.offer([reward(number) for number in range(5, 14)])
        assert (run.courier.health.waiting, run.courier.dropped) == (11, 3)
    finally:
        hung.release.set()
    await run.stored()
    assert waiting(outbox) == named([2, *range(5, 14)])
    # The row that was under way gave way at the bound on the disk.
    assert run.courier.health.dropped == 4


async def test_that_a_request_was_lived_through_never_gives_way(
    start: Callable[..., Run], make_outbox: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = make_outbox(max_events=3)
    run = start(over=outbox)
    for identity in ("a", "b"):
        assert await run.courier.take_in(identity, "{}", lambda: None)
    hung = Hang(outbox, "add", monkeypatch)
    try:
        run.courier.offer([reward(0)])
        await until(hung.began.is_set)
        run.courier.settle(["a", "b"])
        for number in range(1, 20):
            run.courier.offer([reward(number)])
    finally:
        hung.release.set()
    await run.stored()
    assert await run.courier.left_over() == []


async def test_what_was_being_stored_when_storing_was_cancelled_is_not_lost(
    run: Run, outbox: Outbox, hang: Callable[[str], Hang]
) -> None:
    hung = hang("note")
    reading = asyncio.create_task(run.courier.note("n"))
    await until(hung.began.is_set)
    # Behind the access that hangs.
    run.courier.offer([reward(0)])
    run.courier.take_note("n", 1)
    await until(lambda: run.courier._storing or not run.courier._notes)
    run.storing.cancel()
    await asyncio.wait((run.storing,), timeout=WAIT_S)
    hung.release.set()
    await reading
    async with asyncio.timeout(WAIT_S):
        await run.courier.close()
    assert waiting(outbox) == ["id-0"]
    assert outbox.note("n") == 1


async def test_what_is_being_stored_counts_as_waiting(run: Run, hang: Callable[[str], Hang]) -> None:
    hung = hang("add")
    run.courier.offer([reward(0), reward(1)])
    await until(hung.began.is_set)
    assert run.courier.health.waiting == 2


async def test_a_flush_waits_for_what_is_being_stored(
    run: Run, broker: Broker, hang: Callable[[str], Hang]
) -> None:
    hung = hang("oldest")
    run.connect()
    await until(hung.began.is_set)
    run.courier.offer([reward(0)])
    await until(lambda: run.courier._storing)
    hung.release.set()
    await run.flushed()
    assert broker.acknowledged == ["id-0"]


async def test_an_access_that_does_not_come_back_is_said(
    run: Run, clock: Clock, hang: Callable[[str], Hang]
) -> None:
    hung = hang("add")
    run.courier.offer([reward(0)])
    await until(hung.began.is_set)
    clock.ahead_s += STUCK_S + 1.0
    assert "has not come back" in (run.courier.health.error or "")
    hung.release.set()
    await run.stored()
    assert run.courier.health.error is None


async def test_an_access_that_does_not_come_back_is_said_also_if_nobody_waits_for_another(
    run: Run, clock: Clock, hang: Callable[[str], Hang]
) -> None:
    hung = hang("add")
    run.courier.offer([reward(0)])
    await until(hung.began.is_set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await run.courier.left_over()
    clock.ahead_s += STUCK_S + 1.0
    assert "has not come back" in (run.courier.health.error or "")


async def test_a_disk_that_hangs_does_not_keep_a_delivery_from_ending(
    run: Run, hang: Callable[[str], Hang], broker: Broker
) -> None:
    hung = hang("remove")
    run.connect()
    run.courier.offer([reward(0)])
    await until(hung.began.is_set)
    assert run.delivering is not None
    run.delivering.cancel()
    await asyncio.wait((run.delivering,), timeout=WAIT_S)
    assert (run.delivering.cancelled(), broker.acknowledged) == (True, ["id-0"])


async def test_after_a_failure_the_disk_is_tried_again_by_itself(
    start: Callable[..., Run], path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    run = start()
    away = path.parent.with_name("away")
    path.parent.rename(away)
    run.courier.offer([reward(0)])
    await until(lambda: run.courier.health.error)
    away.rename(path.parent)
    clock.ahead_s += RETRY_S
    await until(lambda: run.courier.health.error is None)
    assert await run.rows() == ["id-0"]


# Requests, notes, the end


async def test_a_request_is_taken_in_once(run: Run) -> None:
    assert [await run.courier.take_in("a", "{}", lambda: None) for _ in range(2)] == [True, False]


async def test_a_request_is_told_to_be_new_also_if_whoever_asks_is_cancelled(run: Run) -> None:
    # A repeat would not be taken: the connection falls, and the broker sends it again.
    told: list[str] = []
    asking = asyncio.create_task(run.courier.take_in("a", "{}", lambda: told.append("a")))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait((asking,))
    await until(lambda: told == ["a"])
    assert not await run.courier.take_in("a", "{}", lambda: told.append("again"))
    assert told == ["a"]


async def test_what_was_offered_is_put_away_when_it_is_on_the_disk(
    run: Run, outbox: Outbox, hang: Callable[[str], Hang]
) -> None:
    hung = hang("add")
    run.courier.offer([reward(0)])
    run.courier.settle(["a"])
    putting = asyncio.create_task(run.courier.put_away())
    await until(hung.began.is_set)
    await asyncio.sleep(0)
    assert not putting.done()
    hung.release.set()
    async with asyncio.timeout(WAIT_S):
        await putting
    assert waiting(outbox) == ["id-0"]


async def test_what_gave_way_counts_as_put_away(
    start: Callable[..., Run], make_outbox: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = make_outbox(max_events=2)
    hung = Hang(outbox, "add", monkeypatch)
    run = start(over=outbox)
    try:
        run.courier.offer([reward(0)])
        await until(hung.began.is_set)
        run.courier.offer([reward(number) for number in range(1, 9)])
    finally:
        hung.release.set()
    async with asyncio.timeout(WAIT_S):
        await run.courier.put_away()


async def test_a_request_that_was_settled_is_not_left_over(run: Run) -> None:
    await run.courier.take_in("a", '"a"', lambda: None)
    await run.courier.take_in("b", '"b"', lambda: None)
    run.courier.offer([reward(0)])
    run.courier.settle(["a"])
    await run.stored()
    assert await run.courier.left_over() == [("b", '"b"')]


async def test_a_request_is_forgotten_in_the_commit_that_keeps_what_came_of_it(
    run: Run, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[str], list[str]]] = []
    real = outbox.add

    def add(events: Sequence[Event], *, session: str | None, done: Sequence[str] = ()) -> None:
        calls.append(([event.id for event in events], list(done)))
        real(events, session=session, done=done)

    monkeypatch.setattr(outbox, "add", add)
    run.courier.offer([reward(0)])
    run.courier.settle(["a"])
    await run.stored()
    assert calls == [(["id-0"], ["a"])]


async def test_of_notes_the_newest_is_kept(run: Run) -> None:
    for value in (1, 2, 3):
        run.courier.take_note("n", value)
    await until(lambda: not run.courier._notes)
    assert await run.courier.note("n") == 3


async def test_a_flush_of_nothing_ends(run: Run) -> None:
    run.connect()
    await run.flushed()


async def test_without_a_connection_a_flush_waits(run: Run) -> None:
    run.courier.offer([reward(0)])
    await run.stored()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run.courier.flush()


async def test_closing_stores_what_is_still_staged(run: Run, make_outbox: Callable[..., Outbox]) -> None:
    run.storing.cancel()
    await asyncio.wait((run.storing,))
    run.courier.offer([reward(0), reward(1)])
    run.courier.take_note("n", "x")
    await run.courier.close()
    after = make_outbox()
    assert (waiting(after), after.note("n")) == (named(range(2)), "x")


async def test_closing_while_the_disk_hangs_may_be_given_up(
    start: Callable[..., Run], outbox: Outbox, hang: Callable[[str], Hang]
) -> None:
    run = start()
    hung = hang("add")
    run.courier.offer([reward(0)])
    await until(hung.began.is_set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await run.courier.close()
    run.storing.cancel()
    await asyncio.wait((run.storing,))
    hung.release.set()
    await until(lambda: not any(of.is_alive() for of in run.courier._thread._threads))
    assert waiting(outbox) == ["id-0"]


async def test_after_an_hour_of_outage_what_waited_arrives_in_order(
    start: Callable[..., Run], make_outbox: Callable[..., Outbox], broker: Broker, clock: Clock
) -> None:
    outbox = make_outbox(max_events=500, max_bytes=200_000)
    run = start(over=outbox)
    rewards = []
    used: list[int] = []
    tracemalloc.start()
    try:
        for second in range(3600):
            clock.ahead_s += 1.0
            run.courier.offer([Event(f"frame-{second}", "telemetry", {"text": "x" * 200})])
            if second % 60 == 0:
                rewards.append(f"id-{second}")
                run.courier.offer([reward(second)])
            if second % 10 == 0:
                await run.stored()
            if second % 600 == 599:
                used.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(used) - used[0] < 200_000
    await run.stored()
    expected = waiting(outbox)
    run.connect()
    await run.flushed()
    assert broker.acknowledged == expected
    assert [of for of in broker.acknowledged if of.startswith("id-")] == rewards
    assert 100 < len(expected) <= 500
    assert expected[-1] == "frame-3599"
