"""`neuromodd reward`: one reward to a daemon over MQTT, and what it answers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from neuromodd.config import BrokerAddress, Settings
from neuromodd.core.messages import topic
from neuromodd.core.requests import REWARDS, Reply, RewardRequest, payload_of
from neuromodd.core.rewards import event_id
from neuromodd.ear import RESPONSE_LEVEL
from neuromodd.errors import MqttDeniedError, MqttLinkError
from neuromodd.mqtt import Endpoint, Incoming, Link, Outgoing, Protocol, connect
from neuromodd.tls import Tls


class Sent(NamedTuple):
    """What became of a reward.

    Attributes:
        id: that it goes out with.
        answer: the daemon's; None if the broker speaks no MQTT 5, which knows no answers.
    """

    id: str
    answer: Reply | None


def build_request(
    kind: str, node: str, fields: Mapping[str, Any], *, identity: str | None = None
) -> RewardRequest:
    """The request for a reward of now; one that was sent before has its `identity` already.

    Raises:
        InvalidRecordError: a field does not fit the kind.
    """
    now = datetime.now(UTC)
    # Random where a daemon's own ids are made of its frames: two shells may send at the same moment.
    identity = identity or event_id(
        time_utc=now, node=node, boot_id=uuid.uuid4().hex, sequence=0, kind=kind, ordinal=0
    )
    values: dict[str, Any] = {"kind": kind, "id": identity, "time_utc": now, "node": node, **fields}
    return REWARDS[kind](**values)


async def send_reward(
    settings: Settings, broker: BrokerAddress, request: RewardRequest, *, timeout_s: float
) -> Sent:
    """Send a reward to the daemon of `request.node`, and wait for its answer.

    Raises:
        MqttLinkError: the broker can't be reached, or nobody answers.
        MqttDeniedError: the broker does not let us.
    """
    first: Protocol = "3.1.1" if broker.embedded or settings.mqtt.protocol == "3.1.1" else "5"
    try:
        return await _send(settings, broker, request, first, timeout_s)
    except MqttLinkError as error:
        if (
            settings.mqtt.protocol != "auto"
            or first == "3.1.1"
            or not (error.unsupported or error.unanswered)
        ):
            raise MqttLinkError(f"{broker.host}:{broker.port}: {error}") from None
    return await _send(settings, broker, request, "3.1.1", timeout_s)


async def _send(
    settings: Settings, broker: BrokerAddress, request: RewardRequest, protocol: Protocol, timeout_s: float
) -> Sent:
    mqtt, node, identity = settings.mqtt, str(request.node), str(request.id)
    target = topic(mqtt.prefix, node, "in/reward")
    endpoint = Endpoint(
        host=broker.host,
        port=broker.port,
        identifier=f"neuromodd-reward-{uuid.uuid4().hex[:12]}",
        username=mqtt.username,
        password=mqtt.read_password(),
        tls=Tls.of(mqtt.tls) if mqtt.tls_enabled else None,
        protocol=protocol,
    )
    message = Outgoing(target, payload_of(request), 1, content_type="application/json")
    async with connect(endpoint) as link:
        if protocol == "3.1.1":
            await link.publish(message)
            return Sent(identity, None)
        # A user of the broker may read the answers to itself only, as config/mosquitto has it.
        named = mqtt.username is not None and not set("+#/") & set(mqtt.username)
        own = f"{mqtt.username}/{identity}" if named else identity
        wanted = topic(mqtt.prefix, node, f"{RESPONSE_LEVEL}/{own}")
        if refused := await link.subscribe({wanted: 1}):
            raise MqttDeniedError(wanted, refused[wanted])
        if not await link.publish(message._replace(response_topic=wanted)):
            raise MqttLinkError(
                f"nobody listens to {target}: is node {node}'s daemon running, with mqtt.inbound.enabled?"
            )
        try:
            async with asyncio.timeout(timeout_s):
                return Sent(identity, await _answer(link))
        except TimeoutError:
            raise MqttLinkError(
                f"node {node} did not answer within {timeout_s:g} s; it may have the reward all the same, or "
                f"find it at the broker when it is back: send it again with --id {identity}"
            ) from None


async def _answer(link: Link) -> Reply:
    lost = asyncio.create_task(link.lost(), name="mqtt-lost")
    heard = asyncio.create_task(_first(link), name="mqtt-answer")
    try:
        await asyncio.wait((lost, heard), return_when=asyncio.FIRST_COMPLETED)
        if not heard.done():
            lost.result()
        message = heard.result()
        link.acknowledge(message)
        return Reply.from_json(message.payload or b"")
    finally:
        lost.cancel()
        heard.cancel()


async def _first(link: Link) -> Incoming:
    return await anext(link.incoming())
