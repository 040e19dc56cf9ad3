"""The state directory, which one process owns at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from neuromodd.errors import StateDirectoryError, StateDirectoryLockedError
from neuromodd.processes import describe_process

LOCK_NAME = "lock"

LOCKS = Path("/proc/locks")
"""Where the kernel tells who holds which lock."""


class StateDirectory:
    """A directory that one process owns, held by an advisory lock until `close`.

    Args:
        path: is made if it is missing.
        option: that names it, for the message.
        remedy: what to do if another process holds it, for the message.

    Raises:
        StateDirectoryLockedError: another process holds it.
        StateDirectoryError: it can't be made, written or locked.
    """

    def __init__(
        self,
        path: Path,
        option: str = "checkpoint.directory",
        *,
        remedy: str = "one daemon to a state directory",
    ) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirectoryError(f"{option} {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(self._lock)
            os.close(self._lock)
            raise StateDirectoryLockedError(path, holder, remedy) from None
        except OSError as error:
            os.close(self._lock)
            raise StateDirectoryError(f"{option} {path}: can't be locked: {error.strerror}") from None
        # The lock holds without it; a full disk must not keep the daemon from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let another daemon have it."""
        os.close(self._lock)


def _holder(lock: int) -> str:
    """Who holds the lock of this open file, in words."""
    with contextlib.suppress(OSError):
        pids = lock_holders(LOCKS.read_text(encoding="ascii"), os.fstat(lock).st_ino)
        if len(pids) == 1:
            # The kernel has no number for what this namespace does not see.
            return describe_process(pids[0]) if pids[0] > 0 else "a process of another container"
    # What the file says may be of a holder long dead, or a number of another container.
    written = b""
    with contextlib.suppress(OSError):
        written = os.pread(lock, 32, 0).strip()
    return describe_process(int(written)) if written.isdigit() else "another process"


def lock_holders(locks: str, inode: int) -> list[int]:
    """The processes that hold a lock on a whole file, by its inode, as /proc/locks tells.

    Those who wait for one are not among them. The device is not compared: some file systems show another
    there than in `stat`.
    """
    # 2: FLOCK  ADVISORY  WRITE 4711 fe:00:131104 0 EOF
    fields = [line.split() for line in locks.splitlines()]
    return [
        int(of[4])
        for of in fields
        if len(of) > 5 and of[1] == "FLOCK" and of[5].rpartition(":")[2] == str(inode)  # noqa: PLR2004 - above
    ]
