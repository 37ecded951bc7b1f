"""What a cycle decided, written: intents, stops that make room, places that are kept, and why others wait."""

from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from itertools import islice

from helios.control import cell, fleet
from helios.control.job_machine import JobMachine
from helios.control.service import ServiceMachine
from helios.control.status import placement
from helios.control.writes import View, Writes
from helios.lifecycle import JobState
from helios.scheduler import Admit, Change, Cycle, Decision, Preempt, Wait
from helios.store import Record

MARKED_A_CYCLE = 500
"""Records that are told in one cycle why they wait; the rest in the next ones."""
_AT_WORK = frozenset({JobState.ADMITTED, JobState.STARTING, JobState.RUNNING})


class Enactor:
    """Carries out what the scheduler decided."""

    def __init__(self, view: View, writes: Writes) -> None:
        self._mirror, self._index, self._specs = view.mirror, view.index, view.specs
        self._watcher, self._clock, self._writes = view.watcher, view.clock, writes

    def carry_out(self, cycle: Cycle, pool: Executor | None) -> None:
        """Write the intents, have those stopped that are to make room, and tell those that wait why, where it is news.

        Each is written on its own: where this process ends in between, what was written holds, and the next cycle
        decides on the rest by what is then.
        """
        self._writes.each(cycle.admits, self._decide, pool)
        # Promises first: where this process ends in between, nobody has left for a gang that does not know of it.
        promises = self._promises_of(cycle.changes)
        self._writes.each(promises, lambda uid: self._promise(cycle.own[uid], *promises[uid]), pool)
        self._writes.each(cycle.changes, self._displace, pool)
        news = list(islice(self._news_of(cycle, promises), MARKED_A_CYCLE + 1))
        self._writes.each(news[:MARKED_A_CYCLE], self._decide, pool)
        if len(news) > MARKED_A_CYCLE:
            self._watcher.schedule_at(self._clock.now())

    def _promises_of(self, changes: Iterable[Change]) -> dict[str, tuple[str, float]]:
        """For whom others are to leave: the cell of the place, and within how many seconds they will have."""
        promises: dict[str, tuple[str, float]] = {}
        for change in changes:
            record = self._mirror.by_uid(change.uid)
            if change.beneficiary and record is not None and record.kind == "Job":
                cell_name = (change.place if isinstance(change, Preempt) else "") or change.cell
                _, before = promises.get(change.beneficiary, ("", 0.0))
                promises[change.beneficiary] = (cell_name, max(before, self._specs.job(record).checkpoint.grace))
        return promises

    def _promise(self, wait: Wait, cell_name: str, within_s: float) -> None:
        def write(record: Record) -> None:
            machine = (JobMachine if record.kind == "Job" else ServiceMachine)(record, self._clock.now())
            machine.wait(wait)
            machine.promise(cell_name, within_s=within_s)
            self._writes.save(record, machine.record, machine.events)

        record = self._mirror.by_uid(wait.uid)
        if record is not None:
            self._writes.guarded(record, write)

    def _news_of(self, cycle: Cycle, told: Container[str]) -> Iterator[Wait]:
        """Those that wait for another reason than they were told; of ten thousand alike nothing is put into words."""
        for gangs, wait in cycle.lines:
            for gang in gangs:
                own = cycle.own.get(gang.uid, wait)
                record = self._mirror.by_uid(gang.uid)
                if gang.uid not in told and record is not None and record.status.get("reason") != own.reason:
                    yield replace(own, uid=gang.uid)

    def _decide(self, decision: Decision) -> None:
        record = self._mirror.by_uid(decision.uid)
        if record is not None:
            self._writes.guarded(record, lambda record: self._write_decision(record, decision))

    def _write_decision(self, record: Record, decision: Decision) -> None:
        now = self._clock.now()
        machine: JobMachine | ServiceMachine
        if record.kind == "Job":
            machine = JobMachine(record, now)
            if isinstance(decision, Admit):
                runs_s = self._index.runs_s(record.uid, decision.workers)
                machine.admit(decision, fleet.request_of(record.spec["resources"]), runs_s=runs_s)
        else:
            machine = ServiceMachine(record, now)
            if isinstance(decision, Admit):
                machine.admit(decision, fleet.request_of(record.spec["resources"]))
        if isinstance(decision, Wait):
            machine.wait(decision)
        self._writes.save(record, machine.record, machine.events)

    def _displace(self, change: Change) -> None:
        record = self._mirror.by_uid(change.uid)
        if record is not None:
            self._writes.guarded(record, lambda record: self._write_change(record, change))

    def _write_change(self, record: Record, change: Change) -> None:
        """Tell a gang to leave; not where it moved since the look that the decision is from, or cannot be told."""
        place, found = placement(record), self._mirror.find("Cell", change.cell)
        asked_to_end = record.deleting or record.status.get("cancelRequested") or record.status.get("stop")
        here = place is not None and place["cell"] == change.cell and found is not None and cell.is_reachable(found)
        if record.kind != "Job" or not here or asked_to_end or record.state not in _AT_WORK:
            return
        machine = JobMachine(record, self._clock.now())
        machine.make_room(change, grace_s=self._specs.job(record).checkpoint.grace)
        self._writes.save(record, machine.record, machine.events)
