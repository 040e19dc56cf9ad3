"""The clocks: the wall clock, which stamps, and the boot clock, which everything else is counted by."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from neuromodd.doctor.findings import Finding
from neuromodd.doctor.surroundings import Surroundings

AREA = "clock"

EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock that is right shows less: this program is not older."""

LATEST = datetime(2100, 1, 1, tzinfo=UTC)

TIMESYNC_MARK = Path("run/systemd/timesync/synchronized")
"""systemd-timesyncd makes it when it has set the clock."""

CHRONY_MARK = Path("run/chrony/chronyd.pid")
"""Unless it is told to (`rtcsync`), chronyd does not tell the kernel that it keeps the clock right."""

_UNSYNCHRONISED = 0x40
_TIMEX_BYTES = 512
"""More than any architecture's."""

_found = partial(Finding, area=AREA)


class KernelClock(NamedTuple):
    """What the kernel knows of its wall clock.

    Attributes:
        synchronised: whether something keeps it right.
        error_s: how far it may be off, by its own account.
    """

    synchronised: bool
    error_s: float


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("maximum_error_us", ctypes.c_long),
        ("estimated_error_us", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * _TIMEX_BYTES),
    )


def kernel_clock() -> KernelClock | None:
    """Ask the kernel, which changes nothing; None where it does not tell (a sandbox, musl)."""
    asked = _Timex()
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(asked))
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    return KernelClock(not asked.status & _UNSYNCHRONISED, asked.maximum_error_us / 1e6)


def examine_clock(root: Path, around: Surroundings) -> Iterator[Finding]:
    """Look at the clocks; `root` is where /run is."""
    now_utc = datetime.now(UTC)
    yield judge_date(now_utc)
    yield judge_synchronisation(kernel_clock(), root=root, around=around)
    yield _boot_clock()


def judge_date(now_utc: datetime) -> Finding:
    """Whether the wall clock may be right."""
    told = f"{now_utc:%Y-%m-%d %H:%M:%S} UTC"
    if EARLIEST <= now_utc < LATEST:
        return _found(name="date", verdict="ok", finding=told)
    return _found(
        name="date",
        verdict="failure",
        finding=f"{told}, which can't be: what is published and kept gets wrong times",
        remedy="set it: timedatectl set-ntp true, or date -s; a board without a clock of its own needs NTP",
    )


def judge_synchronisation(known: KernelClock | None, *, root: Path, around: Surroundings) -> Finding:
    """Whether something keeps the wall clock right, by the kernel's word or by a mark below `root`."""
    found = partial(_found, name="synchronised")
    if known is not None and known.synchronised:
        return found(verdict="ok", finding=f"by the kernel's account, within {known.error_s * 1e3:.3g} ms")
    if (root / TIMESYNC_MARK).exists():
        return found(verdict="ok", finding="systemd-timesyncd has set it")
    if (root / CHRONY_MARK).exists():
        return found(verdict="ok", finding="chronyd runs; chronyc tracking tells how it does")
    if known is None:
        return found(verdict="note", finding="the kernel does not tell this process")
    finding = "nothing keeps it right: what is published gets times that drift"
    if around.container is not None:
        return found(verdict="warning", finding=finding, remedy="look on the host: timedatectl")
    return found(
        verdict="warning",
        finding=finding,
        remedy="systemctl enable --now systemd-timesyncd, or install chrony; timedatectl tells how it is",
    )


def _boot_clock() -> Finding:
    try:
        asleep_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    except OSError as error:
        return _found(
            name="boot clock",
            verdict="failure",
            finding=f"the kernel has none: {error.strerror}",
            remedy="use a kernel of 2.6.39 or later",
        )
    slept = f"; asleep for {asleep_s:.0f} s since boot" if asleep_s >= 1.0 else ""
    return _found(name="boot clock", verdict="ok", finding=f"counts time asleep too{slept}")
