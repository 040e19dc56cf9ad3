"""Every option: one record a section, with its default, range and description."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import socket
import ssl
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from neuromodd.core.brain import BrainParameters
from neuromodd.core.cadence import EXPECTED, Cadence
from neuromodd.core.diagnostics import FaultParameters
from neuromodd.core.modulators import Setpoints
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.record import Record
from neuromodd.core.rewards import RewardParameters
from neuromodd.core.surprise import DEFAULT_CHANNELS, SurpriseParameters
from neuromodd.core.watched import check_names, expected_instead
from neuromodd.errors import ConfigurationError, ConfigurationFault, InvalidValueError

PREFIX = "NEUROMODD_"
NODE_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
MQTT_PORT = 1883
MQTT_TLS_PORT = 8883

CREDENTIAL = "mqtt-password"
"""The name of systemd's credential: `LoadCredential=mqtt-password:FILE`."""

SensorName = Literal[
    "cpu",
    "memory",
    "pressure",
    "disk",
    "network",
    "hwmon",
    "thermal_zones",
    "rapl",
    "power_supply",
    "cgroup",
    "limits",
    "nvml",
    "amdgpu",
    "fpga",
]


def _split_commas(value: object) -> object:
    if not isinstance(value, str):
        return value
    # As it stands in a file, `["nvml"]`, too.
    bare = value.strip().removeprefix("[").removesuffix("]")
    return [part.strip(" \"'") for part in bare.split(",") if part.strip()]


COMMAS = BeforeValidator(_split_commas)
"""Of an option that is a list in a file, and words with commas between them elsewhere."""


def _node(value: str) -> str:
    if not NODE_PATTERN.match(value):
        raise ValueError("1 to 64 letters, digits, '_', '.' or '-'")
    return value


def _readable_file(value: Path) -> Path:
    # Not Path.is_file, which raises on a name that is too long.
    if not (os.path.isfile(value) and os.access(value, os.R_OK)):  # noqa: PTH113
        raise ValueError("a readable file")
    return value


def _password_file(value: Path) -> Path:
    try:
        value.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError("a file in UTF-8") from None
    return value


def _certificates(value: Path) -> Path:
    try:
        ssl.create_default_context(cafile=value)
    except OSError:
        raise ValueError("a file of PEM certificates") from None
    return value


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")


def _cadence(value: str) -> str:
    Cadence.parse(value)
    return value


def _channel(value: str) -> str:
    if (expected := expected_instead(value)) is not None:
        raise ValueError(expected)
    return value


