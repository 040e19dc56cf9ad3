"""Living through recordings again: the same brain, the same states, as fast as they can be read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from neuromodd.core.brain import Brain, BrainParameters
from neuromodd.core.engine import numba_installed
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.messages import state_message
from neuromodd.errors import NeuromoddError, RecordingError
from neuromodd.recording import Broken, Content, Header, RecordingReader, Truncated
from neuromodd.sinks.checkpoint import check_dimensions, decode, write_checkpoint

COMPILE_BYTES = 8 * 1024**2
"""Recordings of less are over before a compiled step would be ready."""

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
    """Run recordings through a brain, in the order given.

    Each begins with the state in its header, as the brain did that was recorded. Without a header (the
    output of `neuromodd sample`, say) the brain is a fresh one at the default settings.

    Args:
        paths: recordings, plain or compressed.
        checkpoint_in: begin with this state, and go on from file to file whatever their headers say.
        checkpoint_out: where the state at the end goes.
        out: takes a line a frame, the `state` payload as the daemon published it.
        skip_bad: leave broken lines out instead of ending there.
        note: takes what the user should know.
        progress: takes the share that is done and the report so far, some times a second.

    Raises:
        RecordingError: a broken line, a header that does not fit, or nothing to replay.
        CheckpointDamagedError, CheckpointMismatchError: `checkpoint_in` is not whole, or of another network.
        MissingExtraError: a recording is compressed, and zstandard is not installed.
        OSError: a file can't be read or written.
    """
    run = _Replay(out, skip_bad=skip_bad, note=note)
    if checkpoint_in is not None:
        run.begin_with(checkpoint_in)
    began_s = said_s = time.monotonic()
    # A name that is wrong is to be told before the work, not after.
    sizes = [path.stat().st_size for path in paths]
    run.compiled = (numba_installed() and sum(sizes) >= COMPILE_BYTES) or None
    done = 0
    for path, size in zip(paths, sizes, strict=True):
        with RecordingReader(path) as reader:
            for line, content in reader:
                run.take(path, line, content)
                now_s = time.monotonic()
                if now_s - said_s >= PROGRESS_S:
                    said_s = now_s
                    run.report.seconds = now_s - began_s
                    progress(min((done + reader.position) / max(sum(sizes), 1), 1.0), run.report)
        done += size
    if run.brain is None:
        raise RecordingError(paths[0], None, "got neither a header nor a frame, expected a recording")
    if checkpoint_out is not None:
        write_checkpoint(
            checkpoint_out,
            run.brain.state(),
            dimensions=run.brain.engine.config.dimensions,
            created_utc="" if run.newest_utc is None else run.newest_utc.isoformat(),
        )
    run.report.seconds = time.monotonic() - began_s
    run.report.step = run.brain.engine.step_count
    run.report.compiled = run.brain.engine.compiled
    return run.report


class _Replay:
    """A brain that is fed the content of recordings."""

    def __init__(self, out: IO[bytes] | None, *, skip_bad: bool, note: Callable[[str], None]) -> None:
        self.report = Report()
        self.brain: Brain | None = None
        self.newest_utc: datetime | None = None
        self.compiled: bool | None = None
        self._out = out
        self._skip_bad = skip_bad
        self._note = note
        self._start: tuple[Path, dict[str, Any], dict[str, Any]] | None = None

    def begin_with(self, checkpoint: Path) -> None:
        """Take the start state from a checkpoint."""
        self._start = (checkpoint, *decode(checkpoint, checkpoint.read_bytes()))

    def take(self, path: Path, line: int, content: Content) -> None:
        """Live through one line."""
        match content:
            case Header():
                self._begin(path, line, content)
                self.newest_utc = content.created_utc
            case Broken():
                if not self._skip_bad:
                    raise RecordingError(path, line, content.reason)
                self.report.skipped += 1
                self._note(f"{path}:{line}: skipped: {content.reason}")
            case Truncated():
                self._note(f"{path}:{line}: cut short, {content.reason}; all before it is replayed")
            case TelemetryFrame():
                tick = self._ready(path).step(content)
                self.newest_utc = content.time_utc
                self.report.frames += 1
                self.report.rewards += len(tick.events)
                if self._out is not None:
                    self._out.write(state_message(tick).payload + b"\n")
            case _:
                self._ready(path).apply(content)

    def _ready(self, path: Path) -> Brain:
        """The brain; a fresh one at the default settings if no header has told of another."""
        if self.brain is None:
            self._note(f"{path}: no header; a fresh brain at the default settings takes it in")
            self.brain = self._fresh(BrainParameters(), 0, None)
        return self.brain

    def _begin(self, path: Path, line: int, header: Header) -> None:
        before = self.brain
        if self._start is not None and before is not None:
            if before.parameters.engine != header.parameters.engine:
                reason = "got another network than the file before had, expected the same"
                raise RecordingError(path, line, reason)
            given = header.parameters
            before.configure(setpoints=given.setpoints, rewards=given.rewards, faults=given.faults)
            return
        if before is not None and json.loads(json.dumps(before.state())) != header.state:
            self._note(f"{path}:{line}: does not go on where the file before ended; its own state counts")
        try:
            self.brain = self._fresh(header.parameters, header.seed, header.state)
        except NeuromoddError:
            raise
        except (KeyError, TypeError, ValueError, IndexError) as error:
            reason = f"the start state does not fit: {type(error).__name__}: {error}"
            raise RecordingError(path, line, reason) from None

    def _fresh(self, parameters: BrainParameters, seed: int, state: dict[str, Any] | None) -> Brain:
        brain = Brain(parameters, seed, compiled=self.compiled)
        if self._start is not None:
            path, header, state = self._start
            check_dimensions(path, header, parameters.engine.dimensions)
        if state is not None:
            brain.restore(state)
        return brain
