"""Where the values of the options come from.

defaults < TOML file < environment (`NEUROMODD_MQTT__HOST`) < command line (`--mqtt.host`). All faults are
collected and reported at once, each with its place, value, expectation and origin.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from neuromodd.config import COMMAS, PREFIX, Settings, options
from neuromodd.core.record import describe_faults
from neuromodd.errors import ConfigurationError, ConfigurationFault, shortened

SYSTEM_FILE = Path("/etc/neuromodd/neuromodd.toml")
MASK = "'***'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, the file they were read from, and what is odd but no fault."""

    settings: Settings
    file: Path | None
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Layer:
    """One source of values: `origin` names it for the user, with the option's path put in."""

    values: dict[str, Any]
    kind: Literal["file", "environment", "command line"]
    file: Path | None = None
    faults: list[ConfigurationFault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def origin(self, path: Sequence[str]) -> str:
        if self.kind == "environment":
            return PREFIX + "__".join(path).upper()
        return str(self.file) if self.kind == "file" else f"--{'.'.join(path)}"


def load(
    file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read, merge and check all layers.

    Args:
        file: the TOML file; None looks at /etc/neuromodd/neuromodd.toml, then in $XDG_CONFIG_HOME.
        overrides: from the command line, by dotted name.
        environ: the environment; None is the process's own.

    Raises:
        ConfigurationError: with every fault that was found.
    """
    environment = os.environ if environ is None else environ
    chosen = file if file is not None else default_file(environment)
    layers = [
        _file_layer(chosen),
        _environment_layer(environment),
        _Layer(_nested(overrides or {}), "command line"),
    ]
    faults = [fault for layer in layers for fault in (*layer.faults, *_shape_faults(layer))]
    settings: Settings | None = None
    try:
        settings = Settings(**_merged(layer.values for layer in layers))
    except ValidationError as error:
        faults += _validation_faults(error, layers)
    if settings is not None:
        faults += _check_together(settings, layers)
    warnings = tuple(warning for layer in layers for warning in layer.warnings)
    if faults or settings is None:
        raise ConfigurationError(faults, warnings)
    return Loaded(settings=settings, file=chosen, warnings=warnings)


def default_file(environ: Mapping[str, str]) -> Path | None:
    """The file that is read when none is named; None if there is none."""
    config_home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
    # One behind a closed directory is there, and its reading says what is wrong; in a home, which may be
    # somebody else's that was inherited, it is not.
    if _is_there(SYSTEM_FILE, closed=True):
        return SYSTEM_FILE
    own = Path(config_home) / "neuromodd" / "neuromodd.toml"
    return own if _is_there(own, closed=False) else None


def _is_there(path: Path, *, closed: bool) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return closed
    return True


def _file_layer(file: Path | None) -> _Layer:
    layer = _Layer({}, "file", file)
    if file is None:
        return layer
    try:
        layer.values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        layer.faults.append(
            ConfigurationFault(place=str(file), got=error.strerror or str(error), expected="a readable file")
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        layer.faults.append(ConfigurationFault(place=str(file), got=str(error), expected="TOML in UTF-8"))
    return layer


def _environment_layer(environ: Mapping[str, str]) -> _Layer:
    layer = _Layer({}, "environment")
    known = {PREFIX + option.name.replace(".", "__").upper() for option in options()}
    known |= {
        variable.rsplit("__", depth)[0] for variable in known for depth in range(1, variable.count("__") + 1)
    }
    unknown = [name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known]
    for name in unknown:
        hint = _closest(name.upper(), known)
        if "__" in name:
            layer.faults.append(
                ConfigurationFault(
                    place=_dotted(name), got="a value", expected=f"no such option{hint}", origin=name
                )
            )
        else:
            layer.warnings.append(f"the environment variable {name} is not an option{hint}")
    found = {
        name.lower(): (None if value == "null" else value)
        for name, value in environ.items()
        if name.upper() in known and value != ""
    }
    if found:
        _read_variables(layer, found)
    return layer


def _read_variables(layer: _Layer, variables: Mapping[str, str | None]) -> None:
    # Where no variable is set, what reads them need not be in memory.
    from pydantic_settings import EnvSettingsSource  # noqa: PLC0415
    from pydantic_settings.exceptions import SettingsError  # noqa: PLC0415

    class Source(EnvSettingsSource):
        def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401
            # It comes as None too.
            if COMMAS in getattr(field, "metadata", ()):
                return value
            return super().decode_complex_value(field_name, field, value)

    # It is made for settings of the library's own kind, but asks for nothing that others lack.
    source = Source(Settings, env_prefix=PREFIX, env_nested_delimiter="__")  # type: ignore[arg-type]
    source.env_vars = variables
    try:
        layer.values = source()
    except SettingsError as error:
        layer.faults.append(
            ConfigurationFault(place="environment", got=str(error), expected="JSON for a whole section")
        )


def _closest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing."""
    import difflib  # noqa: PLC0415 - memory that only a misspelling is worth

    guess = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {guess[0]}?" if guess else ""


def _dotted(variable: str) -> str:
    return variable.upper().removeprefix(PREFIX).replace("__", ".").lower()


def _nested(flat: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = None if value == "null" else value
    return tree


def _merged(trees: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for tree in trees:
        _merge_into(result, tree)
    return result


def _merge_into(target: dict[str, Any], tree: Mapping[str, Any]) -> None:
    for name, value in tree.items():
        if isinstance(value, Mapping) and isinstance(target.get(name), dict):
            _merge_into(target[name], value)
        else:
            target[name] = _merged([value]) if isinstance(value, Mapping) else value


def _shape_faults(layer: _Layer) -> list[ConfigurationFault]:
    """Values where a section should be, and booleans where a number should: removed, and reported.

    Merged, the first would vanish behind another layer; and to Python, true is a number.
    """
    faults = []
    for option in options():
        branch: Any = layer.values
        path: list[str] = []
        for part in option.name.split("."):
            if not isinstance(branch, dict) or part not in branch:
                break
            path.append(part)
            here, branch = branch, branch[part]
            leaf = len(path) == option.name.count(".") + 1
            number = isinstance(option.default, (int, float)) and not isinstance(option.default, bool)
            if leaf and isinstance(branch, bool) and (number or option.default is None):
                expected = "a number" if number else "text or a number"
            elif not leaf and not isinstance(branch, dict):
                expected = "a table"
            else:
                continue
            name = ".".join(path)
            faults.append(
                ConfigurationFault(
                    place=name, got=_shown(name, branch), expected=expected, origin=layer.origin(path)
                )
            )
            del here[part]
            break
    return faults


def _validation_faults(error: ValidationError, layers: Sequence[_Layer]) -> list[ConfigurationFault]:
    faults = []
    for place, got, reason in describe_faults(error):
        path = [part for part in place.split(".") if not part.isdigit()]
        name = ".".join(path)
        layer = next((layer for layer in reversed(layers) if _has(layer.values, path)), None)
        expected = reason
        if reason == "no such field":
            expected = f"no such option{_closest(name, [option.name for option in options()])}"
        faults.append(
            ConfigurationFault(
                place=name,
                got=_shown(name, got),
                expected=expected,
                origin=None if layer is None else layer.origin(path),
            )
        )
    return faults


def _shown(name: str, got: object) -> str:
    """A value as a fault may show it: only that of an option that exists and is no secret.

    What stands under a misspelt key, or in a section of a wrong form, may be a password.
    """
    if "password" in name:
        return MASK
    if name in {option.name for option in options()}:
        return shortened(got)
    if isinstance(got, Mapping):
        return "a table"
    return "a list" if isinstance(got, list) else "a value"


def _has(tree: object, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True


def _check_together(settings: Settings, layers: Sequence[_Layer]) -> list[ConfigurationFault]:
    faults = []

    def fault(name: str, got: object, expected: str) -> None:
        path = name.split(".")
        layer = next((layer for layer in reversed(layers) if _has(layer.values, path)), None)
        origin = None if layer is None else layer.origin(path)
        faults.append(ConfigurationFault(place=name, got=shortened(got), expected=expected, origin=origin))

    mqtt = settings.mqtt
    if mqtt.host is not None and mqtt.embedded == "true":
        fault("mqtt.embedded", "true", "not true beside a mqtt.host: one broker")
    if mqtt.host is None and mqtt.tls_enabled:
        name = "mqtt.tls.enabled" if mqtt.tls.enabled else "mqtt.tls.ca_file"
        fault(name, "TLS", "nothing without a mqtt.host: the embedded broker speaks no TLS")
    if mqtt.password is not None and mqtt.password_file is not None:
        fault("mqtt.password_file", str(mqtt.password_file), "nothing beside mqtt.password")
    if (mqtt.password is not None or mqtt.password_file is not None) and mqtt.username is None:
        fault("mqtt.username", None, "a name to go with the password")
    if settings.rewards.busy_off_ratio > settings.rewards.busy_on_ratio:
        fault("rewards.busy_off_ratio", settings.rewards.busy_off_ratio, "at most rewards.busy_on_ratio")
    return faults
