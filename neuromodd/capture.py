"""Capturing a machine: a redacted copy of everything that the sensors read, for a report or a test."""

from __future__ import annotations

import json
import os
import queue
import shlex
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

from neuromodd import __version__
from neuromodd.config import Settings
from neuromodd.core.frame import TelemetryFrame
from neuromodd.errors import InvalidValueError
from neuromodd.eye import Eye, build_sensors
from neuromodd.redaction import NVML_FILE, Redactor, find_identities
from neuromodd.sensors.nvml_trace import NvmlTrace

SIZE_LIMIT_BYTES = 1024 * 1024
"""No file of the kernel that a sensor reads is larger; what is beyond is left out."""

_LOOKED_AT = ("block/*/device", "class/net/*/device")
"""Links below /sys whose presence says something, though nothing is read there."""

_LINKS_BESIDE = ("device", "driver")
"""Links that lie beside what is read, and are followed."""

README = """\
A machine as neuromodd {version} sees it: what its sensors read in /proc and /sys, what NVML answered, and
the frame that came of it. Host name, serials, UUIDs and MAC addresses are replaced, equal ones by equal ones;
please look through it before you send it. To see it with other eyes:

    neuromodd sample --sensors.procfs_root {name}/proc --sensors.sysfs_root {name}/sys \\
        --sensors.limits.procfs_root {name}/proc --sensors.limits.sysfs_root {name}/sys

That shows none of the NVIDIA GPUs that are in frame.json: nvml.txt has NVML's answers about them, and only a
library that stands in for NVML in the project's tests plays these. unreadable.txt, if there is one, tells
what could not be read.
"""


class Capture:
    """One machine, looked at and then stored.

    Args:
        settings: which sensors, and where the machine's files are.
        directory: where the copy goes.

    Raises:
        InvalidValueError: the directory is there already, and not empty.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
            raise InvalidValueError("capture", str(directory), "a directory that is new or empty")
        self._settings = settings
        self._directory = directory
        self._trace = NvmlTrace()
        self._opened: set[str] = set()
        self._watching = False
        self._frame = TelemetryFrame()
        self._troubles: dict[str, str] = {}

    async def look(self) -> None:
        """Look twice, and remember what is read on the way.

        Nothing is read that the sensors do not read: a GPU that sleeps goes on sleeping.
        """
        # There is no removing it: it has to be quick when the looking is over.
        sys.addaudithook(self._watch)
        self._watching = True
        eye = Eye(self._settings, build_sensors(self._settings, nvml_trace=self._trace))
        try:
            for sequence in range(2):
                self._frame = await eye.look(sequence=sequence, lateness_ms=None)
                self._note_troubles(eye)
        finally:
            self._watching = False
            eye.close()

    def store(self) -> int:
        """Write the copy; the number of files of the machine in it.

        Raises:
            OSError: it can't be written.
        """
        sensors = self._settings.sensors
        roots = {"proc": sensors.procfs_root, "sys": sensors.sysfs_root}
        opened = {name: self._opened_below(root) for name, root in roots.items()}
        read = {path: _read(path, sensors.deadline_s) for paths in opened.values() for path in paths}
        redact = Redactor((socket.gethostname(), self._settings.node_name()), self._identities(read))
        self._directory.mkdir(parents=True, exist_ok=True)
        copies = _Copies(redact, self._directory)
        for name, root in roots.items():
            copies.add_links(root, name, opened[name])
            for path in opened[name]:
                copies.add(root, name, path, read[path])
        self._write_texts(redact, copies.unreadable)
        return copies.count

    def _opened_below(self, root: Path) -> list[Path]:
        below = (Path(path) for path in self._opened if path.startswith(f"{root}{os.sep}"))
        return sorted(path for path in below if path.is_file())

    def _identities(self, read: Mapping[Path, _Read]) -> Iterator[tuple[str, str]]:
        for path, content in read.items():
            yield from find_identities(path.name, content.text)
        yield from find_identities(NVML_FILE, self._trace.text)
        for gpu in self._frame.gpus or ():
            if gpu.uuid is not None:
                yield ("gpu" if gpu.vendor == "nvidia" else "serial"), gpu.uuid

    def _write_texts(self, redact: Redactor, unreadable: Iterable[str]) -> None:
        frame = redact.frame(json.loads(self._frame.to_json()))
        troubles = (f"{name}: {redact.prose(error)}\n" for name, error in self._troubles.items())
        texts = {
            "README.txt": README.format(
                version=__version__, name=shlex.quote(self._directory.resolve().name)
            ),
            "frame.json": json.dumps(frame, ensure_ascii=False, separators=(",", ":")) + "\n",
            "unreadable.txt": "".join(sorted((*unreadable, *troubles))),
            NVML_FILE: redact.content(NVML_FILE, self._nvml()),
        }
        for name, text in texts.items():
            if text:
                (self._directory / name).write_text(text, encoding="utf-8")

    def _nvml(self) -> str:
        asked = self._trace.text
        # A GPU that sleeps was seen without a question.
        seen = any(gpu.vendor == "nvidia" for gpu in self._frame.gpus or ())
        return f"# Device, question, answer of NVML.\n{asked}" if asked or seen else ""

    def _note_troubles(self, eye: Eye) -> None:
        for name, status in eye.sampler.statuses.items():
            if status.state in ("failed", "hung"):
                self._troubles[name] = status.error or status.state
            elif status.failures and name not in self._troubles:
                # One hung, and its successor has answered in the same look.
                self._troubles[name] = f"no answer within {self._settings.sensors.deadline_s} s"

    def _watch(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._watching and event == "open" and isinstance(arguments[0], (str, Path)):
            self._opened.add(os.fspath(arguments[0]))


class _Read(NamedTuple):
    """A file's text, or why there is none."""

    text: str
    fault: str | None = None


