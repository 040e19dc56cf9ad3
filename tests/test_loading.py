from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from neuromodd.config import Settings
from neuromodd.errors import ConfigurationError, ConfigurationFault
from neuromodd.loading import Loaded, default_file, load

SECRET = "hunter2"  # noqa: S105

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file."""

    def write_file(text: str) -> Path:
        path = tmp_path / "given.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture(autouse=True)
def system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file of the system would be."""
    path = tmp_path / "etc" / "neuromodd.toml"
    monkeypatch.setattr("neuromodd.loading.SYSTEM_FILE", path)
    return path


def read(
    file: Path | None = None,
    cli: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """`load` with nothing of the environment that the tests run in."""
    return load(file, cli, environ or {})


def faults_of(
    file: Path | None = None,
    cli: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, ConfigurationFault]:
    """The faults by their places."""
    with pytest.raises(ConfigurationError) as caught:
        read(file, cli, environ)
    faults = {fault.place: fault for fault in caught.value.faults}
    assert len(faults) == len(caught.value.faults)
    return faults


class Layers(NamedTuple):
    """One option as the layers spell it, and what each makes of it."""

    name: str
    file: str
    environment: str
    cli: str
    values: tuple[object, object, object]

    @property
    def toml(self) -> str:
        *sections, leaf = self.name.split(".")
        header = f"[{'.'.join(sections)}]\n" if sections else ""
        return f"{header}{leaf} = {self.file}\n"

    @property
    def environ(self) -> dict[str, str]:
        return {f"NEUROMODD_{self.name.replace('.', '__').upper()}": self.environment}

    def of(self, settings: Settings) -> object:
        value: Any = settings
        for part in self.name.split("."):
            value = getattr(value, part)
        return value


LAYERS = [
    pytest.param(Layers("tick.interval_s", "2.5", "3.5", "4.5", (2.5, 3.5, 4.5)), id="number"),
    pytest.param(Layers("mqtt.port", "1001", "1002", "1003", (1001, 1002, 1003)), id="integer"),
    pytest.param(Layers("mqtt.buffer_telemetry", "true", "false", "true", (True, False, True)), id="boolean"),
    pytest.param(Layers("mqtt.prefix", '"a"', "b", "c", ("a", "b", "c")), id="text"),
    pytest.param(Layers("node", '"a"', "b", "c", ("a", "b", "c")), id="name"),
    pytest.param(
        Layers("log.level", '"debug"', "warning", "error", ("debug", "warning", "error")), id="word"
    ),
    pytest.param(
        Layers("checkpoint.directory", '"/a"', "/b", "/c", (Path("/a"), Path("/b"), Path("/c"))), id="path"
    ),
    pytest.param(
        Layers(
            "sensors.disabled", '["cpu"]', "nvml, disk", "hwmon", (("cpu",), ("nvml", "disk"), ("hwmon",))
        ),
        id="list",
    ),
    pytest.param(
        Layers("sensors.network.include_loopback", "true", "false", "true", (True, False, True)),
        id="nested section",
    ),
    pytest.param(
        Layers("engine.homeostasis_rate", "0.1", "0.2", "0.3", (0.1, 0.2, 0.3)), id="inherited option"
    ),
]


@pytest.mark.parametrize("option", LAYERS)
def test_the_file_goes_before_the_default(option: Layers, write: Write) -> None:
    assert option.of(read(write(option.toml)).settings) == option.values[0] != option.of(Settings())


@pytest.mark.parametrize("option", LAYERS)
def test_the_environment_goes_before_the_file(option: Layers, write: Write) -> None:
    settings = read(write(option.toml), environ=option.environ).settings
    assert option.of(settings) == option.values[1]


@pytest.mark.parametrize("option", LAYERS)
def test_the_command_line_goes_before_the_environment(option: Layers, write: Write) -> None:
    settings = read(write(option.toml), {option.name: option.cli}, option.environ).settings
    assert option.of(settings) == option.values[2]


def test_layers_are_merged_option_by_option(write: Write) -> None:
    file = write('[mqtt]\nhost = "file"\nport = 1\nprefix = "file"\n')
    mqtt = read(file, {"mqtt.port": "3"}, {"NEUROMODD_MQTT__PREFIX": "variable"}).settings.mqtt
    assert (mqtt.host, mqtt.port, mqtt.prefix) == ("file", 3, "variable")


def test_without_layers_everything_is_at_its_default() -> None:
    assert read().settings == Settings()


def test_a_variable_may_hold_a_whole_section_as_json() -> None:
    settings = read(environ={"NEUROMODD_MQTT": '{"host": "broker", "port": 1001}'}).settings
    assert (settings.mqtt.host, settings.mqtt.port) == ("broker", 1001)


def test_a_variable_of_one_option_goes_before_that_of_its_section() -> None:
    environ = {"NEUROMODD_MQTT": '{"host": "section"}', "NEUROMODD_MQTT__HOST": "option"}
    assert read(environ=environ).settings.mqtt.host == "option"


def test_a_password_in_the_environment_is_read() -> None:
    environ = {"NEUROMODD_MQTT__PASSWORD": SECRET, "NEUROMODD_MQTT__USERNAME": "lab"}
    assert read(environ=environ).settings.mqtt.read_password() == SECRET


def test_an_empty_variable_counts_as_unset(write: Write) -> None:
    file = write('[mqtt]\nhost = "file"\n')
    assert read(file, environ={"NEUROMODD_MQTT__HOST": ""}).settings.mqtt.host == "file"


def test_null_in_a_variable_unsets_what_the_file_sets(write: Write) -> None:
    file = write('[mqtt]\nhost = "file"\n')
    assert read(file, environ={"NEUROMODD_MQTT__HOST": "null"}).settings.mqtt.host is None


def test_null_on_the_command_line_unsets_what_the_file_sets(write: Write) -> None:
    file = write('[mqtt]\nhost = "file"\n')
    assert read(file, {"mqtt.host": "null"}).settings.mqtt.host is None


@pytest.mark.parametrize("text", ["true", "false"])
def test_embedded_may_be_a_boolean_in_the_file(text: str, write: Write) -> None:
    assert read(write(f"[mqtt]\nembedded = {text}\n")).settings.mqtt.embedded == text


@pytest.mark.parametrize("text", ["auto", "true", "false"])
def test_embedded_may_be_a_word(text: str, write: Write) -> None:
    assert read(write(f'[mqtt]\nembedded = "{text}"\n')).settings.mqtt.embedded == text


@pytest.mark.parametrize("text", ["auto", "true", "false"])
def test_embedded_may_be_a_word_in_the_environment(text: str) -> None:
    assert read(environ={"NEUROMODD_MQTT__EMBEDDED": text}).settings.mqtt.embedded == text


# Which file


def put(path: Path, node: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'node = "{node}"\n')
    return path


def test_a_named_file_goes_before_that_of_the_system(system_file: Path, tmp_path: Path) -> None:
    put(system_file, "system")
    assert read(put(tmp_path / "named.toml", "named")).settings.node == "named"


def test_the_file_of_the_system_goes_before_that_of_the_user(system_file: Path, tmp_path: Path) -> None:
    put(system_file, "system")
    put(tmp_path / "xdg" / "neuromodd" / "neuromodd.toml", "user")
    assert read(environ={"XDG_CONFIG_HOME": str(tmp_path / "xdg")}).settings.node == "system"


def test_the_file_of_the_user_is_in_xdg_config_home(tmp_path: Path) -> None:
    path = put(tmp_path / "xdg" / "neuromodd" / "neuromodd.toml", "user")
    assert default_file({"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "HOME": "/nonexistent"}) == path


def test_without_xdg_config_home_it_is_in_the_home_directory(tmp_path: Path) -> None:
    path = put(tmp_path / ".config" / "neuromodd" / "neuromodd.toml", "user")
    assert default_file({"HOME": str(tmp_path)}) == path


def test_it_is_told_which_file_was_read(system_file: Path) -> None:
    put(system_file, "system")
    assert read().file == system_file


def test_there_may_be_no_file() -> None:
    assert read().file is None


# Faults


def test_all_faults_of_all_layers_are_listed_at_once(write: Write) -> None:
    file = write('[mqtt]\nport = 0\nbuffer_telemetry = "maybe"\n[tick]\ninterval_s = -1.0\n')
    found = faults_of(
        file,
        {"log.level": "loud"},
        {"NEUROMODD_ENGINE__SEED": "x", "NEUROMODD_MQTT__HOSTT": "broker"},
    )
    expected = {
        "mqtt.port",
        "mqtt.buffer_telemetry",
        "tick.interval_s",
        "log.level",
        "engine.seed",
        "mqtt.hostt",
    }
    assert found.keys() == expected


def test_a_file_that_is_no_toml_does_not_hide_the_faults_of_other_layers(write: Write) -> None:
    file = write("this is not TOML\n")
    assert faults_of(file, {"mqtt.port": "0"}).keys() == {str(file), "mqtt.port"}


def test_a_fault_tells_value_and_expectation(write: Write) -> None:
    fault = faults_of(write("[mqtt]\nport = 70000\n"))["mqtt.port"]
    assert (fault.got, fault.expected) == ("70000", "less than or equal to 65535")


def test_a_fault_of_the_file_names_the_file(write: Write) -> None:
    file = write("[mqtt]\nport = 0\n")
    assert faults_of(file)["mqtt.port"].origin == str(file)


def test_a_fault_of_the_environment_names_the_variable(write: Write) -> None:
    file = write("[mqtt]\nport = 1\n")
    found = faults_of(file, environ={"NEUROMODD_MQTT__PORT": "0"})
    assert found["mqtt.port"].origin == "NEUROMODD_MQTT__PORT"


def test_a_fault_of_the_command_line_names_the_flag(write: Write) -> None:
    found = faults_of(write("[mqtt]\nport = 1\n"), {"mqtt.port": "0"}, {"NEUROMODD_MQTT__PORT": "2"})
    assert found["mqtt.port"].origin == "--mqtt.port"


def test_a_fault_inside_a_list_names_the_option() -> None:
    found = faults_of(environ={"NEUROMODD_SENSORS__DISABLED": "cpu,gpu"})
    assert found["sensors.disabled"].got == "'gpu'"


def test_an_unknown_key_of_the_file_is_a_fault_with_a_suggestion(write: Write) -> None:
    fault = faults_of(write('[mqtt]\nhots = "broker"\n'))["mqtt.hots"]
    assert fault.expected == "no such option; did you mean mqtt.host?"


def test_an_unknown_key_like_no_other_is_a_fault_without_a_suggestion(write: Write) -> None:
    assert faults_of(write("zzz = 1\n"))["zzz"].expected == "no such option"


def test_an_unknown_variable_of_a_section_is_a_fault_with_a_suggestion() -> None:
    fault = faults_of(environ={"NEUROMODD_MQTT__HOSTT": "broker"})["mqtt.hostt"]
    assert fault.expected == "no such option; did you mean NEUROMODD_MQTT__HOST?"


def test_an_unknown_variable_without_a_section_is_a_warning_with_a_suggestion() -> None:
    warnings = read(environ={"NEUROMODD_NODDE": "lab"}).warnings
    assert warnings == (
        "the environment variable NEUROMODD_NODDE is not an option; did you mean NEUROMODD_NODE?",
    )


def test_variables_of_other_programs_are_no_concern_of_ours() -> None:
    assert read(environ={"NEUROMOD_MQTT__HOST": "x", "MQTT__HOST": "x"}).warnings == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tick.interval_s", "nan"),
        ("tick.interval_s", "inf"),
        ("tick.interval_s", "0.0"),
        ("tick.interval_s", "3600.5"),
        ("mqtt.port", "0"),
        ("mqtt.port", "65536"),
        ("mqtt.port", "1.5"),
        ("checkpoint.keep", "0"),
        ("sensors.deadline_s", "-0.5"),
        ("rewards.busy_on_ratio", "1.1"),
        ("rewards.breakthrough_ratio", "1.0"),
        ("engine.channels", "9"),
        ("engine.lif_neurons", "0"),
        ("engine.seed", "-1"),
        ("modulators.dopamine_floor", "nan"),
    ],
)
def test_a_number_out_of_range_is_a_fault(name: str, text: str, write: Write) -> None:
    section, leaf = name.split(".")
    assert faults_of(write(f"[{section}]\n{leaf} = {text}\n")).keys() == {name}


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "", " "])
def test_a_number_on_the_command_line_is_finite(text: str) -> None:
    assert faults_of(cli={"tick.interval_s": text}).keys() == {"tick.interval_s"}


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a#", "+", "x" * 65, "büro", "a\n"])
def test_a_node_name_that_topics_can_not_carry_is_a_fault(name: str) -> None:
    assert faults_of(cli={"node": name}).keys() == {"node"}


