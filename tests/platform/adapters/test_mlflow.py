"""The real MLflow server, as `helios up` runs it, and what the control plane tells it."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from helios.adapters.mlflow.server import MlflowServer
from helios.adapters.mlflow.tracker import MlflowTracker
from helios.adapters.programs import MARK, marked
from helios.errors import UnavailableError


def call(server: MlflowServer, path: str, **body: Any) -> dict[str, Any]:
    response = httpx.post(f"{server.url}/api/2.0/mlflow/{path}", json=body, timeout=60, trust_env=False)
    return dict(response.raise_for_status().json())


def test_server_and_tracker_end_to_end(tmp_path: Path) -> None:
    """One server: found again by another object, closes exactly a curriculum's parent run, leaves no process."""
    server = MlflowServer(tmp_path / "mlflow")
    assert server.ensure()
    handle = server.handle()
    assert handle is not None
    try:
        server.wait_ready()
        again = MlflowServer(tmp_path / "mlflow")
        assert not again.ensure(), "it runs already"
        assert again.url == server.url
        experiment = call(server, "experiments/create", name="tiny")["experiment_id"]
        parent, child = (_run(server, experiment, **tags) for tags in ({}, {"mlflow.parentRunId": "p"}))
        tracker = MlflowTracker(lambda: server.url)
        tracker.end_curriculum("nobody", succeeded=True)
        assert _status(server, parent) == "RUNNING"
        tracker.end_curriculum("c-1", succeeded=False)
        tracker.end_curriculum("c-1", succeeded=True)
        assert (_status(server, parent), _status(server, child)) == ("FAILED", "RUNNING")
    finally:
        server.stop()
    assert marked({MARK: handle.mark}) == []
    assert (tmp_path / "mlflow" / "mlflow.db").exists()
    with pytest.raises(UnavailableError):
        tracker.end_curriculum("c-1", succeeded=True)


def _run(server: MlflowServer, experiment: str, **tags: str) -> str:
    listed = [{"key": key, "value": value} for key, value in {"helios.curriculum_uid": "c-1", **tags}.items()]
    run = call(server, "runs/create", experiment_id=experiment, start_time=int(time.time() * 1000), tags=listed)
    return str(run["run"]["info"]["run_id"])


def _status(server: MlflowServer, run: str) -> str:
    url = f"{server.url}/api/2.0/mlflow/runs/get"
    return str(httpx.get(url, params={"run_id": run}, timeout=60, trust_env=False).json()["run"]["info"]["status"])
