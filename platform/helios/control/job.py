"""The job controller: from what cells report and people ask to the next transition of one job."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from helios import lifecycle
from helios.control import cell, status
from helios.control.job_machine import JobMachine
from helios.lifecycle import JobState
from helios.ports import LaunchStatus, Phase
from helios.spec import JobSpec
from helios.store import Record, seconds

START_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a job depends on besides itself.

    Attributes:
        cell: the cell that it is placed on.
        nodes: the nodes that it is placed on.
        needs: the jobs that it needs, by name; None for one that is gone.
        gone: the cell that it is placed on is not there any more.
        now: seconds since the epoch.
    """

    cell: Record | None = None
    nodes: frozenset[str] = frozenset()
    needs: Mapping[str, Record | None] = field(default_factory=dict)
    gone: bool = False
    now: float = 0.0

    @property
    def reachable(self) -> bool:
        return self.cell is not None and cell.is_reachable(self.cell)

    @property
    def forsaken(self) -> bool:
        """Whether its cell is gone, or goes while nothing is heard of it: no end will be confirmed there."""
        return self.gone or (self.cell is not None and cell.is_forsaken(self.cell, self.now))

    @property
    def lost(self) -> frozenset[str]:
        """Those of its nodes that the cell's engine knows to be gone."""
        return self.nodes & cell.lost_nodes(self.cell) if self.cell is not None else frozenset()

    @property
    def unhealthy(self) -> frozenset[str]:
        """Those of its nodes that are lost, or that an agent found something serious wrong with."""
        return self.nodes & cell.unhealthy_nodes(self.cell) if self.cell is not None else frozenset()

    @property
    def draining(self) -> frozenset[str]:
        return self.nodes & cell.draining_nodes(self.cell) if self.cell is not None else frozenset()


def observe(machine: JobMachine, spec: JobSpec, seen: LaunchStatus) -> None:
    """Take in what a cell says of one launch of this job. Words about another epoch say nothing about this one."""
    if machine.state.over or seen.epoch != status.epoch(machine.record):
        return
    if seen.phase is Phase.SUCCEEDED and (machine.placed or machine.state is JobState.RECOVERING):
        # A persisted exit wins over everything that was believed or asked meanwhile.
        machine.report(seen.progress)
        machine.succeed(seen.reason, seen.message, seen.outputs)
    elif machine.placed:
        _observe_placed(machine, spec, seen)


def _observe_placed(machine: JobMachine, spec: JobSpec, seen: LaunchStatus) -> None:
    machine.see(seen.phase is not Phase.UNKNOWN, seen.message or "the cell sees the launch")
    if seen.phase in {Phase.STARTING, Phase.RUNNING}:
        _alive(machine, seen)
    elif machine.stopping and seen.phase is Phase.ABSENT:
        # Before the cell knew that it is to stop, `Absent` may only mean that it has not been started yet.
        if seen.stopping:
            _over(machine, spec, machine.stopping["reason"], machine.stopping["message"])
    elif machine.stopping and seen.phase is Phase.STOPPED:
        machine.report(seen.progress)
        _over(machine, spec, machine.stopping["reason"], machine.stopping["message"])
    elif seen.phase is Phase.FAILED:
        machine.report(seen.progress)
        _over(machine, spec, seen.reason or str(seen.phase), seen.message)
    elif seen.phase is Phase.STOPPED:
        # Its cell was told to stop it (`helios down`): however the program took that, it is no failure of it.
        machine.report(seen.progress)
        _over(machine, spec, seen.reason if seen.reason in lifecycle.NOT_CHARGED else lifecycle.STOPPED, seen.message)
    elif seen.phase is Phase.ABSENT:
        _absent(machine, seen)


def _absent(machine: JobMachine, seen: LaunchStatus) -> None:
    if machine.state is not JobState.ADMITTED:
        machine.lose("EngineLost", seen.message or "its cell does not know the launch any more")
    elif machine.now - seconds(machine.record.status["admittedAt"]) > START_DEADLINE_S:
        # Until then it is only not started yet; after that it was started and lost before anybody saw it run.
        machine.lose(lifecycle.START_LOST, f"its cell shows nothing of it {START_DEADLINE_S:.0f} s after its admission")


def _alive(machine: JobMachine, seen: LaunchStatus) -> None:
    if seen.phase is Phase.STARTING:
        machine.start(seen.reason, seen.message)
    if seen.phase is Phase.RUNNING and machine.state in {JobState.ADMITTED, JobState.STARTING}:
        machine.run()
    machine.report(seen.progress)


def _over(machine: JobMachine, spec: JobSpec, reason: str, message: str) -> None:
    """The launch is over without success: end the job, or give it its next chance."""
    stop = machine.stopping or {}
    if machine.record.status.get("cancelRequested") or stop.get("reason") == "Cancelled":
        machine.cancel()
    elif stop.get("reason") == "RunTimeout":
        machine.fail("RunTimeout", stop["message"])
    elif (spent := lifecycle.spent(machine.tally, spec.retry, reason)) is not None:
        machine.fail(reason, f"{message} {spent}".strip())
    elif reason == lifecycle.RESIZED and "resize" in machine.record.status:
        machine.resume()
    else:
        charged = lifecycle.is_charged(spec.retry, reason)
        machine.recover(reason, message or "the launch ended early", charged=charged)


