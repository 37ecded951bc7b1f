"""Who is next: by class; of a class the long-waiting by age, then by need, fair share and age in one figure.

A gang that has waited for longer than its class's patience is *urgent*: urgent gangs are served strictly by age, ahead
of everything of their class and of the classes below, and keep a reservation that nothing admitted later delays. That
bounds starvation: with estimates that hold, a gang that fits its quota starts within its patience and the run times
of the gangs that were urgent before it.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from helios.scheduler.lines import LineKey, Shape
from helios.scheduler.policy import Policy
from helios.scheduler.quota import Quotas
from helios.scheduler.snapshot import PendingGang, Snapshot
from helios.spec import QoS

QOS_ORDER = {QoS.GUARANTEED: 0, QoS.STANDARD: 1, QoS.PREEMPTIBLE: 2}
_LEAST_SHARE = 1e-3
"""Of the fleet, taken for a tenant that had nothing yet, so that figures stay finite."""


@dataclass(frozen=True, slots=True)
class Head:
    """The gang that is next in its line."""

    gang: PendingGang
    key: LineKey
    urgent: bool

    @property
    def shape(self) -> Shape:
        return self.key[2]


class Queue:
    """The lines of a snapshot, served one gang at a time; a line that was closed is not served any more."""

    def __init__(
        self, lines: Mapping[LineKey, Sequence[PendingGang]], snapshot: Snapshot, policy: Policy, quotas: Quotas
    ) -> None:
        self._now, self._policy, self._quotas = snapshot.now, policy, quotas
        self._lines = lines
        self._next = dict.fromkeys(lines, 0)
        self._fleet = _devices(snapshot)
        self._decay = math.log(2) / policy.half_life
        self._needs: dict[Shape, float] = {}
        self._shares: dict[tuple[str, str], float] = {}
        self._moved: set[tuple[str, str]] = set()
        self._heap = [
            (*self._rank(key, line[0]), line[0].submitted_at, line[0].uid, key) for key, line in lines.items()
        ]
        heapq.heapify(self._heap)

    def next(self) -> Head | None:
        """The gang whose turn it is, or None where nobody is left. It stays the head until it is served or closed."""
        while self._heap:
            *rank, submitted, uid, key = self._heap[0]
            gang = self._lines[key][self._next[key]]
            if (key[0], key[2].request.accelerator) in self._moved:  # its tenant was given something meanwhile
                now = self._rank(key, gang)
                if list(now) > rank:
                    heapq.heapreplace(self._heap, (*now, submitted, uid, key))
                    continue
            return Head(gang, key, rank[1] == 0.0)
        return None

    def served(self, head: Head) -> None:
        """It has its place: the next in its line moves up."""
        key = head.key
        holder = (head.gang.tenant, key[2].request.accelerator)
        self._shares.pop(holder, None)
        self._moved.add(holder)
        self._next[key] += 1
        heapq.heappop(self._heap)
        if self._next[key] < len(self._lines[key]):
            gang = self._lines[key][self._next[key]]
            heapq.heappush(self._heap, (*self._rank(key, gang), gang.submitted_at, gang.uid, key))

    def close(self, head: Head) -> tuple[PendingGang, ...]:
        """Nobody of that line is served in this cycle any more; who is left in it."""
        heapq.heappop(self._heap)
        return tuple(self._lines[head.key][self._next[head.key] :])

    def _rank(self, key: LineKey, gang: PendingGang) -> tuple[float, float, float, float]:
        """The lowest is served first."""
        qos, shape, policy = QOS_ORDER[gang.qos], key[2], self._policy
        if self._now - gang.submitted_at >= policy.patience.get(gang.qos, math.inf):
            # Ahead of the class that is next, and of all that is not urgent; only guaranteed work goes before.
            return (min(qos, QOS_ORDER[QoS.STANDARD]), 0.0, 0.0, gang.submitted_at)
        # Response ratio over what the tenant has had, each to its power.
        waited = self._now - gang.submitted_at + policy.head_start
        return (qos, 1.0, -gang.priority, -waited / (self._need(shape) * self._share(gang.tenant, shape)))

    def _need(self, shape: Shape) -> float:
        need = self._needs.get(shape)
        if need is None:
            # Of equals of which nothing is known, the older goes first, whatever its size.
            policy, need = self._policy, self._policy.unknown_estimate
            if shape.estimate is not None:
                need = min(shape.estimate, need) * max(1.0, shape.devices) ** policy.size_weight
            need = self._needs[shape] = float(need**policy.short_first)
        return need

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


def ordered(
    snapshot: Snapshot, policy: Policy, quotas: Quotas, lines: Mapping[LineKey, Sequence[PendingGang]]
) -> Iterator[PendingGang]:
    """All that wait, in the order in which they would be served if nobody were given anything."""
    queue = Queue(lines, snapshot, policy, quotas)
    while head := queue.next():
        yield head.gang
        queue.served(head)


def _devices(snapshot: Snapshot) -> Mapping[str, float]:
    """Devices of the fleet by type."""
    devices: Counter[str] = Counter()
    for cell in snapshot.cells:
        for node, count in cell.sorts:
            for kind, number in node.accelerators.items():
                devices[kind] += number * count
    return devices
