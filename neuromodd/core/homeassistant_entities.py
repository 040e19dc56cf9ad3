"""What Home Assistant shows of a node: one line for each value, with its unit and class."""

from __future__ import annotations

from typing import Literal, NamedTuple

Platform = Literal["sensor", "binary_sensor"]


class Kind(NamedTuple):
    """How a value is shown; a number is multiplied by `factor`, then rounded to `digits`.

    Rounded, because Home Assistant stores every change of a state.
    """

    unit: str | None = None
    device_class: str | None = None
    factor: float = 1
    digits: int = 0
    state_class: str | None = "measurement"
    platform: Platform = "sensor"


# Home Assistant shows shares, levels and gauges from 0 to 100 %, and a unit may only be converted by a
# user where its device class allows that: so these are the units that people read.
SHARE = Kind("%", factor=100, digits=1)
BATTERY = Kind("%", "battery", factor=100)
CELSIUS = Kind("°C", "temperature", digits=1)
WATTS = Kind("W", "power", digits=1)
ENERGY = Kind("kWh", "energy", factor=1 / 3.6e6, digits=3, state_class="total_increasing")
VOLTS = Kind("V", "voltage", digits=3)
CLOCK = Kind("MHz", "frequency", factor=1e-6)
SIZE = Kind("GiB", "data_size", factor=2**-30, digits=2)
RATE = Kind("MB/s", "data_rate", factor=1e-6, digits=2)
RPM = Kind("rpm")
NUMBER = Kind(digits=2)
PER_S = Kind("1/s", digits=1)
COUNT = Kind(state_class="total_increasing")
MILLISECONDS = Kind("ms", "duration", digits=1)
SECONDS = Kind("s", "duration")
CHOICE = Kind(device_class="enum", state_class=None)
FLAG = Kind(platform="binary_sensor", state_class=None)
PROBLEM = FLAG._replace(device_class="problem")
PLUG = FLAG._replace(device_class="plug")


TOPICS = ("state", "fault", "health")


