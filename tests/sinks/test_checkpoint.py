from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import math
import os
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromodd.core.brain import Brain, Tick
from neuromodd.errors import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    StateDirectoryError,
    StateDirectoryLockedError,
)
from neuromodd.sinks import checkpoint as checkpoint_module
from neuromodd.sinks import state_directory
from neuromodd.sinks.checkpoint import STUCK_S, CheckpointSink, CheckpointStore
from neuromodd.sinks.checkpoint_file import FORMAT, VERSION, decode, encode
from neuromodd.sinks.state_directory import StateDirectory

DIMENSIONS = {"channels": 8, "lif": 8, "izhikevich": 5}
HEADER = {"format": FORMAT, "version": VERSION, "dimensions": {"lif": 1}}
SMALL = encode(HEADER, {"v": [0.1, None], "n": "lab"})
SOMEWHERE = Path("checkpoint.json")


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, keep=3)


def write(store: CheckpointStore, step: int, **state: object) -> Path:
    return store.write(state, step=step, dimensions=DIMENSIONS, created_utc="2024-05-01T12:00:00+00:00")


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.directory.iterdir())


def exact(value: object) -> object:
    """The value with its floats spelt out, so that 0.0 and -0.0 differ."""
    if isinstance(value, dict):
        return {key: exact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [exact(inner) for inner in value]
    return value.hex() if isinstance(value, float) else value


# The bytes

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(derandomize=True, deadline=None)
@given(state=st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_a_state_comes_back_bit_for_bit(state: dict[str, Any]) -> None:
    assert exact(decode(SOMEWHERE, encode(HEADER, state))[1]) == exact(state)


@settings(derandomize=True, deadline=None)
@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_comes_back_bit_for_bit(number: float) -> None:
    _, state = decode(SOMEWHERE, encode(HEADER, {"v": number}))
    assert state["v"].hex() == number.hex()


def test_a_header_comes_back_without_its_checksum() -> None:
    assert decode(SOMEWHERE, SMALL)[0] == HEADER


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_json_can_not_carry_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        encode(HEADER, {"v": number})


def test_a_checkpoint_with_any_byte_altered_in_any_way_is_refused() -> None:
    for place in range(len(SMALL)):
        for mask in range(1, 256):
            altered = bytearray(SMALL)
            altered[place] ^= mask
            with pytest.raises(CheckpointDamagedError):
                decode(SOMEWHERE, bytes(altered))


def test_a_checkpoint_cut_short_anywhere_is_refused() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(CheckpointDamagedError):
            decode(SOMEWHERE, SMALL[:length])


def test_a_checkpoint_without_any_one_byte_is_refused() -> None:
    for place in range(len(SMALL)):
        with pytest.raises(CheckpointDamagedError):
            decode(SOMEWHERE, SMALL[:place] + SMALL[place + 1 :])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 4096, id="zeros"),
        pytest.param(b"\xff\xfe\xfd", id="no text"),
        pytest.param(b"not JSON", id="no JSON"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'"text"', id="text"),
        pytest.param(b"{}", id="empty object"),
        pytest.param(b'{"header":null,"state":{}}', id="no header"),
        pytest.param(b'{"header":{},"state":{}}', id="no checksum"),
        pytest.param(b'{"header":{"checksum":5},"state":{}}', id="no version"),
        pytest.param(b"[" * 100_000, id="deeply nested"),
        pytest.param(b'{"header":{},"state":' + b"[" * 100_000, id="deeply nested state"),
        pytest.param(b"9" * 10_000, id="a number too long"),
        pytest.param(SMALL + b"\n", id="something after it"),
        pytest.param(b" " + SMALL, id="something before it"),
        pytest.param(SMALL * 2, id="twice"),
        pytest.param(encode({**HEADER, "format": "other"}, {}), id="another format"),
        pytest.param(json.dumps(json.loads(SMALL), indent=2).encode(), id="other spaces"),
    ],
)
def test_what_is_no_whole_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointDamagedError):
        decode(SOMEWHERE, data)


def test_a_damaged_checkpoint_is_named() -> None:
    with pytest.raises(CheckpointDamagedError, match=r"^checkpoint\.json: "):
        decode(SOMEWHERE, b"")


