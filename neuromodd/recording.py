"""Recordings: the file format that the recorder writes and a replay reads.

JSON Lines, plain or in zstd. A header with the parameters and the start state, then the frames, bare,
and what came from outside, `{"input": ...}`, in the order in which the brain took them. Lines are read
one by one, so that a recording may be larger than memory.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, NoReturn, Self

from pydantic import AwareDatetime

from neuromodd.compression import ZSTD_MAGIC, Decompressed, load_zstandard
from neuromodd.core.brain import BrainParameters
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.inputs import OutsideInput, input_from_dict
from neuromodd.core.record import Record
from neuromodd.errors import (
    InvalidRecordError,
    InvalidValueError,
    RecordingError,
    shortened,
)

FORMAT = "neuromodd-recording"
VERSION = 1

LINE_LIMIT_BYTES = 64 * 1024 * 1024
"""A longer line is broken; the header of a network of 100,000 neurons has some 20 MiB."""

BUFFER_BYTES = 256 * 1024
REASON_CHARACTERS = 300

SPECIAL = (b'"format"', b'"input"', b"NaN", b"Infinity")
"""A line without any of these is a frame, or broken."""


class Header(Record):
    """The first line of a recording.

    Attributes:
        format: tells recordings from other JSON.
        version: of the format.
        package_version: the neuromodd that wrote it.
        created_utc: when the start state was taken.
        node: the host's name in topics.
        boot_id: the kernel's random name of the boot.
        seed: of the network's generator.
        parameters: what the brain was made with, as they were at the start state; where they say nothing of
            surprise, there was none.
        state: the start state: what `Brain.state` returned before the first frame of the file.
    """

    format: Literal["neuromodd-recording"] = "neuromodd-recording"
    version: Literal[1] = 1
    package_version: str
    created_utc: AwareDatetime
    node: str
    boot_id: str | None
    seed: int
    parameters: BrainParameters
    state: dict[str, Any]


class Broken(NamedTuple):
    """A line that can't be used."""

    reason: str


class Truncated(NamedTuple):
    """The end of a file that was cut short, as a kill leaves it; all whole lines came before."""

    reason: str


Content = Header | TelemetryFrame | OutsideInput | Broken | Truncated


class Item(NamedTuple):
    """What stands in a line; lines are counted from 1."""

    line: int
    content: Content


# Writing


def header_line(header: Header) -> bytes:
    """The line of a header.

    Raises:
        ValueError: the state holds NaN or an infinity.
    """
    # Not to_json: it would write null for a NaN in the state, and nobody would notice.
    document = {**header.model_dump(mode="json", exclude={"state"}), "state": header.state}
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def frame_line(frame: TelemetryFrame) -> bytes:
    """The line of a frame."""
    return frame.to_json().encode() + b"\n"


def input_line(outside: OutsideInput) -> bytes:
    """The line of an input from outside."""
    return b'{"input":' + outside.to_json().encode() + b"}\n"


class RecordingFile:
    """A new file, for its owner alone. What was written survives a kill; once closed, a power cut too.

    Args:
        path: must not exist.
        compress: with zstd.

    Attributes:
        size: bytes on the disk.

    Raises:
        OSError: it can't be made, or is there already.
        MissingExtraError: it is to be compressed, and the extra `zstd` is not installed.
    """

    def __init__(self, path: Path, *, compress: bool = False) -> None:
        self.path = path
        self.size = 0
        self._zstandard = load_zstandard() if compress else None
        # Whoever altered or cut the file is found out at the end of it.
        self._compressor = (
            None
            if self._zstandard is None
            else self._zstandard.ZstdCompressor(write_checksum=True).compressobj()
        )
        self._whole = True
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, lines: bytes) -> None:
        """Pass whole lines to the operating system.

        Raises:
            OSError: they are not in the file, which takes no more.
        """
        if self._zstandard is not None and self._compressor is not None:
            # A block flush: all of it can be read although the stream goes on.
            lines = self._compressor.compress(lines) + self._compressor.flush(
                self._zstandard.COMPRESSOBJ_FLUSH_BLOCK
            )
        self._append(lines)

    def close(self) -> None:
        """End the stream, and wait until all is on the disk.

        Raises:
            OSError: it may not be; the file is closed all the same.
        """
        try:
            if self._compressor is not None and self._whole:
                self._append(self._compressor.flush())
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self._whole = False
            # What is left ends with a whole line.
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)


# Reading


