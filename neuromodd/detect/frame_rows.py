"""Recordings as rows of the readings that surprise watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from neuromodd.core.brain import BrainParameters
from neuromodd.core.encoding import encode
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.inputs import SettingsInput
from neuromodd.core.watched import readings
from neuromodd.detect.rows import Row
from neuromodd.errors import RecordingError
from neuromodd.recording import Broken, Content, Header, RecordingReader, Truncated
from neuromodd.replay import naming


class FrameRows:
    """The frames of recordings, in the order given, as rows.

    Args:
        paths: recordings, plain or compressed.
        channels: what is watched; empty for what the first header says, or the defaults.
        skip_bad: leave broken lines out instead of ending there.
        note: takes what the user should know.

    Attributes:
        parameters: those of the first header, or the defaults.
        state: of the surprise in the first header; None if there is none.

    Raises:
        OSError: a file can't be read.
        RecordingError: while iterating, a broken line, or no frame at all.
    """

    timed = True

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        channels: Sequence[str] = (),
        skip_bad: bool = False,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._paths, self._skip_bad, self._note = paths, skip_bad, note
        self.skipped = 0
        self.total: int | None = 0
        self._done = 0
        self._reader: RecordingReader | None = None
        self.parameters = BrainParameters()
        self.state: Mapping[str, Any] | None = None
        sizes = []
        for at, path in enumerate(paths):
            with naming(path), RecordingReader(path) as reader:
                sizes.append(reader.total)
                if at == 0:
                    self._begin(next((item.content for item in reader), None))
        self.total = sum(sizes)
        self._setpoints = self.parameters.setpoints
        self.names = tuple(channels) or self.parameters.surprise.channels

    def _begin(self, first: Content | None) -> None:
        if isinstance(first, Header):
            self.parameters = first.parameters
            self.state = first.state.get("surprise")

    @property
    def position(self) -> int:
        """Bytes that were read."""
        return self._done + (0 if self._reader is None else self._reader.position)

    def __iter__(self) -> Iterator[Row]:
        """All frames, once."""
        frames = 0
        for path in self._paths:
            with naming(path), RecordingReader(path) as reader:
                self._reader = reader
                for line, content in reader:
                    if isinstance(content, TelemetryFrame):
                        frames += 1
                        yield self._row(content)
                    else:
                        self._look(path, line, content)
                self._done += reader.total
                self._reader = None
        if not frames:
            raise RecordingError(self._paths[0], None, "got no frame, expected a recording")

    def _look(self, path: Path, line: int, content: Content) -> None:
        match content:
            case Header():
                self._setpoints = content.parameters.setpoints
            case SettingsInput():
                self._setpoints = content.setpoints
            case Broken():
                if not self._skip_bad:
                    raise RecordingError(path, line, content.reason)
                self.skipped += 1
                self._note(f"{path}:{line}: skipped: {content.reason}")
            case Truncated():
                self._note(f"{path}:{line}: cut short, {content.reason}; all before it is read")

    def _row(self, frame: TelemetryFrame) -> Row:
        time_s, stamp = None, str(frame.sequence)
        if frame.time_utc is not None:
            time_s, stamp = frame.time_utc.timestamp(), frame.time_utc.isoformat()
        values = readings(frame, self.names, encode(frame, self._setpoints))
        return Row(stamp, time_s, values, frame.gap)
