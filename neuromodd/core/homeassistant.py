"""Home Assistant: the host as one device of its MQTT discovery.

One retained document names the device and everything of it that Home Assistant shows (its components),
each with the topic that it is read from and a template that finds it there. What a frame has never shown
is not announced; what an earlier run announced and this one does not find is removed.

See https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from neuromodd.core.fault_rules import RULES, FaultClass
from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.core.homeassistant_entities import ALWAYS, CHOICE, MEASURED, Entity, Platform
from neuromodd.core.messages import OFFLINE, ONLINE
from neuromodd.core.record import Record
from neuromodd.errors import InvalidRecordError

SETTLE_S = 600.0
"""For so long a remembered component may go unseen after the start: drivers load late, GPUs sleep."""

REMOVED_LIMIT = 256
"""Of more removed components than this the oldest are forgotten."""

NAME_LIMIT = 80
"""Characters that a name contributes to an id; an entity id may have 255 in all."""

By = Literal["", "name", "uuid", "pci_bus_id"]

_KEY = re.compile(r"[a-z0-9_]+")
_TOPIC = re.compile(r"[^+#\0]+/device/neuromodd_[a-zA-Z0-9_-]+/config")


_ENTITIES = {entity.path: entity for entity in (*ALWAYS, *MEASURED)}
_GROUPS = {
    group: tuple(entity for entity in MEASURED if entity.group == group)
    for group in dict.fromkeys(entity.group for entity in MEASURED)
}
_PLAIN = tuple(group for group, of in _GROUPS.items() if "[]" not in of[0].path)
_NAMED = ("thermal", "fans", "voltages")


class Reading(Record):
    """A component as it is remembered: what is read, and of which thing.

    Attributes:
        platform: Home Assistant's; removing a component takes it.
        path: the entity's in the table.
        by: the field that tells the things of a list apart; empty where there is no list.
        item: that field's value.
        label: what people call the thing.
    """

    platform: Platform
    path: str
    by: By = ""
    item: str = ""
    label: str = ""

    @property
    def key(self) -> str:
        """What the component is called for ever, in the document and in its unique id."""
        group, _, rest = self.path.replace("[]", "").partition(".")
        parts = (group, self.item and _identifier(self.item.lower(), "a-z0-9_", self.item), rest)
        return "_".join(part for part in parts if part).replace(".", "_")


def device_id(node: str) -> str:
    """The id of a node's device: letters, digits, `_` and `-`, another for each node."""
    return f"neuromodd_{_identifier(node, 'a-zA-Z0-9_-', node)}"


def discovery_topic(discovery_prefix: str, node: str) -> str:
    """The topic of a node's document."""
    return f"{discovery_prefix}/device/{device_id(node)}/config"


def remembered_topics(state: object) -> tuple[str, ...]:
    """The topics under which a document of `Announcement.state` may still be retained.

    For the day on which announcing is switched off: an empty retained payload to each removes the device.
    What is no state of an announcement has none.
    """
    if not isinstance(state, Mapping):
        return ()
    waiting = state.get("withdrawals")
    found = [state.get("topic"), *(waiting if isinstance(waiting, list | tuple) else ())]
    return tuple(dict.fromkeys(of for of in found if isinstance(of, str) and _TOPIC.fullmatch(of)))


