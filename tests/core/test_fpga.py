"""FPGA reports: what is read from them, what is refused, and timing as stress."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.fpga import TIMING_TEXT, UTILIZATION_TEXT, FpgaMetrics
from neuromodd.errors import InvalidValueError

REPORTS = Path(__file__).parents[1] / "data" / "fpga"

SECTION = """\
| Design Timing Summary
| ---------------------
------------------------------------------------------------------------------------------------

"""
NAMES = "    WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)      THS(ns)\n"
DASHES = "    -------      -------  ---------------------  -------------------      -------      -------\n"
VALUES = "     -0.500       -1.250                      3                  100        0.040        0.000\n"
TIMING = SECTION + NAMES + DASHES + VALUES + "\n"
INTRA_CLOCK = """\
| Intra Clock Table
| -----------------
------------------------------------------------------------------------------------------------

Clock         WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)      THS(ns)
-----         -------      -------  ---------------------  -------------------      -------      -------
slow           -9.000      -99.000                     77                   90       -9.000      -99.000

"""
UTILIZATION = """\
+------------+------+-------+-----------+-------+
|  Site Type | Used | Fixed | Available | Util% |
+------------+------+-------+-----------+-------+
| Slice LUTs |  500 |     0 |      2000 | 25.00 |
+------------+------+-------+-----------+-------+
"""


def report(name: str) -> str:
    return (REPORTS / f"{name}.rpt").read_text()


def fault(timing_text: str, utilization_text: str | None = None) -> InvalidValueError:
    with pytest.raises(InvalidValueError) as caught:
        FpgaMetrics.parse(timing_text, utilization_text)
    return caught.value


@pytest.mark.parametrize(
    ("wns_ns", "stress"), [(None, None), (1.0, 0.0), (0.0, 0.0), (-2.5, 0.5), (-5.0, 1.0), (-1e300, 1.0)]
)
def test_fpga_stress_is_the_missing_slack_over_five_nanoseconds(
    wns_ns: float | None, stress: float | None
) -> None:
    assert FpgaMetrics(wns_ns=wns_ns).stress == stress


@pytest.mark.parametrize(
    ("name", "wns_ns", "tns_ns", "failing", "whs_ns", "ths_ns"),
    [
        ("zynq7_2017.4_timing", 1.284, 0.0, 0, 0.037, 0.0),
        ("zynqusp_2020.2_timing", -1.872, -40913.117, 61077, -0.012, -0.031),
        ("versal_2024.2_timing", -0.045, -0.131, 4, 0.012, 0.0),
        ("kintexu_2022.1_setup_only_timing", 0.402, 0.0, 0, None, None),
        ("artix7_2019.1_unconstrained_timing", None, None, None, None, None),
        ("spartan7_2025.1_unconstrained_timing", None, 0.0, 0, None, 0.0),
    ],
)
def test_timing_is_what_the_design_wide_table_says(
    name: str,
    wns_ns: float | None,
    tns_ns: float | None,
    failing: int | None,
    whs_ns: float | None,
    ths_ns: float | None,
) -> None:
    metrics = FpgaMetrics.parse(report(name))
    assert (metrics.wns_ns, metrics.tns_ns, metrics.failing_endpoints) == (wns_ns, tns_ns, failing)
    assert (metrics.whs_ns, metrics.ths_ns) == (whs_ns, ths_ns)


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("zynq7_2017.4_utilization", 1330 / 53200),
        ("zynqusp_2020.2_utilization", 0.75),
        ("versal_2024.2_utilization", 0.0625),
        ("artix7_2023.1_utilization", 2 / 20800),
    ],
)
def test_utilization_is_used_over_available_of_all_luts(name: str, ratio: float) -> None:
    assert FpgaMetrics.parse(TIMING, report(name)).lut_utilization_ratio == ratio


@pytest.mark.parametrize(
    ("name", "version", "device"),
    [
        ("zynq7_2017.4_timing", "2017.4", "7z020-clg400"),
        ("artix7_2019.1_unconstrained_timing", "2019.1", "7a35t-cpg236"),
        ("zynqusp_2020.2_timing", "2020.2", "xczu9eg-ffvb1156"),
        ("versal_2024.2_timing", "2024.2", "xcvc1902-vsva2197"),
        ("spartan7_2025.1_unconstrained_timing", "2025.1", "7s25-csga324"),
    ],
)
def test_version_and_device_come_from_the_header(name: str, version: str, device: str) -> None:
    metrics = FpgaMetrics.parse(report(name))
    assert (metrics.tool_version, metrics.device) == (version, device)


def test_without_a_header_version_and_device_are_none() -> None:
    metrics = FpgaMetrics.parse(TIMING, UTILIZATION)
    assert (metrics.tool_version, metrics.device) == (None, None)


def test_the_utilization_header_serves_where_the_timing_report_has_none() -> None:
    metrics = FpgaMetrics.parse(TIMING, report("versal_2024.2_utilization"))
    assert (metrics.tool_version, metrics.device) == ("2024.2", "xcvc1902-vsva2197-2MP-e-S")


def test_the_timing_header_goes_before_that_of_the_utilization() -> None:
    metrics = FpgaMetrics.parse(report("zynq7_2017.4_timing"), report("versal_2024.2_utilization"))
    assert (metrics.tool_version, metrics.device) == ("2017.4", "7z020-clg400")


@pytest.mark.parametrize(
    ("tool", "version"),
    [
        ("Vivado v.2022.1.2 (lin64) Build 3605665", "2022.1.2"),
        ("Vivado v2021.2_AR76780 (lin64)", "2021.2_AR76780"),
        ("Vivado something else", "Vivado something else"),
        ("Vivado \x07", None),
        ("V" * 1000, None),
    ],
)
def test_the_version_is_cut_out_of_the_tool(tool: str, version: str | None) -> None:
    assert FpgaMetrics.parse(f"| Tool Version : {tool}\n\n{TIMING}").tool_version == version


def test_without_a_utilization_report_the_share_of_luts_is_none() -> None:
    assert FpgaMetrics.parse(TIMING).lut_utilization_ratio is None


@pytest.mark.parametrize("text", [TIMING + INTRA_CLOCK, INTRA_CLOCK + TIMING])
def test_tables_of_single_clocks_never_win_though_worse(text: str) -> None:
    assert FpgaMetrics.parse(text) == FpgaMetrics.parse(TIMING)


def test_a_table_of_single_clocks_does_not_stand_in_for_the_design_wide_one() -> None:
    assert "WNS(ns)" in fault(SECTION + "\n" + INTRA_CLOCK).expected


def test_a_table_of_clocks_is_none_of_the_design_even_without_a_title() -> None:
    assert "WNS(ns)" in fault(SECTION + INTRA_CLOCK.partition("\n\n")[2]).expected


def test_columns_are_known_by_name() -> None:
    names = "    WHS(ns)      WNS(ns)  TNS Failing Endpoints\n"
    dashes = "    -------      -------  ---------------------\n"
    values = "      0.100       -2.000                      7\n"
    metrics = FpgaMetrics.parse(SECTION + names + dashes + values)
    assert (metrics.wns_ns, metrics.whs_ns, metrics.failing_endpoints) == (-2.0, 0.1, 7)


def test_a_blank_cell_leaves_the_others_under_their_columns() -> None:
    values = (
        "     -0.500                                   3                  100                     0.000\n"
    )
    metrics = FpgaMetrics.parse(SECTION + NAMES + DASHES + values)
    assert (metrics.wns_ns, metrics.tns_ns, metrics.failing_endpoints) == (-0.5, None, 3)
    assert (metrics.whs_ns, metrics.ths_ns) == (None, 0.0)


def test_a_row_wider_than_its_columns_is_read_in_order() -> None:
    values = "-100000.500 -12345678901.125            3000000              4000000  -12345.625 -1234567.125\n"
    metrics = FpgaMetrics.parse(SECTION + NAMES + DASHES + values)
    assert (metrics.wns_ns, metrics.tns_ns, metrics.ths_ns) == (-100000.5, -12345678901.125, -1234567.125)


def test_a_report_without_dashes_is_read() -> None:
    assert FpgaMetrics.parse(SECTION + NAMES + VALUES) == FpgaMetrics.parse(TIMING)


def test_a_section_that_says_only_that_nothing_is_constrained_gives_none() -> None:
    text = SECTION + "There are no user specified timing constraints.\n"
    assert FpgaMetrics.parse(text) == FpgaMetrics()


@pytest.mark.parametrize("name", ["zynqusp_2020.2", "versal_2024.2"])
def test_line_ends_of_windows_make_no_difference(name: str) -> None:
    texts = report(f"{name}_timing"), report(f"{name}_utilization")
    windows = [text.replace("\n", "\r\n") for text in texts]
    assert FpgaMetrics.parse(windows[0], windows[1]) == FpgaMetrics.parse(*texts)


def test_a_byte_order_mark_makes_no_difference() -> None:
    assert FpgaMetrics.parse("\ufeff" + TIMING, "\ufeff" + UTILIZATION) == FpgaMetrics.parse(
        TIMING, UTILIZATION
    )


def test_of_appended_reports_the_last_one_counts() -> None:
    timing = report("zynq7_2017.4_timing") + report("versal_2024.2_timing")
    utilization = report("zynqusp_2020.2_utilization") + report("versal_2024.2_utilization")
    assert FpgaMetrics.parse(timing, utilization) == FpgaMetrics.parse(
        report("versal_2024.2_timing"), report("versal_2024.2_utilization")
    )


def test_a_mention_of_the_section_is_not_the_section() -> None:
    text = TIMING + "see the Design Timing Summary above\n1. Design Timing Summary\n"
    assert FpgaMetrics.parse(text) == FpgaMetrics.parse(TIMING)


@pytest.mark.parametrize("text", ["", "hello\n", "\ufeff", report("zynq7_2017.4_timing")[:1500]])
def test_a_text_without_the_section_is_refused_by_its_name(text: str) -> None:
    error = fault(text)
    assert error.place == TIMING_TEXT
    assert "'Design Timing Summary'" in error.expected


def test_a_refusal_names_the_command_that_wrote_the_text() -> None:
    text = report("zynq7_2017.4_timing").replace("report_timing_summary", "report_timing")
    assert "report_timing -warn_on_violation" in str(fault(text[:1500]))


def test_swapped_reports_are_told_so_at_the_timing_text() -> None:
    error = fault(report("zynq7_2017.4_utilization"), report("zynq7_2017.4_timing"))
    assert error.place == TIMING_TEXT
    assert "swapped" in error.expected


def test_a_timing_report_as_utilization_is_told_so() -> None:
    error = fault(TIMING, report("zynq7_2017.4_timing"))
    assert error.place == UTILIZATION_TEXT
    assert "swapped" in error.expected


def test_a_report_of_hold_only_is_refused_with_the_columns_that_it_has() -> None:
    error = fault(SECTION + "    WHS(ns)      THS(ns)\n    -------      -------\n      0.040        0.000\n")
    assert error.got == "WHS(ns), THS(ns)"
    assert "-delay_type min" in error.expected


@pytest.mark.parametrize("text", [SECTION, SECTION + "    WN", SECTION[:30], SECTION.rstrip("\n-")])
def test_a_section_without_a_table_says_that_wns_is_missing(text: str) -> None:
    assert "a table with a column WNS(ns)" in fault(text).expected


@pytest.mark.parametrize("rows", ["", DASHES, DASHES[:20], DASHES + "\n\nAll constraints are met.\n"])
def test_a_table_without_a_row_of_values_is_refused(rows: str) -> None:
    assert "a whole row of values" in fault(SECTION + NAMES + rows).expected


@pytest.mark.parametrize("cut", range(1, len(VALUES) - 1))
def test_a_row_cut_anywhere_is_refused(cut: int) -> None:
    assert fault(SECTION + NAMES + DASHES + VALUES[:cut]).place == TIMING_TEXT


def test_a_whole_row_that_ends_the_text_is_read() -> None:
    assert FpgaMetrics.parse(TIMING.rstrip("\n")) == FpgaMetrics.parse(TIMING)


@pytest.mark.parametrize("cell", ["Timing", "-inf", "nan", "1e999", "1,5", "\u0663.5", "9" * 5000])
def test_a_slack_that_is_no_number_is_refused_with_its_column(cell: str) -> None:
    assert "under WNS(ns)" in fault(TIMING.replace("-0.500", cell)).expected


@pytest.mark.parametrize("cell", ["-3", "3.5", "many"])
def test_a_count_that_is_none_is_refused_with_its_column(cell: str) -> None:
    values = VALUES.replace("  3 ", f"  {cell} ")
    assert "under TNS Failing Endpoints" in fault(SECTION + NAMES + DASHES + values).expected


@pytest.mark.parametrize("values", [VALUES.replace("\n", "   7\n"), "1 2 3 4\n"])
def test_values_that_fit_no_columns_are_refused(values: str) -> None:
    assert "one value under each of WNS(ns)" in fault(SECTION + NAMES + DASHES + values).expected


@pytest.mark.parametrize(
    ("row", "ratio"),
    [
        ("| Slice LUTs* |  500 |     0 |      2000 |  25.00 |", 0.25),
        ("| CLB LUTs    | 3000 |     0 |      2000 | 150.00 |", 1.5),
        ("| CLB LUTs*   |  0.5 |     0 |      2000 |  <0.01 |", 0.00025),
    ],
)
def test_the_row_of_all_luts_has_several_names(row: str, ratio: float) -> None:
    text = UTILIZATION.replace("| Slice LUTs |  500 |     0 |      2000 | 25.00 |", row)
    assert FpgaMetrics.parse(TIMING, text).lut_utilization_ratio == ratio


@pytest.mark.parametrize(("old", "new"), [("2000", "    "), ("  500", "     "), ("2000", "   0")])
def test_a_blank_or_empty_amount_of_luts_is_none(old: str, new: str) -> None:
    assert FpgaMetrics.parse(TIMING, UTILIZATION.replace(old, new)).lut_utilization_ratio is None


def test_an_amount_of_luts_that_is_no_number_is_refused() -> None:
    error = fault(TIMING, UTILIZATION.replace("2000", "many"))
    assert (error.place, error.got) == (UTILIZATION_TEXT, "many")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        UTILIZATION[:180],
        UTILIZATION.replace("Slice LUTs", "LUT as Logic"),
        UTILIZATION.replace("Available", "Left"),
        "\n| Slice LUTs |  500 |     0 |      2000 | 25.00 |\n",
    ],
)
def test_a_utilization_without_a_whole_row_of_all_luts_is_refused(text: str) -> None:
    error = fault(TIMING, text)
    assert error.place == UTILIZATION_TEXT
    assert "Slice LUTs" in error.expected


@pytest.mark.parametrize("cut", range(UTILIZATION.index("| Slice"), UTILIZATION.index("2000 |") + 5))
def test_a_utilization_cut_before_the_end_of_its_numbers_is_refused(cut: int) -> None:
    assert fault(TIMING, UTILIZATION[:cut]).place == UTILIZATION_TEXT


PIECES = st.sampled_from(
    [
        *(TIMING + UTILIZATION + INTRA_CLOCK).splitlines(keepends=True),
        *("| Tool Version : \ud800 v.1\n", "\r\n", "\n", "NA", "inf ", "|"),
    ]
)
DAMAGED = st.builds(
    lambda text, at, length, new: text[:at] + new + text[at + length :],
    st.sampled_from([TIMING, UTILIZATION, TIMING + INTRA_CLOCK]),
    st.integers(0, len(TIMING)),
    st.integers(0, 30),
    st.text(max_size=5),
)
TEXTS = st.one_of(
    DAMAGED,
    st.text(),
    st.text(st.characters()),
    st.lists(st.one_of(PIECES, PIECES, st.text(max_size=5)), max_size=25).map("".join),
    st.tuples(st.text(max_size=40), st.text(max_size=40)).map(SECTION.join),
    st.text("0123456789.-NA inf\n|", max_size=120).map(lambda row: SECTION + NAMES + DASHES + row + "\n"),
)


def read_or_refused(timing_text: str, utilization_text: str | None = None) -> bool:
    try:
        metrics = FpgaMetrics.parse(timing_text, utilization_text)
    except InvalidValueError as error:
        return error.place in {TIMING_TEXT, UTILIZATION_TEXT}
    return FpgaMetrics.from_json(metrics.to_json()) == metrics


@given(text=TEXTS)
def test_any_timing_text_is_read_or_refused(text: str) -> None:
    assert read_or_refused(text)


@given(text=TEXTS)
def test_any_utilization_text_is_read_or_refused(text: str) -> None:
    assert read_or_refused(TIMING, text)


@given(text=DAMAGED)
def test_any_damaged_report_is_read_or_refused(text: str) -> None:
    assert read_or_refused(text, UTILIZATION)


@given(
    wns_ns=st.decimals(-1000, 1000, places=3),
    tns_ns=st.decimals(-1000000, 0, places=3),
    failing=st.integers(0, 10**9),
)
def test_any_values_are_read_exactly(wns_ns: object, tns_ns: object, failing: int) -> None:
    values = f"{wns_ns:>11} {tns_ns:>12}  {failing:>21}  {10**9:>19}  {0.04:>11.3f}  {0.0:>11.3f}\n"
    metrics = FpgaMetrics.parse(SECTION + NAMES + DASHES + values)
    assert (metrics.wns_ns, metrics.tns_ns) == (float(str(wns_ns)), float(str(tns_ns)))
    assert metrics.failing_endpoints == failing


@pytest.mark.parametrize("name", ["zynq7_2017.4", "zynqusp_2020.2", "versal_2024.2"])
def test_metrics_survive_json(name: str) -> None:
    metrics = FpgaMetrics.parse(report(f"{name}_timing"), report(f"{name}_utilization"))
    assert FpgaMetrics.from_json(metrics.to_json()) == metrics


@pytest.mark.parametrize("at_end", [False, True])
def test_twenty_megabytes_are_read_in_time(at_end: bool) -> None:
    path = "                         net (fo=36, unplaced)        0.239     0.332    fsm/comb_reg_done\n"
    paths = path * (20_000_000 // len(path))
    begin = time.monotonic()
    metrics = FpgaMetrics.parse(paths + TIMING if at_end else TIMING + paths)
    assert metrics.wns_ns == -0.5
    assert time.monotonic() - begin < 5.0


@pytest.mark.parametrize(
    ("slacks", "met"),
    [
        ({}, None),
        ({"wns_ns": 0.0, "whs_ns": 0.1, "wpws_ns": 1.0}, True),
        ({"wns_ns": -0.001, "whs_ns": 0.1}, False),
        ({"wns_ns": 0.5, "whs_ns": -0.1}, False),
        ({"wns_ns": 0.5, "wpws_ns": -0.5}, False),
        ({"wns_ns": 0.5, "failing_endpoints": 1}, False),
    ],
)
def test_a_build_is_met_where_no_slack_is_negative(slacks: dict[str, float], met: bool | None) -> None:
    assert FpgaMetrics(**slacks).met is met
