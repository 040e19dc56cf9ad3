"""What a broker, or TLS on the way to it, answers, and what to do about it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from neuromodd.config import Settings
from neuromodd.doctor.findings import Finding
from neuromodd.errors import MqttLinkError

BROKER = "broker"

SYSTEM_PASSWORD = Path("/etc/neuromodd/password")
"""What the unit hands over to the service."""

_found = partial(Finding, area=BROKER, name="login", verdict="failure")


class Trouble(NamedTuple):
    """Why nobody could log in.

    Attributes:
        reason: in words.
        refused: the broker does not take the login.
        silent: it said nothing, or hung up.
    """

    reason: str
    refused: bool = False
    silent: bool = False

    @classmethod
    def of(cls, error: MqttLinkError) -> Trouble:
        """As the client told it."""
        return cls(str(error), refused=error.refused_login, silent=error.unanswered)


def told_error(settings: Settings, trouble: Trouble) -> Finding:
    """The failure, with what to do about it."""
    return _found(finding=trouble.reason, remedy=remedy_for(settings, trouble))


def remedy_for(settings: Settings, trouble: Trouble) -> str:
    """What to do about an answer of the broker, or about none."""
    if trouble.refused:
        return _login(settings)
    if trouble.silent:
        return _silence(settings)
    return _tls(settings, trouble.reason)


def _login(settings: Settings) -> str:
    mqtt = settings.mqtt
    if mqtt.username is None:
        return "set mqtt.username and mqtt.password_file to a user of the broker (mosquitto_passwd makes one)"
    if mqtt.password is None and mqtt.password_file is None and SYSTEM_PASSWORD.exists():
        return f"the service is handed its password; to try with it: --mqtt.password_file {SYSTEM_PASSWORD}"
    if mqtt.password is None and mqtt.password_file is None:
        return f"give {mqtt.username} its password: mqtt.password_file"
    return (
        f"set the password of {mqtt.username} at the broker anew (mosquitto_passwd, then reload it), or correct "
        "mqtt.password_file"
    )


def _silence(settings: Settings) -> str:
    port = resolved_port(settings)
    if settings.mqtt.tls_enabled:
        return f"is {port} the broker's TLS port (mostly 8883)? if so, restart the broker: it hangs"
    return (
        f"is {port} the port of an MQTT broker? one that speaks TLS needs mqtt.tls.enabled = true; one that hangs "
        "needs a restart"
    )


def _tls(settings: Settings, reason: str) -> str:
    lower = reason.lower()
    if "certificate is not accepted" in lower:
        if "hostname" in lower or "ip address mismatch" in lower:
            return "set mqtt.host to a name that stands in the broker's certificate, or issue that anew"
        if "expired" in lower or "not yet valid" in lower:
            return "renew the broker's certificate, and see that this host's clock is right"
        if settings.mqtt.tls.ca_file is None:
            return "set mqtt.tls.ca_file to the certificate of the authority that has signed the broker's"
        return f"{settings.mqtt.tls.ca_file} is not the authority of the broker's certificate: copy the right one"
    if "our certificate" in lower or "certificate required" in lower:
        return "set mqtt.tls.cert_file and key_file to a certificate that the broker's authority has signed"
    if "is it no tls port" in lower:
        return "set mqtt.port to the broker's TLS port (mostly 8883), or leave mqtt.tls out"
    if settings.mqtt.tls_enabled:
        return "correct the files in mqtt.tls; openssl s_client -connect HOST:PORT shows the same handshake"
    return "the broker's log says more: journalctl -u mosquitto"


def resolved_port(settings: Settings) -> int:
    """The broker's port, set or not."""
    return settings.mqtt.port or (8883 if settings.mqtt.tls_enabled else 1883)
