"""The history: the numbers of MQTT, ten minutes of them, one a second at most."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from web_moments import anomaly, felt, moment

from neuromodd.core.brain import Tick
from neuromodd.core.frame import CpuSample, GpuSample, TelemetryFrame, TemperatureSample
from neuromodd.core.messages import state_message, telemetry_event
from neuromodd.core.surprise import DEFAULT_CHANNELS
from neuromodd.dashboard.history import COLUMNS_LIMIT, GROUPS, UNITS, WINDOW_S, Column, History

Live = Callable[..., Any]

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def of_second(second: float) -> datetime:
    return START + timedelta(seconds=second)


def history(interval_s: float = 1.0, **more: Any) -> History:
    return History(
        **{
            "interval_s": interval_s,
            "lif": 8,
            "bank": 5,
            "surprise": DEFAULT_CHANNELS,
            "weights": lambda: [[0.5] * 8] * 8,
            **more,
        }
    )


def published(tick: Tick) -> dict[str, Any]:
    """What MQTT says of a tick, by topic."""
    telemetry = json.loads(telemetry_event(tick.frame).encoded(replayed=False))
    return {"state": json.loads(state_message(tick).payload), "telemetry": telemetry}


def at(document: Any, name: str) -> Any:
    """The value at the path that a column's name is."""
    found = document
    for key, device in re.findall(r"([^.\[\]]+)(?:\[([^\]]*)\])?\.?", name):
        if found is None:
            return None
        found = found[int(key)] if isinstance(found, list) else found[key]
        if device and found is not None:
            named = [of for of in found if device in (of.get("name"), str(of.get("index")))]
            found = named[0]
    return found


@pytest.mark.parametrize("rich", [True, False])
def test_every_number_of_a_row_is_that_of_mqtt(live: Live, everything: dict[str, Any], rich: bool) -> None:
    kept = history()
    tick = live().tick(**(everything if rich else {"cpu": CpuSample(utilization_ratio=2 / 3)}))
    if rich:
        tick = felt(tick, moment(0.7, of={"cpu": 2 / 3}, episode=anomaly()))
    row = kept.take(tick)
    assert row is not None
    sequence, time_s, *values = json.loads(json.dumps(kept.encodable(row)))
    assert sequence == tick.frame.sequence
    assert time_s == tick.frame.time_utc.timestamp()
    expected = [at(published(tick), column.name) for column in kept.columns]
    assert values == expected
    assert sum(value is not None for value in values) >= (95 if rich else 28)


def test_every_single_number_of_a_frame_has_a_column() -> None:
    named = {column.name for column in history().columns}
    for group in GROUPS:
        (kind, _) = TelemetryFrame.model_fields[group].annotation.__args__  # type: ignore[union-attr]
        for field, info in kind.model_fields.items():
            if not re.search("str|tuple", str(info.annotation)):
                assert f"telemetry.{group}.{field}" in named


def test_the_channels_of_surprise_are_those_that_are_watched(live: Live) -> None:
    kept = history(surprise=("cpu", "disk.write_bytes_per_s"))
    row = kept.take(felt(live().tick(), moment(0.25, names=("cpu", "disk.write_bytes_per_s"))))
    assert row is not None
    values = dict(zip((column.name for column in kept.columns), kept.encodable(row)[2:], strict=True))
    named = {name: value for name, value in values.items() if name.startswith("state.surprise.")}
    assert named == {
        "state.surprise.total": 0.25,
        "state.surprise.channels.cpu": 0.03,
        "state.surprise.channels.disk.write_bytes_per_s": 0.03,
    }


def test_without_surprise_there_is_none_and_no_anomaly(live: Live) -> None:
    kept = history(surprise=())
    row = kept.take(felt(live().tick(), None))
    assert row is not None
    values = dict(zip((column.name for column in kept.columns), kept.encodable(row)[2:], strict=True))
    assert values["state.surprise.total"] is None
    assert values["state.flags.anomaly"] == 0


def test_what_is_not_measured_is_null_and_never_zero(live: Live) -> None:
    kept = history()
    row = kept.take(live().tick())
    assert row is not None
    values = dict(zip((column.name for column in kept.columns), kept.encodable(row)[2:], strict=True))
    assert values["telemetry.cpu.utilization_ratio"] is None
    assert values["state.surprise.total"] is None


def test_a_scale_ends_where_the_frame_says_it_does() -> None:
    columns = {column.name: column for column in history().columns}
    assert columns["telemetry.cpu.utilization_ratio"].high == 1.0
    # A design that does not fit needs more than there is.
    assert columns["telemetry.fpga.lut_utilization_ratio"].high is None
    assert columns["telemetry.cpu.temperature_celsius"].low is None


