"""FpgaMetrics: what a bitstream build left over, from Vivado's reports.

A report of a large design has megabytes of paths, so a section is found first and only a slice of it is
split into lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Self

from neuromodd.core.record import Record, measured
from neuromodd.errors import InvalidValueError

TIMING_TEXT = "FpgaMetrics.parse.timing_text"
"""The place that an error names when it is about the timing report."""

UTILIZATION_TEXT = "FpgaMetrics.parse.utilization_text"
"""The place that an error names when it is about the utilisation report."""

_SECTION = "Design Timing Summary"
_NO_CONSTRAINTS = "no user specified timing constraints"
_CUT_SHORT = "(is the report cut short?)"
# The box around the header is as wide as the command, whose paths may be long.
_SLICE = 16_384
_ROW_SLICE = 1024
_TABLE_SLICE = 4096
_VALUE_LIMIT = 200

_COLUMN = re.compile(r"\S+(?: \S+)*")
_CELL = re.compile(r"\S+")
_SLACK = re.compile(r"[+-]?[0-9]{1,15}(?:\.[0-9]{0,15})?")
_COUNT = re.compile(r"[0-9]{1,15}")
_AMOUNT = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?")
_VERSION = re.compile(r"\bv\.?([0-9]\S*)")
_UNCONSTRAINED = frozenset({"", "na", "n/a", "inf", "+inf"})


class FpgaMetrics(Record):
    """Timing and area of an FPGA build, as Vivado reports them; a negative slack is time that is missing."""

    wns_ns: float | None = measured("report_timing_summary: worst setup slack", null="no path is constrained")
    tns_ns: float | None = measured("report_timing_summary: total negative setup slack, 0 or below")
    failing_endpoints: int | None = measured("report_timing_summary: endpoints that miss their setup", ge=0)
    whs_ns: float | None = measured("report_timing_summary: worst hold slack", null="no path is constrained")
    ths_ns: float | None = measured("report_timing_summary: total negative hold slack, 0 or below")
    wpws_ns: float | None = measured(
        "report_timing_summary: worst pulse width slack", null="no path is constrained"
    )
    tpws_ns: float | None = measured("report_timing_summary: total negative pulse width slack, 0 or below")
    lut_utilization_ratio: float | None = measured(
        "report_utilization: look-up tables in use, above 1 it does not fit",
        needs="fpga.utilization_report",
        ge=0.0,
    )
    tool_version: str | None = measured("the reports' header: Vivado's version")
    device: str | None = measured("the reports' header: the part")

    @property
    def met(self) -> bool | None:
        """Whether no slack is negative, of setup, hold and pulse width; None without a constrained path."""
        slacks = [slack for slack in (self.wns_ns, self.whs_ns, self.wpws_ns) if slack is not None]
        return min(slacks) >= 0.0 and not self.failing_endpoints if slacks else None

    @property
    def stress(self) -> float | None:
        """fpga_stress = clip(-WNS / 5 ns, 0, 1); None without WNS."""
        return None if self.wns_ns is None else min(max(-self.wns_ns / 5.0, 0.0), 1.0)

    @classmethod
    def parse(cls, timing_text: str, utilization_text: str | None = None) -> Self:
        """The metrics in the text of report_timing_summary and, if given, of report_utilization.

        Slacks come from the design-wide table, never from those of single clocks. `NA`, `inf` and blank
        cells mean that no path is constrained and give None, as does a column that the report leaves out.
        Of a file to which several reports were appended (`-append`) the last one counts.

        Raises:
            InvalidValueError: a text is not such a report, or one that is cut short; its `place` is
                `TIMING_TEXT` or `UTILIZATION_TEXT`.
        """
        section = _find_section(timing_text)
        if section < 0:
            raise _not_a_timing_report(timing_text)
        cells = _design_wide(timing_text, section)
        header = _header(timing_text, section)
        ratio = None
        if utilization_text is not None:
            row, ratio = _lut_utilization(utilization_text)
            header = _header(utilization_text, row) | header
        return cls(
            wns_ns=_slack(cells, "WNS(ns)"),
            tns_ns=_slack(cells, "TNS(ns)"),
            failing_endpoints=_count(cells, "TNS Failing Endpoints"),
            whs_ns=_slack(cells, "WHS(ns)"),
            ths_ns=_slack(cells, "THS(ns)"),
            wpws_ns=_slack(cells, "WPWS(ns)"),
            tpws_ns=_slack(cells, "TPWS(ns)"),
            lut_utilization_ratio=ratio,
            tool_version=_version(header.get("Tool Version")),
            device=header.get("Device"),
        )


def _find_section(text: str) -> int:
    position = text.rfind(_SECTION)
    while position >= 0 and not _is_title(text, position):
        position = text.rfind(_SECTION, 0, position)
    return position


def _is_title(text: str, position: int) -> bool:
    end = position + len(_SECTION)
    before = text[max(0, position - 8) : position].rpartition("\n")[2]
    after = text[end : end + 8].partition("\n")[0]
    return not before.strip("\ufeff| ") and not after.strip()


def _design_wide(text: str, section: int) -> dict[str, str]:
    """The cells of the design-wide table by column; empty for a design without constraints."""
    lines = text[section : section + _SLICE].split("\n")[1:]
    for index, line in enumerate(lines):
        columns = {match[0]: match.end() for match in _COLUMN.finditer(line)}
        # A table of single clocks begins with the column of their names.
        if next(iter(columns), "").endswith("(ns)"):
            return _place_cells(columns, _row_of_values(lines[index + 1 :], columns))
    if any(_NO_CONSTRAINTS in line for line in lines):
        return {}
    expected = f"a table with a column WNS(ns) in the section {_SECTION!r} {_CUT_SHORT}"
    raise InvalidValueError(TIMING_TEXT, _what(text), expected)


def _row_of_values(lines: Sequence[str], columns: Mapping[str, int]) -> str:
    """The first line that is not the dashes under the column names.

    Cells are right-aligned, so a whole row ends where the last column does; one that has no line after it
    and is shorter was cut, perhaps within a number.
    """
    if "WNS(ns)" not in columns:
        expected = f"a column WNS(ns) in the section {_SECTION!r} (`-delay_type min` leaves it out)"
        raise InvalidValueError(TIMING_TEXT, ", ".join(columns), expected)
    for index, line in enumerate(lines):
        row = line.rstrip()
        if row and not row.strip("- "):
            continue
        if row and (index + 1 < len(lines) or len(row) >= max(columns.values())):
            return row
        break
    expected = f"a whole row of values in the section {_SECTION!r} {_CUT_SHORT}"
    raise InvalidValueError(TIMING_TEXT, "".join(lines[-1:]), expected)


def _place_cells(columns: Mapping[str, int], row: str) -> dict[str, str]:
    """Give each cell to its column: in order if there is one for each, else by the column's right edge."""
    found = list(_CELL.finditer(row))
    if len(found) == len(columns):
        return {name: match[0] for name, match in zip(columns, found, strict=True)}
    cells: dict[str, str] = {}
    for match in found:
        name = min(columns, key=lambda name: abs(columns[name] - match.end()))
        if name in cells:
            raise InvalidValueError(TIMING_TEXT, row.strip(), f"one value under each of {', '.join(columns)}")
        cells[name] = match[0]
    return cells


