"""The entry point of the command, and of `python -m neuromodd`."""

from __future__ import annotations

import os
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    # The network multiplies no large matrices: a thread for each processor core would be memory for nothing.
    # It must be set before numpy is first imported, and is not for a library to set.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from neuromodd.cli import main as command_line  # noqa: PLC0415

    command_line()


if __name__ == "__main__":
    main()
