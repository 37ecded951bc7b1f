"""The curriculum controller: one job a stage, each created when what it needs has succeeded.

A job's name says curriculum, run and stage, so creating it again after a crash finds it there. What a stage came to is
remembered in the curriculum's own status: a job that is deleted afterwards is not run again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from helios.control.owners import CURRICULUM_LABEL
from helios.lifecycle import TERMINAL
from helios.spec import CurriculumSpec, to_json
from helios.store import Event, EventType, Record, timestamp
from helios.store.records import STOP_FINALIZER

UID = "HELIOS_CURRICULUM_UID"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage as the curriculum's status has it. `state` is its job's; `Pending` also before there is a job.

    `message` is what its job said as it failed.
    """

    name: str
    job: str
    state: str = "Pending"
    reason: str = ""
    message: str = ""
    created: bool = False
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.state in TERMINAL

    @property
    def live(self) -> bool:
        return self.created and not self.over


@dataclass(slots=True)
class Plan:
    """What one look at a curriculum leads to: its next version, and what is to be asked of its jobs."""

    record: Record
    create: list[Record] = field(default_factory=list)
    cancel: list[str] = field(default_factory=list)
    rerun: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def jobs_of(record: Record) -> dict[str, str]:
    """The label that marks every job of this curriculum."""
    return {CURRICULUM_LABEL: record.name}


def owns(record: Record, job: Record) -> bool:
    """Whether the curriculum made that job; a label alone says nothing."""
    context: Mapping[str, Any] = job.status.get("context", {})
    return context.get(UID) == record.uid


def reconcile(record: Record, spec: CurriculumSpec, jobs: Mapping[str, Record], now: float) -> Plan:
    """Decide the next step of one curriculum; `jobs` are, by name, those that carry its label."""
    plan = Plan(record)
    if record.state in TERMINAL and (record.deleting or not _begin_again(plan, spec, jobs, now)):
        return plan
    if "run" not in record.status:
        _begin(plan, spec, 1, now)
    # A job that is only now asked to run again still looks as it ended before.
    stages = [
        stage if stage.job in plan.rerun else _observed(stage, jobs, plan.record.uid) for stage in _stages(plan.record)
    ]
    ending = _ending(plan.record)
    if ending:
        plan.cancel = [stage.job for stage in stages if stage.live]
    elif not plan.rerun:
        stages = [_advanced(stage, stages, plan, spec) for stage in stages]
    plan.record = plan.record.with_status(stages=[_json(stage) for stage in stages])
    _conclude(plan, stages, ending, now)
    return plan


def _ending(record: Record) -> str:
    """Why the run is to end before its stages do, or empty."""
    if record.deleting or record.status.get("cancelRequested"):
        return "cancelled on request"
    if record.status.get("observedGeneration") != record.generation:
        return "another spec was applied while it ran; the next run has it"
    return ""


def _begin_again(plan: Plan, spec: CurriculumSpec, jobs: Mapping[str, Record], now: float) -> bool:
    """Whether a curriculum that is over starts again: asked for, or given another spec."""
    status = plan.record.status
    asked = status.get("rerunRequested")
    changed = status.get("observedGeneration") != plan.record.generation
    if changed or asked == "all":
        _begin(plan, spec, int(status["run"]) + 1, now)
    elif asked == "failed":
        _resume(plan, jobs)
    return bool(changed or asked)


def _begin(plan: Plan, spec: CurriculumSpec, run: int, now: float) -> None:
    stages = [Stage(stage.name, f"{plan.record.name}-r{run}-{stage.name}") for stage in spec.stages]
    fresh = {"outputs": None, "finishedAt": None, "trackerClosed": None, "rerunRequested": None}
    if plan.record.state in TERMINAL:
        fresh["cancelRequested"] = None
    plan.record = plan.record.with_status(
        run=run,
        startedAt=timestamp(now),
        observedGeneration=plan.record.generation,
        stages=[_json(stage) for stage in stages],
        **fresh,
    )
    _move(plan, "Running", "RunStarted", f"run {run} of {len(stages)} stages")


def _resume(plan: Plan, jobs: Mapping[str, Record]) -> None:
    """The same run again from what failed: its jobs are asked to run again, the rest follows by itself."""
    stages = _stages(plan.record)
    again = [stage for stage in stages if stage.over and stage.state != "Succeeded"]
    plan.rerun = [stage.job for stage in again if stage.job in jobs and jobs[stage.job].state in TERMINAL]
    reset = [
        replace(stage, state="Pending", reason="Rerun", message="", created=stage.job in jobs)
        if stage in again
        else stage
        for stage in stages
    ]
    plan.record = plan.record.with_status(
        stages=[_json(stage) for stage in reset],
        finishedAt=None,
        trackerClosed=None,
        rerunRequested=None,
        cancelRequested=None,
    )
    _move(
        plan, "Running", "RunResumed", "goes on with: " + (", ".join(stage.name for stage in again) or "what is left")
    )


