"""The command `checkpoint`: lists, shows and sets aside what a state directory holds.

`list` and `show` only read: they take no lock, change nothing, and may be asked while the daemon runs.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from neuromodd.core.encoding import CHANNELS
from neuromodd.errors import CheckpointDamagedError, CheckpointMismatchError, InvalidValueError
from neuromodd.sinks.checkpoint import CheckpointStore
from neuromodd.sinks.checkpoint_file import MISFITS, read_checkpoint
from neuromodd.sinks.state_directory import StateDirectory

ASIDE_SUFFIXES = (".damaged", ".format", ".fresh", ".reset")

SHOWN_NEURONS = 32
"""Of larger networks the weights are told as a whole."""

LOCKED = (
    "stop it first, or ask it to begin anew while it runs: "
    '`{"command": "reset"}` on its topic in/command (mqtt.inbound.enabled)'
)


class Found(NamedTuple):
    """One checkpoint file as it was found; what can't be told is None.

    Attributes:
        file: its name.
        step: of the network, by its name.
        created_utc: when the state was taken.
        age_s: since then, by this machine's clock.
        size_bytes: of the file.
        format: the version of its format.
        trouble: why it can't be used; None if it is whole.
    """

    file: str
    step: int
    created_utc: str | None
    age_s: float | None
    size_bytes: int | None
    format: int | None
    trouble: str | None


def list_checkpoints(directory: Path, *, as_json: bool, now_utc: datetime) -> None:
    """Print the checkpoints of a directory, newest first, and what was set aside there.

    Raises:
        OSError: the directory can't be read.
    """
    found = [one for path in CheckpointStore(directory, keep=1).paths() if (one := _look(path, now_utc))]
    aside = sorted(
        path.name
        for path in (directory.iterdir() if directory.is_dir() else ())
        if path.name.startswith("checkpoint-") and path.suffix.partition("-")[0] in ASIDE_SUFFIXES
    )
    if as_json:
        document = {
            "directory": str(directory),
            "checkpoints": [of._asdict() for of in found],
            "set_aside": aside,
        }
        print(json.dumps(document, indent=2), flush=True)
        return
    if found:
        print(f"{'FILE':<32} {'STEP':>12}  {'CREATED (UTC)':<19}  {'AGE':>8} {'BYTES':>9} FORMAT  STATE")
    for of in found:
        print(
            f"{of.file:<32} {of.step:>12}  {of.created_utc or '-':<19.19}  {_ago(of.age_s):>8} "
            f"{_or_dash(of.size_bytes):>9} {_or_dash(of.format):>6}  {of.trouble or 'whole'}"
        )
    if not found:
        print(f"no checkpoints in {directory}")
    if aside:
        print(f"set aside: {', '.join(aside)}")
    sys.stdout.flush()


def show_checkpoint(
    directory: Path, file: Path | None, *, node: str, as_json: bool, now_utc: datetime
) -> None:
    """Print what a checkpoint holds.

    Args:
        directory: the state directory.
        file: a path, or a name in it; not given, the newest whole checkpoint there.
        node: as it is configured; a checkpoint does not know it.
        as_json: for a machine.
        now_utc: the time.

    Raises:
        InvalidValueError: there is no such checkpoint.
        CheckpointDamagedError: it is not whole, or no state of a brain.
        CheckpointMismatchError: it is of a newer format.
    """
    path, header, state = _newest(directory) if file is None else _named(directory, file)
    try:
        facts = _facts(path, header, state, node, now_utc)
        lines = _told(facts)
    except MISFITS as error:
        reason = f"its state is none of this version: {type(error).__name__}: {error}"
        raise CheckpointDamagedError(path, reason) from None
    print(json.dumps(facts, indent=2) if as_json else "\n".join(lines), flush=True)


def reset_checkpoints(directory: Path, *, keep: int, agreed: Callable[[str], bool]) -> bool:
    """Set all checkpoints of a directory aside, so that the next start begins anew; whether it was done.

    Args:
        directory: the state directory; it is not made.
        keep: how many that were set aside stay; those of now do in any case.
        agreed: is asked before, with the question.

    Raises:
        StateDirectoryLockedError: a daemon runs there.
        StateDirectoryError: the directory can't be written.
        OSError: one could not be set aside; newer ones were not touched.
    """
    if not CheckpointStore(directory, keep=1).paths():
        print(f"no checkpoints in {directory}: the next start begins anew as it is", flush=True)
        return True
    # Held while asking too: no daemon may begin with what is to go.
    lock = StateDirectory(directory, remedy=LOCKED)
    try:
        paths = CheckpointStore(directory, keep=1).paths()
        if not agreed(f"Set {len(paths)} checkpoints in {directory} aside? The next start begins anew."):
            print("nothing was changed", flush=True)
            return False
        store = CheckpointStore(directory, keep=max(keep, len(paths)))
        for path in reversed(paths):
            moved_to = store.set_aside(path, "reset")
            print(f"{path.name} is now {moved_to.name}")
    finally:
        lock.close()
    print("The next start begins anew. To go back, before that and with no daemon running:")
    print(f"  {shlex.join(['mv', str(moved_to), str(paths[0])])}", flush=True)
    return True


def _look(path: Path, now_utc: datetime) -> Found | None:
    """What a file is; None if the daemon has just removed it."""
    header: Mapping[str, Any] = {}
    trouble = None
    try:
        size_bytes = path.lstat().st_size
        header, _ = read_checkpoint(path)
    except FileNotFoundError:
        return None
    except CheckpointDamagedError as error:
        if not path.is_symlink() and not path.exists():
            return None
        trouble = f"damaged: {error.reason}"
    except CheckpointMismatchError as error:
        trouble = str(error).removeprefix(f"{path}: ")
    return Found(
        file=path.name,
        step=int(path.stem.rpartition("-")[2]),
        created_utc=header.get("created_utc") or None,
        age_s=_age_s(header.get("created_utc"), now_utc),
        size_bytes=size_bytes,
        format=header.get("version"),
        trouble=trouble,
    )


def _newest(directory: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The newest whole checkpoint; damaged ones are told, and left for the daemon to set aside."""
    damaged: CheckpointDamagedError | None = None
    for path in CheckpointStore(directory, keep=1).paths():
        try:
            header, state = read_checkpoint(path)
        except CheckpointDamagedError as error:
            print(f"neuromodd: {error}; the one before it is shown", file=sys.stderr)
            damaged = damaged or error
            continue
        return path, header, state
    if damaged is not None:
        raise damaged
    raise InvalidValueError("checkpoint show", None, f"a checkpoint in {directory}, or a FILE")


