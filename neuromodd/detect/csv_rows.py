"""Tables of measurements: CSV files of any common kind, read row by row.

The first lines decide on the delimiter, on the column with the times, and on which of the others hold
numbers; what does not fit them later is an error with its line, not a guess.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import IO, NamedTuple

from neuromodd.dashboard import report
from neuromodd.detect.rows import Row
from neuromodd.errors import InvalidValueError, TableError, shortened

TIME_NAMES = ("timestamp", "time", "date", "datetime", "ts", "time_utc")
"""Names of a column with times, in whatever case; the first of them counts."""

DELIMITERS = (",", ";", "\t")
MISSING = frozenset(("", "-", "na", "nan", "n/a", "null", "none"))
"""What stands for a missing reading, in whatever case."""

SAMPLE_ROWS = 100
"""Rows that are looked at before the first is passed on."""

TOLD_ROWS = 10
"""Broken rows that are told one by one."""

TOLD_COLUMNS = 8

LINE_LIMIT_CHARACTERS = 1024 * 1024

EARLIEST_S, LATEST_S = -62135596800.0, 253402300799.0
"""The years 1 to 9999."""

UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
"""Times from 1e11 on are milliseconds, which is 1973; seconds would be the year 5138. And so on."""

_COMPACT_DATE = re.compile(r"(19|20)\d{6}")


class _Bad(NamedTuple):
    """A row that can't be used."""

    line: int
    reason: str


