from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from neuromodd.core.fpga import FpgaMetrics
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.fpga import SIZE_LIMIT_BYTES, FpgaSensor

REPORTS = Path(__file__).parents[1] / "data" / "fpga"
GOOD = (REPORTS / "zynqusp_2020.2_timing.rpt").read_text()
BETTER = GOOD.replace("     -1.872   -40913.117", "     -0.872   -40913.117")
TRUNCATED = GOOD[: GOOD.index("| Design Timing Summary")]


@pytest.fixture
def timing(tmp_path: Path) -> Path:
    path = tmp_path / "timing.rpt"
    path.write_text(GOOD)
    return path


@pytest.fixture
def utilization(tmp_path: Path) -> Path:
    return Path(shutil.copy(REPORTS / "zynqusp_2020.2_utilization.rpt", tmp_path / "utilization.rpt"))


@pytest.fixture
def sensor(timing: Path, utilization: Path) -> FpgaSensor:
    return FpgaSensor(timing_report=timing, utilization_report=utilization)


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The timing texts that were parsed; they are parsed all the same."""
    texts: list[str] = []
    parse = FpgaMetrics.parse

    def counting(timing_text: str, utilization_text: str | None = None) -> FpgaMetrics:
        texts.append(timing_text)
        return parse(timing_text, utilization_text)

    monkeypatch.setattr(FpgaMetrics, "parse", counting)
    return texts


def rewrite(path: Path, text: str) -> None:
    """Write in place, at another time: two quick writes may share one."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 1, before + 1))


def test_both_reports_are_read(sensor: FpgaSensor) -> None:
    metrics = sensor.read()
    assert (metrics.wns_ns, metrics.lut_utilization_ratio) == (-1.872, 0.75)


def test_an_unchanged_report_is_parsed_once(sensor: FpgaSensor, parses: list[str]) -> None:
    assert sensor.read() is sensor.read()
    assert len(parses) == 1


def test_a_change_within_the_resolution_of_the_clock_is_noticed_by_its_size(
    sensor: FpgaSensor, timing: Path
) -> None:
    sensor.read()
    before = timing.stat().st_mtime_ns
    timing.write_text(BETTER + "\n")
    os.utime(timing, ns=(before, before))
    assert sensor.read().wns_ns == -0.872


def test_a_change_of_the_same_size_is_noticed(sensor: FpgaSensor, timing: Path) -> None:
    assert len(BETTER) == len(GOOD)
    sensor.read()
    rewrite(timing, BETTER)
    assert sensor.read().wns_ns == -0.872


def test_a_replacement_of_the_same_size_and_time_is_noticed(sensor: FpgaSensor, timing: Path) -> None:
    sensor.read()
    other = timing.with_name("other.rpt")
    other.write_text(BETTER)
    os.utime(other, ns=(timing.stat().st_mtime_ns, timing.stat().st_mtime_ns))
    other.replace(timing)
    assert sensor.read().wns_ns == -0.872


def test_a_touched_report_is_parsed_again(sensor: FpgaSensor, timing: Path, parses: list[str]) -> None:
    sensor.read()
    rewrite(timing, GOOD)
    sensor.read()
    assert len(parses) == 2


def test_a_change_of_the_utilization_is_noticed(sensor: FpgaSensor, utilization: Path) -> None:
    sensor.read()
    rewrite(utilization, utilization.read_text().replace("205560", "137040"))
    assert sensor.read().lut_utilization_ratio == 0.5


def test_no_configured_report_means_absent() -> None:
    with pytest.raises(SensorAbsentError, match="configured"):
        FpgaSensor(timing_report=None, utilization_report=None).read()


@pytest.mark.parametrize("name", ["timing.rpt", "no/such/folder/timing.rpt", "file/timing.rpt"])
def test_a_timing_report_that_is_not_there_means_absent(tmp_path: Path, utilization: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SensorAbsentError, match=r"timing\.rpt: no such file"):
        FpgaSensor(timing_report=tmp_path / name, utilization_report=utilization).read()


def test_a_report_that_appears_is_read(sensor: FpgaSensor, timing: Path) -> None:
    timing.unlink()
    with pytest.raises(SensorAbsentError):
        sensor.read()
    timing.write_text(GOOD)
    assert sensor.read().wns_ns == -1.872


def test_a_report_that_vanishes_is_not_repeated(sensor: FpgaSensor, timing: Path) -> None:
    sensor.read()
    timing.unlink()
    with pytest.raises(SensorAbsentError):
        sensor.read()


def test_a_truncated_report_is_a_failure_after_a_good_one(sensor: FpgaSensor, timing: Path) -> None:
    sensor.read()
    rewrite(timing, TRUNCATED)
    with pytest.raises(SensorError, match=r"timing\.rpt: got .*, expected .*'Design Timing Summary'"):
        sensor.read()


