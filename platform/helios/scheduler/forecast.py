"""When gangs that wait will start: the real cycle, played forward on a virtual clock by what is known now.

What runs ends when it is expected to, what is admitted then runs for as long as it is expected to, who is told to leave
leaves and waits again, and nobody new comes. That is a lower bound on the work ahead and no more than a point: how far
off such forecasts are is learned from those before (`helios.scheduler.calibration`).
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from helios.scheduler.cycle import Cycle
from helios.scheduler.decisions import Admit, Preempt, Resize
from helios.scheduler.fleet import Fleet
from helios.scheduler.policy import Policy
from helios.scheduler.schedule import DEFAULT, schedule
from helios.scheduler.snapshot import NO_END, PendingGang, RunningGang, Snapshot
from helios.spec import QoS

LEAST_OVERRUN_S = 60.0
"""What a gang that outlived its estimate is taken to go on for, at least."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How far a forecast is played, and how finely.

    Attributes:
        horizon: seconds from now beyond which nothing is foretold.
        cycles: that are played at most: what a forecast costs.
        step: seconds between two of them, at least.
        growth: the same, as a part of the time that was played so far: what is further off is told more coarsely.
    """

    horizon: float = 7 * 86_400.0
    cycles: int = 28
    step: float = 60.0
    growth: float = 0.6


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a gang is expected to start, were nobody to come.

    Attributes:
        made_at: seconds since the epoch.
        at: when it starts, seconds since the epoch; None where it does not until `until`.
        until: it does not start before this, where `at` is None; infinity where nothing that is foreseen would ever
            start it.
    """

    uid: str
    made_at: float
    at: float | None
    until: float

    @property
    def wait(self) -> float:
        """Seconds until it starts, or that it waits for at least."""
        return (self.until if self.at is None else self.at) - self.made_at


EFFORT = Effort()


def forecast(
    snapshot: Snapshot, uids: Iterable[str], policy: Policy = DEFAULT, effort: Effort = EFFORT
) -> Mapping[str, Forecast]:
    """Foretell when gangs start; by uid.

    Raises:
        KeyError: one of them is not pending.
    """
    wanted = dict.fromkeys(uids)
    missing = wanted.keys() - {gang.uid for gang in snapshot.pending}
    if missing:
        raise KeyError(min(missing))
    future, starts = _Future(snapshot, policy), dict[str, float]()
    last = until = snapshot.now + effort.horizon
    for cycle in range(effort.cycles):
        starts.update((uid, future.now) for uid in future.play() if uid in wanted and uid not in starts)
        if len(starts) == len(wanted) or future.now >= last:
            break
        if future.next_at > last:
            until = NO_END if future.next_at == NO_END else last
            break
        if cycle == effort.cycles - 1:
            until = future.now
            break
        step = max(effort.step, effort.growth * (future.now - snapshot.now))
        future.pass_until(min(last, max(future.next_at, future.now + step)))
    return {uid: Forecast(uid, snapshot.now, starts.get(uid), until) for uid in wanted}


