"""The distal reward problem: in full in `make long`, one seed of it in `make test`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from neuromodd.core.stdp import stdp_window

SCRIPT = Path(__file__).parent.parent.parent / "examples" / "distal_reward.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("distal_reward", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["distal_reward"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["distal_reward"]


def test_the_traces_are_those_of_the_packages_window(example: ModuleType) -> None:
    assert pytest.approx(stdp_window(1) / stdp_window(0), rel=0.002) == example.TRACE_KEEP


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(example: ModuleType) -> None:
    one, again, other = (example.simulate(seed, 2, rewarded=True) for seed in (1, 1, 2))
    assert np.array_equal(one.weights, again.weights)
    assert not np.array_equal(one.weights, other.weights)


def test_without_reward_the_network_begins_alike(example: ModuleType) -> None:
    rewarded, unrewarded = (example.simulate(1, 1, rewarded=rewarded) for rewarded in (True, False))
    assert np.array_equal(rewarded.weights, unrewarded.weights)
    assert 0.5 < rewarded.rate_hz < 20.0


@pytest.mark.timeout(300)
def test_one_seed_finds_the_rewarded_synapse(example: ModuleType, tmp_path: Path) -> None:
    rewarded, unrewarded = (example.simulate(1, 600, rewarded=rewarded) for rewarded in (True, False))
    assert rewarded.rewards > 10
    assert rewarded.rewarded[0] < 0.1
    assert rewarded.rewarded[-1] > 1.0
    assert unrewarded.rewarded[-1] < 0.3
    # It is one of the strongest of 80,000; most have become weaker than they were.
    assert (rewarded.weights > rewarded.rewarded[-1]).mean() < 0.05
    assert rewarded.mean[-1] < 1.0
    example.draw({1: (rewarded, unrewarded)}, tmp_path / "picture.png")
    picture = (tmp_path / "picture.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000


def test_less_than_a_second_is_refused(example: ModuleType) -> None:
    with pytest.raises(ValueError, match="seconds: got 0, expected 1 or more"):
        example.simulate(1, 0, rewarded=True)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_seeds_find_the_rewarded_synapse_in_1200_s(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["distal_reward.py", "--plot", str(tmp_path / "picture.png")])
    assert example.main() == 0
    assert "above 1.0 with reward, below 0.3 without: yes" in capsys.readouterr().out
