"""Whether the clocks may be trusted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from neuromodd.doctor.clock import KernelClock, examine_clock, judge_date, judge_synchronisation
from neuromodd.doctor.surroundings import Surroundings

HOST = Surroundings(container=None, machine=None, user="lab", root=False)
KEPT, LEFT = KernelClock(synchronised=True, error_s=0.012), KernelClock(synchronised=False, error_s=16.0)


@pytest.mark.parametrize(
    ("year", "verdict"), [(1970, "failure"), (2026, "ok"), (2099, "ok"), (2106, "failure")]
)
def test_a_year_that_can_not_be_is_a_failure(year: int, verdict: str) -> None:
    assert judge_date(datetime(year, 2, 3, tzinfo=UTC)).verdict == verdict


def test_a_clock_that_the_kernel_knows_to_be_kept_right_says_how_far_it_is_off(tmp_path: Path) -> None:
    found = judge_synchronisation(KEPT, root=tmp_path, around=HOST)
    assert (found.verdict, found.finding) == ("ok", "by the kernel's account, within 12 ms")


def test_a_clock_that_nothing_keeps_right_is_a_warning(tmp_path: Path) -> None:
    found = judge_synchronisation(LEFT, root=tmp_path, around=HOST)
    assert found.verdict == "warning"
    assert found.remedy is not None
    assert found.remedy.startswith("systemctl enable --now systemd-timesyncd")


@pytest.mark.parametrize("mark", ["run/chrony/chronyd.pid", "run/systemd/timesync/synchronized"])
def test_who_keeps_it_right_may_show_where_the_kernel_does_not_know(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).parent.mkdir(parents=True)
    (tmp_path / mark).touch()
    assert judge_synchronisation(LEFT, root=tmp_path, around=HOST).verdict == "ok"


def test_in_a_container_it_is_the_hosts_clock(tmp_path: Path) -> None:
    found = judge_synchronisation(LEFT, root=tmp_path, around=HOST._replace(container="Docker"))
    assert found.remedy == "look on the host: timedatectl"


def test_where_the_kernel_does_not_tell_that_is_only_noted(tmp_path: Path) -> None:
    assert judge_synchronisation(None, root=tmp_path, around=HOST).verdict == "note"


def test_this_machines_clocks_can_be_looked_at() -> None:
    assert [of.name for of in examine_clock(Path("/"), HOST)] == ["date", "synchronised", "boot clock"]
