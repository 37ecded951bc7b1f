"""Reservations: where and when a gang that waits will start, so that gangs behind it fill gaps and never delay it.

EASY backfilling (Lifka, "The ANL/IBM SP scheduling system", 1995), node by node and with several reservations: gangs
that end before the reserved moment may use anything; others only what the reserved gang will not need.
"""

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from helios.scheduler.book import Access, Book, room, want_of
from helios.scheduler.cell_stage import access_of, place
from helios.scheduler.decisions import Reservation
from helios.scheduler.emptying import Emptying
from helios.scheduler.lines import Shape
from helios.scheduler.scratch import Kept, Scratch
from helios.scheduler.snapshot import Headroom, PendingGang, Request, RunningGang
from helios.scheduler.verdicts import closed
from helios.spec import QoS

CANDIDATES = 2
"""Cells that are asked when they would have room: those where most of the gang fits already."""
_LEAST_OVERRUN = 60.0


def reserve(gang: PendingGang, shape: Shape, scratch: Scratch, within: Iterable[Request]) -> Reservation | None:
    """Keep a place for the gang where it will be free first; None where none can be foreseen.

    Args:
        within: what its tenant's quota allows a worker to be given.
    """
    access = access_of(shape, scratch.policy)
    open_cells = [cell for cell in scratch.cells if _may_reserve(shape, cell.name, scratch)]
    options = [
        (-scratch.fits(cell.name, want_of(request, access)), cell.name, request)
        for cell in open_cells
        for request in within
        if room(cell, request, access) >= shape.min_workers
    ]
    found = []
    for _, cell, request in heapq.nsmallest(CANDIDATES, options, key=lambda option: option[:2]):
        start = _first_room(scratch.book(cell), request, access, shape.min_workers, scratch.now)
        if start is not None:
            found.append((start[0], cell, request, start[1]))
    if not found:
        return None
    at, cell, request, gone = min(found, key=lambda one: one[:2])
    book = scratch.book(cell).copy()
    for leaver in gone:
        book.take(leaver.request, leaver.nodes, leaver.devices, sign=-1)
    capacities = book.look(request, access).capacities
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


def _first_room(
    book: Book, request: Request, access: Access, workers: int, now: float
) -> tuple[float, list[RunningGang]] | None:
    """The moment at which so many workers will fit, and the gangs that will be gone by then.

    None where no end is foreseen, and where it fits now: then it is kept room that it must not use.
    """
    future = Emptying(book, request, book.layout.usable(access))
    if future.total >= workers:
        return None
    gone = []
    for at, gang in departures(book, now):
        if _matters(gang, request):
            future.leave(gang.request, gang.nodes, gang.devices)
            gone.append(gang)
            if future.total >= workers:
                return at, gone
    return None


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
    """Hold room for replicas that a service will probably need; `preemptible` work may use it meanwhile."""
    left = headroom.replicas
    access = Access(scratch.policy.capacity_types.get(QoS.GUARANTEED, frozenset()))
    fits = [(scratch.fits(cell.name, want_of(headroom.request, access)), cell.name) for cell in scratch.cells]
    for fitting, cell in sorted(fits, key=lambda one: (-one[0], one[1])):
        if not left or (headroom.cells and cell not in headroom.cells) or not fitting:
            continue
        kept = next((one for one in scratch.kept.get(cell, ()) if one.reservation is None), None)
        if kept is None:
            kept = Kept(scratch.now, scratch.book(cell).copy(), lent_to=frozenset({QoS.PREEMPTIBLE, QoS.GUARANTEED}))
            scratch.keep(cell, kept)
        look = kept.book.look(headroom.request, access)
        workers = min(left, look.total)
        if workers:
            demand = scratch.demand(headroom.request.accelerator)
            fit = place(kept.book, headroom.request, workers, look.capacities, policy=scratch.policy, demand=demand)
            kept.book.take(headroom.request, fit.nodes, fit.devices)
            left -= workers
