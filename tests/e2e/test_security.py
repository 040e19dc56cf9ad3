"""The shipped broker configuration with a real broker, and what the daemon says when it is not let in."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as paho
import pytest
from certificates import Authority
from harness import Daemon, Heard, Listener, Mosquitto, free_port, wait_for
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from neuromodd.config import options
from neuromodd.core.brain import Brain
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.messages import OFFLINE, TOPICS
from neuromodd.core.rewards import WorkAccepted
from neuromodd.mqtt import Backoff, Endpoint, Outgoing
from neuromodd.sinks import courier as courier_module
from neuromodd.sinks.courier import Courier
from neuromodd.sinks.outbox import Outbox
from neuromodd.sinks.publisher import DENIALS_S, Cadences, Publisher
from neuromodd.tls import Tls

StartDaemon = Callable[..., Daemon]
StartBroker = Callable[..., Mosquitto]
Listen = Callable[..., Listener]

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "mosquitto"
FAST = ("--tick.interval_s", "0.1", "--mqtt.health_interval_s", "1")
USERS = ("lab-7", "lab-8", "dashboard", "operator", "trainer-lab-7", "homeassistant", "author")
AUTHOR = "\nuser author\ntopic readwrite #\n"
"""One user more than shipped, who writes what the others are to read."""


# The shipped configuration


class Person:
    """A client of MQTT 5, with TLS if there is an authority; knows what the broker says to a message."""

    def __init__(
        self, port: int, authority: Path | None, user: str, *, certificate: Path | None = None
    ) -> None:
        self.user = user
        self.heard: list[Heard] = []
        self._codes: dict[int, Any] = {}
        self._granted = threading.Event()
        connected = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        if authority is not None:
            self._client.tls_set(str(authority), None if certificate is None else str(certificate))
        if user:
            self._client.username_pw_set(user, f"password of {user}")
        self._client.on_connect = lambda *of: None if of[3].is_failure else connected.set()
        self._client.on_message = self._hear
        self._client.on_publish = self._published
        self._client.on_subscribe = lambda *_: self._granted.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert connected.wait(10.0), f"{user or 'nobody'} was not let in"

    def listen(self, topic: str) -> None:
        self._granted.clear()
        self._client.subscribe(topic, qos=1)
        assert self._granted.wait(10.0)

    def write(
        self, topic: str, payload: bytes = b"{}", *, answer: str | None = None, retain: bool = False
    ) -> bool:
        """Publish; whether the broker let it pass."""
        properties = None
        if answer is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = answer
        number = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties).mid
        wait_for(lambda: number in self._codes, f"the broker's word on {topic}")
        return not self._codes[number].is_failure

    def wait(self, topic: str, accept: Callable[[Heard], bool] = lambda _: True) -> Heard:
        return wait_for(
            lambda: next((of for of in list(self.heard) if of.topic == topic and accept(of)), None), topic
        )

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.heard.append(
            Heard(time.monotonic(), message.topic, bytes(message.payload), message.retain, message.qos)
        )

    def _published(self, _client: object, _data: object, number: int, code: Any, _properties: object) -> None:
        self._codes[number] = code


class House:
    """The shipped files in a folder, as the README's steps put them on a host, and a broker on them."""

    def __init__(self, directory: Path, *, client_certificates: bool = False) -> None:
        self.directory = directory
        self.authority = Authority(directory, "clients")
        self.port, self.certificate_port = free_port(), free_port()
        for folder in ("certs", "ca_certificates", "var"):
            (directory / folder).mkdir()
        whole = self.authority.issue("broker.pem", "127.0.0.1").read_text()
        for name in ("broker.pem", "broker.key"):
            (directory / "certs" / name).write_text(whole)
        (directory / "ca_certificates" / "clients.pem").write_text(self.authority.file.read_text())
        (directory / "acl").write_text((SHIPPED / "acl").read_text() + AUTHOR)
        passwords = directory / "passwords"
        passwords.write_text("".join(f"{user}:password of {user}\n" for user in USERS))
        subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True, timeout=20)
        self.broker = Mosquitto(directory, self._lines(client_certificates))

    def _lines(self, client_certificates: bool) -> list[str]:
        text = (SHIPPED / "mosquitto.conf").read_text()
        if client_certificates:
            general, listener = text.split("#listener 8884\n")
            text = f"{general}listener 8884\n{listener.replace('#', '')}"
        for shipped, here in {
            "/etc/mosquitto/": f"{self.directory}/",
            "/var/lib/mosquitto/": f"{self.directory}/var/",
            "/var/log/mosquitto/": f"{self.directory}/",
            "/run/mosquitto/": f"{self.directory}/",
            "listener 8883\n": f"listener {self.port} 127.0.0.1\n",
            "listener 8884\n": f"listener {self.certificate_port} 127.0.0.1\n",
            "listener 1883 127.0.0.1\n": f"listener {free_port()} 127.0.0.1\n",
        }.items():
            assert shipped in text
            text = text.replace(shipped, here)
        return text.splitlines()

    def person(self, user: str, **how: Any) -> Person:
        return Person(self.port, self.authority.file, user, **how)

    def node_arguments(self, node: str) -> list[str]:
        secret = self.directory / f"password-{node}"
        secret.write_text(f"password of {node}\n")
        return [
            *("--node", node, "--mqtt.host", "127.0.0.1", "--mqtt.port", str(self.port)),
            *("--mqtt.username", node, "--mqtt.password_file", str(secret)),
            *("--mqtt.tls.ca_file", str(self.authority.file), "--log.format", "json"),
            *("--checkpoint.directory", str(self.directory / f"state-{node}")),
        ]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"), client_certificates=True)
    yield house
    house.broker.stop()


