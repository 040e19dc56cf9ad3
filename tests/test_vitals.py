from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from neuromodd import __version__
from neuromodd.config import SensorSettings, Settings
from neuromodd.core.brain import Brain, Tick
from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.core.payloads import CheckpointHealth, MqttHealth, OutboxHealth
from neuromodd.core.schemas import SCHEMA_NAMES, schema
from neuromodd.eye import Eye
from neuromodd.sensors.base import SensorStatus
from neuromodd.vitals import LATE_MS, LATENESS_WINDOW_TICKS, Vitals

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def vitals() -> Vitals:
    return Vitals(started_utc=START, started_s=1000.0)


@pytest.fixture
def eye(tmp_path: Path) -> Iterator[Eye]:
    eye = Eye(Settings(node="lab", sensors=SensorSettings(sysfs_root=tmp_path, disabled=("nvml",))))
    yield eye
    eye.close()


def late(lateness_ms: float | None, *, gap: bool = False) -> TelemetryFrame:
    return TelemetryFrame(lateness_ms=lateness_ms, gap=gap)


def health(vitals: Vitals, *, now_s: float = 1000.0, **sensors: SensorStatus) -> dict[str, Any]:
    message = vitals.health(
        node="lab",
        time_utc=START,
        now_s=now_s,
        sensors=sensors,
        mqtt=MqttHealth(
            connected=False,
            protocol=None,
            connections=0,
            published=0,
            dropped=0,
            waiting_events=0,
            outbox=OutboxHealth(waiting=0, waiting_bytes=0, oldest_age_s=None, dropped=0, error=None),
            inbound=None,
            taken_over=False,
            error=None,
        ),
        checkpoint=CheckpointHealth(age_s=None, written=0, failures=0, error=None),
        recorder=None,
        web=None,
        faults={},
        anomalies=3,
    )
    document: dict[str, Any] = json.loads(message.payload)
    return document


def info(vitals: Vitals, eye: Eye, newest: Tick | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(vitals.info(Settings(node="lab"), eye, newest).payload)
    return document


def test_without_ticks_there_are_no_quantiles(vitals: Vitals) -> None:
    ticks = health(vitals)["ticks"]
    assert (ticks["lateness_p50_ms"], ticks["lateness_p99_ms"]) == (None, None)


def test_a_lateness_that_is_not_known_is_in_no_quantile(vitals: Vitals) -> None:
    vitals.count(late(None), missed=0)
    assert health(vitals)["ticks"]["lateness_p50_ms"] is None


def test_quantiles_are_those_of_the_ticks(vitals: Vitals) -> None:
    for lateness_ms in range(100):
        vitals.count(late(float(lateness_ms)), missed=0)
    ticks = health(vitals)["ticks"]
    assert (ticks["lateness_p50_ms"], ticks["lateness_p99_ms"]) == (50.0, 99.0)


def test_quantiles_forget_what_is_long_past(vitals: Vitals) -> None:
    vitals.count(late(1e6), missed=0)
    for _ in range(LATENESS_WINDOW_TICKS):
        vitals.count(late(1.0), missed=0)
    assert health(vitals)["ticks"]["lateness_p99_ms"] == 1.0


@pytest.mark.parametrize(("lateness_ms", "counted"), [(None, 0), (0.0, 0), (LATE_MS, 0), (LATE_MS + 0.1, 1)])
def test_a_tick_is_late_over_50_ms(vitals: Vitals, lateness_ms: float | None, counted: int) -> None:
    vitals.count(late(lateness_ms), missed=0)
    assert health(vitals)["ticks"]["late"] == counted


def test_missed_ticks_add_up(vitals: Vitals) -> None:
    for missed in (0, 3, 2):
        vitals.count(late(0.0), missed=missed)
    assert health(vitals)["ticks"]["missed"] == 5


def test_gaps_are_counted(vitals: Vitals) -> None:
    for gap in (False, True, True):
        vitals.count(late(0.0, gap=gap), missed=0)
    assert health(vitals)["ticks"]["gaps"] == 2


def test_ticks_are_counted(vitals: Vitals) -> None:
    for _ in range(4):
        vitals.count(late(None), missed=0)
    assert health(vitals)["ticks"]["count"] == 4


def test_failures_of_sinks_are_counted_by_sink(vitals: Vitals) -> None:
    for sink in ("mqtt", "checkpoint", "mqtt"):
        vitals.count_sink_failure(sink)
    assert health(vitals)["sinks_failed"] == {"mqtt": 2, "checkpoint": 1}


def test_uptime_is_since_the_start(vitals: Vitals) -> None:
    assert health(vitals, now_s=1012.5)["uptime_s"] == 12.5


def test_uptime_is_never_negative(vitals: Vitals) -> None:
    assert health(vitals, now_s=999.0)["uptime_s"] == 0.0


def test_health_tells_how_each_sensor_is(vitals: Vitals) -> None:
    status = SensorStatus(state="failed", error="OSError: no", failures=3, duration_ms=1.5)
    expected = {"state": "failed", "error": "OSError: no", "failures": 3, "duration_ms": 1.5}
    assert health(vitals, cpu=status)["sensors"] == {"cpu": expected}


def test_health_counts_anomalies(vitals: Vitals) -> None:
    assert health(vitals)["anomalies"] == 3


@pytest.mark.parametrize("ticks", [0, 3])
def test_health_is_valid_by_its_schema(vitals: Vitals, ticks: int) -> None:
    for _ in range(ticks):
        vitals.count(late(1.0), missed=0)
    document = health(vitals, cpu=SensorStatus(state="ok", duration_ms=0.1), gpu=SensorStatus(state="hung"))
    Draft202012Validator(schema("health")).validate(document)


def test_info_is_valid_by_its_schema(vitals: Vitals, eye: Eye) -> None:
    Draft202012Validator(schema("info")).validate(info(vitals, eye))


def test_info_says_which_version_publishes(vitals: Vitals, eye: Eye) -> None:
    assert info(vitals, eye)["version"] == __version__


def test_info_names_the_version_of_every_schema(vitals: Vitals, eye: Eye) -> None:
    assert info(vitals, eye)["schemas"] == dict.fromkeys(SCHEMA_NAMES, 1)


def test_info_has_the_boot_id_of_the_frames(vitals: Vitals, eye: Eye) -> None:
    assert info(vitals, eye)["boot_id"] == eye.assembler.boot_id


async def test_info_lists_the_sensors_that_were_found(vitals: Vitals, eye: Eye) -> None:
    await eye.look(sequence=0, lateness_ms=None)
    assert tuple(info(vitals, eye)["sensors"]) == eye.sampler.found
    assert "memory" in eye.sampler.found


def test_info_lists_gpus_by_name_or_by_number(vitals: Vitals, eye: Eye) -> None:
    gpus = (GpuSample(index=0, name="A"), GpuSample(index=1))
    tick = Brain().step(TelemetryFrame(node="lab", time_utc=START, gpus=gpus))
    assert info(vitals, eye, tick)["host"]["gpus"] == ["A", "GPU 1"]