def reconcile(machine: JobMachine, spec: JobSpec, around: Surroundings) -> None:
    """Move what no cell needs to say anything for: acceptance, requests of people, deadlines, the state of nodes."""
    record = machine.record
    if machine.state.over:
        if record.status.get("rerunRequested") and not record.deleting and machine.state is not JobState.SUCCEEDED:
            machine.rerun()
        return
    if machine.placed and around.forsaken:
        _forsake(machine, around)
        return
    if record.status.get("cancelRequested") or record.deleting:
        if not machine.placed:
            machine.cancel()
            return
        machine.stop("Cancelled", "cancelled on request", grace_s=spec.checkpoint.grace)
    if machine.state is JobState.PENDING and has_what_it_needs(machine, spec, around.needs):
        machine.queue()
    _deadlines(machine, spec)
    if machine.placed and machine.stopping is None:
        _surroundings(machine, spec, around)
    elif machine.placed and around.reachable and around.lost:
        machine.hurry(f"{_lost(around)}: what is left of the gang is ended at once")


def _forsake(machine: JobMachine, around: Surroundings) -> None:
    """Nobody can be asked what became of it. That ends it; only a person who knows may have it run again."""
    stop = machine.stopping or {}
    if machine.record.status.get("cancelRequested") or machine.record.deleting or stop.get("reason") == "Cancelled":
        machine.cancel()
    else:
        name = around.cell.name if around.cell is not None else machine.record.status["placement"]["cell"]
        machine.fail(lifecycle.CELL_DELETED, f"cell {name} was deleted while nothing was heard of it")


def _lost(around: Surroundings) -> str:
    assert around.cell is not None
    return f"node {', '.join(sorted(around.lost)[:3])} of cell {around.cell.name} is lost"


def has_what_it_needs(machine: JobMachine, spec: JobSpec, needs: Mapping[str, Record | None]) -> bool:
    """Whether the jobs that it needs have succeeded; where not, it says which it waits for."""
    for name in spec.needs:
        other = needs.get(name)
        if other is None:
            machine.hold("DependencyGone", f"job {name}, which must have succeeded before, is not there any more")
        elif other.state in {JobState.FAILED, JobState.CANCELLED}:
            machine.hold("DependencyFailed", f"job {name}, which must succeed before, is {other.state}")
        elif other.state != JobState.SUCCEEDED:
            machine.hold("WaitsForJob", f"waits for job {name} to succeed")
        else:
            continue
        return False
    return True


def _surroundings(machine: JobMachine, spec: JobSpec, around: Surroundings) -> None:
    """Follow what became of its nodes, and what people want of it."""
    if machine.record.status.get("preemptRequested"):
        machine.preempt(lifecycle.PREEMPTED, "preempted on request", grace_s=spec.checkpoint.grace)
        return
    if around.cell is None:
        return
    if not around.reachable:
        machine.see(False, f"cell {around.cell.name} is silent; what runs there is left alone")
        return
    machine.nodes(around.unhealthy)
    if around.lost:
        machine.lose(lifecycle.NODE_LOST, _lost(around))
    elif around.draining:
        nodes = ", ".join(sorted(around.draining)[:3])
        message = f"node {nodes} of cell {around.cell.name} is being drained"
        machine.preempt(lifecycle.DRAINED, message, grace_s=spec.checkpoint.grace)


def _deadlines(machine: JobMachine, spec: JobSpec) -> None:
    queue, run = spec.timeout.queue, spec.timeout.run
    if queue is not None and machine.state is JobState.QUEUED:
        since = seconds(machine.record.status["queuedAt"])
        waited = machine.now - since
        if machine.now >= since + queue:  # the sum that `next_due` gives: a look at that moment must find it due
            machine.fail("QueueTimeout", f"waited {waited:.0f} s for capacity; timeout.queue is {queue:g} s")
    started = machine.record.status.get("startedAt")
    if run is not None and started is not None and not machine.state.over:
        if machine.now < seconds(started) + run:
            return
        message = f"ran longer than timeout.run, {run:g} s"
        if machine.placed:
            machine.stop("RunTimeout", message, grace_s=spec.checkpoint.grace)
        else:
            machine.fail("RunTimeout", message)


def only_waits(record: Record) -> bool:
    """Whether all that can move it is the scheduler: ten thousand such specs need not be parsed to see that."""
    facts, timeout = record.status, record.spec["timeout"]
    asked = record.deleting or facts.get("cancelRequested")
    return record.state == JobState.QUEUED and not asked and timeout["queue"] is None and timeout["run"] is None


def next_dues(record: Record, spec: JobSpec) -> list[float]:
    """When the job is to be looked at again though nothing has happened, past times among them; since the epoch."""
    state, facts = JobState(record.state), record.status
    due: list[float] = []
    if state is JobState.QUEUED and spec.timeout.queue is not None:
        due.append(seconds(facts["queuedAt"]) + spec.timeout.queue)
    if not state.over and spec.timeout.run is not None and facts.get("startedAt"):
        due.append(seconds(facts["startedAt"]) + spec.timeout.run)
    if state is JobState.RECOVERING:
        due += [seconds(until) for until in facts.get("heldOff", {}).values()]
    return due