@pytest.mark.parametrize("prefix", ["", "/a", "a/#", "a/+/b", "a\0"])
def test_a_prefix_that_topics_can_not_carry_is_a_fault(prefix: str) -> None:
    assert faults_of(cli={"mqtt.prefix": prefix}).keys() == {"mqtt.prefix"}


def test_a_prefix_may_have_levels() -> None:
    assert read(cli={"mqtt.prefix": "site/hall"}).settings.mqtt.prefix == "site/hall"


@pytest.mark.parametrize("name", ["mqtt.password_file", "mqtt.tls.ca_file"])
@pytest.mark.parametrize("path", ["/nonexistent", "/", "x" * 300])
def test_a_file_that_can_not_be_read_is_a_fault(name: str, path: str) -> None:
    cli = {name: path, "mqtt.username": "lab"}
    assert faults_of(cli=cli).keys() == {name}


@pytest.mark.parametrize("text", ["", "no certificate\n"])
def test_a_file_without_certificates_is_a_fault(text: str, write: Write) -> None:
    assert faults_of(cli={"mqtt.tls.ca_file": str(write(text))}).keys() == {"mqtt.tls.ca_file"}


@pytest.mark.parametrize("path", ["/nonexistent", "/dev/null", "x" * 300])
def test_a_root_that_is_no_directory_is_a_fault(path: str) -> None:
    assert faults_of(cli={"sensors.procfs_root": path}).keys() == {"sensors.procfs_root"}


