"""`neuromodd detect`: surprise without a daemon, over a table of measurements or over recordings."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from neuromodd.compression import ZSTD_MAGIC
from neuromodd.core.anomaly import Anomaly, Moment
from neuromodd.core.engine import numba_installed
from neuromodd.core.surprise import SurpriseDetector, SurpriseParameters
from neuromodd.core.watched import span
from neuromodd.detect.csv_rows import CsvRows
from neuromodd.detect.frame_rows import FrameRows
from neuromodd.detect.rows import Row, Rows
from neuromodd.detect.scores import Taker, scores
from neuromodd.detect.telling import Found, Teller
from neuromodd.errors import InvalidValueError
from neuromodd.outputs import Bar, check_apart, check_writable, is_stdout, replacing
from neuromodd.replay import PROGRESS_S
from neuromodd.sinks.checkpoint_file import MISFITS

COMPILE_BYTES = 4 * 1024**2
"""Files of less are over before a compiled detector would be ready."""

LOOK_ROWS = 256
"""So many rows between two looks at the clock."""

STDIN = "standard input"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to be done, as on the command line.

    Attributes:
        channels: columns, or readings of a recording; empty for all, or for what the daemon watched.
        time: the column with the times.
        threshold: surprise from which an anomaly begins; None for the default, or for the recording's.
        fresh: know nothing at the start, whatever the recording's daemon knew.
        skip_bad: leave broken rows or lines out.
        out: where the scores go.
        plot: where the picture goes.
        as_json: print JSON lines.
    """

    channels: Sequence[str] = ()
    time: str | None = None
    threshold: float | None = None
    fresh: bool = False
    skip_bad: bool = False
    out: Path | None = None
    plot: Path | None = None
    as_json: bool = False


def detect_files(paths: Sequence[Path], options: Options) -> Found:
    """Look for what is strange; tell each anomaly when it is over, and a summary at the end.

    No file is made or replaced unless all went well.

    Args:
        paths: one CSV file, `-` for one on standard input, or recordings in their order.
        options: the rest of the command line.

    Raises:
        InvalidValueError: an option does not fit the files, or names a file that can't be written.
        MissingExtraError: a picture was asked for, and matplotlib is not installed.
        OSError: a file can't be read or written; it names the file.
        RecordingError: a recording has a broken line.
        TableError: a CSV file has a broken row, or no channel.
    """
    _check(paths, options)
    bar = Bar(shown=sys.stderr.isatty())
    found, teller = Found(), Teller(bar, as_json=options.as_json, scores_to_stdout=is_stdout(options.out))
    try:
        with ExitStack() as opened:
            rows = opened.enter_context(_opened(paths, options, bar.say))
            detector = _detector(rows, options, bar.say)
            threshold = detector.parameters.threshold
            takers = _takers(rows, options, _title(paths), threshold)
            _Run(detector, rows, found, teller, bar).run([opened.enter_context(of) for of in takers])
    except KeyboardInterrupt:
        unwritten = ", ".join(str(of) for of in (options.out, options.plot) if of and not is_stdout(of))
        bar.say(f"interrupted after {found.rows} rows{unwritten and f'; not written: {unwritten}'}")
        raise
    finally:
        bar.clear()
    teller.summary(found, rows, threshold)
    return found


def _check(paths: Sequence[Path], options: Options) -> None:
    """Refuse before the work what can't be done after it."""
    if options.plot is not None:
        # Large, and of no use without a picture.
        from neuromodd.dashboard import canvas, surprise_plot  # noqa: PLC0415

        surprise_plot.form_of(options.plot)
        canvas.require("detect --plot")
    for option, out in (("--out", options.out), ("--plot", options.plot)):
        if out is not None and not is_stdout(out):
            check_apart(option, out, paths, "a file that is not read")
            check_writable(option, out)
    if options.out is not None and options.plot is not None:
        check_apart("--plot", options.plot, (options.out,), "another file than --out")


@contextlib.contextmanager
def _opened(paths: Sequence[Path], options: Options, note: Callable[[str], None]) -> Iterator[Rows]:
    """The rows of the files, of whatever kind they are."""
    if not any(is_stdout(path) for path in paths) and _is_recording(paths[0]):
        if options.time is not None:
            raise InvalidValueError("--time", options.time, "a CSV file; a frame has its own time")
        yield FrameRows(paths, channels=options.channels, skip_bad=options.skip_bad, note=note)
        return
    if len(paths) > 1:
        raise InvalidValueError("FILE", f"{len(paths)} files", "one CSV file, or recordings")
    path = paths[0]
    name = STDIN if is_stdout(path) else str(path)
    with ExitStack() as opened:
        file: IO[bytes] = sys.stdin.buffer if is_stdout(path) else opened.enter_context(path.open("rb"))
        rows = CsvRows(
            file,
            name,
            time=options.time,
            columns=options.channels,
            skip_bad=options.skip_bad,
            note=note,
        )
        opened.callback(rows.close)
        yield rows