class CsvRows:
    """The rows of one table; made once the header and the first rows are read.

    Args:
        file: opened for reading, and closed by whoever opened it.
        name: of the file, for messages.
        time: the column with the times; None for the one whose name is among `TIME_NAMES`, if any.
        columns: the channels; empty for all other columns that hold numbers.
        skip_bad: leave broken rows out instead of ending there.
        note: takes what the user should know.

    Raises:
        InvalidValueError: there is no such column.
        TableError: there is no header, no row, or no column of numbers; while iterating, a broken row.
    """

    def __init__(
        self,
        file: IO[bytes],
        name: str,
        *,
        time: str | None = None,
        columns: Sequence[str] = (),
        skip_bad: bool = False,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._file, self._name, self._skip_bad, self._note = file, name, skip_bad, note
        self.skipped = 0
        self.total = _size(file)
        # What is not UTF-8 is in names and in texts: numbers are ASCII.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        # Whoever opened the file closes it, and the wrapper would.
        self._text = text
        lines = _lines(text, name)
        self._before, first = next(((at, line) for at, line in enumerate(lines) if line.strip()), (0, ""))
        self._delimiter = _delimiter(first)
        self._reader = csv.reader(chain((first,), lines), delimiter=self._delimiter)
        self._header = _header(first, next(self._checked(), []), name)
        self._sample = [(self._line, cells) for cells in islice(self._checked(), SAMPLE_ROWS)]
        if not self._sample:
            raise TableError(name, None, "got no row below the header")
        self._clock, self._time_at = self._find_time(time)
        self._at = self._given(columns) if columns else self._numbers()
        self.names = tuple(self._header[at] for at in self._at)
        self.timed = self._time_at is not None

    @property
    def position(self) -> int:
        """Bytes that were read, as far as that can be told."""
        return 0 if self.total is None else self._file.tell()

    def close(self) -> None:
        """Let go of the file, which stays open."""
        self._text.detach()

    def __iter__(self) -> Iterator[Row]:
        """All rows, once."""
        number = 0
        sample, self._sample = self._sample, []
        rest = ((self._line, cells) for cells in self._checked())
        for line, cells in chain(sample, rest):
            row = self._row(line, cells, number + 1)
            if isinstance(row, Row):
                number += 1
                yield row
            elif not self._skip_bad:
                raise TableError(self._name, row.line, row.reason)
            else:
                self._skip(row)

    # Rows

    @property
    def _line(self) -> int:
        return self._before + self._reader.line_num

    def _skip(self, row: _Bad) -> None:
        self.skipped += 1
        if self.skipped <= TOLD_ROWS:
            more = "; of others not a word" if self.skipped == TOLD_ROWS else ""
            self._note(f"{self._name}:{row.line}: skipped: {row.reason}{more}")

    def _checked(self) -> Iterator[list[str]]:
        """The rows as texts, blank lines left out."""
        try:
            for cells in self._reader:
                if cells:
                    yield cells
        except csv.Error as error:
            raise TableError(self._name, self._line, f"not CSV: {error}") from None

    def _row(self, line: int, cells: list[str], number: int) -> Row | _Bad:
        if len(cells) != len(self._header):
            return _Bad(line, f"got {len(cells)} cells, expected {len(self._header)}, as in the header")
        stamp, time_s = str(number), None
        if self._time_at is not None:
            stamp = cells[self._time_at].strip()
            time_s = self._clock(stamp)
            if time_s is None:
                name = report.plain(self._header[self._time_at])
                return _Bad(line, f"{name}: got {shortened(stamp)}, expected a time as in the rows before")
        values: tuple[float | None, ...]
        texts = [cells[at] for at in self._at]
        try:
            numbers = tuple(map(float, texts))
        except ValueError:
            numbers = ()
        if numbers and math.isfinite(sum(numbers)) and "_" not in "".join(texts):
            values = numbers
        else:
            try:
                values = tuple([self._reading(cells, at) for at in self._at])
            except InvalidValueError as error:
                return _Bad(line, str(error))
        return Row(stamp, time_s, values)

    def _reading(self, cells: Sequence[str], at: int) -> float | None:
        """A number or None.

        Raises:
            InvalidValueError: the cell holds something else.
        """
        text = cells[at].strip()
        if text.lower() in MISSING:
            return None
        value = self._number(text)
        if value is None:
            raise InvalidValueError(report.plain(self._header[at]), text, "a number")
        return value

    def _number(self, text: str) -> float | None:
        if self._delimiter == ";" and text.count(",") == 1 and "." not in text:
            # Where commas stand within numbers, semicolons stand between them.
            text = text.replace(",", ".")
        value = _float(text)
        return value if value is not None and math.isfinite(value) else None

    # Columns

    def _find_time(self, given: str | None) -> tuple[Callable[[str], float | None], int | None]:
        """How to read the times, and where they stand."""
        if given is not None:
            (at,) = self._given((given,), "--time")
            text = self._sample_of(at)
            clock = _clock(text)
            if clock is None:
                raise TableError(
                    self._name,
                    self._sample[0][0],
                    f"{report.plain(given)}: got {shortened(text)}, {EXPECTED}",
                )
            return clock, at
        lower = [name.lower() for name in self._header]
        for at in (lower.index(name) for name in TIME_NAMES if name in lower):
            clock = _clock(self._sample_of(at))
            if clock is not None:
                return clock, at
        return (lambda _: None), None

    def _sample_of(self, at: int) -> str:
        """The first cell of a column that holds something."""
        texts = (cells[at].strip() for _, cells in self._sample if at < len(cells))
        return next((text for text in texts if text.lower() not in MISSING), "")

    def _given(self, names: Sequence[str], option: str = "--columns") -> list[int]:
        found = []
        for name in names:
            if self._header.count(name) != 1:
                known = shortened(", ".join(self._header), 200)
                expected = f"a column that is there once: {known}"
                raise InvalidValueError(option, name, expected)
            found.append(self._header.index(name))
        if len(set(found)) < len(found):
            raise InvalidValueError(option, ",".join(names), "each column once")
        return found

    def _numbers(self) -> list[int]:
        """The columns that hold numbers; of the others a word."""
        found, skipped = [], []
        for at, name in enumerate(self._header):
            if at == self._time_at:
                continue
            texts = [cells[at].strip() for _, cells in self._sample if at < len(cells)]
            known = [text for text in texts if text.lower() not in MISSING]
            numbers = sum(self._number(text) is not None for text in known)
            if name == _nameless(at) or name.lower() in TIME_NAMES or 2 * numbers < len(known):
                skipped.append(name)
            else:
                found.append(at)
        if skipped:
            more = f" and {len(skipped) - TOLD_COLUMNS} more" if len(skipped) > TOLD_COLUMNS else ""
            told = ", ".join(map(shortened, skipped[:TOLD_COLUMNS]))
            self._note(f"{self._name}: left out, as they are no readings: {told}{more}")
        if not found:
            raise TableError(self._name, None, "got no column of numbers, expected one at least")
        names = [self._header[at] for at in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise TableError(self._name, 1, f"got two columns {shortened(twice)}, expected each name once")
        return found


EXPECTED = "expected a time like 2024-05-01T12:00:00, or seconds or milliseconds since 1970"


def _size(file: IO[bytes]) -> int | None:
    """Bytes of a plain file."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):
        return None
    return status.st_size if file.seekable() else None


def _lines(text: IO[str], name: str) -> Iterator[str]:
    number = 0
    while line := _read_line(text, name):
        number += 1
        if len(line) == LINE_LIMIT_CHARACTERS:
            raise TableError(name, number, f"got a line of {len(line)} characters or more, expected CSV")
        yield line


def _read_line(text: IO[str], name: str) -> str:
    try:
        return text.readline(LINE_LIMIT_CHARACTERS)
    except OSError as error:
        error.filename = error.filename or name
        raise


def _delimiter(header: str) -> str:
    """The one that gives the most names; the comma if there is but one."""
    counts = {of: len(next(csv.reader((header,), delimiter=of), [])) for of in DELIMITERS}
    return max(DELIMITERS, key=lambda of: counts[of])


def _header(line: str, cells: Sequence[str], name: str) -> list[str]:
    """The names of the columns; one without a name has its place for one."""
    if not cells:
        raise TableError(name, None, "got nothing, expected a header with the names of the columns")
    if "\0" in line:
        raise TableError(name, 1, "got bytes that are no text, expected CSV in UTF-8")
    names = [cell.strip() for cell in cells]
    known = [cell for cell in names if cell]
    if known and all(_clock(cell) is not None or cell.lower() in MISSING for cell in known):
        raise TableError(name, 1, f"got {shortened(line.strip())}, expected a header with names")
    return [cell or _nameless(at) for at, cell in enumerate(names)]


def _nameless(at: int) -> str:
    return f"column {at + 1}"


def _float(text: str) -> float | None:
    if "_" in text:
        # Python would take 2024_05 for a number.
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _clock(text: str) -> Callable[[str], float | None] | None:
    """How to read times like this one; None if it is none."""
    for clock in (_calendar_s, _epoch_s) if _COMPACT_DATE.fullmatch(text) else (_epoch_s, _calendar_s):
        if clock(text) is not None:
            return clock
    return None


def _epoch_s(text: str) -> float | None:
    value = _float(text)
    if value is None or not math.isfinite(value):
        return None
    for least, factor in UNITS:
        if abs(value) >= least:
            value *= factor
            break
    return value if EARLIEST_S <= value <= LATEST_S else None


def _calendar_s(text: str) -> float | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    time_s = time.timestamp()
    return time_s if EARLIEST_S <= time_s <= LATEST_S else None
