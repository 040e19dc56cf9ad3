"""A disk under a process that fails on demand."""

from __future__ import annotations

import errno
from pathlib import Path

FAULTS = {
    "short writes": (0, "h"),
    "ENOSPC": (errno.ENOSPC, "w"),
    "short writes and ENOSPC": (errno.ENOSPC, "hw"),
    "EIO": (errno.EIO, "rsw"),
    "EROFS": (errno.EROFS, "omstuw"),
    "EACCES": (errno.EACCES, "omu"),
    "fsync fails": (errno.EIO, "s"),
    "rename fails": (errno.EIO, "m"),
}
"""Names of faults, with what `FailingDisk.fail` takes."""


class FailingDisk:
    """What a process is started with so that its files below a directory fail (crash/faults.c)."""

    def __init__(self, library: Path, directory: Path, control: Path) -> None:
        self.directory = directory
        self._control = control
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAULTS_BELOW": str(directory),
            "FAULTS_CONTROL": str(control),
        }
        self.heal()

    def fail(self, number: int, calls: str) -> None:
        """Let the calls that the letters stand for fail with an errno."""
        self._tell(f"{number} {calls}")

    def kill_at(self, call: int) -> None:
        """Let a process be killed at one of its calls that change something, counted from 1."""
        self._tell(f"{call} k")

    def heal(self) -> None:
        self._tell("")

    def _tell(self, text: str) -> None:
        # At once: the process must not read half of it.
        draft = self._control.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(self._control)
