"""What the state directory holds: checkpoints, the outbox, recordings. Only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from neuromodd.checkpoints import ASIDE_SUFFIXES
from neuromodd.config import Settings
from neuromodd.doctor.findings import Finding, number_text
from neuromodd.doctor.presence import Presence
from neuromodd.doctor.state import AREA, size_text
from neuromodd.errors import CheckpointDamagedError, CheckpointMismatchError
from neuromodd.sinks.checkpoint import CheckpointStore
from neuromodd.sinks.checkpoint_file import check_dimensions, read_checkpoint
from neuromodd.sinks.outbox import FILE_NAME
from neuromodd.sinks.recorder import NAME

AHEAD_S = 60.0
"""So far a clock may go back without a word."""

_found = partial(Finding, area=AREA)


class Kept(NamedTuple):
    """What became of looking at the checkpoints.

    Attributes:
        newest: the newest whole one.
        created_utc: when it was taken; None where it does not say.
        whole: how many are.
        damaged: why each of the others is not.
    """

    newest: Path | None
    created_utc: datetime | None
    whole: int
    damaged: tuple[str, ...]


def examine_memory(directory: Path, settings: Settings, presence: Presence) -> Iterator[Finding]:
    """Look at what a state directory holds.

    Raises:
        OSError: it can't be read.
    """
    paths = CheckpointStore(directory, keep=1).paths()
    try:
        kept = _kept(paths, settings)
    except CheckpointMismatchError as error:
        yield _found(
            name="checkpoints",
            verdict="failure",
            finding=f"{error}: the daemon does not start with it",
            remedy="give back the settings that it is of, or set it aside: neuromodd checkpoint reset",
        )
    else:
        yield judge_checkpoints(kept, now_utc=datetime.now(UTC))
    names = sorted(path.name for path in directory.iterdir())
    aside = [name for name in names if Path(name).suffix.partition("-")[0] in ASIDE_SUFFIXES]
    if aside:
        yield _found(
            name="set aside",
            verdict="note",
            finding=f"{number_text(len(aside), 'file')}, damaged, of an older format or given up: {aside[0]}",
            remedy="neuromodd checkpoint list names them; the daemon removes old ones, or you do",
        )
    yield examine_outbox(directory / FILE_NAME, presence)
    yield from _recordings(settings)


def _kept(paths: Sequence[Path], settings: Settings) -> Kept:
    newest: Path | None = None
    created_utc = None
    whole, damaged = 0, []
    for path in paths:
        try:
            header, _ = read_checkpoint(path)
        except CheckpointDamagedError as error:
            # The daemon removes the oldest while we look.
            if path.exists():
                damaged.append(str(error))
            continue
        if newest is None:
            check_dimensions(path, header, settings.engine.dimensions)
            newest, created_utc = path, _time(header.get("created_utc"))
        whole += 1
    return Kept(newest, created_utc, whole, tuple(damaged))


def judge_checkpoints(kept: Kept, *, now_utc: datetime) -> Finding:
    """What the daemon would go on from."""
    found = partial(_found, name="checkpoints")
    if kept.damaged:
        instead = (
            "the next start begins anew" if kept.newest is None else f"{kept.newest.name} is used instead"
        )
        return found(
            verdict="failure" if kept.newest is None else "warning",
            finding=f"{len(kept.damaged)} damaged, {kept.damaged[0]}; {instead}",
            remedy="the next start sets it aside; if you have not cut a copy short, look at the disk: "
            "dmesg, smartctl -a",
        )
    if kept.newest is None:
        return found(verdict="ok", finding="none yet: the next start begins anew")
    if kept.created_utc is None:
        return found(verdict="ok", finding=f"{kept.whole}, the newest {kept.newest.name}")
    age_s = (now_utc - kept.created_utc).total_seconds()
    if age_s < -AHEAD_S:
        return found(
            verdict="warning",
            finding=f"the newest, {kept.newest.name}, is {age_text(-age_s)} ahead of this clock",
            remedy="one of both is wrong: see clock; the levels do not decay over the time until then",
        )
    return found(
        verdict="ok", finding=f"{kept.whole}, the newest {kept.newest.name}, {age_text(max(age_s, 0.0))} old"
    )


def examine_outbox(path: Path, presence: Presence) -> Finding:
    """How much waits for the broker, by the daemon's word if it runs, else by the file."""
    found = partial(_found, name="outbox")
    if presence.mqtt is not None:
        outbox = presence.mqtt["outbox"]
        count, size_bytes = outbox["waiting"], outbox["waiting_bytes"]
        waits = f"{number_text(count, 'message')} for the broker, {size_text(size_bytes)}"
        if outbox["error"] is None:
            return found(verdict="ok", finding=waits)
        return found(
            verdict="failure",
            finding=f"{waits}, in memory alone: {outbox['error']}",
            remedy="free or repair the disk; what waits is lost if the daemon ends before",
        )
    if not path.exists():
        return found(verdict="ok", finding="empty")
    journal = path.with_name(f"{path.name}-wal")
    if journal.exists() and journal.stat().st_size:
        return found(verdict="ok", finding="what waits is counted at the next start: a kill left a journal")
    try:
        # Immutable: nothing is locked, and no file made beside it.
        uri = f"{path.resolve().as_uri()}?immutable=1"
        file = sqlite3.connect(uri, uri=True)
        try:
            count = file.execute("SELECT count(*) FROM outbox").fetchone()[0]
        finally:
            file.close()
    except sqlite3.Error as error:
        return found(
            verdict="warning",
            finding=f"{path} can't be read: {error}",
            remedy="ask as the daemon's user; if it is damaged, the next start sets it aside",
        )
    return found(verdict="ok", finding=f"{number_text(count, 'message')} for the broker")


def _recordings(settings: Settings) -> Iterator[Finding]:
    found = partial(_found, name="recordings")
    directory, limit = settings.recording_directory(), settings.recorder.max_bytes
    try:
        sizes = [of.stat().st_size for of in directory.iterdir() if NAME.match(of.name)]
    except FileNotFoundError:
        sizes = []
    except OSError as error:
        yield found(
            verdict="warning", finding=f"{directory}: {error.strerror}", remedy="set recorder.directory"
        )
        return
    if settings.recorder.enabled or sizes:
        total = f"{size_text(sum(sizes))} of {size_text(limit)} at most"
        yield found(verdict="ok", finding=f"{number_text(len(sizes), 'file')} in {directory}, {total}")


def needed_bytes(directory: Path, settings: Settings) -> int:
    """What the daemon may come to keep in its directory beyond what is there.

    Raises:
        OSError: the directory can't be read.
    """
    sizes = [path.stat().st_size for path in CheckpointStore(directory, keep=1).paths()]
    largest = max(sizes, default=65_536)
    checkpoints = max(settings.checkpoint.keep + 1 - len(sizes), 1) * largest
    recordings = settings.recorder.max_bytes if settings.recorder.enabled else 0
    if settings.recorder.enabled and settings.recording_directory().is_dir():
        recordings -= sum(of.stat().st_size for of in settings.recording_directory().iterdir())
    # The outbox has an index and a journal besides what it holds.
    return checkpoints + 2 * settings.mqtt.outbox.max_bytes + max(recordings, 0)


def age_text(age_s: float) -> str:
    """An age in its largest whole unit."""
    units = ((86_400, "d"), (3_600, "h"), (60, "min"))
    size_s, unit = next((of for of in units if age_s >= 2 * of[0]), (1, "s"))
    return f"{int(age_s / size_s)} {unit}"


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time.replace(tzinfo=time.tzinfo or UTC)
