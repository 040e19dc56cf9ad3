"""Whether a daemon of this host is there: who holds the lock, and what the socket tells."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from neuromodd.doctor.findings import Finding
from neuromodd.health import SOCKET_NAME, Answer, ask
from neuromodd.processes import describe_process
from neuromodd.sinks.state_directory import LOCK_NAME, lock_holders

ASK_S = 1.0

_found = partial(Finding, area="daemon")


class Presence(NamedTuple):
    """The daemon of this host, as far as it shows.

    Attributes:
        answer: what its socket says.
        closed: sockets that this user may not open.
        holders: processes that hold the lock of the state directory; 0 is one that can't be seen from here.
        directory: the state directory; None if none can be told.
    """

    answer: Answer
    closed: tuple[Path, ...] = ()
    holders: tuple[int, ...] = ()
    directory: Path | None = None

    @property
    def lock_held(self) -> bool:
        """Whether some process owns the state directory."""
        return bool(self.holders)

    @property
    def ticking(self) -> bool:
        """Whether a daemon answers, and does well."""
        return self.answer.ticking

    @property
    def here(self) -> bool:
        """Whether there is a daemon, well or not."""
        return self.answer.found or self.lock_held or bool(self.closed)

    @property
    def mqtt(self) -> Mapping[str, Any] | None:
        """What its `health` says of the connection to the broker; None if it does not say."""
        health = self.answer.report.get("health")
        known = health.get("mqtt") if isinstance(health, dict) else None
        return known if isinstance(known, dict) else None


NOBODY = Presence(Answer({"verdict": "no_daemon", "reason": "not asked in time"}, found=False))


def find_daemon(runtime: Sequence[Path], directory: Path | None, *, locks: Path) -> Presence:
    """Ask for a daemon, without disturbing one.

    Args:
        runtime: where its socket may be, besides the state directory.
        directory: the state directory; None if none can be told.
        locks: the kernel's table of them, /proc/locks.
    """
    places = [*runtime, *([] if directory is None else [directory])]
    sockets = [place / SOCKET_NAME for place in places]
    return Presence(
        answer=ask(places, ASK_S),
        closed=tuple(of for of in sockets if os.access(of, os.F_OK) and not os.access(of, os.W_OK)),
        holders=() if directory is None else _holders(directory, locks),
        directory=directory,
    )


def _holders(directory: Path, locks: Path) -> tuple[int, ...]:
    try:
        inode = (directory / LOCK_NAME).stat().st_ino
        return tuple(lock_holders(locks.read_text(encoding="ascii"), inode))
    except (OSError, ValueError):
        return ()


def examine_daemon(presence: Presence) -> Iterator[Finding]:
    """Say who is there."""
    yield _answer(presence)
    if presence.directory is None:
        return
    if presence.directory.is_dir() and not os.access(presence.directory, os.X_OK):
        yield _found(
            name="lock",
            verdict="note",
            finding=f"whether {presence.directory} is held can't be told: it is closed to this user",
            remedy="ask as root, or as its owner: sudo neuromodd doctor",
        )
    else:
        held = ", ".join(describe_process(of) if of > 0 else "a process elsewhere" for of in presence.holders)
        yield _found(
            name="lock",
            verdict="ok",
            finding=f"{presence.directory} is held by {held}" if held else f"{presence.directory} is free",
        )


def _answer(presence: Presence) -> Finding:
    found = partial(_found, name="daemon")
    reason = str(presence.answer.report.get("reason"))
    if presence.ticking:
        return found(verdict="ok", finding=f"ticking: {reason}")
    if presence.answer.found:
        return found(
            verdict="failure",
            finding=reason,
            remedy="its log says why: journalctl -u neuromodd; to start it anew: systemctl restart neuromodd",
        )
    if presence.closed:
        return found(
            verdict="note",
            finding=f"one listens at {presence.closed[0]}, which this user may not ask",
            remedy="ask as root, or as its user: sudo neuromodd doctor",
        )
    if presence.lock_held:
        return found(
            verdict="warning",
            finding="the state directory is held, and nobody answers there",
            remedy="it may be starting, or be `neuromodd record`; if it stays so, end the one that holds it",
        )
    return found(
        verdict="note", finding="none runs here", remedy="neuromodd run, or systemctl start neuromodd"
    )