def test_a_host_beside_an_embedded_broker_is_a_fault(write: Write) -> None:
    file = write('[mqtt]\nhost = "broker"\nembedded = true\n')
    fault = faults_of(file)["mqtt.embedded"]
    assert (fault.got, fault.origin) == ("'true'", str(file))


@pytest.mark.parametrize("embedded", ["auto", "false"])
def test_a_host_is_fine_where_no_broker_must_be_embedded(embedded: str) -> None:
    assert read(cli={"mqtt.host": "broker", "mqtt.embedded": embedded}).settings.mqtt.host == "broker"


def test_a_password_without_a_user_name_is_a_fault() -> None:
    assert faults_of(environ={"NEUROMODD_MQTT__PASSWORD": SECRET}).keys() == {"mqtt.username"}


def test_a_password_file_without_a_user_name_is_a_fault(write: Write) -> None:
    assert faults_of(cli={"mqtt.password_file": str(write(""))}).keys() == {"mqtt.username"}


def test_two_passwords_are_a_fault(write: Write) -> None:
    cli = {"mqtt.password": SECRET, "mqtt.password_file": str(write("")), "mqtt.username": "lab"}
    assert faults_of(cli=cli).keys() == {"mqtt.password_file"}


def test_busy_episodes_that_end_above_where_they_begin_are_a_fault() -> None:
    cli = {"rewards.busy_on_ratio": "0.2", "rewards.busy_off_ratio": "0.3"}
    assert faults_of(cli=cli).keys() == {"rewards.busy_off_ratio"}