class RecordingReader:
    """The lines of one recording, plain or in zstd, whatever its name.

    Broken lines are items like others: the caller decides whether to go on. Only what no line of this
    format can be, a header of another or a newer format, is raised.

    Args:
        path: the file.

    Attributes:
        total: bytes of the file when it was opened.

    Raises:
        OSError: it can't be opened; while iterating, it can't be read.
        MissingExtraError: it is in zstd, and the extra `zstd` is not installed.
        RecordingError: while iterating, a header is of another or a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = 0
        self._consumed = 0
        with ExitStack() as opened:
            file = opened.enter_context(path.open("rb"))
            self.total = os.fstat(file.fileno()).st_size
            packed = file.peek(len(ZSTD_MAGIC)).startswith(ZSTD_MAGIC)
            self._zstd = Decompressed(file) if packed else None
            # Good so far: from here on `close` has to close it.
            opened.pop_all()
        self._file = file
        self._lines = file if self._zstd is None else io.BufferedReader(self._zstd, BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
        self._file.close()

    @property
    def position(self) -> int:
        """Bytes of the file that were consumed, 0 to `total`."""
        return self._consumed if self._zstd is None else self._zstd.consumed

    def __iter__(self) -> Iterator[Item]:
        """The lines in order, from where the last iteration ended."""
        while line := self._lines.readline(LINE_LIMIT_BYTES):
            self._number += 1
            self._consumed += len(line)
            if self._number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.endswith(b"\n"):
                yield Item(self._number, self._content(line))
            elif len(line) >= LINE_LIMIT_BYTES:
                self._skip_line()
                reason = f"line: got over {LINE_LIMIT_BYTES} bytes, expected fewer"
                yield Item(self._number, Broken(reason))
            else:
                yield from self._end(line)
                return
        yield from self._end(b"")

    def _skip_line(self) -> None:
        while part := self._lines.readline(BUFFER_BYTES):
            self._consumed += len(part)
            if part.endswith(b"\n"):
                return

    def _end(self, line: bytes) -> Iterator[Item]:
        """What is to be said of the end: `line` has none of its own, and may be empty."""
        damage = None if self._zstd is None else self._zstd.error
        if line and damage is None:
            # No part of an object is an object, so one that can be read is whole.
            content = self._content(line)
            if isinstance(content, Broken):
                yield Item(self._number, Truncated("the file ends within a line"))
                return
            yield Item(self._number, content)
        number = self._number + (not line)
        if damage is not None:
            yield Item(number, Broken(f"zstd: {damage}; the rest of the file is lost"))
        elif self._zstd is not None and self._zstd.cut:
            yield Item(number, Truncated("the file ends within its zstd stream"))

    def _content(self, line: bytes) -> Content:
        if not any(map(line.__contains__, SPECIAL)):
            # What is wrong with a line, the general path knows better.
            with suppress(InvalidRecordError):
                frame = TelemetryFrame.from_json(line)
                if frame.time_utc is not None:
                    return frame
        try:
            return self._general(_document(line))
        except (InvalidRecordError, InvalidValueError) as error:
            return Broken(str(error)[:REASON_CHARACTERS])

    def _general(self, values: dict[str, Any]) -> Content:
        if "format" in values:
            return self._header(values)
        if "input" in values:
            if not isinstance(values["input"], dict):
                raise InvalidValueError("input", values["input"], "an object")
            return input_from_dict(values["input"])
        frame = TelemetryFrame.from_dict(values)
        if frame.time_utc is None:
            raise InvalidValueError("line", values, "a header, an input, or a frame with its time_utc")
        return frame

    def _header(self, values: dict[str, Any]) -> Header:
        kind, version = values["format"], values.get("version")
        if kind != FORMAT:
            reason = f"format: got {shortened(kind)}, expected {FORMAT!r}"
            raise RecordingError(self.path, self._number, reason)
        if isinstance(version, int) and version > VERSION:
            reason = f"version: got {shortened(version)}, expected {VERSION}; upgrade neuromodd"
            raise RecordingError(self.path, self._number, reason)
        parameters = values.get("parameters")
        if isinstance(parameters, dict):
            # One from before there was surprise: a brain that has it would not live through the same.
            parameters.setdefault("surprise", {"enabled": False})
        return Header.from_dict(values)


def _document(line: bytes) -> dict[str, Any]:
    if not line.strip():
        raise InvalidValueError("line", line, "a JSON object; it is empty")
    try:
        values = json.loads(line.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError("line", line, f"JSON ({error})") from None
    if not isinstance(values, dict):
        raise InvalidValueError("line", values, "a JSON object")
    return values


def _refuse(constant: str) -> NoReturn:
    raise InvalidValueError("number", constant, "a finite one")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidValueError("number", text, "a double")
    return number
