"""A job with `schedule`: it makes a job at each of its times, for as long as it is there.

A run's name says whose it is and when it was due, so making it again after a crash finds it there. Times that passed
while nobody looked are made up for once, by the last of them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from helios.control.array import Asked, made_by
from helios.control.job_machine import JobMachine
from helios.control.owners import SCHEDULE_LABEL
from helios.errors import Problem
from helios.lifecycle import TERMINAL, JobState
from helios.spec import Concurrency, JobSpec, Schedule, to_json
from helios.store import Record, seconds, timestamp
from helios.store.records import STOP_FINALIZER

UID = "HELIOS_SCHEDULE_UID"
_MOST_MISSED = 1000
"""Due times looked through for the last one after a long silence; where there are more, only those of late."""
_SHORTEST_S = 60.0


def problems(schedule: Schedule) -> list[Problem]:
    """What the library of crontab has against its expression."""
    try:
        CronSim(schedule.cron, datetime.now(UTC))
    except CronSimError as error:
        return [Problem(f"cannot be read as crontab: {error}", field="spec.schedule.cron", value=schedule.cron)]
    return []


def reconcile(machine: JobMachine, spec: JobSpec, jobs: Mapping[str, Record]) -> Asked:
    """Decide the next step of a schedule; `jobs` are, by name, those that carry its label."""
    assert spec.schedule is not None
    record = machine.record
    runs, outlived = made_by(record, jobs, UID)
    asked = Asked(remaining=bool(runs or outlived), delete=outlived)
    live = [name for name, job in runs.items() if job.state not in TERMINAL]
    if machine.state.over:
        if record.deleting:
            asked.delete = [*outlived, *runs]
        elif record.status.get("rerunRequested"):
            cleared = {"rerunRequested": None, "cancelRequested": None, "finishedAt": None, "released": None}
            machine.lead("Rerun", "goes on at its times, as requested", lastDue=timestamp(machine.now), **cleared)
        return asked
    if record.deleting or record.status.get("cancelRequested"):
        asked.cancel = [name for name in live if not runs[name].status.get("cancelRequested")]
        if not live:
            machine.conclude(JobState.CANCELLED, "Cancelled", "cancelled on request")
        return asked
    if machine.state is JobState.PENDING:
        times = f"runs at {spec.schedule.cron} ({spec.schedule.timezone})"
        machine.lead("Scheduled", times, lastDue=timestamp(machine.now))
    _make_due(machine, spec, runs, live, asked)
    asked.delete = [*outlived, *_beyond(runs, spec.schedule.keep)]
    return asked


def next_dues(record: Record, spec: JobSpec) -> list[float]:
    """When the next run is due, seconds since the epoch; empty where none is to come."""
    if spec.schedule is None or spec.schedule.suspend or "lastDue" not in record.status or record.state in TERMINAL:
        return []
    due = _after(spec.schedule, seconds(record.status["lastDue"]))
    return [] if due is None else [due]


def _make_due(machine: JobMachine, spec: JobSpec, runs: Mapping[str, Record], live: list[str], asked: Asked) -> None:
    assert spec.schedule is not None
    schedule = spec.schedule
    due = _last_due(schedule, seconds(machine.record.status["lastDue"]), machine.now)
    if due is None:
        return
    machine.record = machine.record.with_status(lastDue=timestamp(due))
    if schedule.suspend:
        return
    if live and schedule.concurrency is Concurrency.FORBID:
        machine.hold("RunSkipped", f"the run of {timestamp(due)} was left out: {live[0]} is not over")
        return
    if schedule.concurrency is Concurrency.REPLACE:
        asked.cancel = [name for name in live if not runs[name].status.get("cancelRequested")]
    wanted = _run(machine.record, spec, due)
    if wanted.name not in runs and wanted.name not in asked.delete:
        asked.create = [wanted]


def _last_due(schedule: Schedule, after: float, now: float) -> float | None:
    last = None
    for _ in range(_MOST_MISSED):
        due = _after(schedule, after)
        if due is None or due > now:
            return last
        last = after = due
    late = now - _MOST_MISSED * _SHORTEST_S
    return (_last_due(schedule, late, now) if after < late else None) or last


def _after(schedule: Schedule, moment: float) -> float | None:
    """The first time after that moment, or None where there is none (February 30th)."""
    start = datetime.fromtimestamp(moment, ZoneInfo(schedule.timezone))
    found = next(CronSim(schedule.cron, start), None)
    return found.timestamp() if found is not None else None


def _run(record: Record, spec: JobSpec, due: float) -> Record:
    context = {UID: record.uid, "HELIOS_SCHEDULED_AT": timestamp(due)}
    return Record(
        kind="Job",
        name=f"{record.name}-{int(due) // 60}",
        labels={**record.labels, SCHEDULE_LABEL: record.name},
        spec=to_json(spec.model_copy(update={"schedule": None})),
        status={"state": "Pending", "context": context},
        finalizers=(STOP_FINALIZER,),
    )


def _beyond(runs: Mapping[str, Record], keep: int) -> list[str]:
    ended = sorted((job for job in runs.values() if job.state in TERMINAL), key=lambda job: job.created_at)
    return [job.name for job in ended[: max(0, len(ended) - keep)] if not job.deleting]