class Entity(NamedTuple):
    """One line of the table: a value that is published, and how Home Assistant shows it.

    Attributes:
        path: topic and place of the value in its payload, without the topic for a frame's; the id of the
            entity is made of it, so it never changes.
        name: what people read.
        icon: where no device class brings one.
        enabled: whether it is shown before a user asks for it.
        diagnostic: whether it tells of the daemon or of a device's health rather than of the work.
    """

    path: str
    name: str
    kind: Kind
    icon: str | None = None
    enabled: bool = True
    diagnostic: bool = False

    @property
    def group(self) -> str:
        """The first part of the path: a topic, or a group of the frame."""
        return self.path.partition(".")[0].removesuffix("[]")

    @property
    def field(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def topic(self) -> str:
        """The topic that carries the value."""
        return self.group if self.group in TOPICS else "telemetry"

    @property
    def place(self) -> str:
        """Where the value is in the payload of its topic."""
        return self.path.removeprefix(self.topic).removeprefix(".").replace("[]", "")


ALWAYS: tuple[Entity, ...] = (
    Entity("state.modulators.dopamine", "Dopamine", SHARE, "mdi:star-four-points-outline"),
    Entity("state.modulators.cortisol", "Cortisol", SHARE, "mdi:flash-alert-outline"),
    Entity("state.modulators.acetylcholine", "Acetylcholine", SHARE, "mdi:image-filter-center-focus"),
    Entity("state.modulators.tempo", "Tempo", SHARE, "mdi:metronome"),
    Entity("state.flags.stress", "Stress", FLAG, "mdi:emoticon-sad-outline"),
    Entity("state.flags.reward", "Reward", FLAG, "mdi:trophy-outline"),
    Entity("state.flags.focus", "Focus", FLAG, "mdi:bullseye-arrow"),
    Entity("state.flags.anomaly", "Anomaly", PROBLEM),
    Entity("state.surprise.total", "Surprise", SHARE, "mdi:lightbulb-alert-outline"),
    Entity("fault", "Fault", PROBLEM),
    Entity("fault.class", "Fault class", CHOICE, "mdi:stethoscope"),
    Entity("health.ticks.lateness_p99_ms", "Tick lateness", MILLISECONDS, diagnostic=True),
    Entity("health.mqtt.connections", "Broker connections", COUNT, "mdi:lan-connect", diagnostic=True),
    Entity("health.mqtt.dropped", "Messages dropped", COUNT, "mdi:email-remove-outline", diagnostic=True),
    Entity("health.checkpoint.age_s", "Checkpoint age", SECONDS, diagnostic=True),
)
"""What the daemon always tells, beside the frame."""

MEASURED: tuple[Entity, ...] = (
    Entity("cpu.utilization_ratio", "CPU utilization", SHARE, "mdi:cpu-64-bit"),
    Entity("cpu.frequency_hz", "CPU frequency", CLOCK),
    Entity("cpu.temperature_celsius", "CPU temperature", CELSIUS),
    Entity("cpu.load_1m", "Load", NUMBER, "mdi:gauge"),
    Entity("cpu.context_switches_per_s", "Context switches", PER_S, "mdi:swap-horizontal", enabled=False),
    Entity("cpu.throttles_per_s", "CPU throttling", PER_S, "mdi:speedometer-slow", enabled=False),
    Entity("memory.used_ratio", "Memory used", SHARE, "mdi:memory"),
    Entity("memory.available_bytes", "Memory available", SIZE, enabled=False),
    Entity("memory.swap_used_ratio", "Swap used", SHARE, "mdi:harddisk"),
    Entity("pressure.cpu_some_ratio", "CPU pressure", SHARE, "mdi:gauge"),
    Entity("pressure.memory_some_ratio", "Memory pressure", SHARE, "mdi:gauge"),
    Entity("pressure.memory_full_ratio", "Memory pressure, all", SHARE, "mdi:gauge", enabled=False),
    Entity("pressure.io_some_ratio", "I/O pressure", SHARE, "mdi:gauge"),
    Entity("pressure.io_full_ratio", "I/O pressure, all", SHARE, "mdi:gauge", enabled=False),
    Entity("disk.read_bytes_per_s", "Disk read", RATE),
    Entity("disk.write_bytes_per_s", "Disk write", RATE),
    Entity("disk.busy_ratio", "Disk busy", SHARE, "mdi:harddisk"),
    Entity("network.receive_bytes_per_s", "Network receive", RATE),
    Entity("network.transmit_bytes_per_s", "Network transmit", RATE),
    Entity("network.errors_per_s", "Network errors", PER_S, "mdi:close-network-outline", enabled=False),
    Entity("network.drops_per_s", "Network drops", PER_S, "mdi:close-network-outline", enabled=False),
    Entity("power.package_watts", "CPU power", WATTS),
    Entity("power.core_volts", "Core voltage", VOLTS, enabled=False),
    Entity("power.on_mains", "Mains", PLUG),
    Entity("power.battery_ratio", "Battery", BATTERY),
    Entity("limits.cpu_throttled_ratio", "CPU limit reached", SHARE, "mdi:speedometer-slow", enabled=False),
    Entity("limits.memory_used_ratio", "Memory limit used", SHARE, "mdi:memory", enabled=False),
    Entity("thermal[].temperature_celsius", "temperature", CELSIUS),
    Entity("fans[].speed_rpm", "speed", RPM, "mdi:fan"),
    Entity("voltages[].volts", "voltage", VOLTS, enabled=False),
    Entity("gpus[].utilization_ratio", "utilization", SHARE, "mdi:expansion-card"),
    Entity("gpus[].memory_used_bytes", "memory used", SIZE),
    Entity("gpus[].temperature_celsius", "temperature", CELSIUS),
    Entity("gpus[].memory_temperature_celsius", "memory temperature", CELSIUS, enabled=False),
    Entity("gpus[].power_watts", "power", WATTS),
    Entity("gpus[].energy_joules", "energy", ENERGY),
    Entity("gpus[].core_volts", "core voltage", VOLTS, enabled=False),
    Entity("gpus[].sm_clock_hz", "clock", CLOCK),
    Entity("gpus[].memory_clock_hz", "memory clock", CLOCK, enabled=False),
    Entity("gpus[].fan_ratio", "fan", SHARE, "mdi:fan"),
    Entity("gpus[].lost", "lost", PROBLEM, diagnostic=True),
)
"""What a frame may show, by its path in it; `[]` stands for each of a list."""
