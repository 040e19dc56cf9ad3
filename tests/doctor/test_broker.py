"""What a broker answers, what to do about it, and who publishes as this node."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from neuromodd.config import MqttSettings, Settings, TlsSettings, WebSettings
from neuromodd.doctor.answers import Trouble, remedy_for
from neuromodd.doctor.findings import Finding
from neuromodd.doctor.node import Kept, judge_node, judge_publishing
from neuromodd.doctor.ports import examine_web, judge_port
from neuromodd.doctor.presence import NOBODY, Presence, examine_daemon
from neuromodd.health import Answer

TLS = Settings(mqtt=MqttSettings(host="b", tls=TlsSettings(enabled=True)))
HERE = {"boot_id": "here"}


def running(**mqtt: Any) -> Presence:
    known = {"connected": True, "error": None, "published": 7, **mqtt}
    return Presence(
        Answer({"verdict": "ticking", "reason": "it does", "health": {"mqtt": known}}, found=True),
        holders=(1,),
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "the broker's certificate is not accepted: unable to get local issuer certificate",
            "mqtt.tls.ca_file",
        ),
        ("the broker's certificate is not accepted: Hostname mismatch, it is of b.lan", "mqtt.host"),
        ("the broker's certificate is not accepted: IP address mismatch, it is of b.lan", "mqtt.host"),
        ("the broker's certificate is not accepted: certificate has expired", "clock"),
        ("the broker does not accept our certificate: unknown ca", "mqtt.tls.cert_file"),
        ("the broker refuses our TLS: certificate required", "mqtt.tls.cert_file"),
        ("wrong version number; is it no TLS port?", "mqtt.port"),
        ("/etc/key.pem: key values mismatch", "the files in mqtt.tls"),
    ],
)
def test_what_fails_with_tls_says_which_option_it_is_about(reason: str, words: str) -> None:
    assert words in remedy_for(TLS, Trouble(reason))


@pytest.mark.parametrize(
    ("mqtt", "words"),
    [
        (MqttSettings(host="b"), "set mqtt.username"),
        (MqttSettings(host="b", username="lab"), "give lab its password"),
        (MqttSettings(host="b", username="lab", password="x"), "mosquitto_passwd"),  # noqa: S106
    ],
)
def test_a_login_that_is_refused_says_what_it_lacks(
    mqtt: MqttSettings, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("neuromodd.doctor.answers.SYSTEM_PASSWORD", tmp_path / "password")
    assert words in remedy_for(Settings(mqtt=mqtt), Trouble("refused", refused=True))


def test_a_password_that_the_service_is_handed_is_pointed_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "password").touch()
    monkeypatch.setattr("neuromodd.doctor.answers.SYSTEM_PASSWORD", tmp_path / "password")
    settings = Settings(mqtt=MqttSettings(host="b", username="lab"))
    remedy = remedy_for(settings, Trouble("refused", refused=True))
    assert remedy.endswith(f"--mqtt.password_file {tmp_path / 'password'}")


def judged(kept: Kept, presence: Presence = NOBODY, refused: dict[str, str] | None = None) -> Finding:
    return judge_node(kept, refused or {}, "lab", presence, "here")


def test_a_name_that_nobody_uses_is_free() -> None:
    assert judged(Kept(None, None)).finding == "lab is not online: its name is free"


def test_a_daemon_of_this_host_is_well() -> None:
    assert judged(Kept(b"online", HERE), running()).verdict == "ok"


@pytest.mark.parametrize("presence", [NOBODY, running()])
def test_another_host_of_our_name_is_a_failure(presence: Presence) -> None:
    found = judged(Kept(b"online", {"boot_id": "elsewhere"}), presence)
    assert found.verdict == "failure"
    assert "another host is online as lab" in found.finding


def test_another_host_that_has_gone_offline_is_none() -> None:
    assert judged(Kept(b"offline", {"boot_id": "elsewhere"})).verdict == "ok"


def test_a_daemon_of_this_host_that_does_not_show_here_is_a_warning() -> None:
    assert judged(Kept(b"online", HERE)).verdict == "warning"


def test_a_daemon_of_another_version_than_is_installed_is_to_be_restarted() -> None:
    found = judged(Kept(b"online", {**HERE, "version": "0.0.1"}), running())
    assert (found.verdict, "of version 0.0.1" in found.finding) == ("note", True)


def test_a_reader_that_is_refused_is_a_note() -> None:
    assert judged(Kept(None, None), refused={"neuromodd/lab/info": "not authorized"}).verdict == "note"


def test_what_a_node_may_not_read_is_a_note() -> None:
    assert judged(Kept(None, None), running()).verdict == "note"


def test_what_the_daemon_is_denied_is_a_failure_in_its_words() -> None:
    found = judge_publishing(running(error="neuromodd/lab/state: the broker refused it"))
    assert (found.verdict, "neuromodd/lab/state" in found.finding) == ("failure", True)


def test_nothing_is_published_to_see_whether_it_may_be() -> None:
    assert judge_publishing(NOBODY).verdict == "note"


# The daemon, and the page


@pytest.mark.parametrize(
    ("presence", "verdict"),
    [
        (NOBODY, "note"),
        (running(), "ok"),
        (Presence(Answer({"verdict": "not_ticking", "reason": "no tick"}, found=True)), "failure"),
        (NOBODY._replace(holders=(1,)), "warning"),
        (NOBODY._replace(closed=("/run/neuromodd/neuromodd.sock",)), "note"),  # type: ignore[arg-type]
    ],
)
def test_a_daemon_is_judged_by_what_shows_of_it(presence: Presence, verdict: str) -> None:
    assert next(examine_daemon(presence)).verdict == verdict


@pytest.fixture
def taken() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def serving(of: object) -> Presence:
    """A daemon that says that of its page."""
    presence = running()
    health = {**(presence.answer.report["health"] or {}), "web": of}
    answer = presence.answer._replace(report={**presence.answer.report, "health": health})
    return presence._replace(answer=answer)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ({"pages": 0, "error": "127.0.0.1:9464: Address already in use by nginx"}, "in use by nginx"),
        (None, "the daemon that runs serves no page"),
    ],
)
def test_a_port_that_the_daemon_did_not_get_is_a_failure(taken: int, of: object, words: str) -> None:
    found = web(taken, serving(of))
    assert found.verdict == "failure"
    assert words in found.finding


def web(port: int, presence: Presence = NOBODY) -> Finding:
    return next(examine_web(Settings(web=WebSettings(enabled=True, port=port)), presence))


def test_a_port_that_is_taken_says_so(taken: int) -> None:
    assert judge_port("127.0.0.1", taken) == "Address already in use"


def test_a_page_whose_port_is_another_programs_is_a_failure(taken: int) -> None:
    found = web(taken)
    assert found.verdict == "failure"
    assert f"127.0.0.1:{taken} can't be had: Address already in use" in found.finding


def test_a_page_that_the_daemon_serves_is_well(taken: int) -> None:
    assert web(taken, serving({"pages": 0, "error": None})).verdict == "ok"


def test_a_page_of_a_daemon_that_may_not_be_asked_is_a_note(taken: int) -> None:
    assert web(taken, NOBODY._replace(holders=(1,))).verdict == "note"


def test_a_page_that_is_switched_off_is_a_note() -> None:
    assert next(examine_web(Settings(), NOBODY)).verdict == "note"
