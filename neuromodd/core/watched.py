"""TelemetryFrame -> the readings that surprise watches, by name.

A name is one of the network's channels (`cpu`), `network` (bytes/s, both directions), `pressure` (the
largest share of time in which tasks waited), or the path of a number in the frame: `disk.busy_ratio`,
`gpus.0.power_watts` (by the GPU's index), `thermal.board/CPU core.temperature_celsius` (by the sensor's
name, whatever is in it).
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from neuromodd.core.encoding import CHANNELS
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.record import Record
from neuromodd.errors import InvalidValueError

WATCHED_LIMIT = 64
"""Readings that can be watched at once: each costs time and memory, and `state` tells of each."""

NAME_LIMIT = 128
"""Characters of a name: `state` repeats it with each tick."""

PLACE = "surprise.channels"

CLOSE = 0.75
"""So much alike are a name and the one that was perhaps meant."""

By = Literal["", "name", "index"]
Reader = Callable[[TelemetryFrame, Sequence[float | None]], float | None]

SPANS = {
    "_ratio": 0.05,
    "_bytes_per_s": 100_000.0,
    "_celsius": 2.0,
    "_watts": 2.0,
    "_volts": 0.02,
    "_hz": 1e8,
    "_rpm": 100.0,
    "_ms": 5.0,
    "load_1m": 0.2,
    "interval_s": 0.05,
    "context_switches_per_s": 500.0,
}
"""By the end of its name, the span within which a reading is idle noise on any machine."""

_SUMS = ("network", "pressure")
_OWN = ("interval_s", "lateness_ms")
"""Numbers of the frame itself; its others count on and on."""

_NEVER = frozenset({"index", "energy_joules"})
"""Numbers that are no readings: a name, and what only grows."""

_SOME = {"": "", "index": "0", "name": "<name>"}
_INDEX = re.compile(r"0|[1-9][0-9]{0,5}")
_EXAMPLES = "disk.busy_ratio, gpus.0.power_watts, thermal.<name>.temperature_celsius"


class _Group(NamedTuple):
    """A part of the frame: its numbers, and by which field its items are told apart if it is a list."""

    fields: tuple[str, ...]
    by: By


def readings(
    frame: TelemetryFrame, names: Iterable[str], stimuli: Sequence[float | None]
) -> tuple[float | None, ...]:
    """One reading a name, in its own unit; None where it was not measured.

    Args:
        frame: the frame.
        names: what to read; they are looked up but once.
        stimuli: the network's channels in this frame, as of `encoding.encode`.

    Raises:
        InvalidValueError: a name is none of those that there are.
    """
    return tuple([read(frame, stimuli) for read in _readers(tuple(names))])


def span(name: str) -> float:
    """The least span of a reading that counts, in its own unit; 0 if any does."""
    if name in CHANNELS or name == "pressure":
        return SPANS["_ratio"]
    if name == "network":
        return SPANS["_bytes_per_s"]
    return next((least for unit, least in SPANS.items() if name.endswith(unit)), 0.0)


def expected_instead(name: str) -> str | None:
    """What was to be there in place of `name`; None if that is a name that can be watched.

    Whether this host has such a sensor is not looked at: it may come later.
    """
    if len(name) > NAME_LIMIT:
        return f"a name of up to {NAME_LIMIT} characters"
    if name in _plain_names():
        return None
    group, rest = _split(name)
    found = _groups().get(group)
    if found is None or not rest:
        near = [of for of in (f"{known}.{rest}" for known in _groups()) if _is_path(of)]
        return (
            f"one of {', '.join((*CHANNELS, *_SUMS))}, or the path of a number in the frame ({_EXAMPLES})"
            f"{_closest(name, (*_plain_names(), *near))}"
        )
    if _is_path(name):
        return None
    item = rest.rpartition(".")[0] or _SOME[found.by]
    stem, tried = (f"{group}.<{found.by}>", f"{group}.{item}") if found.by else (group, group)
    similar = _closest(name, [path for path in (f"{tried}.{of}" for of in found.fields) if _is_path(path)])
    return f"{stem}.FIELD, FIELD one of {', '.join(found.fields)}{similar}"


def check_names(names: Sequence[str]) -> None:
    """Look whether `names` can be watched together.

    Raises:
        InvalidValueError: there are none or too many, one comes twice, or is none of those that there are.
    """
    if not 1 <= len(names) <= WATCHED_LIMIT:
        raise InvalidValueError(PLACE, f"{len(names)} names", f"1 to {WATCHED_LIMIT} names")
    for at, name in enumerate(names):
        if (expected := expected_instead(name)) is not None:
            raise InvalidValueError(PLACE, name, expected)
        if name in names[:at]:
            raise InvalidValueError(PLACE, name, "each name once")


@functools.lru_cache(maxsize=8)
def _readers(names: tuple[str, ...]) -> tuple[Reader, ...]:
    for name in names:
        if (expected := expected_instead(name)) is not None:
            raise InvalidValueError(PLACE, name, expected)
    return tuple(_reader(name) for name in names)


def _reader(name: str) -> Reader:
    if name in CHANNELS:
        at = CHANNELS.index(name)
        return lambda _, stimuli: stimuli[at]
    if name == "network":
        return lambda frame, _: _throughput(frame)
    if name == "pressure":
        return lambda frame, _: _pressure(frame)
    if name in _OWN:
        return lambda frame, _: _number(getattr(frame, name))
    group, rest = _split(name)
    by = _groups()[group].by
    if not by:
        return _field_reader(group, rest)
    item, _, field = rest.rpartition(".")
    return _item_reader(group, by, int(item) if by == "index" else item, field)


def _field_reader(group: str, field: str) -> Reader:
    def read(frame: TelemetryFrame, _: Sequence[float | None]) -> float | None:
        sample = getattr(frame, group)
        return None if sample is None else _number(getattr(sample, field))

    return read


def _item_reader(group: str, by: str, item: str | int, field: str) -> Reader:
    def read(frame: TelemetryFrame, _: Sequence[float | None]) -> float | None:
        for sample in getattr(frame, group) or ():
            if getattr(sample, by) == item:
                return _number(getattr(sample, field))
        return None

    return read


def _throughput(frame: TelemetryFrame) -> float | None:
    network = frame.network
    if network is None or network.receive_bytes_per_s is None or network.transmit_bytes_per_s is None:
        # One direction alone would pass for a host that has become quiet.
        return None
    return min(network.receive_bytes_per_s + network.transmit_bytes_per_s, sys.float_info.max)


def _pressure(frame: TelemetryFrame) -> float | None:
    of = frame.pressure
    if of is None:
        return None
    shares = (of.cpu_some_ratio, of.memory_some_ratio, of.io_some_ratio)
    return max((share for share in shares if share is not None), default=None)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _split(name: str) -> tuple[str, str]:
    group, _, rest = name.partition(".")
    return group, rest


def _is_path(name: str) -> bool:
    """Whether there may be such a number in a frame."""
    group, rest = _split(name)
    found = _groups().get(group)
    if found is None:
        return False
    item, _, field = rest.rpartition(".")
    if found.by == "index":
        return field in found.fields and _INDEX.fullmatch(item) is not None
    return field in found.fields and bool(item) == bool(found.by)


@functools.cache
def _plain_names() -> tuple[str, ...]:
    """Every name that is the same on each host."""
    paths = [f"{group}.{field}" for group, (fields, by) in _groups().items() if not by for field in fields]
    return (*CHANNELS, *_SUMS, *_OWN, *paths)


@functools.cache
def _groups() -> dict[str, _Group]:
    found = {}
    for group, info in TelemetryFrame.model_fields.items():
        for kind in _kinds(info.annotation):
            sample = get_args(kind)[0] if get_origin(kind) is tuple else kind
            if isinstance(sample, type) and issubclass(sample, Record):
                by: By = "" if sample is kind else "index" if "index" in sample.model_fields else "name"
                found[group] = _Group(tuple(_numbers(sample)), by)
    return found


def _numbers(kind: type[Record]) -> Iterator[str]:
    for field, info in kind.model_fields.items():
        if field not in _NEVER and {int, float} & set(_kinds(info.annotation)):
            yield field


def _kinds(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - a type
    """What a field may hold besides None."""
    if get_origin(annotation) is tuple:
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_args(annotation):
        for of in get_args(annotation):
            yield from _kinds(of)
    elif annotation is not type(None):
        yield annotation


def _closest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing."""
    import difflib  # noqa: PLC0415 - memory that only a misspelling is worth

    guess = difflib.get_close_matches(name, list(known), n=1, cutoff=CLOSE)
    return f"; did you mean {guess[0]}?" if guess else ""
