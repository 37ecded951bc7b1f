"""How the fleet stands as the scheduler sees it, kept up record by record: no cycle reads ten thousand gangs again."""

import heapq
from collections import defaultdict
from dataclasses import replace

from helios.control import fleet, headroom
from helios.control.capacity import cell_state, tenant_state
from helios.control.fleet import Prospect
from helios.control.use import Use
from helios.lifecycle import JobState
from helios.scheduler import CellState, Fleet, Headroom, PendingGang, RunningGang, Snapshot, TenantState
from helios.scheduler.estimates import Predictor, Work
from helios.store import Record, seconds

Gang = PendingGang | RunningGang


class Standing:
    """The scheduler's ledger of cells, tenants and gangs, with what it is told of estimates and past use.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self.use = Use()
        self._ledger = Fleet()
        self._cells: dict[str, CellState] = {}
        self._tenants: dict[str, TenantState] = {}
        self._gangs: dict[str, tuple[Gang, ...]] = {}
        self._headroom: dict[str, Headroom] = {}
        self._barred: frozenset[str] = frozenset()
        self._reopen: list[tuple[float, str]] = []
        self._now = 0.0
        self._predictor = Predictor()
        self._learned: set[str] = set()
        self._prospects: dict[str, tuple[Prospect, Record]] = {}
        self._alike: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)

    # What changed -----------------------------------------------------------------------------------------------------

    def put(self, record: Record) -> bool:
        """Take in a record; whether that may change what the scheduler decides."""
        if record.kind == "Cell":
            return self._put_cell(cell_state(record))
        if record.kind == "Tenant":
            return self._put_tenant(tenant_state(record))
        if record.kind not in {"Job", "Service"}:
            return False
        if record.kind == "Job":
            self._learn(record)
            if "preemptedAt" in record.status:
                self.use.preempted(record.spec["tenant"], record.uid, seconds(record.status["preemptedAt"]))
        wanted = self._put_headroom(record.uid, fleet.headroom_of(record))
        return self._put_gangs(record.uid, fleet.gangs(record, self._estimate(record))) or wanted

    def drop(self, record: Record) -> bool:
        """The record is gone, or cannot be read."""
        if record.kind == "Cell":
            self._ledger.drop_cell(record.name)
            return self._cells.pop(record.name, None) is not None
        if record.kind == "Tenant":
            self._ledger.drop_tenant(record.name)
            return self._tenants.pop(record.name, None) is not None
        self._learned.discard(record.uid)
        self.use.forget(record.uid)
        self._unqueue(record.uid)
        self._put_headroom(record.uid, None)
        return self._put_gangs(record.uid, ())

    def bar(self, uids: frozenset[str]) -> bool:
        """Nothing of these is offered a place: something of them still lives. Whether that is news."""
        moved = uids ^ self._barred
        self._barred = uids
        for uid in moved:
            for gang in self._gangs.get(uid, ()):
                self._show(gang)
        return bool(moved)

    def _put_cell(self, state: CellState) -> bool:
        if self._cells.get(state.name) == state:
            return False
        self._cells[state.name] = state
        self._ledger.put_cell(state)
        return True

    def _put_tenant(self, state: TenantState) -> bool:
        changed = self._tenants.get(state.name) != state
        self._tenants[state.name] = state
        return changed

    def _put_headroom(self, uid: str, wanted: Headroom | None) -> bool:
        if wanted is None:
            return self._headroom.pop(uid, None) is not None
        changed = self._headroom.get(uid) != wanted
        self._headroom[uid] = wanted
        return changed

    def _put_gangs(self, uid: str, gangs: tuple[Gang, ...]) -> bool:
        before = self._gangs.get(uid, ())
        if gangs == before:
            return False
        for gang in before:
            self._count(gang, -1)
            if all(gang.uid != other.uid for other in gangs):
                self._ledger.drop(gang.uid)
        for gang in gangs:
            self._count(gang, 1)
            self._show(gang)
        if gangs:
            self._gangs[uid] = gangs
        else:
            del self._gangs[uid]
        return list(map(_essence, before)) != list(map(_essence, gangs))

    def _count(self, gang: Gang, sign: int) -> None:
        if isinstance(gang, RunningGang):
            self.use.hold(gang.tenant, sign * gang.held)

    def _show(self, gang: Gang) -> None:
        if isinstance(gang, RunningGang):
            self._ledger.put(gang)
        elif gang.uid in self._barred:
            self._ledger.drop(gang.uid)
        else:
            self._ledger.put(fleet.offered(gang, self._now))
            for _, until in gang.held_off:
                if until > self._now:
                    heapq.heappush(self._reopen, (until, gang.uid))

    # What is expected -------------------------------------------------------------------------------------------------

    def runs_s(self, uid: str, workers: int) -> float | None:
        """Seconds that a job which waits is expected to run with so many workers."""
        found = self._prospects.get(uid)
        estimate = None if found is None else self._expected(found[0])
        return None if found is None or estimate is None else estimate * fleet.slowdown(found[1], workers)

    def _estimate(self, record: Record) -> float | None:
        if record.kind != "Job" or not fleet.waits(record):
            self._unqueue(record.uid)
            return None
        found = fleet.prospect(record)
        self._unqueue(record.uid)
        self._prospects[record.uid] = (found, record)
        self._alike[_kind(found.work)][record.uid] = None
        return self._expected(found)

    def _expected(self, prospect: Prospect) -> float | None:
        expected = self._predictor.expected(prospect.work)
        if expected is None:
            return None
        return min(expected, prospect.most or expected) * prospect.left

    def _learn(self, record: Record) -> None:
        """A job that succeeded says how long others like it will run; they are told at its first, second, fourth ..."""
        if record.state != JobState.SUCCEEDED or record.uid in self._learned:
            return
        self._learned.add(record.uid)
        took = fleet.ran(record)
        if took is None:
            return
        work = fleet.prospect(record).work
        count = self._predictor.learn(work, took)
        if count & (count - 1) == 0:
            for uid in tuple(self._alike.get(_kind(work), ())):
                prospect, waiting = self._prospects[uid]
                self._put_gangs(uid, fleet.gangs(waiting, self._expected(prospect)))

    def _unqueue(self, uid: str) -> None:
        found = self._prospects.pop(uid, None)
        if found is not None:
            kind = _kind(found[0].work)
            self._alike[kind].pop(uid, None)
            if not self._alike[kind]:
                del self._alike[kind]

    # What the scheduler sees ------------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> Snapshot:
        """Everything as it is now."""
        self._now = now
        while self._reopen and self._reopen[0][0] <= now:
            _, uid = heapq.heappop(self._reopen)
            for gang in self._gangs.get(uid, ()):
                self._show(gang)
        self.use.look(now)
        for tenant in self._tenants.values():
            used, preemptions = self.use.of(tenant.name)
            self._ledger.put_tenant(replace(tenant, usage=used, preemptions=preemptions))
        self._ledger.last_preemption = self.use.last_preemption()
        found = self._ledger.snapshot(now)
        held = headroom.within_quota(self._headroom.values(), found)
        if held != found.headroom:
            self._ledger.put_headroom(held)
            found = self._ledger.snapshot(now)
        return found


def _essence(gang: Gang) -> Gang:
    """What a cycle could not decide otherwise for is left out: one more checkpoint, what a start has taken.

    The first checkpoint is not left out: it opens the gang to its own class.
    """
    if not isinstance(gang, RunningGang):
        return gang
    return replace(gang, checkpointed_at=None if gang.checkpointed_at is None else 0.0, restart_s=0.0)


def _kind(work: Work) -> tuple[str, str, str]:
    return (work.tenant, work.size, work.group)
