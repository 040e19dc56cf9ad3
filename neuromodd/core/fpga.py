"""FpgaMetrics: what a bitstream build left over, from Vivado's reports."""

from __future__ import annotations

from neuromodd.core.record import Record, measured


class FpgaMetrics(Record):
    """Timing and area of an FPGA build, as Vivado reports them; a negative slack is time that is missing."""

    wns_ns: float | None = measured("report_timing_summary: worst setup slack", null="no path is constrained")
    tns_ns: float | None = measured("report_timing_summary: total negative setup slack, 0 or below")
    failing_endpoints: int | None = measured("report_timing_summary: endpoints that miss their setup", ge=0)
    whs_ns: float | None = measured("report_timing_summary: worst hold slack", null="no path is constrained")
    ths_ns: float | None = measured("report_timing_summary: total negative hold slack, 0 or below")
    lut_utilization_ratio: float | None = measured(
        "report_utilization: look-up tables in use, above 1 it does not fit",
        needs="fpga.utilization_report",
        ge=0.0,
    )
    tool_version: str | None = measured("the reports' header: Vivado's version")
    device: str | None = measured("the reports' header: the part")

    @property
    def stress(self) -> float | None:
        """fpga_stress = clip(-WNS / 5 ns, 0, 1); None without WNS."""
        return None if self.wns_ns is None else min(max(-self.wns_ns / 5.0, 0.0), 1.0)