def _channels(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        check_names(values)
    except InvalidValueError as error:
        raise ValueError(error.expected) from None
    return values


def _directory(value: Path) -> Path:
    if not os.path.isdir(value):  # noqa: PTH112 - likewise
        raise ValueError("a directory")
    return value


NodeName = Annotated[str, AfterValidator(_node)]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
PasswordFile = Annotated[ReadableFile, AfterValidator(_password_file)]
CertificateFile = Annotated[ReadableFile, AfterValidator(_certificates)]
Directory = Annotated[Path, AfterValidator(_directory)]
ChannelName = Annotated[str, AfterValidator(_channel)]
CadenceText = Annotated[str, AfterValidator(_cadence)]


class TickSettings(Record):
    """The rhythm of the daemon."""

    interval_s: float = Field(
        default=1.0, ge=0.05, le=3600.0, description="seconds from one tick to the next"
    )


class TlsSettings(Record):
    """TLS to the broker; its certificate and name are always verified."""

    enabled: bool = Field(default=False, description="speak TLS; implied by a ca_file or cert_file")
    ca_file: CertificateFile | None = Field(
        default=None, description="CA certificates to trust instead of the system's"
    )
    cert_file: ReadableFile | None = Field(
        default=None, description="the daemon's own certificate, for brokers that ask for one"
    )
    key_file: ReadableFile | None = Field(
        default=None, description="its key; unset: in the same file as the certificate"
    )
    key_password_file: PasswordFile | None = Field(
        default=None, description="a file whose first line is the password of an encrypted key"
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.cert_file is None:
            if self.key_file is not None:
                raise ValueError("a cert_file beside the key_file")
            return self
        context = ssl.create_default_context()
        try:
            # Without a password, OpenSSL would ask on the terminal for that of an encrypted key.
            context.load_cert_chain(self.cert_file, self.key_file, lambda: self.key_password() or "")
        except (OSError, ValueError):
            raise ValueError(
                "a cert_file in PEM and its own key, in key_file or behind the certificate, "
                "with its key_password_file if it is encrypted"
            ) from None
        return self

    def key_password(self) -> str | None:
        """The password of the key, out of its file."""
        return None if self.key_password_file is None else _first_line(self.key_password_file)


class PublishSettings(Record):
    """How often each topic is published."""

    telemetry: CadenceText = Field(default="every 1", description=f"telemetry: {EXPECTED}")
    state: CadenceText = Field(default="every 1", description="state: likewise")
    spikes: CadenceText = Field(default="off", description="spike counts and potentials: likewise")
    health: bool = Field(default=True, description="health, each mqtt.health_interval_s and on a change")
    reward: bool = Field(default=True, description="each reward")
    fault: bool = Field(default=True, description="each change of fault")
    anomaly: bool = Field(default=True, description="the begin and the end of each anomaly")


class OutboxSettings(Record):
    """What waits on the disk until the broker has it: rewards, changes of fault, and anomalies."""

    max_events: int = Field(
        default=10_000, ge=1, le=1_000_000, description="messages that wait; the oldest give way"
    )
    max_bytes: int = Field(default=16 * 1024**2, ge=65_536, description="of their payloads together")
    max_age_s: float = Field(default=604_800.0, ge=60.0, description="what waited longer is dropped")
    rate_per_s: float = Field(
        default=100.0, ge=1.0, le=10_000.0, description="messages a second, when many have waited"
    )


class InboundSettings(Record):
    """What others may send to `in/reward`, `in/work` and `in/command`."""

    enabled: bool = Field(default=False, description="listen to in/*; lock these topics at the broker first")
    rate_per_s: float = Field(
        default=50.0, gt=0.0, le=10_000.0, description="requests a second and topic; ten times that at once"
    )
    work_fresh_s: float = Field(
        default=10.0, gt=0.0, le=86_400.0, description="how long a reported work rate holds"
    )
    session_expiry_s: int = Field(
        default=86_400, ge=0, le=31_536_000, description="how long rewards wait at the broker for the daemon"
    )


class MqttSettings(Record):
    """The broker, and what is published there."""

    host: str | None = Field(default=None, min_length=1, description="the broker; unset: see embedded")
    port: int | None = Field(default=None, ge=1, le=65535, description="unset: 1883, with TLS 8883")
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="auto: MQTT 5, and 3.1.1 where the broker does not speak it"
    )
    client_id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.:-]{1,128}$",
        description="as which the broker knows the daemon; unset: neuromodd-<node>",
    )
    embedded: Literal["auto", "true", "false"] = Field(
        default="auto", description="a broker inside the daemon, on 127.0.0.1; auto: if there is no host"
    )
    username: str | None = Field(default=None, min_length=1, description="login name")
    password: SecretStr | None = Field(default=None, description="better in password_file")
    password_file: PasswordFile | None = Field(
        default=None,
        description="a file whose first line is the password; unset: systemd's credential mqtt-password",
    )
    prefix: str = Field(
        default="neuromodd",
        pattern=r"^[^/$+#\x00-\x1f\x7f][^+#\x00-\x1f\x7f]*$",
        description="first part of every topic",
    )
    keepalive_s: int = Field(
        default=30, ge=5, le=3600, description="a broker that is silent for some twice as long is given up"
    )
    health_interval_s: float = Field(
        default=10.0, ge=1.0, le=3600.0, description="between two health messages"
    )
    state_expiry_s: int = Field(
        default=300,
        ge=1,
        le=31_536_000,
        description="when a broker forgets states that nothing has followed (MQTT 5)",
    )
    buffer_telemetry: bool = Field(
        default=False, description="keep telemetry in the outbox too while the broker is away"
    )
    publish: PublishSettings = Field(default_factory=PublishSettings)
    outbox: OutboxSettings = Field(default_factory=OutboxSettings)
    inbound: InboundSettings = Field(default_factory=InboundSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)

    @model_validator(mode="before")
    @classmethod
    def _accept_boolean(cls, values: object) -> object:
        # `embedded = true` in TOML is a boolean; in the environment it is a word.
        if isinstance(values, dict) and isinstance(values.get("embedded"), bool):
            return {**values, "embedded": str(values["embedded"]).lower()}
        return values

    @property
    def tls_enabled(self) -> bool:
        """Whether the connection is to be encrypted."""
        return self.tls.enabled or self.tls.ca_file is not None or self.tls.cert_file is not None

    def read_password(self) -> str | None:
        """The password, out of its file if one is named, else as it is set, else systemd's credential.

        Raises:
            OSError: the file can't be read.
            UnicodeDecodeError: it is not text.
        """
        if self.password_file is not None:
            return _first_line(self.password_file)
        if self.password is not None:
            return self.password.get_secret_value()
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials is None:
            return None
        try:
            # The unit sets an empty one where there is no file.
            return _first_line(Path(credentials) / CREDENTIAL) or None
        except FileNotFoundError:
            return None


