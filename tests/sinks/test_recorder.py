from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from blockbuster import blockbuster_ctx

from neuromodd.core.brain import Brain, Tick
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.inputs import RewardInput, SettingsInput
from neuromodd.core.modulators import Setpoints
from neuromodd.core.rewards import WorkAccepted
from neuromodd.errors import MissingExtraError, StateDirectoryError, StateDirectoryLockedError
from neuromodd.recording import Broken, Header, RecordingFile, RecordingReader, Truncated
from neuromodd.sinks.recorder import RETRY_S, STUCK_S, Recorder

GENEROUS_BYTES = 10**9


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


@pytest.fixture
async def record(brain: Brain, clock: Clock, directory: Path) -> AsyncIterator[Callable[..., Recorder]]:
    """Makes recorders of `brain`; those that `run` are ended."""
    tasks: list[asyncio.Task[None]] = []

    def header() -> Header:
        return Header(
            package_version="0",
            created_utc=datetime(2024, 5, 1, 12, tzinfo=UTC),
            node="lab",
            boot_id="boot-a",
            seed=brain.engine.seed,
            parameters=brain.parameters,
            state=brain.state(),
        )

    def make(*, run: bool = True, **options: Any) -> Recorder:
        known: dict[str, Any] = {
            "directory": directory,
            "compress": False,
            "rotate_bytes": GENEROUS_BYTES,
            "rotate_s": 3600.0,
            "max_bytes": 2 * GENEROUS_BYTES,
            "header": header,
            "clock": clock,
        }
        recorder = Recorder(**{**known, **options})
        if run:
            tasks.append(asyncio.create_task(recorder.run()))
        return recorder

    yield make
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


async def taken(recorder: Recorder, tick: Tick) -> None:
    """Offer a tick, and wait until it is written or lost."""

    def seen() -> int:
        return recorder.health.frames + recorder.health.dropped

    before = seen()
    recorder.offer(tick)
    await until(lambda: seen() > before and not recorder._queue and not recorder._writing.locked())


def rewarded(recorder: Recorder, brain: Brain) -> None:
    outside = RewardInput(event=WorkAccepted(source="job"))
    brain.apply(outside)
    recorder.offer_input(outside)


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("recording-*"))


def lived_through(path: Path) -> tuple[Brain, list[int]]:
    """A brain that went through one file from its header on, and the numbers of the frames."""
    with RecordingReader(path) as reader:
        first, *rest = (item.content for item in reader)
    assert isinstance(first, Header)
    brain = Brain(first.parameters, first.seed)
    brain.restore(first.state)
    sequences = []
    for content in rest:
        assert not isinstance(content, Header | Broken)
        if isinstance(content, TelemetryFrame):
            brain.step(content)
            sequences.append(content.sequence)
        elif not isinstance(content, Truncated):
            brain.apply(content)
    return brain, sequences


def exactly(brain: Brain) -> str:
    return json.dumps([brain.state(), json.loads(brain.parameters.to_json())])


