"""The one training loop of all stages, as each worker of the gang runs it under Ray Train."""

import ray.train
import ray.train.torch
import torch
from torch import nn

from helios.errors import HeliosError, InputError, NoSpaceError
from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import StageContext
from helios_jobs.train.checkpoints import parent_digest, remove_remains
from helios_jobs.train.context import JobContext
from helios_jobs.train.engine import Engine, quiet_process, start_engine
from helios_jobs.train.outcome import BuildObjective, Outcome, Settings
from helios_jobs.train.pace import Action, Pace
from helios_jobs.train.product import finish
from helios_jobs.train.progress import Progress, count_starts, explain
from helios_jobs.train.tracking import Tracker, describe_run
from helios_jobs.train.worker import Lead, Worker, first_problem


def train_worker(settings: Settings) -> Outcome:
    """Train one stage on this rank; rank 0's outcome is the job's."""
    # 1. Make this process a quiet neighbour and say that we are here.
    worker = _enter(**settings)
    config, objective = worker.config, worker.objective

    # 2. The objective makes the module; its data is rendered once for the whole cell.
    module, problem = _set_up(worker)
    if problem is not None:
        return worker.leave(*problem)

    # 3. DeepSpeed wraps the module, and the last checkpoint puts it back where it was.
    engine = start_engine(module, objective.parameter_groups(module, config.lr), config)
    first, mismatch = _resume(worker, engine)
    if mismatch is not None:
        return worker.leave("InvalidConfig", mismatch)

    # 4. Train.
    worker.begin()
    pace = Pace(worker.decide, worker.device, worker.rank)
    pace.start()
    for step in range(first, config.steps):
        seed_step(config.seed, step, worker.rank)
        output = objective.loss(engine.wrapped, objective.batch(step), step)
        engine.backward(output.loss)
        norm = engine.step(step)
        look = pace.step(output.loss, output.tokens, last=step + 1 == config.steps)
        if look is None:
            continue

        # 5. Now and then all ranks look up: report, checkpoint, or leave where the cell asked for it.
        worker.show(step + 1, look, {**output.metrics, "grad_norm": norm})
        if look.action is Action.STOP_NO_SPACE:
            return worker.leave("NoSpace", worker.lead.problem if worker.lead else "")
        if look.action is not Action.GO_ON:
            worker.checkpoint(engine, step + 1)
            pace.start()
        if look.action is Action.LEAVE:
            return worker.leave("Preempted", f"left on notice with a checkpoint at step {step + 1} of {config.steps}")

    # 6. Gather the weights, publish and show what was made.
    return finish(worker, engine.weights())


def seed_step(seed: int, step: int, rank: int) -> None:
    """Draw a step's noise from (seed, step, rank) alone, so that a resumed run draws what an unbroken one would."""
    torch.manual_seed(((seed * 1_000_003 + step) * 65_537 + rank) % 2**63)


def _enter(job: JobContext, config: StageConfig, build_objective: BuildObjective) -> Worker:
    device = ray.train.torch.get_device()
    quiet_process(device)
    ranks = ray.train.get_context()
    lead = None
    if ranks.get_world_rank() == 0:
        progress = Progress(job.job_dir, total_steps=config.steps, restarts=count_starts(job.job_dir, add=1) - 1)
        progress.phase("preparing")
        remove_remains(job.runs_dir / job.uid)
        lead = Lead(progress, Tracker(job.tracking_uri, describe_run(job, config, world_size=ranks.get_world_size())))
    return Worker(job, config, build_objective(config), ranks.get_world_rank(), device, lead)


def _set_up(worker: Worker) -> tuple[nn.Module, tuple[str, str] | None]:
    """The objective's module, or why there is none: an error of the input on any rank ends the job on all."""
    module: nn.Module = nn.Identity()
    error: HeliosError | None = None
    try:
        parent = worker.job.lineage.parent_bundle
        if worker.lead and parent:
            worker.lead.parent_sha256 = parent_digest(parent)
            worker.lead.tracker.tags({"helios.parent_sha256": worker.lead.parent_sha256})
        module = worker.objective.setup(
            StageContext(
                parent=parent,
                cache=worker.job.cache_dir,
                seed=worker.config.seed,
                rank=worker.rank,
                world_size=ray.train.get_context().get_world_size(),
                device=worker.device,
            )
        )
        if worker.lead:
            worker.lead.expect(sum(parameter.numel() for parameter in module.parameters()), worker.job.bucket)
    except (InputError, NoSpaceError) as raised:
        error = raised
    problem = first_problem(error)
    return module, problem and ("NoSpace" if problem[0] == "NoSpace" else "InvalidConfig", problem[1])


def _resume(worker: Worker, engine: Engine) -> tuple[int, str | None]:
    """The number of steps done, and why the last checkpoint is of no use to this gang, which all ranks see alike."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0, None
    try:
        done = engine.load(checkpoint.path)
    except InputError as error:
        return 0, explain(error)
    if worker.lead:
        worker.lead.progress.update(step=done, checkpoint_step=done)
    return done, None