@pytest.fixture(scope="module")
def people(house: House) -> Iterator[Callable[[str], Person]]:
    """Everybody of the house, connected when first asked for."""
    there: dict[str, Person] = {}

    def person(user: str) -> Person:
        if user not in there:
            there[user] = house.person(user)
        return there[user]

    yield person
    for each in there.values():
        each.close()


People = Callable[[str], Person]
OWN = (*TOPICS, "response/a/b")
REQUESTS = ("in/reward", "in/work", "in/command")
HOME = "homeassistant/device/neuromodd_{}/config"


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        *(("lab-7", f"neuromodd/lab-7/{name}") for name in OWN),
        ("lab-7", HOME.format("lab-7")),
        ("operator", "neuromodd/lab-7/in/command"),
        ("operator", "neuromodd/lab-8/in/command"),
        ("trainer-lab-7", "neuromodd/lab-7/in/reward"),
        ("trainer-lab-7", "neuromodd/lab-7/in/work"),
        ("homeassistant", "homeassistant/status"),
    ],
)
def test_who_may_write_does(people: People, user: str, topic: str) -> None:
    assert people(user).write(topic)


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        *(("lab-7", f"neuromodd/lab-8/{name}") for name in (*OWN, *REQUESTS)),
        *(("lab-7", f"neuromodd/lab-7/{name}") for name in REQUESTS),
        ("lab-7", HOME.format("lab-8")),
        ("lab-7", "homeassistant/status"),
        ("lab-7", "homeassistant/sensor/lab-7/config"),
        ("lab-7", "elsewhere"),
        *(
            ("dashboard", f"neuromodd/{node}/{name}")
            for node in ("lab-7", "dashboard")
            for name in (*OWN, *REQUESTS)
        ),
        ("dashboard", HOME.format("dashboard")),
        ("dashboard", "elsewhere"),
        *(("operator", f"neuromodd/{node}/{name}") for node in ("lab-7", "operator") for name in OWN),
        ("operator", "neuromodd/lab-7/in/reward"),
        ("operator", "neuromodd/lab-7/in/work"),
        ("operator", HOME.format("operator")),
        ("trainer-lab-7", "neuromodd/lab-7/in/command"),
        ("trainer-lab-7", "neuromodd/lab-7/reward"),
        ("trainer-lab-7", "neuromodd/lab-8/in/reward"),
        ("trainer-lab-7", "neuromodd/lab-8/in/work"),
        *(("trainer-lab-7", f"neuromodd/trainer-lab-7/{name}") for name in OWN),
        ("trainer-lab-7", HOME.format("trainer-lab-7")),
        *(
            ("homeassistant", f"neuromodd/{node}/{name}")
            for node in ("lab-7", "homeassistant")
            for name in OWN
        ),
        *(("homeassistant", f"neuromodd/lab-7/{name}") for name in REQUESTS),
    ],
)
def test_who_may_not_write_is_refused(people: People, user: str, topic: str) -> None:
    assert not people(user).write(topic)


READABLE = [
    *(
        (user, f"neuromodd/lab-7/{name}")
        for user in ("dashboard", "operator", "homeassistant")
        for name in TOPICS
    ),
    *(("trainer-lab-7", f"neuromodd/lab-7/{name}") for name in TOPICS),
    *(("lab-7", f"neuromodd/lab-7/{name}") for name in ("status", "info", *REQUESTS)),
    ("lab-7", "homeassistant/status"),
    ("homeassistant", HOME.format("lab-7")),
    ("operator", "neuromodd/lab-7/response/operator/1"),
]
SECRET = [
    *(("lab-7", f"neuromodd/lab-8/{name}") for name in (*TOPICS, *REQUESTS)),
    ("lab-7", HOME.format("lab-8")),
    *(("dashboard", f"neuromodd/lab-7/{name}") for name in REQUESTS),
    ("dashboard", "neuromodd/lab-7/response/operator/1"),
    ("dashboard", HOME.format("lab-7")),
    ("operator", "neuromodd/lab-7/response/trainer-lab-7/1"),
    ("trainer-lab-7", "neuromodd/lab-8/state"),
    ("homeassistant", "neuromodd/lab-7/in/command"),
]


def reads(people: People, user: str, topic: str) -> bool:
    """Whether `user` gets what is published on `topic`."""
    reader, author = people(user), people("author")
    reader.heard.clear()
    end = f"neuromodd/any/response/{user}/end"
    reader.listen("#")
    author.write(topic)
    author.write(end)
    # The broker keeps the order of one publisher.
    reader.wait(end)
    return any(heard.topic == topic for heard in reader.heard)


@pytest.mark.parametrize(("user", "topic"), READABLE)
def test_who_may_read_hears(people: People, user: str, topic: str) -> None:
    assert reads(people, user, topic)


@pytest.mark.parametrize(("user", "topic"), SECRET)
def test_who_may_not_read_hears_nothing(people: People, user: str, topic: str) -> None:
    assert not reads(people, user, topic)


def test_the_broker_understands_every_line(house: House) -> None:
    # What it does not know ends its start. One pattern is for all nodes alike, which it finds odd.
    log = (house.directory / "mosquitto.log").read_text()
    assert "running" in log
    assert re.findall("(?:Warning|Error).*", log) == [
        "Warning: ACL pattern 'homeassistant/status' does not contain '%c' or '%u'."
    ]


