"""Making room: whole gangs leave, the cheapest, in the narrowest domain, tried out before it is granted."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from helios.scheduler.book import LEVELS, Access, Book, Bools, room
from helios.scheduler.cell_stage import Fit, access_of, place
from helios.scheduler.decisions import Change, Preempt, Resize
from helios.scheduler.lines import Shape
from helios.scheduler.scratch import Kept, Scratch
from helios.scheduler.snapshot import PendingGang, Request, RunningGang
from helios.scheduler.verdicts import closed
from helios.scheduler.victims import Stoppable, Victim, for_owner, ranked, stoppable, stoppable_of
from helios.spec import QoS

CELLS = 3
"""Cells that are tried, those first where most of the gang fits already."""
LOOKS = 400
"""Running gangs that are looked at for a gang of one worker, the cheapest first."""
DOMAINS = 4
"""Topology domains of the narrowest level that are tried in a cell."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Gangs that leave one cell, and the place that their beneficiary gets for it."""

    victims: tuple[Victim, ...]
    fit: Fit
    cost: float

    def changes(self, gang: PendingGang) -> Iterator[Change]:
        """The plan as decisions."""
        for victim in self.victims:
            running, whom = victim.gang, f"{gang.qos} gang {gang.name}"
            if victim.kept:
                message = f"gives up {len(victim.freed)} of {len(running.nodes)} workers for {whom}"
                gain, workers = len(victim.freed) * running.request.devices, len(victim.kept)
                yield Resize(
                    running.uid,
                    running.cell,
                    victim.kept,
                    workers,
                    victim.reason,
                    message,
                    victim.cost,
                    gain,
                    gang.uid,
                )
            else:
                message = f"makes room for {whom}; costs {victim.cost:.0f} device-seconds"
                yield Preempt(running.uid, running.cell, victim.reason, message, gang.uid, victim.cost)


@dataclass(frozen=True, slots=True)
class Site:
    """Where room is looked for, and for what.

    Attributes:
        kept: nodes that are reserved for others.
    """

    scratch: Scratch
    book: Book
    request: Request
    access: Access
    workers: int
    kept: frozenset[str] = frozenset()

    @property
    def usable(self) -> Bools:
        """Nodes that the gang could be given."""
        usable, layout = self.book.layout.usable(self.access), self.book.layout
        if self.kept:
            usable = usable.copy()
            usable[[layout.rows[name] for name in self.kept]] = False
        return usable

    @property
    def fits(self) -> int:
        """Workers that fit already."""
        return self.book.look(self.request, self.access).total

    def place(self, book: Book) -> Fit | None:
        """The place that the gang would get if that book were true."""
        capacities = np.where(self.usable, book.fitting(self.request), 0)
        if capacities.sum() < self.workers:
            return None
        demand = self.scratch.demand(self.request.accelerator)
        return place(book, self.request, self.workers, capacities, policy=self.scratch.policy, demand=demand)


class Rooms:
    """The room that is made in one cycle: each plan is tried on what the ones before it left."""

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch
        self._books: dict[str, Book] = {}
        self._granted: set[str] = set()
        self._known: dict[tuple[str, str], list[Stoppable]] = {}
        self._options: dict[Shape, list[tuple[str, Request, Access]]] = {}
        self._ranked: dict[str, list[tuple[float, float, str, RunningGang]]] = {}
        self._passed: dict[tuple[object, object], int] = {}

    def plan(self, gang: PendingGang, shape: Shape, within: Container[Request], *, lacking: float = 0.0) -> Plan | None:
        """The cheapest way to make room by stopping others; None where none may be, or where it would be no use.

        Args:
            within: what its tenant's quota allows a worker to be given.
            lacking: devices of the gang's own quota that borrowers hold; only they are stopped then.
        """
        sites = self.sites(gang, shape, within)
        if not lacking and (over := self._left_over(sites)) is not None:
            return over
        if not lacking and shape.min_workers == 1 and shape.request.accelerators:
            found = self._one_for_one(
                shape, {site.book.cell.name: site for site in sites if site.request == shape.request}
            )
            if found is not None:
                return found
        plans = []
        for site in sorted(sites, key=lambda site: (-site.fits, site.book.cell.name))[:CELLS]:
            book, scratch = site.book, self.scratch
            known = self._stoppable(book.cell.name, site.request.accelerator)
            victims = (
                for_owner(scratch.book(book.cell.name), gang, scratch)
                if lacking
                else (one.for_class(shape) for one in known)
            )
            free = (victim for victim in victims if victim is not None and victim.gang.uid not in self._granted)
            found = plan_among(free, site, lacking=lacking)
            plans += [found] if found is not None else []
        return min(plans, key=lambda one: (one.cost, one.fit.cell), default=None)

    def grant(self, plan: Plan) -> None:
        """They leave, and what comes free is the beneficiary's."""
        cell, fit = plan.fit.cell, plan.fit
        self._granted.update(victim.gang.uid for victim in plan.victims)
        if cell not in self._books:
            self._books[cell] = self.scratch.book(cell).bare()
            self.scratch.keep(cell, Kept(self.scratch.now, self._books[cell]))
        book = self._books[cell]
        for victim in plan.victims:
            _free(book, victim)
        book.take(fit.request, fit.nodes, fit.devices)

    def is_granted(self, uid: str) -> bool:
        """Whether that gang leaves already."""
        return uid in self._granted

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
            Site(scratch, self._book(cell), request, access, shape.min_workers, scratch.reserved(cell, gang.uid))
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

    def _stoppable(self, cell: str, accelerator: str) -> list[Stoppable]:
        """Who may be asked for room there; found once a cycle."""
        key = (cell, accelerator)
        if key not in self._known:
            self._known[key] = list(stoppable(self.scratch.book(cell), accelerator, self.scratch))
        return self._known[key]

    def _one_for_one(self, shape: Shape, sites: dict[str, Site]) -> Plan | None:
        """For a gang of one worker: the cheapest of all gangs whose leaving is enough."""
        kind, scratch = shape.request.accelerator, self.scratch
        if kind not in self._ranked:
            self._ranked[kind] = ranked(scratch, kind)
        candidates = self._ranked[kind]
        # Who was of no use to one of that kind is of none to the next: what comes free is given away at once.
        key = (shape.qos, shape.requests, shape.cells, shape.held_off, shape.capacity_types, shape.recovering)
        place = self._passed.get((key, shape.estimate if shape.qos is QoS.PREEMPTIBLE else None), 0)
        found, last = None, min(len(candidates), place + LOOKS)
        while found is None and place < last:
            gang = candidates[place][-1]
            site = sites.get(gang.cell)
            if site is not None and gang.uid not in self._granted and not gang.request.share:
                victim = stoppable_of(gang, scratch).for_class(shape)
                node = _node_after(site, victim) if victim is not None else None
                if victim is not None and node is not None:
                    found = Plan((victim,), Fit(gang.cell, site.request, (node,)), victim.cost)
            place += 1
        self._passed[key, shape.estimate if shape.qos is QoS.PREEMPTIBLE else None] = place
        return found


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


