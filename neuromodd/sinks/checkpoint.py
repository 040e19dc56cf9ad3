"""The checkpoint sink, and the files it writes.

A checkpoint is one JSON document {header, state} in its canonical form: keys sorted, no spaces. The
header's checksum covers the rest, and a file that is not byte for byte its own canonical form is damaged.
Written to a temporary file, synced, renamed, the directory synced: after a crash there is the old one or
the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from neuromodd import __version__
from neuromodd.core.brain import Tick
from neuromodd.core.migration import engine_from_1
from neuromodd.core.payloads import CheckpointHealth
from neuromodd.errors import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    StateDirectoryError,
    StateDirectoryLockedError,
)
from neuromodd.processes import describe_process

FORMAT = "neuromodd-checkpoint"
VERSION = 2
PATTERN = "checkpoint-*.json"
LOCK_NAME = "lock"
LAST_WRITE_S = 2.0
"""What the last checkpoint of a run may take before the daemon ends without it."""

STUCK_S = 30.0
"""A write that takes longer is said in `health`."""

ASTRAY_NS = 3_600_000_000_000
"""The clocks of a file server and of this host may differ by less."""

log = structlog.get_logger()


class Restored(NamedTuple):
    """A whole checkpoint."""

    path: Path
    state: dict[str, Any]


class StateDirectory:
    """A directory that one process owns, held by an advisory lock until `close`.

    Args:
        path: is made if it is missing.
        option: that names it, for the message.

    Raises:
        StateDirectoryLockedError: another process holds it.
        StateDirectoryError: it can't be made or written.
    """

    def __init__(self, path: Path, option: str = "checkpoint.directory") -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirectoryError(f"{option} {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).strip()
            os.close(self._lock)
            named = describe_process(int(holder)) if holder.isdigit() else "another process"
            raise StateDirectoryLockedError(path, named) from None
        # The lock holds without it; a full disk must not keep the daemon from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let another daemon have it."""
        os.close(self._lock)


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
            OSError: it could not be written; the ones before are untouched.
        """
        target = self.directory / f"checkpoint-{step:016d}.json"
        write_checkpoint(
            target,
            state,
            dimensions=dimensions,
            created_utc=created_utc,
            draft=self.directory / "checkpoint.draft",
        )
        for old in self.paths()[self.keep :]:
            old.unlink()
        return target

    def paths(self) -> list[Path]:
        """The checkpoints, newest first."""
        return sorted(self.directory.glob(PATTERN), reverse=True)

    def newest(self, dimensions: Mapping[str, int]) -> Restored | None:
        """The newest whole checkpoint, damaged ones set aside with a warning; None without any.

        Raises:
            CheckpointMismatchError: it is of another network or a newer format.
            OSError: it can't be read.
        """
        for path in self.paths():
            try:
                header, state = decode(path, path.read_bytes())
            except CheckpointDamagedError as error:
                aside = self.set_aside(path, "damaged")
                log.warning("checkpoint_damaged", path=str(path), reason=error.reason, moved_to=str(aside))
                continue
            check_dimensions(
                path,
                header,
                dimensions,
                remedy="; `neuromodd run --fresh` sets it aside and starts anew",
            )
            return Restored(path, state)
        return None

    def set_aside(self, path: Path, why: str) -> Path:
        """Rename a checkpoint so that it is not read again; of those so renamed, `keep` stay."""
        aside = path.with_suffix(f".{why}")
        path.replace(aside)
        # By time of writing, which a rename keeps: a step says nothing across fresh starts.
        renamed = sorted(self.directory.glob(f"checkpoint-*.{why}"), key=_written_ns, reverse=True)
        for old in renamed[self.keep :]:
            old.unlink()
        return aside


def write_checkpoint(
    target: Path,
    state: Mapping[str, Any],
    *,
    dimensions: Mapping[str, int],
    created_utc: str,
    draft: Path | None = None,
) -> None:
    """Write one checkpoint file, as a whole or not at all.

    Args:
        target: what it is to be called; one of that name is replaced.
        state: of the brain.
        dimensions: of its network.
        created_utc: when the state was taken.
        draft: what it is called until it is whole; not given, the target's name and `.draft`.

    Raises:
        OSError: it could not be written; what was there is untouched.
    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "package_version": __version__,
        "created_utc": created_utc,
        "dimensions": dict(dimensions),
    }
    draft = draft or target.with_name(f"{target.name}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(header, state))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError:
        # On a full disk the half of a checkpoint would hold the space that the next one needs.
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode(header: Mapping[str, Any], state: Mapping[str, Any]) -> bytes:
    """A checkpoint file's bytes."""
    checksum = hashlib.sha256(_canonical({"header": header, "state": state})).hexdigest()
    return _canonical({"header": {**header, "checksum": f"sha256:{checksum}"}, "state": state})


def decode(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and state of a checkpoint file's bytes; an older format's state as this one has it.

    Raises:
        CheckpointDamagedError: the bytes are not a whole checkpoint.
        CheckpointMismatchError: it is of a newer format.
    """
    try:
        document = json.loads(data)
        header = dict(document["header"])
        state = dict(document["state"])
        checksum = header.pop("checksum")
        version = header["version"]
        whole = encode(header, state) == data and header["format"] == FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointDamagedError(
            path, f"not a whole checkpoint: {type(error).__name__}: {error}"
        ) from None
    if not whole:
        raise CheckpointDamagedError(
            path, f"its content does not agree with its checksum {str(checksum)[:80]}"
        )
    if version == 1:
        try:
            return header, {**state, "engine": engine_from_1(state["engine"])}
        except (KeyError, TypeError, IndexError) as error:
            raise CheckpointDamagedError(
                path, f"no state of format 1: {type(error).__name__}: {error}"
            ) from None
    if version != VERSION:
        raise CheckpointMismatchError(
            path,
            f"format {version}",
            f"format {VERSION}; upgrade neuromodd, or `neuromodd run --fresh` sets it aside and starts anew",
        )
    return header, state


def check_dimensions(
    path: Path, header: Mapping[str, Any], dimensions: Mapping[str, int], *, remedy: str = ""
) -> None:
    """Refuse a checkpoint of another network.

    Raises:
        CheckpointMismatchError: the message names both networks, and the remedy.
    """
    if header["dimensions"] != dict(dimensions):
        raise CheckpointMismatchError(
            path, f"a network of {_spelt(header['dimensions'])}", f"{_spelt(dimensions)}{remedy}"
        )


class CheckpointSink:
    """Writes the brain's state every so often, off the loop.

    Args:
        store: where to.
        snapshot: the state to write, taken on the loop.
        dimensions: of the network.
        interval_s: from one to the next.
        clock: monotonic seconds.
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
    ) -> None:
        self.store = store
        self.interval_s = interval_s
        self._snapshot = snapshot
        self._dimensions = dimensions
        self._clock = clock
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
    def health(self) -> CheckpointHealth:
        """How the checkpoints are."""
        return CheckpointHealth(
            age_s=None if self._written_s is None else max(self._clock() - self._written_s, 0.0),
            written=self._written,
            failures=self._failures,
            error=self._stuck() or self._error,
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
                await self._write(self._snapshot(), self._newest, self._beginning)
        except TimeoutError:
            log.warning("checkpoint_failed", error=f"the last one was not on the disk after {LAST_WRITE_S} s")
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _stuck(self) -> str | None:
        """What is to be said of a write that does not come back."""
        if self._write_began_s is None or self._clock() - self._write_began_s < STUCK_S:
            return None
        return f"{self.store.directory}: a write has not come back for over {STUCK_S:.0f} s"

    async def _write(self, state: dict[str, Any], tick: Tick, beginning: int) -> None:
        async with self._writing:
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


def _canonical(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _written_ns(path: Path) -> int:
    """When a file was written; at the beginning of time, if that is yet to come.

    It was written before the clock was set back: by that time it would outlive all that come now.
    """
    written_ns = path.stat().st_mtime_ns
    return 0 if written_ns > time.time_ns() + ASTRAY_NS else written_ns


def _spelt(dimensions: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in dimensions.items())