class Announcement:
    """The document of one node, which grows with what its frames show.

    Mutable; `state` and `restore` carry it through a restart, so that what an earlier run announced is
    either found again within SETTLE_S or removed.

    Attributes:
        topic: where the document is published, retained.
    """

    def __init__(self, *, node: str, base: str, discovery_prefix: str, version: str) -> None:
        self.topic = discovery_topic(discovery_prefix, node)
        self._node = node
        self._base = base
        self._version = version
        self._components: dict[str, dict[str, Any]] = {}
        self._readings: dict[str, Reading] = {}
        self._unseen: set[str] = set()
        self._removed: dict[str, Platform] = {}
        self._withdrawals: list[str] = []
        self._waiting: dict[tuple[str, str], list[Entity]] = {}
        self._last_s: float | None = None
        self._watched_s = 0.0
        for entity in ALWAYS:
            self._show(Reading(platform=entity.kind.platform, path=entity.path))
        self._changed = False

    def observe(self, frame: TelemetryFrame, now_s: float) -> bool:
        """Take in a frame; whether the document is another one now.

        Args:
            frame: what is None in it is not announced, and what has been announced stays.
            now_s: monotonic seconds; a gap is no time in which something was looked for.
        """
        if self._last_s is not None and not frame.gap:
            self._watched_s += max(now_s - self._last_s, 0.0)
        self._last_s = now_s
        for group in _PLAIN:
            self._look(getattr(frame, group), group)
        for group in _NAMED:
            for sample in getattr(frame, group) or ():
                self._look(sample, group, "name", sample.name, sample.name.replace("/", " "))
        for gpu in frame.gpus or ():
            self._look_at_gpu(gpu)
        if self._unseen and self._watched_s >= SETTLE_S:
            self._remove_unseen(frame)
        changed, self._changed = self._changed, False
        return changed

    def document(self) -> bytes:
        """The JSON to publish, retained, at `topic`.

        What is new comes first: Home Assistant passes over what follows a component that it is still
        busy with since the last document.
        """
        device = device_id(self._node)
        components: dict[str, Any] = {key: {"platform": of} for key, of in reversed(self._removed.items())}
        components.update(reversed(self._components.items()))
        document = {
            "dev": {
                "identifiers": [device],
                "name": self._node,
                "manufacturer": "neuromodd",
                "model": "Linux host",
                "sw_version": self._version,
            },
            "o": {"name": "neuromodd", "sw_version": self._version},
            "availability_topic": f"{self._base}/status",
            "payload_available": ONLINE.decode(),
            "payload_not_available": OFFLINE.decode(),
            "cmps": components,
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    def withdrawals(self) -> tuple[str, ...]:
        """Topics of documents that are not this one's any more; an empty retained payload removes each."""
        return tuple(self._withdrawals)

    def withdrawn(self, topic: str) -> None:
        """The broker has taken the empty payload of `topic`."""
        if topic in self._withdrawals:
            self._withdrawals.remove(topic)

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain JSON."""
        return {
            "topic": self.topic,
            "withdrawals": list(self._withdrawals),
            "components": {key: reading.model_dump() for key, reading in self._readings.items()},
            "removed": dict(self._removed),
        }

    def restore(self, state: object) -> None:
        """Remember what `state` gave in an earlier run, before the first frame; ignores what does not fit.

        Of another topic's document nothing is taken over: it is withdrawn as a whole.
        """
        topics = remembered_topics(state)
        self._withdrawals = [topic for topic in topics if topic != self.topic]
        if not isinstance(state, Mapping) or state.get("topic") != self.topic:
            return
        for key, platform in _entries(state, "removed"):
            self._forget(key, platform)
        for key, entry in _entries(state, "components"):
            try:
                reading = Reading.from_dict(entry)
            except InvalidRecordError:
                continue
            if key in self._components:
                continue
            entity = _ENTITIES.get(reading.path)
            if entity is None or (reading.key, reading.platform) != (key, entity.kind.platform):
                # This version has no such component.
                self._forget(key, reading.platform)
            else:
                self._show(reading)
                self._unseen.add(key)
        self._changed = False

    def _look(self, sample: object, group: str, by: By = "", item: str = "", label: str = "") -> None:
        if sample is None:
            return
        waiting = self._waiting.get((group, item))
        if waiting is None:
            waiting = self._waiting[group, item] = list(_GROUPS[group])
        for entity in [of for of in waiting if getattr(sample, of.field) is not None]:
            waiting.remove(entity)
            platform = entity.kind.platform
            self._show(Reading(platform=platform, path=entity.path, by=by, item=item, label=label))

    def _look_at_gpu(self, gpu: GpuSample) -> None:
        label = f"GPU {(gpu.pci_bus_id or gpu.uuid or '').removeprefix('0000:')}"
        if gpu.suspended or gpu.lost or gpu.hung:
            # It is there, though it tells nothing, perhaps not even its uuid.
            of = [key for key in self._unseen if self._readings[key].label == label]
            self._unseen.difference_update(of)
        elif gpu.uuid is not None:
            self._look(gpu, "gpus", "uuid", gpu.uuid, label)
        elif gpu.pci_bus_id is not None:
            self._look(gpu, "gpus", "pci_bus_id", gpu.pci_bus_id, label)

    def _show(self, reading: Reading) -> None:
        key = reading.key
        component = self._component(reading, key)
        self._unseen.discard(key)
        if self._components.get(key) != component:
            self._components.pop(key, None)
            self._removed.pop(key, None)
            self._components[key] = component
            self._changed = True
        self._readings[key] = reading

    def _remove_unseen(self, frame: TelemetryFrame) -> None:
        for key in sorted(self._unseen):
            # While the driver does not answer, nobody knows which GPUs there are.
            if self._readings[key].path.startswith("gpus") and frame.gpu_driver_error is not None:
                continue
            self._unseen.discard(key)
            del self._components[key]
            self._forget(key, self._readings.pop(key).platform)
            self._changed = True

    def _forget(self, key: str, platform: object) -> None:
        if platform in ("sensor", "binary_sensor") and _KEY.fullmatch(key) and key not in self._components:
            self._removed[key] = platform
            while len(self._removed) > REMOVED_LIMIT:
                del self._removed[next(iter(self._removed))]

    def _component(self, reading: Reading, key: str) -> dict[str, Any]:
        entity = _ENTITIES[reading.path]
        kind = entity.kind
        name = f"{reading.label} {entity.name}" if reading.label else entity.name
        topic = f"{self._base}/{entity.topic}"
        found: dict[str, Any] = {
            "platform": kind.platform,
            "unique_id": f"{device_id(self._node)}_{key}",
            "default_entity_id": f"{kind.platform}.{_slug(self._node)}_{_slug(name)}",
            "name": name,
            "state_topic": topic,
            "value_template": _template(entity, reading),
            "device_class": kind.device_class,
            "state_class": kind.state_class,
            "unit_of_measurement": kind.unit,
            "icon": entity.icon,
        }
        if kind.platform == "binary_sensor":
            found |= {"payload_on": "True", "payload_off": "False"}
        if kind.state_class is not None:
            found["suggested_display_precision"] = kind.digits
        if not entity.enabled:
            found["enabled_by_default"] = False
        if entity.diagnostic:
            found["entity_category"] = "diagnostic"
        if kind is CHOICE:
            found["options"] = [of.value for of in FaultClass]
        if entity.path == "fault":
            found |= {"json_attributes_topic": topic, "json_attributes_template": _FAULT_ATTRIBUTES}
        if entity.path == "state.flags.anomaly":
            newest = f"{self._base}/anomaly"
            found |= {"json_attributes_topic": newest, "json_attributes_template": _ANOMALY_ATTRIBUTES}
        return {name: value for name, value in found.items() if value is not None}


# Templates. `default` stands at every step, so that whatever arrives is rendered, as None where the value is
# not in it, which Home Assistant shows as unknown; without it each such message would be an error in its log.

_ROOT = "(value_json | default({}, true))"


def _value(path: str, by: str = "", item: str = "") -> str:
    """The expression that finds a value in a payload."""
    *groups, field = path.split(".")
    found = _ROOT
    for group in groups:
        found = f"({found}.{group} | default({{}}, true))"
        if by:
            # A string of JSON is one of Jinja too, once it holds no pairs of surrogates.
            same = f"selectattr('{by}', 'eq', {json.dumps(item, ensure_ascii=False)})"
            found = f"({found} | {same} | first | default({{}}, true))"
    return f"{found}.{field} | default(none)"


_BROKEN = [of.value for of in FaultClass if of.is_fault]
_LACK_OF_SENSORS = [rule.name for rule in RULES if not rule.fault_class.is_fault]
_FAULT_PROBLEM = (
    f"{{% set class = {_value('class')} %}}"
    f"{{% set damage = {_ROOT}.evidence | default([], true)"
    f" | rejectattr('rule', 'in', {_LACK_OF_SENSORS}) | list %}}"
    f"{{{{ true if class in {_BROKEN} or damage else"
    f" false if class == '{FaultClass.HealthyStandby.value}' else none }}}}"
)
"""On also for an ambiguity between several faults; unknown where only sensors are lacking."""


def _attributes(*names: str) -> str:
    return "{{ {" + ", ".join(f"'{name}': {_value(name)}" for name in names) + "} | tojson }}"


_FAULT_ATTRIBUTES = _attributes("code", "confidence", "since_utc", "evidence")
_ANOMALY_ATTRIBUTES = _attributes("phase", "since_utc", "duration_s", "surprise", "sentence", "channels")
"""Of the newest anomaly, which may be over."""


def _template(entity: Entity, reading: Reading) -> str:
    if entity.path == "fault":
        return _FAULT_PROBLEM
    value = _value(entity.place, reading.by, reading.item)
    if entity.kind.state_class is None:
        return f"{{{{ {value} }}}}"
    scaled = "v" if entity.kind.factor == 1 else f"(v * {entity.kind.factor!r})"
    return f"{{% set v = {value} %}}{{{{ v if v is none else {scaled} | round({entity.kind.digits}) }}}}"


def _identifier(text: str, characters: str, whole: str) -> str:
    """`text` in those characters, and where that changes it a sum of `whole`, so that no two are the same."""
    plain = re.sub(f"[^{characters}]+", "_", text)
    if plain == whole:
        return plain
    return f"{plain.strip('_')[:NAME_LIMIT]}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _slug(text: str) -> str:
    """`text` as Home Assistant writes it in the id of an entity."""
    return re.sub("[^a-z0-9]+", "_", text.lower()).strip("_")[:NAME_LIMIT]


def _entries(state: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """The entries of one part of a state; of what is no part, none."""
    part = state.get(name)
    if isinstance(part, Mapping):
        yield from ((key, entry) for key, entry in part.items() if isinstance(key, str))
