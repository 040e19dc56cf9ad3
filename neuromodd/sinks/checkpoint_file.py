"""The checkpoint file: what is written, and what is accepted.

A checkpoint is one JSON document {header, state} in its canonical form: keys sorted, no spaces, ASCII, a line
feed at the end. The header is all before `,"state":`, some 250 bytes: checksum, created_utc, dimensions,
format, package_version, version. The checksum is the SHA-256 of the file without the checksum; a file that is
not byte for byte its own canonical form is damaged. Written to a temporary file, synced, renamed, the
directory synced: after a crash there is the old one or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from neuromodd import __version__
from neuromodd.core.migration import engine_from_1
from neuromodd.errors import CheckpointDamagedError, CheckpointMismatchError

FORMAT = "neuromodd-checkpoint"
VERSION = 2

MISFITS = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)
"""What is raised over a state that is not one of a brain of this version."""

_BEFORE_SUM = b'{"header":{"checksum":"sha256:'
_SUM_DIGITS = 64
_CHUNK_BYTES = 65536


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


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and state of a checkpoint file.

    Its checksum is taken first, a piece at a time: whatever else bears the name of a checkpoint, of any size,
    is neither held in memory nor parsed.

    Raises:
        CheckpointDamagedError: it is not a whole checkpoint, or can't be read.
        CheckpointMismatchError: it is of a newer format.
    """
    try:
        # Without the flag, opening a pipe would wait for somebody at its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointDamagedError(path, "not a file")
            expected, found = _checksums(path, file)
            if expected != found:
                raise CheckpointDamagedError(path, "its content does not agree with its checksum")
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise CheckpointDamagedError(path, f"it can't be read: {error.strerror or error}") from None
    return decode(path, data)


def _checksums(path: Path, file: BinaryIO) -> tuple[str, str]:
    """The checksum that a file states, and that of its content.

    Raises:
        CheckpointDamagedError: it does not begin as a checkpoint does.
    """
    head = file.read(len(_BEFORE_SUM) + _SUM_DIGITS + 2)
    stated = head[len(_BEFORE_SUM) : -2]
    if not head:
        raise CheckpointDamagedError(path, "not a whole checkpoint: it is empty")
    if not head.startswith(_BEFORE_SUM) or not head.endswith(b'",') or not stated.isalnum():
        raise CheckpointDamagedError(path, "not a whole checkpoint: it does not begin like one")
    # Of what was written: the header had no checksum yet.
    content = hashlib.sha256(b'{"header":{')
    while chunk := file.read(_CHUNK_BYTES):
        content.update(chunk)
    return stated.decode("ascii"), content.hexdigest()


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


def _canonical(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _spelt(dimensions: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in dimensions.items())
