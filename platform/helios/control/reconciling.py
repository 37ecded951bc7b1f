"""Each record on its own: what was said of it, what it asks for, what was decided for it; written guarded by version.

Records are independent of each other, so a pool may take several at a time: compare-and-swap keeps each whole, and a
record that changed meanwhile is simply looked at again.
"""

import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import islice
from typing import Any

from helios.control import accounting, array, cell, curriculum, fleet, job, schedule, service
from helios.control.array import Asked
from helios.control.gateway import report_of, unwanted
from helios.control.index import KINDS, Index
from helios.control.job_machine import JobMachine
from helios.control.measuring import Measures
from helios.control.owners import makes_jobs
from helios.control.parsed import Specs
from helios.control.requests import request_cancel, work_of
from helios.control.service import ServiceMachine
from helios.control.status import placement
from helios.control.tracking import RunCloser
from helios.control.watching import LOOK_AT_CELLS_S, Watcher
from helios.errors import ConflictError, FencedError, InputError, NotFoundError, UnavailableError
from helios.lifecycle import TERMINAL, JobState
from helios.ports import Clock, LaunchStatus, Phase, Report, Tracker
from helios.scheduler import Admit, Change, Cycle, Decision, Preempt, Wait
from helios.spec import JobSpec
from helios.store import Allocation, Event, EventType, Mirror, Record, Store, StoredReport, seconds

TRY_AGAIN_S = 5.0
"""After what a controller could not do."""
CONTESTED = 10
"""Writes of one record that may lose their race one after another before the next one waits."""
PROGRESS_PER_S = 50.0
"""Progress records written a second over all jobs; with more jobs each is written less often."""
SLOWEST_PROGRESS_S = 100.0
"""Written at least so often: a job that seems silent for longer would count as idle."""
MARKED_A_CYCLE = 500
"""Records that are told in one cycle why they wait; the rest in the next ones."""
_AT_WORK = frozenset({JobState.ADMITTED, JobState.STARTING, JobState.RUNNING})
_log = logging.getLogger(__name__)


