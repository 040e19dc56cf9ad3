"""structlog set-up: one line an event, JSON off a terminal, readable on one."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import Any, Literal, TextIO, cast

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}
"""Those of syslog, by structlog's names of its methods."""


def configure(*, level: str, form: Literal["auto", "console", "json"]) -> None:
    """Send all events of `level` and above to standard error; may be called again to change the level."""
    on_terminal = sys.stderr.isatty()
    console = form == "console" or (form == "auto" and on_terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time_utc"),
    ]
    if console:
        # Without this, structlog would draw tracebacks with rich where that happens to be installed.
        plain = structlog.dev.ConsoleRenderer(
            colors=on_terminal, timestamp_key="time_utc", exception_formatter=structlog.dev.plain_traceback
        )
        last: list[Any] = [plain]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    if not console and _is_journal(sys.stderr):
        last.append(_with_priority)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Tolerant(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    _forward_libraries()


def _is_journal(stream: TextIO) -> bool:
    """Whether what is written there goes to systemd's journal, by the rule of systemd.exec(5)."""
    with contextlib.suppress(OSError, ValueError):
        found = os.fstat(stream.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def _with_priority(_logger: object, method: str, text: str) -> str:
    """The line behind its priority, which the journal takes off: so `journalctl -p warning` works."""
    return f"<{PRIORITIES.get(method, 6)}>{text}"


def _forward_libraries() -> None:
    """Let warnings of libraries that use the standard library's logging appear as events of ours."""
    root = logging.getLogger()
    root.handlers = [_Forwarder()]
    root.setLevel(logging.WARNING)


class _Tolerant(io.TextIOBase):
    """A stream whose reader may go away: what can't be written is lost, and the daemon lives on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Forwarder(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning("library_message", library=record.name, message=record.getMessage())
