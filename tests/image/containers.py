"""Builds the Dockerfile with buildah and runs the image in namespaces, without a container engine.

What differs from an engine: the base is Debian's Python instead of the official image's; a RUN is a chroot
with the host's network; and a container has its own mounts and processes, a read-only root, a user and no
capabilities, but the host's network and names, and neither seccomp, AppArmor nor a control group of its own.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from harness import WAIT_S, wait_for

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/neuromodd-base"
IMAGE = "localhost/neuromodd"

SETUP = """
set -eu
mount --bind "$ROOT" "$ROOT"
mount -t proc -o nosuid,nodev,noexec proc "$ROOT/proc"
mount --bind /sys "$ROOT/sys"
mount --bind /dev "$ROOT/dev"
mount --bind /sys "$ROOT/host/sys"
mount --bind /proc "$ROOT/host/proc"
for folder in sys host/sys host/proc .; do mount -o remount,bind,ro "$ROOT/$folder"; done
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 tmpfs "$ROOT/run/neuromodd"
mount --bind "$VOLUME" "$ROOT/var/lib/neuromodd"
exec setpriv --no-new-privs chroot --userspec="$OWNER" --groups="" "$ROOT" env -i "$@"
"""
"""/proc and /sys as an engine mounts them, the host's below /host, and then the image's command."""


class Buildah:
    """Buildah with a storage of its own below a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._policy = directory / "policy.json"
        self._policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        storage, run = directory / "storage", directory / "run"
        self._command: list[str | Path] = [
            "buildah",
            "--storage-driver",
            "vfs",
            "--root",
            storage,
            "--runroot",
            run,
        ]

    def __call__(self, verb: str, *arguments: str | Path, quiet: bool = True) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [*self._command, verb, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=None if not quiet else subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"buildah {verb}: {done.stdout}{done.stderr or ''}"
        return done.stdout.strip()

    def build_base(self) -> None:
        """Make what an official slim image of Python has: Debian, Python with venv, and a pip of its own."""
        container = self("from", "scratch")
        root = Path(self("mount", container))
        command = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
        subprocess.run([*command, _codename(), root, _mirror()], check=True, stdout=subprocess.DEVNULL)
        # What Debian's slim images leave out too.
        papers = [f"usr/share/{name}" for name in ("doc", "info", "lintian", "locale", "man")]
        for folder in ("var/cache/apt", "var/lib/apt/lists", *papers):
            shutil.rmtree(root / folder, ignore_errors=True)
        pip = root / "usr/local/lib/python3.99/site-packages/pip"
        pip.mkdir(parents=True)
        (pip / "__init__.py").touch()
        (root / "usr/local/bin/pip3").touch()
        self("unmount", container)
        self("commit", "--signature-policy", self._policy, container, BASE)
        self("rm", container)

    def build(self, arguments: Mapping[str, str]) -> None:
        """Build the Dockerfile as it stands; pip finds packages as it does on this machine."""
        self(
            "build",
            *("--isolation", "chroot", "--format", "docker", "--signature-policy", self._policy),
            *(part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")),
            *(part for volume in _pip_volumes(self.directory) for part in ("--volume", volume)),
            *("--tag", IMAGE, "."),
            quiet=False,
        )

    def inspect(self, image: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))["Docker"]
        return found

    def unpack(self, image: str) -> Path:
        """The root file system of a new container of an image."""
        name = self("from", "--signature-policy", self._policy, image)
        return Path(self("mount", name))

    def close(self) -> None:
        """Let go of all that was made."""
        self("rm", "--all")
        self("rmi", "--all", "--force")


def _codename() -> str:
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def _mirror() -> str:
    """Where apt on this machine gets this release of Debian from."""
    command = ["apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)", "Created-By: Packages"]
    targets = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    sites = [site for codename, site in (line.split(" ", 1) for line in targets) if codename == _codename()]
    assert sites, f"apt knows no mirror of {_codename()}"
    return sites[0]


def _pip_volumes(directory: Path) -> list[str]:
    """A pip.conf that says what pip's configuration here says, and the local files that it names."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    options, paths = {}, set()
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        words = value.strip("'").split()
        options[name.rsplit(".", 1)[-1]] = " ".join(words)
        # The pages of an index link to files beside it.
        paths |= {Path(urlparse(word).path).parent for word in words if word.startswith("file:")}
        paths |= {Path(word) for word in words if word.startswith("/")}
    file = directory / "pip.conf"
    file.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in options.items())]) + "\n")
    local = [path for path in sorted(paths) if path.exists()]
    return [f"{file}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in local)]


class Container:
    """The image's command, or another, as process 1 of its own namespaces, with a read-only root.

    Args:
        root: of the image, unpacked.
        config: of the image: environment, user, entry point, command.
        volume: is mounted as the state directory.
        environ: besides the image's.
        command: in place of the image's.
    """

    def __init__(
        self,
        root: Path,
        config: Mapping[str, Any],
        *,
        volume: Path,
        environ: Mapping[str, str],
        command: Sequence[str] | None = None,
    ) -> None:
        self._owner = config["User"]
        self._environ = [*config["Env"], *(f"{name}={value}" for name, value in environ.items())]
        called = [*config["Entrypoint"], *(config["Cmd"] if command is None else command)]
        for folder in ("host/proc", "host/sys"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                SETUP,
                "sh",
                *self._environ,
                *called,
            ],
            env={**os.environ, "ROOT": str(root), "VOLUME": str(volume), "OWNER": self._owner},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = wait_for(self._first, "a first process in the container")

    def _first(self) -> int | None:
        """The number that process 1 has outside, once it is the image's command."""
        pid = self.process.pid
        assert self.process.poll() is None, self.output()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children and "Uid:\t0" not in self.status_text(int(children[0])) else None

    @staticmethod
    def status_text(pid: int) -> str:
        return Path(f"/proc/{pid}/status").read_text()

    @property
    def status(self) -> dict[str, str]:
        """What the kernel says of process 1."""
        lines = self.status_text(self.pid).splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def run_beside(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as an engine runs the health check."""
        uid, gid = self._owner.split(":")
        where = ["--target", str(self.pid), "--mount", "--pid", "--root", "--wd"]
        return subprocess.run(
            ["nsenter", *where, "--setuid", uid, "--setgid", gid, "env", "-i", *self._environ, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def output(self) -> str:
        """All that was said; after the end."""
        return self.process.stdout.read() if self.process.stdout else ""

    def close(self) -> None:
        # With process 1 all others of its namespace end, and with them its mounts.
        if self.process.poll() is None:
            self.signal(9)
            self.process.wait(WAIT_S)
        if self.process.stdout:
            self.process.stdout.close()
