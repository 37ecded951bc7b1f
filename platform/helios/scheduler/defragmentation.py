"""Moving gangs so that a larger one finds a whole place: only where that wins more device-seconds than it loses."""

from collections.abc import Iterator

from helios.scheduler.book import Book
from helios.scheduler.cell_stage import access_of
from helios.scheduler.decisions import Preempt, StopReason
from helios.scheduler.lines import Shape
from helios.scheduler.preemption import Plan, Site, Victim, loss, plan_among
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import PendingGang, RunningGang
from helios.scheduler.verdicts import closed
from helios.spec import QoS

MOST_MOVED = 16
"""Gangs that are moved for one."""


def defragment(gang: PendingGang, shape: Shape, scratch: Scratch, *, gain: float) -> Iterator[Preempt]:
    """The moves, or nothing where there are none that pay.

    Args:
        gain: device-seconds that the gang wins by starting now and not when it is expected to.
    """
    access = access_of(shape, scratch.policy)
    best: Plan | None = None
    for cell in scratch.cells:
        book, request = scratch.book(cell.name), shape.request
        if closed(shape, cell) is not None or not request.accelerators or request.accelerator not in book.free:
            continue
        free = book.free[request.accelerator][book.layout.usable(access)].clip(min=0).sum()
        if free < shape.devices:
            continue  # moving does not make devices
        site = Site(scratch, book, request, access, shape.min_workers)
        movable = (
            Victim(one, StopReason.DEFRAGMENTED, one.nodes, (), loss(one, scratch.policy, scratch.now))
            for one in book.gangs.values()
            if _movable(one, shape, scratch)
        )
        found = plan_among(movable, site)
        if found is None or len(found.victims) > MOST_MOVED or not _rehoused(found, book):
            continue
        if found.cost < gain and (best is None or found.cost < best.cost):
            best = found
    for victim in best.victims if best else ():
        message = (
            f"moves, so that {gang.name} finds a whole place; costs {victim.cost:.0f}, wins {gain:.0f} device-seconds"
        )
        one = victim.gang
        yield Preempt(one.uid, one.cell, StopReason.DEFRAGMENTED, message, gang.uid, victim.cost)


def _movable(gang: RunningGang, shape: Shape, scratch: Scratch) -> bool:
    """Whether it may be moved: not serving, long enough there, with budget left, and smaller than who would gain."""
    policy = scratch.policy
    if gang.qos is QoS.GUARANTEED or gang.leaving_at is not None or gang.started_at is None:
        return False
    if gang.request.accelerator != shape.request.accelerator or gang.held >= shape.devices:
        return False
    return scratch.now - gang.started_at >= policy.min_run.get(gang.qos, 0.0) and gang.preemptions < policy.job_budget


def _rehoused(found: Plan, book: Book) -> bool:
    """Whether each that is moved finds a place in the same cell beside the one that is helped."""
    after = book.copy()
    for victim in found.victims:
        after.remove(victim.gang.uid)
    after.take(found.fit.request, found.fit.nodes, found.fit.devices)
    for victim in sorted(found.victims, key=lambda one: -one.gang.held):
        request, left = victim.gang.request, len(victim.gang.nodes)
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