def _is_recording(path: Path) -> bool:
    """Whether a file begins as recordings do; a pipe, which can't be read twice, is taken for a table."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        begin = file.read(64)
    return begin.startswith(ZSTD_MAGIC) or begin.removeprefix(b"\xef\xbb\xbf").startswith(b"{")


def _detector(rows: Rows, options: Options, note: Callable[[str], None]) -> SurpriseDetector:
    parameters = rows.parameters.surprise if isinstance(rows, FrameRows) else SurpriseParameters()
    if options.threshold is not None:
        parameters = parameters.model_copy(update={"threshold": options.threshold})
    long = rows.total is not None and rows.total >= COMPILE_BYTES
    compiled = (long or None) if numba_installed() else False

    def made() -> SurpriseDetector:
        spans = [span(name) for name in rows.names] if isinstance(rows, FrameRows) else ()
        return SurpriseDetector(rows.names, parameters, spans=spans, compiled=compiled)

    detector = made()
    if isinstance(rows, FrameRows) and rows.state is not None and not options.fresh:
        try:
            detector.restore(rows.state)
        except MISFITS as error:
            note(f"what the daemon knew does not fit ({type(error).__name__}: {error}); all is learned anew")
            return made()
    return detector


class _Run:
    """The rows through the detector, one by one."""

    def __init__(
        self, detector: SurpriseDetector, rows: Rows, found: Found, teller: Teller, bar: Bar
    ) -> None:
        self._detector, self._rows, self._found = detector, rows, found
        self._teller, self._bar = teller, bar
        self._since: tuple[int, Row] | None = None

    def run(self, takers: Sequence[Callable[[int, Row, Moment], None]]) -> None:
        """Through all rows; each taker gets each of them with what it led to."""
        found, update = self._found, self._detector.update
        began_s = said_s = time.monotonic()
        row: Row | None = None
        for number, row in enumerate(self._rows, 1):
            moment = update(row.values, row.time_s, gap=row.gap)
            found.rows = number
            if moment.change is not None:
                self._follow(number, row, moment.change)
            for take in takers:
                take(number, row, moment)
            if number == 1:
                found.first = row
            if not number % LOOK_ROWS:
                now_s = time.monotonic()
                found.seconds = now_s - began_s
                if now_s - said_s >= PROGRESS_S:
                    said_s = now_s
                    self._bar.draw(self._share(), number, found.seconds, what="rows")
        found.seconds = time.monotonic() - began_s
        found.last = row
        if self._detector.episode is not None and row is not None:
            self._close(found.rows, row, self._detector.episode, ended=False)

    def _share(self) -> float | None:
        total = self._rows.total
        return None if not total else min(self._rows.position / total, 1.0)

    def _follow(self, number: int, row: Row, change: Anomaly) -> None:
        if change.phase == "begin":
            self._since = (number, row)
        else:
            self._close(number, row, change, ended=True)

    def _close(self, number: int, row: Row, anomaly: Anomaly, *, ended: bool) -> None:
        """Count an anomaly that is over, or that goes on where the rows end, and tell it."""
        # One that a recording began with has its begin before the first row.
        first = 1 if self._since is None else self._since[0]
        self._since, found = None, self._found
        lasted_s = anomaly.duration_s
        if not ended and row.time_s is not None and anomaly.since_utc is not None:
            lasted_s = max(row.time_s - anomaly.since_utc.timestamp(), 0.0)
        found.anomalies += 1
        found.anomalous_s += lasted_s
        found.anomalous_rows += number - first + 1
        if found.strangest is None or anomaly.surprise > found.strangest.surprise:
            found.strangest = anomaly
        self._teller.anomaly(anomaly, first, number, lasted_s, ended=ended)


# What each row is also given to


def _takers(
    rows: Rows, options: Options, title: str, threshold: float
) -> Iterator[contextlib.AbstractContextManager[Taker]]:
    # What was opened first is closed last: a picture that fails leaves no scores behind.
    if options.out is not None:
        yield scores(options.out, rows.names)
    if options.plot is not None:
        yield _picture(options.plot, rows, title, threshold)


@contextlib.contextmanager
def _picture(out: Path, rows: Rows, title: str, threshold: float) -> Iterator[Taker]:
    from neuromodd.dashboard.surprise_digest import SurpriseDigest  # noqa: PLC0415 - as above
    from neuromodd.dashboard.surprise_plot import drawn, form_of  # noqa: PLC0415

    digest = SurpriseDigest(rows.names, timed=rows.timed, threshold=threshold)
    yield lambda number, row, moment: digest.take(number, row.time_s, moment)
    data = drawn(digest, title, form_of(out))
    with replacing(out) as file:
        file.write(data)


def _title(paths: Sequence[Path]) -> str:
    """What was looked at, for above the picture."""
    first = STDIN if is_stdout(paths[0]) else paths[0].name
    return first if len(paths) == 1 else f"{first} to {paths[-1].name}"
