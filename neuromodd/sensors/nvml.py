"""NVIDIA GPUs through the driver's management library; the only file that imports pynvml."""

from __future__ import annotations

import _ctypes
import ctypes
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from types import ModuleType
from typing import Any

from neuromodd.core.frame import GpuSample
from neuromodd.core.readings import GpuReading, PcieCounters
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors import nvml_questions as ask
from neuromodd.sensors.files import Rescan
from neuromodd.sensors.nvml_devices import DRIVER, Backoff, Device, Stuck
from neuromodd.sensors.pci import PciGpu, find_gpus

_LIBRARY = "libnvidia-ml.so.1"
_VENDOR, _DRIVER = "0x10de", "nvidia"
_SELDOM_S = 10.0

# Nothing can be asked until the library is initialised again.
_DRIVER_FAULTS = frozenset({"Uninitialized", "DriverNotLoaded", "LibRmVersionMismatch"})

# The driver no longer reaches the device.
_DEVICE_FAULTS = frozenset({"GpuIsLost", "ResetRequired", "Timeout"})

# A device that is lost may answer this to all questions, a healthy one answers it to some for ever.
_UNKNOWN = "Unknown"

# An answer that will not be another next time.
_NEVER = frozenset({"NotSupported", "FunctionNotFound"})

_CORRUPTED = "CorruptedInforom"
_MISMATCH = "LibRmVersionMismatch"
_NOT_LOADED = "DriverNotLoaded"

# Our word for a driver that does not come back at all; the library's own for one that gives up waiting.
_HANGS = "Timeout"

# A reading of PCIe throughput is a measurement of 20 ms, in the library, a direction and device. With many
# devices they take turns.
_THROUGHPUT_BUDGET_S = 0.05

_Place = str | int
"""Where a device is: its PCI address, or its index in the library where sysfs does not tell."""

_XIDS_AT_ONCE = 32
"""Errors of the driver that one reading takes; the rest waits for the next."""


class NvmlFaultError(SensorError):
    """The library refused a call.

    Attributes:
        word: the library's name for the reason (`DriverNotLoaded`).
        code: its number.
    """

    def __init__(self, function: str, word: str, code: int) -> None:
        self.word = word
        self.code = code
        super().__init__(f"{function}: {word}")


class SupersededError(SensorError):
    """A call came back after another sensor has taken this one's place."""


