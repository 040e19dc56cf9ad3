"""Taking out of a captured machine what tells it from others of its kind; it reads nothing itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

NVML_FILE = "nvml.txt"
"""Where a capture keeps NVML's answers."""

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
    NVML_FILE: ("gpu", re.compile(r"^\S+ nvmlDeviceGetUUID (?!!\d+$)(.+)$", re.MULTILINE)),
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
