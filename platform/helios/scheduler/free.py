"""What is free: node totals less what running gangs, and those admitted in this cycle, hold."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from helios.scheduler.decisions import NodeReject
from helios.scheduler.snapshot import CellState, Node, Request, Snapshot

BOUNDLESS = 1_000_000


@dataclass(slots=True)
class FreeNode:
    """One node's free resources in one scheduling cycle; `take` lowers them."""

    node: Node
    millicpus: int
    memory: int
    accelerators: dict[str, int]

    @classmethod
    def empty(cls, node: Node) -> "FreeNode":
        return cls(node, node.millicpus, node.memory, dict(node.accelerators))

    def take(self, request: Request, workers: int = 1) -> None:
        self.millicpus -= request.millicpus * workers
        self.memory -= request.memory * workers
        if request.accelerators:
            held = self.accelerators.get(request.accelerator, 0)
            self.accelerators[request.accelerator] = held - request.accelerators * workers

    def reject(self, request: Request) -> NodeReject | None:
        """Why not even one worker fits, or None where one does."""
        if not self.node.healthy:
            return NodeReject.UNHEALTHY
        if self.node.cordoned:
            return NodeReject.CORDONED
        if request.accelerators and not self.node.accelerators.get(request.accelerator):
            return NodeReject.NO_ACCELERATOR
        if request.accelerators and self.accelerators[request.accelerator] < request.accelerators:
            return NodeReject.ACCELERATORS
        if self.millicpus < request.millicpus:
            return NodeReject.CPUS
        return NodeReject.MEMORY if self.memory < request.memory else None

    def capacity(self, request: Request) -> int:
        """How many workers fit; `BOUNDLESS` where the request is of nothing."""
        if request.accelerators and self.accelerators.get(request.accelerator, 0) < request.accelerators:
            return 0  # what most nodes of a full fleet answer
        if self.reject(request) is not None:
            return 0
        limits = [BOUNDLESS]
        if request.millicpus:
            limits.append(self.millicpus // request.millicpus)
        if request.memory:
            limits.append(self.memory // request.memory)
        if request.accelerators:
            limits.append(self.accelerators[request.accelerator] // request.accelerators)
        return min(limits)


@dataclass(frozen=True, slots=True)
class Look:
    """What a cell can take of one request now.

    Attributes:
        capacities: workers that fit on each node.
        rejected: nodes that cannot take even one, counted by why.
    """

    capacities: Mapping[str, int]
    rejected: Mapping[NodeReject, int]


class Free:
    """The free resources of a fleet during one scheduling cycle."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._cells = {cell.name: {node.name: FreeNode.empty(node) for node in cell.nodes} for cell in snapshot.cells}
        self._held: Counter[tuple[str, str]] = Counter()
        self._looks: defaultdict[str, dict[Request, Look]] = defaultdict(dict)
        for gang in snapshot.running:
            self.take(gang.tenant, gang.cell, gang.nodes, gang.request)

    def take(self, tenant: str, cell: str, nodes: Iterable[str], request: Request) -> None:
        """Hold one worker on each of `nodes`. A node that the cell no longer shows still counts against the quota."""
        free = self._cells.get(cell, {})
        self._looks.pop(cell, None)
        for name in nodes:
            if name in free:
                free[name].take(request)
            if request.accelerators:
                self._held[tenant, request.accelerator] += request.accelerators

    def look(self, cell: str, request: Request) -> Look:
        """What the cell can take of a request; found once for all gangs that ask for it, until one is placed."""
        known = self._looks[cell]
        if request not in known:
            nodes = self._cells[cell]
            capacities = {name: node.capacity(request) for name, node in nodes.items()}
            rejects = (node.reject(request) for name, node in nodes.items() if not capacities[name])
            rejected = Counter(reject for reject in rejects if reject is not None)
            known[request] = Look(capacities, dict(sorted(rejected.items())))
        return known[request]

    def held(self, tenant: str, accelerator: str) -> int:
        """Devices of a type that the tenant holds over all cells."""
        return self._held[tenant, accelerator]


def room(cell: CellState, request: Request, *, opened: bool = False) -> int:
    """Workers that the cell could hold, were nothing running; with `opened` also were no node cordoned or unhealthy."""
    workers = 0
    for node, count in cell.sorts:
        example = replace(node, healthy=True, cordoned=False) if opened else node
        workers += FreeNode.empty(example).capacity(request) * count
    return workers
