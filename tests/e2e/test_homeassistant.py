"""What Home Assistant finds on the broker of a real daemon; `make ha-test` asks Home Assistant itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from harness import Daemon, Heard, Listener, Mosquitto

StartDaemon = Callable[..., Daemon]
Listen = Callable[..., Listener]

FAST = ("--tick.interval_s", "0.1")
ON = ("--homeassistant.enabled", "true")
TOPIC = "homeassistant/device/neuromodd_lab/config"


def documents(listener: Listener, topic: str = TOPIC) -> list[Heard]:
    return [heard for heard in list(listener.heard) if heard.topic == topic]


@pytest.fixture
def listener(mosquitto: Mosquitto, listen: Listen) -> Listener:
    return listen(mosquitto.port, newest=True)


def components(listener: Listener) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(documents(listener)[-1].payload)["cmps"]
    return found


def wait_document(
    listener: Listener, accept: Callable[[Heard], bool] = lambda _: True, count: int = 1
) -> Heard:
    return listener.wait(
        "neuromodd_lab/config", lambda heard: heard.topic == TOPIC and accept(heard), count=count
    )


def test_the_node_is_announced_with_its_modulators_and_measurements(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listener: Listener
) -> None:
    start_daemon(*FAST, *ON, port=mosquitto.port)
    wait_document(listener, lambda heard: b"cpu_utilization_ratio" in heard.payload)
    assert {"state_modulators_dopamine", "state_flags_stress", "fault_class"} <= components(listener).keys()


def test_what_is_announced_stays_with_the_broker(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listener: Listener, listen: Listen
) -> None:
    start_daemon(*FAST, *ON, port=mosquitto.port)
    wait_document(listener)
    assert wait_document(listen(mosquitto.port)).retained


def test_once_the_first_frames_are_known_it_is_announced_once(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listener: Listener
) -> None:
    start_daemon(*FAST, *ON, port=mosquitto.port)
    listener.wait("telemetry", count=10)
    assert len(documents(listener)) == 1


def test_it_is_announced_again_when_home_assistant_starts(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listener: Listener
) -> None:
    start_daemon(*FAST, *ON, port=mosquitto.port)
    wait_document(listener)
    listener.ask("homeassistant/status", b"online", qos=0)
    again = wait_document(listener, count=2)
    assert again.payload == documents(listener)[0].payload


def test_it_is_announced_again_to_a_broker_that_forgot_it(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listen: Listen
) -> None:
    daemon = start_daemon(*FAST, *ON, port=mosquitto.port)
    wait_document(listen(mosquitto.port))
    mosquitto.stop()
    mosquitto.start()
    daemon.wait_log("mqtt_connected", count=2)
    wait_document(listen(mosquitto.port))


def test_a_node_that_is_not_to_be_announced_is_not(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listener: Listener
) -> None:
    start_daemon(*FAST, port=mosquitto.port)
    listener.wait("telemetry", count=5)
    assert [heard.topic for heard in listener.heard if heard.topic.startswith("homeassistant/")] == []


def test_what_was_announced_is_withdrawn_once_it_is_switched_off(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listener: Listener
) -> None:
    daemon = start_daemon(*FAST, *ON, port=mosquitto.port)
    wait_document(listener)
    assert daemon.end() == 0
    start_daemon(*FAST, port=mosquitto.port)
    wait_document(listener, lambda heard: heard.payload == b"")


def test_a_node_of_another_name_withdraws_the_old_one(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listener: Listener
) -> None:
    daemon = start_daemon(*FAST, *ON, port=mosquitto.port)
    wait_document(listener)
    assert daemon.end() == 0
    start_daemon(*FAST, *ON, "--node", "new", port=mosquitto.port)
    wait_document(listener, lambda heard: heard.payload == b"")
    listener.wait("neuromodd_new/config", lambda heard: b'"neuromodd_new"' in heard.payload)


def test_a_restart_announces_what_it_remembers_at_once(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listener: Listener
) -> None:
    daemon = start_daemon(*FAST, *ON, port=mosquitto.port)
    first = wait_document(listener)
    listener.wait("telemetry", count=5)
    assert daemon.end() == 0
    start_daemon("--tick.interval_s", "60", *ON, port=mosquitto.port)
    again = wait_document(listener, count=2)
    assert json.loads(again.payload)["cmps"].keys() == json.loads(first.payload)["cmps"].keys()