class HomeAssistantSettings(Record):
    """Home Assistant finds the node by itself."""

    enabled: bool = Field(default=False, description="announce the node's entities to Home Assistant")
    prefix: str = Field(
        default="homeassistant",
        pattern=r"^[^/$+#\x00-\x1f\x7f][^+#\x00-\x1f\x7f]*$",
        description="first part of its discovery topics, as set there",
    )


class CheckpointSettings(Record):
    """What survives a restart."""

    directory: Path | None = Field(
        default=None, description="state directory; unset: $STATE_DIRECTORY and so on"
    )
    interval_s: float = Field(default=60.0, ge=0.05, le=86400.0, description="between two checkpoints")
    keep: int = Field(default=5, ge=1, le=1000, description="checkpoints that stay on disk")

    def state_directory(self) -> Path:
        """Where checkpoints and the lock live.

        `directory`, else systemd's $STATE_DIRECTORY, else /var/lib/neuromodd as root, else
        $XDG_STATE_HOME/neuromodd.

        Raises:
            ConfigurationError: none of these can be told.
        """
        if self.directory is not None:
            return self.directory
        if given := os.environ.get("STATE_DIRECTORY"):
            return Path(given.split(":")[0])
        if os.geteuid() == 0:
            return Path("/var/lib/neuromodd")
        if base := os.environ.get("XDG_STATE_HOME"):
            return Path(base) / "neuromodd"
        try:
            return Path.home() / ".local" / "state" / "neuromodd"
        except RuntimeError:
            raise ConfigurationError(
                [
                    ConfigurationFault(
                        place="checkpoint.directory",
                        got="nothing",
                        expected="a directory, as this user has no home",
                    )
                ]
            ) from None


class RecorderSettings(Record):
    """What the brain takes in, kept on disk for `neuromodd replay`."""

    enabled: bool = Field(default=False, description="record what the daemon takes in")
    directory: Path | None = Field(default=None, description="unset: `recordings` in the state directory")
    compress: bool = Field(default=False, description="with zstd, to about a seventh (extra `zstd`)")
    rotate_bytes: int = Field(default=64 * 1024**2, ge=4096, description="size at which the next file begins")
    rotate_s: float = Field(default=86_400.0, ge=1.0, description="age at which the next file begins")
    max_bytes: int = Field(default=1024**3, ge=8192, description="size of all files; the oldest give way")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if 2 * self.rotate_bytes > self.max_bytes:
            both = f"{self.max_bytes} and {self.rotate_bytes}"
            raise ValueError(f"a max_bytes of at least twice rotate_bytes; they are {both}")
        return self


def _address(value: str) -> str:
    if value == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("an IP address of this host") from None


class WebSettings(Record):
    """The page, the metrics and the health over HTTP (extra `web`); read-only, without a login."""

    enabled: bool = Field(default=False, description="serve them")
    host: Annotated[str, AfterValidator(_address)] = Field(
        default="127.0.0.1", description="the address to listen on; 0.0.0.0 or :: for all"
    )
    port: int = Field(default=9464, ge=1, le=65_535, description="the port to listen on")
    names: Annotated[tuple[str, ...], COMMAS] = Field(
        default=(),
        description="names of this host in browsers, besides its hostname, `localhost` and addresses",
    )

    @property
    def place(self) -> str:
        """Host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NetworkSensorSettings(Record):
    """Options of the network sensor."""

    include_loopback: bool = Field(default=False, description="count the loopback interface too")


class HwmonSensorSettings(Record):
    """Options of the hardware monitoring chips."""

    core_rail: str | None = Field(
        default=None, description="the voltage that is the core rail, as `sample` names it"
    )


class LimitsSensorSettings(Record):
    """Where the limits on this process are: always its own files, even where the host's are mounted too."""

    procfs_root: Directory = Field(default=Path("/proc"), description="the daemon's own /proc")
    sysfs_root: Directory = Field(default=Path("/sys"), description="the daemon's own /sys")


class SensorSettings(Record):
    """What is measured, and where the kernel's files are."""

    procfs_root: Directory = Field(default=Path("/proc"), description="the host's /proc")
    sysfs_root: Directory = Field(default=Path("/sys"), description="the host's /sys")
    deadline_s: float = Field(
        default=0.5, ge=0.01, le=60.0, description="a sensor that takes longer is left behind"
    )
    disabled: Annotated[tuple[SensorName, ...], COMMAS] = Field(
        default=(), description='sensors to leave alone ("nvml", "hwmon")'
    )
    network: NetworkSensorSettings = Field(default_factory=NetworkSensorSettings)
    hwmon: HwmonSensorSettings = Field(default_factory=HwmonSensorSettings)
    limits: LimitsSensorSettings = Field(default_factory=LimitsSensorSettings)


class FpgaSettings(Record):
    """Reports of an FPGA build that are watched; they need not be there yet."""

    timing_report: Path | None = Field(default=None, description="Vivado's report_timing_summary, as a file")
    utilization_report: Path | None = Field(
        default=None, description="Vivado's report_utilization, as a file"
    )


