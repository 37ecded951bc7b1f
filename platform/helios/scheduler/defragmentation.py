"""Moving gangs so that a larger one finds a whole place: only where that wins more device-seconds than it loses."""

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from helios.scheduler.cell_stage import Fit
from helios.scheduler.decisions import StopReason
from helios.scheduler.lines import Shape
from helios.scheduler.plans import Plan, Site, plan_among, without
from helios.scheduler.preemption import Rooms
from helios.scheduler.snapshot import PendingGang, Request

MOST_MOVED = 16
"""Gangs that are moved for one."""


def defragment(
    gang: PendingGang, shape: Shape, rooms: Rooms, within: Collection[Request], *, gain: float
) -> Plan | None:
    """The moves, or None where there are none that pay.

    Args:
        within: what its tenant's quota allows a worker to be given.
        gain: device-seconds that the gang wins by starting now and not when it is expected to.
    """
    best: Plan | None = None
    for site in rooms.with_idle(gang, shape, within):
        found = rooms.once(site, (StopReason.DEFRAGMENTED, shape.devices), partial(_moves, shape.devices, rooms, site))
        if found is None:
            continue
        if found.cost < gain and (best is None or found.cost < best.cost):
            best = found
    return best


def _moves(devices: float, rooms: Rooms, site: Site) -> Plan | None:
    """The cheapest moves of gangs that are smaller than that."""
    found = plan_among(rooms.movable(site, devices), site)
    if found is None or len(found.victims) > MOST_MOVED:
        return None
    places = _rehoused(found, site)
    return None if places is None else replace(found, moved=tuple(places))


def _rehoused(found: Plan, site: Site) -> list[Fit] | None:
    """Where each that is moved goes in the same cell beside the one that is helped; None where one finds no place."""
    after, kept = without(site.book, found.victims), [site.book.layout.rows[name] for name in site.kept]
    after.take(found.fit.request, found.fit.nodes, found.fit.devices)
    places = []
    for moved in sorted(found.victims, key=lambda one: -one.gang.held):
        request, left, names = moved.gang.request, len(moved.gang.nodes), list[str]()
        capacities = after.look(request).capacities.copy()
        capacities[kept] = 0
        for row in capacities.argsort(kind="stable"):
            taken = min(left, int(capacities[row]))
            names += [after.layout.names[row]] * taken
            left -= taken
        if left:
            return None
        devices = after.share_devices(request.accelerator, request.share, names) if request.share else ()
        after.take(request, names, devices)
        places.append(Fit(site.book.cell.name, request, tuple(names), devices))
    return places