def test_a_newer_format_is_refused_with_a_way_out() -> None:
    data = encode({**HEADER, "version": VERSION + 1}, {})
    with pytest.raises(CheckpointMismatchError, match=r"checkpoint\.json.*neuromodd run --fresh"):
        decode(SOMEWHERE, data)


# The files


def test_a_checkpoint_is_for_its_owner_alone(store: CheckpointStore) -> None:
    assert stat.S_IMODE(write(store, 1).stat().st_mode) == 0o600


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(store: CheckpointStore) -> None:
    for step in (20, 100, 40):
        write(store, step, n=step)
    restored = store.newest(DIMENSIONS)
    assert restored is not None
    assert restored.state == {"n": 100}


def test_without_checkpoints_there_is_no_newest(store: CheckpointStore) -> None:
    assert store.newest(DIMENSIONS) is None


def test_the_last_few_are_kept(store: CheckpointStore) -> None:
    for step in range(1, 6):
        write(store, step)
    assert [path.name for path in store.paths()] == [f"checkpoint-{step:016d}.json" for step in (5, 4, 3)]


def test_nothing_else_is_left_behind(store: CheckpointStore) -> None:
    path = write(store, 1)
    assert names(store) == [path.name]


def test_writing_the_same_step_again_replaces_it(store: CheckpointStore) -> None:
    write(store, 1, n=1)
    write(store, 1, n=2)
    restored = store.newest(DIMENSIONS)
    assert restored is not None
    assert restored.state == {"n": 2}


def test_the_draft_of_a_write_that_never_ended_is_no_checkpoint(store: CheckpointStore) -> None:
    (store.directory / "checkpoint.draft").write_bytes(SMALL)
    assert store.newest(DIMENSIONS) is None


def test_the_draft_of_a_write_that_never_ended_does_not_stop_the_next(store: CheckpointStore) -> None:
    (store.directory / "checkpoint.draft").write_bytes(SMALL * 100)
    write(store, 1, n=1)
    restored = store.newest(DIMENSIONS)
    assert restored is not None
    assert restored.state == {"n": 1}


def test_instead_of_a_damaged_checkpoint_the_one_before_is_used(store: CheckpointStore) -> None:
    write(store, 1, n=1)
    write(store, 2, n=2).write_bytes(b"damaged")
    restored = store.newest(DIMENSIONS)
    assert restored is not None
    assert restored.state == {"n": 1}


def test_a_damaged_checkpoint_is_set_aside(store: CheckpointStore) -> None:
    path = write(store, 2)
    path.write_bytes(b"damaged")
    store.newest(DIMENSIONS)
    assert names(store) == [path.with_suffix(".damaged").name]


def test_a_damaged_checkpoint_is_mentioned_once(store: CheckpointStore) -> None:
    path = write(store, 2)
    path.write_bytes(b"damaged")
    with structlog.testing.capture_logs() as entries:
        store.newest(DIMENSIONS)
        store.newest(DIMENSIONS)
    assert [(entry["event"], entry["path"]) for entry in entries] == [("checkpoint_damaged", str(path))]


def test_where_all_are_damaged_there_is_no_newest(store: CheckpointStore) -> None:
    for step in (1, 2):
        write(store, step).write_bytes(b"damaged")
    assert store.newest(DIMENSIONS) is None


def test_a_checkpoint_of_other_dimensions_is_refused_with_a_way_out(store: CheckpointStore) -> None:
    path = write(store, 1)
    with pytest.raises(CheckpointMismatchError, match="neuromodd run --fresh") as caught:
        store.newest({**DIMENSIONS, "lif": 9})
    assert str(path) in str(caught.value)


def test_a_checkpoint_of_other_dimensions_is_told_with_both(store: CheckpointStore) -> None:
    write(store, 1)
    with pytest.raises(CheckpointMismatchError, match=r"lif 8.*lif 9"):
        store.newest({**DIMENSIONS, "lif": 9})


def test_a_checkpoint_that_was_refused_stays_where_it_is(store: CheckpointStore) -> None:
    path = write(store, 1)
    with contextlib.suppress(CheckpointMismatchError):
        store.newest({**DIMENSIONS, "lif": 9})
    assert names(store) == [path.name]


def test_of_those_set_aside_the_last_few_are_kept(store: CheckpointStore) -> None:
    for step in range(1, 6):
        store.set_aside(write(store, step), "fresh")
    assert len(names(store)) == store.keep