@pytest.mark.parametrize("user", ["", "stranger", "lab-7"])
def test_nobody_comes_in_without_the_right_password(house: House, user: str) -> None:
    refused: list[Any] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.tls_set(str(house.authority.file))
    if user:
        client.username_pw_set(user, "guessed")
    client.on_connect = lambda *of: refused.append(of[3])
    client.connect("127.0.0.1", house.port)
    client.loop_start()
    try:
        assert wait_for(lambda: refused, "the broker's word")[0].is_failure
    finally:
        client.loop_stop()


def test_with_client_certificates_the_common_name_is_the_user(house: House) -> None:
    certificate = house.authority.issue("lab-8.pem", "lab-8", common_name="lab-8")
    # It may say what it likes: the broker believes the certificate.
    claims = Person(house.certificate_port, house.authority.file, "operator", certificate=certificate)
    allowed = [claims.write(f"neuromodd/{topic}") for topic in ("lab-8/status", "lab-7/in/command")]
    claims.close()
    assert allowed == [True, False]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the shipped script makes."""
    directory = tmp_path_factory.mktemp("made")
    script = SHIPPED / "certificates.sh"
    subprocess.run(
        ["sh", script, directory, "127.0.0.1", "lab-7"], check=True, capture_output=True, timeout=60
    )
    return directory


@pytest.mark.parametrize(("purpose", "name"), [("sslserver", "broker.pem"), ("sslclient", "lab-7.pem")])
def test_certificates_of_the_script_pass_the_strictest_look(made: Path, purpose: str, name: str) -> None:
    # Python 3.13 looks at certificates in this way.
    strict = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(made / "ca.pem")]
    subprocess.run([*strict, str(made / name)], check=True, capture_output=True, timeout=20)


def test_only_their_owner_reads_the_keys_of_the_script(made: Path) -> None:
    keys = list(made.glob("*.key"))
    assert len(keys) == 3
    assert {key.stat().st_mode & 0o077 for key in keys} == {0}


def test_a_daemon_connects_with_certificates_of_the_script(
    made: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon
) -> None:
    lines = [f"cafile {made}/ca.pem", f"certfile {made}/broker.pem", f"keyfile {made}/broker.key"]
    broker = start_mosquitto([*lines, "require_certificate true", "use_identity_as_username true"])
    own = ("--mqtt.tls.cert_file", str(made / "lab-7.pem"), "--mqtt.tls.key_file", str(made / "lab-7.key"))
    daemon = start_daemon("--mqtt.tls.ca_file", str(made / "ca.pem"), *own, port=broker.port)
    assert daemon.wait_log("mqtt_connected")


class Lived(NamedTuple):
    """A daemon in the house, and those who listen to it."""

    dashboard: Person
    operator: Person
    trainer: Person
    home: Person


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    house = House(tmp_path_factory.mktemp("lived"))
    names = ("dashboard", "operator", "trainer-lab-7", "homeassistant")
    lived = Lived(*(house.person(name) for name in names))
    for person in lived:
        person.listen("#")
    arguments = [*house.node_arguments("lab-7"), *FAST, "--mqtt.publish.spikes", "every 1"]
    daemon = Daemon([*arguments, "--mqtt.inbound.enabled", "true", "--homeassistant.enabled", "true"], {})
    try:
        daemon.wait_log("mqtt_connected")
        yield lived
    finally:
        daemon.close()
        for person in lived:
            person.close()
        house.broker.stop()


# A reward is below, and an anomaly takes more than a moment.
@pytest.mark.parametrize("name", [name for name in TOPICS if name not in {"reward", "anomaly"}])
def test_all_that_a_node_publishes_arrives_at_the_dashboard(lived: Lived, name: str) -> None:
    assert lived.dashboard.wait(f"neuromodd/lab-7/{name}")


def test_a_trainer_rewards_and_the_dashboard_hears_of_it(lived: Lived) -> None:
    lived.trainer.write("neuromodd/lab-7/in/reward", b'{"kind": "WorkAccepted", "source": "trainer"}')
    heard = lived.dashboard.wait("neuromodd/lab-7/reward", lambda heard: heard.json["source"] == "trainer")
    assert heard.json["origin"] == "external"


def test_a_trainer_reports_work(lived: Lived) -> None:
    lived.trainer.write("neuromodd/lab-7/in/work", b'{"rate": 3.5, "source": "trainer"}')
    heard = lived.dashboard.wait("neuromodd/lab-7/telemetry", lambda of: b'"source":"trainer"' in of.payload)
    assert heard.json["work"]["rate"] == 3.5


def test_an_operator_commands_and_reads_the_answer(lived: Lived) -> None:
    answer = "neuromodd/lab-7/response/operator/1"
    lived.operator.write("neuromodd/lab-7/in/command", b'{"command": "identify"}', answer=answer)
    assert lived.operator.wait(answer).json["ok"]


def test_home_assistant_gets_the_document_of_the_node(lived: Lived) -> None:
    assert "dev" in lived.home.wait(HOME.format("lab-7")).json


def test_home_assistant_gets_the_document_again_when_it_starts(lived: Lived) -> None:
    lived.home.wait(HOME.format("lab-7"))
    lived.home.heard.clear()
    lived.home.write("homeassistant/status", b"online")
    assert lived.home.wait(HOME.format("lab-7"))


def test_a_node_that_may_all_that_it_needs_has_no_trouble(lived: Lived) -> None:
    health = lived.dashboard.wait("neuromodd/lab-7/health", lambda heard: heard.json["mqtt"]["connected"])
    assert health.json["mqtt"]["error"] is None


def test_a_reward_waits_for_its_node_through_a_restart_of_the_broker(tmp_path: Path) -> None:
    house = House(tmp_path)
    arguments = [*house.node_arguments("lab-7"), *FAST, "--mqtt.inbound.enabled", "true"]
    first = Daemon(arguments, {})
    first.wait_log("mqtt_connected")
    first.end()
    trainer = house.person("trainer-lab-7")
    assert trainer.write("neuromodd/lab-7/in/reward", b'{"kind": "WorkAccepted", "source": "night"}')
    trainer.close()
    first.close()
    house.broker.stop()
    house.broker.start()
    dashboard = house.person("dashboard")
    dashboard.listen("#")
    second = Daemon(arguments, {})
    try:
        assert dashboard.wait("neuromodd/lab-7/reward").json["source"] == "night"
    finally:
        second.close()
        dashboard.close()
        house.broker.stop()


# What the daemon says when it is not let in

ATTEMPTS = 4


def log_lines(directory: Path) -> list[str]:
    return ["log_type all", "connection_messages true", f"log_dest file {directory / 'broker.log'}"]


def attempts(directory: Path) -> int:
    # Mosquitto words it in two ways; the first is the harness's own look.
    return len(re.findall("connection from", (directory / "broker.log").read_text(errors="replace"))) - 1


def warnings(daemon: Daemon) -> list[dict[str, Any]]:
    """All warnings, whoever made them."""
    return [entry for entry in daemon.events if entry["level"] not in ("debug", "info")]


class Scene:
    """A folder with an authority, certificates under the names that everybody uses, and a broker's log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.stranger = Authority(directory, "stranger")
        self.trusted = directory / "trusted.pem"
        self.trusted.write_text(self.authority.file.read_text())
        self.own = directory / "own.pem"
        self.broker_file = self.authority.issue("broker.pem", "127.0.0.1")
        self.broker: Mosquitto | None = None

    def start(self, *lines: str) -> Mosquitto:
        self.broker = Mosquitto(self.directory, ["allow_anonymous true", *log_lines(self.directory), *lines])
        return self.broker

    def certificates(self, *, required: bool = False) -> list[str]:
        tls = [f"certfile {self.broker_file}", f"keyfile {self.broker_file}"]
        return [*tls, f"cafile {self.authority.file}", *(["require_certificate true"] if required else [])]

    def health(self, *, tls: bool = False, client: bool = False) -> Any:
        """The daemon's own account, as it is published."""
        assert self.broker is not None
        trusted, own = self.trusted if tls else None, self.own if client else None
        listener = Person(self.broker.port, trusted, "listener", certificate=own)
        listener.listen("#")
        try:
            return listener.wait("neuromodd/lab/health").json
        finally:
            listener.close()

    def restart(self, old: str = "", new: str = "") -> None:
        assert self.broker is not None
        self.broker.stop()
        config = self.broker._config
        config.write_text(config.read_text().replace(old, new))
        self.broker.start()


