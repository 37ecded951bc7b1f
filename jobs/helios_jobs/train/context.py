"""What a stage job is told by the runtime contract, read from the environment once and checked."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from helios.errors import InputError

Config = TypeVar("Config", bound=BaseModel)

_REQUIRED = ("HELIOS_JOB", "HELIOS_JOB_UID", "HELIOS_CONFIG", "HELIOS_JOB_DIR", "HELIOS_BUCKET")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a stage stands in its curriculum; all empty for a job that is not a stage.

    Attributes:
        run: number of this run of the curriculum, from 1.
        parent_bundle: bundle folder of the stage before; None for the first.
        registered_model: name to register the product under; empty for all but the last stage.
    """

    curriculum: str = ""
    curriculum_uid: str = ""
    run: int = 1
    stage: str = ""
    stage_index: int = 0
    stage_count: int = 1
    parent_bundle: Path | None = None
    parent_run_id: str = ""
    registered_model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """One start of one training job.

    Attributes:
        epoch: fencing epoch of this start; state in the job folder and the bucket outlives it.
        resources: of one worker, as Ray names them (`CPU`, `GPU`, `memory` in bytes).
        node_selectors: Ray's label selector of each worker's node; empty where any node will do.
        job_dir: the same for all epochs; progress.json, result.json and notice.json live here.
        checkpoint_every: seconds between checkpoints.
        tracking_uri: of MLflow; empty where there is none.
    """

    name: str
    uid: str
    epoch: int
    tenant: str
    cell: str
    workers: int
    resources: Mapping[str, float]
    config_path: Path
    job_dir: Path
    bucket: Path
    checkpoint_every: float
    checkpoint_keep: int
    max_retries: int
    tracking_uri: str
    lineage: Lineage = field(default_factory=Lineage)
    node_selectors: tuple[Mapping[str, str], ...] = ()

    @property
    def runs_dir(self) -> Path:
        """Ray Train's storage path; this job's checkpoints are under its uid."""
        return self.bucket / "runs"

    @property
    def bundle_dir(self) -> Path:
        """Where the finished product is put, in one piece."""
        return self.bucket / "bundles" / self.uid

    @property
    def cache_dir(self) -> Path:
        """What all jobs of the cell share: rendered data."""
        return self.bucket / "cache"

    @property
    def gpus(self) -> bool:
        return self.resources.get("GPU", 0) > 0


def read_context(environ: Mapping[str, str] = os.environ) -> JobContext:
    """The job as the environment tells it.

    Raises:
        InputError: a variable is missing or is not what the runtime contract says.
    """
    missing = [name for name in _REQUIRED if not environ.get(name)]
    if missing:
        raise InputError(
            f"the environment lacks {', '.join(missing)}",
            hint="this program is started by a HELIOS cell; see docs/reference/runtime.md",
        )
    parent = environ.get("HELIOS_INPUT_CHECKPOINT", "")
    bucket = environ["HELIOS_BUCKET"]
    if "://" in bucket:
        raise InputError(f"HELIOS_BUCKET {bucket!r} is not a folder: this job writes to mounted buckets")
    workers = _whole(environ, "HELIOS_WORKERS", 1, least=1)
    return JobContext(
        name=environ["HELIOS_JOB"],
        uid=environ["HELIOS_JOB_UID"],
        epoch=_whole(environ, "HELIOS_EPOCH", 1),
        tenant=environ.get("HELIOS_TENANT", "default"),
        cell=environ.get("HELIOS_CELL", ""),
        workers=workers,
        node_selectors=_selectors(environ.get("HELIOS_NODE_SELECTORS", ""), workers),
        resources=_resources(environ.get("HELIOS_WORKER_RESOURCES", "")),
        config_path=Path(environ["HELIOS_CONFIG"]),
        job_dir=Path(environ["HELIOS_JOB_DIR"]).absolute(),
        bucket=Path(bucket).absolute(),
        checkpoint_every=_number(environ, "HELIOS_CHECKPOINT_EVERY", 60.0),
        checkpoint_keep=_whole(environ, "HELIOS_CHECKPOINT_KEEP", 2, least=1),
        max_retries=_whole(environ, "HELIOS_MAX_RETRIES", 3),
        tracking_uri=environ.get("MLFLOW_TRACKING_URI", ""),
        lineage=Lineage(
            curriculum=environ.get("HELIOS_CURRICULUM", ""),
            curriculum_uid=environ.get("HELIOS_CURRICULUM_UID", ""),
            run=_whole(environ, "HELIOS_CURRICULUM_RUN", 1),
            stage=environ.get("HELIOS_STAGE", ""),
            stage_index=_whole(environ, "HELIOS_STAGE_INDEX", 0),
            stage_count=_whole(environ, "HELIOS_STAGE_COUNT", 1),
            parent_bundle=Path(parent) if parent else None,
            parent_run_id=environ.get("HELIOS_INPUT_RUN_ID", ""),
            registered_model=environ.get("HELIOS_REGISTERED_MODEL", ""),
        ),
    )


def read_config(path: Path, schema: type[Config]) -> Config:
    """The job's `spec.config`, checked against `schema`.

    Raises:
        InputError: the file is missing, is not JSON, or has wrong fields; names each of them.
    """
    try:
        return schema.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the job's config {path}: {error.strerror}") from error
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'config'}: {problem['msg']}" for problem in error.errors()
        )
        raise InputError(f"the job's config is not valid: {found}") from error


def _resources(text: str) -> dict[str, float]:
    try:
        raw: Any = json.loads(text or '{"CPU": 1}')
        found = {str(name): float(amount) for name, amount in raw.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"HELIOS_WORKER_RESOURCES is not a JSON mapping of numbers: {text!r}") from error
    return {name: amount for name, amount in found.items() if amount > 0}


def _selectors(text: str, workers: int) -> tuple[dict[str, str], ...]:
    try:
        found = [{str(label): str(value) for label, value in selector.items()} for selector in json.loads(text or "[]")]
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"HELIOS_NODE_SELECTORS is not a JSON list of label selectors: {text!r}") from error
    if found and len(found) != workers:
        raise InputError(f"HELIOS_NODE_SELECTORS places {len(found)} workers, and HELIOS_WORKERS is {workers}")
    return tuple(found)


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{name} is not a number: {text!r}") from error
    if not 0 <= value < float("inf"):
        raise InputError(f"{name} is out of range: {text!r}")
    return value


def _whole(environ: Mapping[str, str], name: str, default: int, *, least: int = 0) -> int:
    value = _number(environ, name, default)
    if value != int(value) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {environ.get(name)!r}")
    return int(value)
