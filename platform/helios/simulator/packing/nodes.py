"""Nodes as arrays, a row each, and what a request takes of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from helios.scheduler.fragmentation import WHOLE

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SORTS = 64
"""Sorts of requests that a node remembers: shares of a device at 0, `n` whole devices at `n`."""


@dataclass(frozen=True)
class Request:
    """What one pod asks for.

    Attributes:
        millicpus: thousandths of a CPU.
        memory_mib: host memory.
        devices: GPUs; 0 for a pod without.
        thousandths: of each of these; less than 1000 only where it is one device.
        models: GPU models that it may run on; empty for any.
    """

    millicpus: int
    memory_mib: int
    devices: int = 0
    thousandths: int = 0
    models: frozenset[str] = frozenset()

    @cached_property
    def shares(self) -> bool:
        """Whether it wants a part of one device only."""
        return self.devices == 1 and self.thousandths < WHOLE

    @cached_property
    def total(self) -> int:
        """Thousandths of a device in all."""
        return self.devices * self.thousandths


@dataclass(frozen=True, slots=True)
class Nodes:
    """State of nodes, `N` rows.

    Attributes:
        free: free thousandths of each device, `[N, D]`; 0 for a device that a node has not.
        devices: devices of each node, `[N]`.
        millicpus: free, `[N]`.
        memory_mib: free, `[N]`.
        model: place of its GPU model in `models`, `[N]`.
        sorts: which sorts of requests run there, `[N, SORTS]`.
        models: names of GPU models.
    """

    free: Ints
    devices: Ints
    millicpus: Ints
    memory_mib: Ints
    model: Ints
    sorts: Bools
    models: tuple[str, ...]

    @classmethod
    def empty(cls, devices: Ints, millicpus: Ints, memory_mib: Ints, model_names: list[str]) -> "Nodes":
        """Nodes with nothing on them."""
        models = tuple(sorted(set(model_names)))
        free = np.where(np.arange(max(devices, default=0)) < devices[:, None], WHOLE, 0)
        model = np.array([models.index(name) for name in model_names], np.int64)
        sorts = np.zeros((len(devices), SORTS), np.bool_)
        return cls(free, devices, millicpus.copy(), memory_mib.copy(), model, sorts, models)

    def rows(self, which: Ints | Bools) -> "Nodes":
        """A copy of some rows."""
        amounts = (column[which] for column in (self.free, self.devices, self.millicpus, self.memory_mib, self.model))
        free, devices, millicpus, memory_mib, model = amounts
        return Nodes(free, devices, millicpus, memory_mib, model, self.sorts[which], self.models)

    def copy(self) -> "Nodes":
        return self.rows(np.arange(len(self.devices)))

    @property
    def capacity(self) -> int:
        """Thousandths of devices, free or not."""
        return WHOLE * int(self.devices.sum())

    def fits(self, request: Request) -> Bools:
        """Which nodes can hold the request, `[N]`."""
        held = (self.millicpus >= request.millicpus) & (self.memory_mib >= request.memory_mib)
        if request.devices:
            held &= (self.free >= request.thousandths).sum(1) >= request.devices
        if request.models:
            held &= np.array([name in request.models for name in self.models])[self.model]
        return held

    def whole_devices(self, node: int, count: int) -> Ints:
        """The first `count` devices of a node that are wholly free."""
        return np.flatnonzero(self.free[node] == WHOLE)[:count]

    def take(self, node: int, devices: Ints, request: Request) -> None:
        """Place a request that fits on these devices of a node."""
        self.millicpus[node] -= request.millicpus
        self.memory_mib[node] -= request.memory_mib
        self.free[node, devices] -= request.thousandths
        if request.devices:
            self.sorts[node, sort_of(request)] = True

    def state(self, node: int) -> bytes:
        """Equal for nodes that no policy can tell apart."""
        columns = (self.millicpus, self.memory_mib, self.model, self.devices, self.free, self.sorts)
        return b"".join(column[node].tobytes() for column in columns)


def sort_of(request: Request) -> int:
    """Column of `Nodes.sorts` for a request that wants devices."""
    return 0 if request.shares else request.devices
