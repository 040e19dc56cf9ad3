"""TLS towards the broker, and what goes wrong with it in words that help."""

from __future__ import annotations

import logging
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from neuromodd.config import TlsSettings
from neuromodd.errors import MqttLinkError

_PLACE = re.compile(r"^\[(SSL|Errno)[^]]*\] | \(_ssl\.c:\d+\)$")
_ALERT = re.compile(r"^(?:tls|ssl)v\d+ alert (.*)$")
_VERIFY = "certificate verify failed: "

_NO_TLS = ("reset by peer", "wrong version number", "EOF occurred", "record layer failure")
"""How a TLS handshake fails with somebody who does not speak it."""

_ABOUT_CERTIFICATES = ("certificate", "unknown ca", "access denied")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to speak TLS: version 1.2 or later, the broker's certificate and name always verified.

    Attributes:
        ca_file: certificates to trust instead of the system's.
        cert_file: our own certificate, where the broker asks for one; its key may be in the same file.
        key_file: the key of `cert_file`.
        key_password: of an encrypted key.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: TlsSettings) -> Tls:
        """As the settings say.

        Raises:
            OSError: the file with the key's password can't be read.
        """
        return cls(
            ca_file=settings.ca_file,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            key_password=settings.key_password(),
        )

    def context(self) -> ssl.SSLContext:
        """What the connection is made with; reads the files.

        Raises:
            MqttLinkError: a file can't be read or used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise MqttLinkError(f"{self.ca_file}: {plain(error)}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _Socket
        if self.cert_file is not None:
            try:
                # Without a password, OpenSSL would ask on the terminal for that of an encrypted key.
                context.load_cert_chain(self.cert_file, self.key_file, lambda: self.key_password or "")
            except (OSError, ValueError) as error:
                files = " with ".join(str(of) for of in (self.cert_file, self.key_file) if of is not None)
                raise MqttLinkError(f"{files}: {plain(error)}") from None
        return context


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho leaves it open until it is collected."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the base's
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class Complaints(logging.Handler):
    """Hears why a socket failed, which paho tells its log alone; what else it says is passed on.

    Attributes:
        error: the first failure; an alert of the other side goes before what it caused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: OSError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a failure."""
        failures = [of for of in record.args or () if isinstance(of, OSError)]
        if not failures:
            logging.getLogger(record.name).handle(record)
        for failure in failures:
            self.note(failure)

    def note(self, failure: OSError) -> None:
        """Keep a failure, unless there is a better one."""
        if self.error is None or (_is_word(failure) and not self.alerted):
            self.error = failure

    def listen(self, closing: object) -> None:
        """Read once more on a socket that could not be written to: the reason may be waiting there."""
        if not isinstance(closing, ssl.SSLSocket) or self.alerted:
            return
        try:
            closing.recv(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ValueError):
            pass
        except OSError as error:
            self.note(error)

    @property
    def alerted(self) -> bool:
        """Whether the other side said what it dislikes about our TLS."""
        return _is_word(self.error)


def _is_word(error: OSError | None) -> bool:
    """Whether an error tells more than that the other side is gone."""
    gone = ssl.SSLEOFError, ssl.SSLZeroReturnError
    return isinstance(error, ssl.SSLError) and not isinstance(error, gone)


def plain(error: BaseException | None, *, tls: bool = False) -> str:
    """What went wrong, and on whose side, without OpenSSL's file names; `tls` if TLS was to be spoken."""
    text = "" if error is None else str(error)
    text = _PLACE.sub("", _PLACE.sub("", text))
    if text.startswith(_VERIFY):
        return f"the broker's certificate is not accepted: {text.removeprefix(_VERIFY).rstrip('.')}"
    alert = _ALERT.match(text)
    if alert is not None:
        ours = any(word in alert[1] for word in _ABOUT_CERTIFICATES)
        return f"the broker {'does not accept our certificate' if ours else 'refuses our TLS'}: {alert[1]}"
    if tls and any(word in text for word in _NO_TLS):
        return f"{text}; is it no TLS port?"
    return text or type(error).__name__
