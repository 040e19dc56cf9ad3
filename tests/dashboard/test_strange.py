"""Surprise in words."""

from __future__ import annotations

import pytest

from neuromodd.dashboard.strange import odds, rarity, unit_of


@pytest.mark.parametrize(
    ("surprise", "words"),
    [
        (0.0, "1 in 1"),
        (0.25, "1 in 320"),
        (0.3, "1 in 1,000"),
        (0.5, "1 in 100,000"),
        (0.59999, "1 in 1 million"),
        (0.64, "1 in 2.5 million"),
        (0.75, "1 in 32 million"),
        (1.0, "1 in 10 billion"),
    ],
)
def test_a_surprise_is_one_moment_in_so_many(surprise: float, words: str) -> None:
    assert odds(surprise) == words


def test_what_one_moment_in_ten_exceeds_is_usual() -> None:
    assert (rarity(0.09), rarity(0.1)) == ("usual", "1 in 10")


@pytest.mark.parametrize(
    ("channel", "unit"),
    [
        ("cpu", "ratio"),
        ("pressure", "ratio"),
        ("network", "bytes_per_s"),
        ("disk.write_bytes_per_s", "bytes_per_s"),
        ("gpus.0.power_watts", "watts"),
        ("thermal.board/CPU core.temperature_celsius", "celsius"),
        ("cpu.load_1m", ""),
    ],
)
def test_a_channel_has_the_unit_that_its_name_ends_in(channel: str, unit: str) -> None:
    assert unit_of(channel) == unit