def _read(path: Path, deadline_s: float) -> _Read:
    """Read a file on a thread of its own: the driver that a sensor hangs on is asked here again."""
    answers: queue.SimpleQueue[_Read] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_content(path)), daemon=True).start()
    try:
        return answers.get(timeout=deadline_s)
    except queue.Empty:
        return _Read("", f"no answer within {deadline_s} s")


def _content(path: Path) -> _Read:
    try:
        with path.open("rb") as file:
            return _Read(file.read(SIZE_LIMIT_BYTES).decode("utf-8", "replace"))
    except OSError as error:
        return _Read("", error.strerror or str(error))


class _Copies:
    """Copies files with the links on the way to them."""

    def __init__(self, redact: Redactor, directory: Path) -> None:
        self._redact = redact
        self._directory = directory
        self.count = 0
        self.unreadable: list[str] = []

    def add_links(self, root: Path, name: str, opened: Iterable[Path]) -> None:
        """Copy, from `root` to `name`, the links that were looked at, or lie beside what was `opened`."""
        folders = {path.parent for path in opened}
        beside = (folder / link for folder in folders for link in _LINKS_BESIDE)
        looked_at = (path for pattern in _LOOKED_AT for path in root.glob(pattern))
        for path in (*beside, *looked_at):
            if path.is_symlink() and path.exists():
                self._follow(root, name, path).mkdir(parents=True, exist_ok=True)

    def add(self, root: Path, name: str, path: Path, read: _Read) -> None:
        """Copy what was read of a file below `root`."""
        if read.fault is not None:
            self.unreadable.append(f"{self._spelt(root, name, path)}: {read.fault}\n")
            return
        place = self._follow(root, name, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(self._redact.content(path.name, read.text), encoding="utf-8")
        self.count += 1

    def _spelt(self, root: Path, name: str, path: Path) -> PurePath:
        """The path in the copy as a sensor would spell it."""
        real, spelt = root, PurePath(name)
        for part in path.relative_to(root).parts:
            real /= part
            spelt /= self._redact.component(spelt, part, is_file=real.is_file())
        return spelt

    def _follow(self, root: Path, name: str, path: Path) -> Path:
        """Where the copy of `path` lies, every link on the way made again but those that lead out."""
        real, copy = root, self._directory / name
        for part in path.relative_to(root).parts:
            step = real / part
            above = copy.relative_to(self._directory)
            made = copy / self._redact.component(above, part, is_file=step.is_file())
            if step.is_symlink():
                end = Path(os.path.normpath(real.resolve() / step.readlink()))
                if end.is_relative_to(root.resolve()):
                    destination = self._follow(root.resolve(), name, end)
                    made.parent.mkdir(parents=True, exist_ok=True)
                    if not made.is_symlink():
                        made.symlink_to(os.path.relpath(destination, made.parent))
                    real, copy = end, destination
                    continue
            real, copy = step, made
        return copy
