"""The documents, held against the schemas and tables of Home Assistant itself."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import voluptuous as vol
from documents import EVERYTHING, announced, parsed, shrunk
from home import at_home
from homeassistant.components.mqtt import binary_sensor, discovery, schemas, sensor
from homeassistant.components.sensor.const import (
    DEVICE_CLASS_STATE_CLASSES,
    DEVICE_CLASS_UNITS,
    SensorDeviceClass,
)
from homeassistant.core import valid_entity_id
from machine_files import KINDS, machine_text, run_on, unpack

from neuromodd.core.frame import TelemetryFrame

SCHEMAS = {"sensor": sensor.DISCOVERY_SCHEMA, "binary_sensor": binary_sensor.DISCOVERY_SCHEMA}
NODES = ("lab-7", "host.example", "LAB_7")
NAMES = ("everything", "removed", "nothing", *KINDS)


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The document of a machine, or of a made-up frame."""
    folder = tmp_path_factory.mktemp("machines")
    (folder / "stub").mkdir()
    source = Path(__file__).parent.parent / "sensors" / "nvml_stub.c"
    library = folder / "stub" / "libnvidia-ml.so.1"
    build: list[str | Path] = [
        "gcc",
        "-std=gnu17",
        "-shared",
        "-fPIC",
        '-DVERSION="1"',
        "-o",
        library,
        source,
    ]
    subprocess.run(build, check=True)
    made = {
        "everything": parsed(announced(EVERYTHING)),
        "removed": parsed(shrunk()),
        "nothing": parsed(announced(TelemetryFrame())),
    }

    def find(name: str) -> dict[str, Any]:
        if name not in made:
            machine = unpack(machine_text(name), folder / name)
            frame = TelemetryFrame.from_json(run_on(machine, folder, "sample"))
            made[name] = parsed(announced(frame))
        return copy.deepcopy(made[name])

    return find


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Checks a document inside of a Home Assistant, where its templates are compiled."""
    with at_home(tmp_path_factory.mktemp("home")) as inside:
        yield functools.partial(inside, check_document)


def check_document(_hass: Any, document: dict[str, Any]) -> dict[str, Any]:
    """As Home Assistant receives it: abbreviations, the device's schema, then each component's."""
    discovery._replace_all_abbreviations(document)
    schemas.DEVICE_DISCOVERY_SCHEMA(document)
    found = {}
    for key, component in document["components"].items():
        platform = component.pop("platform")
        if component:
            found[key] = check_component(platform, component, document)
    return found


def check_component(platform: str, component: dict[str, Any], document: dict[str, Any]) -> Any:
    whole = {**component, "device": document["device"], "origin": document["origin"]}
    discovery._merge_common_device_options(whole, document)
    accepted = SCHEMAS[platform](whole)
    # The schema takes away what it does not know, so a misspelt option would go unnoticed.
    assert set(whole) - set(accepted) <= {"default_entity_id"}
    if platform == "sensor":
        check_units(component)
    return accepted


def check_units(component: dict[str, Any]) -> None:
    """What Home Assistant warns of when the first state arrives."""
    if "device_class" not in component:
        return
    kind = SensorDeviceClass(component["device_class"])
    if kind is not SensorDeviceClass.ENUM:
        assert component.get("unit_of_measurement") in DEVICE_CLASS_UNITS[kind]
    assert component.get("state_class") in {None, *DEVICE_CLASS_STATE_CLASSES[kind]}


@pytest.mark.parametrize("name", NAMES)
def test_home_assistant_takes_the_document(
    name: str, document: Callable[[str], dict[str, Any]], check: Callable[..., Any]
) -> None:
    assert check(document(name))


@pytest.mark.parametrize("name", KINDS)
def test_a_machine_announces_more_than_what_the_daemon_always_tells(
    name: str, document: Callable[[str], dict[str, Any]]
) -> None:
    assert len(document(name)["cmps"]) > len(document("nothing")["cmps"])


@pytest.mark.parametrize(
    ("damage", "refusal"),
    [
        ({"device_class": "warmth"}, vol.Invalid),
        ({"device_class": "temperature", "unit_of_measurement": "W"}, AssertionError),
        ({"state_class": "total_increasing"}, AssertionError),
        ({"state_class": "sometimes"}, vol.Invalid),
        ({"value_template": "{{ unclosed"}, vol.Invalid),
        ({"unique_id": None}, vol.Invalid),
        ({"unit": "W"}, AssertionError),
        ({"options": ["a"]}, vol.Invalid),
    ],
)
def test_a_faulty_component_is_refused(
    damage: dict[str, Any],
    refusal: type[Exception],
    document: Callable[[str], dict[str, Any]],
    check: Callable[..., Any],
) -> None:
    faulty = document("everything")
    faulty["cmps"]["power_package_watts"] |= damage
    with pytest.raises(refusal):
        check(faulty)


@pytest.mark.parametrize("part", ["dev", "o", "cmps"])
def test_a_document_that_lacks_a_part_is_refused(
    part: str, document: Callable[[str], dict[str, Any]], check: Callable[..., Any]
) -> None:
    faulty = document("nothing")
    del faulty[part]
    with pytest.raises((vol.Invalid, KeyError)):
        check(faulty)


@pytest.mark.parametrize("node", NODES)
def test_home_assistant_reads_the_topic_of_any_node(node: str) -> None:
    topic = announced(EVERYTHING, node=node).topic.removeprefix("homeassistant/")
    found = discovery.TOPIC_MATCHER.fullmatch(topic)
    assert found is not None
    assert found.group("component") == "device"


@pytest.mark.parametrize("node", NODES)
def test_the_entity_ids_are_valid_and_of_the_platform(node: str) -> None:
    for component in parsed(announced(EVERYTHING, node=node))["cmps"].values():
        assert valid_entity_id(component["default_entity_id"])
        assert component["default_entity_id"].startswith(f"{component['platform']}.")


def test_a_removed_component_is_its_platform_alone(document: Callable[[str], dict[str, Any]]) -> None:
    removed = document("removed")["cmps"].keys() - document("nothing")["cmps"].keys()
    assert removed == document("everything")["cmps"].keys() - document("nothing")["cmps"].keys()
    assert all(list(document("removed")["cmps"][key]) == ["platform"] for key in removed)


def test_the_document_survives_the_way_through_json(document: Callable[[str], dict[str, Any]]) -> None:
    assert json.loads(json.dumps(document("everything"))) == document("everything")
