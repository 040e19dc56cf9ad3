"""The checkpoint sink, and the checkpoints of a state directory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from neuromodd.core.brain import Tick
from neuromodd.core.payloads import CheckpointHealth
from neuromodd.errors import CheckpointDamagedError
from neuromodd.sinks.checkpoint_file import VERSION, check_dimensions, read_checkpoint, write_checkpoint

NAME = re.compile(r"checkpoint-\d{16}\.json")
"""By network step. What else is in the directory, a copy that somebody made among it, is not touched."""

LAST_WRITE_S = 2.0
"""What the last checkpoint of a run may take before the daemon ends without it."""

STUCK_S = 30.0
"""A write that takes longer is said in `health`."""

ASTRAY_NS = 3_600_000_000_000
"""The clocks of a file server and of this host may differ by less."""

OUTBOX_FIRST_S = 10.0
"""So long a checkpoint waits for what its ticks have brought to be in the outbox."""

LAST_OUTBOX_FIRST_S = 1.0
"""The same for the last checkpoint of a run."""

log = structlog.get_logger()


class Restored(NamedTuple):
    """A whole checkpoint."""

    path: Path
    state: dict[str, Any]


class CheckpointStore:
    """The checkpoints in one directory, named by network step; the highest is the newest.

    Args:
        directory: must exist.
        keep: how many whole checkpoints stay, and how many damaged ones.
    """

    def __init__(self, directory: Path, *, keep: int) -> None:
        self.directory = directory
        self.keep = keep

    def write(
        self, state: Mapping[str, Any], *, step: int, dimensions: Mapping[str, int], created_utc: str
    ) -> Path:
        """Write one checkpoint, then remove the oldest beyond `keep`.

        Raises:
            OSError: it could not be written, or one that is too many not be removed; those that are to stay
                are untouched.
        """
        target = self.directory / f"checkpoint-{step:016d}.json"
        try:
            write_checkpoint(
                target,
                state,
                dimensions=dimensions,
                created_utc=created_utc,
                draft=self.directory / "checkpoint.draft",
            )
        except OSError:
            # It may have its name already and only the directory not be synced, time after time.
            with contextlib.suppress(OSError):
                self._trim(target)
            raise
        self._trim(target)
        return target

    def paths(self) -> list[Path]:
        """The checkpoints, newest first; none where there is no directory.

        Raises:
            OSError: the directory can't be read.
        """
        try:
            names = [path.name for path in self.directory.iterdir()]
        except FileNotFoundError:
            return []
        return [self.directory / name for name in sorted(names, reverse=True) if NAME.fullmatch(name)]

    def newest(self, dimensions: Mapping[str, int]) -> Restored | None:
        """The newest whole checkpoint, damaged ones set aside with a warning; None without any.

        Raises:
            CheckpointMismatchError: it is of another network or a newer format.
            OSError: the directory can't be read.
        """
        for path in self.paths():
            try:
                header, state = read_checkpoint(path)
            except CheckpointDamagedError as error:
                self._set_damaged_aside(path, error.reason)
                continue
            check_dimensions(
                path,
                header,
                dimensions,
                remedy="; `neuromodd run --fresh` sets it aside and starts anew",
            )
            if header["version"] != VERSION:
                self._keep_original(path, header["version"])
            return Restored(path, state)
        return None

    def set_aside(self, path: Path, why: str) -> Path:
        """Rename a checkpoint so that it is not read again; of those so renamed, `keep` stay.

        Raises:
            OSError: it could not be renamed.
        """
        aside = path.with_suffix(f".{why}")
        if path.is_dir() or aside.is_dir():
            # The one does not replace the other.
            others = (aside.with_suffix(f".{why}-{count}") for count in itertools.count(1))
            aside = next(name for name in itertools.chain((aside,), others) if not name.exists())
        path.replace(aside)
        # What can't be removed now is tried again with the next.
        with contextlib.suppress(OSError):
            files = [of for of in self.directory.glob(f"checkpoint-*.{why}") if of.is_file() and of != aside]
            # By time of writing, which a rename keeps: a step says nothing across fresh starts. Whatever its
            # own time, the one of now stays.
            for old in sorted(files, key=_written_ns, reverse=True)[max(self.keep - 1, 0) :]:
                old.unlink(missing_ok=True)
        return aside

    def _set_damaged_aside(self, path: Path, reason: str) -> None:
        try:
            moved_to = str(self.set_aside(path, "damaged"))
        except OSError as error:
            # It is refused again at the next start; the one before it is as good without.
            moved_to = f"nowhere: {error.strerror}"
        log.warning("checkpoint_damaged", path=str(path), reason=reason, moved_to=moved_to)

    def _keep_original(self, path: Path, version: int) -> None:
        """Give a checkpoint of an older format a second name: for the way back to an older release."""
        original = path.with_suffix(f".format-{version}")
        try:
            original.hardlink_to(path)
        except FileExistsError:
            return
        except OSError as error:
            log.warning("checkpoint_not_kept", path=str(original), error=error.strerror)
        else:
            log.info("checkpoint_kept", format=version, path=str(original))

    def _trim(self, newest: Path) -> None:
        # Whatever the steps of the others, the one just written stays.
        paths = self.paths()
        others = [path for path in paths if path != newest and path.is_file()]
        for old in others[self.keep - (newest in paths) :]:
            old.unlink(missing_ok=True)


class CheckpointSink:
    """Writes the brain's state every so often, off the loop.

    Args:
        store: where to.
        snapshot: the state to write, taken on the loop.
        dimensions: of the network.
        interval_s: from one to the next.
        clock: monotonic seconds.
        outbox_first: waits until what the ticks so far have brought is in the outbox. A checkpoint knows its
            rewards as given: written first, a kill between the two would lose them.
    """

    name = "checkpoint"

    def __init__(
        self,
        *,
        store: CheckpointStore,
        snapshot: Callable[[], dict[str, Any]],
        dimensions: Mapping[str, int],
        interval_s: float,
        clock: Callable[[], float],
        outbox_first: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.store = store
        self.interval_s = interval_s
        self._snapshot = snapshot
        self._dimensions = dimensions
        self._clock = clock
        self._outbox_first = outbox_first
        self._due = asyncio.Event()
        self._pending: tuple[dict[str, Any], Tick, int] | None = None
        self._beginning = 0
        self._beginning_anew: asyncio.Future[int] | None = None
        self._newest: Tick | None = None
        self._started_s = clock()
        self._writing = asyncio.Lock()
        self._write_began_s: float | None = None
        # A thread of its own: in the loop's pool it would wait behind a resolver that hangs.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="neuromodd-checkpoint")
        self._written_s: float | None = None
        self._written = 0
        self._failures = 0
        self._error: str | None = None

    def offer(self, tick: Tick) -> None:
        """Take a snapshot when one is due and the last is on the disk."""
        self._newest = tick
        now_s = self._clock()
        if now_s - self._started_s >= self.interval_s and not self._writing.locked():
            self._started_s = now_s
            self._pending = (self._snapshot(), tick, self._beginning)
            self._due.set()

    @property
    def error(self) -> str | None:
        """What is wrong with the disk; None if nothing is."""
        return self._stuck() or self._error

    @property
    def health(self) -> CheckpointHealth:
        """How the checkpoints are."""
        return CheckpointHealth(
            age_s=None if self._written_s is None else max(self._clock() - self._written_s, 0.0),
            written=self._written,
            failures=self._failures,
            error=self.error,
        )

    async def run(self) -> None:
        """Write what is due, until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            if self._pending is not None:
                state, tick, beginning = self._pending
                self._pending = None
                await self._write(state, tick, beginning)

    async def write_now(self) -> int:
        """Write a checkpoint of this moment; the network step that it is of.

        Raises:
            OSError: it could not be written.
        """
        if self._newest is None:
            raise OSError("there has been no tick yet")
        step = self._newest.result.step
        await self._write(self._snapshot(), self._newest, self._beginning)
        if self._error is not None:
            raise OSError(self._error)
        return step

    async def begin_anew(self, forget: Callable[[], None]) -> int:
        """Set all checkpoints aside and let the brain `forget`; how many there were.

        A step of the new beginning is lower than theirs, and would not count as the newest.

        Raises:
            OSError: one could not be set aside; nothing was forgotten.
        """
        # Also if whoever asked is cancelled: the checkpoints must not be gone while the brain remembers.
        self._beginning_anew = asyncio.ensure_future(self._begin_anew(forget))
        return await asyncio.shield(self._beginning_anew)

    async def _begin_anew(self, forget: Callable[[], None]) -> int:
        async with self._writing:
            loop = asyncio.get_running_loop()
            count = await loop.run_in_executor(self._thread, self._set_all_aside)
            self._pending = None
            self._beginning += 1
            forget()
            # The next tick is of the new beginning, and is the first worth keeping.
            self._newest = None
            self._started_s = self._clock() - self.interval_s
        return count

    def _set_all_aside(self) -> int:
        # The oldest first: if one fails, the newest is still there to go on from.
        paths = self.store.paths()[::-1]
        for path in paths:
            self.store.set_aside(path, "reset")
        return len(paths)

    async def stop(self) -> None:
        """Write the last checkpoint."""
        if self._newest is None:
            return
        try:
            async with asyncio.timeout(LAST_WRITE_S):
                await self._write(
                    self._snapshot(), self._newest, self._beginning, outbox_first_s=LAST_OUTBOX_FIRST_S
                )
        except TimeoutError:
            log.warning("checkpoint_failed", error=f"the last one was not on the disk after {LAST_WRITE_S} s")
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _stuck(self) -> str | None:
        """What is to be said of a write that does not come back."""
        if self._write_began_s is None or self._clock() - self._write_began_s < STUCK_S:
            return None
        return f"{self.store.directory}: a write has not come back for over {STUCK_S:.0f} s"

    async def _await_outbox(self, timeout_s: float) -> None:
        if self._outbox_first is not None:
            # An outbox that hangs must not cost the checkpoint too.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._outbox_first()

    async def _write(
        self,
        state: dict[str, Any],
        tick: Tick,
        beginning: int,
        *,
        outbox_first_s: float = OUTBOX_FIRST_S,
    ) -> None:
        async with self._writing:
            await self._await_outbox(outbox_first_s)
            if beginning != self._beginning:
                # Forgotten while it waited: its step is higher than all that come now.
                return
            created = "" if tick.frame.time_utc is None else tick.frame.time_utc.isoformat()
            write = partial(
                self.store.write,
                state,
                step=tick.result.step,
                dimensions=self._dimensions,
                created_utc=created,
            )
            self._write_began_s = self._clock()
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, write)
            except OSError as error:
                self._failures += 1
                reason = f"{self.store.directory}: {error.strerror or error}"
                if reason != self._error:
                    log.warning("checkpoint_failed", error=reason)
                self._error = reason
                return
            finally:
                self._write_began_s = None
        if self._error is not None:
            log.info("checkpoint_back")
        self._error = None
        self._written += 1
        self._written_s = self._clock()


def _written_ns(path: Path) -> int:
    """When a file was written; at the beginning of time, if that is yet to come.

    It was written before the clock was set back: by that time it would outlive all that come now.
    """
    written_ns = path.stat().st_mtime_ns
    return 0 if written_ns > time.time_ns() + ASTRAY_NS else written_ns
