"""The files around the image: what they name exists, and what they set are options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from neuromodd.config import resolve_broker
from neuromodd.loading import load

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config"


@pytest.fixture
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((CONFIG / "compose.yaml").read_text())["services"]
    return services


def test_what_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in shlex.split(line)[:-1]]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {path for line in lines if line.startswith("!") for path in ROOT.glob(line[1:])}
    assert sources
    assert [source for source in sources if ROOT / source not in kept] == []


def test_the_images_own_configuration_is_right_and_names_the_broker_of_compose(
    services: dict[str, Any],
) -> None:
    settings = load(CONFIG / "container.toml", environ={}).settings
    assert resolve_broker(settings).host in services


def test_what_compose_sets_are_options(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = dict(services["neuromodd"]["environment"])
    mounted = {volume.split(":")[1] for volume in services["neuromodd"]["volumes"]}
    roots = {name: value for name, value in environ.items() if name.endswith("FS_ROOT")}
    assert set(roots.values()) == {"/host/proc", "/host/sys"}
    assert set(roots.values()) < mounted
    # They are there in the container alone.
    monkeypatch.setattr("neuromodd.loading.SYSTEM_FILE", tmp_path / "none")
    loaded = load(environ={**environ, **dict.fromkeys(roots, str(tmp_path))})
    assert loaded.warnings == ()
    assert resolve_broker(loaded.settings).host in services


def test_compose_gives_no_service_more_than_it_needs(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service


def test_compose_publishes_what_asks_for_no_login_on_this_host_alone(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service["ports"]]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_files_that_compose_mounts_exist(services: dict[str, Any]) -> None:
    sources = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    files = [source for source in sources if source.startswith(".")]
    assert files
    assert [file for file in files if not (CONFIG / file).is_file()] == []


def test_the_reservation_of_a_gpu_is_of_a_service_that_compose_has(services: dict[str, Any]) -> None:
    override = yaml.safe_load((CONFIG / "compose.gpu.yaml").read_text())["services"]
    assert set(override) < set(services)
    device = override["neuromodd"]["deploy"]["resources"]["reservations"]["devices"][0]
    # `utility` is what brings NVML.
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu", "utility"])
