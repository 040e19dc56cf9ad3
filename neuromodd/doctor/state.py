"""The state directory: where it is, whether it can be used, and what is in it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from neuromodd.config import Settings
from neuromodd.doctor.findings import Finding
from neuromodd.doctor.presence import Presence
from neuromodd.doctor.surroundings import Surroundings, user_name

AREA = "state directory"

_SCARCE_BYTES = 1_048_576
_SCARCE_INODES = 100

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_OF_CONTAINERS = frozenset({"overlay", "fuse-overlayfs", "aufs"})
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}
)

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_found = partial(Finding, area=AREA)


class Mount(NamedTuple):
    """What is mounted where a path is."""

    point: str
    type: str
    read_only: bool


def mount_of(mountinfo: str, path: str) -> Mount | None:
    """The mount that holds an absolute path, from the text of /proc/self/mountinfo; None without one."""
    found: Mount | None = None
    for line in mountinfo.splitlines():
        # 27 1 254:0 / /var rw,relatime shared:1 - ext4 /dev/vda rw
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 6 or not kind:  # noqa: PLR2004 - above
            continue
        point = fields[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two at one place the later hides the earlier.
        if inside and (found is None or len(point) >= len(found.point)):
            found = Mount(point, kind[0], "ro" in (*fields[5].split(","), *kind[-1].split(",")))
    return found


def why_there(settings: Settings, environ: Mapping[str, str]) -> str:
    """Which rule has chosen the state directory."""
    if settings.checkpoint.directory is not None:
        return "checkpoint.directory"
    if environ.get("STATE_DIRECTORY"):
        return "$STATE_DIRECTORY"
    if os.geteuid() == 0:
        return "the default of root"
    return "$XDG_STATE_HOME" if environ.get("XDG_STATE_HOME") else "the default of this user"


def examine_directory(
    directory: Path, why: str, *, procfs: Path, around: Surroundings, needed_bytes: int, presence: Presence
) -> Iterator[Finding]:
    """Look at the directory itself.

    Args:
        directory: which.
        why: it is that.
        procfs: this process's own /proc.
        around: where this process runs.
        needed_bytes: what the daemon may come to keep there.
        presence: the daemon of this host.
    """
    try:
        found = directory.stat()
    except FileNotFoundError:
        yield _missing(directory, why)
        return
    except OSError as error:
        yield _closed(directory, why, error)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield _found(
            name="directory",
            verdict="failure",
            finding=f"{directory} ({why}) is a file",
            remedy="move it away, or set checkpoint.directory",
        )
        return
    yield _owner(directory, why, found)
    with contextlib.suppress(OSError):
        mount = mount_of((procfs / "self/mountinfo").read_text("utf-8", "replace"), str(directory.resolve()))
        yield _file_system(mount, around)
    yield from _probe(directory, presence)
    yield _space(directory, needed_bytes)


def _missing(directory: Path, why: str) -> Finding:
    place = f"{directory} ({why})"
    above = next((of for of in directory.parents if of.exists()), Path("/"))
    if not os.access(above, os.W_OK | os.X_OK):
        return _found(
            name="directory",
            verdict="failure",
            finding=f"{place} is not there, and this user can't make it in {above}",
            remedy=f"as root: install -d -m 700 -o {user_name(os.geteuid())} {directory}",
        )
    return _found(name="directory", verdict="ok", finding=f"{place} is not there yet; the daemon makes it")


def _closed(directory: Path, why: str, error: OSError) -> Finding:
    place = f"{directory} ({why})"
    if isinstance(error, PermissionError):
        return _found(
            name="directory",
            verdict="failure",
            finding=f"{place} is closed to this user",
            remedy="ask as root: sudo neuromodd doctor; or set checkpoint.directory",
        )
    return _found(
        name="directory",
        verdict="failure",
        finding=f"{place}: {error.strerror}",
        remedy="look at the disk and what is mounted there; dmesg | tail tells of failures",
    )


def _owner(directory: Path, why: str, found: os.stat_result) -> Finding:
    owner, mode = user_name(found.st_uid), stat.S_IMODE(found.st_mode)
    finding = f"{directory} ({why}), of {owner}, mode {mode:04o}"
    if mode & _OTHERS_WRITE:
        return _found(
            name="directory",
            verdict="warning",
            finding=f"{finding}: others may change what the daemon remembers",
            remedy=f"chmod 700 {directory}",
        )
    return _found(name="directory", verdict="ok", finding=finding)


def _file_system(mount: Mount | None, around: Surroundings) -> Finding:
    found = partial(_found, name="file system")
    if mount is None:
        return found(verdict="note", finding="which one can't be told")
    place = f"{mount.type} at {mount.point}"
    if mount.read_only:
        return found(
            verdict="failure",
            finding=f"{place}, which is mounted read-only",
            remedy="set checkpoint.directory to a place that can be written, or remount it: after a failure "
            "of the disk dmesg tells why",
        )
    if mount.type in _IN_MEMORY:
        return found(
            verdict="warning",
            finding=f"{place}: what is learned is lost at a reboot",
            remedy="set checkpoint.directory to a place on a disk; in a container mount a volume there",
        )
    if mount.type in _OF_CONTAINERS:
        what = "with the container" if around.container else "when the overlay is"
        return found(
            verdict="warning",
            finding=f"{place}: what is learned is lost {what}",
            remedy="mount a volume there: -v neuromodd:/var/lib/neuromodd",
        )
    if mount.type in _NETWORK:
        return found(
            verdict="warning",
            finding=f"{place}: a server that is away holds checkpoints up, and locks depend on it",
            remedy="set checkpoint.directory to a place on a disk of this host",
        )
    return found(verdict="ok", finding=place)


def _probe(directory: Path, presence: Presence) -> Iterator[Finding]:
    """Write a file, sync it, give it a second name, and remove both."""
    probe = directory / f"doctor-{os.getpid()}.probe"
    second = probe.with_suffix(".link")
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"?")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield _found(name="writable", verdict="ok", finding="a file can be written and synced there")
        yield _links(probe, second)
    except PermissionError:
        other = presence.ticking or presence.lock_held
        as_who = "ask as the daemon's user, or as root: sudo neuromodd doctor"
        yield _found(
            name="writable",
            verdict="note" if other else "failure",
            finding="this user can't write there" + ("; the daemon is another's" if other else ""),
            remedy=as_who
            if other
            else f"{as_who}; if this user is to run it: chown -R {user_name(os.geteuid())} {directory}",
        )
    except OSError as error:
        yield _found(
            name="writable",
            verdict="failure",
            finding=f"a file can't be written there: {error.strerror}",
            remedy="free or repair the disk (df -h, df -i, dmesg | tail), or set checkpoint.directory",
        )
    finally:
        for path in (second, probe):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _links(probe: Path, second: Path) -> Finding:
    try:
        second.hardlink_to(probe)
    except OSError as error:
        return _found(
            name="hard links",
            verdict="note",
            finding=f"{error.strerror}: an upgrade will not keep the original of an older checkpoint",
            remedy="copy the directory before you upgrade",
        )
    return _found(name="hard links", verdict="ok", finding="work")


def _space(directory: Path, needed_bytes: int) -> Finding:
    found = partial(_found, name="space")
    try:
        room = os.statvfs(directory)
    except OSError as error:
        return found(verdict="warning", finding=f"can't be told: {error.strerror}", remedy="df -h tells more")
    free_bytes = room.f_bavail * room.f_frsize
    # A file system that makes inodes as it needs them counts none.
    short_of_inodes = room.f_files > 0 and room.f_favail < _SCARCE_INODES
    finding = f"{size_text(free_bytes)} free" + (f", {room.f_favail} inodes" if room.f_files else "")
    needs = f"the daemon may come to keep {size_text(needed_bytes)} there"
    remedy = "free some (df -h, df -i), or lower mqtt.outbox.max_bytes and recorder.max_bytes"
    if free_bytes < _SCARCE_BYTES or short_of_inodes:
        return found(verdict="failure", finding=f"{finding}; {needs}", remedy=remedy)
    if free_bytes < needed_bytes:
        return found(verdict="warning", finding=f"{finding}; {needs}", remedy=remedy)
    return found(verdict="ok", finding=finding)


def size_text(size_bytes: int) -> str:
    """A size in its largest unit."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024.0:  # noqa: PLR2004 - the unit's
            return f"{size:.3g} {unit}"
        size /= 1024.0
    return f"{size:.3g} TiB"
