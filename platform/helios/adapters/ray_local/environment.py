"""The runtime contract: what a job or service finds in its environment (docs/reference/runtime.md)."""

import json
import shlex
import sys
from pathlib import Path

from helios.adapters.ray_local.raylets import selectors
from helios.adapters.ray_local.records import Start
from helios.spec import JobSpec, ServiceSpec
from helios.spec.workload import Resources

SECRETS_HOOK = "helios.agent.secrets.enter_worker"


def entrypoint_of(spec: JobSpec) -> str:
    """Wrap the job's command line; the wrapper replaces the shell that Ray starts, so that signals reach it."""
    return f"exec {shlex.quote(sys.executable)} -P -m helios.agent.launch -- {shlex.quote(spec.entrypoint)}"


def job_env(
    start: Start, spec: JobSpec, *, cell: str, bucket: str, folder: Path, tracking_uri: str, labelled: bool = False
) -> dict[str, str]:
    """The environment of one start. `labelled`: Ray has several nodes, and workers are to be told which is theirs."""
    return {
        **spec.envs,
        **_common(start, spec, cell=cell, bucket=bucket, folder=folder, tracking_uri=tracking_uri),
        "HELIOS_JOB": start.name,
        "HELIOS_JOB_UID": start.uid,
        "HELIOS_WORKERS": str(start.workers),
        "HELIOS_WORKER_RESOURCES": json.dumps(ray_resources(spec.resources)),
        "HELIOS_NODES": json.dumps(start.nodes),
        "HELIOS_NODE_SELECTORS": json.dumps(selectors(start.nodes) if labelled else []),
        "HELIOS_CONFIG": str(folder / "config.json"),
        "HELIOS_CHECKPOINT_EVERY": f"{spec.checkpoint.every:g}",
        "HELIOS_CHECKPOINT_KEEP": str(spec.checkpoint.keep),
        "HELIOS_MAX_RETRIES": str(spec.retry.max_retries),
        "HELIOS_WORKDIR": spec.workdir or "",
    }


def service_env(
    start: Start, spec: ServiceSpec, *, cell: str, bucket: str, folder: Path, tracking_uri: str
) -> dict[str, str]:
    common = _common(start, spec, cell=cell, bucket=bucket, folder=folder, tracking_uri=tracking_uri)
    return {**spec.envs, **common, "HELIOS_SERVICE": start.name, "HELIOS_SERVICE_UID": start.uid}


def ray_resources(resources: Resources) -> dict[str, float]:
    """One worker's resources in Ray's words."""
    wanted: dict[str, float] = {"CPU": resources.cpus, "GPU": 0}
    if resources.accelerators is not None:
        wanted["GPU"] = resources.accelerators.devices
    if resources.memory:
        wanted["memory"] = resources.memory
    return wanted


def _common(
    start: Start, spec: JobSpec | ServiceSpec, *, cell: str, bucket: str, folder: Path, tracking_uri: str
) -> dict[str, str]:
    return {
        **start.context,
        "HELIOS_EPOCH": str(start.epoch),
        "HELIOS_TENANT": spec.tenant,
        "HELIOS_CELL": cell,
        "HELIOS_JOB_DIR": str(folder),
        "HELIOS_BUCKET": bucket,
        "HELIOS_SECRETS": json.dumps(spec.secrets),
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it draws itself hundreds of times into a log file
    }
