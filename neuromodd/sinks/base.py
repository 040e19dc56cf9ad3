"""The Sink protocol, and the bounded way to wait for what may give way: the newest of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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

    def take_waiting(self, wanted: Callable[[T], bool]) -> list[T]:
        """All `wanted` ones that wait now, the one that has waited longest first."""
        taken = [key for key, item in self._items.items() if wanted(item)]
        items = [self._items.pop(key) for key in taken]
        if not self._items:
            self._present.clear()
        return items

    async def take(self) -> T:
        """The item of the key that has waited longest."""
        await self._present.wait()
        item = self._items.pop(next(iter(self._items)))
        if not self._items:
            self._present.clear()
        return item
