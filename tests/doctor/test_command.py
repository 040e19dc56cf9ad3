"""Examinations that hang, fail, or can't begin."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from neuromodd.doctor.command import _Doctor
from neuromodd.doctor.findings import Finding
from neuromodd.loading import Loaded, load

FIRST = Finding(area="clock", name="date", verdict="ok", finding="it is late")


def read() -> Loaded:
    return load(None, {}, {"XDG_CONFIG_HOME": "/nonexistent"})


@pytest.fixture
def doctor() -> Iterator[_Doctor]:
    made = _Doctor(read)
    yield made
    made.close()


async def test_what_hangs_is_given_up_and_what_came_before_it_kept(
    doctor: _Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuromodd.doctor.command.AREA_S", 0.1)
    come_back = threading.Event()

    def hang() -> Iterator[Finding]:
        yield FIRST
        come_back.wait(60.0)

    found = await doctor._within("clock", hang)
    come_back.set()
    assert found[0] == FIRST
    assert (found[1].area, found[1].name, found[1].verdict) == ("clock", "deadline", "failure")


async def test_an_error_of_the_disk_ends_its_area_alone(doctor: _Doctor) -> None:
    def fail() -> Iterator[Finding]:
        yield FIRST
        raise OSError(5, "Input/output error", "/var/lib/neuromodd")

    found = await doctor._within("clock", fail)
    assert found[0] == FIRST
    assert found[1].finding.startswith("/var/lib/neuromodd: Input/output error")


async def test_a_broker_whose_examination_takes_too_long_is_given_up(
    doctor: _Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> object:
        yield FIRST
        await asyncio.Event().wait()

    monkeypatch.setattr("neuromodd.doctor.command.AREA_S", 0.1)
    monkeypatch.setattr("neuromodd.doctor.command.examine_broker", hang)
    presence = await doctor._presence(None)
    assert [of.name for of in await doctor._broker(presence)] == ["date", "deadline"]


async def test_a_user_without_a_home_is_told_to_name_a_directory(doctor: _Doctor) -> None:
    presence = await doctor._presence(None)
    found = list(doctor._state(None, presence))
    assert [(of.verdict, of.remedy) for of in found] == [("failure", "set checkpoint.directory")]