def _slack(cells: Mapping[str, str], column: str) -> float | None:
    text = cells.get(column, "")
    if text.lower() in _UNCONSTRAINED:
        return None
    if not _SLACK.fullmatch(text):
        raise InvalidValueError(TIMING_TEXT, text, f"ns, NA or inf under {column}")
    return float(text)


def _count(cells: Mapping[str, str], column: str) -> int | None:
    text = cells.get(column, "")
    if text.lower() in _UNCONSTRAINED:
        return None
    if not _COUNT.fullmatch(text):
        raise InvalidValueError(TIMING_TEXT, text, f"a count or NA under {column}")
    return int(text)


def _lut_utilization(text: str) -> tuple[int, float | None]:
    """Where the row of all look-up tables stands, and their used / available; None for a blank cell."""
    for name in ("Slice LUTs", "CLB LUTs"):
        position = text.rfind(f"\n| {name}")
        while position >= 0:
            row = _table_cells(text[position + 1 : position + _ROW_SLICE].partition("\n")[0])
            if row[:1] in ([name], [f"{name}*"]):
                cells = dict(zip(_table_columns(text, position), row, strict=False))
                # The tables of single dies have such a row too, without these columns.
                if {"Used", "Available"} <= cells.keys():
                    used, available = _amount(cells["Used"]), _amount(cells["Available"])
                    return position, used / available if used is not None and available else None
            position = text.rfind(f"\n| {name}", 0, position)
    raise _not_a_utilization_report(text)


def _table_columns(text: str, row: int) -> list[str]:
    """The column names of the table that the line before `row` belongs to; empty without a `Used`."""
    for line in reversed(text[max(0, row - _TABLE_SLICE) : row].split("\n")):
        if not line.startswith(("|", "+")):
            break
        columns = _table_cells(line)
        if "Used" in columns:
            return columns
    return []


def _table_cells(line: str) -> list[str]:
    # What has no closing bar was cut.
    return [cell.strip() for cell in line.split("|")[1:-1]]


def _amount(cell: str) -> float | None:
    if not cell:
        return None
    if not _AMOUNT.fullmatch(cell):
        raise InvalidValueError(UTILIZATION_TEXT, cell, "numbers in the row of all LUTs")
    return float(cell)


def _header(text: str, end: int) -> dict[str, str]:
    """The fields of the last header box before `end`; without those that are no plain text."""
    start = text.rfind("| Tool Version", 0, end)
    fields: dict[str, str] = {}
    for line in text[start : start + _SLICE].split("\n") if start >= 0 else ():
        if not line.startswith("|"):
            break
        key, _, value = (part.strip() for part in line[1:].partition(":"))
        if value and len(value) <= _VALUE_LIMIT and value.isprintable():
            fields[key] = value
    return fields


def _version(tool: str | None) -> str | None:
    """`2020.2` of `Vivado v.2020.2 (lin64) Build ...`; the whole text if it is of another form."""
    found = _VERSION.search(tool) if tool else None
    return found[1] if found else tool


def _what(text: str) -> str:
    """What a text is, for a message: the command that wrote it, else its beginning."""
    head = text[:_SLICE]
    _, _, command = head.partition("\n| Command")
    return command.partition("\n")[0].strip(" :\r") or head[:_VALUE_LIMIT].strip("\ufeff \r\n")


def _not_a_timing_report(text: str) -> InvalidValueError:
    head = text[:_SLICE]
    swapped = "report_utilization" in head or "Utilization Design Information" in head
    expected = f"the text of report_timing_summary with a section {_SECTION!r}"
    hint = "(are the two reports swapped?)" if swapped else _CUT_SHORT
    return InvalidValueError(TIMING_TEXT, _what(text), f"{expected} {hint}")


def _not_a_utilization_report(text: str) -> InvalidValueError:
    swapped = "report_timing" in text[:_SLICE] or _find_section(text) >= 0
    expected = "the text of report_utilization with a whole row `Slice LUTs` or `CLB LUTs`"
    hint = "(are the two reports swapped?)" if swapped else _CUT_SHORT
    return InvalidValueError(UTILIZATION_TEXT, _what(text), f"{expected} {hint}")
