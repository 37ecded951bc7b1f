"""What does not change about a cell's nodes while its state stays the same, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from helios.scheduler.snapshot import CellState
from helios.spec import CapacityType

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
LEVELS = ("rack", "block", "fabric")
"""Topology domains, from the narrowest; the widest is the cell."""


@dataclass(frozen=True, slots=True)
class Access:
    """Which nodes a gang may use at all.

    Attributes:
        types: capacity types; empty means any.
        spares: whether spare nodes are open to it.
    """

    types: frozenset[CapacityType] = frozenset()
    spares: bool = False


ANY = Access()


class Layout:
    """What does not change about a cell's nodes while its state stays the same; row `i` of each array is a node.

    Attributes:
        counts: devices by type.
        rooms: workers that the empty cell holds, by want; filled by `book.room`.
        opened: the same, were no node closed.
    """

    def __init__(self, cell: CellState) -> None:
        nodes = cell.nodes
        self.names = tuple(node.name for node in nodes)
        self.rows = {name: row for row, name in enumerate(self.names)}
        self.millicpus = np.array([node.millicpus for node in nodes], dtype=np.int64)
        self.memory = np.array([node.memory for node in nodes], dtype=np.int64)
        kinds = sorted({kind for node in nodes for kind, count in node.accelerators.items() if count})
        self.totals = {
            kind: np.array([node.accelerators.get(kind, 0) for node in nodes], dtype=np.int64) for kind in kinds
        }
        self.counts = {kind: int(total.sum()) for kind, total in self.totals.items()}
        self.healthy = np.array([node.healthy for node in nodes], dtype=np.bool_)
        self.cordoned = np.array([node.cordoned for node in nodes], dtype=np.bool_)
        self.spare = np.array([node.spare for node in nodes], dtype=np.bool_)
        self._types = tuple(node.capacity_type for node in nodes)
        self._usable: dict[Access, Bools] = {}
        self.rooms: dict[object, int] = {}
        self.opened: dict[object, int] = {}
        # A rack is one of its block, and a block one of its fabric: equal names elsewhere are other domains.
        places = [(node.topology.fabric, node.topology.block, node.topology.rack) for node in nodes]
        self.domains = {level: _numbered([place[:depth] for place in places]) for level, depth in _DEPTHS.items()}

    def usable(self, access: Access) -> Bools:
        """Nodes that take new work of this kind."""
        if access not in self._usable:
            mask = self.healthy & ~self.cordoned
            if not access.spares:
                mask &= ~self.spare
            if access.types:
                mask &= self.allowed(access)
            self._usable[access] = mask
        return self._usable[access]

    def allowed(self, access: Access) -> Bools:
        """Nodes of a capacity type that may be used."""
        return np.array([not access.types or kind in access.types for kind in self._types], dtype=np.bool_)

    @cached_property
    def devices(self) -> Mapping[str, int]:
        """Devices on nodes that take work, by type."""
        usable = self.usable(Access(spares=True))
        return {kind: int(total[usable].sum()) for kind, total in self.totals.items()}

    def price(self, cell: CellState, row: int, accelerator: str) -> float:
        """USD a device and hour on that node."""
        return cell.prices.get((accelerator, self._types[row]), 0.0)

    def preemptible(self, row: int) -> bool:
        """Whether the provider may take the node away."""
        return self._types[row] is CapacityType.PREEMPTIBLE


_DEPTHS = {"rack": 3, "block": 2, "fabric": 1}


def _numbered(keys: Sequence[tuple[str, ...]]) -> Ints:
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def layout_of(cell: CellState) -> Layout:
    """The cell's arrays, made once for each state of it."""
    found = cell.__dict__.get("_layout")
    if found is None:
        found = cell.__dict__["_layout"] = Layout(cell)
    assert isinstance(found, Layout)
    return found
