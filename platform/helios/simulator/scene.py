"""Where a run begins: an empty fleet and a trace, or a live fleet as a snapshot shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from helios.scheduler import NO_END, CellState, Headroom, PendingGang, QuotaState, RunningGang, Snapshot, TenantState
from helios.simulator.jobs import TraceJob, Workload
from helios.spec import QoS

CHECKPOINT_S = 1800.0
"""What a running gang that wrote checkpoints is taken to work between two: a snapshot does not say it."""


@dataclass(frozen=True)
class Scene:
    """What is there when a run begins. Times are seconds since then; what was before is negative.

    Attributes:
        workload: jobs that wait or run, and those that come later.
        gangs: what the scheduler is to see of a job in the queue, by job id; where missing it follows from the job.
        running: gangs that hold places already, by job id.
    """

    workload: Workload
    fleet: tuple[CellState, ...]
    tenants: tuple[TenantState, ...] = ()
    gangs: Mapping[str, PendingGang] = field(default_factory=dict)
    running: Mapping[str, RunningGang] = field(default_factory=dict)
    headroom: tuple[Headroom, ...] = ()


def from_snapshot(snapshot: Snapshot, *, unknown_s: float = 86_400.0, name: str = "snapshot") -> Scene:
    """A live fleet and its queue, to be played on with the estimates that the snapshot has.

    What has no estimate is taken to run `unknown_s` from now on. Services never end: those that wait have an estimate
    of `NO_END`, and of those that run the snapshot says it; an older one does not, and then they are taken to be the
    guaranteed gangs whose end nobody expects. What a gang would lose now, it loses in the run as well; a gang that was
    told to leave goes back to the queue. What a shrinking gang is about to give up is taken to be free.
    """
    now = snapshot.now
    held = {gang.uid: _shifted(gang, now) for gang in snapshot.running}
    running = {uid: gang for uid, gang in held.items() if not _given_up(uid, held)}
    waiting = {gang.uid: _moved(gang, now) for gang in snapshot.pending}
    jobs = [_of_running(gang, unknown_s) for gang in running.values()]
    jobs += [_of_pending(gang, unknown_s) for gang in waiting.values()]
    jobs.sort(key=lambda job: job.submitted_s)
    queued = {uid: _queued(gang) for uid, gang in running.items()}
    known = {tenant.name for tenant in snapshot.tenants}
    others = tuple(TenantState(tenant) for tenant in dict.fromkeys(job.tenant for job in jobs) if tenant not in known)
    return Scene(
        workload=Workload(name, tuple(jobs), 0.0),
        fleet=snapshot.cells,
        tenants=snapshot.tenants + others,
        gangs={**waiting, **queued},
        running=running,
        headroom=snapshot.headroom,
    )


def nominal(tenants: tuple[TenantState, ...]) -> dict[str, float]:
    """Nominal devices by tenant, of all types together; tenants without any quota are left out."""
    found = {}
    for tenant in tenants:
        if tenant.quotas is not None:
            quotas = tenant.quotas.values()
            found[tenant.name] = float(sum(each.nominal if isinstance(each, QuotaState) else each for each in quotas))
    return found


def _given_up(uid: str, held: Mapping[str, RunningGang]) -> bool:
    """Whether it is what a gang that shrinks gives up, shown beside what it goes on with as `uid:leaving`."""
    whose, colon, _ = uid.rpartition(":")
    return bool(colon) and whose in held


def _shifted(gang: RunningGang, now: float) -> RunningGang:
    def shift(at: float | None) -> float | None:
        return None if at is None else at - now

    return replace(
        gang,
        started_at=0.0 if gang.started_at is None else min(0.0, gang.started_at - now),
        checkpointed_at=shift(gang.checkpointed_at),
        ends_at=shift(gang.ends_at),
        leaving_at=shift(gang.leaving_at),
        min_workers=gang.fewest,
        max_workers=gang.most,
    )


def _moved(gang: PendingGang, now: float) -> PendingGang:
    held_off = tuple((cell, until - now) for cell, until in gang.held_off)
    promised = None if gang.promised is None else (gang.promised[0], gang.promised[1] - now)
    return replace(gang, submitted_at=gang.submitted_at - now, held_off=held_off, promised=promised)


def _of_running(gang: RunningGang, unknown_s: float) -> TraceJob:
    """The job from its last checkpoint on: what it did since then may still be lost.

    It goes as fast with the workers that it has now as it ever does, which only matters to gangs that are resized.
    """
    left = _left_s(gang, unknown_s)
    done = unsaved_s(gang)
    saves = None if gang.checkpointed_at is None else max(CHECKPOINT_S, done * 1.001)
    job = _job(gang.uid, gang, gang.fewest, gang.most, -done - gang.restart_s)
    return replace(job, duration_s=done + left, estimate_s=done + left, restart_s=gang.restart_s, checkpoint_s=saves)


def _left_s(gang: RunningGang, unknown_s: float) -> float:
    """Seconds from now on until it is over by itself."""
    if gang.serves or (gang.serves is None and gang.ends_at is None and gang.qos is QoS.GUARANTEED):
        return NO_END
    return unknown_s if gang.ends_at is None else max(0.0, gang.ends_at)


def _of_pending(gang: PendingGang, unknown_s: float) -> TraceJob:
    seconds = unknown_s if gang.estimate is None else gang.estimate
    job = _job(gang.uid, gang, gang.min_workers, gang.max_workers, gang.submitted_at)
    saves = CHECKPOINT_S if gang.checkpointed else None
    return replace(job, duration_s=seconds, estimate_s=gang.estimate, checkpoint_s=saves, data=gang.data)


def _job(uid: str, gang: PendingGang | RunningGang, workers: int, most: int, submitted_s: float) -> TraceJob:
    request = gang.request
    return TraceJob(
        job_id=uid,
        submitted_s=submitted_s,
        duration_s=0.0,
        workers=workers,
        max_workers=most,
        gpus=request.accelerators,
        share=request.share,
        accelerator=request.accelerator,
        cpus=request.millicpus / 1000,
        memory=request.memory,
        tenant=gang.tenant,
        qos=gang.qos,
    )


def _queued(gang: RunningGang) -> PendingGang:
    """What a gang that runs is in the queue, should it come back to it."""
    return PendingGang(
        uid=gang.uid,
        name=gang.name or gang.uid,
        tenant=gang.tenant,
        qos=gang.qos,
        priority=gang.priority,
        submitted_at=gang.started_at or 0.0,
        request=gang.request,
        min_workers=gang.fewest,
        max_workers=gang.most,
        estimate=gang.ends_at,
        home=gang.cell,
        preemptions=gang.preemptions,
        spread=gang.spread,
    )


def unsaved_s(gang: RunningGang) -> float:
    """Seconds of work that a gang whose times are counted from now would lose now."""
    since = gang.started_at or 0.0
    return -max(since, since if gang.checkpointed_at is None else min(0.0, gang.checkpointed_at))
