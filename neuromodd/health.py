"""Asking a daemon how it does, over its unix socket: the client's half of `neuromodd health`.

Container engines ask twice a minute, so this imports the standard library alone, and little of it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SOCKET_NAME = "neuromodd.sock"

UNIT_DIRECTORY = Path("/run/neuromodd")
"""$RUNTIME_DIRECTORY of the systemd unit, for whoever asks from outside of it."""

ANSWER_S = 3.0
"""A daemon that is well answers in milliseconds."""

LONGEST_ANSWER_BYTES = 1_048_576


class Answer(NamedTuple):
    """What came of asking: a daemon's report, or why there is none.

    Attributes:
        report: what is printed as JSON; `verdict` is `ticking`, `not_ticking`, `no_answer` or `no_daemon`.
        found: whether a daemon was there, so that there is no need to look elsewhere.
    """

    report: dict[str, Any]
    found: bool

    @property
    def ticking(self) -> bool:
        """Whether all is well."""
        return bool(self.report["verdict"] == "ticking")


def runtime_directory() -> Path | None:
    """The first of systemd's $RUNTIME_DIRECTORY; None if it is unset."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(given) if given else None


def runtime_directories() -> list[Path]:
    """Where a daemon's socket may be, as far as that is known without the configuration."""
    own = runtime_directory()
    return [UNIT_DIRECTORY] if own in (None, UNIT_DIRECTORY) else [own, UNIT_DIRECTORY]


def ask(directories: Iterable[Path], timeout_s: float = ANSWER_S) -> Answer:
    """Ask the first daemon that listens in one of the directories.

    One that takes the call and does not answer in `timeout_s` is stuck, and no other is asked instead.
    """
    reasons = []
    deadline_s = time.monotonic() + timeout_s
    for directory in directories:
        path = directory / SOCKET_NAME
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            try:
                link.settimeout(_left(deadline_s))
                link.connect(os.fspath(path))
            # One that never takes the call, its queue full, is as stuck as one that does not answer it.
            except (TimeoutError, BlockingIOError):
                return _failed("no_answer", f"{path}: no answer within {timeout_s:g} s", found=True)
            except OSError as error:
                reasons.append(f"{path}: {error.strerror or error}")
                continue
            try:
                return Answer(_read(link, deadline_s), found=True)
            except TimeoutError:
                return _failed("no_answer", f"{path}: no answer within {timeout_s:g} s", found=True)
            except (OSError, ValueError) as error:
                return _failed("no_answer", f"{path}: no answer that can be read: {error}", found=True)
    return _failed("no_daemon", f"no daemon answers: {'; '.join(reasons)}", found=False)


def print_answer(answer: Answer, *, as_json: bool) -> int:
    """Print one line, of JSON or for people; the exit status."""
    if as_json:
        print(json.dumps(answer.report), flush=True)
    elif answer.ticking:
        print(f"ticking: {answer.report['reason']}", flush=True)
    else:
        print(f"neuromodd: {answer.report['reason']}", file=sys.stderr, flush=True)
    return 0 if answer.ticking else 1


def ask_quickly(arguments: Sequence[str]) -> int | None:
    """The exit status of `neuromodd health`, if it can be told without the configuration.

    None where that takes more: options other than `--json`, or no daemon in the places that are known
    without.
    """
    if not set(arguments) <= {"--json"}:
        return None
    answer = ask(runtime_directories())
    return print_answer(answer, as_json=bool(arguments)) if answer.found else None


def _read(link: socket.socket, deadline_s: float) -> dict[str, Any]:
    text = b""
    while True:
        link.settimeout(_left(deadline_s))
        part = link.recv(65_536)
        if not part:
            break
        text += part
        if len(text) > LONGEST_ANSWER_BYTES:
            raise ValueError(f"over {LONGEST_ANSWER_BYTES} bytes")
    report = json.loads(text)
    if not isinstance(report, dict) or not {"verdict", "reason"} <= report.keys():
        raise ValueError("not a report of neuromodd")
    return report


def _left(deadline_s: float) -> float:
    # A timeout of 0 would mean: don't wait, and raise something else.
    return max(deadline_s - time.monotonic(), 0.001)


def _failed(verdict: str, reason: str, *, found: bool) -> Answer:
    report = {
        "verdict": verdict,
        "reason": reason,
        "tick_age_s": None,
        "tick_interval_s": None,
        "tick_bound_s": None,
        "broker": None,
        "health": None,
    }
    return Answer(report, found)
