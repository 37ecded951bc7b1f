"""The simulator's own books of who holds what, node by node: no policy's word is taken for it that something fits."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from helios.scheduler import CellState, Node, Readiness, Request
from helios.simulator.life import Life

WHOLE = 1000
"""Thousandths of a device."""


class Place:
    """A node: what is left of it, who is on it, and what befell it.

    Attributes:
        domains: its fabric, block and rack, each as a key that is unique in the cell.
        gangs: workers on it by gang.
        free: whole devices that nobody holds any part of, by type.
        shared: thousandths in use by (type, device), of devices that are shared.
        dead: it died; `known` is set as well once that was noticed.
        noticed: the provider will take it soon.
        absent: the provider has it.
        turns: how often it died, and how often it was taken.
    """

    __slots__ = (
        "absent",
        "cell",
        "dead",
        "domains",
        "free",
        "gangs",
        "known",
        "memory",
        "millicpus",
        "node",
        "noticed",
        "shared",
        "turns",
    )

    def __init__(self, cell: str, node: Node) -> None:
        self.cell = cell
        self.node = node
        self.millicpus = node.millicpus
        self.memory = node.memory
        self.free = dict(node.accelerators)
        self.shared: dict[tuple[str, int], int] = {}
        self.gangs: Counter[Life] = Counter()
        top = node.topology
        self.domains = ((top.fabric,), (top.fabric, top.block), (top.fabric, top.block, top.rack))
        self.dead = self.known = self.noticed = self.absent = False
        self.turns = Counter[str]()

    @property
    def up(self) -> bool:
        """Whether work could go on here, whatever anybody knows."""
        return self.node.healthy and not self.dead and not self.absent

    @property
    def shown(self) -> Node:
        """The node as the scheduler sees it."""
        return replace(
            self.node,
            healthy=self.node.healthy and not self.known and not self.absent,
            cordoned=self.node.cordoned or self.noticed,
        )

    def closed(self, *, recovering: bool) -> str:
        """Why nothing new may be placed here by one who knows what the scheduler knows; empty where it may."""
        if not self.node.healthy or self.known or self.absent:
            return "unhealthy"
        if self.node.cordoned or self.noticed:
            return "cordoned"
        return "spare" if self.node.spare and not recovering else ""

    def take(self, request: Request, device: int | None) -> bool:
        """Hold one worker here; False, and nothing held, where it does not fit."""
        kind = request.accelerator
        if self.millicpus < request.millicpus or self.memory < request.memory:
            return False
        if request.accelerators:
            if self.free.get(kind, 0) < request.accelerators:
                return False
            self.free[kind] -= request.accelerators
        elif request.share and not self._take_share(kind, request.share, device):
            return False
        self.millicpus -= request.millicpus
        self.memory -= request.memory
        return True

    def give(self, request: Request, device: int | None) -> None:
        """Give one worker's resources back."""
        self.millicpus += request.millicpus
        self.memory += request.memory
        if request.accelerators:
            self.free[request.accelerator] += request.accelerators
        elif request.share and device is not None:
            self.shared[request.accelerator, device] -= request.share
            if not self.shared[request.accelerator, device]:
                del self.shared[request.accelerator, device]
                self.free[request.accelerator] += 1

    def fits(self, request: Request) -> bool:
        """Whether one worker fits now."""
        if self.millicpus < request.millicpus or self.memory < request.memory:
            return False
        if request.accelerators:
            return self.free.get(request.accelerator, 0) >= request.accelerators
        if not request.share:
            return True
        used = [value for (kind, _), value in self.shared.items() if kind == request.accelerator]
        return self.free.get(request.accelerator, 0) > 0 or any(value + request.share <= WHOLE for value in used)

    def _take_share(self, kind: str, share: int, device: int | None) -> bool:
        if device is None or not 0 <= device < self.node.accelerators.get(kind, 0):
            return False
        used = self.shared.get((kind, device), 0)
        if used + share > WHOLE or (not used and not self.free[kind]):
            return False
        if not used:
            self.free[kind] -= 1
        self.shared[kind, device] = used + share
        return True


class Ground:
    """All nodes of all cells.

    Attributes:
        cells: as they were given; nodes in them as they were before the run.
        allocated: devices held, by cell.
        changed: cells with nodes that look different since the last call of `fresh`.
    """

    def __init__(self, cells: Iterable[CellState]) -> None:
        self.cells = {cell.name: cell for cell in cells}
        self._places = {
            cell.name: {node.name: Place(cell.name, node) for node in cell.nodes} for cell in self.cells.values()
        }
        self.allocated: dict[str, float] = dict.fromkeys(self.cells, 0.0)
        self.changed: dict[str, None] = {}

    def __iter__(self) -> Iterator[Place]:
        return (place for places in self._places.values() for place in places.values())

    def of(self, cell: str) -> Mapping[str, Place]:
        """The nodes of one cell, by name."""
        return self._places[cell]

    def healthy(self, cell: str) -> float:
        """Devices of that cell that could be used."""
        usable = (place for place in self._places[cell].values() if place.up and not place.node.cordoned)
        return float(sum(sum(place.node.accelerators.values()) for place in usable))

    def fresh(self) -> list[CellState]:
        """The cells whose nodes look different now, as the scheduler is to see them."""
        names, self.changed = list(self.changed), {}
        return [
            replace(self.cells[name], nodes=tuple(place.shown for place in self._places[name].values()))
            for name in names
        ]

    def hold(
        self,
        gang: Life,
        cell: str,
        nodes: Sequence[str],
        request: Request,
        devices: Sequence[int] = (),
        *,
        recovering: bool = False,
        checked: bool = True,
    ) -> None:
        """Hold a worker of the gang on each of the nodes.

        Raises:
            AssertionError: where a node does not exist, is closed to it (unless not `checked`), or has no room: the
                policy that placed it is broken.
        """
        places = self._places.get(cell)
        state = self.cells.get(cell)
        if places is None or state is None or (checked and state.readiness is not Readiness.READY):
            raise AssertionError(f"{gang} was placed on cell {cell}, which takes no work")
        if request.share and len(devices) != len(nodes):
            raise AssertionError(f"{gang} was given {len(devices)} devices for {len(nodes)} workers that share")
        for index, name in enumerate(nodes):
            place = places.get(name)
            why = "not there" if place is None else place.closed(recovering=recovering) if checked else ""
            if place is None or why:
                raise AssertionError(f"{gang} was placed on node {name} of cell {cell}, which is {why}")
            if not place.take(request, devices[index] if devices else None):
                raise AssertionError(f"{gang} was placed on node {name} of cell {cell}, where a worker does not fit")
            place.gangs[gang] += 1
        self.allocated[cell] += request.devices * len(nodes)

    def free(self, gang: Life, cell: str, nodes: Sequence[str], request: Request, devices: Sequence[int] = ()) -> None:
        """Give back what `hold` held."""
        places = self._places[cell]
        for index, name in enumerate(nodes):
            place = places[name]
            place.give(request, devices[index] if devices else None)
            place.gangs[gang] -= 1
            if not place.gangs[gang]:
                del place.gangs[gang]
        self.allocated[cell] -= request.devices * len(nodes)

    def spanned(self, cell: str, nodes: Iterable[str]) -> tuple[int, int]:
        """How many kinds of domain (rack, block, fabric) they are in more than one of, and in how many racks."""
        places = self._places[cell]
        kinds = zip(*(places[name].domains for name in set(nodes)), strict=True)
        counts = [len(set(keys)) for keys in kinds]
        return sum(count > 1 for count in counts), counts[-1]
