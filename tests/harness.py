"""Real processes for tests: a private broker, the daemon, and somebody who listens."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

T = TypeVar("T")
WAIT_S = 20.0


def wait_for(look: Callable[[], T | None], what: str, timeout_s: float = WAIT_S) -> T:
    """Poll `look` until it finds something; fail with `what` after the deadline."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {what}")
        pause.wait(0.02)


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel gives to clients.

    From among these, a client that calls again and again is one day given the very port that it calls, and
    then talks to itself.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Not the seeded generator: two runs of the tests at once are not to ask for the same.
    chosen = random.SystemRandom()
    while True:
        port = chosen.randrange(10_000, first)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Mosquitto:
    """A mosquitto of one's own on a loopback port; it may be killed and started again."""

    def __init__(self, directory: Path, extra: Sequence[str] = ()) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert program, "mosquitto is not installed; `make test` installs it"
        self._program = program
        self.port = free_port()
        self._config = directory / f"mosquitto-{self.port}.conf"
        lines = [f"listener {self.port} 127.0.0.1", *(extra or ["allow_anonymous true"]), "user root"]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._answers, f"mosquitto on port {self.port}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(WAIT_S)
            self._process = None

    def freeze(self) -> None:
        """Stop the broker in the midst of whatever it does; it can still be killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Heard(NamedTuple):
    """One message as it arrived; the rest is of MQTT 5."""

    at_s: float
    topic: str
    payload: bytes
    retained: bool
    qos: int
    content_type: str | None = None
    expiry_s: int | None = None
    properties: tuple[tuple[str, str], ...] = ()
    correlation: bytes | None = None

    @property
    def name(self) -> str:
        """What comes after prefix and node: `state`, `in/reward`, `response/me`."""
        return self.topic.split("/", 2)[-1]

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


class Listener:
    """Subscribes to everything on a broker and keeps what it hears; `newest` is MQTT 5."""

    def __init__(self, port: int, *, newest: bool = False, login: tuple[str, str] | None = None) -> None:
        self.heard: list[Heard] = []
        version = paho.MQTTv5 if newest else paho.MQTTv311
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        if login is not None:
            self._client.username_pw_set(*login)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = self._hear
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        properties = message.properties
        self.heard.append(
            Heard(
                time.monotonic(),
                message.topic,
                bytes(message.payload),
                message.retain,
                message.qos,
                getattr(properties, "ContentType", None),
                getattr(properties, "MessageExpiryInterval", None),
                tuple(getattr(properties, "UserProperty", ())),
                getattr(properties, "CorrelationData", None),
            )
        )

    def ask(
        self, topic: str, payload: bytes, *, answer: str | None = None, correlation: bytes = b"", **how: Any
    ) -> None:
        """Publish a request, with a response topic if an answer is expected (MQTT 5)."""
        properties = None
        if answer is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = answer
            properties.CorrelationData = correlation
        self._client.publish(topic, payload, **{"qos": 1, **how}, properties=properties)

    def named(self, name: str) -> list[Heard]:
        return [heard for heard in list(self.heard) if heard.name == name]

    def wait(
        self,
        name: str,
        accept: Callable[[Heard], bool] = lambda _: True,
        *,
        count: int = 1,
        timeout_s: float = WAIT_S,
    ) -> Heard:
        """The newest of the first `count` messages on a topic that `accept` likes."""

        def found() -> Heard | None:
            liked = [heard for heard in self.named(name) if accept(heard)]
            return liked[count - 1] if len(liked) >= count else None

        return wait_for(found, f"{count} x {name}", timeout_s)

    def status(self) -> str | None:
        heard = self.named("status")
        return heard[-1].payload.decode() if heard else None

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Daemon:
    """A real neuromodd in a process of its own, and the lines that it logged."""

    def __init__(self, arguments: Sequence[str], environ: dict[str, str], log: Path | None = None) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NEUROMODD_")}
        with contextlib.ExitStack() as stack:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "neuromodd", "run", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if log is None else stack.enter_context(log.open("wb")),
                env={**clean, "XDG_CONFIG_HOME": "/nonexistent", **environ},
            )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append(line.decode().rstrip("\n"))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events if entry["event"] == event]

    def wait_log(self, event: str, *, count: int = 1) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            entries = self.logged(event)
            if len(entries) < count and self.process.poll() is not None:
                pytest.fail(f"ended with {self.process.returncode} before {event}: {self.lines}")
            return entries[count - 1] if len(entries) >= count else None

        return wait_for(found, f"{count} x {event} in the log")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