def _observed(stage: Stage, jobs: Mapping[str, Record], uid: str) -> Stage:
    job = jobs.get(stage.job)
    if stage.over:
        return stage
    if job is None:
        if stage.created:
            return replace(stage, state="Cancelled", reason="JobDeleted")
        return stage
    if job.status.get("context", {}).get(UID) != uid:
        return replace(stage, state="Failed", reason="JobNameTaken")
    if stage.reason == "Rerun" and job.status.get("rerunRequested"):
        return stage
    reason, outputs = job.status.get("reason", ""), job.status.get("outputs", {})
    message = job.status.get("message", "") if job.state == "Failed" else ""
    return replace(stage, state=job.state, reason=reason, message=message, created=True, outputs=outputs)


def _advanced(stage: Stage, stages: list[Stage], plan: Plan, spec: CurriculumSpec) -> Stage:
    """The stage one step on: its job is created where all it needs has succeeded; else why it waits."""
    if stage.created or stage.over:
        return stage
    needs = [other for other in stages if other.name in spec.needs(stage.name)]
    failed = [other for other in needs if other.state in {"Failed", "Cancelled"}]
    if failed:
        return replace(stage, reason=f"Stage{failed[0].state}: {failed[0].name}")
    blocked = [other for other in needs if other.state != "Succeeded"]
    if blocked:
        reason = blocked[0].reason if blocked[0].reason.startswith("Stage") else f"WaitsFor: {blocked[0].name}"
        return replace(stage, reason=reason)
    plan.create.append(_job(stage, needs, plan.record, spec))
    return replace(stage, created=True, reason="Created")


def _job(stage: Stage, needs: list[Stage], record: Record, spec: CurriculumSpec) -> Record:
    names = [item.name for item in spec.stages]
    run = str(record.status["run"])
    context = {
        "HELIOS_CURRICULUM": record.name,
        UID: record.uid,
        "HELIOS_CURRICULUM_RUN": run,
        "HELIOS_STAGE": stage.name,
        "HELIOS_STAGE_INDEX": str(names.index(stage.name)),
        "HELIOS_STAGE_COUNT": str(len(names)),
    }
    inputs = needs[-1].outputs if needs else {}
    for variable, output in (("HELIOS_INPUT_CHECKPOINT", "checkpoint"), ("HELIOS_INPUT_RUN_ID", "run_id")):
        if inputs.get(output):
            context[variable] = inputs[output]
    if spec.registered_model and stage.name == names[-1]:
        context["HELIOS_REGISTERED_MODEL"] = spec.registered_model
    return Record(
        kind="Job",
        name=stage.job,
        labels={**jobs_of(record), "helios/run": run, "helios/stage": stage.name},
        spec=to_json(spec.job_spec(stage.name)),
        status={"state": "Pending", "context": context},
        finalizers=(STOP_FINALIZER,),
    )


def _conclude(plan: Plan, stages: list[Stage], ending: str, now: float) -> None:
    """End the run where nothing of it is live and nothing more can start."""
    if plan.create or plan.rerun or any(stage.live for stage in stages):
        return
    states = {stage.name: stage.state for stage in stages}
    ended = {"finishedAt": timestamp(now)}
    if all(state == "Succeeded" for state in states.values()):
        plan.record = plan.record.with_status(outputs=dict(stages[-1].outputs), **ended)
        _move(plan, "Succeeded", "Completed", f"all {len(stages)} stages succeeded")
    elif "Failed" in states.values():
        failed = next(stage for stage in stages if stage.state == "Failed")
        plan.record = plan.record.with_status(**ended)
        why = ": ".join(part for part in (failed.reason, failed.message) if part)
        _move(plan, "Failed", "StageFailed", f"stage {failed.name} failed: {why}", warning=True)
    elif ending or "Cancelled" in states.values():
        plan.record = plan.record.with_status(**ended)
        _move(plan, "Cancelled", "Cancelled", ending or "the job of a stage was cancelled")


def _move(plan: Plan, state: str, reason: str, message: str, *, warning: bool = False) -> None:
    plan.record = plan.record.with_status(state=state, reason=reason, message=message)
    record = plan.record
    kind = EventType.WARNING if warning else EventType.NORMAL
    plan.events.append(Event(record.kind, record.name, record.uid, reason, f"{state}: {message}", kind))


def _stages(record: Record) -> list[Stage]:
    return [Stage(**stage) for stage in record.status["stages"]]


def _json(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "job": stage.job,
        "state": stage.state,
        "reason": stage.reason,
        "message": stage.message,
        "created": stage.created,
        "outputs": dict(stage.outputs),
    }
