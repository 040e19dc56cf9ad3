"""The command: all examinations beside each other, each with a deadline, in one report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from neuromodd import __version__
from neuromodd.config import Settings
from neuromodd.doctor.answers import BROKER
from neuromodd.doctor.broker import examine_broker
from neuromodd.doctor.clock import AREA as CLOCK
from neuromodd.doctor.clock import examine_clock
from neuromodd.doctor.configuration import AREA as CONFIGURATION
from neuromodd.doctor.configuration import examine_configuration, examine_refused
from neuromodd.doctor.findings import Finding, Report, area_text, counted, summary, worst
from neuromodd.doctor.memory import examine_memory, needed_bytes
from neuromodd.doctor.ports import AREA as WEB
from neuromodd.doctor.ports import examine_web
from neuromodd.doctor.presence import NOBODY, Presence, examine_daemon, find_daemon
from neuromodd.doctor.sensors import examine_sensors
from neuromodd.doctor.sight import SENSORS, take_sight
from neuromodd.doctor.state import AREA as STATE
from neuromodd.doctor.state import examine_directory, why_there
from neuromodd.doctor.surroundings import look_around, machine_kind
from neuromodd.doctor.versions import AREA as VERSIONS
from neuromodd.doctor.versions import examine_versions, own_requirements
from neuromodd.errors import ConfigurationError
from neuromodd.health import runtime_directories
from neuromodd.loading import Loaded
from neuromodd.sensors.host import boot_id

LOAD_S = 2.0
DAEMON_S = 1.5
AREA_S = 7.0
"""What an examination may take; they run beside each other."""

SIGHT_S = 6.0
"""What looking at the machine may take of that."""

ROOT = Path("/")
OWN_PROCFS = Path("/proc")


class Diagnosis(NamedTuple):
    """What came of it: the report, and whether the configuration could not be used."""

    report: Report
    refused: bool


async def diagnose(load: Callable[[], Loaded], *, as_json: bool) -> Diagnosis:
    """Examine this host, and print what is found as soon as it is.

    Args:
        load: reads the configuration; it may raise ConfigurationError.
        as_json: print one document at the end instead.
    """
    doctor = _Doctor(load)
    findings: list[Finding] = []
    try:
        async for of in doctor.findings():
            findings += of
            if of and not as_json:
                print(area_text(of), flush=True)
    finally:
        doctor.close()
    report = Report(
        version=__version__,
        node=doctor.settings.node_name(),
        user=doctor.around.user,
        time_utc=datetime.now(UTC),
        verdict=worst(findings),
        counts=counted(findings),
        findings=tuple(findings),
    )
    if as_json:
        print(report.model_dump_json(indent=2), flush=True)
    else:
        print(f"{summary(findings)}; looked at as {report.user}", flush=True)
    return Diagnosis(report, doctor.refused)


class _Doctor:
    """Examines this host."""

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        # One for each that may hang, and some for those who wait with them.
        self._threads = ThreadPoolExecutor(max_workers=12, thread_name_prefix="neuromodd-doctor")
        self.around = look_around(ROOT, os.environ)
        self.settings = Settings()
        self.refused = False

    def close(self) -> None:
        """Leave those behind that hang."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def findings(self) -> AsyncGenerator[Sequence[Finding], None]:
        """The findings of each area, in order."""
        configuration = await self._configuration()
        if self.refused:
            yield configuration
        directory = _state_directory(self.settings)
        presence = await self._presence(directory)
        areas = [
            self._within(VERSIONS, _versions),
            _ready(() if self.refused else configuration),
            self._within("daemon", lambda: examine_daemon(presence)),
            self._within(STATE, lambda: self._state(directory, presence)),
            self._within(CLOCK, lambda: examine_clock(ROOT, self.around)),
            self._sensors(),
            self._broker(presence),
            self._within(WEB, lambda: () if self.refused else examine_web(self.settings, presence)),
        ]
        tasks = [asyncio.ensure_future(of) for of in areas]
        try:
            for task in tasks:
                yield await task
        finally:
            for task in tasks:
                task.cancel()

    async def _configuration(self) -> Sequence[Finding]:
        loading = asyncio.get_running_loop().run_in_executor(self._threads, self._load)
        try:
            async with asyncio.timeout(LOAD_S):
                loaded = await loading
        except ConfigurationError as error:
            self.refused = True
            return list(examine_refused(error))
        except TimeoutError:
            self.refused = True
            return [_hangs(CONFIGURATION, LOAD_S)]
        self.settings = loaded.settings
        return list(examine_configuration(loaded))

    async def _presence(self, directory: Path | None) -> Presence:
        asking = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: find_daemon(runtime_directories(), directory, locks=OWN_PROCFS / "locks")
        )
        try:
            async with asyncio.timeout(DAEMON_S):
                return await asking
        except TimeoutError:
            return NOBODY._replace(directory=directory)

    async def _within(self, area: str, examination: Callable[[], Iterable[Finding]]) -> list[Finding]:
        """The findings of an examination on a thread; if it hangs, those that it has come to."""
        found: list[Finding] = []

        def examine() -> None:
            for of in examination():
                found.append(of)  # noqa: PERF402 - seen one by one by whoever gives up waiting

        going = asyncio.get_running_loop().run_in_executor(self._threads, examine)
        try:
            async with asyncio.timeout(AREA_S):
                await going
        except TimeoutError:
            return [*found, _hangs(area, AREA_S)]
        except OSError as error:
            return [*found, _failed(area, error)]
        return found

    def _state(self, directory: Path | None, presence: Presence) -> Iterator[Finding]:
        if directory is None:
            yield Finding(
                area=STATE,
                name="directory",
                verdict="failure",
                finding="none can be told: this user has no home",
                remedy="set checkpoint.directory",
            )
            return
        readable = os.access(directory, os.R_OK | os.X_OK)
        yield from examine_directory(
            directory,
            why_there(self.settings, os.environ),
            procfs=OWN_PROCFS,
            around=self.around,
            needed_bytes=needed_bytes(directory, self.settings) if readable else 0,
            presence=presence,
        )
        if readable:
            yield from examine_memory(directory, self.settings, presence)

    async def _sensors(self) -> list[Finding]:
        sight = await take_sight(self.settings, self.around, deadline_s=SIGHT_S)

        def examine() -> Iterator[Finding]:
            # Of the host, whose files may be mounted beside this process's own.
            machine = machine_kind(sight.procfs, sight.sysfs)
            return examine_sensors(sight._replace(around=sight.around._replace(machine=machine)))

        return await self._within(SENSORS, examine)

    async def _broker(self, presence: Presence) -> list[Finding]:
        if self.refused:
            return [
                Finding(
                    area=BROKER,
                    name="which",
                    verdict="note",
                    finding="not looked for, as the configuration can't be used",
                    remedy="correct that first",
                )
            ]
        found: list[Finding] = []
        boot = boot_id(self.settings.sensors.procfs_root)
        try:
            async with (
                asyncio.timeout(AREA_S),
                contextlib.aclosing(examine_broker(self.settings, presence, boot)) as examination,
            ):
                async for of in examination:
                    found.append(of)  # noqa: PERF401 - kept where it is cut short
        except TimeoutError:
            found.append(_hangs(BROKER, AREA_S))
        return found


def _versions() -> Iterator[Finding]:
    system = os.uname()
    return examine_versions(
        __version__,
        python=platform.python_version(),
        kernel=f"{system.sysname} {system.release} {system.machine}",
        requirements=own_requirements(),
    )


async def _ready(findings: Sequence[Finding]) -> Sequence[Finding]:
    return findings


def _state_directory(settings: Settings) -> Path | None:
    try:
        return settings.checkpoint.state_directory()
    except ConfigurationError:
        return None


def _hangs(area: str, waited_s: float) -> Finding:
    return Finding(
        area=area,
        name="deadline",
        verdict="failure",
        finding=f"something did not come back within {waited_s:g} s, and the rest of this was not looked at",
        remedy="a dead disk, a network file system or a driver: dmesg | tail, and `mount` may tell",
    )


def _failed(area: str, error: OSError) -> Finding:
    where = "" if error.filename is None else f"{error.filename}: "
    return Finding(
        area=area,
        name="error",
        verdict="failure",
        finding=f"{where}{error.strerror or error}, and the rest of this was not looked at",
        remedy="ask as root, or as the daemon's user: sudo neuromodd doctor",
    )
