"""Trees of files as one text, so that a machine can be read at a glance and links may run in circles.

A line `== PATH` begins a file, whose lines follow; `== PATH -> TARGET` is a link, `== PATH/` an empty folder.
`python tests/machine_files.py DIRECTORY` prints a captured machine in this form.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

MARK = "== "


def pack(folder: Path) -> str:
    """The text of a tree."""
    return "".join(_entries(folder))


def _entries(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield f"{MARK}{name} -> {path.readlink()}\n"
        elif path.is_file():
            content = path.read_text(encoding="utf-8")
            yield f"{MARK}{name}\n{content}" + ("\n" if content and not content.endswith("\n") else "")
        elif not any(path.iterdir()):
            yield f"{MARK}{name}/\n"


def unpack(text: str, folder: Path) -> Path:
    """Make the tree of a text in `folder`, which is also returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in text.removeprefix(MARK).split(f"\n{MARK}"):
        head, _, content = entry.partition("\n")
        name, _, target = head.partition(" -> ")
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if target:
            path.symlink_to(target)
        else:
            path.write_text(content and content.rstrip("\n") + "\n", encoding="utf-8")
    return folder


if __name__ == "__main__":
    sys.stdout.write(pack(Path(sys.argv[1])))
