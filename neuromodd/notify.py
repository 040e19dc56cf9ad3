"""What a service manager is told of the daemon: sd_notify, datagrams to the socket of $NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping

STATUS_CHARACTERS = 400


class ServiceManager:
    """systemd, or whoever else speaks its protocol; without one, nobody is told anything.

    Args:
        environ: where $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID are.
        clock: monotonic seconds of the kernel (CLOCK_MONOTONIC), those of the watchdog.
    """

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._address = _address(environ)
        self._socket: socket.socket | None = None
        self.watchdog_s = _watchdog_s(environ) if self._address else None
        """Without a sign of life for so long we are ended and started anew; None if nobody watches."""
        self._alive_s: float | None = None
        self._status = ""
        self._ready = False

    @property
    def present(self) -> bool:
        """Whether anybody is told."""
        return self._address is not None

    def ready(self) -> bool:
        """The daemon has started; whether that is known by now, or nobody is there to know it."""
        if not self._ready:
            self._ready = self._tell("READY=1")
        return self._ready or not self.present

    def status(self, text: str) -> None:
        """One line for `systemctl status`, sent when it changes."""
        line = " ".join(text.split())[:STATUS_CHARACTERS]
        if line != self._status and self._tell(f"STATUS={line}"):
            self._status = line

    def alive(self) -> None:
        """A sign of life for the watchdog, sent so often as it needs: to be called by the tick loop."""
        if self.watchdog_s is None:
            return
        now_s = self._clock()
        # Four to a deadline: one that is lost, or late, is no end.
        if self._alive_s is not None and 0.0 <= now_s - self._alive_s < self.watchdog_s / 4.0:
            return
        if self._tell("WATCHDOG=1"):
            self._alive_s = now_s

    def reloading(self) -> None:
        """The settings are being read anew; `reloaded` is to follow."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock() * 1e6)}")

    def reloaded(self) -> None:
        """They have been read."""
        if self._ready:
            self._tell("READY=1")

    def stopping(self) -> None:
        """The daemon ends."""
        self._tell("STOPPING=1\nSTATUS=Stopping")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, text: str) -> bool:
        """Whether it was sent: a manager that does not listen must not hold the loop up."""
        if self._address is None:
            return False
        with contextlib.suppress(OSError):
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.sendto(text.encode(), self._address)
            return True
        return False


def _address(environ: Mapping[str, str]) -> str | None:
    """A path, or a name in the abstract namespace, which is written with `@`."""
    path = environ.get("NOTIFY_SOCKET", "")
    if path.startswith("@"):
        return "\0" + path[1:]
    return path if path.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    # The variables are inherited: those of a parent are not meant for us.
    pid = environ.get("WATCHDOG_PID")
    if pid is not None and pid != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        duration_us = int(environ.get("WATCHDOG_USEC", ""))
        return duration_us / 1e6 if duration_us > 0 else None
    return None
