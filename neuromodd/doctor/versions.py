"""Versions: of neuromodd, of what it runs on, and of the packages that it needs or could use."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from neuromodd.doctor.findings import Finding

AREA = "versions"

EXTRAS = {
    "broker": "a broker inside the daemon, for a first try",
    "fast": "replays and large networks as machine code",
    "plot": "pictures: `neuromodd plot`",
    "tui": "the view in a terminal: `neuromodd top`",
    "web": "the page, metrics and health over HTTP",
    "zstd": "compressed recordings",
}
"""What each extra gives."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_BOUND = re.compile(r"(>=|<=|==|!=|~=|<|>)\s*([0-9][^\s,]*)")
_RELEASE = re.compile(r"\d+(?:\.\d+)*")

_found = partial(Finding, area=AREA)


class Requirement(NamedTuple):
    """A package that is needed.

    Attributes:
        name: of the package.
        bounds: of its version, as they are written.
        extra: of which extra; None if it is always needed.
    """

    name: str
    bounds: str
    extra: str | None


def parse_requirements(lines: Sequence[str]) -> list[Requirement]:
    """What a package's metadata require; the extra `all` only repeats the others."""
    needed = []
    for line in lines:
        match = _REQUIREMENT.match(line)
        extra = _EXTRA.search(line)
        if match and (extra is None or extra[1] != "all"):
            needed.append(Requirement(match[1], match[2].strip(), extra[1] if extra else None))
    return needed


def is_within(version: str, bounds: str) -> bool:
    """Whether a version is what the bounds ask for, by its numbers alone; bounds of another form hold."""
    return all(_holds(_numbers(version), operator, _numbers(of)) for operator, of in _BOUND.findall(bounds))


def _holds(version: tuple[int, ...], operator: str, bound: tuple[int, ...]) -> bool:
    length = max(len(version), len(bound))
    left, right = (of + (0,) * (length - len(of)) for of in (version, bound))
    answers = {
        ">=": left >= right,
        "<=": left <= right,
        "==": left == right,
        "!=": left != right,
        "~=": left >= right and left[: len(bound) - 1] == right[: len(bound) - 1],
        "<": left < right,
        ">": left > right,
    }
    return answers[operator]


def _numbers(version: str) -> tuple[int, ...]:
    match = _RELEASE.match(version)
    return tuple(map(int, match[0].split("."))) if match else ()


def installed_version(package: str) -> str | None:
    """Which version of a package is installed; None if none is."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def own_requirements() -> list[str] | None:
    """What the metadata of neuromodd require; None if it runs from a folder and is not installed."""
    try:
        return importlib.metadata.requires("neuromodd") or []
    except importlib.metadata.PackageNotFoundError:
        return None


def examine_versions(
    version: str,
    *,
    python: str,
    kernel: str,
    requirements: Sequence[str] | None,
    installed: Callable[[str], str | None] = installed_version,
) -> Iterator[Finding]:
    """Look at the versions.

    Args:
        version: of neuromodd.
        python: its version.
        kernel: its name, release and architecture.
        requirements: as metadata have them; None if there are none.
        installed: gives the version of a package that is installed.
    """
    yield _found(name="neuromodd", verdict="ok", finding=version)
    yield _found(name="python", verdict="ok", finding=python)
    yield _found(name="kernel", verdict="ok", finding=kernel)
    if requirements is None:
        yield _found(
            name="packages",
            verdict="note",
            finding="neuromodd runs from a folder and is not installed: what it requires can't be told",
            remedy="pip install . in that folder",
        )
        return
    needed = parse_requirements(requirements)
    for requirement in needed:
        if requirement.extra is None:
            yield _dependency(requirement, installed(requirement.name))
    for extra in sorted({of.extra for of in needed if of.extra is not None}):
        yield _extra(extra, [of for of in needed if of.extra == extra], installed)


def _dependency(requirement: Requirement, version: str | None) -> Finding:
    name, bounds, _ = requirement
    if version is not None and is_within(version, bounds):
        return _found(name=name, verdict="ok", finding=version)
    got = "not installed" if version is None else version
    remedy = f"pip install '{name}{bounds}'"
    return _found(name=name, verdict="failure", finding=f"{got}, and neuromodd needs {bounds}", remedy=remedy)


def _extra(extra: str, needed: Sequence[Requirement], installed: Callable[[str], str | None]) -> Finding:
    name = f"extra {extra}"
    versions = {of: installed(of.name) for of in needed}
    gives = EXTRAS.get(extra, "more")
    remedy = f"pip install 'neuromodd[{extra}]'"
    missing = [of.name for of, version in versions.items() if version is None]
    if missing:
        # Of several packages some may be there for another reason.
        what = "not installed" if len(missing) == len(needed) else f"{', '.join(missing)} not installed"
        return _found(name=name, verdict="note", finding=f"{what}; it gives {gives}", remedy=remedy)
    wrong = [
        f"{of.name} {version}, and it needs {of.bounds}"
        for of, version in versions.items()
        if version is not None and not is_within(version, of.bounds)
    ]
    if wrong:
        upgrade = f"pip install --upgrade 'neuromodd[{extra}]'"
        return _found(name=name, verdict="warning", finding="; ".join(wrong), remedy=upgrade)
    told = ", ".join(f"{of.name} {version}" for of, version in versions.items())
    return _found(name=name, verdict="ok", finding=f"{told}: {gives}")
