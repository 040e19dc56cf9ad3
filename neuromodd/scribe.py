"""Frames into recordings without a daemon: the eye, the brain and the recorder, no broker, no checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from neuromodd import __version__
from neuromodd.config import Settings
from neuromodd.core.brain import Brain
from neuromodd.core.engine import numba_installed
from neuromodd.core.payloads import RecorderHealth
from neuromodd.eye import Eye, beats, clock_s
from neuromodd.recording import Header
from neuromodd.sensors.host import boot_id
from neuromodd.sinks.recorder import Recorder

log = structlog.get_logger()


class Recorded(NamedTuple):
    """What became of the frames: `frames` were seen, `health` tells how many are in the recordings."""

    health: RecorderHealth
    frames: int


def build_recorder(settings: Settings, brain: Brain) -> Recorder:
    """The recorder of what `brain` takes in, beginning with its state of now.

    Raises:
        StateDirectoryLockedError: another process records there.
        StateDirectoryError: the directory can't be used.
    """
    options = settings.recorder
    boot = boot_id(settings.sensors.procfs_root)

    def header() -> Header:
        return Header(
            package_version=__version__,
            created_utc=datetime.now(UTC),
            node=settings.node_name(),
            boot_id=boot,
            seed=brain.engine.seed,
            parameters=brain.parameters,
            state=brain.state(),
        )

    return Recorder(
        directory=settings.recording_directory(),
        compress=options.compress,
        rotate_bytes=options.rotate_bytes,
        rotate_s=options.rotate_s,
        max_bytes=options.max_bytes,
        header=header,
        clock=clock_s,
    )


async def record(
    settings: Settings, *, frames: int | None, started: Callable[[Recorder], None] | None = None
) -> Recorded:
    """Record `frames` frames, or until SIGTERM or SIGINT.

    A fresh brain lives along, so that each file holds the state that its frames were met with.

    Raises:
        StateDirectoryLockedError: another process records there.
        StateDirectoryError: the directory can't be used.
    """
    # Without numba the log says it, and no warning besides.
    compiled = None if numba_installed() else False
    brain = Brain(settings.brain, settings.engine.seed, compiled=compiled)
    if brain.engine.large and not brain.engine.compiled:
        log.warning("engine_not_compiled", remedy="pip install 'neuromodd[fast]'")
    recorder = build_recorder(settings, brain)
    eye = Eye(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if started is not None:
        started(recorder)

    async def watch() -> None:
        grid = beats(lambda: settings.tick.interval_s, loop.time)
        lateness_ms = 0.0
        while frames is None or brain.sequence < frames:
            if brain.sequence:
                lateness_ms = (await anext(grid)).lateness_s * 1000.0
            frame = await eye.look(sequence=brain.sequence, lateness_ms=lateness_ms)
            recorder.offer(brain.step(frame))

    writing = asyncio.create_task(recorder.run(), name="recorder")
    watching = asyncio.create_task(watch(), name="frames")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait((writing, watching, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (writing, watching):
            if task.done():
                task.result()
    finally:
        watching.cancel()
        stopping.cancel()
        await recorder.stop()
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        eye.close()
    return Recorded(recorder.health, brain.sequence)
