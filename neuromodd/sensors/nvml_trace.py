"""NVML's answers as text: a scenario for the library that stands in for it in tests (nvml_stub.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

from neuromodd.sensors.nvml_questions import field_numbers

_DRIVER = "-"
_HANDLE_BY = "nvmlDeviceGetHandleBy"
_MEMBERS = ("gpu", "memory", "total", "used", "busId")
_WITHOUT_ANSWER = frozenset({"nvmlShutdown", "nvmlEventSetFree", "nvmlEventSetWait"})
_NOT_SUPPORTED = 3


class NvmlTrace:
    """Takes the calls of a sensor, and tells them as lines; of equal questions the last answer counts."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], str] = {}
        self._places: list[object] = []
        self._devices: dict[int | None, str] = {}

    def __call__(self, function: str, arguments: tuple[object, ...], answer: object) -> None:
        """Take one call; `answer` is what came, or the error with its `code`."""
        if function.startswith(_HANDLE_BY):
            self._note_handle(arguments[0], answer)
            return
        if function in _WITHOUT_ANSWER:
            return
        device, rest = self._device_of(arguments)
        for question, told in _told(function, rest, answer):
            self._lines[device, question] = told

    @property
    def text(self) -> str:
        """A line an answer, the driver's first."""
        # A call that hung may come back meanwhile, and adds to them on its own thread.
        lines = list(self._lines.items())
        return "".join(f"{device} {question} {told}\n" for (device, question), told in lines)

    def _note_handle(self, place: object, answer: object) -> None:
        if place not in self._places:
            self._places.append(place)
        device = str(self._places.index(place))
        self._lines[device, "nvmlDeviceGetHandle"] = _plain(answer)
        if isinstance(place, str):
            self._lines[device, "nvmlDeviceGetPciInfo.busId"] = f"0000{place}"
        if not hasattr(answer, "code"):
            self._devices[_address(answer)] = device

    def _device_of(self, arguments: Sequence[object]) -> tuple[str, Sequence[object]]:
        device = self._devices.get(_address(arguments[0])) if arguments else None
        return (_DRIVER, arguments) if device is None else (device, arguments[1:])


def _told(function: str, arguments: Sequence[object], answer: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Questions and answers of one call, as lines have them."""
    numbers = [argument for argument in arguments if isinstance(argument, int)]
    question = (
        "/".join([function, *map(str, numbers)]) if function != "nvmlDeviceRegisterEvents" else function
    )
    if hasattr(answer, "code"):
        yield question, _plain(answer)
    elif isinstance(answer, ctypes.Array):
        yield function, "0"
        fields = [value.fieldId for value in answer]
        known = field_numbers(fields, answer)
        for field, value in zip(fields, answer, strict=True):
            told = known.get(field)
            code = value.nvmlReturn or _NOT_SUPPORTED
            yield f"{function}/{field}", f"!{code}" if told is None else str(told)
    elif isinstance(answer, ctypes.Structure):
        for name in _MEMBERS:
            if hasattr(answer, name):
                yield f"{function}.{name}", str(getattr(answer, name))
    elif isinstance(answer, list) and all(isinstance(part, int) for part in answer) and answer:
        for index, part in enumerate(answer):
            yield f"{function}.{index}", str(part)
    elif isinstance(answer, list):
        yield question, str(len(answer))
    else:
        yield question, _plain(answer)


def _plain(answer: Any) -> str:  # noqa: ANN401 - of an untyped library
    if hasattr(answer, "code"):
        return f"!{answer.code}"
    # What is only done, or gives a handle, is answered with success.
    return str(answer) if isinstance(answer, (int, str)) else "0"


def _address(handle: Any) -> int | None:  # noqa: ANN401 - likewise
    return ctypes.cast(handle, ctypes.c_void_p).value if isinstance(handle, ctypes._Pointer) else None  # noqa: SLF001
