"""Making room: whole gangs leave, the cheapest, in the narrowest domain, tried out before it is granted."""

import math
from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence

from helios.scheduler.book import Book, room
from helios.scheduler.cell_stage import Fit, access_of
from helios.scheduler.decisions import StopReason
from helios.scheduler.layout import Access
from helios.scheduler.lines import Shape
from helios.scheduler.plans import Plan, Site, plan_among, vacate
from helios.scheduler.promises import Promises
from helios.scheduler.scratch import Kept, Scratch
from helios.scheduler.snapshot import PendingGang, Request, RunningGang
from helios.scheduler.verdicts import closed
from helios.scheduler.victims import (
    Holders,
    Stoppable,
    Victim,
    gives_at,
    holders,
    leaver,
    owes,
    ranked,
    stoppable_of,
)
from helios.spec import QoS

CELLS = 3
"""Cells that are tried, those first where most of the gang fits already."""
LOOKS = 400
"""Running gangs that are looked at for a gang of one worker, the cheapest first."""


class Rooms:
    """The room that is made in one cycle: each plan is tried on what the ones before it left."""

    def __init__(self, scratch: Scratch, promises: Promises | None = None) -> None:
        promises = promises or Promises(scratch)
        self.scratch = scratch
        self._books = promises.books
        self._granted: set[str] = set()
        self._holders: dict[tuple[str, str], Holders] = {}
        self._later: dict[Hashable, float] = {}
        self._idle: dict[tuple[str, str], int] = {}
        self._movable: dict[tuple[str, str], list[Victim]] = {}
        self._stoppables: dict[str, Stoppable] = {}
        self._tried: defaultdict[str, dict[Hashable, Plan | None]] = defaultdict(dict)
        self._options: dict[Shape, list[tuple[str, Request, Access]]] = {}
        self._ranked: dict[str, list[tuple[float, float, str, RunningGang]]] = {}
        self._passed: dict[tuple[object, object], int] = {}
        self.quotas = promises.quotas()
        """As they will be once all that were told to leave are gone, and who is helped has its place."""

    def plan(self, gang: PendingGang, shape: Shape, within: Container[Request]) -> Plan | None:
        """The cheapest way to make room by stopping others; None where none may be, or where it would be no use.

        Args:
            within: what its tenant's quota allows a worker to be given.
        """
        sites = self.sites(gang, shape, within)
        if (over := self._left_over(sites)) is not None:
            return over
        if shape.min_workers == 1 and shape.request.accelerators:
            found = self._one_for_one(
                shape, {site.book.cell.name: site for site in sites if site.request == shape.request}
            )
            if found is not None:
                return found
        plans = []
        for site in nearest(sites):
            found = self._from_classes(shape, site)
            plans += [found] if found is not None else []
        return min(plans, key=lambda one: (one.cost, one.fit.cell), default=None)

    def borrowers(self, gang: PendingGang) -> list[Victim]:
        """Gangs of all cells that hold quota of that gang's tenant, who is stopped first before all others."""
        found = (
            leaver(one, StopReason.RECLAIMED, self.scratch)
            for cell in self.scratch.cells
            for one in self._holding(cell.name, gang.request.accelerator).open
            if one.uid not in self._granted and owes(one, gang, self.scratch)
        )
        return sorted(found, key=lambda one: one.order)

    def later(self, gang: PendingGang, shape: Shape, within: Container[Request], *, lent: bool) -> float:
        """When the next may be asked to leave for the gang whom only the minimum run protects; infinity: nobody will.

        Args:
            lent: what is its tenant's own is lent out, and only borrowers leave for it.
        """
        kind, cells = gang.request.accelerator, self.scratch.cells
        if lent:
            return min((self._owed_later(cell.name, kind, gang) for cell in cells), default=math.inf)
        options = self._options.get(shape, ())  # known from the plan that was looked for
        places = ((cell, request.accelerator) for cell, request, _ in options if request in within)
        return min((self._given_later(cell, kind, shape) for cell, kind in places), default=math.inf)

    def _owed_later(self, cell: str, kind: str, gang: PendingGang) -> float:
        key = (cell, kind, gang.tenant)
        if key not in self._later:
            young = self._holding(cell, kind).young
            self._later[key] = min((at for at, one in young if owes(one, gang, self.scratch)), default=math.inf)
        return self._later[key]

    def _given_later(self, cell: str, kind: str, shape: Shape) -> float:
        policy = self.scratch.policy
        moves = policy.defragmentation and shape.devices <= self._idle_in(cell, kind)
        below = shape.devices if moves else 0.0  # smaller ones are moved
        key = (cell, kind, shape.qos, shape.estimate if shape.qos is QoS.PREEMPTIBLE else None, below)
        if key not in self._later:
            young = self._holding(cell, kind).young
            useful = (at for at, one in young if one.held < below or gives_at(one, at, shape, policy))
            self._later[key] = min(useful, default=math.inf)
        return self._later[key]

    def _idle_in(self, cell: str, kind: str) -> int:
        """Whole devices that nobody holds there."""
        if (cell, kind) not in self._idle:
            free = self.scratch.book(cell).free.get(kind)
            self._idle[cell, kind] = 0 if free is None else int(free.clip(min=0).sum())
        return self._idle[cell, kind]

    def _holding(self, cell: str, accelerator: str) -> Holders:
        """Who has such devices there; found once a cycle."""
        key = (cell, accelerator)
        if key not in self._holders:
            self._holders[key] = holders(self.scratch.book(cell), accelerator, self.scratch)
        return self._holders[key]

    def _from_classes(self, shape: Shape, site: Site) -> Plan | None:
        def look() -> Plan | None:
            asked = self._holding(site.book.cell.name, site.request.accelerator).open
            victims = (self._gives(gang, shape) for gang in asked)
            return plan_among((victim for victim in victims if victim is not None), site)

        return self.once(site, (shape.qos, shape.estimate if shape.qos is QoS.PREEMPTIBLE else None), look)

    def once(self, site: Site, more: Hashable, look: Callable[[], Plan | None]) -> Plan | None:
        """What `look` finds at that site; it is asked again for equals only when others were told to leave there.

        Args:
            more: all that it depends on beside the site.
        """
        tried = self._tried[site.book.cell.name]
        key = (site.request, site.access, site.workers, site.kept, more)
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
        if cell not in self._books:
            self._books[cell] = self.scratch.book(cell).bare()
            self.scratch.keep(cell, Kept(self.scratch.now, self._books[cell]))
        return self._books[cell]

    def sites(self, gang: PendingGang, shape: Shape, within: Container[Request]) -> list[Site]:
        """Cells, and what a worker may be given there, in which the gang would fit if nothing ran."""
        scratch = self.scratch
        if shape not in self._options:
            access = access_of(shape, scratch.policy)
            self._options[shape] = [
                (cell.name, request, access)
                for cell in scratch.cells
                for request in shape.requests
                if closed(shape, cell) is None and room(cell, request, access) >= shape.min_workers
            ]
        return [
            Site(scratch, self._book(cell), request, access, shape.min_workers, scratch.reserved(cell, gang))
            for cell, request, access in self._options[shape]
            if request in within
        ]

    def _book(self, cell: str) -> Book:
        return self._books.get(cell) or self.scratch.book(cell)

    def _left_over(self, sites: Sequence[Site]) -> Plan | None:
        """Room that others leave anyway, and that nobody gets yet."""
        for site in sites:
            if site.book.cell.name in self._books and site.fits >= site.workers:
                fit = site.place(site.book)
                if fit is not None:
                    return Plan((), fit, 0.0)
        return None

    def _gives(self, gang: RunningGang, shape: Shape) -> Victim | None:
        """What it does for a gang of that shape; None where that is nothing, or where it was told to leave already."""
        if gang.uid in self._granted or not gives_at(gang, self.scratch.now, shape, self.scratch.policy):
            return None
        found = self._stoppables.get(gang.uid)
        if found is None:
            found = self._stoppables[gang.uid] = stoppable_of(gang, self.scratch)
        return found.for_class(shape)

    def movable(self, cell: str, accelerator: str) -> Iterator[Victim]:
        """Gangs with such devices there that may be moved and were not told to leave in this cycle."""
        key = (cell, accelerator)
        if key not in self._movable:
            gangs = self._holding(cell, accelerator).open
            self._movable[key] = [leaver(gang, StopReason.DEFRAGMENTED, self.scratch) for gang in gangs]
        return (one for one in self._movable[key] if one.gang.uid not in self._granted)

    def _one_for_one(self, shape: Shape, sites: dict[str, Site]) -> Plan | None:
        """For a gang of one worker: the cheapest of all gangs whose leaving is enough."""
        kind = shape.request.accelerator
        if kind not in self._ranked:
            gangs = (gang for cell in self.scratch.cells for gang in self._holding(cell.name, kind).open)
            self._ranked[kind] = ranked(gangs, self.scratch)
        candidates = self._ranked[kind]
        # Who was of no use to one of that kind is of none to the next: what comes free is given away at once.
        key = (shape.qos, shape.requests, shape.cells, shape.held_off, shape.capacity_types, shape.recovering)
        place = self._passed.get((key, shape.estimate if shape.qos is QoS.PREEMPTIBLE else None), 0)
        found, last = None, min(len(candidates), place + LOOKS)
        while found is None and place < last:
            gang = candidates[place][-1]
            site = sites.get(gang.cell)
            if site is not None and not gang.request.share and (gives := self._gives(gang, shape)) is not None:
                node = _node_after(site, gives)
                if node is not None:
                    found = Plan((gives,), Fit(gang.cell, site.request, (node,)), gives.cost)
            place += 1
        self._passed[key, shape.estimate if shape.qos is QoS.PREEMPTIBLE else None] = place
        return found


def nearest(sites: Iterable[Site]) -> list[Site]:
    """Those that are tried, those first where most of the gang fits already."""
    return sorted(sites, key=lambda site: (-site.fits, site.book.cell.name))[:CELLS]


def _node_after(site: Site, victim: Victim) -> str | None:
    """One of its nodes that could hold a worker once it is gone, or None."""
    request, held, book = site.request, victim.gang.request, site.book
    rows, usable = book.layout.rows, site.book.layout.usable(site.access)
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
