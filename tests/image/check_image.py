"""The Dockerfile, built; its image, running."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import BASE, IMAGE, Buildah, Container
from harness import Listener, Mosquitto, free_port, wait_for
from web_client import get

from neuromodd import __version__

LARGEST_MB = 200

ARGUMENTS = {"BASE": BASE, "VERSION": __version__, "REVISION": "0123abc", "CREATED": "2026-11-01T00:00:00Z"}


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    """The built image's storage; nothing of it stays."""
    assert os.geteuid() == 0, (
        "`make image-test` runs this as root: debootstrap, namespaces and mounts need it"
    )
    directory = Path(tempfile.mkdtemp(prefix="neuromodd-image-", dir=os.environ.get("TMPDIR", "/var/tmp")))  # noqa: S108
    engine = Buildah(directory)
    try:
        engine.build_base()
        engine.build(ARGUMENTS)
        yield engine
    finally:
        engine.close()
        left = [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line
        ]
        assert left == [], "removing a folder that is mounted into would remove what is mounted"
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def config(buildah: Buildah) -> dict[str, Any]:
    found: dict[str, Any] = buildah.inspect(IMAGE)["config"]
    return found


@pytest.fixture(scope="module")
def root(buildah: Buildah) -> Path:
    return buildah.unpack(IMAGE)


@pytest.fixture
def volume(buildah: Buildah) -> Path:
    """A named volume, which begins with the owner and mode of the image's folder."""
    volume = Path(tempfile.mkdtemp(prefix="volume-", dir=buildah.directory))
    os.chown(volume, 10001, 10001)
    return volume


@pytest.fixture
def start(root: Path, config: dict[str, Any], volume: Path) -> Iterator[Callable[..., Container]]:
    """Starts containers; all are killed at the end."""
    started: list[Container] = []

    def run(port: int = 1, command: list[str] | None = None, **environ: str) -> Container:
        broker = {
            "NEUROMODD_MQTT__HOST": "127.0.0.1",
            "NEUROMODD_MQTT__PORT": str(port),
            "NEUROMODD_NODE": "lab",
        }
        host = {"NEUROMODD_SENSORS__PROCFS_ROOT": "/host/proc", "NEUROMODD_SENSORS__SYSFS_ROOT": "/host/sys"}
        started.append(
            Container(root, config, volume=volume, environ=broker | host | environ, command=command)
        )
        return started[-1]

    yield run
    for container in started:
        container.close()


# The image


def test_it_runs_the_daemon_as_a_user_of_its_own(config: dict[str, Any]) -> None:
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("10001:10001", ["neuromodd"], ["run"])
    assert list(config["Volumes"]) == ["/var/lib/neuromodd"]


def test_its_health_check_is_the_health_command(config: dict[str, Any]) -> None:
    assert config["Healthcheck"]["Test"] == ["CMD", "neuromodd", "health"]


def test_its_labels_say_what_it_was_built_from(config: dict[str, Any]) -> None:
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): text for name, text in config["Labels"].items() if prefix in name}
    assert labels["version"] == __version__
    assert labels["revision"] == ARGUMENTS["REVISION"]
    assert labels["created"] == ARGUMENTS["CREATED"]
    assert labels["licenses"] == "MIT OR Apache-2.0"


def test_it_has_the_wheel_and_neither_source_nor_pip_nor_compiler(root: Path) -> None:
    package = next(root.glob("opt/neuromodd/lib/python3.*/site-packages/neuromodd"))
    record = next(package.parent.glob("neuromodd-*.dist-info")) / "RECORD"
    assert "neuromodd/daemon.py" in record.read_text()
    programs = {path.name for folder in root.glob("**/bin") if folder.is_dir() for path in folder.iterdir()}
    assert "neuromodd" in programs
    assert programs & {"pip", "pip3", "gcc", "cc", "c++", "ld", "make"} == set()
    assert list(root.glob("**/site-packages/pip")) == []
    assert list(root.glob("**/neuromodd/daemon.py")) == [package / "daemon.py"]
    assert not (root / "build").exists()


