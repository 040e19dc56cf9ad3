"""Tables of measurements, as people have them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from neuromodd.detect.csv_rows import LINE_LIMIT_CHARACTERS, SAMPLE_ROWS, CsvRows
from neuromodd.detect.rows import Row
from neuromodd.errors import InvalidValueError, TableError


def rows(text: str | bytes, **options: object) -> CsvRows:
    data = text if isinstance(text, bytes) else text.encode()
    return CsvRows(io.BytesIO(data), "a.csv", **options)  # type: ignore[arg-type]


def values(text: str | bytes, **options: object) -> list[tuple[float | None, ...]]:
    return [row.values for row in rows(text, **options)]


# Times


@pytest.mark.parametrize("name", ["DateTime", "Timestamp", "date", "time", "time_utc", "ts"])
def test_the_column_with_the_times_is_known_by_its_name(name: str) -> None:
    table = rows(f"cpu,{name}\n1,2014-04-01 00:00:05\n")
    assert (table.names, table.timed) == (("cpu",), True)
    moment = datetime(2014, 4, 1, 0, 0, 5, tzinfo=UTC).timestamp()
    assert list(table) == [Row("2014-04-01 00:00:05", moment, (1.0,))]


@pytest.mark.parametrize(
    "text",
    [
        "1396310400",
        "1396310400.0",
        "1396310400000",
        "1396310400000000",
        "2014-04-01",
        "2014-04-01 00:00",
        "2014-04-01T00:00:00.000Z",
        "2014-04-01T02:00:00+02:00",
        "20140401",
    ],
)
def test_times_are_read_as_people_write_them(text: str) -> None:
    (row,) = rows(f"time,cpu\n{text},1\n")
    assert (row.time_s, row.stamp) == (1396310400.0, text)


def test_the_column_with_the_times_may_be_named() -> None:
    table = rows("when,cpu\n2014-04-01,1\n", time="when")
    assert (table.names, table.timed) == (("cpu",), True)


def test_rows_without_times_are_numbered() -> None:
    assert list(rows("cpu\n1\n2\n")) == [Row("1", None, (1.0,)), Row("2", None, (2.0,))]


def test_times_that_go_back_or_repeat_are_no_error() -> None:
    table = rows("time,cpu\n2014-10-26 02:30:00,1\n2014-10-26 02:30:00,2\n2014-10-26 02:00:00,3\n")
    assert [row.values for row in table] == [(1.0,), (2.0,), (3.0,)]


def test_a_column_named_time_that_holds_none_is_left_out_and_told() -> None:
    told: list[str] = []
    table = rows("date,cpu\nlast monday,1\n", note=told.append)
    assert (table.names, table.timed) == (("cpu",), False)
    assert told == ["a.csv: left out, as they are no readings: 'date'"]


def test_a_named_column_without_times_is_an_error_with_its_line() -> None:
    with pytest.raises(TableError, match=r"^a.csv:2: host: got 'web1', expected a time like "):
        rows("host,cpu\nweb1,1\n", time="host")


@pytest.mark.parametrize("text", ["", "1e999", "99999-01-01", "nan", "noon"])
def test_a_broken_time_is_an_error_with_its_line(text: str) -> None:
    table = rows(f"time,cpu\n2014-04-01,1\n{text},2\n")
    with pytest.raises(TableError, match=r"^a.csv:3: time: got '.*', expected a time as in the rows before$"):
        list(table)


# Numbers


@pytest.mark.parametrize("text", ["", " ", "-", "n/a", "NA", "NaN", "nan", "NULL", "null", "None"])
def test_a_missing_reading_is_none(text: str) -> None:
    assert values(f"a,b\n1,2\n{text},3\n") == [(1.0, 2.0), (None, 3.0)]


@pytest.mark.parametrize("text", ["1_000", "1,5", "inf", "x", "-inf"])
def test_a_bad_cell_is_an_error_with_line_and_column(text: str) -> None:
    table = rows(f'a,b\n1,2\n3,"{text}"\n')
    with pytest.raises(TableError, match=rf"^a.csv:3: b: got '{text}', expected a number$"):
        list(table)


def test_a_name_that_would_harm_a_terminal_is_told_harmless() -> None:
    table = rows("a,\x1b[2Jb\n1,2\nx,3\ny,z\n", columns=("\x1b[2Jb",))
    with pytest.raises(TableError, match=r"^a.csv:4: \?\[2Jb: got 'z'"):
        list(table)


def test_the_largest_numbers_are_numbers() -> None:
    assert values("a,b\n1e308,1e308\n") == [(1e308, 1e308)]


@pytest.mark.parametrize(("line", "cells"), [("1", 1), ("1,2,3", 3)])
def test_a_row_of_another_width_is_an_error_with_its_line(line: str, cells: int) -> None:
    table = rows(f"a,b\n1,2\n{line}\n")
    with pytest.raises(TableError, match=rf"^a.csv:3: got {cells} cells, expected 2, as in the header$"):
        list(table)


def test_the_line_is_that_of_the_file_whatever_lies_between() -> None:
    table = rows('\n\na,note\n1,"two\nlines"\n\nx,3\n', columns=("a",))
    with pytest.raises(TableError, match=r"^a.csv:7: a: got 'x'"):
        list(table)


def test_broken_rows_are_left_out_if_asked_and_counted() -> None:
    told: list[str] = []
    table = rows("a,b\n1,2\n1\n3,x\n4,5\n", skip_bad=True, note=told.append)
    assert [(row.stamp, row.values) for row in table] == [("1", (1.0, 2.0)), ("2", (4.0, 5.0))]
    assert table.skipped == 2
    assert told[0] == "a.csv:3: skipped: got 1 cells, expected 2, as in the header"


def test_of_a_thousand_broken_rows_not_all_are_told() -> None:
    told: list[str] = []
    table = rows("a,b\n1,2\n" + "1\n" * 1000, skip_bad=True, note=told.append)
    list(table)
    assert (table.skipped, len(told)) == (1000, 10)


# Columns


def test_columns_of_text_are_left_out_and_told() -> None:
    told: list[str] = []
    table = rows("host,cpu,kind,memory\nweb1,1,x,2\nweb2,3,-,4\n", note=told.append)
    assert table.names == ("cpu", "memory")
    assert told == ["a.csv: left out, as they are no readings: 'host', 'kind'"]


def test_a_column_that_begins_with_missing_readings_is_a_channel() -> None:
    late = "1,\n" * (2 * SAMPLE_ROWS)
    assert values(f"a,b\n{late}1,2\n")[-1] == (1.0, 2.0)


def test_a_column_of_row_numbers_without_a_name_is_no_channel() -> None:
    assert rows(",cpu\n0,5\n1,6\n").names == ("cpu",)


def test_columns_may_be_chosen_and_come_in_that_order() -> None:
    assert values("a,b,c\n1,2,3\n", columns=("c", "a")) == [(3.0, 1.0)]


@pytest.mark.parametrize("names", [("a", "a"), ("b",), ("z",)])
def test_a_choice_that_is_none_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValueError, match=r"^--columns: got "):
        rows("a,b,b\n1,2,3\n", columns=names)


def test_two_columns_of_one_name_are_an_error() -> None:
    with pytest.raises(TableError, match=r"^a.csv:1: got two columns 'a', expected each name once$"):
        rows("a,a\n1,2\n")


# Files


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_delimiters_line_ends_and_a_byte_order_mark_do_not_matter(
    delimiter: str, end: str, mark: bytes
) -> None:
    text = end.join((f"time{delimiter}cpu", f"2014-04-01{delimiter}1.5", ""))
    table = rows(mark + text.encode())
    assert (table.names, table.timed) == (("cpu",), True)
    assert [row.values for row in table] == [(1.5,)]


def test_where_semicolons_stand_between_numbers_a_comma_is_a_point() -> None:
    assert values("a;b\n1,5;2\n") == [(1.5, 2.0)]


def test_the_end_of_the_last_line_may_be_missing() -> None:
    assert values("a\n1\n2") == [(1.0,), (2.0,)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "got nothing, expected a header"),
        (b"1,2\n3,4\n", "got '1,2', expected a header with names"),
        (b"2014-04-01,2\n2014-04-02,4\n", "expected a header with names"),
        (b"\n \n", "got nothing, expected a header"),
        (b"a,b\n", "got no row below the header"),
        (b"host\nweb1\n", "got no column of numbers"),
        ("a,b\n1,2\n".encode("utf-16"), "got bytes that are no text"),
    ],
)
def test_what_is_no_table_is_told(text: bytes, reason: str) -> None:
    with pytest.raises(TableError, match=reason):
        rows(text)


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    class Endless(io.RawIOBase):
        read_bytes = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"x" * len(buffer)
            self.read_bytes += len(buffer)
            return len(buffer)

    endless = Endless()
    with pytest.raises(TableError, match=r"^a.csv:1: got a line of 1048576 characters or more"):
        CsvRows(io.BufferedReader(endless), "a.csv")
    assert endless.read_bytes < 2 * LINE_LIMIT_CHARACTERS


def test_rows_are_read_as_they_are_wanted() -> None:
    class Counted(io.RawIOBase):
        def __init__(self) -> None:
            self.lines: Iterator[bytes] = iter([b"a\n", *[b"1\n"] * 100_000])
            self.taken = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            line = next(self.lines, b"")
            buffer[: len(line)] = line
            self.taken += 1
            return len(line)

    counted = Counted()
    table = iter(CsvRows(io.BufferedReader(counted), "a.csv"))
    for _ in range(200):
        next(table)
    assert counted.taken < 250