class Reconciler:
    """The controllers of all kinds over the index; effects through one store view, which may be fenced."""

    def __init__(
        self,
        store: Store,
        *,
        mirror: Mirror,
        index: Index,
        watcher: Watcher,
        measures: Measures,
        clock: Clock,
        tracker: Tracker | None,
        executor: Executor | None,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._index = index
        self._watcher = watcher
        self._measures = measures
        self._clock = clock
        self._specs = Specs()
        self._closer = RunCloser(tracker, clock, executor)
        self._told: dict[str, str] = {}
        self._contested: dict[str, int] = {}
        self._settled: dict[str, tuple[LaunchStatus, int]] = {}
        self._progress_at: dict[str, float] = {}
        self._seen_nodes: dict[str, tuple[object, ...]] = {}
        self._reconcilers: Mapping[str, Callable[[Record], None]] = {
            "Cell": self._cell,
            "Tenant": self._tenant,
            "Curriculum": self._curriculum,
            "Job": self._job,
            "Service": self._service,
        }

    def begin(self, writes: Store) -> None:
        """Write through this view from now on; what was remembered of statuses is looked at anew."""
        self._store = writes
        self._settled.clear()
        self._seen_nodes.clear()
        self._progress_at.clear()

    # 1. What cells say ------------------------------------------------------------------------------------------------

    def observe(self, stored: StoredReport, pool: Executor | None, *, timely: bool) -> None:
        """Take in a cell's report: its nodes, then every launch of it; of an old report only how jobs ended."""
        record = self._mirror.find("Cell", stored.cell)
        if record is None:
            return
        try:
            report = report_of(stored.body)
        except InputError as error:
            self._tell(record, error)
            return
        sent = report.session.sent_at
        skew = sent - stored.received_at if sent else 0.0
        if timely:
            self._guarded(record, lambda record: self._observe_cell(record, report, skew))
            self._observe_strays(report)
        found = (
            (status, self._news(status, report.cell)) for status in report.statuses if timely or _is_lasting(status)
        )
        fresh = [(status, about) for status, about in found if about is not None]
        self._each(fresh, lambda item: self._guarded(item[1], lambda about: self._observe_launch(about, item[0])), pool)

    def _observe_strays(self, report: Report) -> None:
        """What lives there of another epoch than is known, as after a restore, ends before its job starts anywhere."""
        live = (status for status in report.statuses if status.phase in {Phase.STARTING, Phase.RUNNING})
        found = ((self._mirror.by_uid(status.uid), status.epoch) for status in live)
        strays = [record for record, epoch in found if record is not None and unwanted(record, report.cell, epoch)]
        self._index.note_strays(report.cell, frozenset(record.uid for record in strays))
        for waits in filter(fleet.job_waits, (record for record in strays if record.kind == "Job")):
            self._guarded(waits, lambda record: self._hold_for_stray(record, report.cell))

    def _hold_for_stray(self, record: Record, cell_name: str) -> None:
        machine = JobMachine(record, self._clock.now())
        machine.hold("StillAlive", f"an earlier launch of it is being stopped on cell {cell_name}")
        self._save(record, machine.record, machine.events)

    def _observe_cell(self, record: Record, report: Report, skew: float) -> None:
        seen = (report.nodes, abs(skew) <= cell.SKEW_S)
        if self._seen_nodes.get(record.uid) == (record.resource_version, *seen):
            return  # the same as last time, of a record that nobody has written since
        after = cell.observe(record, report.nodes, self._clock.now(), skew_s=skew)
        saved = self._save(record, after, cell.changes(record, after))
        self._seen_nodes[record.uid] = (saved.resource_version, *seen)
        self._watcher.look_at("Cell", record.name, self._clock.now() + LOOK_AT_CELLS_S)

    def _news(self, status: LaunchStatus, cell_name: str) -> Record | None:
        """The record that this status may move, or None: a status that was taken in already moves nothing.

        `Absent` counts anew every time, since what it means depends on for how long it has been so.
        """
        record = self._mirror.by_uid(status.uid)
        if record is None or record.kind not in {"Job", "Service"}:
            return None
        place = record.status.get("placement") or {"cell": record.status.get("lastCell", cell_name)}
        if place["cell"] != cell_name:
            return None
        known = self._settled.get(status.uid)
        if status.phase is not Phase.ABSENT and known == (status, record.resource_version):
            return None
        return record

    def _observe_launch(self, record: Record, status: LaunchStatus) -> None:
        now = self._clock.now()
        if record.kind == "Job":
            machine = JobMachine(record, now)
            job.observe(machine, self._specs.job(record), status)
            after, events = machine.record, machine.events
            if not events and self._is_only_progress(record, after, now):
                return
        else:
            deployed = ServiceMachine(record, now)
            service.observe(deployed, status)
            after, events = deployed.record, deployed.events
        saved = self._save(record, after, events)
        if placement(saved) is None:
            self._settled.pop(status.uid, None)
            self._progress_at.pop(status.uid, None)
        else:
            self._settled[status.uid] = (status, saved.resource_version)

    def _is_only_progress(self, before: Record, after: Record, now: float) -> bool:
        """Whether all that is new is progress, and some of it was written a moment ago."""
        if after == before:
            return False
        old, new = before.status.get("progress", {}), after.status.get("progress", {})
        steady = ("phase", "checkpoint_step", "restarts", "message")
        if any(old.get(name) != new.get(name) for name in steady):
            return False
        every = min(max(1.0, len(self._settled) / PROGRESS_PER_S), SLOWEST_PROGRESS_S)
        if now - self._progress_at.get(before.uid, 0.0) < every:
            return True
        self._progress_at[before.uid] = now
        return False

    # 2. What records ask for ------------------------------------------------------------------------------------------

    def reconcile_dirty(self, pool: Executor | None) -> None:
        """Look at everything that changed or is due, kind by kind."""
        wrote = False
        for kind in KINDS:
            if wrote:  # what a kind has asked for, the next ones see
                self._mirror.sync()
            found = (self._mirror.find(kind, name) for name in self._index.take_dirty(kind))
            records = [record for record in found if record is not None]
            self._each(records, lambda record: self._guarded(record, self._reconcilers[record.kind]), pool)
            wrote = wrote or bool(records)
        if wrote:
            self._mirror.sync()

    def _cell(self, record: Record) -> None:
        now = self._clock.now()
        if record.deleting and not self._index.placed(record.name):
            self._store.remove(record)
            self._forget(record.uid)
            return
        after = cell.reconcile(record, self._watcher.silent_for(record.name), now)
        self._save(record, after, cell.changes(record, after))
        self._watcher.look_at("Cell", record.name, now + LOOK_AT_CELLS_S)

    def _tenant(self, record: Record) -> None:
        if not record.deleting:
            self._save(record, record.with_status(state="Ready"), ())
            return
        if not work_of(self._mirror, record.name):  # something may have been applied as the deletion was asked for
            self._store.remove(record)
        else:
            self._watcher.look_at("Tenant", record.name, self._clock.now() + LOOK_AT_CELLS_S)

    def _curriculum(self, record: Record) -> None:
        jobs = self._index.owned("Curriculum", record.name)
        spec, now = self._specs.curriculum(record), self._clock.now()
        plan = curriculum.reconcile(record, spec, jobs, now)
        found = (self._store.find("Job", wanted.name) for wanted in plan.create)
        if taken := {item.name: item for item in found if item is not None}:
            # Somebody's job has the name already: the curriculum is to see it, and say so.
            plan = curriculum.reconcile(record, spec, jobs | taken, now)
        # Jobs first: their names make each of these a no-op when it is done again after a crash before the save below.
        self._carry_out_asked(Asked(create=plan.create, cancel=plan.cancel, rerun=plan.rerun), jobs)
        saved = self._save(record, plan.record, plan.events)
        if saved.state in TERMINAL:
            self._after_curriculum(saved, [name for name, job in jobs.items() if curriculum.owns(record, job)])

    def _after_curriculum(self, record: Record, jobs: Sequence[str]) -> None:
        """Close its run in the tracker; where it is to be deleted, its jobs go first, then it."""
        tried = True
        if not record.status.get("trackerClosed"):
            closed, events = self._closer.close_run(record)
            record = self._save(record, record.with_status(trackerClosed=closed or None), events)
            # A tracker that cannot be reached is told as an event; it does not hold up a deletion.
            tried = closed or bool(events)
            if not closed:
                self._watcher.look_at("Curriculum", record.name, self._clock.now() + LOOK_AT_CELLS_S)
        if not record.deleting:
            return
        for name in jobs:
            self._store.request_delete("Job", name)
        if tried and not jobs:
            self._store.remove(record)
            self._specs.forget(record.uid)

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
        saved = self._save(record, machine.record, machine.events)
        if saved.deleting and machine.state.over and not remaining:
            self._store.remove(saved)
            self._forget(saved.uid)
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
            self._tell(record, error)

    def _maker(self, machine: JobMachine, spec: JobSpec) -> bool:
        """Take an array or a schedule a step on; whether jobs of it are still there."""
        jobs = self._index.owned("Job", machine.record.name)
        if spec.schedule is not None:
            asked = schedule.reconcile(machine, spec, jobs)
        else:
            asked = array.reconcile(machine, spec, jobs, self._around(machine.record).needs)
        found = (self._store.find("Job", wanted.name) for wanted in asked.create)
        uid = array.UID if spec.schedule is None else schedule.UID
        own, _ = array.made_by(machine.record, jobs, uid)
        if taken := [item.name for item in found if item is not None and item.name not in own]:
            machine.fail("JobNameTaken", f"a job is named {taken[0]!r} already and is no part of this")
            return False
        self._carry_out_asked(asked, jobs)
        return asked.remaining

    def _carry_out_asked(self, asked: Asked, jobs: Mapping[str, Record]) -> None:
        for wanted in asked.create:
            self._store.create(wanted)
        for name in asked.cancel:
            request_cancel(self._store, "Job", name)
        for name in asked.rerun:
            self._store.save(jobs[name].with_status(rerunRequested="failed"))
        for name in asked.delete:
            self._store.request_delete("Job", name)

    def _service(self, record: Record) -> None:
        now = self._clock.now()
        machine = ServiceMachine(record, now)
        service.reconcile(machine, self._specs.service(record), self._around(record))
        saved = self._save(record, machine.record, machine.events)
        if saved.deleting and not machine.placed:
            self._store.remove(saved)
            self._forget(saved.uid)
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

    # 3. What was decided ----------------------------------------------------------------------------------------------

    def carry_out(self, cycle: Cycle, pool: Executor | None) -> None:
        """Write the intents, have those stopped that are to make room, and tell those that wait why, where it is news.

        Each is written on its own: where this process ends in between, what was written holds, and the next cycle
        decides on the rest by what is then.
        """
        self._each(cycle.admits, self._decide, pool)
        # Promises first: where this process ends in between, nobody has left for a gang that does not know of it.
        promises = self._promises_of(cycle.changes)
        self._each(promises, lambda uid: self._promise(cycle.own[uid], *promises[uid]), pool)
        self._each(cycle.changes, self._displace, pool)
        news = list(islice(self._news_of(cycle, promises), MARKED_A_CYCLE + 1))
        self._each(news[:MARKED_A_CYCLE], self._decide, pool)
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
            self._save(record, machine.record, machine.events)

        record = self._mirror.by_uid(wait.uid)
        if record is not None:
            self._guarded(record, write)

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
            self._guarded(record, lambda record: self._write_decision(record, decision))

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
        self._save(record, machine.record, machine.events)

    def _displace(self, change: Change) -> None:
        record = self._mirror.by_uid(change.uid)
        if record is not None:
            self._guarded(record, lambda record: self._write_change(record, change))

    def _write_change(self, record: Record, change: Change) -> None:
        """Tell a gang to leave; not where it moved since the look that the decision is from, or cannot be told."""
        place, found = placement(record), self._mirror.find("Cell", change.cell)
        asked_to_end = record.deleting or record.status.get("cancelRequested") or record.status.get("stop")
        here = place is not None and place["cell"] == change.cell and found is not None and cell.is_reachable(found)
        if record.kind != "Job" or not here or asked_to_end or record.state not in _AT_WORK:
            return
        machine = JobMachine(record, self._clock.now())
        machine.make_room(change, grace_s=self._specs.job(record).checkpoint.grace)
        self._save(record, machine.record, machine.events)

    # Around every write -----------------------------------------------------------------------------------------------

    def _each(self, items: Iterable[Any], act: Callable[[Any], None], pool: Executor | None) -> None:
        listed = list(items)
        if pool is None or len(listed) < 2:
            for item in listed:
                act(item)
        else:
            for _ in pool.map(act, listed):
                pass  # what an item raised is raised here

    def _guarded(self, record: Record, act: Callable[[Record], None]) -> None:
        """Act on one record; what goes wrong with one must not hold up the others."""
        try:
            act(record)
            self._contested.pop(record.uid, None)
        except (FencedError, UnavailableError):
            raise  # somebody else leads, or the store is away: nothing of this pass can go on
        except (ConflictError, NotFoundError) as error:
            self._contend(record, error)
        except Exception as error:  # noqa: BLE001 - told in the log and as an event
            self._tell(record, error)
            self._watcher.look_at(record.kind, record.name, self._clock.now() + TRY_AGAIN_S)

    def _contend(self, record: Record, error: Exception) -> None:
        """The record changed meanwhile: look again at once, but not for ever."""
        lost = self._contested[record.uid] = self._contested.get(record.uid, 0) + 1
        if lost < CONTESTED:
            _log.debug("control: %s %s changed meanwhile; it is looked at again", record.kind, record.name)
            self._index.touch(record.kind, record.name)
            self._watcher.schedule_at(self._clock.now())  # it may have been a decision that was not written
        else:
            self._tell(record, error)
            self._watcher.look_at(record.kind, record.name, self._clock.now() + TRY_AGAIN_S)
            self._watcher.schedule_at(self._clock.now() + TRY_AGAIN_S)

    def _save(self, before: Record, after: Record, events: Sequence[Event]) -> Record:
        """Write what a controller made of a record, its ledger brought up to now; an idle pass writes nothing."""
        rows: tuple[Allocation, ...] = ()
        if after.kind in {"Job", "Service"}:
            after, rows = accounting.step(before, after, self._clock.now())
        if after == before and not events and not rows:
            return after
        saved = self._store.save(after, events=events, allocations=rows)
        self._measures.saved(before, saved, rows)
        return saved

    def _tell(self, record: Record, error: Exception) -> None:
        """Log every failure; write an event only for a new one, or a broken record would fill the log of events."""
        _log.error("control: cannot reconcile %s %s", record.kind, record.name, exc_info=error)
        message = f"{type(error).__name__}: {error}"
        if self._told.get(record.uid) != message:
            self._told[record.uid] = message
            kind = EventType.WARNING
            self._store.add_events([Event(record.kind, record.name, record.uid, "ControllerError", message, kind)])

    def forget_gone(self) -> None:
        """Let go of what is remembered of objects that are not there any more, however they went."""
        for uid in {
            *self._told,
            *self._settled,
            *self._seen_nodes,
            *self._progress_at,
            *self._contested,
            *self._specs.uids(),
        }:
            if self._mirror.by_uid(uid) is None:
                self._forget(uid)

    def _forget(self, uid: str) -> None:
        self._specs.forget(uid)
        self._settled.pop(uid, None)
        self._progress_at.pop(uid, None)
        self._seen_nodes.pop(uid, None)
        self._told.pop(uid, None)
        self._contested.pop(uid, None)


def _is_lasting(status: LaunchStatus) -> bool:
    """Whether what was said of a job stays true: its persisted exit, or that it is gone and will not be started."""
    confirmed = status.phase is Phase.ABSENT and status.stopping
    return confirmed or status.phase in {Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED}
