"""The nodes of a simulated cell: what they are, what lives on them, and when they are away."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from helios.adapters.simulated.course import NEVER, Draw, Request
from helios.ports import HealthAction, HealthFinding, NodeObservation
from helios.spec import CapacityType, CellSpec, Faults, NodePool

DAY_S = 86_400.0
GPU_NODE = (96, 2**40)
CPU_NODE = (64, 256 * 2**30)
"""Cores, and bytes of memory."""
RACK, BLOCK, FABRIC = 8, 32, 256
"""How many neighbouring nodes of a pool share each."""
WHOLE = 1000
"""Thousandths of a device."""
DEATH, PREEMPTION, DRILL = "death", "preemption", "drill"


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    pool: str
    preemptible: bool
    millicpus: int
    memory: int
    accelerators: Mapping[str, int]
    labels: Mapping[str, str]

    def observation(self, away: Iterable["Incident"], now: float) -> NodeObservation:
        lost = any(incident.lost_at <= now for incident in away)
        findings = tuple(incident.finding() for incident in away if incident.lost_at > now)
        return NodeObservation(
            name=self.name,
            pool=self.pool,
            cpus=self.millicpus / 1000,
            memory=self.memory,
            accelerators=self.accelerators,
            healthy=not lost and not findings,
            lost=lost,
            labels=self.labels,
            findings=findings,
        )


@dataclass(frozen=True, slots=True, order=True)
class Incident:
    """One absence of one node; times are on the cell's clock.

    Attributes:
        cause: `death`, `preemption` or `drill`.
        number: counts the absences of this node for this cause, from 0.
        noticed_at: when it is announced; `lost_at` where it comes without notice.
        back_at: `NEVER` until somebody revives it.
    """

    node: str
    cause: str
    number: int
    noticed_at: float
    lost_at: float
    back_at: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.node, self.cause, self.number

    def finding(self) -> HealthFinding:
        message = f"{self.node} will be taken back by its provider within {self.lost_at - self.noticed_at:g} s"
        return HealthFinding("PreemptionNotice", HealthAction.DRAIN, "warning", message)

    def moments(self) -> tuple[float, float, float]:
        return self.noticed_at, self.lost_at, self.back_at


def build_nodes(cell: str, spec: CellSpec) -> dict[str, Node]:
    """Every node that the spec allows, by name: `<cell>-<pool>-<i>`; topology follows from the position."""
    nodes: dict[str, Node] = {}
    for pool in spec.node_pools:
        cores, memory = GPU_NODE if pool.accelerators else CPU_NODE
        devices = {pool.accelerators.type: pool.accelerators.count} if pool.accelerators else {}
        for index in range(pool.nodes.max):
            name = f"{cell}-{pool.name}-{index}"
            preemptible = pool.capacity_type is CapacityType.PREEMPTIBLE
            labels = {level: f"{pool.name}-{level[0]}{index // size}" for level, size in _domains(pool).items()}
            nodes[name] = Node(name, pool.name, preemptible, cores * 1000, memory, devices, labels)
    return nodes


def _domains(pool: NodePool) -> dict[str, int]:
    """How many neighbouring nodes share a rack, a block and a fabric."""
    if pool.topology is None:
        return {"rack": RACK, "block": BLOCK, "fabric": FABRIC}
    rack = pool.topology.nodes_per_rack
    block = rack * pool.topology.racks_per_block
    return {"rack": rack, "block": block, "fabric": block * pool.topology.blocks_per_fabric}


class Absences:
    """Which nodes are away or announced to go, and who goes next; deaths and preemptions follow from the seed.

    Args:
        known: the incidents that have begun, from the cell's own record.
        born_at: the cell's first moment.
    """

    def __init__(
        self, nodes: Mapping[str, Node], faults: Faults, draw: Draw, *, known: Iterable[Incident], born_at: float
    ) -> None:
        self._nodes = nodes
        self._faults = faults
        self._draw = draw
        self._active: dict[str, list[Incident]] = defaultdict(list)
        self._coming: list[tuple[float, Incident]] = []
        self._moments: list[tuple[float, tuple[str, str, int]]] = []
        self._drills: Counter[str] = Counter()
        last: dict[tuple[str, str], Incident] = {}
        for incident in known:
            last[incident.node, incident.cause] = incident
            if incident.cause == DRILL:
                self._drills[incident.node] = incident.number + 1
            if incident.node in nodes:
                self._begin(incident)
        for node in nodes.values():
            for cause in self._causes(node):
                before = last.get((node.name, cause))
                if before is None:
                    self._announce(node.name, cause, 0, born_at)
                else:
                    self._announce_next(before)

    def next_moment(self) -> float:
        """When something about a node changes next: a notice, a loss or a return."""
        self._prune()
        coming = self._coming[0][0] if self._coming else NEVER
        return min(coming, self._moments[0][0] if self._moments else NEVER)

    def due(self, moment: float) -> Iterator[Incident]:
        """Let begin what begins at this moment; yields each such incident, to be kept in the cell's record."""
        while self._coming and self._coming[0][0] <= moment:
            _, incident = heapq.heappop(self._coming)
            self._begin(incident)
            self._announce_next(incident)
            yield incident

    def lost_at(self, moment: float) -> list[Incident]:
        """The incidents whose node is lost at exactly this moment."""
        return [one for away in self._active.values() for one in away if one.lost_at == moment]

    def pass_moment(self, moment: float) -> None:
        """Everything up to this moment was dealt with; who is back is back."""
        while self._moments and self._moments[0][0] <= moment:
            _, (node, _, _) = heapq.heappop(self._moments)
            self._active[node] = [one for one in self._active[node] if one.back_at > moment]
            if not self._active[node]:
                del self._active[node]

    def drill(self, node: str, *, now: float, notice: float, back_at: float) -> Incident:
        """Take a node away by hand."""
        incident = Incident(node, DRILL, self._drills[node], now, now + notice, back_at)
        self._drills[node] += 1
        self._begin(incident)
        return incident

    def revive(self, node: str, now: float) -> list[Incident]:
        """Bring a node back by hand; returns what ended with it, to be kept. What comes next was drawn already."""
        return [replace(one, lost_at=min(one.lost_at, now), back_at=now) for one in self._active.pop(node, [])]

    def away(self, now: float) -> dict[str, list[Incident]]:
        """Incidents that have begun and are not over, by node."""
        return {node: [one for one in some if one.back_at > now] for node, some in self._active.items()}

    def is_lost(self, node: str, now: float) -> bool:
        return any(one.lost_at <= now < one.back_at for one in self._active.get(node, ()))

    def _begin(self, incident: Incident) -> None:
        self._active[incident.node].append(incident)
        for moment in incident.moments():
            if moment < NEVER:
                heapq.heappush(self._moments, (moment, incident.key))

    def _prune(self) -> None:
        """Forget moments of incidents that were ended by hand."""
        while self._moments and not self._is_active(self._moments[0][1]):
            heapq.heappop(self._moments)

    def _is_active(self, key: tuple[str, str, int]) -> bool:
        return any(one.key == key for one in self._active.get(key[0], ()))

    def _causes(self, node: Node) -> Iterator[str]:
        if self._faults.node_death:
            yield DEATH
        if self._faults.preemption and node.preemptible:
            yield PREEMPTION

    def _announce_next(self, before: Incident) -> None:
        """What follows was drawn with what comes before it, so a revival by hand does not move it."""
        planned = before.noticed_at + self._notice(before.cause) + self._faults.node_repair
        self._announce(before.node, before.cause, before.number + 1, planned)

    def _announce(self, node: str, cause: str, number: int, after: float) -> None:
        rate = self._faults.node_death if cause == DEATH else self._faults.preemption
        begins = after + self._draw.dice(cause, node, number).expovariate(rate / DAY_S)
        lost_at = begins + self._notice(cause)
        incident = Incident(node, cause, number, begins, lost_at, lost_at + self._faults.node_repair)
        heapq.heappush(self._coming, (begins, incident))

    def _notice(self, cause: str) -> float:
        return self._faults.preemption_notice if cause == PREEMPTION else 0.0


