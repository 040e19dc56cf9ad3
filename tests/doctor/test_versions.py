"""Which versions are there, and which are needed."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from neuromodd.doctor.findings import Finding
from neuromodd.doctor.versions import (
    EXTRAS,
    Requirement,
    examine_versions,
    is_within,
    own_requirements,
    parse_requirements,
)

PROJECT = Path(__file__).parents[2] / "pyproject.toml"

LINES = [
    "numpy>=1.26",
    "aiomqtt<3,>=2.5",
    "amqtt<0.13,>=0.11.3; extra == 'broker'",
    "amqtt>=0; extra == 'all'",
]


def examine(requirements: Sequence[str] | None, **installed: str) -> dict[str, Finding]:
    found = examine_versions(
        "0.1.0", python="3.11.7", kernel="Linux", requirements=requirements, installed=installed.get
    )
    return {of.name: of for of in found}


def test_metadata_are_read_and_all_is_left_out_as_it_repeats_the_others() -> None:
    assert parse_requirements(LINES) == [
        Requirement("numpy", ">=1.26", None),
        Requirement("aiomqtt", "<3,>=2.5", None),
        Requirement("amqtt", "<0.13,>=0.11.3", "broker"),
    ]


@pytest.mark.parametrize(
    ("version", "bounds", "holds"),
    [
        ("2.5.1", "<3,>=2.5", True),
        ("2.4.9", "<3,>=2.5", False),
        ("3.0", "<3,>=2.5", False),
        ("2.10", ">=2.9", True),
        ("1.26", ">=1.26.0", True),
        ("1.26.0rc1", ">=1.26", True),
        ("2.3.1", "~=2.3", True),
        ("3.0", "~=2.3", False),
        ("1.0", "==1.0.0", True),
        ("1.1", "!=1.1", False),
        ("9", "", True),
        ("a version of nobody's", ">=1", False),
    ],
)
def test_a_version_is_within_its_bounds(version: str, bounds: str, holds: bool) -> None:
    assert is_within(version, bounds) is holds


def test_an_extra_that_is_missing_is_a_note_that_says_what_it_gives_and_how_to_get_it() -> None:
    extra = examine(LINES, numpy="2.0", aiomqtt="2.5")["extra broker"]
    assert (extra.verdict, extra.remedy) == ("note", "pip install 'neuromodd[broker]'")
    assert extra.finding == "not installed; it gives a broker inside the daemon, for a first try"


def test_an_extra_that_is_there_says_its_version() -> None:
    extra = examine(LINES, numpy="2.0", aiomqtt="2.5", amqtt="0.12.1")["extra broker"]
    assert extra.verdict == "ok"
    assert extra.finding.startswith("amqtt 0.12.1")


def test_an_extra_that_is_too_old_is_a_warning() -> None:
    extra = examine(LINES, numpy="2.0", aiomqtt="2.5", amqtt="0.10")["extra broker"]
    assert (extra.verdict, extra.remedy) == ("warning", "pip install --upgrade 'neuromodd[broker]'")


def test_of_an_extra_of_several_packages_the_missing_one_is_named() -> None:
    lines = ["starlette>=0.40; extra == 'web'", "uvicorn>=0.30; extra == 'web'"]
    assert examine(lines, uvicorn="0.54")["extra web"].finding.startswith("starlette not installed")


def test_a_package_that_is_too_old_is_a_failure() -> None:
    numpy = examine(LINES, numpy="1.20", aiomqtt="2.5")["numpy"]
    assert (numpy.verdict, numpy.finding) == ("failure", "1.20, and neuromodd needs >=1.26")
    assert numpy.remedy == "pip install 'numpy>=1.26'"


def test_without_metadata_only_that_is_said() -> None:
    assert list(examine(None)) == ["neuromodd", "python", "kernel", "packages"]


def test_of_every_extra_it_is_known_what_it_gives() -> None:
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"all"}


def test_the_packages_of_these_tests_are_those_that_are_needed() -> None:
    found = examine_versions("0.1.0", python="3.11.7", kernel="Linux", requirements=own_requirements())
    assert [of.name for of in found if of.verdict == "failure"] == []
