"""The courier: what must not be lost, from the tick loop through the outbox to the broker.

An event is on the disk before it is published, and leaves the disk when the broker has acknowledged it. So
each arrives at least once, in order, whatever is killed in between; its id tells a repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

from neuromodd.core.messages import Event
from neuromodd.core.payloads import OutboxHealth
from neuromodd.errors import MqttDeniedError
from neuromodd.pace import Pace
from neuromodd.sinks.outbox import RETRY_S, SPARED_FIRST, Entry, Outbox

T = TypeVar("T")

BATCH = 20
"""Events that are on their way to the broker at once."""

DENIED_S = 30.0
"""A topic that the broker refuses rests so long; what waits for it stays in the outbox."""

CANCEL_S = 0.1
"""What those that are under way may take to end, once they are told to."""

STUCK_S = 30.0
"""A disk access that takes longer is said in `health`."""

Publish = Callable[[Event, bool], Awaitable[None]]


class _Staged(NamedTuple):
    event: Event | None
    session: str | None
    done: str | None


class Courier:
    """Takes events at any time; delivers while there is a connection.

    Args:
        outbox: where they wait; used in a thread of the courier's own.
        rate_per_s: at most so many are published a second, after a burst of one second's worth, or of one
            batch if that is more.
        clock: monotonic seconds.
    """

    def __init__(self, outbox: Outbox, *, rate_per_s: float, clock: Callable[[], float]) -> None:
        self._outbox = outbox
        self._clock = clock
        self._pace = Pace(rate_per_s, burst=max(rate_per_s, BATCH), clock=clock)
        self._staged: deque[_Staged] = deque()
        self._staged_dropped = 0
        self._storing = 0
        # Of all that was ever offered; whatever gave way counts as put away.
        self._offered = self._put_away = 0
        self._notes: dict[str, object] = {}
        self._changed = asyncio.Event()
        self._stored = asyncio.Event()
        self._idle = asyncio.Event()
        self._put_some_away = asyncio.Event()
        self._process = uuid.uuid4().hex
        self._session: str | None = None
        self._access_began_s: float | None = None
        # A thread of its own: a disk that hangs must not hold up anything else.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="neuromodd-outbox")

    def offer(self, events: Sequence[Event]) -> None:
        """Take events in at once."""
        self._stage([_Staged(event, self._session, None) for event in events])

    def settle(self, identities: Iterable[str]) -> None:
        """The requests of these ids have been lived through, and what came of them was offered before."""
        self._stage([_Staged(None, self._session, identity) for identity in identities])

    async def store(self) -> None:
        """Bring what was offered to the disk, until cancelled."""
        while True:
            # A disk that has failed is tried again, also if nothing happens.
            await _within(self._changed.wait(), RETRY_S if self._outbox.error else None)
            self._changed.clear()
            await self._store_staged()
            if self._outbox.error:
                await self._access(self._outbox.expire)

    def connected(self, connection: int) -> None:
        """From now on events happen during this connection; those from before are sent as `replayed`."""
        self._session = f"{self._process}:{connection}"

    def disconnected(self) -> None:
        """From now on events happen without a connection."""
        self._session = None

    async def deliver(self, publish: Publish, denied: Callable[[str, str], None]) -> None:
        """Publish what waits and what comes, over one connection, until it fails or is cancelled.

        Args:
            publish: one event, and whether it is `replayed`; returns when the broker has acknowledged.
            denied: hears of a topic that the broker refuses; what waits for it rests for a while.

        Raises:
            MqttLinkError: as `publish` does.
        """
        await self._access(self._outbox.expire)
        resting: dict[str, float] = {}
        while True:
            self._stored.clear()
            resting = {name: until_s for name, until_s in resting.items() if until_s > self._clock()}
            entries = await self._access(partial(self._outbox.oldest, BATCH, without=tuple(resting)))
            if entries:
                for error in await self._send(entries, publish, resting):
                    denied(error.topic, str(error))
            else:
                if not self._staged and not self._storing and not resting:
                    self._idle.set()
                until_s = min(resting.values(), default=None)
                rest_s = None if until_s is None else max(until_s - self._clock(), 0.0)
                await _within(self._stored.wait(), rest_s)

    async def flush(self) -> None:
        """Wait until the outbox is empty; whoever calls sets the deadline."""
        await self._idle.wait()

    async def put_away(self) -> None:
        """Wait until what was offered so far is in the outbox: on the disk, in memory only if that failed."""
        goal = self._offered
        while self._put_away < goal:
            self._put_some_away.clear()
            await self._put_some_away.wait()

    async def take_in(
        self, identity: str, event: str, taken: Callable[[], None], *, durable: bool = False
    ) -> bool:
        """Keep a request on the disk until an event of its id is offered; False if it came before.

        `taken` is called if it is new, also if whoever waits is cancelled: a repeat would not be taken again.

        Args:
            identity: of the request.
            event: its JSON.
            taken: see above.
            durable: refuse it, rather than to keep it in memory only, while the disk fails.

        Raises:
            NotKeptError: it is to be durable, and the disk fails.
        """
        kept = self._begin(partial(self._outbox.take_in, identity, event, durable=durable))

        def tell(done: asyncio.Future[bool]) -> None:
            if not done.cancelled() and done.exception() is None and done.result():
                taken()

        kept.add_done_callback(tell)
        return await asyncio.shield(kept)

    async def left_over(self) -> list[tuple[str, str]]:
        """Requests that an earlier run took in and did not live through."""
        return await self._access(self._outbox.left_over)

    async def note(self, name: str) -> object:
        """What was noted under `name`, parsed JSON; None without."""
        return await self._access(partial(self._outbox.note, name))

    def take_note(self, name: str, value: object) -> None:
        """Note a JSON value, soon; None forgets it."""
        self._notes[name] = value
        self._changed.set()

    async def close(self) -> None:
        """Store what is still staged, and let go of the file."""
        try:
            await self._store_staged()
            await self._access(self._outbox.close)
        finally:
            # What is under way may still come to its end; nothing waits for a disk that hangs.
            self._thread.shutdown(wait=False)

    @property
    def error(self) -> str | None:
        """What is wrong with the disk; None if nothing is."""
        return self._stuck() or self._outbox.error

    @property
    def dropped(self) -> int:
        """Events that gave way."""
        return self._outbox.health.dropped + self._staged_dropped

    @property
    def health(self) -> OutboxHealth:
        """What waits, and how."""
        health = self._outbox.health
        return health.model_copy(
            update={
                "waiting": health.waiting + self._storing + sum(of.event is not None for of in self._staged),
                "dropped": self.dropped,
                "error": self.error,
            }
        )

    def _stage(self, staged: Sequence[_Staged]) -> None:
        self._staged.extend(staged)
        self._offered += len(staged)
        for _ in range(sum(of.event is not None for of in self._staged) - self._outbox.max_events):
            self._give_way()
            self._staged_dropped += 1
            self._count_put_away(1)
        if staged:
            self._idle.clear()
            self._changed.set()

    def _give_way(self) -> None:
        """Drop one event that is staged, telemetry before anything else.

        That a request has been lived through is never dropped: it would be lived through again.
        """
        events = [place for place, of in enumerate(self._staged) if of.event is not None]
        spared = (of for of in events if _is_spared_first(self._staged[of]))
        del self._staged[next(spared, events[0])]

    async def _store_staged(self) -> None:
        while self._notes:
            name, value = self._notes.popitem()
            await self._access(partial(self._outbox.take_note, name, value))
        while self._staged:
            session = self._staged[0].session
            batch = []
            while self._staged and self._staged[0].session == session:
                batch.append(self._staged.popleft())
            events = [of.event for of in batch if of.event is not None]
            done = [of.done for of in batch if of.done is not None]
            self._storing += len(events)
            stored = self._begin(partial(self._outbox.add, events, session=session, done=done))
            stored.add_done_callback(partial(self._note_stored, len(events), len(batch)))
            await asyncio.shield(stored)

    def _note_stored(self, events: int, count: int, _stored: asyncio.Future[None]) -> None:
        self._storing -= events
        self._stored.set()
        self._count_put_away(count)

    def _count_put_away(self, count: int) -> None:
        self._put_away += count
        self._put_some_away.set()

    async def _send(
        self, entries: Sequence[Entry], publish: Publish, resting: dict[str, float]
    ) -> list[MqttDeniedError]:
        """Publish a batch in order, and forget what the broker acknowledged, also if the rest fails.

        Raises:
            MqttLinkError: the connection failed.
        """
        await self._pace.wait(len(entries))
        sent = [asyncio.ensure_future(publish(of.event, of.session != self._session)) for of in entries]
        for task in sent:
            task.add_done_callback(_hear_out)
        try:
            await asyncio.wait(sent)
        finally:
            try:
                await _end(sent)
            finally:
                acknowledged = [of.number for of, task in zip(entries, sent, strict=True) if _went_well(task)]
                if acknowledged:
                    await self._access(partial(self._outbox.remove, acknowledged))
        refused = []
        for of, task in zip(entries, sent, strict=True):
            try:
                task.result()
            except MqttDeniedError as error:
                resting[of.event.name] = self._clock() + DENIED_S
                refused.append(error)
        return refused

    def _stuck(self) -> str | None:
        began_s = self._access_began_s
        if began_s is None or self._clock() - began_s < STUCK_S:
            return None
        return f"{self._outbox.path}: a disk access has not come back for over {STUCK_S:.0f} s"

    async def _access(self, work: Callable[[], T]) -> T:
        # Whoever waits may be cancelled: what it gave out of its hands is done all the same.
        return await asyncio.shield(self._begin(work))

    def _begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have the thread do `work` after what it was told before."""

        def timed() -> T:
            self._access_began_s = self._clock()
            try:
                return work()
            finally:
                self._access_began_s = None

        return asyncio.get_running_loop().run_in_executor(self._thread, timed)


def _is_spared_first(staged: _Staged) -> bool:
    return staged.event is not None and staged.event.name == SPARED_FIRST


def _went_well(task: asyncio.Future[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _hear_out(task: asyncio.Future[None]) -> None:
    """Look at the exception of a task that nobody may wait for any more."""
    if not task.cancelled():
        task.exception()


async def _end(tasks: Sequence[asyncio.Future[None]]) -> None:
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending, timeout=CANCEL_S)


async def _within(work: Awaitable[object], timeout_s: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await work
