"""What the commands without a daemon write: files that are whole or not there, and a bar while they work."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from neuromodd.errors import InvalidValueError
from neuromodd.replay import naming

BAR_WIDTH = 30


class Bar:
    """A progress bar on standard error, shown where that is a terminal."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    def draw(self, share: float | None, done: int, seconds: float, *, what: str = "frames") -> None:
        """Draw it anew: the share that is done (None if there is no telling), the speed, and what is left."""
        speed = f"{done / max(seconds, 1e-9):,.0f} {what}/s"
        if share is None:
            self._write(f"{done:,} {what}  {speed}")
            return
        filled = int(share * BAR_WIDTH)
        left_s = seconds * (1.0 - share) / share if share > 0.0 else 0.0
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {share:4.0%}"
        self._write(f"{bar}  {speed}  {left_s:,.0f} s left")

    def say(self, text: str) -> None:
        """A line of its own above the bar."""
        self.clear()
        say(text)

    def clear(self) -> None:
        """Remove it."""
        self._write("")

    def _write(self, text: str) -> None:
        # To the beginning of the line, and whatever is left of the old one removed.
        if self._shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """A line on standard error."""
    print(f"neuromodd: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `target` at the end, unless something went wrong."""
    draft = target.with_name(f"{target.name}.draft")
    try:
        with naming(draft), draft.open("wb") as file:
            yield file
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def is_stdout(out: Path | None) -> bool:
    """Whether `-` was given in place of a file."""
    return out is not None and str(out) == "-"


def check_writable(option: str, target: Path) -> None:
    """Refuse what can't be replaced as a whole.

    Raises:
        InvalidValueError: it is no plain file, or its directory takes none.
    """
    if target.exists() and not target.is_file():
        raise InvalidValueError(option, str(target), "a plain file or a new name")
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK | os.X_OK)):
        expected = "a file in a directory that is there and can be written"
        raise InvalidValueError(option, str(target), expected)


def check_apart(option: str, target: Path, others: Iterable[Path], expected: str) -> None:
    """Refuse to write over another file of the same command.

    Raises:
        InvalidValueError: `target` is one of the others.
    """
    if any(same(target, other) for other in others):
        raise InvalidValueError(option, str(target), expected)


def same(one: Path, other: Path) -> bool:
    """Whether two names stand for one file, be it there or not."""
    try:
        return one.samefile(other)
    except OSError:
        # One of them is not there yet; not `resolve`, which raises over a loop of links.
        return os.path.realpath(one) == os.path.realpath(other)