class Trouble(NamedTuple):
    """Something that is wrong between daemon and broker.

    Attributes:
        arrange: makes it so; lines of the broker's configuration.
        tls: whether the daemon speaks TLS.
        client: whether it shows a certificate.
        says: what its log tells.
        remedy: puts it right, while the daemon runs.
    """

    arrange: Callable[[Scene], Sequence[str]]
    says: str
    remedy: Callable[[Scene], object]
    tls: bool = True
    client: bool = False


def with_client(scene: Scene, issue: Callable[[], Path]) -> Sequence[str]:
    issue()
    return scene.certificates(required=True)


def with_broker(scene: Scene, issue: Callable[[], Path]) -> Sequence[str]:
    issue()
    return scene.certificates()


def right_client(scene: Scene) -> None:
    scene.authority.issue("own.pem", "lab")


def right_broker(scene: Scene) -> None:
    scene.authority.issue("broker.pem", "127.0.0.1")
    scene.restart()


def without_tls(scene: Scene) -> None:
    scene.restart("\n".join(scene.certificates()), "")


def with_tls(scene: Scene) -> None:
    scene.restart("allow_anonymous true", "\n".join(["allow_anonymous true", *scene.certificates()]))


TROUBLES = {
    "a client certificate is required and none is given": Trouble(
        lambda scene: scene.certificates(required=True),
        "certificate required",
        lambda scene: scene.restart("require_certificate true", "require_certificate false"),
    ),
    "the client certificate is of another authority": Trouble(
        lambda scene: with_client(scene, lambda: scene.stranger.issue("own.pem", "lab")),
        "does not accept our certificate: unknown ca",
        right_client,
        client=True,
    ),
    "the client certificate has expired": Trouble(
        lambda scene: with_client(scene, lambda: scene.authority.issue("own.pem", "lab", expired=True)),
        "does not accept our certificate: certificate expired",
        right_client,
        client=True,
    ),
    "the broker's certificate is of another authority": Trouble(
        lambda scene: with_broker(scene, lambda: scene.stranger.issue("broker.pem", "127.0.0.1")),
        "the broker's certificate is not accepted: unable to get local issuer certificate",
        lambda scene: scene.trusted.write_text(scene.stranger.file.read_text()),
    ),
    "the broker's certificate has expired": Trouble(
        lambda scene: with_broker(
            scene, lambda: scene.authority.issue("broker.pem", "127.0.0.1", expired=True)
        ),
        "the broker's certificate is not accepted: certificate has expired",
        right_broker,
    ),
    "the broker's certificate is for another host": Trouble(
        lambda scene: with_broker(scene, lambda: scene.authority.issue("broker.pem", "elsewhere.lan")),
        "the broker's certificate is not accepted: IP address mismatch",
        right_broker,
    ),
    "TLS is spoken to a plain port": Trouble(lambda _: [], "is it no TLS port?", with_tls),
    "a plain connection is made to a TLS port": Trouble(
        lambda scene: scene.certificates(), "is it a TLS port?", without_tls, tls=False
    ),
}