@dataclass(slots=True)
class Use:
    """What the gangs on one node hold of it."""

    millicpus: int = 0
    memory: int = 0
    accelerators: Counter[str] | None = None
    shared: Counter[tuple[str, int]] | None = None

    def add(self, request: Request, devices: Sequence[int], *, sign: int = 1) -> Self:
        """Take what workers with these devices hold or, with `sign=-1`, give it back."""
        workers = sign * len(devices)
        self.millicpus += workers * request.millicpus
        self.memory += workers * request.memory
        if request.accelerators:
            self.accelerators = self.accelerators if self.accelerators is not None else Counter()
            self.accelerators[request.accelerator] += workers * request.accelerators
        if request.share:
            self.shared = self.shared if self.shared is not None else Counter()
            for device in devices:
                self.shared[request.accelerator, device] += sign * request.share
        return self

    def exceeds(self, node: Node) -> str:
        """What there is too little of on the node, or empty."""
        if self.millicpus > node.millicpus:
            return f"{self.millicpus / 1000:g} of {node.millicpus / 1000:g} CPU cores"
        if self.memory > node.memory:
            return f"{self.memory} of {node.memory} bytes of memory"
        shared = +(self.shared or Counter())
        for (kind, device), thousandths in shared.items():
            if thousandths > WHOLE or not 0 <= device < node.accelerators.get(kind, 0):
                return f"{thousandths / WHOLE:g} of {kind} {device}"
        held = +(self.accelerators or Counter()) + Counter(kind for kind, _ in shared)
        for kind, count in held.items():
            if count > node.accelerators.get(kind, 0):
                return f"{count} of {node.accelerators.get(kind, 0)} {kind}"
        return ""
