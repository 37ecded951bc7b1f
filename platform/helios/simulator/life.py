"""One job's life in a run: the transitions that a live job goes through, and where its device-seconds went.

Every moment in which it holds devices falls in exactly one bucket: `starting`, `idle` (draining, writing checkpoints,
held by a dead gang), `productive`, `recomputed` (work that was lost) or `failed` (work of a job that failed for good).
Work since the last checkpoint is in none of the last three until it is known what becomes of it.
"""

import math
from enum import Enum, auto

from helios.lifecycle import NODE_LOST, JobState, Tally, step
from helios.scheduler import Admit, PendingGang, Request, RunningGang
from helios.simulator.jobs import TraceJob
from helios.simulator.outcomes import JobOutcome
from helios.simulator.progress import Progress, checkpoints


class Phase(Enum):
    """What the devices that it holds are doing."""

    NOTHING = auto()
    STARTING = auto()
    WORKING = auto()
    IDLE = auto()


class Life:
    """A job, what it holds, and what it has been through.

    Attributes:
        gang: what the scheduler sees of it in the queue; the rest of it is `job`.
        work: seconds of work, at its largest number of workers, after which it is over; infinite for a service.
        exponent: of its speed-up.
        least: devices that it asks for at its smallest number of workers.
        version: rises with each transition, so that events of before are known as stale.
        kept: work that is safe.
        pending_work: work since then that a checkpoint may still save, of a gang that stopped working.
        target: workers' nodes that it goes on with at once, after a resize; None where it is not being resized.
        dead: a node of it died, and nobody knows yet.
        leaving_at: by when it must be gone.
        fetched: cell in which its input lies ready.
        admissions: how often it was given a place.
    """

    __slots__ = (
        "_limbo_s",
        "_since",
        "admissions",
        "admitted_at",
        "borrowed",
        "borrowed_s",
        "cell",
        "cells",
        "dead",
        "devices",
        "ended_at",
        "ends_at",
        "exponent",
        "failed",
        "fetched",
        "gang",
        "held",
        "held_off",
        "held_s",
        "idle",
        "job",
        "kept",
        "least",
        "leaving_at",
        "nodes",
        "pending_work",
        "phase",
        "preemptions",
        "productive",
        "progress",
        "queued_at",
        "queued_s",
        "racks",
        "reason",
        "recomputed",
        "request",
        "restarts",
        "saved_at",
        "started_at",
        "starting",
        "state",
        "tally",
        "target",
        "version",
        "work",
    )

    def __init__(self, job: TraceJob, gang: PendingGang, *, exponent: float) -> None:
        self.job = job
        self.gang = gang
        self.work = job.duration_s * (1.0 if job.fails_at is None else job.fails_at)
        self.exponent = exponent
        self.least = gang.min_workers * gang.request.devices
        self.version = 0
        self.state = JobState.PENDING
        self.tally = Tally(0, 0, {})
        self.reason = ""
        self.kept = self.pending_work = 0.0
        self.progress: Progress | None = None
        self.phase = Phase.NOTHING
        self._since = self._limbo_s = 0.0
        self.held = self.held_s = 0.0
        self.cell = ""
        self.nodes: tuple[str, ...] = ()
        self.request: Request = gang.request
        self.devices: tuple[int, ...] = ()
        self.target: tuple[str, ...] | None = None
        self.dead = False
        self.leaving_at: float | None = None
        self.ends_at: float | None = None
        self.saved_at: float | None = None
        self.admitted_at = 0.0
        self.admissions = self.preemptions = self.restarts = 0
        self.preemptions = gang.preemptions
        self.held_off: dict[str, float] = dict(gang.held_off)
        self.fetched = ""
        self.cells: list[str] = []
        self.racks = 0
        self.borrowed = self.borrowed_s = 0.0
        self.queued_at = self.queued_s = 0.0
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.productive = self.starting = self.recomputed = self.idle = self.failed = 0.0

    def __repr__(self) -> str:
        return f"job {self.job.job_id}"

    # Transitions, by the names that a live job's machine has ---------------------------------------------------------

    def queue(self, now: float) -> None:
        self._move(JobState.QUEUED, "Queued")
        self.queued_at = now

    def admit(self, decision: Admit, now: float) -> None:
        """It holds a place from now on, and its cell starts it."""
        self._move(JobState.ADMITTED, decision.reason)
        self.cell, self.nodes = decision.cell, decision.nodes
        self.request = decision.request or self.gang.request
        self.devices, self.borrowed = decision.devices, decision.borrowed
        self.queued_s += now - self.queued_at
        self.admitted_at = now
        self.admissions += 1
        if self.started_at is None:
            self.started_at = now
        if not self.cells or self.cells[-1] != self.cell:
            self.cells.append(self.cell)
        self._hold(len(self.nodes), Phase.STARTING, now)

    def start(self) -> None:
        self._move(JobState.STARTING, "Starting")

    def run(self, progress: Progress, now: float) -> None:
        self._move(JobState.RUNNING, "Running")
        self._close(now)
        self.progress, self.phase = progress, Phase.WORKING

    def preempt(self, reason: str, now: float, *, until: float) -> None:
        """It is told to leave: it works no more, and must be gone by then."""
        self._move(JobState.PREEMPTING, reason)
        self._close(now)
        self.phase, self.leaving_at = Phase.IDLE, until

    def head_for(self, target: tuple[str, ...] | None, reason: str, now: float, *, workers: int) -> None:
        """Told to leave, it is to go on at once on these nodes (None: nowhere); until then it holds so many workers."""
        self._close(now)
        self.target, self.reason, self.held = target, reason, workers * self.request.devices

    def lose(self) -> None:
        self._move(JobState.RECOVERING, NODE_LOST)

    def recover(self, reason: str, now: float, *, charged: bool) -> None:
        """Its start is over and it is not: it holds nothing and waits. `charged` takes one of its retries."""
        self._move(JobState.RECOVERING, reason)
        self._close(now)
        self.drop()
        self._leave(now)
        self.queued_at = now
        self.restarts += 1
        self.tally = self.tally.after(reason, charged=charged)

    def succeed(self, now: float) -> None:
        self._move(JobState.SUCCEEDED, "Completed")
        self._close(now)
        self.keep()
        self._leave(now)
        self.ended_at = now

    def fail(self, reason: str, now: float) -> None:
        """It failed for good: what was productive of it no longer is."""
        self._move(JobState.FAILED, reason)
        self._close(now)
        self.keep()
        self._leave(now)
        self.failed, self.productive = self.productive, 0.0
        self.ended_at = now

    def _move(self, to: JobState, reason: str) -> None:
        self.state = step(self.state, to, of=self.job.job_id, reason=reason)
        self.version += 1
        self.reason = reason

    # What befalls it without a transition -----------------------------------------------------------------------------

    def die(self, now: float) -> None:
        """A node of it is gone: whatever it was doing stops, and what no checkpoint keeps is lost."""
        self.version += 1
        self._close(now)
        self.drop()
        self.phase, self.dead = Phase.IDLE, True

    def keep(self) -> None:
        """A checkpoint was written of the work that was in the balance, or it is done."""
        self.kept += self.pending_work
        self.productive += self._limbo_s
        self.pending_work = self._limbo_s = 0.0

    def drop(self) -> None:
        """The work that was in the balance is lost."""
        self.recomputed += self._limbo_s
        self.pending_work = self._limbo_s = 0.0

    @property
    def unsaved(self) -> bool:
        """Whether it stopped with work in the balance."""
        return self.pending_work > 0

    def close(self, now: float) -> None:
        """The run is over while it holds a place: work in progress counts as productive."""
        self._close(now)
        self.keep()
        self.queued_s += now - self.queued_at if self.waits else 0.0

    @property
    def waits(self) -> bool:
        return self.state is JobState.QUEUED or (self.state is JobState.RECOVERING and not self.nodes)

    # Device-seconds ---------------------------------------------------------------------------------------------------

    def _hold(self, workers: int, phase: Phase, now: float) -> None:
        self.held = workers * self.request.devices
        self.phase, self._since = phase, now

    def _leave(self, now: float) -> None:
        self._close(now)
        self.phase, self.held, self.nodes, self.devices = Phase.NOTHING, 0.0, (), ()
        self.dead, self.target, self.leaving_at, self.ends_at, self.borrowed = False, None, None, None, 0.0

    def _close(self, now: float) -> None:
        """Book what was held until now."""
        seconds = now - self._since
        if self.phase is Phase.STARTING:
            self.starting += self.held * seconds
        elif self.phase is Phase.IDLE:
            self.idle += self.held * seconds
        elif self.phase is Phase.WORKING and self.progress is not None:
            self._close_work(self.progress, seconds, now)
        if self.phase is not Phase.NOTHING:
            self.held_s += self.held * seconds
            self.borrowed_s += self.borrowed * seconds
        self._since = now

    def _close_work(self, progress: Progress, seconds: float, now: float) -> None:
        seen = progress.at(now)
        # A gang that ran before the run began brings work along that took none of the run's time.
        worked = min(seconds, max(0.0, seen.worked_s - (progress.at(now - seconds).worked_s)))
        unsaved = min(worked, seen.unsaved_s)
        self.productive += self.held * (worked - unsaved)
        self.idle += self.held * (seconds - worked)
        self._limbo_s = self.held * unsaved
        self.kept += seen.kept
        self.pending_work = seen.done - seen.kept
        if seen.saved_at is not None:
            self.saved_at = seen.saved_at
        self.progress, self.phase = None, Phase.IDLE

    # What is seen of it -----------------------------------------------------------------------------------------------

    def shown(self, now: float) -> RunningGang:
        """The gang as the scheduler sees it while it holds a place."""
        gang, saved_at = self.gang, self.saved_at
        if saved_at is not None:  # what it goes on from it cannot lose: its work is at risk from here on
            saved_at = max(saved_at, self.admitted_at)
        if self.progress is not None:
            saved_at = self.progress.at(now).saved_at or saved_at
        return RunningGang(
            uid=gang.uid,
            tenant=gang.tenant,
            cell=self.cell,
            nodes=self.target if self.target is not None else self.nodes,
            request=self.request,
            devices=self.devices,
            qos=gang.qos,
            priority=gang.priority,
            started_at=self.admitted_at,
            checkpointed_at=saved_at,
            ends_at=self.ends_at,
            restart_s=self.job.restart_s,
            leaving_at=None if self.target is not None else self.leaving_at,
            min_workers=gang.min_workers,
            max_workers=gang.max_workers,
            preemptions=self.preemptions,
            spread=gang.spread,
        )

    def outcome(self, *, fastest: float, warm_up: bool) -> JobOutcome:
        """What became of it."""
        job = self.job
        writing = checkpoints(self.work, job.checkpoint_s or math.inf) * job.checkpoint_cost_s
        return JobOutcome(
            job_id=job.job_id,
            tenant=job.tenant,
            qos=job.qos,
            gpus=self.least,
            submitted_s=job.submitted_s,
            run_s=job.restart_s + self.work / fastest + writing,
            started_s=self.started_at,
            ended_s=self.ended_at,
            succeeded=self.state is JobState.SUCCEEDED,
            queued_s=self.queued_s,
            productive=self.productive,
            starting=self.starting,
            recomputed=self.recomputed,
            idle=self.idle,
            failed=self.failed,
            preemptions=self.preemptions,
            restarts=self.restarts,
            cells=tuple(self.cells),
            racks=self.racks,
            borrowed=self.borrowed_s / self.held_s if self.held_s else 0.0,
            warm_up=warm_up,
            most_gpus=self.gang.max_workers * self.gang.request.devices,
        )