class Told(NamedTuple):
    """What came of a trouble."""

    trouble: Trouble
    broker: str
    warnings: list[dict[str, Any]]
    lines: list[str]
    health: dict[str, Any]


@pytest.fixture(scope="module", params=TROUBLES)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    trouble = TROUBLES[request.param]
    scene = Scene(tmp_path_factory.mktemp("trouble"))
    broker = scene.start(*trouble.arrange(scene))
    arguments = ["--node", "lab", "--mqtt.host", "127.0.0.1", "--mqtt.port", str(broker.port), *FAST]
    arguments += ["--checkpoint.directory", str(scene.directory / "state"), "--log.format", "json"]
    arguments += ["--mqtt.tls.ca_file", str(scene.trusted)] if trouble.tls else []
    arguments += ["--mqtt.tls.cert_file", str(scene.own)] if trouble.client else []
    daemon = Daemon(arguments, {})
    try:
        wait_for(lambda: attempts(scene.directory) >= ATTEMPTS, f"{ATTEMPTS} attempts")
        said, lines = warnings(daemon), list(daemon.lines)
        trouble.remedy(scene)
        daemon.wait_log("mqtt_connected")
        health = scene.health(tls=trouble.tls, client=trouble.client)
        yield Told(trouble, f"127.0.0.1:{broker.port}", said, lines, health)
    finally:
        daemon.close()
        broker.stop()


def test_a_trouble_is_one_warning_over_many_attempts(told: Told) -> None:
    assert [entry["event"] for entry in told.warnings] == ["mqtt_unavailable"]


def test_a_trouble_is_one_line_of_any_level(told: Told) -> None:
    events = [json.loads(line)["event"] for line in told.lines]
    assert [event for event in events if event.startswith(("mqtt", "library"))] == ["mqtt_unavailable"]


def test_the_warning_names_the_broker(told: Told) -> None:
    assert told.warnings[0]["broker"] == told.broker


def test_the_warning_says_what_is_wrong(told: Told) -> None:
    assert told.trouble.says in told.warnings[0]["error"]


def test_the_warning_is_in_words_and_not_in_numbers_of_a_library(told: Told) -> None:
    assert not re.search(r"\[|_ssl|sslv3|tlsv1|Errno|Error", told.warnings[0]["error"])


def test_after_the_remedy_the_daemon_connects_without_a_restart_and_has_no_error(told: Told) -> None:
    mqtt = told.health["mqtt"]
    assert (mqtt["connected"], mqtt["connections"], mqtt["error"]) == (True, 1, None)


def test_a_certificate_file_that_vanished_is_named_in_one_warning(
    tmp_path: Path, start_daemon: StartDaemon
) -> None:
    scene = Scene(tmp_path)
    right_client(scene)
    broker = scene.start(*scene.certificates(required=True))
    files = ("--mqtt.tls.ca_file", str(scene.trusted), "--mqtt.tls.cert_file", str(scene.own))
    daemon = start_daemon(*FAST, *files, port=broker.port)
    daemon.wait_log("mqtt_connected")
    scene.own.unlink()
    scene.restart()
    wait_for(lambda: [of for of in warnings(daemon) if str(scene.own) in of.get("error", "")], "a warning")
    right_client(scene)
    daemon.wait_log("mqtt_connected", count=2)
    broker.stop()
    named = [of["error"] for of in warnings(daemon) if str(scene.own) in of.get("error", "")]
    assert named == [f"{scene.own}: No such file or directory"]


# Names and passwords


def guarded(directory: Path, password: str) -> list[str]:
    """Lines of a broker that lets in `lab` with a password, and a listener besides."""
    file = directory / "passwords"
    file.write_text(f"lab:{password}\nlistener:password of listener\n")
    subprocess.run(["mosquitto_passwd", "-U", str(file)], check=True, timeout=20)
    return [*log_lines(directory), "allow_anonymous false", f"password_file {file}"]


LOGINS = {
    "a wrong password": ("--mqtt.username", "lab", "--mqtt.password", "wrong"),
    "no password": ("--mqtt.username", "lab"),
}


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("login", LOGINS)
def test_a_refused_login_is_one_warning_that_names_the_user(
    tmp_path: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon, login: str, version: str
) -> None:
    broker = start_mosquitto(guarded(tmp_path, "right"))
    daemon = start_daemon(*FAST, *LOGINS[login], "--mqtt.protocol", version, port=broker.port)
    daemon.wait_log("mqtt_unavailable")
    daemon.end()
    told = [(entry["event"], entry["broker"], entry["error"]) for entry in warnings(daemon)]
    address = f"127.0.0.1:{broker.port}"
    assert told == [("mqtt_unavailable", address, "the broker refused the login of lab: not authorized")]


