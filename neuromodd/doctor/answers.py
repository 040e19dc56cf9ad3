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

_NOT_ACCEPTED = "certificate is not accepted"

_ITS_NAME = "set mqtt.host to a name that stands in the broker's certificate, or issue that anew"
_ITS_TIME = "renew the broker's certificate, and see that this host's clock is right"
_OUR_OWN = "set mqtt.tls.cert_file and key_file to a certificate that the broker's authority has signed"

_REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    ((_NOT_ACCEPTED, "hostname"), _ITS_NAME),
    ((_NOT_ACCEPTED, "ip address"), _ITS_NAME),
    ((_NOT_ACCEPTED, "expired"), _ITS_TIME),
    ((_NOT_ACCEPTED, "not yet valid"), _ITS_TIME),
    (("our certificate",), _OUR_OWN),
    (("certificate required",), _OUR_OWN),
    (("no tls port",), "set mqtt.port to the broker's TLS port (mostly 8883), or leave mqtt.tls out"),
)
"""Words of a failure, all of which it has, and what to do about it."""

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
        f"correct mqtt.password_file, or set the password of {mqtt.username} at the broker anew: "
        "mosquitto_passwd, then systemctl reload mosquitto"
    )


def _silence(settings: Settings) -> str:
    port = resolved_port(settings)
    if settings.mqtt.tls_enabled:
        return f"is {port} the broker's TLS port (mostly 8883)? if so, restart the broker: it hangs"
    return (
        f"is {port} the port of an MQTT broker? one that speaks TLS needs mqtt.tls.enabled = true; one that "
        "hangs needs a restart"
    )


def _tls(settings: Settings, reason: str) -> str:
    words = reason.lower()
    for told, remedy in _REMEDIES:
        if all(word in words for word in told):
            return remedy
    if _NOT_ACCEPTED in words:
        file = settings.mqtt.tls.ca_file
        signer = "the certificate of the authority that has signed the broker's"
        return f"set mqtt.tls.ca_file to {signer}" + ("" if file is None else f"; {file} is another one")
    if settings.mqtt.tls_enabled:
        return "correct the files in mqtt.tls; openssl s_client -connect HOST:PORT shows the same handshake"
    return "the broker's log says more: journalctl -u mosquitto"


def resolved_port(settings: Settings) -> int:
    """The broker's port, set or not."""
    return settings.mqtt.port or (8883 if settings.mqtt.tls_enabled else 1883)
