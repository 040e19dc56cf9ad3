"""The entry point of the command, and of `python -m neuromodd`."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    if os.getpid() == 1:
        # The first process of a container is spared the signals that it does not handle. Until the daemon
        # does, and in commands that never do, SIGTERM would be nothing, and a stop take ten seconds.
        signal.signal(signal.SIGTERM, _end)
    if sys.argv[1:2] == ["health"]:
        # Container engines ask twice a minute: without the options of the configuration it costs a tenth.
        from neuromodd.health import ask_quickly  # noqa: PLC0415

        status = ask_quickly(sys.argv[2:])
        if status is not None:
            # As cli.py would, which is what is not to be imported.
            raise SystemExit(status)
    # The network multiplies no large matrices: a thread for each processor core would be memory for nothing.
    # It must be set before numpy is first imported, and is not for a library to set.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from neuromodd.cli import main as command_line  # noqa: PLC0415

    command_line()


def _end(number: int, _: FrameType | None) -> NoReturn:
    """End as any other process does of a signal."""
    os._exit(128 + number)


if __name__ == "__main__":
    main()