def test_a_login_without_a_name_is_refused_in_one_warning_that_says_so(
    tmp_path: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(*FAST, port=start_mosquitto(guarded(tmp_path, "right")).port)
    daemon.wait_log("mqtt_unavailable")
    daemon.end()
    assert ["no mqtt.username" in entry["error"] for entry in warnings(daemon)] == [True]


class Impatient(Backoff):
    """Tries again at once, and counts."""

    def __init__(self) -> None:
        super().__init__(random.Random(0))  # noqa: S311 - jitter, no secret
        self.times = 0

    def delay_s(self, _now_s: float, *, refused_login: bool = False) -> float:  # noqa: ARG002
        self.times += 1
        return 0.02


class Run:
    """A publisher that runs, with its outbox."""

    def __init__(self, directory: Path, port: int, **endpoint: Any) -> None:
        self.backoff = Impatient()
        outbox = Outbox(
            directory / "outbox.sqlite",
            max_events=100,
            max_bytes=65_536,
            max_age_s=3600.0,
            boot="boot-a",
            clock=time.monotonic,
        )
        self.publisher = Publisher(
            endpoint=Endpoint(
                host="127.0.0.1",
                port=port,
                identifier="neuromodd-lab",
                will=Outgoing("neuromodd/lab/status", OFFLINE, 1, retain=True),
                **endpoint,
            ),
            prefix="neuromodd",
            node="lab",
            courier=Courier(outbox, rate_per_s=100.0, clock=time.monotonic),
            cadences=Cadences(),
            expiry_s={},
            announce=list,
            identity=lambda _: None,
            backoff=self.backoff,
            clock=time.monotonic,
        )
        self._task = asyncio.create_task(self.publisher.run())
        self._brain = Brain()

    def reward(self, source: str) -> None:
        self._brain.take(WorkAccepted(source=source))
        frame = TelemetryFrame(
            node="lab",
            sequence=self._brain.sequence,
            time_utc=datetime.now(UTC),
            monotonic_s=1.0,
            boot_id="boot-a",
        )
        self.publisher.offer(self._brain.step(frame))

    async def end(self) -> None:
        await self.publisher.stop()
        self._task.cancel()
        await asyncio.wait((self._task,))


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Callable[..., Run]]:
    started: list[Run] = []

    def start(port: int, **endpoint: Any) -> Run:
        started.append(Run(tmp_path, port, **endpoint))
        return started[-1]

    yield start
    for each in started:
        await each.end()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - it waits for a broker's doing
            await asyncio.sleep(0.01)


async def test_while_the_login_is_refused_health_says_so(
    tmp_path: Path, start_mosquitto: StartBroker, run: Callable[..., Run]
) -> None:
    refused = run(start_mosquitto(guarded(tmp_path, "right")).port, username="lab", password="wrong")  # noqa: S106
    await until(lambda: refused.backoff.times >= ATTEMPTS)
    health = refused.publisher.health
    assert (health.connected, health.error) == (False, "the broker refused the login of lab: not authorized")


