"""Reading the kernel's text files, and knowing when to look for devices again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from neuromodd.errors import SensorAbsentError

_FIRST_SIZE = 4096
_INTEGER_SIZE = 64
# Reading while a device wakes up waits until it has: seconds, for a GPU.
_ASLEEP = frozenset({"suspended", "suspending", "resuming"})
_VANISHED = frozenset({errno.ENOENT, errno.ENODEV})


class HeldFile:
    """A file of /proc or /sys that stays open and is read from its beginning each time.

    It is opened by the first read. After an error it is closed, and the next read opens it anew, so
    that a device that comes back under the same path is read again.
    """

    __slots__ = ("_descriptor", "_size", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._size = _FIRST_SIZE

    def read(self) -> str:
        """The whole content; bytes that are not UTF-8 become U+FFFD.

        Raises:
            OSError: the file can't be opened or read.
        """
        content = bytearray(self._read_from(0))
        # A short read is not the end: the kernel hands out long lists of records a page at a time.
        while more := self._read_from(len(content)):
            content += more
        if len(content) >= self._size:
            self._size = 2 * len(content)
        return content.decode("utf-8", "replace")

    def read_integer(self) -> int:
        """The one number that a sysfs attribute holds, in a single system call.

        Raises:
            OSError: the file can't be opened or read.
            ValueError: it does not hold an integer.
        """
        return int(self._read_from(0, _INTEGER_SIZE))

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _read_from(self, offset: int, size: int | None = None) -> bytes:
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._descriptor, size or self._size, offset)
        except OSError:
            self.close()
            raise


class Rescan:
    """Says when devices are to be enumerated: at first, every minute, and soon after one vanished."""

    def __init__(
        self, clock: Callable[[], float], *, interval_s: float = 60.0, after_loss_s: float = 5.0
    ) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._after_loss_s = after_loss_s
        self._last_s: float | None = None
        self._wait_s = 0.0

    def due(self) -> bool:
        """Whether to enumerate now; True starts the next interval."""
        now_s = self._clock()
        if self._last_s is not None and now_s - self._last_s < self._wait_s:
            return False
        self._last_s = now_s
        self._wait_s = self._interval_s
        return True

    def consider(self, error: OSError | ValueError) -> None:
        """Bring the next enumeration forward if `error` says that a device is gone."""
        # Some drivers answer ENODEV for ever, so a loss shortens the wait and does not end it.
        if isinstance(error, OSError) and error.errno in _VANISHED:
            self.soon()

    def soon(self) -> None:
        """Bring the next enumeration forward, as when this one found nothing."""
        self._wait_s = min(self._wait_s, self._after_loss_s)


def read_or_absent(file: HeldFile) -> str:
    """The content of a file without which the machine has no such sensor.

    Raises:
        SensorAbsentError: there is no such file.
        OSError: it is there and can't be read.
    """
    try:
        return file.read()
    except FileNotFoundError:
        raise SensorAbsentError(f"{file.path}: no such file") from None


def read_word(path: Path) -> str | None:
    """The one line that a sysfs attribute holds, stripped; None if it is missing, unreadable or empty."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip() or None
    except OSError:
        return None


def read_integer(path: Path) -> int | None:
    """The one number that a sysfs attribute holds; None if it is missing, unreadable or no integer."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None


def is_asleep(power: HeldFile) -> bool:
    """Whether a device's `power/runtime_status` says that it sleeps; one that can't be asked is awake."""
    try:
        return power.read().strip() in _ASLEEP
    except OSError:
        return False