class NvmlSensor:
    """Every NVIDIA GPU of the host.

    A question that a device or an older driver does not answer leaves its fields None. While the driver
    can't be asked, or a device is lost, the library is initialised again after 5 s, doubling to 60 s. A
    device that sleeps is not asked. One whose call hangs is left to the sensor that hangs with it: its
    `successor` reads the others.

    Args:
        sysfs_root: the host's /sys: where the devices are, and whether they sleep.
        clock: monotonic seconds.
        trace: is told each call of the library with its device, arguments and answer or error.
    """

    name = "nvml"

    def __init__(
        self,
        *,
        sysfs_root: Path,
        clock: Callable[[], float] = time.monotonic,
        trace: Callable[[str, tuple[object, ...], object], None] | None = None,
    ) -> None:
        self._sysfs_root = sysfs_root
        self._clock = clock
        self._trace = trace
        self._nvml: ModuleType | None = None
        self._initialised = False
        self._devices: dict[str | int, Device] = {}
        self._addresses: frozenset[_Place] = frozenset()
        self._rescan = Rescan(clock)
        self._driver = Backoff(clock)
        self._losses = Backoff(clock)
        self._driver_error: str | None = None
        self._events: Any = None
        self._turn = 0
        self._stuck = Stuck(clock)
        self._lock = threading.Lock()
        self._asking: int | None = None
        self._superseded = threading.Event()

    def read(self) -> GpuReading:
        """Ask every GPU; one that is lost says so and does not hide the others.

        Raises:
            SensorAbsentError: there is no driver library, or the driver has no GPU.
            SupersededError: the call that hung came back; its successor has long gone on.
        """
        if DRIVER in self._stuck:
            gpus = tuple(device.bare(hung=True) for device in self._devices.values())
            return GpuReading(gpus=gpus, driver_error=_HANGS)
        if self._driver.waiting:
            return GpuReading(driver_error=self._driver_error)
        try:
            if self._nvml is None:
                with self._at(DRIVER):
                    self._nvml = _load()
            self._look_around()
            with self._at(DRIVER):
                self._collect_xids()
            reading = self._reading()
        except NvmlFaultError as fault:
            return self._back_off(fault)
        except SupersededError:
            self.close()
            raise
        self._driver.end()
        self._driver_error = None
        if not reading.gpus:
            # A GPU that comes later is seen only by a library that is initialised anew.
            self.close()
            raise SensorAbsentError("nvml: the driver has no GPU")
        return reading

    def successor(self) -> NvmlSensor | None:
        """Another sensor, for all devices but the one that this sensor hangs on; None if it hangs on none.

        Where the driver as a whole hangs, it tells just that. Called from another thread than the one that
        hangs.
        """
        with self._lock:
            if self._asking is None:
                return None
            self._stuck.hang(self._asking)
            self._superseded.set()
        heir = NvmlSensor(sysfs_root=self._sysfs_root, clock=self._clock, trace=self._trace)
        heir._stuck = self._stuck
        heir._devices = {
            place: Device(
                device.index,
                device.pci,
                identity=device.identity,
                seen=device.seen,
                inforom_asked=device.inforom_asked,
            )
            for place, device in self._devices.items()
        }
        return heir

    def close(self) -> None:
        """Shut the library down; a later read initialises it again."""
        for device in self._devices.values():
            device.handle, device.xids = None, None
            if device.pci is not None:
                device.pci.close()
        if not self._initialised:
            return
        self._initialised = False
        events, self._events = self._events, None
        # It refuses when the driver is gone: then there is nothing left to shut down.
        if events is not None:
            with suppress(NvmlFaultError):
                self._call("nvmlEventSetFree", events)
        with suppress(NvmlFaultError):
            self._call("nvmlShutdown")

    # Finding devices

    def _look_around(self) -> None:
        """Find the devices, where it is time to."""
        if self._losses.due:
            # What was reset is reached only by a library that is initialised anew.
            self.close()
        is_due = self._rescan.due()
        if self._devices and not is_due and (self._initialised or self._all_asleep()):
            return
        found: dict[_Place, PciGpu | None] = {
            gpu.address: gpu for gpu in find_gpus(self._sysfs_root, vendor=_VENDOR, driver=_DRIVER)
        }
        if found:
            if found.keys() - self._addresses:
                # One that was plugged in, likewise.
                self.close()
            self._addresses = frozenset(found)
            self._keep(found)
            if self._all_asleep():
                return
        with self._at(DRIVER):
            self._initialise()
            counted = self._call("nvmlDeviceGetCount")
        if found:
            self._attach_all()
        if not found or (counted and not self._devices):
            # A container may be shown no addresses, or such as mean nothing to its driver.
            self._keep(dict.fromkeys(range(counted)))
            self._attach_all()
        if not any(device.fault for device in self._devices.values()):
            self._losses.end()

    def _initialise(self) -> None:
        if self._initialised:
            return
        self._call("nvmlInit")
        self._initialised = True
        self._events = self._ask("nvmlEventSetCreate")

    def _all_asleep(self) -> bool:
        return all(device.pci is not None and device.pci.suspended() for device in self._devices.values())

    def _keep(self, places: Mapping[_Place, PciGpu | None]) -> None:
        """Know the devices at `places` and no others; each keeps its number for as long as it is known."""
        known, self._devices = self._devices, {}
        for device in known.values():
            if device.pci is not None:
                device.pci.close()
        taken = {device.index for place, device in known.items() if place in places}
        for order, (place, pci) in enumerate(places.items()):
            device = known.get(place) or Device(next(n for n in chain([order], count()) if n not in taken))
            taken.add(device.index)
            device.pci = pci
            if pci is not None:
                device.identity["pci_bus_id"] = pci.address
            self._devices[place] = device

    def _attach_all(self) -> None:
        for device in self._devices.values():
            self._attach(device)
        # What the driver never had is not lost: it is another container's, or another driver's.
        self._keep({place: device.pci for place, device in self._devices.items() if device.seen})

    def _attach(self, device: Device) -> None:
        """Get the device's handle and what stays as it is; a device that sleeps is left alone."""
        if device.index in self._stuck or (device.pci is not None and device.pci.suspended()):
            device.seen = True
            return
        try:
            with self._at(device.index):
                if device.pci is None:
                    device.handle = self._call("nvmlDeviceGetHandleByIndex", device.index)
                else:
                    device.handle = self._call("nvmlDeviceGetHandleByPciBusId", device.pci.address)
                self._introduce(device)
        except NvmlFaultError as fault:
            self._lose(device, fault)
        else:
            device.fault, device.seen = None, True

    def _introduce(self, device: Device) -> None:
        """Ask what stays as it is."""
        device.never.clear()
        device.seldom_due_s = 0.0
        device.constant = self._answers(device, ask.ONCE)
        known = device.identity.get("uuid")
        device.identity |= {name: device.constant.pop(name, None) for name in ("uuid", "name")}
        if device.identity["uuid"] != known is not None:
            device.inforom_asked = False
        if device.pci is None and (info := self._ask("nvmlDeviceGetPciInfo", device.handle)):
            device.identity["pci_bus_id"] = _as_in_sysfs(info.busId)
        if not device.inforom_asked:
            # Noted before: it reads a memory on the board, and may hang there.
            device.inforom_asked = True
            device.identity["inforom_valid"] = self._inforom_valid(device)
        if self._events is not None and device.xids is None:
            critical = self._constant("nvmlEventTypeXidCriticalError")
            with suppress(NvmlFaultError):
                self._call("nvmlDeviceRegisterEvents", device.handle, critical, self._events)
                device.xids = []

    def _inforom_valid(self, device: Device) -> bool | None:
        try:
            self._call("nvmlDeviceValidateInforom", device.handle)
        except NvmlFaultError as fault:
            return False if fault.word == _CORRUPTED else None
        return True

    def _lose(self, device: Device, fault: NvmlFaultError) -> None:
        """Note that a device is lost.

        Raises:
            NvmlFaultError: it is the driver that is.
        """
        if fault.word in _DRIVER_FAULTS:
            raise fault
        device.handle = None
        device.seen = device.seen or fault.word in _DEVICE_FAULTS or fault.word in (_UNKNOWN, _CORRUPTED)
        device.fault = fault.word if device.seen else None
        # What comes back may have been repaired.
        device.inforom_asked = False
        if device.fault is not None and not self._losses.waiting:
            self._losses.begin()

    def _back_off(self, fault: NvmlFaultError) -> GpuReading:
        """Wait before the driver is asked again.

        Raises:
            SensorAbsentError: there is a library, but neither a driver nor a device.
        """
        self.close()
        for device in self._devices.values():
            device.inforom_asked = False
        if (
            fault.word == _NOT_LOADED
            and not self._devices
            and not find_gpus(self._sysfs_root, vendor=_VENDOR)
        ):
            raise SensorAbsentError("nvml: there is a library, but no driver and no NVIDIA GPU")
        if fault.word == _MISMATCH and not self._stuck.any_hung:
            # The driver was replaced, and the library in memory is still that of the old one.
            _unload(self._nvml)
            self._nvml = None
        self._driver_error = fault.word
        self._driver.begin()
        return GpuReading(driver_error=fault.word)

    # Asking

    @contextmanager
    def _at(self, index: int) -> Iterator[None]:
        """Whoever hangs in here hangs on that device, or on the DRIVER."""
        with self._lock:
            self._go_on()
            self._asking = index
        try:
            yield
        finally:
            with self._lock:
                self._asking = None
                if self._superseded.is_set():
                    self._stuck.come_back(index)
                else:
                    self._stuck.answer(index)

    def _go_on(self) -> None:
        if self._superseded.is_set():
            raise SupersededError("nvml: another sensor has gone on")

    def _reading(self) -> GpuReading:
        gpus: list[GpuSample] = []
        pcie: dict[int, PcieCounters] = {}
        uncounted: list[Device] = []
        for device in self._devices.values():
            sample, counters = self._sample(device)
            gpus.append(sample)
            if counters is not None:
                pcie[device.index] = counters
            elif device.handle is not None:
                uncounted.append(device)
        throughput = self._throughput(uncounted)
        if throughput:
            gpus = [gpu.model_copy(update=throughput.get(gpu.index, {})) for gpu in gpus]
        return GpuReading(gpus=tuple(gpus), pcie=pcie)

    def _sample(self, device: Device) -> tuple[GpuSample, PcieCounters | None]:
        if device.index in self._stuck:
            return device.bare(hung=True), None
        if device.pci is not None and device.pci.suspended():
            return device.bare(suspended=True), None
        if device.handle is None and device.fault is None:
            # It has slept until now.
            self._attach(device)
        if device.handle is not None:
            try:
                with self._at(device.index):
                    values, counters = self._values(device)
            except NvmlFaultError as fault:
                self._lose(device, fault)
            else:
                known = device.identity | device.constant | device.seldom | values
                return GpuSample(index=device.index, xid_errors=device.take_xids(), **known), counters
        return device.bare(lost=True, fault=device.fault, xid_errors=device.take_xids()), None

    def _values(self, device: Device) -> tuple[dict[str, Any], PcieCounters | None]:
        values = self._answers(device, ask.EACH_TIME)
        numbers = self._numbers(device, ask.FIELDS_EACH_TIME)
        values["memory_temperature_celsius"] = ask.celsius(numbers.get(ask.MEMORY_TEMPERATURE))
        if self._clock() >= device.seldom_due_s:
            device.seldom_due_s = self._clock() + _SELDOM_S
            memory = ask.reliability(self._numbers(device, ask.FIELDS_SELDOM))
            device.seldom = self._answers(device, ask.SELDOM) | memory
        if device.seldom.get("mig_enabled"):
            values |= dict.fromkeys(ask.UNKNOWN_UNDER_MIG)
        received, sent = numbers.get(ask.PCIE_RECEIVE), numbers.get(ask.PCIE_TRANSMIT)
        return values, None if received is None or sent is None else PcieCounters(received, sent)

    def _throughput(self, devices: Sequence[Device]) -> dict[int, dict[str, float | None]]:
        """PCIe rates where there are no counters, by index; of some devices, if there are many."""
        began_s = self._clock()
        rates: dict[int, dict[str, float | None]] = {}
        for _ in devices:
            if self._clock() - began_s > _THROUGHPUT_BUDGET_S:
                break
            self._turn += 1
            device = devices[self._turn % len(devices)]
            with suppress(NvmlFaultError), self._at(device.index):
                rates[device.index] = self._answers(device, ask.THROUGHPUT)
        return rates

    def _answers(self, device: Device, questions: Iterable[ask.Question]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        unknown: NvmlFaultError | None = None
        for question in questions:
            asked = (question.function, question.constants)
            if asked in device.never:
                continue
            # One that came back late has nothing more to ask.
            self._go_on()
            try:
                answer = self._call(
                    question.function, device.handle, *map(self._constant, question.constants)
                )
            except NvmlFaultError as fault:
                if fault.word in _DRIVER_FAULTS or fault.word in _DEVICE_FAULTS:
                    raise
                if fault.word in _NEVER:
                    device.never.add(asked)
                if fault.word == _UNKNOWN:
                    unknown = fault
            else:
                values.update(question.fields(answer))
        try:
            if unknown is not None and not values:
                raise unknown
        finally:
            # As in `_call`.
            del unknown
        return values

    def _numbers(self, device: Device, fields: tuple[int, ...]) -> dict[int, int]:
        # In pairs with a scope: of bare numbers the binding raises and catches an error each.
        answer = self._ask("nvmlDeviceGetFieldValues", device.handle, [(number, 0) for number in fields])
        return {} if answer is None else ask.field_numbers(fields, answer)

    def _constant(self, name: str) -> int:
        number: int = getattr(self._nvml, name)
        return number

    def _collect_xids(self) -> None:
        """Give each device the errors that its driver has reported since the last time."""
        if self._events is None or self._all_asleep():
            return
        devices = {_address(device.handle): device for device in self._devices.values() if device.handle}
        for _ in range(_XIDS_AT_ONCE):
            try:
                event = self._call("nvmlEventSetWait", self._events, 0)
            except NvmlFaultError as fault:
                if fault.word in _DRIVER_FAULTS:
                    raise
                # Usually a timeout: there is none, or no other.
                return
            device = devices.get(_address(event.device))
            if device is not None and device.xids is not None:
                device.xids.append(event.eventData)

    def _ask(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - pynvml is untyped
        """The answer to a call; None if this device, this user or this driver has none."""
        try:
            return self._call(function, *arguments)
        except NvmlFaultError as fault:
            if fault.word in _DRIVER_FAULTS or fault.word in _DEVICE_FAULTS:
                raise
            return None

    def _call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - pynvml is untyped
        """Every call of the library passes here.

        Raises:
            NvmlFaultError: it was refused.
        """
        nvml: Any = self._nvml
        try:
            answer = getattr(nvml, function)(*arguments)
        except nvml.NVMLError as error:
            fault = NvmlFaultError(function, _word_of(error), error.value)
        except nvml.NVMLLibraryMismatchError:
            fault = NvmlFaultError(function, "FunctionNotFound", nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        else:
            if self._trace is not None:
                self._trace(function, arguments, answer)
            return answer
        if self._trace is not None:
            self._trace(function, arguments, fault)
        try:
            raise fault from None
        finally:
            # Its traceback holds this frame, and that all of the tick: what refers to itself waits for the
            # collector, and some call is refused in every tick.
            del fault


def _load() -> ModuleType:
    # The module takes 2 MB and 24 ms; a host without the library is spared both.
    try:
        probe = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise SensorAbsentError(f"nvml: {error}") from None
    import pynvml  # noqa: PLC0415 - see above

    _ctypes.dlclose(probe._handle)  # noqa: SLF001 - ctypes has no other way to let go of a library
    module: ModuleType = pynvml
    return module


def _unload(nvml: Any) -> None:  # noqa: ANN401 - pynvml is untyped
    """Let go of the library, so that the next initialisation loads what then lies on the disk."""
    library, nvml.nvmlLib = nvml.nvmlLib, None
    nvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 - the functions are those of the old library
    if library is not None:
        _ctypes.dlclose(library._handle)  # noqa: SLF001 - as in _load


def _address(handle: Any) -> int | None:  # noqa: ANN401 - likewise
    return ctypes.cast(handle, ctypes.c_void_p).value


def _as_in_sysfs(bus_id: str) -> str:
    # The library spells the domain with eight digits, the kernel with four.
    return bus_id[4:].lower() if len(bus_id) > len("0000:00:00.0") else bus_id.lower()


def _word_of(error: Exception) -> str:
    """The library's name for an error; a code that pynvml does not know keeps its number."""
    word = type(error).__name__.removeprefix("NVMLError_")
    return word if word != "NVMLError" else f"Error{error.args[0]}"
