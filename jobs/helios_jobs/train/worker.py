"""What one rank of the gang holds while it trains, and how rank 0 speaks for all of them."""

import time
from dataclasses import dataclass
from pathlib import Path

import ray.train
import torch
import torch.distributed as dist

from helios.errors import HeliosError, NoSpaceError
from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import Objective
from helios_jobs.train.checkpoints import folder_bytes, require_space, write_checkpoint
from helios_jobs.train.context import JobContext
from helios_jobs.train.engine import Engine
from helios_jobs.train.outcome import Outcome
from helios_jobs.train.pace import Action, Look
from helios_jobs.train.progress import Progress, explain, noticed
from helios_jobs.train.tracking import Tracker


@dataclass(slots=True)
class Lead:
    """What only rank 0 has.

    Attributes:
        checkpointed: when the last checkpoint was, by the monotonic clock.
        needed: bytes that the next checkpoint is expected to take.
    """

    progress: Progress
    tracker: Tracker
    parent_sha256: str = ""
    checkpointed: float = 0.0
    needed: int = 0
    problem: str = ""

    def expect(self, parameters: int, bucket: Path) -> None:
        """Reckon with fp32 weights, the optimizer's copy of them and two moments.

        Raises:
            NoSpaceError: there is no room for one checkpoint and the bundle, so training would be in vain.
        """
        self.needed = 16 * parameters
        require_space(bucket, self.needed + 4 * parameters, "one checkpoint and the finished bundle")


@dataclass(slots=True)
class Worker:
    job: JobContext
    config: StageConfig
    objective: Objective
    rank: int
    device: torch.device
    lead: Lead | None

    @property
    def run_dir(self) -> Path:
        return self.job.runs_dir / self.job.uid

    def begin(self) -> None:
        """Training starts now; the first checkpoint is due one interval later."""
        self.phase("training")
        if self.lead:
            self.lead.checkpointed = time.monotonic()

    def phase(self, phase: str, message: str = "") -> None:
        if self.lead:
            self.lead.progress.phase(phase, message)

    def decide(self, last: bool) -> Action:
        """What all ranks shall do now; asked of rank 0 alone. The last step is kept in any case."""
        assert self.lead, "only rank 0 decides"
        leave = noticed(self.job.job_dir)
        if not leave and not last and time.monotonic() - self.lead.checkpointed < self.job.checkpoint_every:
            return Action.GO_ON
        try:
            require_space(self.job.bucket, self.lead.needed, "a checkpoint")
        except NoSpaceError as error:
            self.lead.problem = explain(error)
            return Action.STOP_NO_SPACE
        return Action.LEAVE if leave else Action.CHECKPOINT

    def checkpoint(self, engine: Engine, step: int) -> None:
        """Write a checkpoint that survives this gang. All ranks call it, at the same step.

        A report counts for nothing until Ray's controller has fetched it from every rank: a gang that dies before that
        starts again without it. So rank 0 waits for the record, about half a second if all is well, and says so then.
        """
        self.phase("checkpointing")
        folder = write_checkpoint(engine, self.run_dir, step)
        ray.train.report(
            {"step": step},
            checkpoint=ray.train.Checkpoint(str(folder)) if self.rank == 0 else None,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
        )
        if self.lead:
            ray.train.get_all_reported_checkpoints(ray.train.CheckpointConsistencyMode.COMMITTED)
            self.lead.needed = folder_bytes(folder)
            self.lead.checkpointed = time.monotonic()
            self.lead.progress.update(checkpoint_step=step)
        self.phase("training")

    def show(self, done: int, look: Look, metrics: dict[str, float]) -> None:
        """Say on rank 0 how the last steps went: to the cell in progress.json and to the tracker."""
        if self.lead is None:
            return
        per_step = look.seconds / look.steps
        self.lead.progress.update(
            step=done,
            loss=look.loss,
            tokens_per_second=look.tokens / look.seconds,
            eta_seconds=per_step * (self.config.steps - done),
        )
        system = {
            "tokens_per_second": look.tokens / look.seconds,
            "step_seconds": per_step,
            "samples_per_second": self.config.batch * dist.get_world_size() / per_step,
            "learning_rate": self.config.lr * self.config.lr_scale(done - 1),
        }
        self.lead.tracker.metrics({"loss": look.loss, **metrics, **system}, done)

    def leave(self, reason: str, message: str) -> Outcome:
        """End this gang's work before the last step."""
        if self.lead is None:
            return Outcome(reason)
        status = "SCHEDULED" if reason == "Preempted" else "FAILED"
        closing = self.lead.tracker.finish(status, tags={"helios.reason": reason, "helios.message": message})
        return Outcome(reason, message, {"run_id": closing.run_id} if closing.run_id else {})


def first_problem(error: HeliosError | None) -> tuple[str, str] | None:
    """Tell all ranks of an error that any of them had: (kind, message) of the lowest such rank, or None."""
    mine = None if error is None else (error.code, explain(error))
    found: list[tuple[str, str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return next((problem for problem in found if problem), None)
