"""Capturing a machine: a redacted copy of everything that the sensors read, for a report or a test."""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

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

_NVML_FILE = "nvml.txt"

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

# Neither a letter nor a digit before, or after: hyphens, dots and underscores join names to others.
_BEGIN, _END = r"(?<![^\W_])", r"(?![^\W_])"

# A pod's directory has its UID right behind this word.
_BEGIN_ID = rf"(?:{_BEGIN}|(?<=pod))"

_SHAPES = {
    # Of a boot, a GPU or a pod; systemd spells a hyphen as an underscore where it means something.
    "uuid": rf"{_BEGIN_ID}[0-9a-f]{{8}}(?:[-_][0-9a-f]{{4}}){{3}}[-_][0-9a-f]{{12}}{_END}",
    # A container's.
    "hash": rf"{_BEGIN_ID}[0-9a-f]{{32,}}{_END}",
    # InfiniBand's are longer than Ethernet's; an interface may be named after its own.
    "mac": rf"{_BEGIN}[0-9a-f]{{2}}(?:(?::[0-9a-f]{{2}}){{5,}}|(?:-[0-9a-f]{{2}}){{5}}){_END}"
    rf"|(?<={_BEGIN}(?:en|ib|sl|wl|ww)x)[0-9a-f]{{12}}{_END}",
    # The battery of a mouse or a keyboard.
    "serial": rf"(?<={_BEGIN}hid-)[0-9a-z]+(?=-battery{_END})",
}
"""What is known by its looks, wherever it stands."""

