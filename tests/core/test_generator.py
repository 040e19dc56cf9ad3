from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.generator import MANY, Pcg64


def numpys(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def state(**changes: Any) -> dict[str, Any]:
    found = Pcg64(1).state
    return {**found, "state": {**found["state"], **changes}}


@given(st.integers(min_value=0, max_value=2**300))
def test_a_seed_gives_the_state_that_it_gives_numpy(seed: int) -> None:
    assert Pcg64(seed).state == numpys(seed).bit_generator.state


@given(st.integers(min_value=0, max_value=2**64), st.integers(min_value=0, max_value=400))
def test_the_stream_is_that_of_numpy(seed: int, count: int) -> None:
    ours, theirs = Pcg64(seed), numpys(seed)
    assert ours.random(count) == theirs.random(count).tolist()
    assert ours.state == theirs.bit_generator.state


def test_many_draws_come_from_numpy_and_go_on_with_the_same_stream() -> None:
    ours, theirs = Pcg64(5), numpys(5)
    for count in (3, MANY, 7):
        assert ours.random(count) == theirs.random(count).tolist()
    assert ours.random_array(4).tolist() == theirs.random(4).tolist()
    assert ours.state == theirs.bit_generator.state


@given(st.integers(min_value=0, max_value=2**64), st.integers(min_value=0, max_value=50))
def test_a_state_that_went_through_json_goes_on(seed: int, count: int) -> None:
    first = Pcg64(seed)
    first.random(count)
    second = Pcg64.restored(json.loads(json.dumps(first.state)))
    assert second.random(20) == first.random(20)


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        {**state(), "bit_generator": "MT19937"},
        {**state(), "state": None},
        state(state=-1),
        state(state=2**128),
        state(state=1.5),
        state(state=True),
        state(state="1"),
        state(inc=None),
        state(inc=4),
    ],
)
def test_what_is_no_state_is_refused(broken: object) -> None:
    with pytest.raises(ValueError, match=r"PCG64|state|inc"):
        Pcg64.restored(broken)
