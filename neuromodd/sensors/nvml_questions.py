"""What NVML is asked about a GPU, and what its answers mean; knows nothing of the library's binding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

Values = Mapping[str, Any]

# All bits set is how the library writes "not available" into a number.
_NOT_AVAILABLE = frozenset({2**32 - 1, 2**64 - 1})

# Below 0 degrees the library's unsigned number wraps.
_HOTTEST_CELSIUS = 200

_LOWEST_PERFORMANCE = 15

# Bits of nvmlDeviceGetCurrentClocksThrottleReasons, later called event reasons.
_THROTTLE_REASONS = {
    1 << 0: "gpu_idle",
    1 << 1: "applications_clocks_setting",
    1 << 2: "sw_power_cap",
    1 << 3: "hw_slowdown",
    1 << 4: "sync_boost",
    1 << 5: "sw_thermal_slowdown",
    1 << 6: "hw_thermal_slowdown",
    1 << 7: "hw_power_brake_slowdown",
    1 << 8: "display_clock_setting",
    1 << 9: "board_limit",
    1 << 10: "reliability",
}


class Question(NamedTuple):
    """A call for one device and the fields of GpuSample that its answer fills.

    Attributes:
        function: its name in pynvml.
        constants: the names in pynvml of what it is passed after the device.
        fields: makes the fields of the answer; None where the answer is no measurement.
    """

    function: str
    constants: tuple[str, ...]
    fields: Callable[[Any], Values]


class _Memory(Protocol):
    used: int
    total: int


class _Utilization(Protocol):
    gpu: int
    memory: int


class FieldValue(Protocol):
    """One answer of nvmlDeviceGetFieldValues; `nvmlReturn` is 0 where it holds."""

    nvmlReturn: int  # noqa: N815 - the library's spelling
    valueType: int  # noqa: N815 - likewise
    value: Any


# The member of the library's union that holds a value of each type; 0 is a floating-point number.
_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


def field_numbers(fields: Iterable[int], answers: Iterable[FieldValue]) -> dict[int, int]:
    """The whole numbers among the answers that hold, by the ids that were asked for."""
    known = {}
    for field, answer in zip(fields, answers, strict=True):
        if answer.nvmlReturn == 0 and (member := _MEMBERS.get(answer.valueType)):
            number = getattr(answer.value, member)
            if number == number and number not in _NOT_AVAILABLE:  # noqa: PLR0124 - NaN
                known[field] = int(number)
    return known


def _ratio(percent: int) -> float | None:
    return None if percent in _NOT_AVAILABLE else percent / 100


def _busy_ratio(percent: int) -> float | None:
    return percent / 100 if percent <= 100 else None  # noqa: PLR2004 - per cent


def celsius(degrees: int | None) -> float | None:
    """A temperature; None stays None, and so becomes what wrapped below 0."""
    return None if degrees is None or not 0 <= degrees <= _HOTTEST_CELSIUS else float(degrees)


def _milli(number: int) -> float | None:
    return None if number in _NOT_AVAILABLE else number / 1e3


def _kilo(number: int) -> float | None:
    return None if number in _NOT_AVAILABLE else number * 1e3


def _hertz(megahertz: int) -> float | None:
    return None if megahertz in _NOT_AVAILABLE else megahertz * 1e6


def _count(number: int) -> int | None:
    return None if number in _NOT_AVAILABLE else number


def _memory(info: _Memory) -> Values:
    # What the driver reserves counts as used here, so that a full memory reads 1.
    known = info.total not in _NOT_AVAILABLE and info.used <= info.total
    return {"memory_used_bytes": info.used, "memory_total_bytes": info.total} if known else {}


def _utilization(rates: _Utilization) -> Values:
    return {
        "utilization_ratio": _busy_ratio(rates.gpu),
        "memory_utilization_ratio": _busy_ratio(rates.memory),
    }


def _throttle_reasons(bits: int) -> Values:
    if bits in _NOT_AVAILABLE:
        return {}
    names = [_THROTTLE_REASONS.get(1 << n, f"bit_{n}") for n in range(bits.bit_length()) if bits >> n & 1]
    return {"throttle_reasons": tuple(names)}


# What stays as it is. A limit of 0 is one that the device does not have.
ONCE = (
    Question("nvmlDeviceGetUUID", (), lambda uuid: {"uuid": uuid}),
    Question("nvmlDeviceGetName", (), lambda name: {"name": name}),
    Question(
        "nvmlDeviceGetTemperatureThreshold",
        ("NVML_TEMPERATURE_THRESHOLD_SLOWDOWN",),
        lambda degrees: {"slowdown_celsius": celsius(degrees) or None},
    ),
    Question(
        "nvmlDeviceGetTemperatureThreshold",
        ("NVML_TEMPERATURE_THRESHOLD_SHUTDOWN",),
        lambda degrees: {"shutdown_celsius": celsius(degrees) or None},
    ),
    Question(
        "nvmlDeviceGetMaxClockInfo",
        ("NVML_CLOCK_SM",),
        lambda megahertz: {"sm_clock_max_hz": _hertz(megahertz) or None},
    ),
    Question(
        "nvmlDeviceGetMaxClockInfo",
        ("NVML_CLOCK_MEM",),
        lambda megahertz: {"memory_clock_max_hz": _hertz(megahertz) or None},
    ),
    Question(
        "nvmlDeviceGetMaxPcieLinkWidth", (), lambda lanes: {"pcie_link_width_max": _count(lanes) or None}
    ),
)

# What changes by the minute, or costs as much as all the rest: asked every 10 s.
SELDOM = (
    Question(
        "nvmlDeviceGetComputeRunningProcesses",
        (),
        lambda processes: {"compute_processes": len(processes)},
    ),
    Question("nvmlDeviceGetCurrPcieLinkWidth", (), lambda lanes: {"pcie_link_width": _count(lanes) or None}),
    Question("nvmlDeviceGetMigMode", (), lambda modes: {"mig_enabled": modes[0] == 1}),
)

EACH_TIME = (
    Question("nvmlDeviceGetUtilizationRates", (), _utilization),
    Question("nvmlDeviceGetMemoryInfo", (), _memory),
    Question(
        "nvmlDeviceGetTemperature",
        ("NVML_TEMPERATURE_GPU",),
        lambda degrees: {"temperature_celsius": celsius(degrees)},
    ),
    Question("nvmlDeviceGetPowerUsage", (), lambda milliwatts: {"power_watts": _milli(milliwatts)}),
    Question(
        "nvmlDeviceGetEnforcedPowerLimit",
        (),
        lambda milliwatts: {"power_limit_watts": _milli(milliwatts) or None},
    ),
    Question(
        "nvmlDeviceGetTotalEnergyConsumption",
        (),
        lambda millijoules: {"energy_joules": _milli(millijoules)},
    ),
    Question(
        "nvmlDeviceGetClockInfo", ("NVML_CLOCK_SM",), lambda megahertz: {"sm_clock_hz": _hertz(megahertz)}
    ),
    Question(
        "nvmlDeviceGetClockInfo",
        ("NVML_CLOCK_MEM",),
        lambda megahertz: {"memory_clock_hz": _hertz(megahertz)},
    ),
    Question("nvmlDeviceGetFanSpeed", (), lambda percent: {"fan_ratio": _ratio(percent)}),
    Question(
        "nvmlDeviceGetPerformanceState",
        (),
        lambda state: {"performance_state": state if state <= _LOWEST_PERFORMANCE else None},
    ),
    Question("nvmlDeviceGetCurrentClocksThrottleReasons", (), _throttle_reasons),
    Question(
        "nvmlDeviceGetEncoderUtilization",
        (),
        lambda answer: {"encoder_utilization_ratio": _busy_ratio(answer[0])},
    ),
    Question(
        "nvmlDeviceGetDecoderUtilization",
        (),
        lambda answer: {"decoder_utilization_ratio": _busy_ratio(answer[0])},
    ),
)

# Where the device does not count its bytes; a measurement of 20 ms each, in kilobytes a second.
THROUGHPUT = (
    Question(
        "nvmlDeviceGetPcieThroughput",
        ("NVML_PCIE_UTIL_RX_BYTES",),
        lambda kilobytes: {"pcie_receive_bytes_per_s": _kilo(kilobytes)},
    ),
    Question(
        "nvmlDeviceGetPcieThroughput",
        ("NVML_PCIE_UTIL_TX_BYTES",),
        lambda kilobytes: {"pcie_transmit_bytes_per_s": _kilo(kilobytes)},
    ),
)

# Of a GPU that is partitioned the library tells no utilisation as a whole, or 0.
UNKNOWN_UNDER_MIG = (
    "utilization_ratio",
    "memory_utilization_ratio",
    "encoder_utilization_ratio",
    "decoder_utilization_ratio",
)

# Ids of nvmlDeviceGetFieldValues: one call for all of them.
MEMORY_TEMPERATURE, PCIE_TRANSMIT, PCIE_RECEIVE = 82, 197, 198
FIELDS_EACH_TIME = (MEMORY_TEMPERATURE, PCIE_TRANSMIT, PCIE_RECEIVE)

_ECC_CORRECTED, _ECC_UNCORRECTED = 3, 4
_RETIRED_CORRECTED, _RETIRED_UNCORRECTED, _RETIREMENT_PENDING = 29, 30, 31
_REMAPPED_CORRECTED, _REMAPPED_UNCORRECTED, _REMAPPING_PENDING = 142, 143, 144
FIELDS_SELDOM = (
    *(_ECC_CORRECTED, _ECC_UNCORRECTED),
    *(_RETIRED_CORRECTED, _RETIRED_UNCORRECTED, _RETIREMENT_PENDING),
    *(_REMAPPED_CORRECTED, _REMAPPED_UNCORRECTED, _REMAPPING_PENDING),
)


def reliability(numbers: Mapping[int, int]) -> dict[str, Any]:
    """What FIELDS_SELDOM say of a device's memory: errors, and what was taken out of use for them."""
    pending = [numbers[field] for field in (_RETIREMENT_PENDING, _REMAPPING_PENDING) if field in numbers]
    return {
        "ecc_corrected": numbers.get(_ECC_CORRECTED),
        "ecc_uncorrected": numbers.get(_ECC_UNCORRECTED),
        "retired_pages": _sum(numbers, _RETIRED_CORRECTED, _RETIRED_UNCORRECTED),
        "remapped_rows": _sum(numbers, _REMAPPED_CORRECTED, _REMAPPED_UNCORRECTED),
        "reset_pending": any(pending) if pending else None,
    }


def _sum(numbers: Mapping[int, int], *fields: int) -> int | None:
    known = [numbers[field] for field in fields if field in numbers]
    return sum(known) if known else None
