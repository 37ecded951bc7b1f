"""Moving gangs so that a larger one finds a whole place: only where that wins more device-seconds than it loses."""

from collections.abc import Container

from helios.scheduler.book import Book
from helios.scheduler.decisions import StopReason
from helios.scheduler.lines import Shape
from helios.scheduler.preemption import Plan, Rooms, plan_among, without
from helios.scheduler.snapshot import PendingGang, Request
from helios.scheduler.victims import may_be_stopped, victim

MOST_MOVED = 16
"""Gangs that are moved for one."""


def defragment(
    gang: PendingGang, shape: Shape, rooms: Rooms, within: Container[Request], *, gain: float
) -> Plan | None:
    """The moves, or None where there are none that pay.

    Args:
        within: what its tenant's quota allows a worker to be given.
        gain: device-seconds that the gang wins by starting now and not when it is expected to.
    """
    best: Plan | None = None
    scratch = rooms.scratch
    for site in rooms.sites(gang, shape, within):
        book, request = site.book, site.request
        if not request.accelerators:
            continue
        free = book.free[request.accelerator][site.usable].clip(min=0).sum()
        if free < shape.devices:
            continue  # moving does not make devices
        movable = (
            victim(one, StopReason.DEFRAGMENTED, scratch)
            for one in book.gangs.values()
            if one.request.accelerator == request.accelerator
            and one.held < shape.devices
            and not rooms.is_granted(one.uid)
            and may_be_stopped(one, scratch)
        )
        found = plan_among(movable, site)
        if found is None or len(found.victims) > MOST_MOVED or not _rehoused(found, book):
            continue
        if found.cost < gain and (best is None or found.cost < best.cost):
            best = found
    return best


def _rehoused(found: Plan, book: Book) -> bool:
    """Whether each that is moved finds a place in the same cell beside the one that is helped."""
    after = without(book, found.victims)
    after.take(found.fit.request, found.fit.nodes, found.fit.devices)
    for moved in sorted(found.victims, key=lambda one: -one.gang.held):
        request, left = moved.gang.request, len(moved.gang.nodes)
        capacities = after.look(request).capacities
        if int(capacities.sum()) < left:
            return False
        for row in capacities.argsort(kind="stable"):
            taken = min(left, int(capacities[row]))
            name = after.layout.names[row]
            devices = after.share_devices(request.accelerator, request.share, [name] * taken) if request.share else ()
            after.take(request, [name] * taken, devices)
            left -= taken
            if not left:
                break
    return True
