"""What records ask for, each on its own: looked at when it changed or is due, and written guarded by version.

Records are independent of each other, so a pool may take several at a time: compare-and-swap keeps each whole, and a
record that changed meanwhile is simply looked at again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor

from helios.control import accounting, array, cell, curriculum, job, schedule, service
from helios.control.array import Asked
from helios.control.index import KINDS
from helios.control.job_machine import JobMachine
from helios.control.owners import makes_jobs
from helios.control.requests import request_cancel, work_of
from helios.control.service import ServiceMachine
from helios.control.status import placement
from helios.control.tracking import RunCloser
from helios.control.watching import LOOK_AT_CELLS_S
from helios.control.writes import View, Writes
from helios.lifecycle import TERMINAL
from helios.spec import JobSpec
from helios.store import Record, seconds


class Reconciler:
    """The controllers of all kinds over the index."""

    def __init__(self, view: View, writes: Writes, closer: RunCloser) -> None:
        self._mirror, self._index, self._specs = view.mirror, view.index, view.specs
        self._watcher, self._clock, self._writes, self._closer = view.watcher, view.clock, writes, closer
        self._reconcilers: Mapping[str, Callable[[Record], None]] = {
            "Cell": self._cell,
            "Tenant": self._tenant,
            "Curriculum": self._curriculum,
            "Job": self._job,
            "Service": self._service,
        }

    def reconcile_dirty(self, pool: Executor | None) -> None:
        """Look at everything that changed or is due, kind by kind."""
        wrote = False
        for kind in KINDS:
            if wrote:  # what a kind has asked for, the next ones see
                self._mirror.sync()
            found = (self._mirror.find(kind, name) for name in self._index.take_dirty(kind))
            records = [record for record in found if record is not None]
            self._writes.each(
                records, lambda record: self._writes.guarded(record, self._reconcilers[record.kind]), pool
            )
            wrote = wrote or bool(records)
        if wrote:
            self._mirror.sync()

    def _cell(self, record: Record) -> None:
        now = self._clock.now()
        if record.deleting and not self._index.placed(record.name):
            self._writes.store.remove(record)
            return
        after = cell.reconcile(record, self._watcher.silent_for(record.name), now)
        self._writes.save(record, after, cell.changes(record, after))
        self._watcher.look_at("Cell", record.name, now + LOOK_AT_CELLS_S)

    def _tenant(self, record: Record) -> None:
        if not record.deleting:
            self._writes.save(record, record.with_status(state="Ready"), ())
            return
        if not work_of(self._mirror, record.name):  # something may have been applied as the deletion was asked for
            self._writes.store.remove(record)
        else:
            self._watcher.look_at("Tenant", record.name, self._clock.now() + LOOK_AT_CELLS_S)

    def _curriculum(self, record: Record) -> None:
        jobs = self._index.owned("Curriculum", record.name)
        spec, now = self._specs.curriculum(record), self._clock.now()
        plan = curriculum.reconcile(record, spec, jobs, now)
        found = (self._writes.store.find("Job", wanted.name) for wanted in plan.create)
        if taken := {item.name: item for item in found if item is not None}:
            # Somebody's job has the name already: the curriculum is to see it, and say so.
            plan = curriculum.reconcile(record, spec, jobs | taken, now)
        # Jobs first: their names make each of these a no-op when it is done again after a crash before the save below.
        self._carry_out_asked(Asked(create=plan.create, cancel=plan.cancel, rerun=plan.rerun), jobs)
        saved = self._writes.save(record, plan.record, plan.events)
        if saved.state in TERMINAL:
            self._after_curriculum(saved, [name for name, job in jobs.items() if curriculum.owns(record, job)])

    def _after_curriculum(self, record: Record, jobs: Sequence[str]) -> None:
        """Close its run in the tracker; where it is to be deleted, its jobs go first, then it."""
        tried = True
        if not record.status.get("trackerClosed"):
            closed, events = self._closer.close_run(record)
            record = self._writes.save(record, record.with_status(trackerClosed=closed or None), events)
            # A tracker that cannot be reached is told as an event; it does not hold up a deletion.
            tried = closed or bool(events)
            if not closed:
                self._watcher.look_at("Curriculum", record.name, self._clock.now() + LOOK_AT_CELLS_S)
        if not record.deleting:
            return
        for name in jobs:
            self._writes.store.request_delete("Job", name)
        if tried and not jobs:
            self._writes.store.remove(record)

    def _job(self, record: Record) -> None:
        if job.only_waits(record) and self._index.unreadable(record.uid) is None:
            return
        now = self._clock.now()
        machine, spec = JobMachine(record, now), self._specs.job(record)
        if makes_jobs(record):
            remaining = self._maker(machine, spec)
        else:
            remaining = False
            job.reconcile(machine, spec, self._around(record))
        saved = self._writes.save(record, machine.record, machine.events)
        if saved.deleting and machine.state.over and not remaining:
            self._writes.store.remove(saved)
            return
        due = schedule.next_dues(saved, spec) if makes_jobs(record) else job.next_dues(saved, spec)
        idle = accounting.next_due(saved)
        self._look_next(saved, [*due, *([] if idle is None else [idle])], now)
        for until in map(seconds, saved.status.get("heldOff", {}).values()):
            if until > now:
                self._watcher.schedule_at(until)

    def _look_next(self, record: Record, times: Iterable[float], now: float) -> None:
        """Look again at the first of these times that is yet to come: what was due by `now` has just been looked at."""
        self._watcher.look_at(record.kind, record.name, min((moment for moment in times if moment > now), default=None))
        if (error := self._index.unreadable(record.uid)) is not None:
            self._writes.tell(record, error)

    def _maker(self, machine: JobMachine, spec: JobSpec) -> bool:
        """Take an array or a schedule a step on; whether jobs of it are still there."""
        jobs = self._index.owned("Job", machine.record.name)
        if spec.schedule is not None:
            asked = schedule.reconcile(machine, spec, jobs)
        else:
            asked = array.reconcile(machine, spec, jobs, self._around(machine.record).needs)
        found = (self._writes.store.find("Job", wanted.name) for wanted in asked.create)
        uid = array.UID if spec.schedule is None else schedule.UID
        own, _ = array.made_by(machine.record, jobs, uid)
        if taken := [item.name for item in found if item is not None and item.name not in own]:
            machine.fail("JobNameTaken", f"a job is named {taken[0]!r} already and is no part of this")
            return False
        self._carry_out_asked(asked, jobs)
        return asked.remaining

    def _carry_out_asked(self, asked: Asked, jobs: Mapping[str, Record]) -> None:
        for wanted in asked.create:
            self._writes.store.create(wanted)
        for name in asked.cancel:
            request_cancel(self._writes.store, "Job", name)
        for name in asked.rerun:
            self._writes.store.save(jobs[name].with_status(rerunRequested="failed"))
        for name in asked.delete:
            self._writes.store.request_delete("Job", name)

    def _service(self, record: Record) -> None:
        now = self._clock.now()
        machine = ServiceMachine(record, now)
        service.reconcile(machine, self._specs.service(record), self._around(record))
        saved = self._writes.save(record, machine.record, machine.events)
        if saved.deleting and not machine.placed:
            self._writes.store.remove(saved)
            return
        retry = service.next_due(saved)
        self._look_next(saved, [] if retry is None else [retry], now)

    def _around(self, record: Record) -> job.Surroundings:
        place = placement(record)
        needs = record.spec.get("needs", ()) if record.state == "Pending" else ()
        found = self._mirror.find("Cell", place["cell"]) if place else None
        return job.Surroundings(
            cell=found,
            nodes=frozenset(place["nodes"]) if place else frozenset(),
            needs={name: self._mirror.find("Job", name) for name in needs},
            gone=place is not None and found is None,
            now=self._clock.now(),
        )
