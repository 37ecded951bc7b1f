"""The tracker: buffered, ordered, patient, and never in the job's way."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from helios_jobs.curriculum.config import StageConfig
from helios_jobs.train import tracking
from helios_jobs.train.context import read_context
from helios_jobs.train.registry import register_bundle
from helios_jobs.train.tracking import RunPlan, Tracker, describe_run, flat

PLAN = RunPlan(
    experiment="toy",
    name="t2v",
    tags={"helios.job_uid": "uid-1", "helios.job": "toy-t2v"},
    params={"steps": "3"},
    parent_name="toy-r1",
    parent_tags={"helios.curriculum_uid": "c-1", "helios.curriculum_run": "1"},
    dataset=("heads", "{}"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real MLflow store without a server."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri, uri).create_experiment("toy", artifact_location=(folder / "artifacts").as_uri())
    return uri


class Outage:
    """Connects after `down` refusals; counts them."""

    def __init__(self, uri: str, down: int) -> None:
        self.uri = uri
        self.left = down
        self.refused = threading.Event()

    def __call__(self, _: str) -> Any:
        if self.left:
            self.left -= 1
            self.refused.set()
            raise ConnectionError("refused")
        return MlflowClient(self.uri, self.uri)


def test_an_outage_loses_nothing(store: str) -> None:
    """What is logged while the server is away is written, in order, once it is back."""
    outage = Outage(store, down=2)
    tracker = Tracker(store, PLAN, connect=outage, interval=0.01)
    for step in range(1, 4):
        tracker.metrics({"loss": 1 / step}, step)
    assert outage.refused.wait(10)
    tracker.tags({"note": "kept"})
    closing = tracker.finish("FINISHED")
    assert closing.run_id
    client = MlflowClient(store, store)
    run = client.get_run(closing.run_id)
    assert [metric.step for metric in client.get_metric_history(closing.run_id, "loss")] == [1, 2, 3]
    assert (run.info.status, run.data.tags["note"], run.data.params["steps"]) == ("FINISHED", "kept", "3")
    assert run.inputs.dataset_inputs[0].dataset.name == "heads"


def test_a_server_that_stays_away_is_a_warning() -> None:
    """The job ends in time; the closing says how much was not written and why."""

    def refuse(_: str) -> Any:
        raise ConnectionError("refused")

    tracker = Tracker("http://127.0.0.1:9", PLAN, connect=refuse, interval=0.01)
    tracker.metrics({"loss": 1.0}, 1)
    closing = tracker.finish("FINISHED", timeout=0.2)
    assert closing.run_id == ""
    assert "did not take 2 records" in closing.warning
    assert "refused" in closing.warning


def test_a_refused_record_does_not_hold_up_the_next(store: str) -> None:
    """Work that can never succeed is dropped with a warning."""
    tracker = Tracker(store, PLAN, interval=0.01)

    def broken(_: Any, __: str) -> None:
        raise ValueError("no such thing")

    tracker.submit("sample", broken)
    tracker.tags({"after": "written"})
    closing = tracker.finish("FINISHED")
    assert "not recorded: sample" in closing.warning
    assert MlflowClient(store, store).get_run(closing.run_id).data.tags["after"] == "written"


def test_refused_metrics_do_not_hold_up_the_end(store: str) -> None:
    """A figure whose name MLflow forbids is dropped with a warning; the run still gets its final status."""
    tracker = Tracker(store, PLAN, interval=0.01)
    tracker.metrics({"loss%": 1.0}, 1)
    tracker.tags({"after": "metrics"})
    closing = tracker.finish("FINISHED", timeout=10)
    assert "not recorded: metrics" in closing.warning
    run = MlflowClient(store, store).get_run(closing.run_id)
    assert (run.info.status, run.data.tags["after"]) == ("FINISHED", "metrics")


def test_a_restart_continues_the_run_and_its_parent(store: str) -> None:
    """The same job finds its run again; another stage of the same curriculum shares the parent."""
    one = Tracker(store, PLAN, interval=0.01).finish("SCHEDULED").run_id
    two = Tracker(store, PLAN, interval=0.01).finish("FINISHED").run_id
    sister = RunPlan(
        experiment="toy",
        name="a2v",
        tags={"helios.job_uid": "uid-2"},
        params={},
        parent_name=PLAN.parent_name,
        parent_tags=PLAN.parent_tags,
    )
    three = Tracker(store, sister, interval=0.01).finish("FINISHED").run_id
    assert one == two
    client = MlflowClient(store, store)
    parents = {client.get_run(run).data.tags["mlflow.parentRunId"] for run in (two, three)}
    assert len(parents) == 1


def test_without_a_server_nothing_is_tracked() -> None:
    """An empty address turns tracking off."""
    tracker = Tracker("", PLAN)
    tracker.metrics({"loss": 1.0}, 1)
    assert tracker.finish("FINISHED").run_id == ""


def test_a_job_registers_once(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted registration finds its version; the next job makes the next one and takes the alias."""
    (tmp_path / "config.json").write_text("{}")
    client = MlflowClient(store, store)
    run_id = Tracker(store, PLAN, interval=0.01).finish("FINISHED").run_id
    made = [
        register_bundle(client, run_id, tmp_path, model="avatar", job_uid=uid, tags={"stage": "rlhf"}, about="A test.")
        for uid in ("uid-1", "uid-1", "uid-2")
    ]
    assert made == ["1", "1", "2"]
    version = client.get_model_version_by_alias("avatar", "production")
    assert version.tags["helios.run.toy-t2v"] == run_id
    assert (str(version.version), version.tags["stage"], version.run_id) == ("2", "rlhf", run_id)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    folder = Path(download_artifacts("models:/avatar@production", tracking_uri=store, dst_path=str(tmp_path / "got")))
    assert {path.name for path in folder.iterdir()} >= {"MLmodel", "README.md", "bundle"}
    assert (folder / "bundle" / "config.json").read_text() == "{}"


def test_the_data_set_is_named_by_settings_and_code(
    job_environ: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same settings of another version of the world's code are another data set in the run's lineage."""
    job, config = read_context(job_environ()), StageConfig(stage="t2v", steps=1)
    here = describe_run(job, config, world_size=2).dataset
    monkeypatch.setattr(tracking, "world_digest", lambda: "another world")
    assert here is not None
    assert describe_run(job, config, world_size=2).dataset != here


def test_settings_become_flat_parameters() -> None:
    """Nested sections are dotted."""
    assert flat({"a": 1, "b": {"c": None}}) == {"a": "1", "b.c": "None"}