def test_a_section_that_is_no_json_is_a_fault() -> None:
    fault = faults_of(environ={"NEUROMODD_MQTT": '{"host": '})["environment"]
    assert fault.expected == "JSON for a whole section"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f'[mqtt]\nusername = "lab"\npassword = ["{SECRET}"]\n', id="password of a wrong type"),
        pytest.param(f'[mqtt.password]\ntext = "{SECRET}"\n', id="password that is a table"),
        pytest.param(f'[mqtt]\npasword = "{SECRET}"\n', id="misspelt key"),
        pytest.param(f'[[mqtt]]\npassword = "{SECRET}"\n', id="section in double brackets"),
        pytest.param(f'[[mqtt]]\npass = "{SECRET}"\n', id="misspelt key in double brackets"),
        pytest.param(f'[mqqt]\npassword = "{SECRET}"\n', id="misspelt section"),
        pytest.param(f'[mqtt]\npassword = "{SECRET}"\n', id="no user name"),
        pytest.param(f'[mqtt]\npassword = "{SECRET}\n', id="no TOML"),
    ],
)
def test_a_secret_in_the_file_does_not_appear_in_faults(text: str, write: Write) -> None:
    assert SECRET not in "".join(str(fault) for fault in faults_of(write(text)).values())


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"NEUROMODD_MQTT": f'{{"password": ["{SECRET}"]}}'}, id="password of a wrong type"),
        pytest.param({"NEUROMODD_MQTT": f'{{"pasword": "{SECRET}"}}'}, id="misspelt key"),
        pytest.param({"NEUROMODD_MQTT": f'{{"password": "{SECRET}"'}, id="no JSON"),
        pytest.param({"NEUROMODD_MQTT": f'["{SECRET}"]'}, id="a section that is a list"),
        pytest.param({"NEUROMODD_MQTT__PASWORD": SECRET}, id="misspelt variable"),
        pytest.param({"NEUROMODD_MQTT__PASSWORD": SECRET}, id="no user name"),
    ],
)
def test_a_secret_in_the_environment_does_not_appear_in_faults(environ: dict[str, str]) -> None:
    assert SECRET not in "".join(str(fault) for fault in faults_of(environ=environ).values())


