"""Every exception that neuromodd raises.

Each has the base `NeuromoddError` and a builtin, so that a caller may catch either. A message names
the place, what came, and what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Refusal = Literal["too_large", "invalid", "retained", "stale", "repeated", "rate", "failed"]
"""Why a request from outside was not taken."""


class NeuromoddError(Exception):
    """The base of all exceptions of this package."""


class InvalidValueError(NeuromoddError, ValueError):
    """A value is outside what its place accepts.

    Attributes:
        place: where the value stands, dotted (`engine.budget`).
        got: the value that came, as text.
        expected: what would have been accepted.
    """

    def __init__(self, place: str, got: object, expected: str) -> None:
        self.place = place
        self.got = got
        self.expected = expected
        super().__init__(f"{place}: got {shortened(got)}, expected {expected}")


class InvalidRecordError(NeuromoddError, ValueError):
    """A record (a frame, an event, a payload) has fields that are missing, unknown or out of range.

    Attributes:
        faults: one text for each fault, `place: got ..., expected ...`.
    """

    def __init__(self, record: str, faults: Sequence[str]) -> None:
        self.record = record
        self.faults = tuple(faults)
        super().__init__(f"{record}: " + "; ".join(self.faults))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationFault:
    """One thing that is wrong with the configuration.

    Attributes:
        place: the option, dotted (`mqtt.port`), or the file.
        got: the value as the user wrote it, masked where it is a secret.
        expected: what the option accepts.
        origin: where the value came from: a file, an environment variable, the command line.
    """

    place: str
    got: str
    expected: str
    origin: str | None = None

    def __str__(self) -> str:
        where = f" (from {self.origin})" if self.origin else ""
        return f"{self.place}: got {self.got}, expected {self.expected}{where}"


class ConfigurationError(NeuromoddError, ValueError):
    """The configuration can't be used.

    Attributes:
        faults: everything that is wrong with it.
        warnings: what is odd about it besides.
    """

    def __init__(self, faults: Sequence[ConfigurationFault], warnings: Sequence[str] = ()) -> None:
        self.faults = tuple(faults)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class SensorAbsentError(NeuromoddError, LookupError):
    """This machine has no such sensor: nothing failed, there is nothing to measure."""


class SensorError(NeuromoddError, OSError):
    """A sensor that exists could not be read."""


class CheckpointDamagedError(NeuromoddError, ValueError):
    """A checkpoint file is not whole: truncated, altered, or not a checkpoint at all."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class CheckpointMismatchError(NeuromoddError, ValueError):
    """A whole checkpoint belongs to another network or to a newer version of neuromodd."""

    def __init__(self, path: Path | None, got: str, expected: str) -> None:
        self.path = path
        place = "checkpoint" if path is None else str(path)
        super().__init__(f"{place}: got {got}, expected {expected}")


class RecordingError(NeuromoddError, ValueError):
    """A recording can't be read on: a broken line, a header that does not fit, a file of a newer format.

    Attributes:
        path: the file.
        line: number of the line, from 1; None where the file as a whole is meant.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        self.path = path
        self.line = line
        self.reason = reason
        place = str(path) if line is None else f"{path}:{line}"
        super().__init__(f"{place}: {reason}")


class TableError(NeuromoddError, ValueError):
    """A table of measurements can't be read: no header, a cell that is no number, a row of another width.

    Attributes:
        file: its name.
        line: number of the line, from 1; None where the file as a whole is meant.
        reason: what is wrong with it.
    """

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        self.file = file
        self.line = line
        self.reason = reason
        place = file if line is None else f"{file}:{line}"
        super().__init__(f"{place}: {reason}")


class MissingExtraError(NeuromoddError, ImportError):
    """Something was asked for that needs a package which is not installed.

    Attributes:
        extra: the extra of neuromodd that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs the extra `{extra}`: pip install 'neuromodd[{extra}]'")


class StateDirectoryLockedError(NeuromoddError, RuntimeError):
    """Another neuromodd holds the state directory."""

    def __init__(self, directory: Path, holder: str, remedy: str = "one daemon to a state directory") -> None:
        self.directory = directory
        self.holder = holder
        super().__init__(f"{directory}: locked by {holder}; {remedy}")


class StateDirectoryError(NeuromoddError, OSError):
    """The state directory can't be made or written."""


class NotKeptError(NeuromoddError, OSError):
    """What was to be kept on the disk could not be; nothing has changed."""


class BrokerStartError(NeuromoddError, OSError):
    """The embedded broker could not start."""


class MqttLinkError(NeuromoddError, ConnectionError):
    """The connection to the broker failed or was lost.

    Attributes:
        refused_login: the broker answered and does not let us in.
        taken_over: another client with our id has the session now.
        unsupported: the broker does not speak our version of the protocol.
        unanswered: the broker hung up without a word, or said none in time, as old ones do on a version that
            they don't know.
    """

    def __init__(
        self,
        reason: str,
        *,
        refused_login: bool = False,
        taken_over: bool = False,
        unsupported: bool = False,
        unanswered: bool = False,
    ) -> None:
        self.refused_login = refused_login
        self.taken_over = taken_over
        self.unsupported = unsupported
        self.unanswered = unanswered
        super().__init__(reason)


class MqttDeniedError(NeuromoddError, PermissionError):
    """The broker took a message or a subscription and refused it; the connection stands.

    Attributes:
        topic: of the message or subscription.
    """

    def __init__(self, topic: str, reason: str) -> None:
        self.topic = topic
        super().__init__(f"{topic}: the broker refused it: {reason}")


class RequestRefusedError(NeuromoddError, ValueError):
    """A message from outside is not taken; nothing has changed.

    Attributes:
        kind: of the trouble, as it is counted in `health`.
        reason: for the sender.
    """

    def __init__(self, kind: Refusal, reason: str) -> None:
        self.kind = kind
        self.reason = reason
        super().__init__(f"{kind}: {reason}")


def shortened(value: object, limit: int = 80) -> str:
    """The repr of `value`, cut to `limit` characters, so that a message stays one line."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
