"""Fixtures that start real processes and end them, and a driver library that plays scenarios."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from harness import Daemon, Listener, Mosquitto


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Starts brokers; all are stopped at the end."""
    started: list[Mosquitto] = []

    def start(extra: Sequence[str] = ()) -> Mosquitto:
        started.append(Mosquitto(tmp_path, extra))
        return started[-1]

    yield start
    for broker in started:
        broker.stop()


@pytest.fixture
def mosquitto(start_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    return start_mosquitto()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """Starts listeners; all are closed at the end."""
    started: list[Listener] = []

    def start(port: int, *, newest: bool = False) -> Listener:
        started.append(Listener(port, newest=newest))
        return started[-1]

    yield start
    for listener in started:
        listener.close()


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons named `lab` with a state directory under tmp_path; all are killed at the end."""
    started: list[Daemon] = []

    def start(
        *arguments: str,
        port: int | None = None,
        environ: dict[str, str] | None = None,
        log: Path | None = None,
    ) -> Daemon:
        base = ["--node", "lab", "--checkpoint.directory", str(tmp_path / "state"), "--log.format", "json"]
        broker = [] if port is None else ["--mqtt.host", "127.0.0.1", "--mqtt.port", str(port)]
        started.append(Daemon([*base, *broker, *arguments], environ or {}, log))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


@pytest.fixture(scope="session")
def nvml_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `stub` and `newer` with a `libnvidia-ml.so.1` each, which plays scenarios (nvml_stub.c)."""
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("sensors") / "nvml_stub.c"
    strict = ["gcc", "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    for name, version in (("stub", "1"), ("newer", "2")):
        library = folder / name / "libnvidia-ml.so.1"
        library.parent.mkdir()
        subprocess.run([*strict, f'-DVERSION="{version}"', "-o", library, source], check=True)
    return folder
