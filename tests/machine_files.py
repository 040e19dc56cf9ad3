"""Trees of files as one text, so that a machine can be read at a glance and links may run in circles.

A line `== PATH` begins a file, whose lines follow; `== PATH -> TARGET` is a link, `== PATH/` an empty folder.
`python tests/machine_files.py DIRECTORY` prints a captured machine in this form.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MARK = "== "
MACHINES = Path(__file__).with_name("data") / "machines"
KINDS = ("workstation", "laptop", "server", "board")


def machine_text(kind: str) -> str:
    """The tree of one of the machines that are kept."""
    return (MACHINES / f"{kind}.txt").read_text(encoding="utf-8")


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


def run_on(machine: Path, nvml_stub: Path, name: str, *arguments: object, node: str = "lab") -> str:
    """Run `neuromodd` on a machine's files, with its NVML where it has one; gives what it prints."""
    environment = os.environ | {"NVML_STUB_SCENARIO": str(machine / "nvml.txt")}
    # A machine without NVIDIA's library has none here either, whatever this one has.
    library = nvml_stub / "stub" if (machine / "nvml.txt").exists() else nvml_stub / "none"
    library.mkdir(exist_ok=True)
    if library.name == "none":
        (library / "libnvidia-ml.so.1").touch()
    environment["LD_LIBRARY_PATH"] = str(library)
    proc, sysfs = machine / "proc", machine / "sys"
    roots = ["--sensors.procfs_root", proc, "--sensors.sysfs_root", sysfs]
    roots += ["--sensors.limits.procfs_root", proc, "--sensors.limits.sysfs_root", sysfs]
    fast = ["--tick.interval_s", "0.05", "--node", node]
    done = subprocess.run(
        [sys.executable, "-m", "neuromodd", name, *map(str, (*arguments, *roots, *fast))],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


if __name__ == "__main__":
    sys.stdout.write(pack(Path(sys.argv[1])))
