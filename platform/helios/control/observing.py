"""What cells say: reports taken in, record by record; what was taken in already moves and writes nothing."""

from concurrent.futures import Executor

from helios.control import cell, fleet, job, service
from helios.control.gateway import report_of, unwanted
from helios.control.job_machine import JobMachine
from helios.control.service import ServiceMachine
from helios.control.status import placement
from helios.control.watching import LOOK_AT_CELLS_S
from helios.control.writes import View, Writes
from helios.errors import InputError
from helios.ports import LaunchStatus, Phase, Report
from helios.store import Record, StoredReport

PROGRESS_PER_S = 50.0
"""Progress records written a second over all jobs; with more jobs each is written less often."""
SLOWEST_PROGRESS_S = 100.0
"""Written at least so often: a job that seems silent for longer would count as idle."""


class Observer:
    """Moves records by what their cells report."""

    def __init__(self, view: View, writes: Writes) -> None:
        self._mirror, self._index, self._specs = view.mirror, view.index, view.specs
        self._watcher, self._clock, self._writes = view.watcher, view.clock, writes
        self._settled: dict[str, tuple[LaunchStatus, int]] = {}
        self._progress_at: dict[str, float] = {}
        self._seen_nodes: dict[str, tuple[object, ...]] = {}

    def begin(self) -> None:
        """Look at all statuses anew."""
        self._settled.clear()
        self._seen_nodes.clear()
        self._progress_at.clear()

    def observe(self, stored: StoredReport, pool: Executor | None, *, timely: bool) -> None:
        """Take in a cell's report: its nodes, then every launch of it; of an old report only how jobs ended."""
        record = self._mirror.find("Cell", stored.cell)
        if record is None:
            return
        try:
            report = report_of(stored.body)
        except InputError as error:
            self._writes.tell(record, error)
            return
        sent = report.session.sent_at
        skew = sent - stored.received_at if sent else 0.0
        if timely:
            self._writes.guarded(record, lambda record: self._observe_cell(record, report, skew))
            self._observe_strays(report)
        found = (
            (status, self._news(status, report.cell)) for status in report.statuses if timely or _is_lasting(status)
        )
        fresh = [(status, about) for status, about in found if about is not None]
        self._writes.each(
            fresh, lambda item: self._writes.guarded(item[1], lambda about: self._observe_launch(about, item[0])), pool
        )

    def _observe_strays(self, report: Report) -> None:
        """What lives there of another epoch than is known, as after a restore, ends before its job starts anywhere."""
        live = (status for status in report.statuses if status.phase in {Phase.STARTING, Phase.RUNNING})
        found = ((self._mirror.by_uid(status.uid), status.epoch) for status in live)
        strays = [record for record, epoch in found if record is not None and unwanted(record, report.cell, epoch)]
        self._index.note_strays(report.cell, frozenset(record.uid for record in strays))
        for waits in filter(fleet.job_waits, (record for record in strays if record.kind == "Job")):
            self._writes.guarded(waits, lambda record: self._hold_for_stray(record, report.cell))

    def _hold_for_stray(self, record: Record, cell_name: str) -> None:
        machine = JobMachine(record, self._clock.now())
        machine.hold("StillAlive", f"an earlier launch of it is being stopped on cell {cell_name}")
        self._writes.save(record, machine.record, machine.events)

    def _observe_cell(self, record: Record, report: Report, skew: float) -> None:
        seen = (report.nodes, abs(skew) <= cell.SKEW_S)
        if self._seen_nodes.get(record.uid) == (record.resource_version, *seen):
            return  # the same as last time, of a record that nobody has written since
        after = cell.observe(record, report.nodes, self._clock.now(), skew_s=skew)
        saved = self._writes.save(record, after, cell.changes(record, after))
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
        saved = self._writes.save(record, after, events)
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

    def uids(self) -> frozenset[str]:
        """Of whom something is remembered."""
        return frozenset({*self._settled, *self._seen_nodes, *self._progress_at})

    def forget(self, uid: str) -> None:
        self._settled.pop(uid, None)
        self._progress_at.pop(uid, None)
        self._seen_nodes.pop(uid, None)


def _is_lasting(status: LaunchStatus) -> bool:
    """Whether what was said of a job stays true: its persisted exit, or that it is gone and will not be started."""
    confirmed = status.phase is Phase.ABSENT and status.stopping
    return confirmed or status.phase in {Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED}
