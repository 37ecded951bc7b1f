"""Moving gangs so that a larger one finds a whole place: only where that wins more device-seconds than it loses."""

from collections.abc import Container
from functools import partial

from helios.scheduler.book import Book
from helios.scheduler.decisions import StopReason
from helios.scheduler.lines import Shape
from helios.scheduler.plans import Plan, Site, plan_among, without
from helios.scheduler.preemption import Rooms
from helios.scheduler.snapshot import PendingGang, Request

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
    for site in rooms.sites(gang, shape, within):
        book, request = site.book, site.request
        if not request.accelerators:
            continue
        free = book.free[request.accelerator][site.usable].clip(min=0).sum()
        if free < shape.devices:
            continue  # moving does not make devices
        found = rooms.once(site, (StopReason.DEFRAGMENTED, shape.devices), partial(_moves, shape.devices, rooms, site))
        if found is None:
            continue
        if found.cost < gain and (best is None or found.cost < best.cost):
            best = found
    return best


def _moves(devices: float, rooms: Rooms, site: Site) -> Plan | None:
    """The cheapest moves of gangs that are smaller than that."""
    movable = rooms.movable(site.book.cell.name, site.request.accelerator)
    found = plan_among((one for one in movable if one.gang.held < devices), site)
    if found is None or len(found.victims) > MOST_MOVED or not _rehoused(found, site.book):
        return None
    return found


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
