"""The README's table of every field of a frame: `python tests/frame_table.py` writes it anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from neuromodd.core.frame import TelemetryFrame

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- frame fields -->\n", "<!-- end of frame fields -->\n"

UNITS = {
    "_bytes_per_s": "B/s",
    "_per_s": "1/s",
    "_celsius": "°C",
    "_watts": "W",
    "_volts": "V",
    "_joules": "J",
    "_bytes": "B",
    "_ratio": "0 to 1",
    "_hz": "Hz",
    "_rpm": "rpm",
    "_cores": "cores",
    "_ns": "ns",
    "_ms": "ms",
    "_s": "s",
    "_utc": "ISO 8601",
}


def group_of(annotation: Any) -> type[BaseModel] | None:
    """The record that an annotation is of, however deep it stands in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := group_of(part))), None)


def unit(name: str, info: FieldInfo) -> str:
    """What a number of this field counts; what it is, where it is none."""
    plural = name.removesuffix("_hz").endswith("frequencies")
    suffix = next((suffix for suffix in UNITS if f"_{name}".endswith(suffix)), None)
    if suffix is not None:
        return f"{UNITS[suffix]}, each" if plural else UNITS[suffix]
    text = str(info.annotation)
    for word, called in (("bool", "yes or no"), ("tuple", "list"), ("str", "text"), ("Literal", "text")):
        if word in text:
            return called
    return "number"


def rows(model: type[BaseModel] = TelemetryFrame, prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Field, unit, source, needs, null when."""
    for name, info in model.model_fields.items():
        group = group_of(info.annotation)
        if group is not None:
            many = "[]" if "tuple" in str(info.annotation) else ""
            yield from rows(group, f"{prefix}{name}{many}.")
            continue
        notes = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        never = "" if "None" in str(info.annotation) else "never"
        yield (
            f"`{prefix}{name}`",
            unit(name, info),
            info.description or "",
            str(notes.get("needs") or ""),
            str(notes.get("null_when") or never),
        )


def table() -> str:
    """All rows in Markdown."""
    head = "| field | unit | source | needs | null when |\n|---|---|---|---|---|\n"
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows()]
    return head + "".join(lines)


def main() -> None:
    """Write the table into the README."""
    text = README.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    new = f"{BEGIN}\n{table()}\n{END}"
    README.write_text(pattern.sub(lambda _: new, text), encoding="utf-8")


if __name__ == "__main__":
    main()
