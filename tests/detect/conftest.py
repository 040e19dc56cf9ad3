"""Runs `neuromodd detect`."""

from __future__ import annotations

from pathlib import Path

import pytest
from measured import Ended, Run, table

from neuromodd.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process."""

    def ended(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return Ended(left.value.code, *capsys.readouterr())

    return ended


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A table of one channel."""
    return table(tmp_path / "one.csv")
