"""The shipped schemas and the frozen contract.

`python tests/schema_files.py` writes `neuromodd/schemas/` anew. `python tests/schema_files.py --freeze`, at a
release, also takes what was added to version 1 into `tests/data/contract-v1.json`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuromodd.core.asyncapi import asyncapi, key
from neuromodd.core.messages import REQUEST_TOPICS, TOPICS
from neuromodd.core.schemas import SCHEMA_NAMES, schema

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "neuromodd" / "schemas"
CONTRACT = Path(__file__).with_name("data") / "contract-v1.json"

LOWER, UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")

Fields = dict[str, dict[str, Any]]
"""Dotted path -> the types that may stand there, its bounds, whether it must be there."""


def files() -> dict[str, dict[str, Any]]:
    """What ships, by file name."""
    documents = {f"{key(name)}.json": schema(name) for name in SCHEMA_NAMES}
    return {**documents, "asyncapi.json": asyncapi()}


def contract() -> dict[str, Any]:
    """The contract as the code has it, in short."""
    payloads = {name: fields(document) for name, document in _payloads()}
    return {
        "topics": {name: {"qos": rule.qos, "retain": rule.retain} for name, rule in TOPICS.items()},
        "requests": {name: {"qos": qos} for name, qos in REQUEST_TOPICS.items()},
        "published": {name: found for name, found in payloads.items() if not _is_taken(name)},
        "taken": {name: found for name, found in payloads.items() if _is_taken(name)},
    }


def fields(document: dict[str, Any]) -> Fields:
    """Every field of a JSON Schema: `a.b`, of each item of a list `a[]`, of each value of a table `a{}`."""
    found: Fields = {}
    for path, part, required in _walk(document, document.get("$defs", {}), "", required=True):
        told = found.setdefault(path, {"types": [], "required": required})
        told["types"] = sorted({*told["types"], *_types(part)})
        told |= {name: part[name] for name in (*LOWER, *UPPER) if name in part}
    return found


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of the contract `old` does not hold in `new`; nothing if there are but additions."""
    found = [
        f"{group}: {name} was {rule}, is {new[group].get(name)}"
        for group in ("topics", "requests")
        for name, rule in old[group].items()
        if new[group].get(name) != rule
    ]
    for name, before in old["published"].items():
        found += [f"{name}: {text}" for text in _published_breaks(before, new["published"].get(name, {}))]
    topics = {name.split(" ", 1)[0] for name in old["published"]}
    # Of a topic that has kinds, a reader of version 1 knows no others.
    found += [
        f"{name} is a new kind"
        for name in new["published"]
        if name not in old["published"] and name.split(" ", 1)[0] in topics
    ]
    for name, before in old["taken"].items():
        found += [f"{name}: {text}" for text in _taken_breaks(before, new["taken"].get(name, {}))]
    return found


def _published_breaks(old: Fields, new: Fields) -> Iterator[str]:
    # A reader must find what it was promised, and nothing wider.
    for path, before in old.items():
        after = new.get(path)
        if after is None:
            yield f"{path} has vanished"
        elif before["required"] and not after["required"]:
            yield f"{path} may be missing"
        else:
            yield from (f"{path} may be {kind}" for kind in _more(after, before))
            yield from (f"{path} has left its {bound}" for bound in _looser(before, after))


def _taken_breaks(old: Fields, new: Fields) -> Iterator[str]:
    # Whatever a sender was allowed to send must still be taken.
    for path, before in old.items():
        after = new.get(path)
        if after is None:
            yield f"{path} is not taken any more"
            continue
        if after["required"] and not before["required"]:
            yield f"{path} is required"
        yield from (f"{path} may not be {kind}" for kind in _more(before, after))
        yield from (f"{path} has a narrower {bound}" for bound in _looser(after, before))
    yield from (f"{path} is new and required" for path in new if path not in old and new[path]["required"])


def _more(wide: dict[str, Any], narrow: dict[str, Any]) -> list[str]:
    """The types that only `wide` has; an integer is a number, a word of a list is a string."""
    known = set(narrow["types"])
    known |= {"integer"} if "number" in known else set()
    return [
        kind
        for kind in wide["types"]
        if kind not in known and not (kind.startswith('"') and "string" in known)
    ]


def _looser(tight: dict[str, Any], loose: dict[str, Any]) -> list[str]:
    """The bounds of `tight` that `loose` lacks or has further out."""
    low = [name for name in LOWER if name in tight and loose.get(name, float("-inf")) < tight[name]]
    return low + [name for name in UPPER if name in tight and loose.get(name, float("inf")) > tight[name]]


def _payloads() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in SCHEMA_NAMES:
        document = schema(name)
        if "oneOf" not in document:
            yield name, document
            continue
        definitions = document.get("$defs", {})
        for part in document["oneOf"]:
            kind = _followed(part, definitions)
            word = next(
                of["const"]
                for field, of in kind["properties"].items()
                if "const" in of and field in kind["required"]
            )
            yield f"{name} {word}", {**kind, "$defs": definitions}


def _is_taken(name: str) -> bool:
    return name.split(" ", 1)[0] in REQUEST_TOPICS


def _followed(part: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        part = definitions[part["$ref"].removeprefix("#/$defs/")]
    return part


def _walk(
    part: dict[str, Any], definitions: dict[str, Any], path: str, *, required: bool
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    part = _followed(part, definitions)
    for alternative in (*part.get("anyOf", ()), *part.get("oneOf", ())):
        yield from _walk(alternative, definitions, path, required=required)
    if path and not {"anyOf", "oneOf"} & part.keys():
        yield path, part, required
    inner = {f"{path}.{name}".lstrip("."): of for name, of in part.get("properties", {}).items()}
    needed = {f"{path}.{name}".lstrip(".") for name in part.get("required", ())}
    for name, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(part.get(name), dict):
            inner[path + suffix] = part[name]
            needed.add(path + suffix)
    for place, of in inner.items():
        yield from _walk(of, definitions, place, required=place in needed)


def _types(part: dict[str, Any]) -> list[str]:
    if "const" in part or "enum" in part:
        return [json.dumps(word) for word in part.get("enum", [part.get("const")])]
    kind = part.get("type", "any")
    return [part.get("format", kind) if kind == "string" else kind]


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _in_lines(document: dict[str, Any]) -> str:
    """JSON with a line a field, so that a change shows as one."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return re.sub(r"{[^{}]*}", lambda leaf: " ".join(leaf[0].split()), text)


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, document in files().items():
        _write(FOLDER / name, document)
    if "--freeze" in sys.argv[1:]:
        if CONTRACT.exists() and (broken := breaks(json.loads(CONTRACT.read_text("utf-8")), contract())):
            sys.exit("\n".join(["this is no version 1 any more:", *broken]))
        CONTRACT.write_text(_in_lines(contract()), encoding="utf-8")


if __name__ == "__main__":
    main()