def test_a_device_keeps_its_columns_when_others_come_and_it_goes(live: Live) -> None:
    kept, life = history(), live()
    kept.take(life.tick(thermal=(TemperatureSample(name="a", temperature_celsius=50.0),)))
    first = len(kept.columns)
    kept.take(life.tick(gpus=(GpuSample(index=0, temperature_celsius=60.0),)))
    row = kept.take(life.tick(thermal=(TemperatureSample(name="a", temperature_celsius=51.0),)))
    assert row is not None
    names = [column.name for column in kept.columns]
    assert names[first - 1] == "telemetry.thermal[a].temperature_celsius"
    assert names[first].startswith("telemetry.gpus[0].")
    assert row.values[first - 1] == 51.0
    assert all(map(math.isnan, row.values[first:]))


def test_a_host_with_countless_sensors_has_a_bounded_history(live: Live) -> None:
    kept, life = history(), live()
    for number in range(0, 1000, 100):
        names = [f"sensor {of}" for of in range(number, number + 100)]
        kept.take(
            life.tick(thermal=tuple(TemperatureSample(name=of, temperature_celsius=1.0) for of in names))
        )
    assert len(kept.columns) == COLUMNS_LIMIT


def test_a_row_has_the_newest_levels_and_the_mean_rates_since_the_last(live: Live) -> None:
    kept, life = history(0.1), live(0.1)
    first = kept.take(life.tick(cpu=CpuSample(utilization_ratio=1.0)))
    assert first is not None
    ticks = [
        felt(life.tick(cpu=CpuSample(utilization_ratio=1.0)), moment(of_ten / 10)) for of_ten in range(10)
    ]
    rows = [kept.take(tick) for tick in ticks]
    assert rows[:9] == [None] * 9
    row = rows[9]
    assert row is not None
    values = dict(zip((column.name for column in kept.columns), row.values, strict=True))
    assert row.sequence == ticks[-1].frame.sequence
    assert values["state.surprise.total"] == 0.9
    fired = sum(tick.result.lif_spikes[0] for tick in ticks)
    assert fired > 0
    assert values["state.rates.lif.0"] == fired / 200


def test_ten_minutes_are_kept_and_no_more(live: Live) -> None:
    kept, tick = history(), live().tick(cpu=CpuSample(utilization_ratio=0.5))
    for second in range(1500):
        moved = tick.frame.model_copy(update={"time_utc": of_second(second)})
        kept.take(tick.model_copy(update={"frame": moved}))
    assert kept.rows[0].time_s == of_second(1499 - WINDOW_S).timestamp()
    assert len(kept.rows) == 601
    assert kept.earlier is not None
    assert 0 <= 1499 - WINDOW_S - (kept.earlier.time_s - of_second(0).timestamp()) <= 60


def test_where_the_clock_was_set_back_the_rows_after_it_give_way(live: Live) -> None:
    kept, life = history(), live()
    for second in range(100):
        kept.take(life.tick(at_s=float(second)))
    kept.take(life.tick(at_s=50.0))
    assert [row.time_s for row in kept.rows] == [of_second(second).timestamp() for second in range(51)]
    kept.take(life.tick(at_s=-1e7))
    assert len(kept.rows) == 1
    assert kept.earlier is not None
    assert kept.earlier.time_s == kept.rows[0].time_s


def test_the_weights_of_before_are_those_of_ten_minutes_ago(live: Live) -> None:
    weight = 0.0
    kept = history(weights=lambda: [[weight] * 8] * 8)
    tick = live().tick()
    for second in range(1201):
        weight = float(second)
        moved = tick.frame.model_copy(update={"time_utc": of_second(second)})
        kept.take(tick.model_copy(update={"frame": moved}))
    assert kept.snapshot().weights[0][0] == 1200.0
    assert kept.earlier is not None
    assert kept.earlier.weights[0][0] == 540.0


def test_of_a_large_network_the_first_neurons_are_shown() -> None:
    kept = history(lif=10_000, bank=500, weights=lambda: [[0.5] * 64] * 10_000)
    rates = [column for column in kept.columns if column.group == "rates"]
    assert len(rates) == 32 + 16


def test_every_unit_is_one_that_a_page_knows(live: Live, everything: dict[str, Any]) -> None:
    kept = history()
    kept.take(live().tick(**everything))
    assert {column.unit for column in kept.columns} <= {"", *UNITS}
    assert all(column.label for column in kept.columns)


@pytest.mark.parametrize(
    ("name", "label", "unit"),
    [
        ("telemetry.cpu.utilization_ratio", "utilization", "ratio"),
        ("telemetry.cpu.load_1m", "load 1m", ""),
        ("telemetry.network.receive_bytes_per_s", "receive", "bytes_per_s"),
        ("telemetry.gpus[0].power_limit_watts", "GPU 0 power limit", "watts"),
        ("telemetry.thermal[coretemp Core 0].temperature_celsius", "coretemp Core 0", "celsius"),
        ("state.rates.izhikevich.4", "timing", ""),
    ],
)
def test_a_column_is_labelled_for_people(
    live: Live, everything: dict[str, Any], name: str, label: str, unit: str
) -> None:
    kept = history()
    kept.take(live().tick(**everything))
    column = next(column for column in kept.columns if column.name == name)
    assert isinstance(column, Column)
    assert (column.label, column.unit) == (label, unit)
