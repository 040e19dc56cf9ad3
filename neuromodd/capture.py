"""Capturing a machine: a redacted copy of everything that the sensors read, for a report or a test."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

from neuromodd import __version__
from neuromodd.config import Settings
from neuromodd.core.frame import TelemetryFrame
from neuromodd.errors import InvalidValueError
from neuromodd.eye import Eye, build_sensors
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
"""


class Redactor:
    """Replaces what tells one machine from others of its kind; equal things by equal things."""

    _PATTERNS = (
        # A UUID, of a boot or a GPU; a container's id.
        (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "uuid"),
        (re.compile(r"\b[0-9a-f]{32,}\b", re.IGNORECASE), "hash"),
        (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE), "mac"),
        # An interface that is named after its address.
        (re.compile(r"(?<=\benx)[0-9a-f]{12}\b"), "bare"),
        # The board's number in the cpuinfo of ARM kernels.
        (re.compile(r"(?<=^Serial\t\t: )[0-9a-f]{8,16}$", re.MULTILINE), "serial"),
    )

    def __init__(self, *hosts: str) -> None:
        names = {name for host in hosts for name in (host, host.partition(".")[0])} - {"", "localhost"}
        alternatives = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
        self._host = re.compile(rf"(?<![\w.-])(?:{alternatives})(?![\w-])") if names else None
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """The text without them."""
        for pattern, kind in self._PATTERNS:
            text = self._sub(pattern, kind, text)
        return text if self._host is None else self._host.sub("host", text)

    def serial(self, text: str) -> str:
        """A whole file that is a serial number."""
        return self._sub(re.compile(r"[0-9a-fA-F]+"), "serial", text)

    def _sub(self, pattern: re.Pattern[str], kind: str, text: str) -> str:
        return pattern.sub(lambda found: self._stand_in(found[0], kind), text)

    def _stand_in(self, original: str, kind: str) -> str:
        number = len(self._known) + 1
        shape = {
            "uuid": f"00000000-0000-4000-8000-{number:012x}",
            "hash": f"{number:0{len(original)}x}",
            "mac": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
            "bare": f"{number:012x}",
            "serial": f"{number:0{len(original)}x}",
        }
        return self._known.setdefault(original.lower(), shape[kind])


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

    async def look(self) -> None:
        """Look twice, and remember what is read on the way.

        Nothing is read that the sensors do not read: a GPU that sleeps goes on sleeping.
        """
        # There is no removing it: it has to be quick when the looking is over.
        sys.addaudithook(self._watch)
        self._watching = True
        eye = Eye(self._settings, build_sensors(self._settings, nvml_trace=self._trace))
        try:
            await eye.look(sequence=0, lateness_ms=None)
            self._frame = await eye.look(sequence=1, lateness_ms=None)
        finally:
            self._watching = False
            eye.close()

    def store(self) -> int:
        """Write the copy; the number of files of the machine in it.

        Raises:
            OSError: it can't be written.
        """
        redact = Redactor(socket.gethostname(), self._settings.node_name())
        self._directory.mkdir(parents=True, exist_ok=True)
        copies = _Copies(redact)
        sensors = self._settings.sensors
        for name, root in (("proc", sensors.procfs_root), ("sys", sensors.sysfs_root)):
            copies.add_all(root, self._directory / name, self._opened)
        texts = {
            "README.txt": README.format(version=__version__, name=self._directory.name),
            "frame.json": redact(self._frame.to_json()) + "\n",
            "unreadable.txt": "".join(sorted(copies.unreadable)),
            "nvml.txt": redact(self._nvml()),
        }
        for name, text in texts.items():
            if text:
                (self._directory / name).write_text(text, encoding="utf-8")
        return copies.count

    def _nvml(self) -> str:
        asked = self._trace.text
        # A GPU that sleeps was seen without a question.
        seen = any(gpu.vendor == "nvidia" for gpu in self._frame.gpus or ())
        return f"# Device, question, answer of NVML.\n{asked}" if asked or seen else ""

    def _watch(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._watching and event == "open" and isinstance(arguments[0], (str, Path)):
            self._opened.add(os.fspath(arguments[0]))


class _Copies:
    """Copies files with the links on the way to them."""

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact
        self.count = 0
        self.unreadable: list[str] = []

    def add_all(self, root: Path, target: Path, opened: set[str]) -> None:
        """Copy what was opened below `root`, and the links that were looked at."""
        below = sorted(Path(path) for path in opened if path.startswith(f"{root}{os.sep}"))
        folders = {path.parent for path in below}
        beside = (folder / name for folder in folders for name in _LINKS_BESIDE)
        looked_at = (path for pattern in _LOOKED_AT for path in root.glob(pattern))
        for path in (*beside, *looked_at):
            if path.is_symlink() and path.exists():
                self._follow(root, target, path).mkdir(parents=True, exist_ok=True)
        for path in below:
            if path.is_file():
                self._copy(self._follow(root, target, path), path)

    def _copy(self, place: Path, path: Path) -> None:
        try:
            with path.open("rb") as file:
                text = file.read(SIZE_LIMIT_BYTES).decode("utf-8", "replace")
        except OSError as error:
            self.unreadable.append(f"{self._redact(str(path))}: {error.strerror}\n")
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        text = self._redact.serial(text) if path.name == "unique_id" else self._redact(text)
        place.write_text(text, encoding="utf-8")
        self.count += 1

    def _follow(self, root: Path, target: Path, path: Path) -> Path:
        """Where the copy of `path` lies, every link on the way made again but those that lead out."""
        real, copy = root, target
        for part in path.relative_to(root).parts:
            step = real / part
            made = copy / self._redact(part)
            if step.is_symlink():
                end = Path(os.path.normpath(real.resolve() / step.readlink()))
                if end.is_relative_to(root.resolve()):
                    destination = self._follow(root.resolve(), target, end)
                    made.parent.mkdir(parents=True, exist_ok=True)
                    if not made.is_symlink():
                        made.symlink_to(os.path.relpath(destination, made.parent))
                    real, copy = end, destination
                    continue
            real, copy = step, made
        return copy