def test_a_checkpoint_just_set_aside_is_still_there(store: CheckpointStore) -> None:
    # Of a long life before a fresh start, whose steps were higher.
    for step in (1001, 1002, 1003):
        store.set_aside(write(store, step), "fresh")
    assert store.set_aside(write(store, 1), "fresh").exists()


def test_of_those_set_aside_the_ones_written_last_are_kept(store: CheckpointStore) -> None:
    for step in (1001, 1002, 1003):
        os.utime(store.set_aside(write(store, step), "fresh"), (0, 0))
    ended = [write(store, step).with_suffix(".fresh").name for step in (1, 2, 3)]
    for path in store.paths():
        store.set_aside(path, "fresh")
    assert names(store) == ended


def fail_to_sync(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_write_that_fails_says_so(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    with pytest.raises(OSError, match="No space left"):
        write(store, 1)


def test_a_write_that_fails_leaves_the_ones_before_untouched(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (write(store, step, n=step) for step in (1, 2, 3))}
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    with contextlib.suppress(OSError):
        write(store, 4)
    assert {path: path.read_bytes() for path in store.paths()} == before


def test_file_and_directory_are_synced(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_mode))
    write(store, 1)
    assert [stat.S_IFMT(mode) for mode in synced] == [stat.S_IFREG, stat.S_IFDIR]


def test_a_brain_that_resumes_from_a_file_goes_on_like_one_that_never_stopped(
    store: CheckpointStore, brain: Brain, make_tick: Callable[..., Tick]
) -> None:
    for _ in range(50):
        make_tick(["job"])
    store.write(brain.state(), step=1000, dimensions=DIMENSIONS, created_utc="")
    frames = [make_tick() for _ in range(50)]
    restored = store.newest(DIMENSIONS)
    assert restored is not None
    resumed = Brain()
    resumed.restore(restored.state)
    assert [resumed.step(tick.frame) for tick in frames] == frames


@pytest.mark.parametrize("name", ["checkpoint-old.json", "checkpoint-5.json", "checkpoint-copy.json"])
def test_a_copy_under_another_name_is_neither_taken_for_the_newest_nor_removed(
    store: CheckpointStore, name: str
) -> None:
    write(store, 1, n=1).rename(store.directory / name)
    for step in (2, 3, 4, 5):
        write(store, step, n=step)
    restored = store.newest(DIMENSIONS)
    assert restored is not None
    assert (restored.state, name in names(store)) == ({"n": 5}, True)


def test_the_checkpoint_just_written_stays_also_among_such_of_higher_steps(store: CheckpointStore) -> None:
    for step in (100, 200, 300):
        write(store, step)
    path = write(store, 7)
    assert [of.name for of in store.paths()] == [
        *(f"checkpoint-{step:016d}.json" for step in (300, 200)),
        path.name,
    ]


def test_a_directory_that_can_not_be_synced_does_not_fill_up(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def sync_files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fail_to_sync(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync_files_only)
    for step in range(1, 10):
        with pytest.raises(OSError, match="No space left"):
            write(store, step)
    assert [of.name for of in store.paths()] == [f"checkpoint-{step:016d}.json" for step in (9, 8, 7)]


def make_directory(path: Path) -> None:
    path.mkdir()
    (path / "something").touch()


def make_huge(path: Path) -> None:
    # Without a block on the disk.
    path.touch()
    os.truncate(path, 2**33)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(make_directory, id="directory"),
        pytest.param(os.mkfifo, id="pipe nobody writes to"),
        pytest.param(lambda path: path.symlink_to(path), id="link to itself"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="device without end"),
        pytest.param(lambda path: path.touch(), id="empty"),
        pytest.param(lambda path: path.write_bytes(b" " * 10**6), id="spaces"),
        pytest.param(make_huge, id="8 GB"),
        pytest.param(lambda path: path.write_bytes(b"[" * 100_000), id="deeply nested"),
    ],
)
def test_whatever_bears_the_name_of_a_checkpoint_is_set_aside_and_the_one_before_used(
    store: CheckpointStore, spoil: Callable[[Path], object]
) -> None:
    good = write(store, 1, n=1)
    bad = store.directory / "checkpoint-0000000000000002.json"
    spoil(bad)
    for _ in range(2):
        restored = store.newest(DIMENSIONS)
        assert restored is not None
        assert restored == (good, {"n": 1})
    assert names(store) == [good.name, bad.with_suffix(".damaged").name]


