"""The broker: found by its name, reached, spoken to, and who publishes there as this node.

Nothing is published: whoever subscribes would see it. What the daemon may publish, it knows itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import uuid
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

from neuromodd.config import BrokerAddress, Settings, resolve_broker
from neuromodd.core.messages import topic
from neuromodd.doctor.answers import BROKER, Trouble, told_error
from neuromodd.doctor.findings import Finding
from neuromodd.doctor.node import Kept, judge_node, judge_publishing
from neuromodd.doctor.ports import holder_of, judge_port
from neuromodd.doctor.presence import Presence
from neuromodd.errors import ConfigurationError, MqttLinkError
from neuromodd.mqtt import Endpoint, Link, Protocol, connect
from neuromodd.tls import Tls

RESOLVE_S = 2.5
REACH_S = 2.0
SPEAK_S = 2.5

RETAINED_S = 0.5
"""What a broker keeps comes right after the subscription."""

_found = partial(Finding, area=BROKER)


async def examine_broker(
    settings: Settings, presence: Presence, boot: str | None
) -> AsyncGenerator[Finding, None]:
    """Go as far towards the broker as it lets us; the first failure ends it.

    Args:
        settings: which broker, and as whom.
        presence: the daemon of this host.
        boot: this boot's name.
    """
    try:
        broker = resolve_broker(settings)
    except ConfigurationError as error:
        yield _found(
            name="which",
            verdict="failure",
            finding=str(error),
            remedy="set mqtt.host to your broker's name, or have one inside: pip install 'neuromodd[broker]'",
        )
        return
    if "://" in broker.host or "@" in broker.host:
        # It may hold a password.
        yield _found(
            name="which",
            verdict="failure",
            finding="mqtt.host is a URL, and has to be the broker's name alone",
            remedy="set mqtt.host, mqtt.port, mqtt.username and mqtt.password_file each by itself",
        )
        return
    if broker.embedded:
        async for finding in _embedded(broker, presence):
            yield finding
            if finding.verdict == "failure":
                return
        if not presence.here:
            return
    async for finding in _reach(broker):
        yield finding
        if finding.verdict == "failure":
            return
    async for finding in _speak(settings, broker, presence, boot):
        yield finding


async def _embedded(broker: BrokerAddress, presence: Presence) -> AsyncGenerator[Finding, None]:
    yield _found(
        name="which",
        verdict="note",
        finding=f"the embedded one on {broker.host}:{broker.port}: for a first try, as it forgets all",
        remedy="set mqtt.host to a broker that stays",
    )
    found = partial(_found, name="port")
    free = judge_port(broker.host, broker.port)
    if presence.here:
        return
    if free is None:
        yield found(verdict="ok", finding=f"{broker.port} is free for it")
        return
    holder = await asyncio.to_thread(holder_of, broker.port)
    yield found(
        verdict="failure",
        finding=f"{broker.port} can't be had: {free}{holder}",
        remedy="set mqtt.host to use the broker there, or mqtt.port for another port",
    )


async def _reach(broker: BrokerAddress) -> AsyncGenerator[Finding, None]:
    """Resolve the name, and open a connection to the first address that takes it."""
    loop = asyncio.get_running_loop()
    found = partial(_found, name="name")
    try:
        async with asyncio.timeout(RESOLVE_S):
            places = await loop.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        yield found(
            verdict="failure",
            finding=f"{broker.host}: no name server answered within {RESOLVE_S:g} s",
            remedy=f"getent hosts {broker.host} asks the same; look at /etc/resolv.conf and the network",
        )
        return
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name that can be looked up"
        yield found(
            verdict="failure",
            finding=f"{broker.host}: {reason}",
            remedy=f"correct mqtt.host, or give it an address; getent hosts {broker.host} asks the same",
        )
        return
    addresses = list(dict.fromkeys(of[4][0] for of in places))
    told = "" if addresses == [broker.host] else f" is {', '.join(map(str, addresses))}"
    yield found(verdict="ok", finding=f"{broker.host}{told}")
    yield await _connection(broker, places)


async def _connection(broker: BrokerAddress, places: list[Any]) -> Finding:
    loop = asyncio.get_running_loop()
    found = partial(_found, name="connection")
    place = f"{broker.host}:{broker.port}"
    trouble: OSError = TimeoutError()
    # One that drops packets must not take the time of those after it.
    each_s = REACH_S / min(len(places), 4)
    for family, kind, number, _, address in places[:4]:
        with socket.socket(family, kind, number) as link:
            link.settimeout(0)
            try:
                async with asyncio.timeout(each_s):
                    await loop.sock_connect(link, address)
            except OSError as error:
                trouble = error
                continue
            return found(verdict="ok", finding=f"{place} takes it")
    return _unreached(broker, trouble)


def _unreached(broker: BrokerAddress, error: OSError) -> Finding:
    found = partial(_found, name="connection", verdict="failure")
    place = f"{broker.host}:{broker.port}"
    if isinstance(error, TimeoutError):
        return found(
            finding=f"{place} does not answer within {REACH_S:g} s",
            remedy="is the host up (ping), and does a firewall drop port "
            f"{broker.port}? nc -vz {broker.host} {broker.port} tries the same",
        )
    if isinstance(error, ConnectionRefusedError):
        return found(
            finding=f"{place} refuses it: nobody listens there",
            remedy="start the broker (systemctl status mosquitto), correct mqtt.port, or let it listen on "
            "more than loopback (`listener 1883` in mosquitto.conf)",
        )
    return found(
        finding=f"{place}: {error.strerror or error}",
        remedy="look at this host's network: ip route get, ping",
    )


async def _speak(
    settings: Settings, broker: BrokerAddress, presence: Presence, boot: str | None
) -> AsyncGenerator[Finding, None]:
    """Log in under a name of our own, and hear what the broker keeps of this node."""
    chosen = settings.mqtt.protocol
    first: Protocol = "3.1.1" if broker.embedded or chosen == "3.1.1" else "5"
    for protocol in dict.fromkeys((first, "3.1.1" if chosen == "auto" else first)):
        try:
            kept, refused = await _ask(settings, broker, protocol)
        except MqttLinkError as error:
            if protocol == "5" and chosen == "auto" and _may_be_old(error):
                continue
            yield told_error(settings, Trouble.of(error))
            return
        except TimeoutError:
            yield told_error(settings, Trouble(f"no answer within {SPEAK_S:g} s", silent=True))
            return
        except (OSError, UnicodeDecodeError) as error:
            yield _unreadable(error)
            return
        yield _found(name="login", verdict="ok", finding=_logged_in(settings, protocol))
        yield judge_node(kept, refused, settings.node_name(), presence, boot)
        yield judge_publishing(presence)
        return


def _logged_in(settings: Settings, protocol: Protocol) -> str:
    mqtt = settings.mqtt
    by_certificate = "by certificate" if mqtt.tls.cert_file is not None else "without a name"
    whom = by_certificate if mqtt.username is None else f"as {mqtt.username}"
    return f"MQTT {protocol}, {whom}" + (", over TLS" if mqtt.tls_enabled else "")


def _may_be_old(error: MqttLinkError) -> bool:
    """Whether the broker may only not know MQTT 5."""
    return error.unsupported or error.unanswered


def _unreadable(error: OSError | UnicodeDecodeError) -> Finding:
    where = error.filename if isinstance(error, OSError) else "mqtt.password_file"
    why = error.strerror if isinstance(error, OSError) else "not in UTF-8"
    return _found(
        name="login",
        verdict="failure",
        finding=f"{where}: {why}",
        remedy="let the daemon's user read that file: chown, chmod 600",
    )


async def _ask(
    settings: Settings, broker: BrokerAddress, protocol: Protocol
) -> tuple[Kept, Mapping[str, str]]:
    """What the broker keeps of this node, and which subscriptions it refused."""
    mqtt = settings.mqtt
    endpoint = Endpoint(
        host=broker.host,
        port=broker.port,
        # Not the daemon's: two of one id put each other off.
        identifier=f"neuromodd-doctor-{uuid.uuid4().hex[:12]}",
        username=mqtt.username,
        password=mqtt.read_password(),
        tls=Tls.of(mqtt.tls) if mqtt.tls_enabled else None,
        protocol=protocol,
    )
    status, info = (topic(mqtt.prefix, settings.node_name(), name) for name in ("status", "info"))
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(SPEAK_S):
            link = await stack.enter_async_context(connect(endpoint))
            refused = await link.subscribe({status: 0, info: 0})
        kept = await _retained(link)
        return Kept(kept.get(status), _document(kept.get(info))), refused


async def _retained(link: Link) -> dict[str, bytes | None]:
    heard: dict[str, bytes | None] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RETAINED_S):
            async for message in link.incoming():
                heard[message.topic] = message.payload
                if len(heard) == 2:  # noqa: PLR2004 - status and info
                    break
    return heard


def _document(payload: bytes | None) -> Mapping[str, Any] | None:
    try:
        values = json.loads(payload or b"null")
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
