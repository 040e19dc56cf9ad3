from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.files import HeldFile, Rescan, read_integer, read_or_absent, read_word


def open_descriptors(path: Path) -> list[int]:
    """Numbers of this process's descriptors of `path`."""
    links = Path("/proc/self/fd").iterdir()
    # The listing's own descriptor is gone by the time that it is looked at.
    return [int(link.name) for link in links if link.is_symlink() and link.readlink() == path]


def test_a_second_read_sees_what_was_written_since_the_first(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("old")
    file = HeldFile(path)
    file.read()
    path.write_text("new value")
    assert file.read() == "new value"
    file.close()


def test_a_file_that_outgrows_the_buffer_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "stat"
    path.write_text("short")
    file = HeldFile(path)
    file.read()
    long_text = "cpu0 1 2 3 4\n" * 10_000
    path.write_text(long_text)
    assert [file.read(), file.read()] == [long_text, long_text]
    file.close()


def test_a_file_that_the_kernel_hands_out_by_pages_is_read_to_its_end() -> None:
    path = Path("/proc/self/maps")
    file = HeldFile(path)
    text = file.read()
    file.close()
    assert len(text) > 4096
    assert text.splitlines()[-1] == path.read_text().splitlines()[-1]


def test_a_file_that_was_missing_is_read_once_it_is_there(tmp_path: Path) -> None:
    file = HeldFile(tmp_path / "late")
    with pytest.raises(FileNotFoundError):
        file.read()
    (tmp_path / "late").write_text("here")
    assert file.read() == "here"
    file.close()


def test_a_failed_read_leaves_no_descriptor_open(tmp_path: Path) -> None:
    file = HeldFile(tmp_path)
    with pytest.raises(IsADirectoryError):
        file.read()
    assert open_descriptors(tmp_path) == []


def test_a_closed_file_holds_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("1")
    file = HeldFile(path)
    file.read()
    file.close()
    assert open_descriptors(path) == []


def test_child_processes_do_not_inherit_the_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("1")
    file = HeldFile(path)
    file.read()
    assert [os.get_inheritable(descriptor) for descriptor in open_descriptors(path)] == [False]
    file.close()


def test_bytes_that_are_not_utf8_do_not_fail_a_read(tmp_path: Path) -> None:
    path = tmp_path / "label"
    path.write_bytes(b"Temp \xb0C")
    file = HeldFile(path)
    assert file.read() == "Temp \ufffdC"
    file.close()


@pytest.mark.parametrize("text", ["", "<unknown>\n", "1.5\n"])
def test_an_attribute_without_an_integer_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scaling_cur_freq"
    path.write_text(text)
    file = HeldFile(path)
    with pytest.raises(ValueError, match="int"):
        file.read_integer()
    file.close()


def test_an_integer_may_be_negative(tmp_path: Path) -> None:
    (tmp_path / "in1_input").write_text("-12000\n")
    assert read_integer(tmp_path / "in1_input") == -12000


def test_an_attribute_that_is_not_there_reads_as_none(tmp_path: Path) -> None:
    assert (read_integer(tmp_path / "no"), read_word(tmp_path / "no")) == (None, None)


def test_a_missing_file_means_an_absent_sensor(tmp_path: Path) -> None:
    with pytest.raises(SensorAbsentError, match="no such file"):
        read_or_absent(HeldFile(tmp_path / "stat"))


def test_an_unreadable_file_is_a_failure_and_no_absence(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_or_absent(HeldFile(tmp_path))


class TestRescan:
    @pytest.fixture
    def rescan(self, now: list[float]) -> Rescan:
        return Rescan(lambda: now[0])

    def test_is_due_at_first(self, rescan: Rescan) -> None:
        assert rescan.due()

    @pytest.mark.parametrize(("later_s", "due"), [(0.0, False), (59.0, False), (60.0, True)])
    def test_is_due_every_minute(self, rescan: Rescan, now: list[float], later_s: float, due: bool) -> None:
        rescan.due()
        now[0] += later_s
        assert rescan.due() is due

    @pytest.mark.parametrize(
        ("code", "due"), [(errno.ENODEV, True), (errno.ENOENT, True), (errno.EIO, False)]
    )
    def test_comes_forward_only_when_a_device_vanished(
        self, rescan: Rescan, now: list[float], code: int, due: bool
    ) -> None:
        rescan.due()
        rescan.consider(OSError(code, "read"))
        now[0] += 5.0
        assert rescan.due() is due

    def test_is_not_due_at_once_after_a_loss(self, rescan: Rescan, now: list[float]) -> None:
        rescan.due()
        rescan.consider(OSError(errno.ENODEV, "read"))
        now[0] += 1.0
        assert not rescan.due()
