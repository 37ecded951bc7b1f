"""The program of a stage job: reads what the cell says, runs the gang under Ray Train, says how it ended."""

import os
import sys
from collections.abc import Mapping

from helios.errors import EngineError, HeliosError, InputError, NoSpaceError, WorkFailedError
from helios_jobs.curriculum.config import StageConfig
from helios_jobs.train.context import JobContext, read_config, read_context
from helios_jobs.train.outcome import BuildObjective, Outcome
from helios_jobs.train.progress import (
    FAILED,
    INVALID_CONFIG,
    NO_SPACE,
    PREEMPTED,
    RETRIES_SPENT,
    Progress,
    count_starts,
    explain,
    write_result,
)
from helios_jobs.train.tracking import Tracker, describe_run

EXIT_CODES = {
    "Completed": 0,
    "InvalidConfig": INVALID_CONFIG,
    "NoSpace": NO_SPACE,
    "Preempted": PREEMPTED,
    "RetriesSpent": RETRIES_SPENT,
}

RAY_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a killed worker, and the end of a run, are noticed this soon
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # the cell gives notice by file; saves starting an actor
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it says every line of a worker twice
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


def run(environ: Mapping[str, str], build_objective: BuildObjective | None = None) -> int:
    """Run the job that `environ` describes; returns the exit code of the runtime contract.

    `build_objective` makes the stage's objective on each worker; by default the curriculum's own.
    """
    try:
        job = read_context(environ)
    except InputError as error:
        print(f"error: {explain(error)}", file=sys.stderr)  # noqa: T201 - the job's log is its output
        return INVALID_CONFIG
    try:
        config = read_config(job.config_path, StageConfig)
        outcome = _train(job, config, build_objective)
    except InputError as error:
        outcome = Outcome("InvalidConfig", explain(error))
    except NoSpaceError as error:
        outcome = Outcome("NoSpace", explain(error))
    except WorkFailedError as error:
        outcome = _failed(job, config, "RetriesSpent", explain(error))
    except EngineError as error:
        outcome = _failed(job, config, "Error", explain(error))
    return _end(job, outcome)


def _failed(job: JobContext, config: StageConfig, reason: str, message: str) -> Outcome:
    """Say in the tracker, too, that the run is over: the workers that wrote it are gone."""
    tracker = Tracker(job.tracking_uri, describe_run(job, config, world_size=job.workers))
    closing = tracker.finish("FAILED", tags={"helios.reason": reason, "helios.message": message}, timeout=15)
    return Outcome(reason, message, {"run_id": closing.run_id} if closing.run_id else {})


def _end(job: JobContext, outcome: Outcome) -> int:
    if outcome.message:
        print(f"{outcome.reason}: {outcome.message}", flush=True)  # noqa: T201 - the job's log is its output
    write_result(job.job_dir, reason=outcome.reason, message=outcome.message, outputs=outcome.outputs)
    return EXIT_CODES.get(outcome.reason, FAILED)


def _train(job: JobContext, config: StageConfig, build_objective: BuildObjective | None) -> Outcome:
    """Train on `job.workers` workers; a lost worker restarts the gang from its last checkpoint.

    Raises:
        WorkFailedError: the gang failed more often than `job.max_retries`; nobody is to begin that count anew.
        EngineError: Ray Train itself failed.
    """
    starts = count_starts(job.job_dir)
    Progress(job.job_dir, total_steps=config.steps, restarts=max(0, starts - 1)).phase("starting")
    os.environ.update({name: value for name, value in RAY_SETTINGS.items() if name not in os.environ})

    import ray.train
    from ray.train.torch import TorchConfig

    from helios_jobs.curriculum.objective import build_objective as build_stage
    from helios_jobs.train.loop import train_worker
    from helios_jobs.train.trainer import LeanTrainer

    trainer = LeanTrainer(
        train_worker,  # type: ignore[arg-type]  # Ray's annotation knows no other loop than one that returns None
        train_loop_config={"job": job, "config": config, "build_objective": build_objective or build_stage},
        torch_config=TorchConfig(backend="nccl" if job.gpus else "gloo", timeout_s=600),
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.workers,
            use_gpu=job.gpus,
            resources_per_worker=dict(job.resources),
            # Ray types the class of Train v1, which has none
            label_selector=[dict(selector) for selector in job.node_selectors] or None,  # type: ignore[call-arg]
        ),
        run_config=ray.train.RunConfig(
            name=job.uid,
            storage_path=str(job.runs_dir),
            failure_config=ray.train.FailureConfig(max_failures=job.max_retries),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=job.checkpoint_keep),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _translated(error, job) from error
    outcome: Outcome = result.return_value  # type: ignore[attr-defined]  # Train v2 has it
    return outcome


def _translated(error: Exception, job: JobContext) -> HeliosError:
    """The cause of a failed gang in one line; its tracebacks are in the job's log."""
    causes = [_root(cause) for cause in getattr(error, "worker_failures", {}).values()]
    for own in causes:
        if isinstance(own, HeliosError):
            return own
    cause = causes[0] if causes else error
    said = str(cause).strip().splitlines() or [""]
    kind = WorkFailedError if causes else EngineError
    return kind(
        f"training failed, and restarting it did not help: {type(cause).__name__}: {said[-1][:500]}",
        hint=f"the job's log has the traceback: helios logs {job.name}",
    )


def _root(error: BaseException) -> BaseException:
    """The worker's own error under Ray's wrapping."""
    cause = getattr(error, "_base_exc", None) or getattr(error, "cause", None)
    return _root(cause) if isinstance(cause, BaseException) else error
