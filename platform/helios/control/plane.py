"""The control plane: all controllers and the scheduler over one store."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from helios.control import cell, curriculum, fleet, job, service
from helios.control.explaining import explain
from helios.control.gateway import CellGateway, Report
from helios.control.job_machine import TERMINAL, JobMachine
from helios.control.parsed import Specs
from helios.control.requests import DEFAULT_TENANT, request_cancel, work_of
from helios.control.service import ServiceMachine
from helios.control.status import placement, request_of
from helios.control.tracking import RunCloser
from helios.errors import ConflictError
from helios.ports import Clock, LaunchStatus, Tracker
from helios.scheduler import Admit, Decision, schedule
from helios.spec import Tenant, from_json
from helios.store import Event, EventType, Record, Store, SystemClock

IDLE_TICK_S = 1.0

_log = logging.getLogger(__name__)


class ControlPlane:
    """Observe, diff, reconcile. Everything it knows is in the store, so it may die between any two writes."""

    def __init__(
        self,
        store: Store,
        clock: Clock | None = None,
        tracker: Tracker | None = None,
        *,
        executor: Executor | None = None,
    ) -> None:
        """Make the default tenant where it is not there; calls to the tracker run on `executor`, or a thread."""
        self._store = store
        self._clock = clock or SystemClock()
        self._wake = threading.Event()
        self._specs = Specs()
        self._closer = RunCloser(tracker, self._clock, executor)
        self._told: dict[str, str] = {}
        self.gateway = CellGateway(store, self._clock, on_report=self._wake.set)
        if store.find("Tenant", DEFAULT_TENANT) is None:
            document = from_json({"apiVersion": "helios/v1", "kind": "Tenant", "metadata": {"name": DEFAULT_TENANT}})
            assert isinstance(document, Tenant)
            store.apply(document)

    @property
    def store(self) -> Store:
        """What everything is kept in."""
        return self._store

    def tick(self) -> None:
        """One pass over everything; deterministic for a given store, clock and reports."""
        # 1. What cells said since the last pass.
        for report in self.gateway.take():
            self._observe(report)
        # 2. What has gone silent, and who may use what.
        self._each("Cell", self._reconcile_cell)
        self._each("Tenant", self._reconcile_tenant)
        # 3. What curricula, people and deadlines ask for.
        self._each("Curriculum", self._reconcile_curriculum)
        self._each("Job", self._reconcile_job)
        self._each("Service", self._reconcile_service)
        # 4. Places for what waits. Only an intent is written here; the cell fetches it.
        snapshot = fleet.snapshot(self._store, self._specs, self._clock.now())
        self._carry_out(schedule(snapshot))

    def run(self, stop: threading.Event) -> None:
        """Tick on every change and report, and once a second; return when `stop` is set."""
        watcher = threading.Thread(target=self._watch, args=(stop,), name="helios-watch", daemon=True)
        watcher.start()
        while not stop.is_set():
            self._wake.clear()
            try:
                self.tick()
            except Exception:  # noqa: BLE001 - the loop outlives whatever one pass met; everything is looked at again in the next
                _log.exception("control: a pass failed")
            self._wake.wait(IDLE_TICK_S)
        watcher.join()

    def explain(self, name: str, kind: str = "Job") -> dict[str, Any]:
        """Why it is where it is; for what waits also each cell's verdict, what would unblock it, and its position.

        A curriculum is explained by the job of the stage that it is at. Raises `NotFoundError`.
        """
        return explain(self._store, self._clock.now(), kind, name)

    def _watch(self, stop: threading.Event) -> None:
        revision = -1
        while not stop.is_set():
            seen = self._store.wait(revision, IDLE_TICK_S)
            if seen > revision:
                revision = seen
                self._wake.set()

    def _each(self, kind: str, reconcile: Callable[[Record], None]) -> None:
        for record in self._store.records(kind):
            self._guarded(record, reconcile)

    def _guarded(self, record: Record, reconcile: Callable[[Record], None]) -> None:
        """Reconcile one record; what goes wrong with one must not hold up the others."""
        try:
            reconcile(record)
        except ConflictError:
            _log.debug("control: %s %s changed meanwhile; the next pass sees it", record.kind, record.name)
        except Exception as error:  # noqa: BLE001 - told in the log and as an event
            self._tell(record, error)

    def _save(self, before: Record, after: Record, events: Sequence[Event]) -> Record:
        """Write what a controller made of a record; an idle pass writes nothing and takes no lock."""
        return after if after == before and not events else self._store.save(after, events=events)

    def _tell(self, record: Record, error: Exception) -> None:
        """Log every failure; write an event only for a new one, or a broken record would fill the log of events."""
        _log.exception("control: cannot reconcile %s %s", record.kind, record.name)
        message = f"{type(error).__name__}: {error}"
        if self._told.get(record.uid) != message:
            self._told[record.uid] = message
            kind = EventType.WARNING
            self._store.add_events([Event(record.kind, record.name, record.uid, "ControllerError", message, kind)])

    def _observe(self, report: Report) -> None:
        def observe_cell(record: Record) -> None:
            after = cell.observe(record, report.nodes, self._clock.now())
            self._save(record, after, cell.changes(record, after))

        record = self._store.find("Cell", report.cell)
        if record is not None:
            self._guarded(record, observe_cell)
        seen = {status.uid: status for status in report.statuses}
        for record in self._store.records("Job") + self._store.records("Service"):
            status = _about(record, report, seen)
            if status is not None:
                self._guarded(record, partial(self._observe_launch, status))

    def _observe_launch(self, status: LaunchStatus, record: Record) -> None:
        if record.kind == "Job":
            machine = JobMachine(record, self._clock.now())
            job.observe(machine, self._specs.job(record), status)
            self._save(record, machine.record, machine.events)
        else:
            deployed = ServiceMachine(record, self._clock.now())
            service.observe(deployed, status)
            self._save(record, deployed.record, deployed.events)

    def _reconcile_cell(self, record: Record) -> None:
        if record.deleting and not self._used(record.name):
            self._store.remove(record)
            return
        after = cell.reconcile(record, self.gateway.silent_for(record.name), self._clock.now())
        self._save(record, after, cell.changes(record, after))

    def _used(self, cell_name: str) -> bool:
        work = self._store.records("Job") + self._store.records("Service")
        return any((placement(record) or {}).get("cell") == cell_name for record in work)

    def _reconcile_tenant(self, record: Record) -> None:
        if not record.deleting:
            self._save(record, record.with_status(state="Ready"), ())
            return
        if not work_of(self._store, record.name):  # something may have been applied as the deletion was asked for
            self._store.remove(record)

    def _reconcile_curriculum(self, record: Record) -> None:
        jobs = {item.name: item for item in self._store.records("Job", labels=curriculum.jobs_of(record))}
        spec, now = self._specs.curriculum(record), self._clock.now()
        plan = curriculum.reconcile(record, spec, jobs, now)
        found = (self._store.find("Job", wanted.name) for wanted in plan.create)
        if taken := {item.name: item for item in found if item is not None}:
            # Somebody's job has the name already: the curriculum is to see it, and say so.
            plan = curriculum.reconcile(record, spec, jobs | taken, now)
        # Jobs first: their names make each of these a no-op when it is done again after a crash before the save below.
        for wanted in plan.create:
            self._store.create(wanted)
        for name in plan.cancel:
            request_cancel(self._store, "Job", name)
        for name in plan.rerun:
            target = jobs[name]
            self._store.save(target.with_status(rerunRequested="failed"))
        saved = self._save(record, plan.record, plan.events)
        if saved.state in TERMINAL:
            self._after_curriculum(saved, jobs)

    def _after_curriculum(self, record: Record, jobs: Iterable[str]) -> None:
        """Close its run in the tracker; where it is to be deleted, its jobs go first, then it."""
        tried = True
        if not record.status.get("trackerClosed"):
            closed, events = self._closer.close_run(record)
            record = self._save(record, record.with_status(trackerClosed=closed or None), events)
            # A tracker that cannot be reached is told as an event; it does not hold up a deletion.
            tried = closed or bool(events)
        if not record.deleting:
            return
        remaining = list(jobs)
        for name in remaining:
            self._store.request_delete("Job", name)
        if tried and not remaining:
            self._store.remove(record)
            self._specs.forget(record.uid)

    def _reconcile_job(self, record: Record) -> None:
        machine = JobMachine(record, self._clock.now())
        job.reconcile(machine, self._specs.job(record))
        saved = self._save(record, machine.record, machine.events)
        if saved.deleting and machine.state.over:
            self._store.remove(saved)
            self._specs.forget(saved.uid)

    def _reconcile_service(self, record: Record) -> None:
        machine = ServiceMachine(record, self._clock.now())
        service.reconcile(machine, self._specs.service(record))
        saved = self._save(record, machine.record, machine.events)
        if saved.deleting and not machine.placed:
            self._store.remove(saved)
            self._specs.forget(saved.uid)

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        waiting = {record.uid: record for record in self._store.records("Job") if fleet.job_waits(record)}
        waiting |= {record.uid: record for record in self._store.records("Service") if fleet.service_waits(record)}
        for decision in decisions:
            record = waiting.get(decision.uid)
            if record is not None:
                self._guarded(record, partial(self._decide, decision))

    def _decide(self, decision: Decision, record: Record) -> None:
        spec = self._specs.job(record) if record.kind == "Job" else self._specs.service(record)
        machine: JobMachine | ServiceMachine = (
            JobMachine(record, self._clock.now()) if record.kind == "Job" else ServiceMachine(record, self._clock.now())
        )
        if isinstance(decision, Admit):
            machine.admit(decision, request_of(spec.resources))
        else:
            machine.wait(decision)
        self._save(record, machine.record, machine.events)


def _about(record: Record, report: Report, seen: dict[str, LaunchStatus]) -> LaunchStatus | None:
    """What the report says of this record, where the reporting cell is the one that it was placed on."""
    place = record.status.get("placement") or {}
    return seen.get(record.uid) if place.get("cell", report.cell) == report.cell else None
