"""Making room: whole gangs leave, the cheapest, in the narrowest domain, tried out before it is granted."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from helios.scheduler.book import Book, Want, room
from helios.scheduler.candidates import Candidates
from helios.scheduler.cell_stage import Fit
from helios.scheduler.decisions import StopReason
from helios.scheduler.layout import Ints
from helios.scheduler.lines import Shape
from helios.scheduler.plans import Plan, Site, plan_among, vacate
from helios.scheduler.promises import Promises
from helios.scheduler.scratch import Kept, Scratch
from helios.scheduler.snapshot import PendingGang, Request
from helios.scheduler.verdicts import closed
from helios.scheduler.victims import Stoppable, Victim, leaver, owes, stoppable_of
from helios.spec import QoS

CELLS = 3
"""Cells that are tried, those first where most of the gang fits already."""
LOOKS = 400
"""Running gangs that are looked at for a gang of one worker, the cheapest first."""


@dataclass(frozen=True, eq=False)
class _Where:
    """Cells by name, each with what a worker may be given there."""

    places: tuple[tuple[str, Want], ...]

    @cached_property
    def cells(self) -> frozenset[str]:
        return frozenset(cell for cell, _ in self.places)


class Rooms:
    """The room that is made in one cycle: each plan is tried on what the ones before it left."""

    def __init__(self, scratch: Scratch, promises: Promises | None = None) -> None:
        promises = promises or Promises(scratch)
        self.scratch = scratch
        self._books = promises.books
        self._granted: set[str] = set()
        self._candidates: dict[str, Candidates] = {}
        self._later: dict[Hashable, float] = {}
        self._movers: dict[str, Victim] = {}
        self._stoppables: dict[str, Stoppable] = {}
        self._tried: defaultdict[str, dict[Hashable, Plan | None]] = defaultdict(dict)
        self._wheres: dict[tuple[object, ...], _Where] = {}
        self._nearest: dict[_Where, list[tuple[str, Want]]] = {}
        self._roomy: dict[_Where, list[tuple[str, Want]]] = {}
        self._idle: dict[str, dict[str, int]] = {}
        self._free: dict[str, Ints] = {}
        self._passed: dict[tuple[object, object], int] = {}
        self.quotas = promises.quotas()
        """As they will be once all that were told to leave are gone, and who is helped has its place."""

    def plan(self, gang: PendingGang, shape: Shape, within: Collection[Request]) -> Plan | None:
        """The cheapest way to make room by stopping others; None where none may be, or where it would be no use.

        Args:
            within: what its tenant's quota allows a worker to be given.
        """
        if (over := self._left_over(gang, shape, within)) is not None:
            return over
        if shape.min_workers == 1 and shape.request.accelerators and shape.request in within:
            found = self._one_for_one(gang, shape)
            if found is not None:
                return found
        plans = []
        for site in self.nearest(gang, shape, within):
            found = self._from_classes(shape, site)
            plans += [found] if found is not None else []
        return min(plans, key=lambda one: (one.cost, one.fit.cell), default=None)

    # Where ------------------------------------------------------------------------------------------------------------

    def sites(self, gang: PendingGang, shape: Shape, within: Collection[Request]) -> Iterator[Site]:
        """Cells, and what a worker may be given there, in which the gang would fit if nothing ran."""
        return (self._site(gang, shape, cell, want) for cell, want in self._where(shape, within).places)

    def nearest(self, gang: PendingGang, shape: Shape, within: Collection[Request]) -> list[Site]:
        """Those of them that are tried, those first where most of the gang fits already."""
        where = self._where(shape, within)
        if where not in self._nearest:
            ranked = sorted(where.places, key=lambda place: (-self.book(place[0]).see(place[1]).total, place[0]))
            self._nearest[where] = ranked[:CELLS]
        return [self._site(gang, shape, cell, want) for cell, want in self._nearest[where]]

    def with_idle(self, gang: PendingGang, shape: Shape, within: Collection[Request]) -> Iterator[Site]:
        """Those of them where enough devices for the gang are idle, wherever in the cell."""
        for cell, want in self._where(shape, within).places:
            kind = want.request.accelerator
            if not want.request.accelerators or self._idle_in(kind)[cell] < shape.devices:
                continue
            site = self._site(gang, shape, cell, want)
            if site.book.free[kind][site.usable].clip(min=0).sum() >= shape.devices:
                yield site

    def _where(self, shape: Shape, within: Collection[Request]) -> _Where:
        """Where the gang would fit if nothing ran; one object for shapes that are alike in that."""
        scratch, wants = self.scratch, self.scratch.wants(shape)
        if len(within) < len(wants):
            wants = tuple(want for want in wants if want.request in within)
        key = (wants, shape.min_workers, shape.cells, shape.held_off)
        where = self._wheres.get(key)
        if where is None:
            fewest, cells = shape.min_workers, [cell for cell in scratch.cells if closed(shape, cell) is None]
            places = ((cell.name, want) for cell in cells for want in wants if room(cell, want) >= fewest)
            where = self._wheres[key] = _Where(tuple(places))
        return where

    def _idle_in(self, kind: str) -> dict[str, int]:
        """Devices of that type that nobody holds once all have left that were told to in this cycle, by cell."""
        if kind not in self._idle:
            self._idle[kind] = {cell.name: self.book(cell.name).idle(kind) for cell in self.scratch.cells}
        return self._idle[kind]

    def _free_of(self, kind: str) -> Ints:
        """The same by node, those of all cells one after the other."""
        if kind not in self._free:
            books = [self.book(cell.name) for cell in self.scratch.cells]
            parts = [book.free.get(kind, np.zeros_like(book.millicpus)) for book in books]
            self._free[kind] = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
        return self._free[kind]

    def _site(self, gang: PendingGang, shape: Shape, cell: str, want: Want) -> Site:
        kept = self.scratch.reserved(cell, gang)
        return Site(self.scratch, self.book(cell), want, shape.min_workers, kept)

    def book(self, cell: str) -> Book:
        """What will be free there once all have left that were told to in this cycle; not to be changed."""
        return self._books.get(cell) or self.scratch.book(cell)

    # Who --------------------------------------------------------------------------------------------------------------

    def _of(self, accelerator: str) -> Candidates:
        """Who has such devices; found once a cycle."""
        found = self._candidates.get(accelerator)
        if found is None:
            found = self._candidates[accelerator] = Candidates(accelerator, self.scratch)
        return found

    def _gives(self, candidates: Candidates, row: int, shape: Shape) -> Victim | None:
        """What a candidate that gives something to the shape gives; None where it was told to leave already."""
        gang = candidates.gangs[row]
        if gang.uid in self._granted:
            return None
        found = self._stoppables.get(gang.uid)
        if found is None:
            yields_to = float(candidates.yields[row])
            found = self._stoppables[gang.uid] = stoppable_of(gang, self.scratch, yields_to=yields_to)
        return found.for_class(shape)

    def borrowers(self, gang: PendingGang) -> list[Victim]:
        """Gangs of all cells that hold quota of that gang's tenant, who is stopped first before all others."""
        candidates = self._of(gang.request.accelerator)
        gangs = (candidates.gangs[row] for row in candidates.standing(candidates.open))
        found = (
            leaver(one, StopReason.RECLAIMED, self.scratch)
            for one in gangs
            if one.uid not in self._granted and owes(one, gang, self.scratch)
        )
        return sorted(found, key=lambda one: one.order)

    def movable(self, site: Site, devices: float) -> Iterator[Victim]:
        """Gangs there that hold fewer devices, of the type that is asked for, and were not told to leave."""
        candidates = self._of(site.request.accelerator)
        for row in candidates.smaller(candidates.open_in(site.book.cell.name), devices):
            gang = candidates.gangs[row]
            if gang.uid not in self._granted:
                mover = self._movers.get(gang.uid)
                if mover is None:
                    mover = self._movers[gang.uid] = leaver(gang, StopReason.DEFRAGMENTED, self.scratch)
                yield mover

    # When -------------------------------------------------------------------------------------------------------------

    def later(self, gang: PendingGang, shape: Shape, within: Collection[Request], *, lent: bool) -> float:
        """When the next may be asked to leave for the gang whom only the minimum run protects; infinity: nobody will.

        Args:
            lent: what is its tenant's own is lent out, and only borrowers leave for it.
        """
        if lent:
            kind = gang.request.accelerator
            if (kind, gang.tenant) not in self._later:
                at = self._of(kind).first_from(lambda one: owes(one, gang, self.scratch))
                self._later[kind, gang.tenant] = at
            return self._later[kind, gang.tenant]
        where = self._where(shape, within)
        estimate = shape.estimate if shape.qos is QoS.PREEMPTIBLE else None
        key = (where, shape.qos, estimate, shape.devices)
        if key not in self._later:
            kinds = {want.request.accelerator for _, want in where.places}
            found = (self._given_later(kind, shape, where) for kind in kinds)
            self._later[key] = min(found, default=math.inf)
        return self._later[key]

    def _given_later(self, kind: str, shape: Shape, where: _Where) -> float:
        below, moves = dict[str, float](), self.scratch.policy.defragmentation
        for cell in (cell for cell, want in where.places if want.request.accelerator == kind):
            idle = self.scratch.book(cell).idle(kind)
            below[cell] = shape.devices if moves and shape.devices <= idle else 0.0  # smaller ones are moved
        return self._of(kind).useful_from(shape, below)

    # How --------------------------------------------------------------------------------------------------------------

    def _left_over(self, gang: PendingGang, shape: Shape, within: Collection[Request]) -> Plan | None:
        """Room that others leave anyway, and that nobody gets yet."""
        where, books = self._where(shape, within), self._books
        if where not in self._roomy:
            places = where.places if books else ()
            opened = (place for place in places if place[0] in books)
            self._roomy[where] = [one for one in opened if books[one[0]].see(one[1]).total >= shape.min_workers]
        for cell, want in self._roomy[where]:
            fit = self._site(gang, shape, cell, want).place(books[cell])
            if fit is not None:
                return Plan((), fit, 0.0)
        return None

    def _from_classes(self, shape: Shape, site: Site) -> Plan | None:
        def look() -> Plan | None:
            candidates = self._of(site.request.accelerator)
            rows = candidates.open_in(site.book.cell.name)
            victims = (self._gives(candidates, row, shape) for row in rows[candidates.gives(shape)[rows]])
            return plan_among((victim for victim in victims if victim is not None), site)

        return self.once(site, (shape.qos, shape.estimate if shape.qos is QoS.PREEMPTIBLE else None), look)

    def once(self, site: Site, more: Hashable, look: Callable[[], Plan | None]) -> Plan | None:
        """What `look` finds at that site; it is asked again for equals only when others were told to leave there.

        Args:
            more: all that it depends on beside the site.
        """
        tried = self._tried[site.book.cell.name]
        key = (site.want, site.workers, site.kept, more)
        if key not in tried:
            tried[key] = look()
        return tried[key]

    def grant(self, plan: Plan, gang: PendingGang) -> None:
        """They leave, and what comes free is the gang's."""
        fit = plan.fit
        self._granted.update(victim.gang.uid for victim in plan.victims)
        for victim in plan.victims:
            vacate(self._opened(victim.gang.cell), victim)
            if victim.gang.qos is not QoS.PREEMPTIBLE:
                held = len(victim.freed) * victim.gang.request.devices
                self.quotas.take(victim.gang.tenant, victim.gang.request.accelerator, -held)
        for place in (fit, *plan.moved):
            self._opened(place.cell).take(place.request, place.nodes, place.devices)
        if gang.qos is not QoS.PREEMPTIBLE:
            self.quotas.take(gang.tenant, fit.request.accelerator, len(fit.nodes) * fit.request.devices)

    def _opened(self, cell: str) -> Book:
        """What will be free there, to be changed."""
        self._tried.pop(cell, None)
        self._nearest.clear()
        self._roomy.clear()
        self._idle.clear()
        self._free.clear()
        if cell not in self._books:
            self._books[cell] = self.scratch.book(cell).bare()
            self.scratch.keep(cell, Kept(self.scratch.now, self._books[cell]))
        return self._books[cell]

    def _one_for_one(self, gang: PendingGang, shape: Shape) -> Plan | None:
        """For a gang of one worker: the cheapest of all gangs whose leaving is enough."""
        request, want = shape.request, self.scratch.wants(shape)[0]
        cells, sites = self._where(shape, (request,)).cells, dict[str, Site]()
        candidates = self._of(request.accelerator)
        # Who was of no use to one of that kind is of none to the next: what comes free is given away at once.
        key = (shape.qos, shape.requests, shape.cells, shape.held_off, shape.capacity_types, shape.recovering)
        estimate = shape.estimate if shape.qos is QoS.PREEMPTIBLE else None
        place = self._passed.get((key, estimate), 0)
        ahead = candidates.ranked[place : place + LOOKS]
        found, passed = None, len(ahead)
        useful = candidates.gives(shape)[ahead]
        useful &= candidates.may_hold(ahead, self._free_of(request.accelerator), request.accelerators)
        for step in np.flatnonzero(useful).tolist():
            row = int(ahead[step])
            cell = candidates.gangs[row].cell
            if cell not in cells or candidates.gangs[row].request.share:
                continue
            if (gives := self._gives(candidates, row, shape)) is None:
                continue
            if cell not in sites:
                sites[cell] = self._site(gang, shape, cell, want)
            node = _node_after(sites[cell], gives)
            if node is not None:
                found, passed = Plan((gives,), Fit(cell, request, (node,)), gives.cost), step + 1
                break
        self._passed[key, estimate] = place + passed
        return found


def _node_after(site: Site, victim: Victim) -> str | None:
    """One of its nodes that could hold a worker once it is gone, or None."""
    request, held, book = site.request, victim.gang.request, site.book
    rows, usable = book.layout.rows, site.book.layout.usable(site.want.access)
    for name in dict.fromkeys(victim.freed):
        row = rows.get(name)
        if row is None or not usable[row] or name in site.kept:
            continue
        workers = victim.freed.count(name)
        devices = book.free[request.accelerator][row] + workers * held.accelerators
        millicpus = book.millicpus[row] + workers * held.millicpus
        memory = book.memory[row] + workers * held.memory
        if devices >= request.accelerators and millicpus >= request.millicpus and memory >= request.memory:
            return name
    return None