class SurpriseSettings(SurpriseParameters):
    """What is normal here is learned, and what is not is said."""

    channels: Annotated[tuple[ChannelName, ...], COMMAS, AfterValidator(_channels)] = Field(
        default=DEFAULT_CHANNELS,
        description="what is watched: channels, `network`, `pressure`, numbers of the frame by path",
    )

    def parameters(self) -> SurpriseParameters:
        """The part that the brain knows."""
        return SurpriseParameters(**{name: getattr(self, name) for name in SurpriseParameters.model_fields})


class EngineSettings(EngineConfig):
    """The network: dimensions, constants, seed."""

    channels: int = Field(default=8, ge=8, le=8, description="input channels; a frame has these eight")
    seed: int = Field(default=0, ge=0, description="of the first weights and of all input spikes")

    def parameters(self) -> EngineConfig:
        """The part that the network itself knows."""
        return EngineConfig(**{name: getattr(self, name) for name in EngineConfig.model_fields})


class LogSettings(Record):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level logged"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, JSON lines elsewhere"
    )


class Settings(BaseModel):
    """All options; each section is a record of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    node: NodeName | None = Field(
        default=None, description="name of this host in topics; unset: its hostname"
    )
    tick: TickSettings = Field(default_factory=TickSettings)
    mqtt: MqttSettings = Field(default_factory=MqttSettings)
    homeassistant: HomeAssistantSettings = Field(default_factory=HomeAssistantSettings)
    checkpoint: CheckpointSettings = Field(default_factory=CheckpointSettings)
    recorder: RecorderSettings = Field(default_factory=RecorderSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    sensors: SensorSettings = Field(default_factory=SensorSettings)
    fpga: FpgaSettings = Field(default_factory=FpgaSettings)
    modulators: Setpoints = Field(default_factory=Setpoints)
    rewards: RewardParameters = Field(default_factory=RewardParameters)
    faults: FaultParameters = Field(default_factory=FaultParameters)
    surprise: SurpriseSettings = Field(default_factory=SurpriseSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @property
    def brain(self) -> BrainParameters:
        """What the brain is made with."""
        return BrainParameters(
            engine=self.engine.parameters(),
            setpoints=self.modulators,
            rewards=self.rewards,
            faults=self.faults,
            surprise=self.surprise.parameters(),
        )

    def recording_directory(self) -> Path:
        """Where recordings go.

        Raises:
            ConfigurationError: none can be told.
        """
        return self.recorder.directory or self.checkpoint.state_directory() / "recordings"

    def node_name(self) -> str:
        """`node`, else the hostname with what topics can't carry replaced by `_`."""
        if self.node is not None:
            return self.node
        return re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname())[:64] or "localhost"


class BrokerAddress(NamedTuple):
    """Where to publish; `embedded` when the daemon starts that broker itself."""

    host: str
    port: int
    embedded: bool


def resolve_broker(settings: Settings) -> BrokerAddress:
    """Which broker to use.

    Raises:
        ConfigurationError: no host is set, and no broker can be embedded.
    """
    mqtt = settings.mqtt
    if mqtt.host is not None:
        return BrokerAddress(
            mqtt.host, mqtt.port or (MQTT_TLS_PORT if mqtt.tls_enabled else MQTT_PORT), embedded=False
        )
    if mqtt.embedded == "false":
        raise ConfigurationError(
            [
                ConfigurationFault(
                    place="mqtt.host", got="nothing", expected="a broker, as mqtt.embedded is false"
                )
            ]
        )
    if importlib.util.find_spec("amqtt") is None:
        raise ConfigurationError(
            [
                ConfigurationFault(
                    place="mqtt.host",
                    got="nothing",
                    expected="a broker (mqtt.host), or the embedded one: pip install 'neuromodd[broker]'",
                )
            ]
        )
    return BrokerAddress("127.0.0.1", mqtt.port or MQTT_PORT, embedded=True)


class Option(NamedTuple):
    """One option: its dotted name, default (None is unset) and description."""

    name: str
    default: object
    description: str


def options(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Option]:
    """Every option in the order of the sections."""
    for name, info in section.model_fields.items():
        nested = _section_of(info.annotation)
        if nested is not None:
            yield from options(nested, f"{prefix}{name}.")
        else:
            default = info.get_default(call_default_factory=True)
            yield Option(f"{prefix}{name}", default, info.description or "")


def changed_options(before: Settings, after: Settings) -> list[str]:
    """Dotted names of the options whose values differ."""
    return [name for name, _, _ in options() if _value(before, name) != _value(after, name)]


def _value(settings: BaseModel, name: str) -> object:
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _section_of(annotation: object) -> type[BaseModel] | None:
    if get_origin(annotation) in (types.UnionType, Annotated):
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