def test_what_the_daemon_imports_is_compiled(start: Callable[..., Container]) -> None:
    code = (
        "import neuromodd.daemon, os, sys; "
        "cached = {module: getattr(sys.modules[module], '__cached__', None) for module in sys.modules}; "
        "print([module for module, file in cached.items() if file and not os.path.exists(file)])"
    )
    done = start().run_beside(["python", "-c", code])
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_it_is_not_large(buildah: Buildah, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base_mb, image_mb = _size_mb(buildah.unpack(BASE)), _size_mb(root)
    with capsys.disabled():
        sys.stdout.write(f"\nbase {base_mb:.0f} MB, with the packages {image_mb:.0f} MB\n")
    assert image_mb < LARGEST_MB


def _size_mb(root: Path) -> float:
    files = (Path(folder, name).lstat() for folder, _, names in os.walk(root) for name in names)
    return sum({status.st_ino: status.st_size for status in files}.values()) / 1e6


# The container


def test_it_publishes_what_the_host_measures_as_its_user_with_a_read_only_root(
    mosquitto: Mosquitto, listen: Callable[..., Listener], start: Callable[..., Container]
) -> None:
    listener = listen(mosquitto.port)
    container = start(mosquitto.port)
    frame = listener.wait("telemetry", count=2).json
    assert listener.status() == "online"
    status = container.status
    assert status["Uid"].split() == ["10001"] * 4
    assert status["NSpid"].split()[-1] == "1"
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")
    mounts = Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
    assert [line.split()[5].split(",")[0] for line in mounts if line.split()[4] == "/"] == ["ro"]
    assert frame["cpu"]["utilization_ratio"] is not None
    assert frame["memory"]["total_bytes"] is not None
    assert (listener.wait("info").json["boot_id"] or "") in Path(
        "/proc/sys/kernel/random/boot_id"
    ).read_text()


def test_it_serves_the_page_when_asked_to(
    mosquitto: Mosquitto, listen: Callable[..., Listener], start: Callable[..., Container]
) -> None:
    listener, port = listen(mosquitto.port), free_port()
    web = {"NEUROMODD_WEB__ENABLED": "true", "NEUROMODD_WEB__HOST": "0.0.0.0"}  # noqa: S104 - in the container
    start(mosquitto.port, NEUROMODD_WEB__PORT=str(port), **web)
    listener.wait("health", lambda heard: heard.json["web"] == {"pages": 0, "error": None})

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return get(port, "/readyz").status == 200
        return False

    wait_for(answers, "the web view")
    assert get(port, "/").body.startswith(b"<!doctype html>")


def test_its_health_check_passes_while_it_ticks_and_fails_while_it_is_stuck(
    mosquitto: Mosquitto,
    listen: Callable[..., Listener],
    start: Callable[..., Container],
    config: dict[str, Any],
) -> None:
    listener = listen(mosquitto.port)
    container = start(mosquitto.port)
    listener.wait("telemetry")
    check = config["Healthcheck"]["Test"][1:]
    passed = container.run_beside(check)
    assert (passed.returncode, passed.stderr) == (0, "")
    assert "the broker is connected" in passed.stdout
    container.signal(signal.SIGSTOP)
    failed = container.run_beside(check)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "no answer within 3 s" in failed.stderr


def test_its_health_check_passes_while_the_broker_is_awaited(
    start: Callable[..., Container], config: dict[str, Any]
) -> None:
    container = start()
    check = config["Healthcheck"]["Test"][1:]
    said = wait_for(lambda: container.run_beside(check).stdout, "an answer of the daemon")
    assert "the broker is awaited" in said


def test_its_health_command_fails_without_a_daemon(start: Callable[..., Container]) -> None:
    container = start(command=["health"])
    assert container.wait() == 1
    assert "no daemon answers" in container.output()


def test_sigterm_ends_it_well_and_the_next_one_goes_on(
    mosquitto: Mosquitto, listen: Callable[..., Listener], start: Callable[..., Container], volume: Path
) -> None:
    listener = listen(mosquitto.port)
    container = start(mosquitto.port)
    listener.wait("telemetry")
    container.signal(signal.SIGTERM)
    assert container.wait() == 0
    wait_for(lambda: listener.status() == "offline", "offline")
    assert list(volume.glob("checkpoint-*.json"))
    assert "health_socket_failed" not in container.output()
    again = start(mosquitto.port)
    listener.wait("status", lambda heard: heard.payload == b"online", count=2)
    again.signal(signal.SIGTERM)
    assert again.wait() == 0
    events = [json.loads(line)["event"] for line in again.output().splitlines() if line.startswith("{")]
    assert "resumed" in events


def test_sigterm_ends_it_before_the_daemon_handles_it(start: Callable[..., Container]) -> None:
    container = start()
    mapped = Path(f"/proc/{container.pid}/maps")
    # The configuration is under way, and the daemon is still to come.
    wait_for(lambda: "pydantic_core" in mapped.read_text(), "the import of pydantic")
    container.signal(signal.SIGTERM)
    assert container.wait() == 128 + signal.SIGTERM
