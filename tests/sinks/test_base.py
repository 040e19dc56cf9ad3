from __future__ import annotations

import asyncio

import pytest

from neuromodd.sinks.base import Newest, Queue


async def taken(newest: Newest[int], count: int) -> list[int]:
    async with asyncio.timeout(10.0):
        return [await newest.take() for _ in range(count)]


# Newest


async def test_of_each_key_the_newest_is_kept() -> None:
    newest: Newest[int] = Newest()
    for key, item in (("a", 1), ("b", 2), ("a", 3)):
        newest.put(key, item)
    assert sorted(await taken(newest, 2)) == [2, 3]


async def test_the_key_that_has_waited_longest_goes_first() -> None:
    newest: Newest[int] = Newest()
    for key, item in (("a", 1), ("b", 2), ("a", 3)):
        newest.put(key, item)
    assert await taken(newest, 2) == [3, 2]


async def test_what_gave_way_to_something_newer_is_counted() -> None:
    newest: Newest[int] = Newest()
    for key in "aabaab":
        newest.put(key, 0)
    assert newest.dropped == 4


async def test_what_was_taken_did_not_give_way() -> None:
    newest: Newest[int] = Newest()
    for item in range(3):
        newest.put("a", item)
        await newest.take()
    assert newest.dropped == 0


async def test_taking_waits_for_an_item() -> None:
    newest: Newest[int] = Newest()
    waiting = asyncio.create_task(newest.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    newest.put("a", 1)
    async with asyncio.timeout(10.0):
        assert await waiting == 1


async def test_taking_waits_again_when_all_is_taken() -> None:
    newest: Newest[int] = Newest()
    newest.put("a", 1)
    await newest.take()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.0):
            await newest.take()


async def test_a_taker_that_gives_up_takes_nothing() -> None:
    newest: Newest[int] = Newest()
    waiting = asyncio.create_task(newest.take())
    await asyncio.sleep(0)
    newest.put("a", 1)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert await taken(newest, 1) == [1]


# Queue


def test_a_queue_holds_as_many_as_its_limit() -> None:
    queue: Queue[int] = Queue(3)
    for item in range(10):
        queue.put(item)
    assert len(queue) == 3


async def test_beyond_its_limit_the_oldest_gives_way() -> None:
    queue: Queue[int] = Queue(3)
    for item in range(5):
        queue.put(item)
    assert await queue.first() == 2


def test_what_gave_way_is_counted() -> None:
    queue: Queue[int] = Queue(3)
    for item in range(5):
        queue.put(item)
    assert queue.dropped == 2


def test_up_to_its_limit_nothing_gives_way() -> None:
    queue: Queue[int] = Queue(3)
    for item in range(3):
        queue.put(item)
    assert queue.dropped == 0


async def test_items_leave_in_the_order_in_which_they_came() -> None:
    queue: Queue[object] = Queue(3)
    items = [object(), object(), object()]
    for item in items:
        queue.put(item)
    left = []
    while len(queue):
        left.append(await queue.first())
        queue.remove(left[-1])
    assert left == items


async def test_the_first_item_stays_until_it_is_removed() -> None:
    queue: Queue[str] = Queue(3)
    queue.put("a")
    assert [await queue.first(), await queue.first()] == ["a", "a"]


async def test_an_item_that_gave_way_meanwhile_does_not_take_another_with_it() -> None:
    queue: Queue[list[int]] = Queue(1)
    # Equal, and yet another one.
    sent, newer = [1], [1]
    queue.put(sent)
    queue.put(newer)
    queue.remove(sent)
    assert await queue.first() is newer


def test_removing_from_an_empty_queue_changes_nothing() -> None:
    queue: Queue[str] = Queue(1)
    queue.remove("a")
    assert len(queue) == 0


async def test_waiting_for_the_first_item_ends_when_it_comes() -> None:
    queue: Queue[int] = Queue(3)
    waiting = asyncio.create_task(queue.first())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(1)
    async with asyncio.timeout(10.0):
        assert await waiting == 1


async def test_an_emptied_queue_is_waited_for_again() -> None:
    queue: Queue[str] = Queue(3)
    queue.put("a")
    queue.remove(await queue.first())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.0):
            await queue.first()