class _Future:
    """A fleet as it will be."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.now = snapshot.now
        self._policy = policy
        self._pending = {gang.uid: gang for gang in snapshot.pending}
        self._running = {gang.uid: gang for gang in snapshot.running}
        self._leaves = {gang.uid: _leaves_at(gang, self.now, policy) for gang in snapshot.running}
        self._ends = [(at, uid) for uid, at in self._leaves.items() if at < NO_END]
        heapq.heapify(self._ends)
        self._returns: dict[str, PendingGang] = {}
        self._next_look = NO_END
        self._held_off = [gang.uid for gang in snapshot.pending if gang.held_off]
        self._ledger = _ledger(snapshot)

    @property
    def next_at(self) -> float:
        """When something happens next by itself; infinity where nothing will."""
        while self._ends and self._leaves.get(self._ends[0][1]) != self._ends[0][0]:
            heapq.heappop(self._ends)
        return min(self._ends[0][0] if self._ends else NO_END, self._next_look)

    def play(self) -> Iterable[str]:
        """Decide as the scheduler would; who starts."""
        cycle: Cycle = schedule(self._ledger.snapshot(self.now), self._policy)
        self._next_look = cycle.next_look
        for admit in cycle.admits:
            self._admit(admit)
        for change in cycle.changes:
            gang = self._running[change.uid]
            if isinstance(change, Preempt):
                self._stop(gang)
            else:
                self._resize(gang, change)
        return [admit.uid for admit in cycle.admits]

    def pass_until(self, at: float) -> None:
        """Let everything happen that is due by then."""
        self.now = at
        while self.next_at <= at and self._ends:
            due, uid = heapq.heappop(self._ends)
            if due > at:
                heapq.heappush(self._ends, (due, uid))
                break
            del self._leaves[uid], self._running[uid]
            self._ledger.drop(uid)
            if uid in self._returns:
                self._wait(replace(self._returns.pop(uid), submitted_at=at))
        for uid in self._held_off:
            gang = self._pending.get(uid)
            if gang is not None:
                self._wait(replace(gang, held_off=tuple(item for item in gang.held_off if item[1] > at)))

    def _wait(self, gang: PendingGang) -> None:
        self._pending[gang.uid] = gang
        self._ledger.put(gang)

    def _hold(self, gang: RunningGang, leaves_at: float) -> None:
        self._running[gang.uid], self._leaves[gang.uid] = gang, leaves_at
        self._ledger.put(gang)
        if leaves_at < NO_END:
            heapq.heappush(self._ends, (leaves_at, gang.uid))

    def _admit(self, admit: Admit) -> None:
        gang, workers = self._pending.pop(admit.uid), admit.workers
        estimate = self._policy.unknown_estimate if gang.estimate is None else gang.estimate
        ends_at = self.now + estimate * self._slowdown(gang.max_workers, workers)
        placed = RunningGang(
            gang.uid,
            gang.tenant,
            admit.cell,
            admit.nodes,
            admit.request or gang.request,
            admit.devices,
            gang.qos,
            gang.priority,
            started_at=self.now,
            ends_at=None if ends_at == NO_END else ends_at,
            min_workers=gang.min_workers,
            max_workers=gang.max_workers,
            preemptions=gang.preemptions,
            spread=gang.spread,
        )
        self._hold(placed, ends_at)

    def _stop(self, gang: RunningGang) -> None:
        """It leaves as soon as anybody who is told to has to, and comes back for what is left of it."""
        left = None if gang.ends_at is None else max(LEAST_OVERRUN_S, gang.ends_at - self.now) + gang.restart_s
        self._returns[gang.uid] = PendingGang(
            gang.uid,
            gang.uid,
            gang.tenant,
            gang.qos,
            gang.priority,
            self.now,
            gang.request,
            gang.fewest,
            gang.most,
            estimate=left,
            home=gang.cell,
            preemptions=gang.preemptions + 1,
            spread=gang.spread,
        )
        gone_at = self.now + self._policy.leaving
        self._hold(replace(gang, leaving_at=gone_at), gone_at)

    def _resize(self, gang: RunningGang, change: Resize) -> None:
        """It goes on at once with the others, and takes the longer or the shorter for what is left."""
        ends_at = gang.ends_at
        if ends_at is not None:
            left = max(LEAST_OVERRUN_S, ends_at - self.now) * self._slowdown(len(gang.nodes), change.workers)
            ends_at = self.now + left + gang.restart_s
        changed = replace(gang, nodes=change.nodes, started_at=self.now, ends_at=ends_at)
        changed = replace(changed, min_workers=gang.fewest, max_workers=gang.most)
        self._hold(changed, NO_END if ends_at is None else ends_at)

    def _slowdown(self, most: int, workers: int) -> float:
        return float((most / workers) ** self._policy.speedup)


def _ledger(snapshot: Snapshot) -> Fleet:
    """The fleet of a snapshot. Cells come last: they are added up at once then."""
    ledger = Fleet()
    for tenant in snapshot.tenants:
        ledger.put_tenant(tenant)
    for running in snapshot.running:
        ledger.put(running)
    for waiting in snapshot.pending:
        ledger.put(waiting)
    for cell in snapshot.cells:
        ledger.put_cell(cell)
    ledger.put_headroom(snapshot.headroom)
    ledger.last_preemption = snapshot.last_preemption
    return ledger


def _leaves_at(gang: RunningGang, now: float, policy: Policy) -> float:
    """When a gang is expected to be gone. One that outran its estimate goes on for as long as it has run beyond it.

    Guaranteed gangs of which nobody knows an end are services, and stay.
    """
    if gang.leaving_at is not None:
        return max(now, gang.leaving_at)
    ends_at = gang.ends_at
    if ends_at is None:
        if gang.qos is QoS.GUARANTEED:
            return NO_END
        ends_at = (now if gang.started_at is None else gang.started_at) + policy.unknown_estimate
    return ends_at if ends_at > now else now + max(LEAST_OVERRUN_S, now - ends_at)
