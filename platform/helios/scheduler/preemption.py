"""Who leaves so that another may start: whole gangs, the cheapest, in the narrowest domain, tried out before granted.

What a preemption loses is in device-seconds: work since the last checkpoint and the restart. A gang that publishes no
checkpoint is charged a fixed loss, so that hiding progress never protects it. Gangs are left alone that have not run
for their class's minimum, that were preempted as often as a job or its tenant may be, or that are leaving already.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from helios.scheduler.book import LEVELS, Access, Book, Bools, room
from helios.scheduler.cell_stage import Fit, access_of, place
from helios.scheduler.decisions import Change, Preempt, Resize, StopReason
from helios.scheduler.lines import Shape
from helios.scheduler.policy import Policy
from helios.scheduler.queue import QOS_ORDER
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import PendingGang, Request, RunningGang
from helios.scheduler.verdicts import closed
from helios.spec import QoS

CELLS = 3
"""Cells that are tried, those first where most of the gang fits already."""
DOMAINS = 4
"""Topology domains of the narrowest level that are tried in a cell."""


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """A running gang that could give room.

    Attributes:
        freed: nodes that its leaving workers are on; all of its nodes, or those of a shrinking gang's surplus.
        kept: nodes that it goes on with; empty where it leaves as a whole.
        cost: device-seconds that are lost.
    """

    gang: RunningGang
    reason: StopReason
    freed: tuple[str, ...]
    kept: tuple[str, ...]
    cost: float

    @property
    def devices(self) -> tuple[int, ...]:
        return self.gang.devices if len(self.freed) == len(self.gang.nodes) else ()

    @property
    def density(self) -> float:
        """Cost of a device that comes free."""
        return self.cost / max(1e-9, len(self.freed) * self.gang.request.devices)


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
                gain = len(victim.freed) * running.request.devices
                yield Resize(
                    running.uid,
                    running.cell,
                    victim.kept,
                    len(victim.kept),
                    victim.reason,
                    message,
                    victim.cost,
                    gain,
                    gang.uid,
                )
            else:
                message = f"makes room for {whom}; costs {victim.cost:.0f} device-seconds"
                yield Preempt(running.uid, running.cell, victim.reason, message, gang.uid, victim.cost)


def loss(gang: RunningGang, policy: Policy, now: float) -> float:
    """Device-seconds that are lost where the gang leaves now: work since its last checkpoint, and its restart."""
    since = policy.default_loss if gang.checkpointed_at is None else max(0.0, now - gang.checkpointed_at)
    return gang.held * (since + gang.restart_s)


def plan(gang: PendingGang, shape: Shape, scratch: Scratch, *, lacking: float = 0.0) -> Plan | None:
    """The cheapest way to make room for the gang by stopping others; None where none may be, or where it is no use.

    Args:
        lacking: devices of the gang's own quota that borrowers hold; only they are stopped then.
    """
    ranked = sorted(sites(shape, scratch), key=lambda site: (-site.fits, site.book.cell.name))
    plans = [
        found
        for site in ranked[:CELLS]
        if (found := plan_among(_eligible(gang, site, lacking=lacking), site, lacking=lacking)) is not None
    ]
    return min(plans, key=lambda one: (one.cost, one.fit.cell), default=None)


def sites(shape: Shape, scratch: Scratch) -> Iterator["Site"]:
    """Cells, and what a worker may be given there, in which the gang would fit if nothing ran."""
    access = access_of(shape, scratch.policy)
    for cell in scratch.cells:
        for request in shape.requests:
            if closed(shape, cell) is None and room(cell, request, access) >= shape.min_workers:
                yield Site(scratch, scratch.book(cell.name), request, access, shape.min_workers)


@dataclass(frozen=True, slots=True)
class Site:
    """Where room is looked for, and for what."""

    scratch: Scratch
    book: Book
    request: Request
    access: Access
    workers: int

    @property
    def fits(self) -> int:
        """Workers that fit already."""
        return self.book.look(self.request, self.access).total

    def place(self, book: Book) -> Fit | None:
        """The place that the gang would get if that book were true."""
        look = book.look(self.request, self.access)
        if look.total < self.workers:
            return None
        demand = self.scratch.demand(self.request.accelerator)
        return place(book, self.request, self.workers, look.capacities, policy=self.scratch.policy, demand=demand)


def plan_among(candidates: Iterable[Victim], site: Site, *, lacking: float = 0.0) -> Plan | None:
    """The cheapest of these that have to leave the cell for the gang; None where it would not fit without all."""
    victims = list(candidates)
    plans = []
    for inside in _domains(site, victims) if victims else ():
        chosen = _enough(site, inside, victims, lacking)
        fit = site.place(_without(site.book, chosen)) if chosen else None
        if chosen and fit is not None:
            plans.append(Plan(tuple(chosen), fit, sum(victim.cost for victim in chosen)))
    return min(plans, key=lambda one: (one.cost, one.fit.nodes), default=None)


# Who may be stopped ---------------------------------------------------------------------------------------------------


def _eligible(gang: PendingGang, site: Site, *, lacking: float) -> Iterator[Victim]:
    scratch, request = site.scratch, site.request
    policy, now = scratch.policy, scratch.now
    budgets = {tenant.name: tenant.preemptions < policy.tenant_budget for tenant in scratch.snapshot.tenants}
    for running in site.book.gangs.values():
        if request.accelerator and running.request.accelerator != request.accelerator:
            continue
        reason = _reason(gang, running, request, scratch, reclaim=lacking > 0)
        if reason is None or running.leaving_at is not None:
            continue
        if running.preemptions >= policy.job_budget or not budgets.get(running.tenant, True):
            continue
        if now - (now if running.started_at is None else running.started_at) < policy.min_run.get(running.qos, 0.0):
            continue
        whole = Victim(running, reason, running.nodes, (), loss(running, policy, now))
        surplus = len(running.nodes) - running.fewest
        if surplus > 0 and policy.elastic and not running.request.share:
            kept, freed = running.nodes[: running.fewest], running.nodes[running.fewest :]
            cost = loss(running, policy, now) * len(kept) / len(running.nodes)
            shrunk = Victim(running, StopReason.RESIZED, freed, kept, cost)
            yield min(whole, shrunk, key=lambda victim: victim.density)
        else:
            yield whole


def _reason(
    gang: PendingGang, running: RunningGang, request: Request, scratch: Scratch, *, reclaim: bool
) -> StopReason | None:
    """Why the running gang would have to leave for the other one, or None where it need not."""
    if running.qos is QoS.GUARANTEED:
        return None
    if reclaim:
        borrows = scratch.quotas.borrowed(running.tenant, request.accelerator) > 0
        same = scratch.quotas.same_cohort(gang.tenant, running.tenant)
        return StopReason.RECLAIMED if borrows and same else None
    return StopReason.PREEMPTED if QOS_ORDER[gang.qos] < QOS_ORDER[running.qos] else None


# Where ----------------------------------------------------------------------------------------------------------------


def _domains(site: Site, victims: Sequence[Victim]) -> Iterator[Bools]:
    """Node sets of the narrowest level in which the gang would fit if all victims left; the emptiest first."""
    book, workers, policy = site.book, site.workers, site.scratch.policy
    emptied = _without(book, victims).look(site.request, site.access).capacities
    now = book.look(site.request, site.access).capacities
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


def _without(book: Book, victims: Sequence[Victim]) -> Book:
    emptied = book.copy()
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
    for victim in sorted(useful, key=lambda one: (-QOS_ORDER[one.gang.qos], one.density, one.gang.uid)):
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
        self._book, self._request = site.book.copy(), site.request
        self._inside = inside & site.book.layout.usable(site.access)
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
