"""A gang of two under Ray Train: whole, killed, noticed, and across ZeRO stages."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from safetensors.torch import load_file

from helios_jobs.train.checkpoints import SNAPSHOT
from helios_jobs.train.driver import run
from helios_jobs.train.progress import write_json

Environ = dict[str, str]
MakeEnviron = Callable[..., Environ]
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def _weights(environ: Environ) -> dict[str, torch.Tensor]:
    return load_file(Path(environ["HELIOS_BUCKET"]) / "bundles" / environ["HELIOS_JOB_UID"] / "model.safetensors")


def _read(environ: Environ, name: str) -> dict[str, Any]:
    path = Path(environ["HELIOS_JOB_DIR"]) / name
    return json.loads(path.read_text()) if path.exists() else {}


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def _when(environ: Environ, condition: Callable[[dict[str, Any]], bool], act: Callable[[], None]) -> threading.Thread:
    """Do `act` once progress.json meets `condition`."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if condition(_read(environ, "progress.json")):
                act()
                return
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_killed_worker_costs_no_step_and_the_product_is_the_same(
    job_environ: MakeEnviron,
    toy_objective: Callable[..., Any],
    ray_cluster: Any,
    plain_runs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kill -9 of a worker as a checkpoint is told, which counts by then: the gang restarts from it and ends with the
    weights of an unbroken run."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "2")
    environ = job_environ("killed", {"steps": 30, "zero": 2}, HELIOS_CHECKPOINT_EVERY="1")
    run_dir = Path(environ["HELIOS_BUCKET"]) / "runs" / environ["HELIOS_JOB_UID"]
    told, recorded = [], []

    def kill() -> None:
        told.append(_read(environ, "progress.json")["checkpoint_step"])
        recorded.append((run_dir / SNAPSHOT).read_text())
        ray_cluster.processes("RayTrainWorker")[0].kill()

    killer = _when(environ, lambda now: (now.get("checkpoint_step") or 0) > 0 and now["phase"] == "training", kill)
    assert run(environ, toy_objective(pause=0.15)) == 0
    killer.join()
    assert f"checkpoint_{told[0]:08d}_" in recorded[0]
    assert _read(environ, "progress.json")["restarts"] == 1
    assert _distance(_weights(environ), plain_runs["muon-2-30"]["whole"]) == 0.0


def test_notice_makes_a_checkpoint_and_the_next_epoch_goes_on(
    job_environ: MakeEnviron,
    toy_objective: Callable[..., Any],
    tmp_path: Path,
    plain_runs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """notice.json: exit 75 with a checkpoint of that step; a higher epoch resumes there, registers and ends."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    MlflowClient(uri, uri).create_experiment("toy", artifact_location=(tmp_path / "artifacts").as_uri())
    environ = job_environ(
        "noticed",
        {"steps": 30, "zero": 3},
        MLFLOW_TRACKING_URI=uri,
        HELIOS_CURRICULUM="toy",
        HELIOS_CURRICULUM_UID="curriculum-1",
        HELIOS_STAGE="t2v",
        HELIOS_REGISTERED_MODEL="avatar-toy",
    )
    notice = Path(environ["HELIOS_JOB_DIR"]) / "notice.json"
    _when(environ, lambda now: now.get("step", 0) > 0, lambda: write_json(notice, {"grace_s": 30, "reason": "test"}))
    assert run(environ, toy_objective(pause=0.15)) == 75
    left = _read(environ, "progress.json")
    assert 0 < left["checkpoint_step"] < 30

    notice.unlink()
    assert run(environ | {"HELIOS_EPOCH": "2"}, toy_objective()) == 0
    result = _read(environ, "result.json")
    assert _distance(_weights(environ), plain_runs["muon-3-30"]["whole"]) == 0.0
    assert result["outputs"].keys() == {"checkpoint", "run_id", "model_version"}

    client = MlflowClient(uri, uri)
    child = client.get_run(result["outputs"]["run_id"])
    assert child.info.status == "FINISHED"
    parent = client.get_run(child.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["helios.curriculum_uid"] == "curriculum-1"
    steps = [metric.step for metric in client.get_metric_history(child.info.run_id, "loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 30
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = Path(download_artifacts("models:/avatar-toy@production", tracking_uri=uri))
    assert (folder / "bundle" / "model.safetensors").exists()
