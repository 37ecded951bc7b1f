"""A job with `array`: it makes its members, each a job of its own, and ends as they do.

A member's name says whose it is and which, so making it again after a crash finds it there.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from helios.control.job import has_what_it_needs
from helios.control.job_machine import JobMachine
from helios.control.owners import ARRAY_LABEL
from helios.lifecycle import TERMINAL, JobState
from helios.spec import JobSpec, to_json
from helios.store import Record
from helios.store.records import STOP_FINALIZER

UID = "HELIOS_ARRAY_UID"
_SHOWN = 3


@dataclass(slots=True)
class Asked:
    """What a look at a job that makes others leads to besides its own next version.

    Attributes:
        remaining: whether jobs of it are still there.
    """

    remaining: bool = False
    create: list[Record] = field(default_factory=list)
    cancel: list[str] = field(default_factory=list)
    rerun: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)


def member_name(name: str, number: int) -> str:
    return f"{name}-{number}"


def made_by(record: Record, jobs: Mapping[str, Record], uid: str) -> tuple[dict[str, Record], list[str]]:
    """Of jobs that carry its label: those that it made, and the names of those that an object of its name made before.

    Args:
        uid: name of the fact in a job's context that says who made it; a label alone says nothing.
    """
    makers = {name: job.status.get("context", {}).get(uid) for name, job in jobs.items()}
    own = {name: jobs[name] for name, maker in makers.items() if maker == record.uid}
    return own, [name for name, maker in makers.items() if maker not in {None, record.uid}]


def reconcile(
    machine: JobMachine, spec: JobSpec, jobs: Mapping[str, Record], needs: Mapping[str, Record | None]
) -> Asked:
    """Decide the next step of an array; `jobs` are, by name, those that carry its label, `needs` those it waits for."""
    assert spec.array is not None
    record = machine.record
    members, outlived = made_by(record, jobs, UID)
    asked = Asked(remaining=bool(members or outlived), delete=outlived)
    if machine.state.over:
        _over(machine, members, asked)
        return asked
    ending = record.deleting or record.status.get("cancelRequested")
    if machine.state is JobState.PENDING and not ending:
        if outlived or not has_what_it_needs(machine, spec, needs):
            return asked  # members of an array that had its name have the names of its own
        machine.lead("ArrayStarted", f"makes {spec.array.size} jobs")
    # A member that is only now asked to run again still looks as it ended before.
    live = [name for name, job in members.items() if job.state not in TERMINAL or job.status.get("rerunRequested")]
    if ending:
        asked.cancel = [name for name in live if not members[name].status.get("cancelRequested")]
    else:
        asked.create = _missing(machine.record, spec, members, live)
    _summarise(machine, members, spec.array.size)
    if not asked.create and not live:
        _conclude(machine, members, spec.array.size, ending=bool(ending))
    return asked


def _over(machine: JobMachine, members: Mapping[str, Record], asked: Asked) -> None:
    if machine.record.deleting:
        asked.delete = [*asked.delete, *members]
    elif machine.record.status.get("rerunRequested") and machine.state is not JobState.SUCCEEDED:
        asked.rerun = [name for name, job in members.items() if job.state in {JobState.FAILED, JobState.CANCELLED}]
        cleared = {"rerunRequested": None, "cancelRequested": None, "finishedAt": None, "released": None}
        machine.lead("Rerun", f"{len(asked.rerun)} members run again, as requested", **cleared)


def _missing(record: Record, spec: JobSpec, members: Mapping[str, Record], live: list[str]) -> list[Record]:
    """The members that are to be made now: as many as may be in the queue at a time."""
    assert spec.array is not None
    room = (spec.array.parallelism or spec.array.size) - len(live)
    first = _made(record, members)
    return [_member(record, spec, number) for number in range(first, min(spec.array.size, first + max(room, 0)))]


def _made(record: Record, members: Mapping[str, Record]) -> int:
    """How many were ever made; they are made in order, and one that somebody deleted is not made again."""
    numbers = (int(job.status["context"]["HELIOS_ARRAY_INDEX"]) + 1 for job in members.values())
    return max(int(record.status.get("array", {}).get("made", 0)), max(numbers, default=0))


def _member(record: Record, spec: JobSpec, number: int) -> Record:
    assert spec.array is not None
    context = {
        **record.status.get("context", {}),
        UID: record.uid,
        "HELIOS_ARRAY_INDEX": str(number),
        "HELIOS_ARRAY_SIZE": str(spec.array.size),
    }
    return Record(
        kind="Job",
        name=member_name(record.name, number),
        labels={**record.labels, ARRAY_LABEL: record.name, "helios/array-index": str(number)},
        spec=to_json(spec.model_copy(update={"array": None, "needs": []})),
        status={"state": "Pending", "context": context},
        finalizers=(STOP_FINALIZER,),
    )


def _summarise(machine: JobMachine, members: Mapping[str, Record], size: int) -> None:
    counts: dict[str, Any] = dict(sorted(Counter(job.state for job in members.values()).items()))
    machine.record = machine.record.with_status(
        array={"size": size, "made": _made(machine.record, members), "states": counts}
    )


def _conclude(machine: JobMachine, members: Mapping[str, Record], size: int, *, ending: bool) -> None:
    failed = sorted(name for name, job in members.items() if job.state == JobState.FAILED)
    succeeded = sum(job.state == JobState.SUCCEEDED for job in members.values())
    if succeeded == size:
        machine.conclude(JobState.SUCCEEDED, "Completed", f"all {size} members succeeded")
    elif failed and not ending:
        shown = ", ".join(failed[:_SHOWN]) + (" ..." if len(failed) > _SHOWN else "")
        why = members[failed[0]].status.get("message", "")
        machine.conclude(JobState.FAILED, "MembersFailed", f"{len(failed)} of {size} members failed: {shown}: {why}")
    else:
        machine.conclude(JobState.CANCELLED, "Cancelled", f"{succeeded} of {size} members had succeeded")