def plan_among(candidates: Iterable[Victim], site: Site, *, lacking: float = 0.0) -> Plan | None:
    """The cheapest of these that have to leave the cell for the gang; None where it would not fit without all."""
    victims = list(candidates)
    plans = []
    for inside in _domains(site, victims) if victims else ():
        chosen = _enough(site, inside, victims, lacking)
        fit = site.place(without(site.book, chosen)) if chosen else None
        if chosen and fit is not None:
            plans.append(Plan(tuple(chosen), fit, sum(victim.cost for victim in chosen)))
    return min(plans, key=lambda one: (one.cost, one.fit.nodes), default=None)


# Where ----------------------------------------------------------------------------------------------------------------


def _domains(site: Site, victims: Sequence[Victim]) -> Iterator[Bools]:
    """Node sets of the narrowest level in which the gang would fit if all victims left; the emptiest first."""
    book, workers, policy = site.book, site.workers, site.scratch.policy
    usable = site.usable
    emptied = np.where(usable, without(book, victims).fitting(site.request), 0)
    now = np.where(usable, book.fitting(site.request), 0)
    levels = LEVELS if policy.topology and policy.cell_stage == "helios" else ()
    if emptied.max(initial=0) >= workers:
        rows = np.flatnonzero(emptied >= workers)
        for row in rows[np.lexsort((rows, -now[rows]))][: 4 * DOMAINS]:
            yield np.arange(len(emptied)) == row
        return
    for level in levels:
        domain = book.layout.domains[level]
        sums = np.bincount(domain, weights=emptied)
        holds = np.flatnonzero(sums >= workers)
        if holds.size:
            free = np.bincount(domain, weights=now, minlength=len(sums))[holds]
            for number in holds[np.lexsort((holds, -free))][:DOMAINS]:
                yield domain == number
            return
    if emptied.sum() >= workers:
        yield np.ones(len(emptied), dtype=np.bool_)


def without(book: Book, victims: Sequence[Victim]) -> Book:
    """What would be free without them."""
    emptied = book.bare()
    for victim in victims:
        _free(emptied, victim)
    return emptied


def _free(book: Book, victim: Victim, *, sign: int = -1) -> None:
    book.take(victim.gang.request, victim.freed, victim.devices, sign=sign)


# How many -------------------------------------------------------------------------------------------------------------


def _enough(site: Site, inside: Bools, victims: Sequence[Victim], lacking: float) -> list[Victim] | None:
    """Victims, the cheapest a device first, until the gang fits; then those are let go that turned out unneeded."""
    tally = _Tally(site, inside, lacking)
    useful = [victim for victim in victims if tally.touches(victim)]
    chosen: dict[str, Victim] = {}
    for victim in sorted(useful, key=lambda one: one.order):
        if tally.enough():
            break
        tally.count(victim)
        chosen[victim.gang.uid] = victim
    if not tally.enough():
        return None
    for victim in sorted(chosen.values(), key=lambda one: (-one.cost, one.gang.uid)):
        tally.count(victim, sign=-1)
        if tally.enough():
            del chosen[victim.gang.uid]
        else:
            tally.count(victim)
    return list(chosen.values())


class _Tally:
    """Workers that fit inside a domain while gangs leave it."""

    def __init__(self, site: Site, inside: Bools, lacking: float) -> None:
        self._book, self._request = site.book.bare(), site.request
        self._inside = inside & site.usable
        self._rows = site.book.layout.rows
        self._names = {site.book.layout.names[row] for row in np.flatnonzero(self._inside)}
        self._needed, self._lacking = site.workers, lacking
        self._fitting = int(np.where(self._inside, self._book.fitting(site.request), 0).sum())

    def enough(self) -> bool:
        return self._fitting >= self._needed and self._lacking <= 0

    def touches(self, victim: Victim) -> bool:
        return not self._names.isdisjoint(victim.freed)

    def count(self, victim: Victim, *, sign: int = 1) -> None:
        """It leaves; with `sign=-1` it stays after all."""
        rows = np.array([self._rows[name] for name in set(victim.freed) if name in self._rows], dtype=np.int64)
        rows = rows[self._inside[rows]]
        before = int(self._book.fitting_on(self._request, rows).sum())
        _free(self._book, victim, sign=-sign)
        self._fitting += int(self._book.fitting_on(self._request, rows).sum()) - before
        self._lacking -= sign * len(victim.freed) * victim.gang.request.devices
