"""Who is next: by class; of a class the long-waiting by age, then by need, fair share and age in one figure.

A gang that has waited for longer than its class's patience is *urgent*: urgent gangs are served strictly by age, ahead
of everything of their class and of the classes below, and keep a reservation that nothing admitted later delays. That
bounds starvation: with estimates that hold, a gang that fits its quota starts within its patience and the run times
of the gangs that were urgent before it.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from helios.scheduler.lines import Line, Queued, Shape
from helios.scheduler.policy import Policy
from helios.scheduler.quota import Quotas
from helios.scheduler.snapshot import PendingGang, Snapshot
from helios.spec import QoS

QOS_ORDER = {QoS.GUARANTEED: 0, QoS.STANDARD: 1, QoS.PREEMPTIBLE: 2}
_LEAST_SHARE = 1e-3
"""Of the fleet, taken for a tenant that had nothing yet, so that figures stay finite."""


@dataclass(frozen=True, slots=True)
class Head:
    """The gang that is next."""

    gang: PendingGang
    shape: Shape
    urgent: bool


Left = tuple[Line, ...]
"""Who waits on, line by line: ten thousand gangs are in no tuple of their own in each cycle."""
_Rank = tuple[float, float, float, float, float, str]
"""The lowest is served first: class, urgent or not, priority, merit, age, uid."""


class _Standing:
    """The lines of one shape, and what the ranks of all its gangs have in common."""

    __slots__ = ("accelerator", "heap", "lines", "need", "patience", "qos", "served", "shape", "shares")

    def __init__(
        self, shape: Shape, lines: Mapping[tuple[str, int], Line], policy: Policy, shares: dict[str, float]
    ) -> None:
        self.shape, self.lines = shape, lines
        self.accelerator = shape.request.accelerator
        self.qos, self.patience = QOS_ORDER[shape.qos], policy.patience.get(shape.qos, math.inf)
        self.need = _need(shape, policy)
        self.shares = shares
        """Of tenants, of the fleet's devices of that type, to their power."""
        self.heap: list[tuple[_Rank, tuple[str, int]]] = []
        self.served: dict[tuple[str, int], int] = {}

    def head(self, holder: tuple[str, int]) -> PendingGang:
        return self.lines[holder][self.served.get(holder, 0)]

    def left(self, holder: tuple[str, int]) -> Line:
        line = self.lines[holder]
        return line[self.served[holder] :] if holder in self.served else line


