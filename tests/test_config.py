from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from neuromodd.config import (
    NODE_PATTERN,
    BrokerAddress,
    CheckpointSettings,
    MqttSettings,
    Settings,
    TlsSettings,
    changed_options,
    options,
    resolve_broker,
)
from neuromodd.core.surprise import SurpriseParameters
from neuromodd.errors import ConfigurationError
from neuromodd.loading import load

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdDCCARmgAwIBAgIUVaAae0npLs8jNUPf7P9qCC12BTswCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDbGFiMCAXDTI2MTEyMjIzMDQxNFoYDzIxMjYxMDI5MjMwNDE0
WjAOMQwwCgYDVQQDDANsYWIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARtQAGf
XQogLC/HbEmZ6w8KYc7FVYHb2kJpluI9cKd4OV+UaQKIU9BzvkNkZJ/6E0rF8b5Z
3MupMSIpDFmROzd4o1MwUTAdBgNVHQ4EFgQUOyF+LfaDSwt+D48vkxdTwoCZKMYw
HwYDVR0jBBgwFoAUOyF+LfaDSwt+D48vkxdTwoCZKMYwDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNJADBGAiEA0RMJnizmJfIu/YgMxk6J6+munjouahNXUYOg
grlHu+4CIQDTjdpBI0PKQKF+xGts7cHHSBfmv0qzdlNp3cogkw8aYQ==
-----END CERTIFICATE-----
"""

CONFIG_FILE = Path(__file__).parents[1] / "config" / "neuromodd.toml"


def mqtt(**values: object) -> Settings:
    return Settings(mqtt=MqttSettings(**values))


@pytest.fixture
def no_amqtt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no broker can be embedded."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "amqtt" else found(name, *rest)
    )


# The broker


def test_a_broker_has_the_usual_port() -> None:
    assert resolve_broker(mqtt(host="broker")) == BrokerAddress("broker", 1883, embedded=False)


def test_a_broker_with_tls_has_the_usual_port_of_tls() -> None:
    assert resolve_broker(mqtt(host="broker", tls={"enabled": True})).port == 8883


def test_a_ca_file_means_tls(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(CERTIFICATE)
    assert resolve_broker(mqtt(host="broker", tls={"ca_file": ca_file})).port == 8883


def test_a_port_that_is_set_goes_before_the_usual_ones() -> None:
    assert resolve_broker(mqtt(host="broker", port=1001, tls={"enabled": True})).port == 1001


@pytest.mark.parametrize("embedded", ["auto", "true"])
def test_without_a_host_the_broker_is_embedded_on_loopback(embedded: str) -> None:
    assert resolve_broker(mqtt(embedded=embedded)) == BrokerAddress("127.0.0.1", 1883, embedded=True)


def test_the_port_of_the_embedded_broker_may_be_set() -> None:
    assert resolve_broker(mqtt(port=1001)).port == 1001


@pytest.mark.parametrize("embedded", ["auto", "true"])
@pytest.mark.usefixtures("no_amqtt")
def test_where_no_broker_can_be_embedded_both_remedies_are_named(embedded: str) -> None:
    with pytest.raises(ConfigurationError, match=r"mqtt\.host.*pip install 'neuromodd\[broker\]'"):
        resolve_broker(mqtt(embedded=embedded))


@pytest.mark.usefixtures("no_amqtt")
def test_a_broker_that_is_set_needs_none_embedded() -> None:
    assert resolve_broker(mqtt(host="broker")).host == "broker"


def test_neither_a_host_nor_an_embedded_broker_is_a_fault() -> None:
    with pytest.raises(ConfigurationError, match=r"mqtt\.host: got nothing, expected a broker"):
        resolve_broker(mqtt(embedded="false"))


# The password


def test_the_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes("pässword \r\nsecond line\n".encode())
    assert MqttSettings(password_file=tmp_path / "password").read_password() == "pässword "


def test_a_password_may_be_absent() -> None:
    assert MqttSettings().read_password() is None


# Directories


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Somebody other than root, with no directory given."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/lab")
    return monkeypatch


def test_a_state_directory_that_is_set_goes_before_that_of_systemd(as_user: pytest.MonkeyPatch) -> None:
    as_user.setenv("STATE_DIRECTORY", "/systemd")
    assert CheckpointSettings(directory=Path("/set")).state_directory() == Path("/set")


def test_the_state_directory_of_systemd_goes_before_that_of_root(as_user: pytest.MonkeyPatch) -> None:
    as_user.setenv("STATE_DIRECTORY", "/systemd")
    as_user.setattr(os, "geteuid", lambda: 0)
    assert CheckpointSettings().state_directory() == Path("/systemd")


def test_of_several_state_directories_of_systemd_the_first_is_taken(as_user: pytest.MonkeyPatch) -> None:
    as_user.setenv("STATE_DIRECTORY", "/a:/b")
    assert CheckpointSettings().state_directory() == Path("/a")


def test_root_keeps_its_state_in_var_lib(as_user: pytest.MonkeyPatch) -> None:
    as_user.setattr(os, "geteuid", lambda: 0)
    as_user.setenv("XDG_STATE_HOME", "/xdg")
    assert CheckpointSettings().state_directory() == Path("/var/lib/neuromodd")


def test_a_user_keeps_the_state_in_xdg_state_home(as_user: pytest.MonkeyPatch) -> None:
    as_user.setenv("XDG_STATE_HOME", "/xdg")
    assert CheckpointSettings().state_directory() == Path("/xdg/neuromodd")


@pytest.mark.usefixtures("as_user")
def test_without_xdg_state_home_the_state_is_below_the_home_directory() -> None:
    assert CheckpointSettings().state_directory() == Path("/home/lab/.local/state/neuromodd")


# Names


@pytest.mark.parametrize(
    ("hostname", "node"),
    [
        ("lab-7.example_net", "lab-7.example_net"),
        ("büro 7/a#b+c", "b_ro_7_a_b_c"),
        ("x" * 100, "x" * 64),
        ("", "localhost"),
        ("計算機", "___"),
        ("host\n", "host_"),
    ],
)
def test_the_node_is_the_hostname_as_far_as_topics_can_carry_it(
    hostname: str, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: hostname)
    assert Settings().node_name() == node
    assert NODE_PATTERN.match(node)


def test_a_node_that_is_set_goes_before_the_hostname(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    assert Settings(node="lab").node_name() == "lab"


def test_changed_options_are_named_with_their_sections() -> None:
    after = Settings(node="lab", mqtt=MqttSettings(tls=TlsSettings(enabled=True)))
    assert changed_options(Settings(), after) == ["node", "mqtt.tls.enabled"]


def test_a_change_of_the_password_is_a_change() -> None:
    assert changed_options(mqtt(password="one"), mqtt(password="other")) == ["mqtt.password"]  # noqa: S106


def test_every_option_has_a_description() -> None:
    assert [option.name for option in options() if not option.description] == []


# What is watched


def watched(text: str, **environ: str) -> tuple[str, ...]:
    return load(
        Path("/dev/null"), {"surprise.channels": text} if text else {}, environ
    ).settings.brain.surprise.channels


def test_what_is_watched_may_be_named_with_commas() -> None:
    assert watched("cpu, gpus.0.power_watts") == ("cpu", "gpus.0.power_watts")


def test_what_is_watched_may_come_from_the_environment() -> None:
    name = "thermal.board/CPU core 1.temperature_celsius"
    assert watched("", NEUROMODD_SURPRISE__CHANNELS=f'["cpu", "{name}"]') == ("cpu", name)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("cpux", "surprise.channels: got 'cpux', expected one of cpu, memory, "),
        ("cpux", "did you mean cpu? (from --surprise.channels)"),
        ("cpu,io,cpu", "expected each name once"),
        ("[]", "expected 1 to 64 names"),
        (
            "cpu,disk.writes,fans.speed_rpm",
            "surprise.channels: got 'disk.writes', expected disk.FIELD, FIELD one",
        ),
        (
            "cpu,disk.writes,fans.speed_rpm",
            "surprise.channels: got 'fans.speed_rpm', expected fans.<name>.FIELD",
        ),
    ],
)
def test_what_can_not_be_watched_is_refused_with_what_can(text: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        watched(text)
    assert fault in str(refused.value)


def test_the_brain_is_made_with_the_parameters_of_surprise_alone() -> None:
    assert type(Settings().brain.surprise) is SurpriseParameters
    assert Settings().brain.surprise == SurpriseParameters()


# The configuration file that ships


class Line(NamedTuple):
    """One line `name = value  # comment` of the shipped file, with the section that it stands in."""

    section: str
    unset: bool
    assignment: str
    comment: str

    @property
    def name(self) -> str:
        leaf = self.assignment.partition(" = ")[0]
        return f"{self.section}.{leaf}" if self.section else leaf

    @property
    def toml(self) -> str:
        return f"[{self.section}]\n{self.assignment}\n" if self.section else f"{self.assignment}\n"


def shipped_lines() -> list[Line]:
    found, section = [], ""
    for text in CONFIG_FILE.read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"\[([a-z_.]+)\]", text):
            section = header[1]
        elif entry := re.fullmatch(r"(#?)([a-z_0-9]+ = .*?) +# (.*)", text):
            found.append(Line(section, bool(entry[1]), entry[2], entry[3]))
        else:
            # Whatever else looks like an assignment would slip through the tests below.
            assert not text or re.match(r"#( |$)", text), text
    return found


def test_the_shipped_file_mentions_every_option_once_and_no_other() -> None:
    assert Counter(line.name for line in shipped_lines()) == Counter(option.name for option in options())


def test_the_shipped_file_is_the_defaults() -> None:
    assert load(CONFIG_FILE, environ={}).settings == Settings()


def test_the_shipped_file_comments_out_exactly_the_options_that_are_unset() -> None:
    unset = {option.name for option in options() if option.default is None}
    # Where the device tells its own clock, an explicit default would hide it.
    own = {"modulators.clock_nominal_hz"}
    assert {line.name for line in shipped_lines() if line.unset} == unset | own


@pytest.mark.parametrize("line", [line for line in shipped_lines() if line.unset], ids=lambda line: line.name)
def test_an_example_that_is_commented_out_is_valid(line: Line, tmp_path: Path) -> None:
    text = line.toml
    if line.name.endswith("_file"):
        certificate = trustme.CA().issue_cert("lab-7").private_key_and_cert_chain_pem
        (tmp_path / "there").write_bytes(certificate.bytes())
        text = f'[{line.section}]\n{line.assignment.partition(" = ")[0]} = "{tmp_path}/there"\n'
    file = tmp_path / "neuromodd.toml"
    file.write_text(text)
    # A password needs somebody who says it.
    overrides = {"mqtt.username": "lab"} if "password" in line.name else {}
    overrides |= {"mqtt.host": "broker.lan"} if "tls" in line.name else {}
    overrides |= {"mqtt.tls.cert_file": f"{tmp_path}/there"} if line.name.endswith("key_file") else {}
    section: Any = load(file, overrides, {}).settings
    for part in filter(None, line.section.split(".")):
        section = getattr(section, part)
    assert line.name.rpartition(".")[2] in section.model_fields_set


@pytest.mark.parametrize("line", shipped_lines(), ids=lambda line: line.name)
def test_the_shipped_file_explains_an_option_in_its_own_words(line: Line) -> None:
    described = {option.name: option.description for option in options()}
    assert line.comment == described[line.name]


@pytest.mark.parametrize("line", [line for line in shipped_lines() if line.name.endswith("_file")])
def test_an_example_of_a_file_is_a_text(line: Line) -> None:
    (value,) = tomllib.loads(line.assignment).values()
    assert isinstance(value, str)