_IDENTITIES = {
    # Of a GPU of AMD; of a board, in the kernel's text for ARM.
    "unique_id": ("serial", re.compile(r"(\S+)")),
    "cpuinfo": ("serial", re.compile(r"^serial[ \t]*:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)),
    _NVML_FILE: ("gpu", re.compile(r"^\S+ nvmlDeviceGetUUID (?!!\d+$)(.+)$", re.MULTILINE)),
}
"""What is known by its place, whatever it looks like: by the file's name, the kind and where it stands."""

_NAMES = {
    "cgroup": re.compile(r"^\d+:[^:\n]*:(.*)$", re.MULTILINE),
    "dev": re.compile(r"^[ \t]*(\S+):[ \t]*\d", re.MULTILINE),
    # A RAID may be named rather than numbered.
    "diskstats": re.compile(r"^[ \t]*\d+[ \t]+\d+[ \t]+(md_\S+)", re.MULTILINE),
}
"""Where people's names stand in the kernel's files, by the file's name; a host may be called `cpu`."""

_DRIVERS_WORDS = frozenset(
    {"name", "vendor", "pci_bus_id", "fault", "throttle_reasons", "gpu_driver_error", "time_utc"}
)
"""Fields of a frame that people's names don't get into."""

_SHORTEST = 8
"""A shorter serial is replaced in its own place only: elsewhere it might be any number."""


class Redactor:
    """Replaces what tells one machine from others of its kind; equal things by equal things.

    Args:
        hosts: names of the machine; their first labels count too.
        identities: what is known by its place (see `find_identities`), with its kind.
    """

    def __init__(self, hosts: Iterable[str], identities: Iterable[tuple[str, str]] = ()) -> None:
        self._numbers: dict[str, int] = {}
        self._known = {original.lower(): self._stand_in(original, kind) for kind, original in identities}
        kinds = {"known": self._known_pattern(), **_SHAPES}
        self._anything = _one_of(kinds)
        self._anything_or_host = _one_of({**kinds, "host": _host_pattern(hosts)})

    def content(self, name: str, text: str) -> str:
        """The text of the file of that name; host names go only where it has room for people's names."""
        if name in _NAMES:
            return _within(_NAMES[name], text, inside=self.prose, outside=self._plain)
        if name in _IDENTITIES:
            return _within(_IDENTITIES[name][1], text, inside=self._whole, outside=self._plain)
        return self._plain(text)

    def component(self, above: PurePath, part: str, *, is_file: bool) -> str:
        """A part of a path; host names go only where people give names: to control groups and interfaces.

        The rest is the kernel's, SCSI's `host1` too: sensors look for it, or name chips after it.

        Args:
            above: the path to it, from `proc` or `sys` on.
            part: the name in there.
            is_file: whether the name is that of a file, which is always the kernel's.
        """
        in_sysfs, in_groups = above.parts[:1] == ("sys",), above.parts[:3] == ("sys", "fs", "cgroup")
        named = not is_file and (in_groups or (in_sysfs and above.name == "net"))
        return self.prose(part) if named else self._plain(part)

    def prose(self, text: str) -> str:
        """Text in which a host name may stand anywhere."""
        return self._anything_or_host.sub(self._replace, text)

    def frame(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        """A frame as parsed JSON; keys stay as they are."""
        redacted: dict[str, Any] = self._value(dict(frame), "")
        return redacted | {"node": "host"}

    def _value(self, value: object, key: str) -> Any:  # noqa: ANN401 - of JSON
        if isinstance(value, dict):
            return {name: self._value(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [self._value(part, key) for part in value]
        if not isinstance(value, str):
            return value
        if value.lower() in self._known:
            return self._whole(value)
        return self._plain(value) if key in _DRIVERS_WORDS else self.prose(value)

    def _plain(self, text: str) -> str:
        return self._anything.sub(self._replace, text)

    def _whole(self, text: str) -> str:
        return self._known.get(text.lower(), text)

    def _replace(self, found: re.Match[str]) -> str:
        if found.lastgroup == "host":
            return "host"
        if found.lastgroup == "known":
            return self._whole(found[0])
        return self._stand_in(found[0], found.lastgroup or "")

    def _known_pattern(self) -> str:
        long = sorted((text for text in self._known if len(text) >= _SHORTEST), key=len, reverse=True)
        return rf"(?:{_BEGIN}|(?<=0x))(?:{'|'.join(map(re.escape, long))}){_END}" if long else ""

    def _stand_in(self, original: str, kind: str) -> str:
        # The same address or UUID in another notation has the same number.
        digits = re.sub(r"[-:_]", "", original.lower().removeprefix("gpu-"))
        number = self._numbers.setdefault(digits, len(self._numbers) + 1)
        uuid = f"00000000000040008000{number:012x}"
        if kind == "uuid":
            return _pour(uuid, original)
        if kind == "gpu":
            return "GPU-" + _pour(uuid, "00000000-0000-0000-0000-000000000000")
        if kind == "mac":
            # Administered locally, as the first byte says.
            return _pour(f"02{number:0{len(digits) - 2}x}", original)
        return f"{number:0{len(original)}x}"


def find_identities(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Kind and spelling of what the file of that name holds only one of in the world."""
    if name in _IDENTITIES:
        kind, pattern = _IDENTITIES[name]
        # A board without a number has zeros.
        yield from ((kind, found[1]) for found in pattern.finditer(text) if found[1].strip("0"))


def _one_of(patterns: Mapping[str, str]) -> re.Pattern[str]:
    groups = (f"(?P<{kind}>{pattern})" for kind, pattern in patterns.items() if pattern)
    return re.compile("|".join(groups), re.IGNORECASE)


def _host_pattern(hosts: Iterable[str]) -> str:
    """A host name with its domain, where one follows; nothing, if there is no name to hide."""
    names = {name.lower() for host in hosts for name in (host, host.partition(".")[0])}
    # What every machine is called, and what the kernel calls the loopback.
    names -= {"", "localhost", "lo"}
    if not names:
        return ""
    # systemd spells a hyphen like this in the names of units.
    hyphen = r"\\x2d"
    spelt = "|".join(
        re.escape(name).replace(r"\-", f"(?:-|{hyphen})") for name in sorted(names, key=len, reverse=True)
    )
    label, units = r"\.[0-9a-z-]+", r"\.(?:mount|scope|service|slice|socket)"
    # A single label is no domain, unless it stands before the ending of a unit.
    domain = rf"(?:(?:{label})+(?={units}{_END})|(?:{label}){{2,}})?"
    return rf"(?:{_BEGIN}|(?<={hyphen}))(?:{spelt}){_END}{domain}"


def _within(
    pattern: re.Pattern[str], text: str, *, inside: Callable[[str], str], outside: Callable[[str], str]
) -> str:
    """The text with one thing done to the first groups of `pattern`, and another to all between."""
    parts, end = [], 0
    for found in pattern.finditer(text):
        parts += [outside(text[end : found.start(1)]), inside(found[1])]
        end = found.end(1)
    return "".join(parts) + outside(text[end:])


def _pour(digits: str, shape: str) -> str:
    """The hexadecimal digits in place of those of `shape`, which has as many."""
    rest = iter(digits)
    return re.sub("[0-9a-f]", lambda _: next(rest), shape, flags=re.IGNORECASE)


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
        yield from find_identities(_NVML_FILE, self._trace.text)
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
            _NVML_FILE: redact.content(_NVML_FILE, self._nvml()),
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
