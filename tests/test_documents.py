"""README and package hold to each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import frame_table

from neuromodd.config import options
from neuromodd.core.asyncapi import asyncapi
from neuromodd.core.messages import REQUEST_TOPICS, TOPICS
from neuromodd.core.requests import REQUESTS
from neuromodd.core.rewards import KINDS
from neuromodd.core.schemas import SCHEMA_NAMES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Rows of the first table below a heading."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def topics() -> dict[str, list[str]]:
    """Rows of the table of topics: what, QoS, retained, expires."""
    return {row[0].strip("`"): row[1:] for row in table("Topics")}


def test_the_topic_table_is_what_the_daemon_publishes() -> None:
    rows = {
        name: (int(qos), retained == "yes", expires == "yes")
        for name, (_, qos, retained, expires) in topics().items()
        if not name.startswith("in/")
    }
    assert rows == {name: (rule.qos, rule.retain, rule.expires) for name, rule in TOPICS.items()}


def test_the_topic_table_is_what_the_daemon_subscribes_to() -> None:
    rows = {name: int(qos) for name, (_, qos, _, _) in topics().items() if name.startswith("in/")}
    assert rows == REQUEST_TOPICS


def test_the_topic_table_has_every_payload_that_has_a_schema() -> None:
    assert {*topics(), "reply"} - {"status"} == set(SCHEMA_NAMES)


def test_the_topic_table_has_the_topics_of_the_asyncapi_document() -> None:
    addresses = [channel["address"] or "" for channel in asyncapi()["channels"].values()]
    base = "{prefix}/{node}/"
    assert set(topics()) == {address.removeprefix(base) for address in addresses if address.startswith(base)}


def test_the_topic_table_names_every_kind_of_reward() -> None:
    assert set(re.findall(r"`(\w+)`", topics()["reward"][0])) == set(KINDS)


def test_the_topic_table_names_every_command() -> None:
    schema = REQUESTS["in/command"].json_schema()
    assert set(re.findall(r"`([\w-]+)`", topics()["in/command"][0])) == set(
        schema["discriminator"]["mapping"]
    )


def test_the_table_of_a_frame_is_that_of_the_code() -> None:
    # `python tests/frame_table.py` writes it anew.
    assert f"{frame_table.BEGIN}\n{frame_table.table()}\n{frame_table.END}" in README


def test_every_field_of_a_frame_tells_its_source() -> None:
    assert [field for field, _, source, _, _ in frame_table.rows() if not source] == []


def test_every_option_in_the_table_exists() -> None:
    named = {name for row in table("Options") for name in re.findall(r"`([a-z_.]+)`", row[0])}
    assert named
    assert named <= {option.name for option in options()}


def test_the_library_example_runs(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    done = subprocess.run(
        [sys.executable, "-c", example[1]],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("1000 ")


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