def fail_to_write(_file: RecordingFile, _lines: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def move_away(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


# The files


@pytest.mark.parametrize("compress", [False, True])
async def test_a_recording_leads_another_brain_to_the_same_state(
    record: Callable[..., Recorder],
    brain: Brain,
    make_tick: Callable[..., Tick],
    directory: Path,
    compress: bool,
) -> None:
    for _ in range(5):
        make_tick()
    recorder = record(compress=compress)
    for second in range(60):
        if second % 7 == 0:
            rewarded(recorder, brain)
        if second == 30:
            change = SettingsInput(
                setpoints=Setpoints(work_target=0.5),
                rewards=brain.parameters.rewards,
                faults=brain.parameters.faults,
            )
            brain.apply(change)
            recorder.offer_input(change)
        recorder.offer(make_tick())
    await recorder.stop()
    [path] = files(directory)
    replayed, sequences = lived_through(path)
    assert sequences == list(range(5, 65))
    assert exactly(replayed) == exactly(brain)


@pytest.mark.parametrize("options", [{"rotate_bytes": 1}, {"rotate_s": 0.0}], ids=["size", "age"])
async def test_each_file_begins_where_the_one_before_ended(
    record: Callable[..., Recorder],
    brain: Brain,
    make_tick: Callable[..., Tick],
    directory: Path,
    options: dict[str, Any],
) -> None:
    recorder = record(**options)
    states = []
    for _ in range(5):
        rewarded(recorder, brain)
        await taken(recorder, make_tick())
        states.append(exactly(brain))
    await recorder.stop()
    replayed = [lived_through(path) for path in files(directory)]
    assert [sequence for _, sequences in replayed for sequence in sequences] == [0, 1, 2, 3, 4]
    with_frames = [(exactly(after), sequences) for after, sequences in replayed if sequences]
    assert [(states[sequences[-1]], sequences) for _, sequences in with_frames] == with_frames
    # The size of a file is known once its header is on the disk.
    assert len(with_frames) >= 4


@pytest.mark.parametrize(("later_s", "count"), [(59.9, 1), (60.0, 2)])
async def test_a_file_ends_at_its_age(
    record: Callable[..., Recorder],
    make_tick: Callable[..., Tick],
    clock: Clock,
    directory: Path,
    later_s: float,
    count: int,
) -> None:
    recorder = record(rotate_s=60.0)
    await taken(recorder, make_tick())
    clock.now_s += later_s
    await taken(recorder, make_tick())
    await recorder.stop()
    assert len(files(directory)) == count


async def test_a_file_ends_at_its_size(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path
) -> None:
    recorder = record(rotate_bytes=20_000)
    for _ in range(100):
        await taken(recorder, make_tick())
    await recorder.stop()
    sizes = [path.stat().st_size for path in files(directory)]
    assert len(sizes) > 2
    assert all(20_000 <= size < 25_000 for size in sizes[:-1])


async def test_the_oldest_give_way_so_that_all_stay_within_their_bound(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path
) -> None:
    recorder = record(rotate_bytes=20_000, max_bytes=70_000)
    for _ in range(200):
        await taken(recorder, make_tick())
        # The lines of the last tick come on top.
        assert sum(path.stat().st_size for path in files(directory)) < 75_000
    await recorder.stop()
    sequences = [number for path in files(directory) for number in lived_through(path)[1]]
    assert sequences == list(range(sequences[0], 200))
    assert 0 < sequences[0] < 198


async def test_files_of_others_are_left_alone(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path
) -> None:
    recorder = record(rotate_bytes=10_000, max_bytes=20_000)
    other = directory / "recording-of-mine.jsonl"
    other.write_bytes(bytes(100_000))
    for _ in range(50):
        await taken(recorder, make_tick())
    await recorder.stop()
    assert other.stat().st_size == 100_000


async def test_a_second_run_writes_after_the_first(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path
) -> None:
    for _ in range(3):
        recorder = record()
        await taken(recorder, make_tick())
        await recorder.stop()
    assert [lived_through(path)[1] for path in files(directory)] == [[0], [1], [2]]


async def test_directory_and_files_are_for_their_owner_alone(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path
) -> None:
    recorder = record()
    await taken(recorder, make_tick())
    await recorder.stop()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory, *files(directory))]
    assert modes == [0o700, 0o600]


async def test_a_directory_has_one_recorder_until_it_stops(record: Callable[..., Recorder]) -> None:
    recorder = record()
    with pytest.raises(StateDirectoryLockedError):
        record()
    await recorder.stop()
    await record().stop()


@pytest.mark.parametrize("compress", [False, True])
async def test_what_was_written_can_be_read_before_the_end(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path, compress: bool
) -> None:
    recorder = record(compress=compress)
    for _ in range(3):
        await taken(recorder, make_tick())
    assert lived_through(files(directory)[0])[1] == [0, 1, 2]
    await recorder.stop()


async def test_offering_and_writing_do_not_block_the_loop(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick]
) -> None:
    recorder = record(rotate_bytes=1)
    tick = make_tick()
    with blockbuster_ctx("neuromodd"):
        for _ in range(3):
            await taken(recorder, tick)
    await recorder.stop()
    assert recorder.health.frames == 3


# Holes


async def test_beyond_its_bound_the_queue_drops_and_counts(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick]
) -> None:
    recorder = record(run=False, queue_limit=5)
    for _ in range(10):
        recorder.offer(make_tick())
    # One place is the header's.
    assert (len(recorder._queue), recorder.health.dropped) == (5, 6)
    assert "too slow" in (recorder.health.error or "")
    await recorder.stop()


async def test_after_an_overflow_a_new_file_begins_with_the_state_of_then(
    record: Callable[..., Recorder], brain: Brain, make_tick: Callable[..., Tick], directory: Path
) -> None:
    recorder = record(queue_limit=5)
    for _ in range(10):
        recorder.offer(make_tick())
    await until(lambda: recorder.health.frames == 4)
    # The first of these finds room, and is the last of the hole.
    for _ in range(4):
        rewarded(recorder, brain)
        await taken(recorder, make_tick())
    await recorder.stop()
    first, second = [lived_through(path) for path in files(directory)]
    assert (first[1], second[1]) == ([0, 1, 2, 3], [11, 12, 13])
    assert exactly(second[0]) == exactly(brain)
    assert recorder.health.error is None


async def test_after_a_full_disk_a_new_file_begins_with_the_state_of_then(
    record: Callable[..., Recorder],
    brain: Brain,
    make_tick: Callable[..., Tick],
    clock: Clock,
    directory: Path,
) -> None:
    recorder = record()
    for _ in range(3):
        rewarded(recorder, brain)
        await taken(recorder, make_tick())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordingFile, "write", fail_to_write)
        rewarded(recorder, brain)
        await taken(recorder, make_tick())
    clock.now_s += RETRY_S
    for _ in range(4):
        rewarded(recorder, brain)
        await taken(recorder, make_tick())
    await recorder.stop()
    first, second = [lived_through(path) for path in files(directory)]
    assert (first[1], second[1]) == ([0, 1, 2], [5, 6, 7])
    assert exactly(second[0]) == exactly(brain)
    assert (recorder.health.frames, recorder.health.dropped, recorder.health.failures) == (6, 2, 1)


