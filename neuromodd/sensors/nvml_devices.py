"""What is remembered of a GPU from one reading to the next, and when a lost one is tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from neuromodd.core.frame import GpuSample
from neuromodd.sensors.pci import PciGpu

DRIVER = -1
"""Stands for the driver itself among the indices of devices."""

_FIRST_BACKOFF_S = 5.0
_LONGEST_BACKOFF_S = 60.0


class Backoff:
    """When to try again: after 5 s, doubling to 60 s."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wait_s = _FIRST_BACKOFF_S
        self._until_s: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether it is too early."""
        return self._until_s is not None and self._clock() < self._until_s

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return self._until_s is not None and self._clock() >= self._until_s

    def begin(self) -> None:
        """Wait, twice as long as the last time."""
        self._until_s = self._clock() + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LONGEST_BACKOFF_S)

    def end(self) -> None:
        """Have nothing to wait for."""
        self._wait_s, self._until_s = _FIRST_BACKOFF_S, None


class Stuck:
    """Devices (and the driver) whose calls have not come back, or came back late a short while ago.

    Shared by a sensor and those that come after it, on several threads.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hung: set[int] = set()
        self._late: dict[int, Backoff] = {}

    def __contains__(self, index: int) -> bool:
        """Whether the device is better not asked."""
        late = self._late.get(index)
        return index in self._hung or (late is not None and late.waiting)

    @property
    def any_hung(self) -> bool:
        """Whether a thread is inside the library."""
        return bool(self._hung)

    def hang(self, index: int) -> None:
        """A call for it has missed the deadline."""
        self._hung.add(index)
        self._late.setdefault(index, Backoff(self._clock))

    def come_back(self, index: int) -> None:
        """That call has returned; what is slow is left alone for longer and longer."""
        self._hung.discard(index)
        self._late[index].begin()

    def answer(self, index: int) -> None:
        """It has answered in time."""
        self._late.pop(index, None)


@dataclass(slots=True)
class Device:
    """One GPU.

    Attributes:
        index: its number in the frames.
        pci: its place on the bus; None where sysfs does not tell, then it is known by the library's index.
        handle: of the library; None while there is none.
        fault: the library's word for why the device is lost.
        identity: uuid, name and the like, kept for as long as the device is known.
        seldom: values that are asked every 10 s, and when they are due.
        never: what the device does not answer.
        xids: errors since the last reading; None without events.
        seen: the driver has known it.
        inforom_asked: whether the board's memory was checked.
    """

    index: int
    pci: PciGpu | None = None
    handle: Any = None
    fault: str | None = None
    identity: dict[str, Any] = field(default_factory=lambda: {"vendor": "nvidia"})
    constant: dict[str, Any] = field(default_factory=dict)
    seldom: dict[str, Any] = field(default_factory=dict)
    seldom_due_s: float = 0.0
    never: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)
    xids: list[int] | None = None
    seen: bool = False
    inforom_asked: bool = False

    def take_xids(self) -> tuple[int, ...] | None:
        """The errors since the last time."""
        if self.xids is None:
            return None
        taken, self.xids = tuple(self.xids), []
        return taken

    def bare(self, **state: object) -> GpuSample:
        """Its identity and what keeps it from having values."""
        known = {name: self.identity.get(name) for name in ("vendor", "uuid", "name", "pci_bus_id")}
        return GpuSample(index=self.index, **known, **state)
