"""The reports of an FPGA build: files that Vivado writes, read again when they change."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from neuromodd.core.fpga import UTILIZATION_TEXT, FpgaMetrics
from neuromodd.errors import InvalidValueError, SensorAbsentError, SensorError, shortened

SIZE_LIMIT_BYTES = 256 * 1024 * 1024
"""A report above this is refused: the largest real ones have some ten megabytes."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """What tells one content of a file from the next."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int


class FpgaSensor:
    """Timing and area of the last FPGA build; a report is parsed once for each time that it changes.

    Args:
        timing_report: what `report_timing_summary -file` writes; None for no such sensor.
        utilization_report: what `report_utilization -file` writes; while it is missing, the share of
            the look-up tables is None.
    """

    name = "fpga"

    def __init__(self, *, timing_report: Path | None, utilization_report: Path | None) -> None:
        self._timing_report = timing_report
        self._utilization_report = utilization_report
        self._identities: tuple[_Identity, _Identity | None] | None = None
        # Of a fault the text is kept: raising one exception again and again makes its traceback grow.
        self._outcome: FpgaMetrics | str = "not read yet"

    def read(self) -> FpgaMetrics:
        """The metrics of the reports as they are now.

        Raises:
            SensorAbsentError: no timing report is configured, or it is not there (yet).
            SensorError: a report can't be read, is no regular file, is too large, or is not a report.
        """
        timing = self._timing_report
        if timing is None:
            raise SensorAbsentError("no timing report of an FPGA build is configured")
        # Taken before the content, so that a change in between is noticed by the next reading.
        before = _identity(timing)
        if before is None:
            raise SensorAbsentError(f"{timing}: no such file")
        identities = (before, _identity(self._utilization_report))
        if identities != self._identities:
            self._outcome = self._parse(timing, self._utilization_report if identities[1] else None)
            self._identities = identities
        if isinstance(self._outcome, str):
            raise SensorError(self._outcome)
        return self._outcome

    def close(self) -> None:
        """Forget what was read; a later read starts anew."""
        self._identities = None

    def _parse(self, timing: Path, utilization: Path | None) -> FpgaMetrics | str:
        try:
            return FpgaMetrics.parse(_content(timing), None if utilization is None else _content(utilization))
        except InvalidValueError as fault:
            path = self._utilization_report if fault.place == UTILIZATION_TEXT else timing
            return f"{path}: got {shortened(fault.got)}, expected {fault.expected}"


def _identity(path: Path | None) -> _Identity | None:
    """Which content `path` has; None if it is None or there is no such file.

    Raises:
        SensorError: it can't be looked at, is no regular file, or is too large.
    """
    if path is None:
        return None
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SensorError(f"{path}: {error.strerror}") from error
    _check(path, found)
    return _Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _content(path: Path) -> str:
    """The text of a regular file; bytes that are not UTF-8 become U+FFFD.

    Raises:
        SensorError: it can't be read, is no regular file, or is too large.
    """
    content = bytearray()
    try:
        # The path may have become a FIFO since it was looked at; opening one to read waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            _check(path, found)
            # One that grows beyond the limit meanwhile is refused by the next reading.
            while len(content) <= SIZE_LIMIT_BYTES and (
                more := os.read(descriptor, max(found.st_size - len(content), 4096))
            ):
                content += more
        finally:
            os.close(descriptor)
    except SensorError:
        raise
    except OSError as error:
        raise SensorError(f"{path}: {error.strerror}") from error
    return content.decode("utf-8", "replace")


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SensorError(f"{path}: got {stat.filemode(found.st_mode)}, expected a regular file")
    if found.st_size > SIZE_LIMIT_BYTES:
        raise SensorError(f"{path}: got {found.st_size} bytes, expected {SIZE_LIMIT_BYTES} at most")