def test_a_secret_in_a_misspelt_variable_does_not_appear_in_warnings() -> None:
    assert SECRET not in "".join(read(environ={"NEUROMODD_MQTT_PASSWORD": SECRET}).warnings)


def test_a_secret_does_not_appear_in_the_settings_as_text() -> None:
    settings = read(cli={"mqtt.password": SECRET, "mqtt.username": "lab"}).settings
    assert SECRET not in f"{settings!r} {settings}"


# Files that can't be used


def test_a_named_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    fault = faults_of(tmp_path / "none.toml")[str(tmp_path / "none.toml")]
    assert (fault.got, fault.expected) == ("No such file or directory", "a readable file")


def test_a_directory_in_place_of_the_file_is_a_fault(tmp_path: Path) -> None:
    assert faults_of(tmp_path)[str(tmp_path)].got == "Is a directory"


def test_a_file_that_one_may_not_read_is_a_fault(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    # The permissions of the file itself would not stop root.
    monkeypatch.setattr(Path, "read_text", refuse)
    assert faults_of(file)[str(file)].got == "Permission denied"


def test_a_file_that_is_no_toml_is_a_fault_with_its_line(write: Write) -> None:
    file = write("[tick]\ninterval_s = 1.0\nthis is not TOML\n")
    fault = faults_of(file)[str(file)]
    assert fault.expected == "TOML in UTF-8"
    assert "line 3" in fault.got


def test_a_file_that_is_not_in_utf_8_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes('node = "büro"\n'.encode("latin-1"))
    assert faults_of(file)[str(file)].expected == "TOML in UTF-8"


def test_a_section_that_is_no_table_is_a_fault(write: Write) -> None:
    assert faults_of(write("tick = 5\n")).keys() == {"tick"}


def test_a_value_where_a_section_should_be_is_a_fault_even_behind_a_variable(write: Write) -> None:
    fault = faults_of(write("mqtt = 5\n"), environ={"NEUROMODD_MQTT__HOST": "broker.lan"})["mqtt"]
    assert (fault.got, fault.expected) == ("a value", "a table")


@pytest.mark.parametrize("text", ["[tick]\ninterval_s = true\n", "[engine]\nlif_neurons = true\n"])
def test_a_boolean_is_no_number(text: str, write: Write) -> None:
    assert [fault.expected for fault in faults_of(write(text)).values()] == ["a number"]


def test_a_nested_section_may_be_given_as_json() -> None:
    environ = {"NEUROMODD_MQTT__TLS": '{"enabled": true}', "NEUROMODD_MQTT__HOST": "broker.lan"}
    assert read(environ=environ).settings.mqtt.tls.enabled is True


def test_tls_without_a_host_is_a_fault() -> None:
    assert faults_of(cli={"mqtt.tls.enabled": "true"}).keys() == {"mqtt.tls.enabled"}


def test_a_password_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xfe")
    assert faults_of(cli={"mqtt.password_file": str(file), "mqtt.username": "lab"}).keys() == {
        "mqtt.password_file"
    }


def test_a_list_in_the_environment_may_be_spelt_as_in_the_file() -> None:
    environ = {"NEUROMODD_SENSORS__DISABLED": '["nvml", "hwmon"]'}
    assert read(environ=environ).settings.sensors.disabled == ("nvml", "hwmon")
