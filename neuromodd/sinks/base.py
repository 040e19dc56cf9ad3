"""The Sink protocol, and the two bounded ways to wait: the newest of each kind, or all in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Protocol, TypeVar

from neuromodd.core.brain import Tick

T = TypeVar("T")


class Sink(Protocol):
    """A destination of ticks. `offer` never waits; `run` does the slow part in a task of its own."""

    @property
    def name(self) -> str:
        """Its name in health and logs."""

    def offer(self, tick: Tick) -> None:
        """Take in a tick at once."""

    async def run(self) -> None:
        """Work until `stop`; an exception is this sink's failure alone."""

    async def stop(self) -> None:
        """Finish what can be finished in two seconds."""


class Newest(Generic[T]):
    """Holds the newest item of each key until it is taken; an older one gives way and is counted."""

    def __init__(self) -> None:
        self._items: dict[str, T] = {}
        self._present = asyncio.Event()
        self.dropped = 0

    def put(self, key: str, item: T) -> None:
        """Add an item, or replace the one of the same key."""
        self.dropped += key in self._items
        self._items[key] = item
        self._present.set()

    def discard(self, key: str) -> None:
        """Forget the item of a key, as something newer has been said in another way."""
        self._items.pop(key, None)
        if not self._items:
            self._present.clear()

    async def take(self) -> T:
        """The item of the key that has waited longest."""
        await self._present.wait()
        item = self._items.pop(next(iter(self._items)))
        if not self._items:
            self._present.clear()
        return item


class Queue(Generic[T]):
    """A first-in first-out queue of at most `limit` items; the oldest gives way and is counted."""

    def __init__(self, limit: int) -> None:
        self._items: deque[T] = deque(maxlen=limit)
        self._present = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item at the end."""
        self.dropped += len(self._items) == self._items.maxlen
        self._items.append(item)
        self._present.set()

    async def first(self) -> T:
        """The oldest item; it stays until it is removed."""
        await self._present.wait()
        return self._items[0]

    def remove(self, item: T) -> None:
        """Remove the oldest item, if it is still `item` and did not give way meanwhile."""
        if self._items and self._items[0] is item:
            self._items.popleft()
        if not self._items:
            self._present.clear()
