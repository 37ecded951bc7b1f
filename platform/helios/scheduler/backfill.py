"""Reservations: where and when a gang that waits will start, so that gangs behind it fill gaps and never delay it.

EASY backfilling (Lifka, "The ANL/IBM SP scheduling system", 1995), node by node and with several reservations: gangs
that end before the reserved moment may use anything; others only what the reserved gang will not need.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator
from functools import partial
from itertools import count

import numpy as np

from helios.scheduler.book import Book, Want, room, want_of
from helios.scheduler.cell_stage import place
from helios.scheduler.decisions import Reservation
from helios.scheduler.emptying import Emptying
from helios.scheduler.layout import Access
from helios.scheduler.lines import Shape
from helios.scheduler.scratch import Kept, Scratch
from helios.scheduler.snapshot import NO_END, Headroom, PendingGang, Readiness, Request, RunningGang
from helios.scheduler.verdicts import closed
from helios.spec import QoS

CANDIDATES = 2
"""Cells that are asked when they would have room: those where most of the gang fits already."""
_LEAST_OVERRUN = 60.0


def reserve(gang: PendingGang, shape: Shape, scratch: Scratch, within: Container[Request]) -> Reservation | None:
    """Keep a place for the gang where it will be free first; None where none can be foreseen.

    Args:
        within: what its tenant's quota allows a worker to be given.
    """
    open_cells = [cell for cell in scratch.cells if _may_reserve(shape, cell.name, scratch)]
    options = [
        (-scratch.fits(cell.name, want), cell.name, want)
        for cell in open_cells
        for want in scratch.wants(shape)
        if want.request in within and room(cell, want) >= shape.min_workers
    ]
    found = []
    for _, cell, want in heapq.nsmallest(CANDIDATES, options, key=lambda option: option[:2]):
        book = scratch.book(cell)
        coming = scratch.once(cell, "departures", partial(_Departures, book, scratch.now))
        outlook = scratch.once(cell, want, partial(_Outlook, book, want, coming))
        start = outlook.first(shape.min_workers)
        if start is not None:
            found.append((start[0], cell, want, start[1]))
    if not found:
        return None
    at, cell, want, gone = min(found, key=lambda one: one[:2])
    request, book = want.request, scratch.book(cell).bare()
    for leaver in gone:
        book.take(leaver.request, leaver.nodes, leaver.devices, sign=-1)
    capacities = book.see(want).capacities
    demand = scratch.demand(request.accelerator)
    fit = place(book, request, shape.min_workers, capacities, policy=scratch.policy, demand=demand)
    book.take(request, fit.nodes, fit.devices)
    reservation = Reservation(gang.uid, cell, at, fit.nodes)
    scratch.keep(cell, Kept(at, book, reservation=reservation))
    return reservation


def _may_reserve(shape: Shape, cell: str, scratch: Scratch) -> bool:
    """One reservation a cell, so that each is exact; headroom does not count."""
    if any(kept.reservation is not None for kept in scratch.kept.get(cell, ())):
        return False
    return closed(shape, scratch.book(cell).cell) is None


class _Departures:
    """Who is expected to leave a cell, as `departures` says it, found as far as anybody asked."""

    def __init__(self, book: Book, now: float) -> None:
        self._coming = departures(book, now)
        self._known: list[tuple[float, RunningGang]] = []

    def __iter__(self) -> Iterator[tuple[float, RunningGang]]:
        for number in count():
            if number == len(self._known):
                following = next(self._coming, None)
                if following is None:
                    return
                self._known.append(following)
            yield self._known[number]


class _Outlook:
    """How many workers will fit in a cell as gangs depart, looked ahead as far as anybody asked."""

    def __init__(self, book: Book, want: Want, coming: Iterable[tuple[float, RunningGang]]) -> None:
        self._future = Emptying(book, want.request, book.layout.usable(want.access), book.see(want).capacities)
        self._now = self._future.total
        self._departures = (one for one in coming if _matters(one[1], want.request))
        self._gone: list[RunningGang] = []
        self._moments: list[float] = []
        self._totals: list[int] = []

    def first(self, workers: int) -> tuple[float, list[RunningGang]] | None:
        """The moment at which so many workers will fit, and the gangs that will be gone by then.

        None where no end is foreseen, and where it fits now: then it is kept room that it must not use.
        """
        if self._now >= workers:
            return None
        while self._future.total < workers:
            at, gang = next(self._departures, (NO_END, None))
            if gang is None:
                return None
            self._future.leave(gang.request, gang.nodes, gang.devices)
            self._gone.append(gang)
            self._moments.append(at)
            self._totals.append(self._future.total)
        place = bisect_left(self._totals, workers)
        return self._moments[place], self._gone[: place + 1]


def _matters(gang: RunningGang, request: Request) -> bool:
    """Whether its end could make room for such a worker."""
    return not request.accelerator or gang.request.accelerator in ("", request.accelerator)


def departures(book: Book, now: float) -> Iterator[tuple[float, RunningGang]]:
    """Who is expected to leave, the earliest first.

    Those that were told to go are gone when they have to be. A gang that outran its estimate is taken to go on for as
    long as it has run beyond it: of heavy-tailed run times, what lasted long lasts longer.
    """
    ends = book.ends()
    late = bisect_right(ends, (now, chr(0x10FFFF)))
    overrun = sorted((now + max(_LEAST_OVERRUN, now - end), uid) for end, uid in ends[:late])
    told = sorted((max(now, gang.leaving_at or now), uid) for uid, gang in book.leaving.items())
    gone: set[str] = set()
    for at, uid in heapq.merge(told, overrun, ends[late:]):
        if uid not in gone:
            gone.add(uid)
            yield at, book.gangs[uid]


def keep_headroom(headroom: Headroom, scratch: Scratch) -> None:
    """Hold room for replicas that a service will probably need; `preemptible` work may use it meanwhile.

    What is free is held first, then what is lent: others do not have the borrowers stopped for themselves.
    """
    left = headroom.replicas
    access = Access(scratch.policy.capacity_types.get(QoS.GUARANTEED, frozenset()))
    request, want = headroom.request, want_of(headroom.request, access)
    ready = (cell.name for cell in scratch.cells if cell.readiness is Readiness.READY)
    names = (name for name in ready if not headroom.cells or name in headroom.cells)
    ranked = sorted(names, key=lambda name: (-scratch.fits(name, want), name))
    for lent in (False, True):
        for cell in ranked if left else ():
            kept = _held(cell, scratch)
            capacities = kept.book.look(request, access).capacities
            if not lent:
                capacities = np.minimum(capacities, scratch.book(cell).see(want).capacities)
            workers = min(left, int(capacities.sum()))
            if workers:
                demand = scratch.demand(request.accelerator)
                fit = place(kept.book, request, workers, capacities, policy=scratch.policy, demand=demand)
                kept.book.take(request, fit.nodes, fit.devices)
                kept.nodes |= frozenset(fit.nodes)
                left -= workers


def _held(cell: str, scratch: Scratch) -> Kept:
    """The room that is held in a cell for services; what it is lent for counts as free there."""
    found = next((one for one in scratch.kept.get(cell, ()) if one.reservation is None), None)
    if found is None:
        book = scratch.book(cell).copy()
        for gang in tuple(book.gangs.values()):
            if gang.qos is QoS.PREEMPTIBLE:
                book.take(gang.request, gang.nodes, gang.devices, sign=-1)
        found = Kept(scratch.now, book, lent_to=frozenset({QoS.PREEMPTIBLE, QoS.GUARANTEED}))
        scratch.keep(cell, found)
    return found
