"""FPGA reports: what is read from them, and timing as stress."""

from __future__ import annotations

import pytest

from neuromodd.core.fpga import FpgaMetrics


@pytest.mark.parametrize(
    ("wns_ns", "stress"), [(None, None), (1.0, 0.0), (0.0, 0.0), (-2.5, 0.5), (-5.0, 1.0), (-1e300, 1.0)]
)
def test_fpga_stress_is_the_missing_slack_over_five_nanoseconds(
    wns_ns: float | None, stress: float | None
) -> None:
    assert FpgaMetrics(wns_ns=wns_ns).stress == stress
