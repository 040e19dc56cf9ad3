from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromodd.core.cadence import EXPECTED, UNCOUNTED, Cadence, Gate

REFRESH_S = 150.0


def passed(gate: Gate, values: list[Any], interval_s: float = 1.0) -> list[bool]:
    """What the gate lets through of a number that takes these values, one a tick."""
    return [gate.due({"v": value}, tick * interval_s) for tick, value in enumerate(values)]


def changes(deadband: float = 0.0, refresh_s: float = REFRESH_S) -> Gate:
    return Gate(Cadence(1, deadband), refresh_s=refresh_s)


# How it is said


@pytest.mark.parametrize(
    ("text", "cadence"),
    [
        ("off", Cadence(0)),
        ("every 1", Cadence(1)),
        ("every 10", Cadence(10)),
        ("  every\t10 ", Cadence(10)),
        ("every 999999999", Cadence(999_999_999)),
        ("change", Cadence(1, 0.0)),
        ("change 0", Cadence(1, 0.0)),
        ("change 0.05", Cadence(1, 0.05)),
        ("change .5", Cadence(1, 0.5)),
        ("change  2", Cadence(1, 2.0)),
    ],
)
def test_a_cadence_is_what_its_text_says(text: str, cadence: Cadence) -> None:
    assert Cadence.parse(text) == cadence


@pytest.mark.parametrize(
    "text",
    [
        "",
        "on",
        "Off",
        "off 1",
        "every",
        "every 0",
        "every -1",
        "every 1.5",
        "every 01",
        "every 1 2",
        "every 1000000000",
        "every ٣",
        "every1",
        "change -1",
        "change 1e-3",
        "change 5.",
        "change nan",
        "change inf",
        "change " + "9" * 400,
        "change 0.1 0.2",
        "changes",
        "off\noff",
    ],
)
def test_what_names_no_cadence_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"off, every N") as caught:
        Cadence.parse(text)
    assert str(caught.value) == EXPECTED


# What it lets through


def test_off_lets_nothing_through() -> None:
    gate = Gate(Cadence(0), refresh_s=REFRESH_S)
    assert not any(passed(gate, list(range(1000))))


@pytest.mark.parametrize("ticks", [1, 2, 7])
def test_every_so_many_begins_with_the_first(ticks: int) -> None:
    gate = Gate(Cadence(ticks), refresh_s=REFRESH_S)
    assert passed(gate, [0] * 20) == [tick % ticks == 0 for tick in range(20)]


def test_every_so_many_does_without_values() -> None:
    gate = Gate(Cadence(2), refresh_s=REFRESH_S)
    assert [gate.due({}, 0.0) for _ in range(3)] == [True, False, True]


def test_what_does_not_change_is_let_through_once() -> None:
    assert passed(changes(), [1, 1, 1, 2, 2, 1]) == [True, False, False, True, False, True]


def test_what_does_not_change_is_refreshed_before_it_expires() -> None:
    due = [tick for tick, is_due in enumerate(passed(changes(refresh_s=10.0), [1] * 31)) if is_due]
    assert due == [0, 10, 20, 30]


def test_a_change_begins_the_time_to_the_refresh_anew() -> None:
    due = [tick for tick, is_due in enumerate(passed(changes(refresh_s=10.0), [1] * 5 + [2] * 20)) if is_due]
    assert due == [0, 5, 15]


@pytest.mark.parametrize(("value", "is_due"), [(0.59, False), (0.61, True), (0.41, False), (0.39, True)])
def test_a_small_number_moves_by_more_than_the_deadband(value: float, is_due: bool) -> None:
    assert passed(changes(0.1), [0.5, value]) == [True, is_due]


@pytest.mark.parametrize(("value", "is_due"), [(1099, False), (1101, True), (901, False), (899, True)])
def test_a_large_number_moves_by_more_than_its_share(value: float, is_due: bool) -> None:
    assert passed(changes(0.1), [1000, value]) == [True, is_due]


def test_a_slow_drift_counts_from_what_was_published_last() -> None:
    due = passed(changes(0.1), [0.0, 0.06, 0.12, 0.18, 0.24])
    assert due == [True, False, True, False, True]


@pytest.mark.parametrize("name", sorted(UNCOUNTED))
def test_what_differs_from_tick_to_tick_anyway_is_no_change(name: str) -> None:
    gate = changes()
    assert [gate.due({name: tick, "v": 1}, tick) for tick in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": None}, {"a": 0}),
        ({"a": 0}, {"a": None}),
        ({"a": "x"}, {"a": "y"}),
        ({"a": True}, {"a": False}),
        ({"a": 1}, {}),
        ({}, {"a": 1}),
        ({"a": [1]}, {"a": [1, 1]}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 5}]}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 5}}}),
        ({"a": {}}, {"a": []}),
        ({"a": "1"}, {"a": 1}),
    ],
)
def test_anything_but_a_small_step_of_a_number_is_a_change(before: object, after: object) -> None:
    assert passed(changes(0.5), [before, after]) == [True, True]


def test_numbers_in_lists_have_the_deadband_too() -> None:
    assert passed(changes(0.5), [[{"b": 1}], [{"b": 1.4}]]) == [True, False]


def test_an_order_of_names_is_no_change() -> None:
    assert passed(changes(), [{"a": 1, "b": 2}, {"b": 2, "a": 1}]) == [True, False]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None)
@given(value=JSON, deadband=st.floats(0.0, 10.0))
def test_what_is_the_same_is_never_a_change(value: object, deadband: float) -> None:
    again = json.loads(json.dumps(value))
    assert passed(changes(deadband), [value, again]) == [True, False]


@settings(derandomize=True, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), deadband=st.floats(0.0, 1.0))
def test_what_was_published_last_is_never_further_off_than_the_deadband(
    values: list[float], deadband: float
) -> None:
    gate = changes(deadband)
    last = 0.0
    for value, is_due in zip(values, passed(gate, values, interval_s=0.0), strict=True):
        last = value if is_due else last
        assert abs(value - last) <= deadband * max(abs(last), 1.0)
