"""Who is next: by class; of a class the long-waiting by age, then by need, fair share and age in one figure.

A gang that has waited for longer than its class's patience is *urgent*: urgent gangs are served strictly by age, ahead
of everything of their class and of the classes below, and keep a reservation that nothing admitted later delays. That
bounds starvation: with estimates that hold, a gang that fits its quota starts within its patience and the run times
of the gangs that were urgent before it.
"""

import heapq
import math
from collections import Counter
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


class Queue:
    """The lines of a snapshot, served one gang at a time. What has no place is closed, for a shape as a whole."""

    def __init__(self, lines: Queued, snapshot: Snapshot, policy: Policy, quotas: Quotas) -> None:
        self._now, self._policy, self._quotas = snapshot.now, policy, quotas
        self._fleet = _devices(snapshot)
        self._decay = math.log(2) / policy.half_life
        self._shares: dict[tuple[str, str], float] = {}
        self._moved: set[tuple[str, str]] = set()
        self._needs = {shape: self._need(shape) for shape in lines}
        self._served: dict[tuple[Shape, tuple[str, int]], int] = {}
        self._lines = lines
        self.next_urgent = math.inf
        """When the first of those that wait becomes urgent."""
        self._of_shape: dict[Shape, list[tuple[_Rank, tuple[str, int]]]] = {}
        for shape, holders in lines.items():
            heap = self._of_shape[shape] = [(self.rank(shape, line[0]), holder) for holder, line in holders.items()]
            heapq.heapify(heap)
        self._heap = [(heap[0][0], id(shape), shape) for shape, heap in self._of_shape.items()]
        heapq.heapify(self._heap)

    def next(self) -> Head | None:
        """The gang whose turn it is, or None where nobody is left. It stays the head until it is served or closed."""
        while self._heap:
            shape = self._heap[0][2]
            rank, holder = self._of_shape[shape][0]
            gang = self._head(shape, holder)
            if (holder[0], shape.request.accelerator) in self._moved:  # its tenant was given something meanwhile
                now = self.rank(shape, gang)
                if now > rank:
                    heapq.heapreplace(self._of_shape[shape], (now, holder))
                    self._settle(shape)
                    continue
            return Head(gang, shape, rank[1] == 0.0)
        return None

    def served(self, head: Head) -> None:
        """It has its place: the next in its line moves up."""
        shape, holder = head.shape, (head.gang.tenant, head.gang.priority)
        owner = (head.gang.tenant, shape.request.accelerator)
        self._shares.pop(owner, None)
        self._moved.add(owner)
        self._served[shape, holder] = self._served.get((shape, holder), 0) + 1
        if self._served[shape, holder] < len(self._lines[shape][holder]):
            rank = self.rank(shape, self._head(shape, holder))
            heapq.heapreplace(self._of_shape[shape], (rank, holder))
        else:
            heapq.heappop(self._of_shape[shape])
        self._settle(shape)

    def close_line(self, head: Head) -> Left:
        """Nobody of that tenant, priority and shape is served in this cycle any more; who is left."""
        holder = (head.gang.tenant, head.gang.priority)
        heapq.heappop(self._of_shape[head.shape])
        self._settle(head.shape)
        return (self._left(head.shape, holder),)

    def close_shape(self, head: Head) -> Left:
        """Nobody of that shape is served in this cycle any more; who is left, line by line, the first line first."""
        heapq.heappop(self._heap)
        left = self._of_shape.pop(head.shape)
        return tuple(self._left(head.shape, holder) for _, holder in sorted(left))

    def _head(self, shape: Shape, holder: tuple[str, int]) -> PendingGang:
        return self._lines[shape][holder][self._served.get((shape, holder), 0)]

    def _left(self, shape: Shape, holder: tuple[str, int]) -> Line:
        return self._lines[shape][holder][self._served.get((shape, holder), 0) :]

    def _settle(self, shape: Shape) -> None:
        """The shape at the top has another head."""
        heap = self._of_shape[shape]
        if heap:
            heapq.heapreplace(self._heap, (heap[0][0], id(shape), shape))
        else:
            heapq.heappop(self._heap)

    def rank(self, shape: Shape, gang: PendingGang) -> _Rank:
        """Its place in the order, as things stand."""
        qos, policy = QOS_ORDER[shape.qos], self._policy
        urgent_at = gang.submitted_at + policy.patience.get(shape.qos, math.inf)
        if urgent_at <= self._now:
            # Ahead of the class that is next, and of all that is not urgent; only guaranteed work goes before.
            return (min(qos, QOS_ORDER[QoS.STANDARD]), 0.0, 0.0, 0.0, gang.submitted_at, gang.uid)
        self.next_urgent = min(self.next_urgent, urgent_at)
        # Response ratio over what the tenant has had, each to its power.
        waited = self._now - gang.submitted_at + policy.head_start
        merit = waited / (self._needs[shape] * self._share(gang.tenant, shape))
        return (qos, 1.0, -gang.priority, -merit, gang.submitted_at, gang.uid)

    def _need(self, shape: Shape) -> float:
        """What the gang is expected to take, to its power."""
        # Of equals of which nothing is known, the older goes first, whatever its size.
        policy, need = self._policy, self._policy.unknown_estimate
        if shape.estimate is not None:
            need = min(shape.estimate, need) * max(1.0, shape.devices) ** policy.size_weight
        return float(need**policy.short_first)

    def _share(self, name: str, shape: Shape) -> float:
        """What the tenant holds and has lately held, as a part of the fleet, over its weight, to its power."""
        accelerator = shape.request.accelerator
        share = self._shares.get((name, accelerator))
        if share is None:
            tenant = self._quotas.tenant(name)
            devices = 0.5 * (self._quotas.held(name, accelerator) + tenant.usage * self._decay)
            part = max(devices / max(1.0, self._fleet.get(accelerator, 0.0)), _LEAST_SHARE) / tenant.weight
            share = self._shares[name, accelerator] = float(part**self._policy.fair_share)
        return share


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
