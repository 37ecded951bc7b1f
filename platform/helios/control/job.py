"""The job controller: from what cells report and people ask to the next transition of one job."""

from helios.control import status
from helios.control.job_machine import JobMachine, JobState
from helios.ports import LaunchStatus, Phase
from helios.spec import JobSpec
from helios.store import seconds

START_DEADLINE_S = 60.0


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
    elif machine.stopping and seen.phase in {Phase.STOPPED, Phase.ABSENT}:
        _over(machine, spec, machine.stopping["reason"], machine.stopping["message"])
    elif seen.phase is Phase.FAILED:
        machine.report(seen.progress)
        _over(machine, spec, seen.reason or str(seen.phase), seen.message)
    elif seen.phase is Phase.STOPPED:
        # Its cell was told to stop it (`helios down`): however the program took that, it is no failure of it.
        machine.report(seen.progress)
        _over(machine, spec, seen.reason if seen.reason in status.NOT_CHARGED else status.STOPPED, seen.message)
    elif seen.phase is Phase.ABSENT:
        _absent(machine, seen)


def _absent(machine: JobMachine, seen: LaunchStatus) -> None:
    if machine.state is not JobState.ADMITTED:
        machine.lose("EngineLost", seen.message or "its cell does not know the launch any more")
    elif machine.now - seconds(machine.record.status["admittedAt"]) > START_DEADLINE_S:
        # Until then it is only not started yet; after that it was started and lost before anybody saw it run.
        machine.lose(status.START_LOST, f"its cell shows nothing of it {START_DEADLINE_S:.0f} s after its admission")


def _alive(machine: JobMachine, seen: LaunchStatus) -> None:
    if seen.phase is Phase.STARTING and machine.state is JobState.ADMITTED:
        machine.start()
    if seen.phase is Phase.RUNNING and machine.state in {JobState.ADMITTED, JobState.STARTING}:
        machine.run()
    machine.report(seen.progress)


def _over(machine: JobMachine, spec: JobSpec, reason: str, message: str) -> None:
    """The launch is over without success: end the job, or give it its next chance."""
    stop = machine.stopping or {}
    failures, restarts = machine.tally
    if machine.record.status.get("cancelRequested") or stop.get("reason") == "Cancelled":
        machine.cancel()
    elif stop.get("reason") == "RunTimeout":
        machine.fail("RunTimeout", stop["message"])
    elif reason in status.NEVER_RETRIED:
        machine.fail(reason, message)
    elif reason not in status.NOT_CHARGED and failures >= spec.retry.max_retries:
        machine.fail(reason, f"{message} (restarted {_times(failures)}; retry.maxRetries is {spec.retry.max_retries})")
    elif restarts >= status.MAX_RESTARTS:
        machine.fail(reason, f"{message} (restarted {_times(restarts)}, which is the most there is)")
    else:
        machine.recover(reason, message or "the launch ended early")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def reconcile(machine: JobMachine, spec: JobSpec) -> None:
    """Move what no cell needs to say anything for: acceptance, requests of people, deadlines."""
    record = machine.record
    if machine.state.over:
        if record.status.get("rerunRequested") and not record.deleting and machine.state is not JobState.SUCCEEDED:
            machine.rerun()
        return
    if record.status.get("cancelRequested") or record.deleting:
        if machine.placed:
            machine.stop("Cancelled", "cancelled on request")
        else:
            machine.cancel()
        return
    if machine.state is JobState.PENDING:
        machine.queue()
    _deadlines(machine, spec)


def _deadlines(machine: JobMachine, spec: JobSpec) -> None:
    queue, run = spec.timeout.queue, spec.timeout.run
    if queue is not None and machine.state is JobState.QUEUED:
        waited = machine.now - seconds(machine.record.status["queuedAt"])
        if waited > queue:
            machine.fail("QueueTimeout", f"waited {waited:.0f} s for capacity; timeout.queue is {queue:g} s")
    started = machine.record.status.get("startedAt")
    if run is not None and started is not None and not machine.state.over:
        if machine.now - seconds(started) <= run:
            return
        message = f"ran longer than timeout.run, {run:g} s"
        if machine.placed:
            machine.stop("RunTimeout", message)
        else:
            machine.fail("RunTimeout", message)
