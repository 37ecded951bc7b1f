"""Places that others leave for a gang: kept for it from the cycle in which they are told to until it starts.

A gang with such a promise is served first of its class and priority; who is urgent, of a higher class or of a higher
priority still goes before it and may have the place. The promise lapses a while after the last of them had to be gone.
"""

import math
from collections import Counter
from collections.abc import Container, Iterable, Sequence

from helios.scheduler.book import Book
from helios.scheduler.decisions import Reservation
from helios.scheduler.lines import Queued, Shape, shape_of
from helios.scheduler.plans import Site
from helios.scheduler.policy import Policy
from helios.scheduler.queue import QOS_ORDER
from helios.scheduler.quota import THOUSAND, Quotas
from helios.scheduler.scratch import Kept, Scratch
from helios.scheduler.snapshot import PendingGang, Request, Snapshot
from helios.scheduler.verdicts import closed
from helios.spec import QoS

Rank = tuple[float, float, float, float, float, str]
"""As in `queue`: the lowest is served first."""


def promised(snapshot: Snapshot, policy: Policy) -> list[tuple[Rank, PendingGang]]:
    """Gangs of the queue whose promise holds, in the order in which they are served."""
    now = snapshot.now
    found = [gang for gang in snapshot.pending if gang.promised is not None and lapses(gang, policy) >= now]
    return sorted((_rank(gang, policy, now), gang) for gang in found) if found else []


def lapses(gang: PendingGang, policy: Policy) -> float:
    """Until when its promise holds, seconds since the epoch."""
    return -math.inf if gang.promised is None else gang.promised[1] + policy.leaving


def _rank(gang: PendingGang, policy: Policy, now: float) -> Rank:
    qos = QOS_ORDER[gang.qos]
    if gang.submitted_at + policy.patience.get(gang.qos, math.inf) <= now:
        return (min(qos, QOS_ORDER[QoS.STANDARD]), 0.0, 0.0, 0.0, gang.submitted_at, gang.uid)
    return (qos, 1.0, -gang.priority, -math.inf, gang.submitted_at, gang.uid)


def others(lines: Queued, apart: Sequence[PendingGang]) -> Queued:
    """The queue without these."""
    if not apart:
        return lines
    rest = {shape: dict(holders) for shape, holders in lines.items()}
    for gang in apart:
        shape, holder = shape_of(gang), (gang.tenant, gang.priority)
        holders = rest[shape]
        holders[holder] = tuple(one for one in holders[holder] if one.uid != gang.uid)
        if not holders[holder]:
            del holders[holder]
        if not holders:
            del rest[shape]
    return rest


class Promises:
    """The places that are kept in one cycle.

    Attributes:
        books: what will be free once all have left that were told to, less the places; by cell.
        kept: uids of gangs whose place is kept.
    """

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch
        self.books: dict[str, Book] = {}
        self.kept: set[str] = set()

    def keep(self, gang: PendingGang, shape: Shape, within: Container[Request]) -> Reservation | None:
        """Keep the place that others leave for the gang; None where there will be none.

        Args:
            within: what its tenant's quota will allow a worker to be given.
        """
        scratch, cell = self.scratch, "" if gang.promised is None else gang.promised[0]
        state = next((one for one in scratch.cells if one.name == cell), None)
        if state is None or closed(shape, state) is not None:
            return None
        book = self._opened(cell)
        for want in scratch.wants(shape):
            if want.request not in within:
                continue
            request, site = want.request, Site(scratch, book, want, shape.min_workers, scratch.reserved(cell, gang))
            fit = site.place(book)
            if fit is not None:
                book.take(request, fit.nodes, fit.devices)
                self.kept.add(gang.uid)
                if gang.qos is not QoS.PREEMPTIBLE:  # what it is about to get counts for those behind it
                    scratch.quotas.take(gang.tenant, request.accelerator, len(fit.nodes) * request.devices)
                return Reservation(gang.uid, cell, self._gone(cell, fit.nodes), fit.nodes)
        return None

    def quotas(self) -> Quotas:
        """As they will be once all that were told to leave are gone."""
        after, leaving = self.scratch.quotas.copy(), Counter[tuple[str, str]]()
        for cell in self.scratch.cells:
            for gang in self.scratch.book(cell.name).leaving.values():
                if gang.qos is not QoS.PREEMPTIBLE:
                    leaving[gang.tenant, gang.request.accelerator] += len(gang.nodes) * gang.request.thousandths
        for (tenant, accelerator), thousandths in leaving.items():
            after.take(tenant, accelerator, -thousandths / THOUSAND)
        return after

    def _opened(self, cell: str) -> Book:
        if cell not in self.books:
            book = self.books[cell] = self.scratch.book(cell).bare()
            for gang in book.leaving.values():
                book.take(gang.request, gang.nodes, gang.devices, sign=-1)
            self.scratch.keep(cell, Kept(self.scratch.now, book))
        return self.books[cell]

    def _gone(self, cell: str, nodes: Iterable[str]) -> float:
        """When the last has left these nodes that was told to."""
        there = frozenset(nodes)
        leaving = (gang for gang in self.scratch.book(cell).leaving.values() if not there.isdisjoint(gang.nodes))
        return max([self.scratch.now, *(gang.leaving_at for gang in leaving if gang.leaving_at is not None)])
