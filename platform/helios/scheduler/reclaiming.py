"""Reclaiming: an owner has its own quota back from who borrows it, wherever that runs, and a place for its gang."""

from collections.abc import Collection, Iterable, Sequence

from helios.scheduler.lines import Shape
from helios.scheduler.plans import Plan, Site, plan_among, vacate, without
from helios.scheduler.preemption import Rooms
from helios.scheduler.quota import Quotas
from helios.scheduler.snapshot import PendingGang, Request
from helios.scheduler.victims import Victim


def reclaim(gang: PendingGang, shape: Shape, rooms: Rooms, within: Collection[Request]) -> Plan | None:
    """The borrowers that leave, the cheapest; None where too few may be stopped, or enough leave already.

    Who borrows nothing any more once others have left is not stopped.

    Args:
        within: what a worker would be given.
    """
    if not rooms.quotas.lacking(gang.tenant, shape.request.accelerator, shape.devices):
        return None
    borrowers, plans = rooms.borrowers(gang), []
    for site in rooms.nearest(gang, shape, within):
        place = _place(site, borrowers, rooms.quotas)
        found = (
            None
            if place is None
            else _paid_back(site, place, gang, shape, borrowers=borrowers, quotas=rooms.quotas.copy())
        )
        plans += [found] if found is not None else []
    return min(plans, key=lambda one: (one.cost, one.fit.cell), default=None)


def _place(site: Site, borrowers: Iterable[Victim], quotas: Quotas) -> Plan | None:
    """Room for the gang, by the leaving of those borrowers that run there, where any of them has to."""
    fit = site.place(site.book)
    if fit is not None:
        return Plan((), fit, 0.0)
    there = [one for one in borrowers if one.gang.cell == site.book.cell.name]
    return plan_among(_who_owe(there, quotas.copy()), site)


def _who_owe(borrowers: Iterable[Victim], quotas: Quotas) -> list[Victim]:
    """Of each tenant the first, until nothing of what it holds is borrowed."""
    found = []
    for one in borrowers:
        if _owes(one, quotas):
            _count(one, quotas)
            found.append(one)
    return found


def _paid_back(
    site: Site, place: Plan, gang: PendingGang, shape: Shape, *, borrowers: Iterable[Victim], quotas: Quotas
) -> Plan | None:
    """The plan with as many others, of any cell, as have to leave before the owner may hold what is its own."""
    kind, chosen = shape.request.accelerator, {one.gang.uid: one for one in place.victims}

    def lacking() -> float:
        return quotas.lacking(gang.tenant, kind, shape.devices)

    for one in place.victims:
        _count(one, quotas)
    for one in borrowers:
        if not lacking():
            break
        if one.gang.uid not in chosen and _owes(one, quotas):
            _count(one, quotas)
            chosen[one.gang.uid] = one
    if lacking():
        return None
    there = _There(site, [one for one in chosen.values() if one.gang.cell == site.book.cell.name], place.fit.width)
    for one in sorted(chosen.values(), key=lambda one: (-one.cost, one.gang.uid)):
        _count(one, quotas, sign=1)
        if lacking() or not there.holds_beside(one):
            _count(one, quotas)
        else:
            del chosen[one.gang.uid]
    fit = site.place(there.book)
    return None if fit is None else Plan(tuple(chosen.values()), fit, sum(one.cost for one in chosen.values()))


class _There:
    """The cell of the place once these are gone, of whom some stay after all.

    Attributes:
        book: what is free there then.
    """

    def __init__(self, site: Site, gone: Sequence[Victim], width: int) -> None:
        self._site, self._width = site, width
        self.book = without(site.book, gone)

    def holds_beside(self, one: Victim) -> bool:
        """Whether a place is left that is no wider where it stays; then it does."""
        if one.gang.cell != self._site.book.cell.name:
            return True
        self.book.take(one.gang.request, one.freed, one.devices)
        fit = self._site.place(self.book)
        if fit is not None and fit.width <= self._width:
            return True
        vacate(self.book, one)
        return False


def _owes(one: Victim, quotas: Quotas) -> bool:
    return quotas.borrowed(one.gang.tenant, one.gang.request.accelerator) > 0


def _count(one: Victim, quotas: Quotas, *, sign: int = -1) -> None:
    """It leaves; with `sign=1` it stays after all."""
    quotas.take(one.gang.tenant, one.gang.request.accelerator, sign * one.gang.held)