async def test_a_login_that_is_refused_again_and_again_is_warned_of_once(
    tmp_path: Path, start_mosquitto: StartBroker, run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    refused = run(start_mosquitto(guarded(tmp_path, "right")).port, username="lab", password="wrong")  # noqa: S106
    await until(lambda: refused.backoff.times >= ATTEMPTS)
    assert capsys.readouterr().out.count("mqtt_unavailable") == 1


async def test_while_the_broker_is_not_trusted_health_says_so(
    tmp_path: Path, run: Callable[..., Run]
) -> None:
    scene = Scene(tmp_path)
    broker = scene.start(*scene.certificates())
    refused = run(broker.port, tls=Tls(ca_file=scene.stranger.file))
    await until(lambda: refused.backoff.times >= ATTEMPTS)
    broker.stop()
    health = refused.publisher.health
    assert not health.connected
    assert "the broker's certificate is not accepted" in str(health.error)


async def test_handshakes_that_fail_leave_no_socket_open(tmp_path: Path, run: Callable[..., Run]) -> None:
    scene = Scene(tmp_path)
    broker = scene.start(*scene.certificates())
    gc.collect()
    gc.disable()
    try:
        before = open_files()
        refused = run(broker.port, tls=Tls(ca_file=scene.stranger.file))
        await until(lambda: refused.backoff.times >= 20)
        # The publisher's own: its outbox, and the attempt that goes on.
        assert open_files() - before < 10
    finally:
        gc.enable()
        broker.stop()


# Topics that are denied


class Denied:
    """A broker with an ACL that may change."""

    def __init__(self, directory: Path, start: StartBroker, acl: str) -> None:
        self._file = directory / "acl"
        self._file.write_text(acl)
        lines = [*log_lines(directory), "allow_anonymous true", f"acl_file {self._file}"]
        self.broker: Mosquitto = start(lines)

    def permit(self) -> None:
        """All of it, from now on, while the connections stand."""
        self._file.write_text("topic readwrite #\n")
        process = self.broker._process
        assert process is not None
        process.send_signal(signal.SIGHUP)


NOTHING = "user nobody\ntopic read nothing\n"
NO_REWARD = "topic readwrite #\ntopic deny neuromodd/lab/reward\n"


def test_what_an_acl_denies_is_warned_of_once_over_many_connections(
    tmp_path: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon, listen: Listen
) -> None:
    denied = Denied(tmp_path, start_mosquitto, "topic readwrite neuromodd/lab/health\n")
    listener = listen(denied.broker.port)
    daemon = start_daemon(*FAST, port=denied.broker.port)

    def settled(times: int) -> Callable[[Heard], bool]:
        """Whether the connection of that number has stood for long enough to complain."""
        began = listener.wait("health", lambda heard: heard.json["mqtt"]["connections"] == times)
        return lambda heard: (
            heard.json["mqtt"]["connections"] == times and heard.at_s - began.at_s > 1.5 * DENIALS_S
        )

    for times in (1, 2, 3):
        listener.wait("health", settled(times))
        denied.broker.stop()
        denied.broker.start()
    # A topic that is published later than the rest (the fault goes by way of the disk) may have its own line.
    told = "; ".join(entry["error"] for entry in warnings(daemon) if entry["event"] == "mqtt_denied")
    topics = re.findall(r"neuromodd/lab/(\S+): the broker refused", told)
    assert {"status", "info", "fault"} <= set(topics)
    assert len(topics) == len(set(topics))


def test_the_warning_about_a_denial_names_broker_and_topics(
    tmp_path: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon
) -> None:
    denied = Denied(tmp_path, start_mosquitto, NOTHING)
    told = start_daemon(*FAST, port=denied.broker.port).wait_log("mqtt_denied")
    assert told["broker"] == f"127.0.0.1:{denied.broker.port}"
    for name in ("status", "info", "fault"):
        assert f"neuromodd/lab/{name}: the broker refused it: not authorized" in told["error"]


def test_a_denied_topic_is_named_in_health_and_the_rest_goes_on(
    tmp_path: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon, listen: Listen
) -> None:
    denied = Denied(tmp_path, start_mosquitto, NO_REWARD)
    listener = listen(denied.broker.port)
    start_daemon(*FAST, "--mqtt.inbound.enabled", "true", port=denied.broker.port)
    listener.wait("telemetry")
    listener._client.publish("neuromodd/lab/in/reward", b'{"kind": "WorkAccepted", "source": "kept"}', 1)
    health = listener.wait("health", lambda heard: heard.json["mqtt"]["error"] is not None).json["mqtt"]
    assert health["error"] == "neuromodd/lab/reward: the broker refused it: not authorized"
    assert health["waiting_events"] >= 1
    assert listener.wait("telemetry", count=len(listener.named("telemetry")) + 5)


async def test_a_denied_reward_waits_and_arrives_when_the_acl_permits_it(
    tmp_path: Path,
    start_mosquitto: StartBroker,
    run: Callable[..., Run],
    listen: Listen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courier_module, "DENIED_S", 0.1)
    denied = Denied(tmp_path, start_mosquitto, NO_REWARD)
    listener = listen(denied.broker.port)
    running = run(denied.broker.port)
    await until(lambda: running.publisher.connected)
    running.reward("kept")
    await until(lambda: running.publisher.health.error)
    denied.permit()
    await until(lambda: listener.named("reward"))
    assert listener.named("reward")[0].json["source"] == "kept"


async def test_when_the_acl_permits_it_health_has_no_error_any_more(
    tmp_path: Path, start_mosquitto: StartBroker, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "DENIED_S", 0.1)
    denied = Denied(tmp_path, start_mosquitto, NO_REWARD)
    running = run(denied.broker.port)
    await until(lambda: running.publisher.connected)
    running.reward("kept")
    await until(lambda: running.publisher.health.error)
    denied.permit()
    await until(lambda: not running.publisher.health.waiting_events)
    assert running.publisher.health.error is None


def test_response_topics_that_are_denied_are_one_warning_and_one_error(
    tmp_path: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon
) -> None:
    acl = "topic readwrite neuromodd/#\ntopic deny neuromodd/lab/response/#\n"
    denied = Denied(tmp_path, start_mosquitto, acl)
    daemon = start_daemon(*FAST, "--mqtt.inbound.enabled", "true", port=denied.broker.port)
    daemon.wait_log("mqtt_connected")
    asking = Person(denied.broker.port, None, "")
    asking.listen("neuromodd/lab/#")
    for number in range(20):
        answer = f"neuromodd/lab/response/{number}"
        asking.write("neuromodd/lab/in/command", b'{"command": "identify"}', answer=answer)
    daemon.wait_log("mqtt_denied")
    health = asking.wait(
        "neuromodd/lab/health",
        lambda of: of.json["mqtt"]["inbound"]["taken"] == 20 and of.json["mqtt"]["error"],
    )
    asking.close()
    assert health.json["mqtt"]["error"].count("refused") == 1
    assert len(daemon.logged("mqtt_denied")) == 1


PLUGIN = Path("/usr/lib") / f"{os.uname().machine}-linux-gnu" / "mosquitto_dynamic_security.so"


def refusing_subscriptions(directory: Path) -> list[str]:
    """An acl_file grants every subscription; mosquitto's own plugin refuses those to in/#."""
    rule = {"acltype": "subscribePattern", "topic": "neuromodd/lab/in/#", "priority": 1, "allow": False}
    access = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
    file = directory / "security.json"
    rules = {
        "defaultACLAccess": dict.fromkeys(access, True),
        "clients": [],
        "groups": [{"groupname": "all", "roles": [{"rolename": "deaf"}], "clients": []}],
        "roles": [{"rolename": "deaf", "acls": [rule]}],
        "anonymousGroup": "all",
    }
    file.write_text(json.dumps(rules))
    return [
        *log_lines(directory),
        "allow_anonymous true",
        f"plugin {PLUGIN}",
        f"plugin_opt_config_file {file}",
    ]


def test_a_refused_subscription_is_one_warning_and_in_health(
    tmp_path: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon, listen: Listen
) -> None:
    broker = start_mosquitto(refusing_subscriptions(tmp_path))
    listener = listen(broker.port)
    daemon = start_daemon(*FAST, "--mqtt.inbound.enabled", "true", port=broker.port)
    daemon.wait_log("mqtt_denied")
    error = listener.wait("health", lambda heard: heard.json["mqtt"]["error"] is not None).json["mqtt"][
        "error"
    ]
    told = warnings(daemon)
    assert [(entry["event"], entry["error"]) for entry in told] == [("mqtt_denied", error)]
    assert [f"neuromodd/lab/{name}: the broker refused the subscription" in error for name in REQUESTS] == [
        True
    ] * 3


# Where the password goes

SECRET_WORD = "correct-horse-battery"  # noqa: S105 - the tests'


def from_environment(_: Path) -> tuple[Mapping[str, str], Sequence[str]]:
    return {"NEUROMODD_MQTT__PASSWORD": SECRET_WORD}, ()


def from_file(directory: Path) -> tuple[Mapping[str, str], Sequence[str]]:
    file = directory / "secret"
    file.write_text(f"{SECRET_WORD}\n")
    return {}, ("--mqtt.password_file", str(file))


def from_credential(directory: Path) -> tuple[Mapping[str, str], Sequence[str]]:
    (directory / "credentials").mkdir()
    (directory / "credentials" / "mqtt-password").write_text(f"{SECRET_WORD}\n")
    return {"CREDENTIALS_DIRECTORY": str(directory / "credentials")}, ()


SOURCES = {"settings": from_environment, "password_file": from_file, "systemd": from_credential}


@pytest.mark.parametrize("source", SOURCES)
def test_the_password_reaches_the_broker_and_nobody_else(
    tmp_path: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon, source: str
) -> None:
    broker = start_mosquitto(guarded(tmp_path, SECRET_WORD))
    environ, arguments = SOURCES[source](tmp_path)
    listener = Person(broker.port, None, "listener")
    listener.listen("#")
    daemon = start_daemon(
        *(*FAST, *arguments, "--mqtt.username", "lab", "--log.level", "debug"),
        *("--mqtt.inbound.enabled", "true", "--homeassistant.enabled", "true", "--recorder.enabled", "true"),
        port=broker.port,
        environ=dict(environ),
    )
    daemon.wait_log("mqtt_connected")
    for command in ("identify", "checkpoint"):
        request = json.dumps({"command": command}).encode()
        listener.write("neuromodd/lab/in/command", request, answer=f"neuromodd/lab/response/{command}")
        assert listener.wait(f"neuromodd/lab/response/{command}").json["ok"]
    listener.wait("neuromodd/lab/health")
    daemon.end()
    listener.close()
    word = SECRET_WORD.encode()
    assert SECRET_WORD not in "\n".join(daemon.lines)
    assert [heard.topic for heard in listener.heard if word in heard.payload] == []
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert files
    assert [path.name for path in files if word in path.read_bytes()] == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_password_that_is_refused_is_not_in_the_log(
    tmp_path: Path, start_mosquitto: StartBroker, start_daemon: StartDaemon, source: str
) -> None:
    environ, arguments = SOURCES[source](tmp_path)
    login = (*arguments, "--mqtt.username", "lab", "--log.level", "debug")
    broker = start_mosquitto(guarded(tmp_path, "another"))
    daemon = start_daemon(*FAST, *login, port=broker.port, environ=dict(environ))
    daemon.wait_log("mqtt_unavailable")
    daemon.end()
    assert SECRET_WORD not in "\n".join(daemon.lines)


@pytest.mark.parametrize("wrong", [(), ("--mqtt.port", "0")])
@pytest.mark.parametrize("source", SOURCES)
def test_check_does_not_print_the_password(tmp_path: Path, source: str, wrong: tuple[str, ...]) -> None:
    environ, arguments = SOURCES[source](tmp_path)
    others = ("--mqtt.host", "broker.lan", "--mqtt.username", "lab", "--checkpoint.directory", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "neuromodd", "check", *arguments, *others, *wrong],
        env={**os.environ, "XDG_CONFIG_HOME": "/nonexistent", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == (2 if wrong else 0)
    assert SECRET_WORD not in done.stdout + done.stderr


# What TLS is held to


def handshake(scene: Scene, client: ssl.SSLContext) -> str | None:
    """Speak TLS with a server that knows 1.1 only; the version, or None without success."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(scene.broker_file)
    hold_to_tls_1_1(server)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10.0)

        def serve() -> None:
            connection, _ = listening.accept()
            connection.settimeout(10.0)
            with contextlib.suppress(OSError), server.wrap_socket(connection, server_side=True) as secured:
                secured.recv(1)
            connection.close()

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            plain = socket.create_connection(listening.getsockname(), timeout=10.0)
            with plain, contextlib.suppress(ssl.SSLError, ConnectionError):
                secured = client.wrap_socket(plain, server_hostname="127.0.0.1")
                with secured:
                    return secured.version()
            return None
        finally:
            serving.join(10.0)


def hold_to_tls_1_1(context: ssl.SSLContext) -> None:
    # It is deprecated, and OpenSSL allows it at its lowest level of security alone.
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")


def test_a_broker_that_knows_tls_1_1_only_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    lenient = ssl.create_default_context(cafile=scene.authority.file)
    hold_to_tls_1_1(lenient)
    assert handshake(scene, lenient) == "TLSv1.1"
    ours = Tls(ca_file=scene.authority.file).context()
    # So that it is the version which is refused, and not the ciphers.
    ours.set_ciphers("ALL:@SECLEVEL=0")
    assert handshake(scene, ours) is None


def test_no_option_switches_verification_off() -> None:
    named = {option.name for option in options() if option.name.startswith("mqtt.tls.")}
    assert named == {
        f"mqtt.tls.{name}" for name in ("enabled", "ca_file", "cert_file", "key_file", "key_password_file")
    }


def test_certificate_and_name_of_the_broker_are_verified_whatever_is_set(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("own.pem", "lab")
    for tls in (Tls(), Tls(ca_file=authority.file), Tls(ca_file=authority.file, cert_file=own)):
        context = tls.context()
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
