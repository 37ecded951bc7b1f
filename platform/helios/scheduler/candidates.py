"""Which running gangs may be asked for room, now or later, and by whom: of all cells at once, as arrays.

What a preemption loses is in seconds of the gang: work since the last checkpoint and the restart. A gang that publishes
no checkpoint is charged a fixed loss, so that hiding progress protects it from no class above its own. Gangs are left
alone that have not run for their class's minimum, that were preempted as often as a job or its tenant may be, or that
are leaving already.

Whole gangs leave for a class above theirs, or where they hold borrowed quota that its owner wants back. Within
`preemptible`, one that has run for long makes room for one that will be short (least attained service: Gu et al.,
"Tiresias", NSDI 2019), unless it never published a checkpoint: it would begin again, and by all that it has run that is
longer than what it makes room for. A running gang gives up workers above its minimum for its own class, too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np

from helios.scheduler.fragmentation import Floats
from helios.scheduler.holders import COLUMNS, Rows
from helios.scheduler.layout import Bools, Ints
from helios.scheduler.lines import Shape
from helios.scheduler.queue import QOS_ORDER
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import RunningGang
from helios.spec import QoS

_LOWEST = QOS_ORDER[QoS.PREEMPTIBLE]


class Candidates:
    """Gangs with devices of one type, in a cycle's books before anybody was asked for room.

    Attributes:
        gangs: a row each.
        open: rows that may be asked for room.
        young: rows that may be asked later: they have not run for their class's minimum.
        yields: a gang of its own class goes before it that takes fewer seconds, now or from when on it may be asked.
    """

    def __init__(self, accelerator: str, scratch: Scratch) -> None:
        self._policy, self._now = scratch.policy, scratch.now
        tables = [scratch.book(cell.name).holding(accelerator) for cell in scratch.cells]
        self.gangs: Sequence[RunningGang] = [gang for table in tables for gang in table.gangs]
        sizes = [len(table.gangs) for table in tables]
        self._cells = {cell.name: number for number, cell in enumerate(scratch.cells)}
        self._cell: Ints = np.repeat(np.arange(len(tables)), sizes)
        rows: Rows = np.concatenate([np.empty((0, len(COLUMNS))), *(table.rows for table in tables)])
        self._rank, self._started, self._saved, self._restart, self._workers, self._fewest, *more = rows.T
        devices, share, stopped, node = more
        self._held = self._workers * devices
        starts = np.cumsum([0, *(len(scratch.book(cell.name).layout.names) for cell in scratch.cells)])
        self._node: Ints = np.where(node < 0, -1, starts[self._cell] + node.astype(np.int64))
        elastic = self._policy.elastic
        self._surplus: Bools = (self._workers > self._fewest) & (share == 0) & elastic
        self._from = self._askable_from(stopped, scratch)
        may = self._from <= self._now
        self.open: Ints = np.flatnonzero(may)
        self.young: Ints = np.flatnonzero(~may & (self._from < math.inf))
        self._open_of = np.searchsorted(self.open, np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))).tolist()
        moment = np.full_like(self._from, self._now)
        moment[self.young] = self._from[self.young]
        self.yields: Floats = self._yields_at(moment)
        self._gives: dict[tuple[int, float | None], Bools] = {}

    def _askable_from(self, stopped: Floats, scratch: Scratch) -> Floats:
        """From when on each may be asked to leave; infinity where that is never, as things stand."""
        policy = self._policy
        least = np.array([policy.min_run.get(qos, 0.0) for qos in QOS_ORDER])[self._rank.astype(np.intp)]
        # Who was admitted in this very cycle is not stopped again in it.
        unknown = np.where(least > 0, self._now + least, math.inf)
        begin = np.where(np.isnan(self._started), unknown, self._started + least)
        begin[stopped >= policy.job_budget] = math.inf
        limit = policy.tenant_budget
        if limit <= 0 or any(tenant.preemptions >= limit for tenant in scratch.snapshot.tenants):
            tenants = (scratch.quotas.tenant(gang.tenant) for gang in self.gangs)
            begin[np.array([tenant.preemptions >= limit for tenant in tenants], dtype=np.bool_)] = math.inf
        return begin

    def _lost_at(self, moment: Floats | float) -> Floats:
        """Seconds that are lost of each where it leaves then."""
        since = np.where(np.isnan(self._saved), self._policy.default_loss, np.maximum(0.0, moment - self._saved))
        lost: Floats = since + self._restart
        return lost

    def _yields_at(self, moment: Floats) -> Floats:
        attained = self._policy.least_attained
        if not attained:
            return np.zeros_like(moment)
        # What ran for long has probably as much before it; a short one is through sooner, price included. Without a
        # checkpoint all that it ran would be lost, which is no less than what the other takes.
        yields = (moment - self._started) / attained - self._lost_at(moment)
        known = (self._rank == _LOWEST) & ~np.isnan(self._saved) & ~np.isnan(self._started)
        return np.where(known, yields, 0.0)

    def gives(self, shape: Shape) -> Bools:
        """Rows that do something for a gang of that shape once they may be asked."""
        rank, estimate = QOS_ORDER[shape.qos], shape.estimate if shape.qos is QoS.PREEMPTIBLE else None
        found = self._gives.get((rank, estimate))
        if found is None:
            same = self._surplus if shape.estimate is None else self._surplus | (self.yields > shape.estimate)
            found = self._gives[rank, estimate] = (self._rank > rank) | ((self._rank == rank) & same)
        return found

    def may_hold(self, rows: Ints, free: Ints, devices: int) -> Bools:
        """Of these rows: whether so many devices are on one node of it once it is gone; True where that is unknown.

        Args:
            free: devices that nobody holds, on each node of each cell.
        """
        node = self._node[rows]
        found: Bools = (node < 0) | (free[node] + self._held[rows] >= devices)
        return found

    def open_in(self, cell: str) -> Ints:
        """Rows of one cell that may be asked for room."""
        number = self._cells[cell]
        rows: Ints = self.open[self._open_of[number] : self._open_of[number + 1]]
        return rows

    def smaller(self, rows: Ints, devices: float) -> Ints:
        """Those of the rows that hold fewer devices than that."""
        found: Ints = rows[self._held[rows] < devices]
        return found

    def standing(self, rows: Ints) -> Ints:
        """Those of the rows whose class needs quota."""
        found: Ints = rows[self._rank[rows] < _LOWEST]
        return found

    def useful_from(self, shape: Shape, below: Mapping[str, float]) -> float:
        """When the first that is young may be asked and gives something; infinity where none will.

        Args:
            below: the cells that count; who holds fewer devices there than that is of use, too.
        """
        limits: Floats = np.full(len(self._cells), math.nan)
        limits[[self._cells[cell] for cell in below]] = list(below.values())
        limit = limits[self._cell[self.young]]
        useful = (self._held[self.young] < limit) | (self.gives(shape)[self.young] & ~np.isnan(limit))
        return float(self._from[self.young][useful].min(initial=math.inf))

    def first_from(self, is_meant: Callable[[RunningGang], bool]) -> float:
        """When the first such gang may be asked that is young and of a class that needs quota."""
        meant = (row for row in self.standing(self.young) if is_meant(self.gangs[row]))
        return min((float(self._from[row]) for row in meant), default=math.inf)

    @cached_property
    def ranked(self) -> Ints:
        """Open rows: the lowest class first, of that the cheapest a device, of equals by uid."""
        rows, surplus = self.open, (self._workers - self._fewest)[self.open]
        cost = self._lost_at(self._now)[rows]
        # What it gives up by shrinking may come cheaper.
        shrunk = np.divide(cost * self._fewest[rows], surplus, out=np.full_like(cost, math.inf), where=surplus != 0)
        cost, rank = np.minimum(cost, shrunk), -self._rank[rows]
        order = np.lexsort((cost, rank))
        found, cost, rank = rows[order], cost[order], rank[order]
        alike = np.flatnonzero((cost[1:] == cost[:-1]) & (rank[1:] == rank[:-1]))
        for run in np.split(alike, np.flatnonzero(np.diff(alike) > 1) + 1) if alike.size else ():
            equals = slice(run[0], run[-1] + 2)
            found[equals] = sorted(found[equals], key=lambda row: self.gangs[row].uid)
        return found
