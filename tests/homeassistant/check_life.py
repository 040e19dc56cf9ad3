"""The documents in a Home Assistant that runs, over a real broker."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.publish as paho
import pytest
from documents import EVERYTHING, announced, announcement, parsed, shrunk
from home import broker, devices, entities, home, run, unique_ids, until
from paho.mqtt.client import MQTTMessage

from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.homeassistant import Announcement, remembered_topics

PREFIX = "neuromodd/lab-7"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with broker(tmp_path) as port:
        yield port


def publish(port: int, *messages: tuple[str, bytes | str]) -> None:
    paho.multiple(
        [{"topic": topic, "payload": payload, "qos": 1, "retain": True} for topic, payload in messages],
        port=port,
    )


def expected(made: Announcement) -> set[str]:
    return {of["unique_id"] for of in parsed(made)["cmps"].values() if "unique_id" in of}


def test_every_component_becomes_an_entity_of_one_device_without_a_complaint(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = announced(EVERYTHING)

    async def work() -> None:
        publish(port, (made.topic, made.document()))
        async with home(tmp_path, port) as hass:
            await until(lambda: unique_ids(hass), expected(made))
            (device,) = devices(hass)
            assert device.name == "lab-7"
            assert {of.device_id for of in entities(hass).values()} == {device.id}

    with caplog.at_level(logging.WARNING):
        run(work())
    assert not [of.getMessage() for of in caplog.records if "mqtt" in of.name]


def test_an_entity_gets_the_id_that_the_document_asks_for(port: int, tmp_path: Path) -> None:
    made = announced(EVERYTHING)

    async def work() -> None:
        publish(port, (made.topic, made.document()))
        async with home(tmp_path, port) as hass:
            await until(lambda: unique_ids(hass), expected(made))
            of = entities(hass)
            for component in parsed(made)["cmps"].values():
                # It writes other alphabets in Latin letters, which the document leaves out.
                if component["name"].isascii():
                    assert of[component["unique_id"]].entity_id == component["default_entity_id"]

    run(work())


def test_states_follow_the_payloads_and_the_availability(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = announced(EVERYTHING)

    async def work() -> None:
        publish(port, (made.topic, made.document()), (f"{PREFIX}/status", "online"))
        async with home(tmp_path, port) as hass:

            def state(of: str) -> Any:
                found = hass.states.get(of)
                return found and found.state

            async def becomes(of: str, value: str) -> None:
                await until(lambda: (of, state(of)), (of, value))

            await becomes("sensor.lab_7_cpu_temperature", "unknown")
            publish(port, (f"{PREFIX}/telemetry", EVERYTHING.to_json()))
            await becomes("sensor.lab_7_cpu_temperature", "61.1")
            await becomes("sensor.lab_7_gpu_01_00_0_power", "181.2")
            await becomes("binary_sensor.lab_7_mains", "on")
            publish(port, (f"{PREFIX}/telemetry", TelemetryFrame().to_json()))
            await becomes("sensor.lab_7_cpu_temperature", "unknown")
            await becomes("binary_sensor.lab_7_mains", "unknown")
            publish(port, (f"{PREFIX}/fault", json.dumps({"class": "GpuDieDead", "code": "ERR"})))
            await becomes("binary_sensor.lab_7_fault", "on")
            await becomes("sensor.lab_7_fault_class", "GpuDieDead")
            assert hass.states.get("binary_sensor.lab_7_fault").attributes["code"] == "ERR"
            publish(port, (f"{PREFIX}/status", "offline"))
            await becomes("sensor.lab_7_cpu_temperature", "unavailable")

    with caplog.at_level(logging.WARNING):
        run(work())
    assert not [of.getMessage() for of in caplog.records if "mqtt" in of.name or "sensor" in of.name]


def test_what_is_removed_leaves_the_registry(port: int, tmp_path: Path) -> None:
    before, after = announced(EVERYTHING), shrunk()

    async def work() -> None:
        publish(port, (before.topic, before.document()))
        async with home(tmp_path, port) as hass:
            await until(lambda: unique_ids(hass), expected(before))
            publish(port, (after.topic, after.document()))
            # One that is disabled can't be removed over MQTT: it stays disabled, and shows nothing.
            await until(
                lambda: {of for of, entry in entities(hass).items() if not entry.disabled}, expected(after)
            )

    run(work())
    assert expected(after) < expected(before)


def test_components_that_appear_while_it_is_busy_with_the_first_are_not_lost(
    port: int, tmp_path: Path
) -> None:
    early, late = announced(TelemetryFrame()), announced(TelemetryFrame(), EVERYTHING)

    async def work() -> None:
        async with home(tmp_path, port) as hass:
            await until(lambda: hass.data["mqtt"].client.connected, expected=True)
            for made in (early, late):
                # Both at once, as if the second had waited in the socket.
                message = MQTTMessage(topic=made.topic.encode())
                message.payload = made.document()
                hass.data["mqtt"].client._async_mqtt_on_message(None, None, message)
            await until(lambda: unique_ids(hass), expected(late))

    run(work())


def test_withdrawing_a_document_removes_the_device(port: int, tmp_path: Path) -> None:
    made = announced(EVERYTHING)

    async def work() -> None:
        publish(port, (made.topic, made.document()))
        async with home(tmp_path, port) as hass:
            await until(lambda: unique_ids(hass), expected(made))
            publish(port, *((topic, b"") for topic in remembered_topics(made.state())))
            await until(lambda: (unique_ids(hass), devices(hass)), (set(), []))

    run(work())


def test_a_renamed_node_takes_its_old_device_along(port: int, tmp_path: Path) -> None:
    before, after = announced(EVERYTHING), announcement("lab-8")
    after.restore(before.state())

    async def work() -> None:
        publish(port, (before.topic, before.document()))
        async with home(tmp_path, port) as hass:
            await until(lambda: unique_ids(hass), expected(before))
            withdrawn = [(topic, b"") for topic in after.withdrawals()]
            publish(port, *withdrawn, (after.topic, after.document()))
            await until(lambda: [of.name for of in devices(hass)], ["lab-8"])

    run(work())
