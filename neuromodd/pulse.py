"""The daemon's half of `neuromodd health`: a unix socket that tells whoever connects how the daemon does.

A caller sends nothing: the answer is one line of JSON, and the end. A stuck event loop gives none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from neuromodd.health import SOCKET_NAME

GRACE_S = 10.0
"""What a tick may take beyond its interval: a busy machine, a slow disk, a large network."""

CALLERS = 64
"""At once; each is gone in a moment, unless it does not read."""

ANSWER_S = 2.0
"""A caller that has not read its answer by then is hung up on."""

OWNER_AND_GROUP = 0o660

log = structlog.get_logger()


class Pulse:
    """Knows when the last tick was, and tells it. Mutable.

    Args:
        interval_s: from one tick to the next.
        clock: monotonic seconds of the time that ticks are scheduled by: asleep, a host misses none.
        health: the daemon's `health` payload of now, as JSON.
    """

    def __init__(
        self, *, interval_s: float, clock: Callable[[], float], health: Callable[[], str | bytes]
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._health = health
        self._expected_from_s = clock()
        self._beat_s: float | None = None
        self._callers = 0

    @property
    def bound_s(self) -> float:
        """How old the newest tick may be: two intervals, for one that is missed, and GRACE_S."""
        return 2.0 * self._interval_s + GRACE_S

    def beat(self) -> None:
        """Note that a tick was lived through."""
        self._beat_s = self._expected_from_s = self._clock()

    def follow(self, interval_s: float) -> None:
        """Expect ticks at another interval, from now on: the last may be older than the new bound."""
        if interval_s != self._interval_s:
            self._interval_s = interval_s
            self._expected_from_s = self._clock()

    def report(self) -> dict[str, Any]:
        """Whether the daemon ticks, and its `health`; a broker that is awaited is no reason to worry."""
        now_s = self._clock()
        waited_s = now_s - self._expected_from_s
        ticking = waited_s <= self.bound_s
        health = json.loads(self._health())
        age_s = None if self._beat_s is None else round(now_s - self._beat_s, 3)
        broker = "connected" if health["mqtt"]["connected"] else "awaited"
        newest = f"no tick in {waited_s:.1f} s" if age_s is None else f"the newest tick is {age_s:.1f} s old"
        expected = f", expected at most {self.bound_s:g} s" if not ticking else ""
        return {
            "verdict": "ticking" if ticking else "not_ticking",
            "reason": f"{newest}{expected}, one is due each {self._interval_s:g} s; the broker is {broker}",
            "tick_age_s": age_s,
            "tick_interval_s": self._interval_s,
            "tick_bound_s": self.bound_s,
            "broker": broker,
            "health": health,
        }

    @contextlib.asynccontextmanager
    async def listen(self, directories: Iterable[Path]) -> AsyncIterator[None]:
        """Answer callers for as long as the context lasts, in the first directory that allows it.

        The caller holds the lock of the state directory: a socket that nobody listens on is then left over
        from a daemon that was killed, and gives way. Without a socket the daemon runs all the same.
        """
        self._expected_from_s = self._clock()
        bound = next(filter(None, (_bind(directory / SOCKET_NAME) for directory in directories)), None)
        if bound is None:
            yield
            return
        path, inode, link = bound
        server = await asyncio.start_unix_server(self._answer, sock=link, backlog=CALLERS)
        try:
            yield
        finally:
            server.close()
            with contextlib.suppress(OSError):
                # Python unlinks it too from 3.13 on; and by then it may be another's.
                if path.lstat().st_ino == inode:
                    path.unlink()

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._callers >= CALLERS:
            writer.transport.abort()
            return
        self._callers += 1
        # Whoever asked may be gone, or not read.
        try:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(ANSWER_S):
                    writer.write(json.dumps(self.report()).encode() + b"\n")
                    writer.close()
                    await writer.wait_closed()
        finally:
            writer.transport.abort()
            self._callers -= 1


def _bind(path: Path) -> tuple[Path, int, socket.socket] | None:
    """A socket that is bound and not yet listens; None, and a warning, if that can't be."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        link.bind(os.fspath(path))
        path.chmod(OWNER_AND_GROUP)
        inode = path.lstat().st_ino
    except OSError as error:
        link.close()
        log.warning("health_socket_failed", socket=str(path), error=error.strerror or str(error))
        return None
    return path, inode, link


def _make_way(path: Path) -> None:
    """Remove a socket that nobody listens on; whatever else is there stays, and binding says so."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
