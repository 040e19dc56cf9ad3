"""Options that do not go together, and faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from neuromodd.doctor.configuration import examine_configuration, examine_refused, is_local
from neuromodd.doctor.findings import Finding
from neuromodd.errors import ConfigurationError
from neuromodd.loading import load


def examine(
    overrides: Mapping[str, str], installed: Callable[[str], bool] = lambda _: True
) -> dict[str, Finding]:
    loaded = load(None, overrides, {"XDG_CONFIG_HOME": "/nonexistent"})
    return {of.name: of for of in examine_configuration(loaded, installed=installed)}


def test_the_defaults_go_together() -> None:
    assert {of.verdict for of in examine({}).values()} <= {"ok", "note"}


@pytest.mark.parametrize(
    ("overrides", "name", "verdict"),
    [
        ({"mqtt.host": "broker.lan", "mqtt.username": "lab"}, "mqtt.tls", "warning"),
        ({"mqtt.host": "broker.lan", "mqtt.inbound.enabled": "true"}, "mqtt.inbound", "warning"),
        ({"mqtt.host": "b", "mqtt.username": "lab", "mqtt.password": "secret"}, "mqtt.password", "note"),
        ({"homeassistant.enabled": "true", "mqtt.publish.state": "off"}, "homeassistant", "warning"),
        ({"mqtt.buffer_telemetry": "true", "mqtt.publish.telemetry": "off"}, "mqtt.buffer_telemetry", "note"),
        ({"recorder.compress": "true"}, "recorder.compress", "note"),
        ({"web.enabled": "true", "web.host": "0.0.0.0"}, "web.host", "note"),  # noqa: S104 - that is the point
    ],
)
def test_options_that_do_not_go_together_are_told(overrides: dict[str, str], name: str, verdict: str) -> None:
    assert examine(overrides)[name].verdict == verdict


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({"mqtt.host": "127.0.0.1", "mqtt.username": "lab"}, "mqtt.tls"),
        ({"mqtt.host": "broker.lan", "mqtt.username": "lab", "mqtt.tls.enabled": "true"}, "mqtt.tls"),
        ({"mqtt.host": "broker.lan", "mqtt.username": "lab", "mqtt.inbound.enabled": "true"}, "mqtt.inbound"),
        ({"web.enabled": "true"}, "web.host"),
    ],
)
def test_options_that_go_together_are_not_told(overrides: dict[str, str], name: str) -> None:
    assert name not in examine(overrides)


@pytest.mark.parametrize(
    ("overrides", "name", "verdict"),
    [
        ({"recorder.enabled": "true", "recorder.compress": "true"}, "recorder.compress", "failure"),
        ({"web.enabled": "true"}, "web.enabled", "failure"),
        ({"engine.lif_neurons": "1000"}, "engine", "warning"),
    ],
)
def test_an_option_that_needs_an_extra_says_so(overrides: dict[str, str], name: str, verdict: str) -> None:
    found = examine(overrides, installed=lambda _: False)[name]
    assert found.verdict == verdict
    assert "pip install 'neuromodd[" in str(found.remedy)
    assert name not in examine(overrides)


def test_no_finding_shows_the_password() -> None:
    found = examine({"mqtt.host": "b", "mqtt.username": "lab", "mqtt.password": "hunter2"})
    assert not any("hunter2" in of.to_json() for of in found.values())


def refused(file: Path | None, overrides: Mapping[str, str], environ: Mapping[str, str]) -> list[Finding]:
    with pytest.raises(ConfigurationError) as caught:
        load(file, overrides, environ)
    return list(examine_refused(caught.value))


def test_each_fault_says_where_to_correct_it(tmp_path: Path) -> None:
    file = tmp_path / "neuromodd.toml"
    file.write_text("[tick]\ninterval_s = 0\n")
    found = refused(file, {"mqtt.keepalive_s": "0"}, {"NEUROMODD_MQTT__PORT": "x"})
    assert {of.name: of.remedy for of in found} == {
        "tick.interval_s": f"correct it in {file}",
        "mqtt.port": "correct the variable NEUROMODD_MQTT__PORT, or unset it",
        "mqtt.keepalive_s": "correct --mqtt.keepalive_s on the command line",
    }


def test_a_file_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    found = refused(tmp_path / "none.toml", {}, {})
    assert [of.verdict for of in found] == ["failure"]
    assert "--config" in str(found[0].remedy)


@pytest.mark.parametrize(
    ("host", "local"),
    [(None, True), ("localhost", True), ("::1", True), ("127.0.0.2", True), ("b.lan", False)],
)
def test_this_host_is_told_from_others(host: str | None, local: bool) -> None:
    assert is_local(host) is local
