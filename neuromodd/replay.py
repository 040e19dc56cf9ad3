"""Living through recordings again: the same brain, the same states, as fast as they can be read."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from neuromodd.compression import ZSTD_MAGIC, Decompressed
from neuromodd.core.brain import Brain, BrainParameters, Tick
from neuromodd.core.engine import numba_installed
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.messages import state_message
from neuromodd.errors import CheckpointDamagedError, NeuromoddError, RecordingError
from neuromodd.recording import (
    LINE_LIMIT_BYTES,
    Broken,
    Content,
    Header,
    Item,
    RecordingReader,
    Truncated,
)
from neuromodd.sinks.checkpoint_file import MISFITS, check_dimensions, decode, write_checkpoint

COMPILE_BYTES = 8 * 1024**2
"""Recordings of less are over before a compiled step would be ready."""

STATE_LACKS = {"surprise": None, "anomalies": 0}
"""What states of earlier versions don't have, as a brain that learns no normal writes it."""

PROGRESS_S = 0.2


@dataclass(kw_only=True)
class Report:
    """What a replay did.

    Attributes:
        frames: lived through.
        rewards: reward events among them, detected or from outside.
        skipped: broken lines.
        seconds: wall time, reading and writing included.
        step: the network's step at the end.
        compiled: whether the network ran as machine code.
    """

    frames: int = 0
    rewards: int = 0
    skipped: int = 0
    seconds: float = 0.0
    step: int = 0
    compiled: bool = False


