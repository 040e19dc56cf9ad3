"""Made-up machines for the doctor to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from machine_files import unpack

from neuromodd.config import HwmonSensorSettings, SensorSettings, Settings
from neuromodd.core.frame import TelemetryFrame
from neuromodd.doctor.sight import Sight
from neuromodd.doctor.surroundings import Surroundings
from neuromodd.sensors.base import SensorStatus

MakeSight = Callable[..., Sight]


@pytest.fixture
def see(tmp_path: Path) -> MakeSight:
    """Gives the sight of a tree with `proc`, `sys` and `dev`, written as in machine_files."""

    def make(
        tree: str = "",
        *,
        frame: TelemetryFrame | None = None,
        statuses: Mapping[str, SensorStatus] | None = None,
        container: str | None = None,
        machine: str | None = None,
        root: bool = False,
        disabled: tuple[str, ...] = (),
        core_rail: str | None = None,
    ) -> Sight:
        host = tmp_path / "host"
        for name in ("proc", "sys", "dev"):
            (host / name).mkdir(parents=True)
        if tree:
            unpack(tree, host)
        sensors = SensorSettings(
            procfs_root=host / "proc",
            sysfs_root=host / "sys",
            disabled=disabled,
            hwmon=HwmonSensorSettings(core_rail=core_rail),
        )
        return Sight(
            frame=TelemetryFrame() if frame is None else frame,
            statuses=statuses or {},
            settings=Settings(sensors=sensors),
            around=Surroundings(container=container, machine=machine, user="lab", root=root),
            devices=host / "dev",
        )

    return make
