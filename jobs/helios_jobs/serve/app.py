"""The Ray Serve application: one replica that answers HTTP and makes the videos in a thread of its own.

`build(args)` is what a `Service` names as `helios_jobs.serve.app:build`. Its arguments:

    model         models:/name@alias, models:/name/version, or a folder
    job_dir       durable folder of this service, the same for every replica and epoch
    config        `spec.config`, see helios_jobs.serve.config
    resources     `spec.resources`, per replica
    replicas      must be 1: the queue of this service lives in one replica
    name, epoch   of the service; a new epoch is a new replica, which resolves the model's alias again
    tracking_uri  of MLflow; by default MLFLOW_TRACKING_URI of the process that builds
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from ray import serve

from helios.errors import InputError
from helios.spec.workload import Resources
from helios_jobs.serve.config import ServeConfig
from helios_jobs.serve.http import create_app
from helios_jobs.serve.model import load_model
from helios_jobs.serve.service import VideoService

_MAX_ONGOING_REQUESTS = 64


class AvatarReplica:
    """What runs in the replica's process. `__serve_build_asgi_app__` is Ray Serve's hook for a late-bound app."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        folder = Path(args["job_dir"])
        model = load_model(args["model"], downloads=folder / "model", tracking_uri=args.get("tracking_uri"))
        self._service = VideoService(
            folder=folder, config=ServeConfig.model_validate(args.get("config") or {}), model=model
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._service)

    def check_health(self) -> None:
        """Ray Serve replaces the replica where this raises."""
        if not self._service.healthy:
            raise RuntimeError("the worker that makes videos has ended")


def build(args: Mapping[str, Any]) -> serve.Application:
    """The application for `serve.run`. Raises `InputError` for arguments it cannot serve with."""
    replicas = int(args.get("replicas") or 1)
    if replicas != 1:
        raise InputError(f"this application runs as one replica, not {replicas}: its queue lives in the replica")
    if not args.get("model"):
        raise InputError(
            "the service names no model to load", hint="set spec.model, e.g. models:/avatar-tiny@production"
        )
    try:
        ServeConfig.model_validate(args.get("config") or {})
        resources = Resources.model_validate(args.get("resources") or {})
    except ValidationError as error:
        raise InputError(f"the service's configuration is not valid: {error}") from error
    passed = {name: args.get(name) for name in ("model", "job_dir", "config", "name", "epoch")}
    passed["tracking_uri"] = args.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    configured = serve.deployment(
        name="avatar",
        num_replicas=1,
        max_ongoing_requests=_MAX_ONGOING_REQUESTS,
        graceful_shutdown_timeout_s=30,
        max_constructor_retry_count=3,
        health_check_period_s=5,
        health_check_timeout_s=30,
        ray_actor_options={
            "num_cpus": resources.cpus,
            "num_gpus": resources.accelerators.devices if resources.accelerators else 0,
            **({"memory": resources.memory} if resources.memory else {}),
        },
    )
    return configured(serve.ingress()(AvatarReplica)).bind(passed)