def test_a_huge_file_that_begins_like_a_checkpoint_is_not_held_in_memory(store: CheckpointStore) -> None:
    bad = write(store, 2, n=2)
    head = bad.read_bytes()[:200]
    with bad.open("r+b") as file:
        file.write(head)
        file.truncate(2**28)
    tracemalloc.start()
    try:
        assert store.newest(DIMENSIONS) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_directory_is_set_aside_beside_one_that_was_before(store: CheckpointStore) -> None:
    for _ in range(2):
        make_directory(store.directory / "checkpoint-0000000000000002.json")
        assert store.newest(DIMENSIONS) is None
    assert names(store) == ["checkpoint-0000000000000002.damaged", "checkpoint-0000000000000002.damaged-1"]


def test_a_damaged_checkpoint_that_can_not_be_set_aside_does_not_hide_the_one_before(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, 1, n=1)
    write(store, 2).write_bytes(b"damaged")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", refuse)
    with structlog.testing.capture_logs() as entries:
        restored = store.newest(DIMENSIONS)
    assert restored is not None
    assert restored.state == {"n": 1}
    assert [entry["moved_to"] for entry in entries] == ["nowhere: Read-only file system"]


def test_a_state_directory_that_can_not_be_read_is_no_empty_one(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    write(store, 1)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PermissionError):
        store.newest(DIMENSIONS)


# The sink


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sink(store: CheckpointStore, brain: Brain, clock: Clock) -> AsyncIterator[CheckpointSink]:
    """A sink that runs, with a checkpoint due every 60 s."""
    sink = CheckpointSink(
        store=store, snapshot=brain.state, dimensions=DIMENSIONS, interval_s=60.0, clock=clock
    )
    running = asyncio.create_task(sink.run())
    yield sink
    running.cancel()
    await asyncio.wait((running,))


async def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


async def checkpoint_due(sink: CheckpointSink, clock: Clock, tick: Tick) -> None:
    """Let the interval pass, and wait until a write has succeeded or failed."""
    before = sink.health.written + sink.health.failures
    clock.now_s += 60.0
    sink.offer(tick)
    await until(lambda: sink.health.written + sink.health.failures > before)


@pytest.mark.parametrize(("later_s", "due"), [(59.9, False), (60.0, True)])
async def test_a_checkpoint_is_due_after_the_interval(
    store: CheckpointStore,
    brain: Brain,
    clock: Clock,
    make_tick: Callable[..., Tick],
    later_s: float,
    due: bool,
) -> None:
    snapshots: list[dict[str, Any]] = []

    def snapshot() -> dict[str, Any]:
        snapshots.append(brain.state())
        return snapshots[-1]

    sink = CheckpointSink(store=store, snapshot=snapshot, dimensions=DIMENSIONS, interval_s=60.0, clock=clock)
    clock.now_s += later_s
    sink.offer(make_tick())
    assert bool(snapshots) is due


