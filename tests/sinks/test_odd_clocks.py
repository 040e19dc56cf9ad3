"""Checkpoints, recordings and the outbox while the clocks leap, are set back, or are a year off."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from neuromodd.clocks import Steady
from neuromodd.core.brain import Brain, Tick
from neuromodd.core.messages import Event
from neuromodd.recording import Header
from neuromodd.sinks.checkpoint import CheckpointSink, CheckpointStore
from neuromodd.sinks.outbox import Outbox
from neuromodd.sinks.recorder import Recorder

MakeTick = Callable[..., Tick]

HOUR_S, DAY_S, YEAR_S = 3600.0, 86_400.0, 31_536_000.0
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1e6

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


# Checkpoints


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, keep=2)


def write(store: CheckpointStore, step: int, created_utc: datetime = NOW) -> Path:
    return store.write({"n": step}, step=step, dimensions={"lif": 8}, created_utc=created_utc.isoformat())


def test_the_newest_checkpoint_is_the_furthest_step_whatever_the_wall_clock_said(
    store: CheckpointStore,
) -> None:
    for step, years in ((1, 1), (2, -1)):
        path = write(store, step, NOW + timedelta(days=365 * years))
        os.utime(path, (time.time() + years * YEAR_S,) * 2)
    restored = store.newest({"lif": 8})
    assert restored is not None
    assert restored.state == {"n": 2}


def test_the_checkpoints_that_are_kept_are_the_furthest_steps_whatever_their_files_say(
    store: CheckpointStore,
) -> None:
    for step in range(1, 6):
        os.utime(write(store, step), (time.time() - step * YEAR_S,) * 2)
    assert [path.name[-6:-5] for path in store.paths()] == ["5", "4"]


def test_a_checkpoint_set_aside_after_the_wall_clock_was_set_back_is_still_there(
    store: CheckpointStore,
) -> None:
    for step in (1001, 1002, 1003):
        path = store.set_aside(write(store, step), "fresh")
        os.utime(path, (time.time() + YEAR_S,) * 2)
    ended = [write(store, step).with_suffix(".fresh") for step in (1, 2)]
    for path in store.paths():
        store.set_aside(path, "fresh")
    assert [path.exists() for path in ended] == [True, True]


def test_a_checkpoint_of_a_clock_that_was_ahead_is_still_there_when_it_is_set_aside(
    store: CheckpointStore,
) -> None:
    for step in (1, 2, 3):
        os.utime(store.set_aside(write(store, step), "fresh"), (time.time() - HOUR_S,) * 2)
    path = write(store, 1001)
    os.utime(path, (time.time() + YEAR_S,) * 2)
    assert store.set_aside(path, "fresh").exists()


@pytest.mark.parametrize(("leap_s", "written"), [(-5 * HOUR_S, 2), (5 * HOUR_S, 3)])
async def test_after_a_leap_checkpoints_are_written_in_their_time(
    store: CheckpointStore, brain: Brain, make_tick: MakeTick, clock: Clock, leap_s: float, written: int
) -> None:
    sink = CheckpointSink(
        store=store, snapshot=brain.state, dimensions={}, interval_s=60.0, clock=Steady(clock)
    )
    running = asyncio.create_task(sink.run())
    for step_s in (60.0, leap_s, 59.0, 1.0, 1.0):
        clock.now_s += step_s
        sink.offer(make_tick())
        await until(lambda: not sink._due.is_set() and sink._pending is None and not sink._writing.locked())
    assert sink.health.written == written
    running.cancel()
    await asyncio.wait((running,))


# Recordings


def numbers(directory: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in directory.glob("recording-*"))


@pytest.mark.parametrize(("leap_s", "files"), [(-5 * HOUR_S, 2), (5 * HOUR_S, 3)])
async def test_after_a_leap_recordings_rotate_in_their_time(
    tmp_path: Path, brain: Brain, make_tick: MakeTick, clock: Clock, leap_s: float, files: int
) -> None:
    wall = [NOW]

    def header() -> Header:
        return Header(
            package_version="1",
            created_utc=wall[0],
            node="lab",
            boot_id=None,
            seed=0,
            parameters=brain.parameters,
            state=brain.state(),
        )

    recorder = Recorder(
        directory=tmp_path,
        compress=False,
        rotate_bytes=10**6,
        rotate_s=60.0,
        max_bytes=10**7,
        header=header,
        clock=Steady(clock),
    )
    for step_s in (0.0, leap_s, 59.0, 1.0, 1.0):
        clock.now_s += step_s
        # The wall clock goes where it wants.
        wall[0] += timedelta(seconds=-YEAR_S)
        recorder.offer(make_tick())
    await recorder.stop()
    # Numbered in the order in which they were written, whatever the wall clock said.
    assert numbers(tmp_path) == list(range(1, files + 1))


# The outbox


@pytest.fixture
def open_outbox(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Outbox]]:
    opened: list[Outbox] = []

    def make(boot: str = "boot-a", read: Callable[[], float] = clock) -> Outbox:
        for other in opened:
            other.close()
        opened.append(
            Outbox(
                tmp_path / "outbox.sqlite",
                max_events=100,
                max_bytes=10**6,
                max_age_s=7 * DAY_S,
                boot=boot,
                clock=read,
            )
        )
        return opened[-1]

    yield make
    for outbox in opened:
        outbox.close()


def waiting(outbox: Outbox) -> list[str]:
    outbox.expire()
    return [entry.event.id for entry in outbox.oldest(10)]


def put(outbox: Outbox, *names: str) -> None:
    outbox.add([Event(name, "reward", {}) for name in names], session=None)


@pytest.mark.parametrize("wall_s", [YEAR_S, -YEAR_S])
def test_a_year_on_the_wall_clock_ages_nothing_in_the_outbox(
    open_outbox: Callable[..., Outbox], clock: Clock, wall_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = open_outbox()
    put(outbox, "a")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + wall_s)
    clock.now_s += 1.0
    put(outbox, "b")
    assert waiting(outbox) == ["a", "b"]
    assert waiting(open_outbox()) == ["a", "b"]


@pytest.mark.parametrize("leap_s", [HOUR_S, 6 * DAY_S, -6 * DAY_S])
def test_a_leap_of_less_than_the_longest_age_drops_nothing(
    open_outbox: Callable[..., Outbox], clock: Clock, leap_s: float
) -> None:
    outbox = open_outbox(read=Steady(clock))
    put(outbox, "a")
    clock.now_s += leap_s
    put(outbox, "b")
    assert waiting(outbox) == ["a", "b"]


def test_no_age_is_negative_after_the_clock_was_set_back(
    open_outbox: Callable[..., Outbox], clock: Clock
) -> None:
    outbox = open_outbox(read=Steady(clock))
    put(outbox, "a")
    clock.now_s -= 5 * HOUR_S
    ages = [outbox.health.oldest_age_s]
    clock.now_s += 30.0
    assert [*ages, outbox.health.oldest_age_s] == [0.0, 30.0]


def test_after_the_clock_was_set_back_what_waits_still_expires_in_its_time(
    open_outbox: Callable[..., Outbox], clock: Clock
) -> None:
    outbox = open_outbox(read=Steady(clock))
    put(outbox, "a")
    clock.now_s -= 5 * HOUR_S
    assert waiting(outbox) == ["a"]
    clock.now_s += 7 * DAY_S - 1.0
    assert waiting(outbox) == ["a"]
    clock.now_s += 2.0
    assert waiting(outbox) == []


@pytest.mark.parametrize(("boot", "now_s"), [("boot-b", 5.0), ("boot-b", 1e9), ("boot-a", 5.0)])
def test_what_an_earlier_boot_left_is_new_whatever_the_clock_says(
    open_outbox: Callable[..., Outbox], clock: Clock, boot: str, now_s: float
) -> None:
    put(open_outbox(), "a")
    clock.now_s = now_s
    outbox = open_outbox(boot)
    assert waiting(outbox) == ["a"]
    assert outbox.health.oldest_age_s == 0.0


def test_after_the_clock_was_set_back_a_disk_that_failed_is_tried_again_in_its_time(
    open_outbox: Callable[..., Outbox], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = open_outbox(read=Steady(clock))
    put(outbox, "a")

    def fail(*_: object) -> None:
        raise OSError("Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(outbox, "_is_in_place", lambda: False)
        broken.setattr(outbox, "_open", fail)
        put(outbox, "b")
    clock.now_s -= 5 * HOUR_S
    outbox.expire()
    clock.now_s += HOUR_S / 60.0
    outbox.expire()
    assert (outbox.health.error, waiting(outbox)) == (None, ["a", "b"])
