from __future__ import annotations

import asyncio

import pytest

from neuromodd.sinks.base import Newest


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


async def test_what_was_said_in_another_way_is_not_taken() -> None:
    newest: Newest[int] = Newest()
    newest.put("a", 1)
    newest.put("b", 2)
    newest.discard("a")
    assert (await taken(newest, 1), newest.dropped) == ([2], 0)


async def test_discarding_what_is_not_there_changes_nothing() -> None:
    newest: Newest[int] = Newest()
    newest.discard("a")
    newest.put("a", 1)
    assert await taken(newest, 1) == [1]
