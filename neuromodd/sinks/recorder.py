"""The recorder: keeps on disk, in order, whatever the brain takes in.

Each file holds the brain's state at its beginning, so that each can be replayed by itself. Where lines are
lost (the disk is full, or too slow), the file ends there and the next begins with the state of then.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from typing import NamedTuple

import structlog

from neuromodd.compression import load_zstandard
from neuromodd.core.brain import Tick
from neuromodd.core.inputs import OutsideInput
from neuromodd.core.payloads import RecorderHealth
from neuromodd.recording import (
    Header,
    RecordingFile,
    frame_line,
    header_line,
    input_line,
)
from neuromodd.sinks.state_directory import StateDirectory

NAME = re.compile(r"recording-(\d{6,})-\d{8}T\d{6}Z\.jsonl(\.zst)?\Z")
QUEUE_LIMIT = 1000
"""Lines that may wait for the disk."""

RETRY_S = 5.0
"""After a failed write, not sooner again."""

LAST_WRITE_S = 2.0
"""What the last lines of a run may take."""

STUCK_S = 30.0
"""A write that takes longer is said in `health`."""

log = structlog.get_logger()


class _Frame(NamedTuple):
    line: bytes


class _Input(NamedTuple):
    line: bytes


class Recorder:
    """Writes recordings into a directory of its own, off the loop.

    Args:
        directory: is made if it is missing, and locked: two writers would remove each other's files.
        compress: with zstd.
        rotate_bytes: size at which the next file begins.
        rotate_s: age at which the next file begins.
        max_bytes: of all recordings; the oldest give way, at least twice `rotate_bytes`.
        header: the header of a file that begins with the brain as it stands now.
        clock: monotonic seconds.

    Raises:
        StateDirectoryLockedError: another process records there.
        StateDirectoryError: the directory can't be made or written.
        MissingExtraError: it is to be compressed, and the extra `zstd` is not installed.
    """

    name = "recorder"

    def __init__(
        self,
        *,
        directory: Path,
        compress: bool,
        rotate_bytes: int,
        rotate_s: float,
        max_bytes: int,
        header: Callable[[], Header],
        clock: Callable[[], float],
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        if compress:
            # Now, as a fault of the configuration, and not in the middle of the recording.
            load_zstandard()
        self._lock = StateDirectory(directory, "recorder.directory")
        self._compress = compress
        self._rotate_bytes, self._rotate_s = rotate_bytes, rotate_s
        self._header = header
        self._clock = clock
        self._limit = queue_limit
        self._files = _Files(directory, compress=compress, keep_bytes=max_bytes - rotate_bytes)
        self._queue: deque[Header | _Frame | _Input] = deque()
        self._present = asyncio.Event()
        self._lost = False
        self._retry_s = 0.0
        self._writing = asyncio.Lock()
        self._write_began_s: float | None = None
        # A thread of its own, as for the checkpoints.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="neuromodd-recorder")
        self._dropped = self._failures = 0
        self._error: str | None = None
        self._begin_file()

    @property
    def directory(self) -> Path:
        """Where the recordings are."""
        return self._lock.path

    def offer(self, tick: Tick) -> None:
        """Queue a frame that the brain has lived through; begin the next file if this one is full."""
        if self._lost:
            self._dropped += 1
            if len(self._queue) < self._limit and self._clock() >= self._retry_s:
                self._begin_file()
            return
        if self._put(_Frame(frame_line(tick.frame))) and self._is_full():
            self._begin_file()

    def offer_input(self, outside: OutsideInput) -> None:
        """Queue an input that the brain has taken."""
        if not self._lost:
            self._put(_Input(input_line(outside)))

    @property
    def waiting(self) -> int:
        """Lines that are not yet on their way to the disk."""
        return len(self._queue)

    @property
    def error(self) -> str | None:
        """What is wrong with the disk; None if nothing is."""
        return self._stuck() or self._error

    @property
    def health(self) -> RecorderHealth:
        """How the recordings are."""
        path = self._files.path
        return RecorderHealth(
            file=None if path is None else path.name,
            frames=self._files.frames,
            dropped=self._dropped,
            total_bytes=self._files.total_bytes,
            failures=self._failures,
            error=self.error,
        )

    async def run(self) -> None:
        """Write what is queued, until cancelled."""
        while True:
            await self._present.wait()
            await self._drain()

    async def stop(self) -> None:
        """Write the last lines and end the file."""
        try:
            async with asyncio.timeout(LAST_WRITE_S):
                await self._drain()
                await asyncio.get_running_loop().run_in_executor(self._thread, self._files.close)
        except TimeoutError:
            log.warning(
                "recording_failed", error=f"the last lines were not on the disk after {LAST_WRITE_S} s"
            )
        except OSError as error:
            log.warning("recording_failed", error=self._reason(error))
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._lock.close()

    def _put(self, item: Header | _Frame | _Input) -> bool:
        """Whether there was room for it."""
        if len(self._queue) >= self._limit:
            # What waits is whole up to here; what follows would have a hole.
            self._lost = True
            self._dropped += isinstance(item, _Frame)
            self._say_failure(f"{self.directory}: the disk is too slow, {self._limit} lines wait")
            return False
        self._queue.append(item)
        self._present.set()
        return True

    def _begin_file(self) -> None:
        self._lost = False
        self._began_s = self._clock()
        self._begun = self._header()
        self._put(self._begun)

    def _is_full(self) -> bool:
        if self._clock() - self._began_s >= self._rotate_s:
            return True
        # The writer may still be at the file before.
        return self._files.header is self._begun and self._files.size >= self._rotate_bytes

    async def _drain(self) -> None:
        async with self._writing:
            self._present.clear()
            items = list(self._queue)
            # Whatever becomes of this call, nothing is written twice.
            self._queue.clear()
            if not items:
                return
            self._write_began_s = self._clock()
            written = self._files.frames
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._files.write, items)
            except OSError as error:
                missing = sum(isinstance(item, _Frame) for item in (*items, *self._queue))
                self._dropped += missing - (self._files.frames - written)
                self._failures += 1
                self._queue.clear()
                self._lost = True
                self._retry_s = self._clock() + RETRY_S
                self._say_failure(self._reason(error))
                return
            finally:
                self._write_began_s = None
        if self._error is not None and not self._lost:
            self._error = None
            log.info("recording_back", file=None if self._files.path is None else self._files.path.name)

    def _say_failure(self, reason: str) -> None:
        if reason != self._error:
            log.warning("recording_failed", error=reason)
        self._error = reason

    def _reason(self, error: OSError) -> str:
        return f"{self.directory}: {error.strerror or error}"

    def _stuck(self) -> str | None:
        if self._write_began_s is None or self._clock() - self._write_began_s < STUCK_S:
            return None
        return f"{self.directory}: a write has not come back for over {STUCK_S:.0f} s"


class _Files:
    """The recordings in a directory, and the one that is being written. For one thread at a time."""

    def __init__(self, directory: Path, *, compress: bool, keep_bytes: int) -> None:
        self._directory = directory
        self._suffix = ".jsonl.zst" if compress else ".jsonl"
        self._compress = compress
        self._keep_bytes = keep_bytes
        self._file: RecordingFile | None = None
        self._others_bytes = sum(size for _, size in self._sizes())
        self.header: Header | None = None
        self.frames = 0

    @property
    def path(self) -> Path | None:
        return None if self._file is None else self._file.path

    @property
    def size(self) -> int:
        return 0 if self._file is None else self._file.size

    @property
    def total_bytes(self) -> int:
        return self._others_bytes + self.size

    def write(self, items: list[Header | _Frame | _Input]) -> None:
        """Write lines, a header into a file of its own.

        Raises:
            OSError: not all are written; the file is closed.
        """
        lines: list[_Frame | _Input] = []
        try:
            for item in items:
                if isinstance(item, Header):
                    self._write(lines)
                    lines = []
                    self._begin(item)
                else:
                    lines.append(item)
            self._write(lines)
        except OSError:
            with contextlib.suppress(OSError):
                self._give_up()
            raise

    def close(self) -> None:
        """End the file and wait until it is on the disk.

        Raises:
            OSError: it could not be written.
        """
        file, self._file = self._file, None
        if file is not None:
            self._others_bytes += file.size
            file.close()

    def _give_up(self) -> None:
        """Close the file; remove it if nothing reached it: on a full disk there may be many."""
        file = self._file
        try:
            self.close()
        finally:
            if file is not None and not file.size:
                file.path.unlink()

    def _write(self, lines: list[_Frame | _Input]) -> None:
        if lines and self._file is not None:
            self._file.write(b"".join(item.line for item in lines))
            self.frames += sum(isinstance(item, _Frame) for item in lines)

    def _begin(self, header: Header) -> None:
        self.close()
        sizes = self._sizes()
        while sizes and sum(size for _, size in sizes) > self._keep_bytes:
            sizes.pop(0)[0].unlink(missing_ok=True)
        self._others_bytes = sum(size for _, size in sizes)
        last = max((_number(path) for path, _ in sizes), default=0)
        name = f"recording-{last + 1:06d}-{header.created_utc.astimezone(UTC):%Y%m%dT%H%M%SZ}{self._suffix}"
        self._file, self.header = RecordingFile(self._directory / name, compress=self._compress), header
        self._file.write(header_line(header))

    def _sizes(self) -> list[tuple[Path, int]]:
        """Recordings and their sizes, oldest first."""
        found = [path for path in self._directory.iterdir() if NAME.match(path.name)]
        return [(path, path.stat().st_size) for path in sorted(found, key=_number)]


def _number(path: Path) -> int:
    found = NAME.match(path.name)
    return int(found.group(1)) if found else 0