class Replay:
    """Recordings, and the brain that lives through them, in the order given.

    Each begins with the state in its header, as the brain did that was recorded. Without a header (the
    output of `neuromodd sample`, say) the brain is a fresh one at the default settings. Once a replay is
    made, all that it is to read is there, and nothing is written yet.

    Args:
        paths: recordings, plain or compressed.
        checkpoint_in: begin with this state, and go on from file to file whatever their headers say.
        checkpoint_out: where the state at the end goes.
        skip_bad: leave broken lines out instead of ending there; a header is never left out.
        until_utc: end before the first frame that is later.
        watch: takes each tick, and the brain as it is after it.
        note: takes what the user should know.
        progress: takes the share that is done and the report so far, some times a second.

    Attributes:
        report: of what is done so far.

    Raises:
        CheckpointDamagedError, CheckpointMismatchError: `checkpoint_in` is not whole, or of a newer format.
        MissingExtraError: a recording is compressed, and zstandard is not installed.
        OSError: a file can't be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        checkpoint_in: Path | None = None,
        checkpoint_out: Path | None = None,
        skip_bad: bool = False,
        until_utc: datetime | None = None,
        watch: Callable[[Tick, Brain], None] | None = None,
        note: Callable[[str], None] = lambda _: None,
        progress: Callable[[float, Report], None] = lambda _share, _report: None,
    ) -> None:
        self.report = Report()
        self._sizes = [(path, _size(path)) for path in paths]
        self._total = sum(size for _, size in self._sizes)
        self._start = None if checkpoint_in is None else _start(checkpoint_in)
        self._target = checkpoint_out
        self._skip_bad = skip_bad
        self._until_utc = until_utc
        self._watch = watch
        self._note = note
        self._progress = progress
        self._brain: Brain | None = None
        self._newest_utc: datetime | None = None
        self._said_slow = False

    def run(self, out: IO[bytes] | None = None) -> Report:
        """Live through all of it.

        Args:
            out: takes a line a frame, the `state` payload as the daemon published it.

        Raises:
            RecordingError: a broken line, a header that does not fit, or nothing to replay.
            CheckpointDamagedError, CheckpointMismatchError: `checkpoint_in` is of another network.
            OSError: a file can't be read or written.
        """
        began_s, over = time.monotonic(), False
        try:
            with contextlib.closing(self._items(began_s)) as items:
                for path, (line, content) in items:
                    if over := self._is_over(content):
                        break
                    self._take(path, line, content, out)
            if self._brain is None and not over:
                path = self._sizes[0][0]
                raise RecordingError(path, None, "got neither a header nor a frame, expected a recording")
            if self._target is not None and self._brain is not None:
                self._save(self._target, self._brain)
        finally:
            self.report.seconds = time.monotonic() - began_s
            if self._brain is not None:
                self.report.step = self._brain.engine.step_count
                self.report.compiled = self._brain.engine.compiled
        return self.report

    def _items(self, began_s: float) -> Generator[tuple[Path, Item]]:
        """Every line of every recording, and the progress told in between."""
        said_s, done = began_s, 0
        for path, size in self._sizes:
            # Around the reading alone: what the caller does with a line is not within.
            with naming(path), RecordingReader(path) as reader:
                for item in reader:
                    yield path, item
                    now_s = time.monotonic()
                    if now_s - said_s >= PROGRESS_S:
                        said_s = now_s
                        self.report.seconds = now_s - began_s
                        share = (done + reader.position) / max(self._total, 1)
                        self._progress(min(share, 1.0), self.report)
            done += size

    def _is_over(self, content: Content) -> bool:
        until_utc = self._until_utc
        if until_utc is None or not isinstance(content, TelemetryFrame):
            return False
        return content.time_utc is not None and content.time_utc > until_utc

    def _take(self, path: Path, line: int, content: Content, out: IO[bytes] | None) -> None:
        """Live through one line."""
        match content:
            case Header():
                self._begin(path, line, content)
                self._newest_utc = content.created_utc
            case Broken():
                self._skip(path, line, content.reason)
            case Truncated():
                self._note(f"{path}:{line}: cut short, {content.reason}; all before it is replayed")
            case TelemetryFrame():
                brain = self._ready(path)
                tick = brain.step(content)
                self._newest_utc = content.time_utc
                self.report.frames += 1
                self.report.rewards += len(tick.events)
                if self._watch is not None:
                    self._watch(tick, brain)
                if out is not None:
                    out.write(state_message(tick).payload + b"\n")
            case _:
                self._ready(path).apply(content)

    def _skip(self, path: Path, line: int, reason: str) -> None:
        if not self._skip_bad:
            raise RecordingError(path, line, reason)
        if line == 1 and _begins_with_header(path):
            # What follows would be met by the wrong brain.
            raise RecordingError(path, line, f"{reason}; a header can't be skipped")
        self.report.skipped += 1
        self._note(f"{path}:{line}: skipped: {reason}")

    def _ready(self, path: Path) -> Brain:
        """The brain; a fresh one at the default settings if no header has told of another."""
        if self._brain is None:
            self._note(f"{path}: no header; a fresh brain at the default settings takes it in")
            brain = self._made(BrainParameters(), 0)
            self._resume(brain)
            self._brain = brain
        return self._brain

    def _begin(self, path: Path, line: int, header: Header) -> None:
        before = self._brain
        if self._start is not None and before is not None:
            if before.parameters.engine != header.parameters.engine:
                reason = "got another network than the file before had, expected the same"
                raise RecordingError(path, line, reason)
            given = header.parameters
            before.configure(
                setpoints=given.setpoints,
                rewards=given.rewards,
                faults=given.faults,
                surprise=given.surprise,
            )
            return
        if before is not None and json.loads(json.dumps(before.state())) != {**STATE_LACKS, **header.state}:
            self._note(f"{path}:{line}: does not go on where the file before ended; its own state counts")
        try:
            brain = self._made(header.parameters, header.seed)
            if self._start is None:
                brain.restore(header.state)
        except MISFITS as error:
            raise RecordingError(path, line, _misfit(error)) from None
        self._resume(brain)
        self._brain = brain

    def _made(self, parameters: BrainParameters, seed: int) -> Brain:
        # In a long replay a compiled step pays for small networks too.
        long, possible = self._total >= COMPILE_BYTES, numba_installed()
        brain = Brain(parameters, seed, compiled=(long or None) if possible else False)
        if not (possible or self._said_slow):
            self._said_slow = True
            self._note("numba is not installed: long replays run slower; pip install 'neuromodd[fast]'")
        return brain

    def _resume(self, brain: Brain) -> None:
        """Give the brain the state of `checkpoint_in`, if there is one."""
        if self._start is None:
            return
        path, header, state = self._start
        check_dimensions(path, header, brain.engine.config.dimensions)
        try:
            brain.restore(state)
        except MISFITS as error:
            raise CheckpointDamagedError(path, _misfit(error)) from None

    def _save(self, target: Path, brain: Brain) -> None:
        with naming(target):
            write_checkpoint(
                target,
                brain.state(),
                dimensions=brain.engine.config.dimensions,
                created_utc="" if self._newest_utc is None else self._newest_utc.isoformat(),
            )


def replay(
    paths: Sequence[Path],
    *,
    checkpoint_in: Path | None = None,
    checkpoint_out: Path | None = None,
    out: IO[bytes] | None = None,
    skip_bad: bool = False,
    note: Callable[[str], None] = lambda _: None,
    progress: Callable[[float, Report], None] = lambda _share, _report: None,
) -> Report:
    """Make a `Replay` and run it, for whoever has `out` open already; arguments and errors are its own."""
    made = Replay(
        paths,
        checkpoint_in=checkpoint_in,
        checkpoint_out=checkpoint_out,
        skip_bad=skip_bad,
        note=note,
        progress=progress,
    )
    return made.run(out)


@contextlib.contextmanager
def naming(place: Path | str) -> Iterator[None]:
    """Let an OSError from within that names no file name this one, as those of a write do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(place)
        raise


def _size(path: Path) -> int:
    """Bytes of a recording, opened once: what can't be is to be told before the work, not after."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        # A pipe: whoever looks into it takes what he sees.
        return 0
    with naming(path), RecordingReader(path) as reader:
        return reader.total


def _start(checkpoint: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A checkpoint's name, header and state."""
    return (checkpoint, *decode(checkpoint, checkpoint.read_bytes()))


def _begins_with_header(path: Path) -> bool:
    """Whether the first line was to be a header; of a pipe, which can't be read again, it is taken to be."""
    if not path.is_file():
        return True
    with naming(path), path.open("rb") as file:
        packed = file.peek(len(ZSTD_MAGIC)).startswith(ZSTD_MAGIC)
        lines = io.BufferedReader(Decompressed(file)) if packed else file
        return b'"format"' in lines.readline(LINE_LIMIT_BYTES)


def _misfit(error: Exception) -> str:
    if isinstance(error, NeuromoddError):
        return str(error)
    return f"the start state does not fit: {type(error).__name__}: {error}"