class Queue:
    """The lines of a snapshot, served one gang at a time. What has no place is closed, for a shape as a whole."""

    def __init__(self, lines: Queued, snapshot: Snapshot, policy: Policy, quotas: Quotas) -> None:
        self._now, self._policy, self._quotas = snapshot.now, policy, quotas
        self._fleet = _devices(snapshot)
        self._decay = math.log(2) / policy.half_life
        self._moved: set[tuple[str, str]] = set()
        shares: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._standings = {
            shape: _Standing(shape, holders, policy, shares[shape.request.accelerator])
            for shape, holders in lines.items()
        }
        self.next_urgent = math.inf
        """When the first of those that wait becomes urgent."""
        self._heap: list[tuple[_Rank, int, _Standing]] = []
        for standing in self._standings.values():
            heap = standing.heap = [(self._rank(standing, line[0]), holder) for holder, line in standing.lines.items()]
            heapq.heapify(heap)
            self._heap.append((heap[0][0], id(standing), standing))
        heapq.heapify(self._heap)

    def next(self) -> Head | None:
        """The gang whose turn it is, or None where nobody is left. It stays the head until it is served or closed."""
        while self._heap:
            standing = self._heap[0][2]
            rank, holder = standing.heap[0]
            gang = standing.head(holder)
            if (holder[0], standing.accelerator) in self._moved:  # its tenant was given something meanwhile
                now = self._rank(standing, gang)
                if now > rank:
                    heapq.heapreplace(standing.heap, (now, holder))
                    self._settle(standing)
                    continue
            return Head(gang, standing.shape, rank[1] == 0.0)
        return None

    def served(self, head: Head) -> None:
        """It has its place: the next in its line moves up."""
        standing, holder = self._standings[head.shape], (head.gang.tenant, head.gang.priority)
        standing.shares.pop(head.gang.tenant, None)
        self._moved.add((head.gang.tenant, standing.accelerator))
        served = standing.served[holder] = standing.served.get(holder, 0) + 1
        if served < len(standing.lines[holder]):
            heapq.heapreplace(standing.heap, (self._rank(standing, standing.head(holder)), holder))
        else:
            heapq.heappop(standing.heap)
        self._settle(standing)

    def close_line(self, head: Head) -> Left:
        """Nobody of that tenant, priority and shape is served in this cycle any more; who is left."""
        standing, holder = self._standings[head.shape], (head.gang.tenant, head.gang.priority)
        heapq.heappop(standing.heap)
        self._settle(standing)
        return (standing.left(holder),)

    def close_shape(self, head: Head) -> Left:
        """Nobody of that shape is served in this cycle any more; who is left, line by line, the first line first."""
        heapq.heappop(self._heap)
        standing = self._standings[head.shape]
        standing.heap.sort()
        return tuple(standing.left(holder) for _, holder in standing.heap)

    def _settle(self, standing: _Standing) -> None:
        """The shape at the top has another head."""
        if standing.heap:
            heapq.heapreplace(self._heap, (standing.heap[0][0], id(standing), standing))
        else:
            heapq.heappop(self._heap)

    def rank(self, shape: Shape, gang: PendingGang) -> _Rank:
        """Its place in the order, as things stand."""
        return self._rank(self._standings[shape], gang)

    def _rank(self, standing: _Standing, gang: PendingGang) -> _Rank:
        since = gang.submitted_at
        urgent_at = since + standing.patience
        if urgent_at <= self._now:
            # Ahead of the class that is next, and of all that is not urgent; only guaranteed work goes before.
            return (min(standing.qos, QOS_ORDER[QoS.STANDARD]), 0.0, 0.0, 0.0, since, gang.uid)
        self.next_urgent = min(self.next_urgent, urgent_at)
        share = standing.shares.get(gang.tenant)
        if share is None:
            share = standing.shares[gang.tenant] = self._share(gang.tenant, standing.accelerator)
        # Response ratio over what the tenant has had, each to its power.
        waited = self._now - since + self._policy.head_start
        return (standing.qos, 1.0, -gang.priority, -(waited / (standing.need * share)), since, gang.uid)

    def _share(self, name: str, accelerator: str) -> float:
        """What the tenant holds and has lately held, as a part of the fleet, over its weight, to its power."""
        tenant = self._quotas.tenant(name)
        devices = 0.5 * (self._quotas.held(name, accelerator) + tenant.usage * self._decay)
        part = max(devices / max(1.0, self._fleet.get(accelerator, 0.0)), _LEAST_SHARE) / tenant.weight
        return float(part**self._policy.fair_share)


def _need(shape: Shape, policy: Policy) -> float:
    """What a gang is expected to take, to its power."""
    # Of equals of which nothing is known, the older goes first, whatever its size.
    need = policy.unknown_estimate
    if shape.estimate is not None:
        need = min(shape.estimate, need) * max(1.0, shape.devices) ** policy.size_weight
    return float(need**policy.short_first)


def ordered(snapshot: Snapshot, policy: Policy, quotas: Quotas, lines: Queued) -> Iterator[PendingGang]:
    """All that wait, in the order in which they would be served if nobody were given anything."""
    queue = Queue(lines, snapshot, policy, quotas)
    ranks = [
        (queue.rank(shape, gang), gang)
        for shape, holders in lines.items()
        for line in holders.values()
        for gang in line
    ]
    yield from (gang for _, gang in sorted(ranks, key=lambda one: one[0]))


def _devices(snapshot: Snapshot) -> Mapping[str, float]:
    """Devices of the fleet by type."""
    devices: Counter[str] = Counter()
    for cell in snapshot.cells:
        for node, count in cell.sorts:
            for kind, number in node.accelerators.items():
                devices[kind] += number * count
    return devices