def _named(directory: Path, file: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    path = directory / file if not file.exists() and (directory / file).exists() else file
    if not path.exists():
        raise InvalidValueError("checkpoint show", str(file), f"a file, or the name of one in {directory}")
    return path, *read_checkpoint(path)


def _facts(
    path: Path, header: Mapping[str, Any], state: Mapping[str, Any], node: str, now_utc: datetime
) -> dict[str, Any]:
    """All that is shown, as JSON has it."""
    engine, rewards, faults = state["engine"], state["rewards"], state["faults"]
    last = state["last"] or {}
    neurons = _neurons(engine)
    weights = [weight for row in neurons for weight in row]
    return {
        "file": str(path),
        "node": node,
        "created_utc": header.get("created_utc") or None,
        "age_s": _age_s(header.get("created_utc"), now_utc),
        "format": header["version"],
        "package_version": header.get("package_version"),
        "dimensions": dict(header["dimensions"]),
        "step": engine["step"],
        "seed": engine["seed"],
        "sequence": state["sequence"],
        "last_frame": {"time_utc": last.get("time_utc"), "boot_id": last.get("boot_id")},
        "modulators": {"tonic": dict(state["tonic"]), "phasic": dict(state["phasic"])},
        "weights": {
            "lowest": min(weights, default=None),
            "mean": sum(weights) / len(weights) if weights else None,
            "highest": max(weights, default=None),
            "neurons": [
                {
                    "primary": row[number % len(row)],
                    "lowest": min(row),
                    "highest": max(row),
                    "threshold": engine["theta"][number],
                }
                for number, row in enumerate(neurons)
            ],
        },
        "rewards": {
            "waiting": len(state["pending"]),
            "busy": rewards["episode"]["busy"],
            "pending_units": rewards["episode"]["pending_units"],
            "best_work_rate": rewards["best"]["best"],
            "work_source": rewards["best"]["source"],
            "observed_s": rewards["best"]["observed_s"],
            "sources": dict(rewards["sources"]["current"]),
        },
        "faults": {
            "current": (faults["current"] or {}).get("fault_class"),
            "counts": {name: count for name, count in faults.get("counts", {}).items() if count},
        },
    }


def _neurons(engine: Mapping[str, Any]) -> list[list[float]]:
    """The weights of each LIF neuron: stored are shares, channel by channel, and a factor a neuron."""
    count = engine["dimensions"]["lif_neurons"]
    shares, scale = engine["weights"], engine["scale"]
    return [[share * scale[number] for share in shares[number::count]] for number in range(count)]


def _told(facts: Mapping[str, Any]) -> list[str]:
    """All that is shown, for a person."""
    weights, rewards, faults = facts["weights"], facts["rewards"], facts["faults"]
    tonic, phasic = facts["modulators"]["tonic"], facts["modulators"]["phasic"]
    last = facts["last_frame"]["time_utc"] or "no time"
    spelt = ", ".join(f"{count} {name}" for name, count in facts["dimensions"].items())
    lines = [
        f"file          {facts['file']}",
        f"created       {facts['created_utc'] or '-'}, {_ago(facts['age_s'])} ago",
        f"written by    neuromodd {facts['package_version'] or '?'}, format {facts['format']}",
        f"node          {facts['node']}, as configured",
        f"network       {spelt}; seed {facts['seed']}",
        f"lived         {facts['step']} steps, {facts['sequence']} frames; the last at {last}",
    ]
    lines += [
        f"{name:<14}{_number(value)} tonic" + (f", {phasic[name]:+.3f} phasic" if name in phasic else "")
        for name, value in tonic.items()
    ]
    lines.append(
        f"weights       {_number(weights['lowest'])} to {_number(weights['highest'])}, "
        f"mean {_number(weights['mean'])}"
    )
    if len(weights["neurons"]) <= SHOWN_NEURONS:
        lines += [
            f"  neuron {number:<3} {CHANNELS[number % len(CHANNELS)]:<10} primary {of['primary']:.3f}, "
            f"row {of['lowest']:.3f} to {of['highest']:.3f}, threshold {of['threshold']:.3f}"
            for number, of in enumerate(weights["neurons"])
        ]
    counts = ", ".join(f"{name} {count}" for name, count in faults["counts"].items()) or "none so far"
    best = f"{rewards['best_work_rate']:g} of {rewards['work_source'] or 'nothing'}"
    busy = "busy" if rewards["busy"] else "idle"
    return [
        *lines,
        f"rewards       {rewards['waiting']} wait for the next frame; {busy}",
        f"work          best rate {best}, watched for {rewards['observed_s']:.0f} s",
        f"faults        {faults['current'] or 'not judged yet'} now; {counts}",
    ]


def _age_s(created_utc: object, now_utc: datetime) -> float | None:
    try:
        created = datetime.fromisoformat(str(created_utc))
    except ValueError:
        return None
    return (now_utc - created.replace(tzinfo=created.tzinfo or UTC)).total_seconds()


def _ago(age_s: float | None) -> str:
    """An age in its largest whole unit; of what lies ahead of this clock, with a minus."""
    if age_s is None:
        return "-"
    size_s, unit = next(
        (of for of in ((86400, "d"), (3600, "h"), (60, "min")) if abs(age_s) >= 2 * of[0]), (1, "s")
    )
    return f"{int(age_s / size_s)} {unit}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