async def test_what_is_due_when_the_brain_forgets_is_not_written_any_more(
    sink: CheckpointSink, store: CheckpointStore, clock: Clock, make_tick: Callable[..., Tick]
) -> None:
    clock.now_s += 60.0
    sink.offer(make_tick())
    async with sink._writing:
        # The sink has the old state in its hands and waits for its turn, behind the command.
        beginning = asyncio.create_task(sink.begin_anew(lambda: None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await beginning
    await sink.stop()
    assert store.newest(DIMENSIONS) is None


async def test_forgetting_goes_on_if_whoever_asked_is_cancelled(
    sink: CheckpointSink, store: CheckpointStore
) -> None:
    write(store, 500)
    forgotten = asyncio.Event()
    asking = asyncio.create_task(sink.begin_anew(forgotten.set))
    await asyncio.sleep(0)
    asking.cancel()
    async with asyncio.timeout(10.0):
        await forgotten.wait()
    assert store.newest(DIMENSIONS) is None


async def test_a_checkpoint_has_the_state_of_its_tick(
    sink: CheckpointSink, store: CheckpointStore, brain: Brain, clock: Clock, make_tick: Callable[..., Tick]
) -> None:
    tick = make_tick()
    state = brain.state()
    clock.now_s += 60.0
    sink.offer(tick)
    make_tick()
    await until(lambda: sink.health.written == 1)
    restored = store.newest(DIMENSIONS)
    assert restored is not None
    assert exact(restored.state) == exact(json.loads(json.dumps(state)))


async def test_a_checkpoint_comes_after_what_its_ticks_brought_is_in_the_outbox(
    store: CheckpointStore, brain: Brain, clock: Clock, make_tick: Callable[..., Tick]
) -> None:
    stored = asyncio.Event()
    asked = asyncio.Event()

    async def outbox_first() -> None:
        asked.set()
        await stored.wait()

    sink = CheckpointSink(
        store=store,
        snapshot=brain.state,
        dimensions=DIMENSIONS,
        interval_s=60.0,
        clock=clock,
        outbox_first=outbox_first,
    )
    running = asyncio.create_task(sink.run())
    clock.now_s += 60.0
    sink.offer(make_tick(["job"]))
    async with asyncio.timeout(10.0):
        await asked.wait()
    assert names(store) == []
    stored.set()
    await until(lambda: sink.health.written == 1)
    running.cancel()
    await asyncio.wait((running,))


async def test_an_outbox_that_hangs_does_not_cost_the_checkpoint(
    store: CheckpointStore,
    brain: Brain,
    clock: Clock,
    make_tick: Callable[..., Tick],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def outbox_first() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(checkpoint_module, "LAST_OUTBOX_FIRST_S", 0.05)
    sink = CheckpointSink(
        store=store,
        snapshot=brain.state,
        dimensions=DIMENSIONS,
        interval_s=60.0,
        clock=clock,
        outbox_first=outbox_first,
    )
    sink.offer(make_tick())
    await sink.stop()
    assert len(names(store)) == 1


async def test_a_checkpoint_is_named_by_its_network_step(
    sink: CheckpointSink, store: CheckpointStore, clock: Clock, make_tick: Callable[..., Tick]
) -> None:
    tick = make_tick()
    await checkpoint_due(sink, clock, tick)
    assert names(store) == [f"checkpoint-{tick.result.step:016d}.json"]


async def test_the_interval_may_be_changed_on_the_way(
    sink: CheckpointSink, clock: Clock, make_tick: Callable[..., Tick]
) -> None:
    sink.interval_s = 5.0
    clock.now_s += 5.0
    sink.offer(make_tick())
    await until(lambda: sink.health.written == 1)


async def test_before_the_first_checkpoint_there_is_no_age(sink: CheckpointSink) -> None:
    assert sink.health.age_s is None


async def test_the_age_is_that_of_the_last_checkpoint(
    sink: CheckpointSink, clock: Clock, make_tick: Callable[..., Tick]
) -> None:
    await checkpoint_due(sink, clock, make_tick())
    clock.now_s += 12.5
    assert sink.health.age_s == 12.5


async def test_the_last_state_is_written_at_the_end(
    sink: CheckpointSink, store: CheckpointStore, make_tick: Callable[..., Tick]
) -> None:
    tick = make_tick()
    sink.offer(tick)
    await sink.stop()
    assert names(store) == [f"checkpoint-{tick.result.step:016d}.json"]


async def test_without_a_tick_nothing_is_written_at_the_end(
    sink: CheckpointSink, store: CheckpointStore
) -> None:
    await sink.stop()
    assert names(store) == []


async def test_a_failing_disk_is_told_in_health(
    sink: CheckpointSink, clock: Clock, make_tick: Callable[..., Tick], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    await checkpoint_due(sink, clock, make_tick())
    assert (sink.health.failures, sink.health.written) == (1, 0)
    assert "No space left" in (sink.health.error or "")


async def test_after_a_failure_the_next_checkpoint_is_tried(
    sink: CheckpointSink, clock: Clock, make_tick: Callable[..., Tick], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    for _ in range(3):
        await checkpoint_due(sink, clock, make_tick())
    assert sink.health.failures == 3


async def test_a_disk_that_recovers_is_told_in_health(
    sink: CheckpointSink, clock: Clock, make_tick: Callable[..., Tick]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail_to_sync)
        await checkpoint_due(sink, clock, make_tick())
    await checkpoint_due(sink, clock, make_tick())
    assert (sink.health.error, sink.health.written) == (None, 1)


async def test_a_lasting_failure_and_its_end_are_logged_once_each(
    sink: CheckpointSink, clock: Clock, make_tick: Callable[..., Tick]
) -> None:
    with structlog.testing.capture_logs() as entries:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fail_to_sync)
            for _ in range(3):
                await checkpoint_due(sink, clock, make_tick())
        for _ in range(2):
            await checkpoint_due(sink, clock, make_tick())
    assert [entry["event"] for entry in entries] == ["checkpoint_failed", "checkpoint_back"]


async def test_a_failing_disk_at_the_end_does_not_raise(
    sink: CheckpointSink, make_tick: Callable[..., Tick], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    sink.offer(make_tick())
    await sink.stop()
    assert sink.health.failures == 1


# The state directory


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[StateDirectory]:
    directory = StateDirectory(tmp_path / "state")
    yield directory
    with contextlib.suppress(OSError):
        directory.close()


def test_a_state_directory_is_made_for_its_owner_alone(directory: StateDirectory) -> None:
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_a_state_directory_is_made_with_those_above_it(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path / "a" / "b" / "c")
    directory.close()
    assert directory.path.is_dir()


def test_a_state_directory_has_one_holder_who_is_named(directory: StateDirectory) -> None:
    with pytest.raises(StateDirectoryLockedError, match=rf"{directory.path}.*\b{os.getpid()}\b"):
        StateDirectory(directory.path)


def test_another_process_can_not_hold_it_either(directory: StateDirectory) -> None:
    code = (
        "import pathlib, sys; from neuromodd.sinks.state_directory import StateDirectory;"
        "StateDirectory(pathlib.Path(sys.argv[1]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, directory.path],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert f"StateDirectoryLockedError: {directory.path}: locked by process {os.getpid()}" in process.stderr


def test_a_state_directory_that_was_closed_may_be_held_again(directory: StateDirectory) -> None:
    directory.close()
    StateDirectory(directory.path).close()


@pytest.mark.parametrize("written", ["", "1\n", "99999999\n"])
def test_the_holder_is_named_though_the_file_says_another(directory: StateDirectory, written: str) -> None:
    # As when it was written in another container, or the disk was full.
    (directory.path / "lock").write_text(written)
    with pytest.raises(StateDirectoryLockedError, match=rf"process {os.getpid()} "):
        StateDirectory(directory.path)


def test_where_the_kernel_does_not_tell_the_file_names_the_holder(
    directory: StateDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(state_directory, "LOCKS", tmp_path / "missing")
    with pytest.raises(StateDirectoryLockedError, match=rf"process {os.getpid()} "):
        StateDirectory(directory.path)


def test_a_holder_in_another_container_is_not_given_a_wrong_number(
    directory: StateDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inode = (directory.path / "lock").stat().st_ino
    (tmp_path / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 0 fe:00:{inode} 0 EOF\n")
    monkeypatch.setattr(state_directory, "LOCKS", tmp_path / "locks")
    with pytest.raises(StateDirectoryLockedError, match="a process of another container"):
        StateDirectory(directory.path)


def test_of_the_locks_those_held_on_the_file_count() -> None:
    table = """\
1: POSIX  ADVISORY  WRITE 11 fe:00:700 0 EOF
2: FLOCK  ADVISORY  WRITE 12 fe:00:700 0 EOF
2: -> FLOCK  ADVISORY  WRITE 13 fe:00:700 0 EOF
3: FLOCK  ADVISORY  WRITE 14 fe:00:7001 0 EOF
"""
    assert state_directory.lock_holders(table, 700) == [12]


def test_a_file_system_without_locks_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StateDirectoryError, match="can't be locked: No locks available"):
        StateDirectory(tmp_path)


def test_a_lock_that_a_dead_holder_left_behind_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1\n")
    StateDirectory(tmp_path).close()


def test_the_lock_names_its_new_holder_alone(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("99999999999999\n")
    directory = StateDirectory(tmp_path)
    content = (tmp_path / "lock").read_text()
    directory.close()
    assert content == f"{os.getpid()}\n"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_state_directory_that_can_not_be_made_is_an_error_with_its_option(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirectoryError, match=r"^checkpoint\.directory "):
        StateDirectory(tmp_path / place)


async def test_a_full_pool_of_threads_does_not_hold_a_checkpoint_back(
    sink: CheckpointSink, clock: Clock, make_tick: Callable[..., Tick]
) -> None:
    # As when the resolver hangs under every attempt to connect.
    release = threading.Event()
    pool = ThreadPoolExecutor(max_workers=1)
    asyncio.get_running_loop().set_default_executor(pool)
    hanging = asyncio.get_running_loop().run_in_executor(None, release.wait)
    try:
        clock.now_s += 60.0
        sink.offer(make_tick())
        await until(lambda: sink.health.written == 1)
    finally:
        release.set()
        await hanging


async def test_a_write_that_does_not_come_back_is_said_in_health(
    sink: CheckpointSink, clock: Clock, make_tick: Callable[..., Tick], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, release = threading.Event(), threading.Event()

    def hang(_descriptor: int) -> None:
        began.set()
        release.wait(10.0)

    monkeypatch.setattr(os, "fsync", hang)
    clock.now_s += 60.0
    sink.offer(make_tick())
    await until(began.is_set)
    clock.now_s += STUCK_S
    error = sink.health.error
    release.set()
    assert "has not come back" in (error or "")
    await until(lambda: sink.health.written == 1)
    assert sink.health.error is None


def test_a_write_that_fails_leaves_no_draft_to_fill_the_disk(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    with contextlib.suppress(OSError):
        write(store, 1)
    assert list(store.directory.glob("*draft*")) == []


def test_a_full_disk_does_not_keep_the_lock_from_being_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: fail_to_sync(0))
    directory = StateDirectory(tmp_path / "state")
    with pytest.raises(StateDirectoryLockedError):
        StateDirectory(tmp_path / "state")
    directory.close()


VERSION_1 = Path(__file__).parent.parent / "data" / "checkpoints" / "version-1.json"


def test_a_checkpoint_of_format_1_is_taken_over(tmp_path: Path) -> None:
    old = json.loads(VERSION_1.read_bytes())["state"]["engine"]
    (tmp_path / "checkpoint-0000000000004000.json").write_bytes(VERSION_1.read_bytes())
    brain = Brain()
    restored = CheckpointStore(tmp_path, keep=3).newest(brain.parameters.engine.dimensions)
    assert restored is not None
    brain.restore(restored.state)
    weights = [w for row in brain.engine.weights for w in row]
    assert (weights, brain.engine.step_count) == (old["weights"], 4000)
    assert [neuron.last_spike_time for neuron in brain.engine.neurons] == old["last_post"]
    # Its traces say what the times said: how a pair with the next step's spike would count.
    ages = [4000 - time for time in old["last_pre"] if time >= 0]
    traces = [trace for trace in brain.engine.state()["pre"] if trace > 0.0]
    assert len(traces) == len(ages) >= 3
    assert traces == pytest.approx([math.exp((1 - age) / 20.0) for age in ages])
    assert restored.path.exists()


def test_the_original_of_an_older_format_outlives_those_that_come(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-0000000000004000.json").write_bytes(VERSION_1.read_bytes())
    store = CheckpointStore(tmp_path, keep=1)
    for _ in range(2):
        assert store.newest(Brain().parameters.engine.dimensions) is not None
    store.write({}, step=5000, dimensions={"lif": 1}, created_utc="")
    kept = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert kept == ["checkpoint-0000000000004000.format-1", "checkpoint-0000000000005000.json"]
    assert (tmp_path / kept[0]).read_bytes() == VERSION_1.read_bytes()


def test_of_the_present_format_no_original_is_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.write({}, step=5000, dimensions=Brain().parameters.engine.dimensions, created_utc="")
    assert store.newest(Brain().parameters.engine.dimensions) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-0000000000005000.json"]


@pytest.mark.parametrize("engine", [{}, {"dimensions": 8}, None])
def test_a_checkpoint_of_format_1_without_its_state_is_damaged(engine: object) -> None:
    data = encode({**HEADER, "version": 1}, {"engine": engine})
    with pytest.raises(CheckpointDamagedError, match="no state of format 1"):
        decode(SOMEWHERE, data)