def test_a_good_report_after_a_broken_one_is_read(sensor: FpgaSensor, timing: Path) -> None:
    rewrite(timing, TRUNCATED)
    with pytest.raises(SensorError):
        sensor.read()
    rewrite(timing, GOOD)
    assert sensor.read().wns_ns == -1.872


def test_an_unchanged_broken_report_fails_each_time_and_is_parsed_once(
    sensor: FpgaSensor, timing: Path, parses: list[str]
) -> None:
    rewrite(timing, "")
    errors = []
    for _ in range(3):
        with pytest.raises(SensorError) as caught:
            sensor.read()
        errors.append(caught.value)
    assert len(parses) == 1
    assert len({str(error) for error in errors}) == 1
    assert len({id(error) for error in errors}) == 3


def test_a_missing_utilization_leaves_the_timing(sensor: FpgaSensor, utilization: Path) -> None:
    utilization.unlink()
    metrics = sensor.read()
    assert (metrics.wns_ns, metrics.lut_utilization_ratio) == (-1.872, None)


def test_a_utilization_that_vanishes_is_not_repeated(sensor: FpgaSensor, utilization: Path) -> None:
    sensor.read()
    utilization.unlink()
    assert sensor.read().lut_utilization_ratio is None


def test_no_configured_utilization_leaves_the_timing(timing: Path) -> None:
    metrics = FpgaSensor(timing_report=timing, utilization_report=None).read()
    assert (metrics.wns_ns, metrics.lut_utilization_ratio) == (-1.872, None)


def test_a_broken_utilization_is_a_failure_that_names_its_file(sensor: FpgaSensor, utilization: Path) -> None:
    utilization.write_text("not a report")
    with pytest.raises(SensorError, match=r"utilization\.rpt: got 'not a report'"):
        sensor.read()


def test_swapped_paths_are_told_so(timing: Path, utilization: Path) -> None:
    with pytest.raises(SensorError, match=r"utilization\.rpt: .*swapped"):
        FpgaSensor(timing_report=utilization, utilization_report=timing).read()


@pytest.mark.parametrize("name", ["timing.rpt", "utilization.rpt"])
def test_a_fifo_is_refused_at_once(sensor: FpgaSensor, tmp_path: Path, name: str) -> None:
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(SensorError, match=rf"{name}: got prw.*, expected a regular file"):
        sensor.read()


def test_a_path_that_becomes_a_fifo_after_the_look_at_it_is_refused_too(
    sensor: FpgaSensor, timing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = timing.stat()
    timing.unlink()
    os.mkfifo(timing)
    monkeypatch.setattr(Path, "stat", lambda _: looked_at)
    with pytest.raises(SensorError, match="expected a regular file"):
        sensor.read()


@pytest.mark.parametrize("path", [Path("/dev/zero"), Path("/")])
def test_devices_and_folders_are_refused(path: Path) -> None:
    with pytest.raises(SensorError, match="expected a regular file"):
        FpgaSensor(timing_report=path, utilization_report=None).read()


def test_a_report_above_the_limit_is_refused_unread(sensor: FpgaSensor, timing: Path) -> None:
    os.truncate(timing, SIZE_LIMIT_BYTES + 1)
    with pytest.raises(SensorError, match=rf"timing\.rpt: got {SIZE_LIMIT_BYTES + 1} bytes, expected"):
        sensor.read()


def test_a_report_that_may_be_read_again_is_read(sensor: FpgaSensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, f"Permission denied {flags}", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(SensorError, match="Permission denied"):
            sensor.read()
    assert sensor.read().wns_ns == -1.872


def test_a_path_through_a_loop_of_links_is_a_failure(tmp_path: Path) -> None:
    loop = tmp_path / "loop.rpt"
    loop.symlink_to(loop)
    with pytest.raises(SensorError, match=r"loop\.rpt: "):
        FpgaSensor(timing_report=loop, utilization_report=None).read()


def test_bytes_that_are_not_utf8_do_no_harm(sensor: FpgaSensor, timing: Path) -> None:
    timing.write_bytes(b"\xff\xfe\n" + GOOD.encode())
    assert sensor.read().wns_ns == -1.872


def test_a_closed_sensor_reads_anew(sensor: FpgaSensor, parses: list[str]) -> None:
    sensor.read()
    sensor.close()
    sensor.read()
    assert len(parses) == 2


def test_reading_leaves_no_descriptor_open(sensor: FpgaSensor, timing: Path) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for text in (GOOD, TRUNCATED, BETTER):
        rewrite(timing, text)
        try:
            sensor.read()
        except SensorError:
            continue
    assert len(list(descriptors.iterdir())) == before
