"""A plan of who leaves one cell for a gang: the cheapest, in the narrowest domain, tried out on its book."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import numpy as np

from helios.scheduler.book import Book, Want
from helios.scheduler.cell_stage import Fit, place
from helios.scheduler.decisions import Change, Preempt, Resize
from helios.scheduler.emptying import Emptying, counted
from helios.scheduler.layout import LEVELS, Bools, Ints
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import PendingGang, Request
from helios.scheduler.victims import Victim

DOMAINS = 4
"""Topology domains of the narrowest level that are tried in a cell."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Gangs that leave, and the place that their beneficiary gets for it."""

    victims: tuple[Victim, ...]
    fit: Fit
    cost: float
    moved: tuple[Fit, ...] = ()

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
                place = self.fit.cell if self.fit.cell != running.cell else ""
                yield Preempt(running.uid, running.cell, victim.reason, message, gang.uid, victim.cost, place)


@dataclass(frozen=True)
class Site:
    """Where room is looked for, and for what.

    Attributes:
        kept: nodes that are reserved for others.
    """

    scratch: Scratch
    book: Book
    want: Want
    workers: int
    kept: frozenset[str] = frozenset()

    @property
    def request(self) -> Request:
        """What each worker is given."""
        return self.want.request

    @cached_property
    def usable(self) -> Bools:
        """Nodes that the gang could be given."""
        usable, layout = self.book.layout.usable(self.want.access), self.book.layout
        if self.kept:
            usable = usable.copy()
            usable[[layout.rows[name] for name in self.kept]] = False
        return usable

    @cached_property
    def capacities(self) -> Ints:
        """Workers that each node could be given now; their sum may be less than the gang needs."""
        return np.where(self.usable, self.book.fitting(self.request), 0)

    @cached_property
    def fits(self) -> int:
        """Workers that fit already."""
        return self.book.see(self.want).total

    def place(self, book: Book) -> Fit | None:
        """The place that the gang would get if that book were true."""
        capacities = np.where(self.usable, book.fitting(self.request), 0)
        if capacities.sum() < self.workers:
            return None
        demand = self.scratch.demand(self.request.accelerator)
        return place(book, self.request, self.workers, capacities, policy=self.scratch.policy, demand=demand)


def plan_among(candidates: Iterable[Victim], site: Site, *, lacking: float = 0.0) -> Plan | None:
    """The cheapest of these that have to leave the cell for the gang; None where it would not fit without all."""
    victims = sorted(candidates, key=lambda one: one.order)
    there = _Places(site, victims)
    sets = [chosen for inside in there.domains() if (chosen := there.enough(inside, lacking))] if victims else []
    priced = [(sum(victim.cost for victim in chosen), chosen) for chosen in sets]
    best: Plan | None = None
    for cost, chosen in sorted(priced, key=itemgetter(0)):
        if best is not None and cost > best.cost:
            break
        fit = site.place(without(site.book, chosen))
        if fit is not None and (best is None or fit.nodes < best.fit.nodes):
            best = Plan(tuple(chosen), fit, cost)
    return best


def without(book: Book, victims: Sequence[Victim]) -> Book:
    """What would be free without them."""
    emptied = book.bare()
    for victim in victims:
        vacate(emptied, victim)
    return emptied


def vacate(book: Book, victim: Victim) -> None:
    """Enter in the book that it is gone."""
    book.take(victim.gang.request, victim.freed, victim.devices, sign=-1)


class _Places:
    """A cell and who could leave it, the one that is stopped first before all others."""

    def __init__(self, site: Site, victims: Sequence[Victim]) -> None:
        self._site, self._victims, self._usable = site, victims, site.usable
        self._on: defaultdict[int, list[Victim]] = defaultdict(list)
        rows = site.book.layout.rows
        for one in victims:
            for name, _ in counted(one.freed):
                self._on[rows.get(name, -1)].append(one)

    def domains(self) -> Iterator[Bools]:
        """Node sets of the narrowest level in which the gang would fit if all victims left; the emptiest first."""
        site, book, workers, policy = self._site, self._site.book, self._site.workers, self._site.scratch.policy
        future, now = Emptying(book, site.request, self._usable, site.capacities), site.capacities
        future.leave_all((one.gang.request, one.freed, one.devices) for one in self._victims)
        emptied = future.capacities
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

    def enough(self, inside: Bools, lacking: float) -> list[Victim] | None:
        """Victims, the cheapest a device first, until the gang fits; then those are let go that turned out unneeded."""
        inside = inside & self._usable
        tally = _Tally(self._site, inside, lacking)
        chosen: dict[str, Victim] = {}
        for one in self._useful(inside):
            if tally.enough():
                break
            tally.count(one)
            chosen[one.gang.uid] = one
        if not tally.enough():
            return None
        for one in sorted(chosen.values(), key=lambda one: (-one.cost, one.gang.uid)):
            tally.count(one, sign=-1)
            if tally.enough():
                del chosen[one.gang.uid]
            else:
                tally.count(one)
        return list(chosen.values())

    def _useful(self, inside: Bools) -> Iterable[Victim]:
        """Those that leave some node of the domain."""
        rows = np.flatnonzero(inside).tolist()
        if len(rows) == 1:
            return self._on.get(rows[0], ())
        there = {one.gang.uid for row in rows for one in self._on.get(row, ())}
        return (one for one in self._victims if one.gang.uid in there)


class _Tally:
    """Whether the gang fits inside a domain, and its owner has its own back, while gangs leave."""

    def __init__(self, site: Site, inside: Bools, lacking: float) -> None:
        self._future = Emptying(site.book, site.request, inside, site.capacities)
        self._needed, self._lacking = site.workers, lacking

    def enough(self) -> bool:
        return self._future.total >= self._needed and self._lacking <= 0

    def count(self, victim: Victim, *, sign: int = 1) -> None:
        """It leaves; with `sign=-1` it stays after all."""
        held = victim.gang.request
        self._future.leave(held, victim.freed, victim.devices, sign=sign)
        self._lacking -= sign * len(victim.freed) * held.devices