async def test_a_failed_write_is_not_tried_again_at_once(
    record: Callable[..., Recorder],
    make_tick: Callable[..., Tick],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RecordingFile, "write", fail_to_write)
    recorder = record()
    for _ in range(10):
        await taken(recorder, make_tick())
    assert recorder.health.failures == 1
    clock.now_s += RETRY_S
    recorder.offer(make_tick())
    await until(lambda: recorder.health.failures == 2)
    await recorder.stop()


async def test_a_lasting_failure_and_its_end_are_logged_once_each(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], clock: Clock
) -> None:
    recorder = record()
    with structlog.testing.capture_logs() as entries:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RecordingFile, "write", fail_to_write)
            for failures in (1, 2, 3):
                recorder.offer(make_tick())
                await until(lambda least=failures: recorder.health.failures >= least)  # type: ignore[misc]
                clock.now_s += RETRY_S
        for _ in range(3):
            await taken(recorder, make_tick())
    await recorder.stop()
    assert [entry["event"] for entry in entries] == ["recording_failed", "recording_back"]


async def test_a_directory_that_is_gone_is_told_and_does_not_raise(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path
) -> None:
    recorder = record()
    move_away(directory)
    await taken(recorder, make_tick())
    assert "No such file" in (recorder.health.error or "")
    await recorder.stop()


async def test_a_write_that_does_not_come_back_is_said_in_health(
    record: Callable[..., Recorder],
    make_tick: Callable[..., Tick],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, release = threading.Event(), threading.Event()

    def hang(_file: RecordingFile, _lines: bytes) -> None:
        began.set()
        release.wait(10.0)

    monkeypatch.setattr(RecordingFile, "write", hang)
    recorder = record()
    recorder.offer(make_tick())
    await until(began.is_set)
    clock.now_s += STUCK_S
    error = recorder.health.error
    release.set()
    assert "has not come back" in (error or "")
    await until(lambda: recorder.health.frames == 1)
    assert recorder.health.error is None
    await recorder.stop()


# The end


async def test_what_is_queued_is_written_at_the_end(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path
) -> None:
    recorder = record(run=False)
    for _ in range(5):
        recorder.offer(make_tick())
    await recorder.stop()
    assert lived_through(files(directory)[0])[1] == [0, 1, 2, 3, 4]


async def test_a_compressed_file_is_whole_at_the_end(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path
) -> None:
    recorder = record(compress=True)
    recorder.offer(make_tick())
    await recorder.stop()
    with RecordingReader(files(directory)[0]) as reader:
        assert not any(isinstance(item.content, Truncated) for item in reader)


async def test_a_failing_disk_at_the_end_does_not_raise(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecordingFile, "write", fail_to_write)
    recorder = record(run=False)
    recorder.offer(make_tick())
    await recorder.stop()
    assert recorder.health.failures == 1


async def test_health_tells_of_the_file_and_of_all_recordings(
    record: Callable[..., Recorder], make_tick: Callable[..., Tick], directory: Path
) -> None:
    recorder = record(rotate_bytes=1)
    for _ in range(3):
        await taken(recorder, make_tick())
    assert recorder.health.file == files(directory)[-1].name
    assert recorder.health.total_bytes == sum(path.stat().st_size for path in files(directory))
    await recorder.stop()


async def test_a_full_disk_leaves_no_empty_files(
    record: Callable[..., Recorder],
    make_tick: Callable[..., Tick],
    clock: Clock,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RecordingFile, "write", fail_to_write)
    recorder = record()
    for failure in range(1, 5):
        clock.now_s += RETRY_S
        recorder.offer(make_tick())
        await until(lambda failure=failure: recorder.health.failures >= failure)  # type: ignore[misc]
    assert files(directory) == []
    assert recorder.health.total_bytes == 0
    await recorder.stop()


async def test_what_was_being_written_when_its_task_was_cancelled_is_not_written_twice(
    record: Callable[..., Recorder],
    make_tick: Callable[..., Tick],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, release, write = threading.Event(), threading.Event(), RecordingFile.write

    def slow(file: RecordingFile, lines: bytes) -> None:
        entered.set()
        release.wait(30.0)
        write(file, lines)

    monkeypatch.setattr(RecordingFile, "write", slow)
    recorder = record(run=False)
    recorder.offer(make_tick())
    task = asyncio.create_task(recorder.run())
    await until(entered.is_set)
    task.cancel()
    await asyncio.wait((task,))
    release.set()
    recorder.offer(make_tick())
    await recorder.stop()
    [path] = files(directory)
    assert lived_through(path)[1] == [0, 1]


def test_without_zstandard_a_compressed_recording_names_the_extra(
    record: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'neuromodd\[zstd\]'"):
        record(compress=True, run=False)


def test_a_directory_that_can_not_be_made_names_its_option(
    record: Callable[..., Recorder], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirectoryError, match=r"^recorder\.directory "):
        record(directory=tmp_path / "file" / "recordings", run=False)
