"""NVIDIA GPUs through the driver's management library; the only file that imports pynvml."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from neuromodd.core.frame import GpuSample
from neuromodd.core.readings import GpuReading
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.files import Rescan

_LIBRARY = "libnvidia-ml.so.1"
_FIRST_BACKOFF_S = 5.0
_LONGEST_BACKOFF_S = 60.0

# Nothing can be asked until the library is initialised again.
_DRIVER_FAULTS = frozenset({"Uninitialized", "DriverNotLoaded", "LibRmVersionMismatch"})

# The driver no longer reaches the device.
_DEVICE_FAULTS = frozenset({"GpuIsLost", "ResetRequired", "Timeout"})

# A device that is lost may answer this to all questions, a healthy one answers it to some for ever.
_UNKNOWN = "Unknown"

# All bits set is how the library writes "not available" into a number.
_NOT_AVAILABLE = frozenset({2**32 - 1, 2**64 - 1})

# Below 0 degrees the library's unsigned number wraps.
_HOTTEST_CELSIUS = 200

_Values = Mapping[str, Any]


class NvmlFaultError(SensorError):
    """The library refused a call.

    Attributes:
        word: the library's name for the reason (`DriverNotLoaded`).
    """

    def __init__(self, function: str, word: str) -> None:
        self.word = word
        super().__init__(f"{function}: {word}")


class Question(NamedTuple):
    """A call for one device and the fields of GpuSample that its answer fills.

    Attributes:
        function: its name in pynvml.
        constants: the names in pynvml of what it is passed after the device.
        fields: makes the fields of the answer; None where the answer is no measurement.
    """

    function: str
    constants: tuple[str, ...]
    fields: Callable[[Any], _Values]


class _Memory(Protocol):
    used: int
    total: int


def _ratio(percent: int) -> float | None:
    return None if percent in _NOT_AVAILABLE else percent / 100


def _busy_ratio(percent: int) -> float | None:
    return percent / 100 if percent <= 100 else None  # noqa: PLR2004 - per cent


def _celsius(degrees: int) -> float | None:
    return float(degrees) if degrees <= _HOTTEST_CELSIUS else None


def _watts(milliwatts: int) -> float | None:
    return None if milliwatts in _NOT_AVAILABLE else milliwatts / 1e3


def _hertz(megahertz: int) -> float | None:
    return None if megahertz in _NOT_AVAILABLE else megahertz * 1e6


def _memory(info: _Memory) -> _Values:
    # What the driver reserves counts as used here, so that a full memory reads 1.
    known = info.total not in _NOT_AVAILABLE and info.used <= info.total
    return {"memory_used_bytes": info.used, "memory_total_bytes": info.total} if known else {}


# What stays as it is. A limit of 0 is one that the device does not have.
_ONCE = (
    Question("nvmlDeviceGetUUID", (), lambda uuid: {"uuid": uuid}),
    Question("nvmlDeviceGetName", (), lambda name: {"name": name}),
    Question(
        "nvmlDeviceGetTemperatureThreshold",
        ("NVML_TEMPERATURE_THRESHOLD_SLOWDOWN",),
        lambda degrees: {"slowdown_celsius": _celsius(degrees) or None},
    ),
    Question(
        "nvmlDeviceGetMaxClockInfo",
        ("NVML_CLOCK_SM",),
        lambda megahertz: {"sm_clock_max_hz": _hertz(megahertz) or None},
    ),
)

_EACH_TIME = (
    Question(
        "nvmlDeviceGetUtilizationRates", (), lambda rates: {"utilization_ratio": _busy_ratio(rates.gpu)}
    ),
    Question("nvmlDeviceGetMemoryInfo", (), _memory),
    Question(
        "nvmlDeviceGetTemperature",
        ("NVML_TEMPERATURE_GPU",),
        lambda degrees: {"temperature_celsius": _celsius(degrees)},
    ),
    Question("nvmlDeviceGetPowerUsage", (), lambda milliwatts: {"power_watts": _watts(milliwatts)}),
    Question(
        "nvmlDeviceGetEnforcedPowerLimit",
        (),
        lambda milliwatts: {"power_limit_watts": _watts(milliwatts) or None},
    ),
    Question(
        "nvmlDeviceGetClockInfo", ("NVML_CLOCK_SM",), lambda megahertz: {"sm_clock_hz": _hertz(megahertz)}
    ),
    Question("nvmlDeviceGetFanSpeed", (), lambda percent: {"fan_ratio": _ratio(percent)}),
)


@dataclass(slots=True)
class _Device:
    """One GPU; what does not change is remembered for as long as the driver counts it."""

    index: int
    handle: object | None = None
    constant: dict[str, Any] = field(default_factory=dict)

    def sample(self, values: _Values) -> GpuSample:
        return GpuSample(index=self.index, **self.constant, **values)

    def lost(self) -> GpuSample:
        self.handle = None
        uuid, name = self.constant.get("uuid"), self.constant.get("name")
        return GpuSample(index=self.index, uuid=uuid, name=name, lost=True)


class NvmlSensor:
    """Every NVIDIA GPU of the host.

    A question that a device or an older driver does not answer leaves its fields None. While the
    driver can't be asked at all, it is initialised again after 5 s, doubling to 60 s.
    """

    name = "nvml"

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._nvml: ModuleType | None = None
        self._initialised = False
        self._devices: list[_Device] = []
        self._recount = Rescan(clock)
        self._backoff_s = _FIRST_BACKOFF_S
        self._retry_s: float | None = None
        self._driver_error: str | None = None

    def read(self) -> GpuReading:
        """Ask every GPU; one that is lost says so and does not hide the others.

        Raises:
            SensorAbsentError: there is no driver library, or the driver has no GPU.
        """
        if self._nvml is None:
            self._nvml = _load()
        if self._retry_s is not None and self._clock() < self._retry_s:
            return GpuReading(driver_error=self._driver_error)
        try:
            self._prepare()
            gpus = tuple(self._sample(device) for device in self._devices)
        except NvmlFaultError as fault:
            return self._back_off(fault)
        self._backoff_s, self._retry_s = _FIRST_BACKOFF_S, None
        if not gpus:
            # A GPU that comes later is seen only by a library that is initialised anew.
            self.close()
            raise SensorAbsentError("nvml: the driver has no GPU")
        return GpuReading(gpus=gpus)

    def close(self) -> None:
        """Shut the library down; a later read initialises it again."""
        if not self._initialised:
            return
        self._initialised = False
        for device in self._devices:
            device.handle = None
        try:
            self._call("nvmlShutdown")
        except NvmlFaultError:
            # It refuses when the driver is gone: then there is nothing left to shut down.
            return

    def _prepare(self) -> None:
        is_due = self._recount.due()
        if self._initialised and not is_due:
            return
        if not self._initialised:
            self._call("nvmlInit")
            self._initialised = True
        known = self._devices
        count = self._call("nvmlDeviceGetCount")
        self._devices = [known[i] if i < len(known) else _Device(i) for i in range(count)]
        for device in self._devices:
            device.handle = None

    def _back_off(self, fault: NvmlFaultError) -> GpuReading:
        self.close()
        self._driver_error = fault.word
        self._retry_s = self._clock() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, _LONGEST_BACKOFF_S)
        return GpuReading(driver_error=fault.word)

    def _sample(self, device: _Device) -> GpuSample:
        try:
            if device.handle is None:
                device.handle = self._ask("nvmlDeviceGetHandleByIndex", device.index)
                device.constant.update(self._answers(device.handle, _ONCE))
            return device.sample(self._answers(device.handle, _EACH_TIME))
        except NvmlFaultError as fault:
            if fault.word in _DRIVER_FAULTS:
                raise
            return device.lost()

    def _answers(self, handle: object | None, questions: Iterable[Question]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        unknown: NvmlFaultError | None = None
        if handle is None:
            return values
        for question in questions:
            constants = [getattr(self._nvml, constant) for constant in question.constants]
            try:
                answer = self._ask(question.function, handle, *constants)
            except NvmlFaultError as fault:
                if fault.word != _UNKNOWN:
                    raise
                unknown = fault
                continue
            if answer is not None:
                values.update(question.fields(answer))
        if unknown is not None and not values:
            raise unknown
        return values

    def _ask(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - pynvml is untyped
        """The answer to a call; None if this device, this user or this driver has none."""
        try:
            return self._call(function, *arguments)
        except NvmlFaultError as fault:
            if fault.word in _DRIVER_FAULTS or fault.word in _DEVICE_FAULTS or fault.word == _UNKNOWN:
                raise
            return None

    def _call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - pynvml is untyped
        """Every call of the library passes here.

        Raises:
            NvmlFaultError: it was refused.
        """
        nvml: Any = self._nvml
        try:
            return getattr(nvml, function)(*arguments)
        except nvml.NVMLError as error:
            raise NvmlFaultError(function, _word_of(error)) from None


def _load() -> ModuleType:
    # The module takes 2 MB and 24 ms; a host without the library is spared both.
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise SensorAbsentError(f"nvml: {error}") from None
    import pynvml  # noqa: PLC0415 - see above

    module: ModuleType = pynvml
    return module


def _word_of(error: Exception) -> str:
    """The library's name for an error; a code that pynvml does not know keeps its number."""
    word = type(error).__name__.removeprefix("NVMLError_")
    return word if word != "NVMLError" else f"Error{error.args[0]}"
