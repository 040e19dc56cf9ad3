"""The configuration: where it came from, what is wrong with it, and options that do not go together."""

from __future__ import annotations

import importlib.util
import ipaddress
from collections.abc import Callable, Iterator
from functools import partial

from neuromodd.config import Settings
from neuromodd.core.engine import LARGE_SYNAPSES
from neuromodd.doctor.findings import Finding
from neuromodd.errors import ConfigurationError, ConfigurationFault
from neuromodd.loading import Loaded

AREA = "configuration"

_found = partial(Finding, area=AREA)


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    return importlib.util.find_spec(module) is not None


def examine_refused(error: ConfigurationError) -> Iterator[Finding]:
    """Say what is wrong with a configuration that can't be used."""
    for fault in error.faults:
        yield _found(
            name=fault.place, verdict="failure", finding=str(fault), remedy=f"correct {_where(fault)}"
        )
    for warning in error.warnings:
        yield _warning(warning)


def _where(fault: ConfigurationFault) -> str:
    if fault.origin is None:
        return "it, or name another file with --config" if "/" in fault.place else "that option"
    if fault.origin.startswith("-"):
        return f"{fault.origin} on the command line"
    return f"it in {fault.origin}" if "/" in fault.origin else f"the variable {fault.origin}, or unset it"


def _warning(text: str) -> Finding:
    return _found(name="warning", verdict="warning", finding=text, remedy="correct its name, or remove it")


def examine_configuration(
    loaded: Loaded, *, installed: Callable[[str], bool] = is_installed
) -> Iterator[Finding]:
    """Say which configuration it is, and which of its options do not go together."""
    if loaded.file is None:
        yield _found(
            name="file",
            verdict="note",
            finding="none: defaults, the environment and the command line",
            remedy="write what differs into /etc/neuromodd/neuromodd.toml, or name a file with --config",
        )
    else:
        yield _found(name="file", verdict="ok", finding=str(loaded.file))
    for warning in loaded.warnings:
        yield _warning(warning)
    settings = loaded.settings
    yield _found(name="node", verdict="ok", finding=f"{settings.node_name()}, below {_topics(settings)}")
    yield from _needs(settings, installed)
    yield from _secrets(settings)
    yield from _pointless(settings)


def _topics(settings: Settings) -> str:
    return f"{settings.mqtt.prefix}/{settings.node_name()}/"


def _needs(settings: Settings, installed: Callable[[str], bool]) -> Iterator[Finding]:
    """Options that need an extra."""
    if settings.recorder.enabled and settings.recorder.compress and not installed("zstandard"):
        yield _found(
            name="recorder.compress",
            verdict="failure",
            finding="the daemon does not start: it needs the extra `zstd`",
            remedy="pip install 'neuromodd[zstd]', or set it to false",
        )
    if settings.web.enabled and not (installed("starlette") and installed("uvicorn")):
        yield _found(
            name="web.enabled",
            verdict="failure",
            finding="the daemon does not start: it needs the extra `web`",
            remedy="pip install 'neuromodd[web]', or set it to false",
        )
    synapses = settings.engine.lif_neurons * settings.engine.channels
    if synapses >= LARGE_SYNAPSES and not installed("numba"):
        yield _found(
            name="engine",
            verdict="warning",
            finding=f"{synapses} synapses in plain Python take long",
            remedy="pip install 'neuromodd[fast]'",
        )


def _secrets(settings: Settings) -> Iterator[Finding]:
    """What others on the network could read, or send."""
    mqtt = settings.mqtt
    if mqtt.username is not None and not mqtt.tls_enabled and not is_local(mqtt.host):
        yield _found(
            name="mqtt.tls",
            verdict="warning",
            finding="the password crosses the network in the clear",
            remedy="set mqtt.tls.enabled, and mqtt.tls.ca_file for a broker with a certificate of your own",
        )
    if mqtt.password is not None:
        yield _found(
            name="mqtt.password",
            verdict="note",
            finding="the password is in the configuration",
            remedy="put it into a file for the daemon's user alone, and name that in mqtt.password_file",
        )
    if (
        mqtt.inbound.enabled
        and mqtt.username is None
        and mqtt.tls.cert_file is None
        and mqtt.host is not None
    ):
        yield _found(
            name="mqtt.inbound",
            verdict="warning",
            finding="the broker is used without a login: whoever reaches it may teach this node, or reset it",
            remedy="give the broker users and an ACL, as in config/mosquitto; then set mqtt.username",
        )
    if settings.web.enabled and not is_local(settings.web.host):
        yield _found(
            name="web.host",
            verdict="note",
            finding=f"whoever reaches {settings.web.place} may read there, without a login",
            remedy="set web.host to 127.0.0.1, or put a proxy with a login before it",
        )


def _pointless(settings: Settings) -> Iterator[Finding]:
    """Options that are set and do nothing, or keep another from working."""
    mqtt = settings.mqtt
    if settings.homeassistant.enabled and mqtt.publish.state == "off":
        yield _found(
            name="homeassistant",
            verdict="warning",
            finding="its entities show nothing while mqtt.publish.state is off",
            remedy='set mqtt.publish.state to "every 1", or another cadence',
        )
    if mqtt.buffer_telemetry and mqtt.publish.telemetry == "off":
        yield _found(
            name="mqtt.buffer_telemetry",
            verdict="note",
            finding="nothing is kept while mqtt.publish.telemetry is off",
            remedy="set one of the two otherwise",
        )
    if settings.recorder.compress and not settings.recorder.enabled:
        yield _found(
            name="recorder.compress",
            verdict="note",
            finding="nothing is recorded, so nothing compressed",
            remedy="set recorder.enabled, or leave it out",
        )


def is_local(host: str | None) -> bool:
    """Whether a host's name or address is this host itself; no host is the embedded broker's."""
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
