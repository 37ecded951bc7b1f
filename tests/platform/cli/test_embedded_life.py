"""One life of an embedded HELIOS with all its engines: up, work, kill -9 of the daemon, up again, down."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from helios.adapters.mlflow.server import MlflowServer
from helios.adapters.mlflow.tracker import MlflowTracker
from helios.adapters.programs import MARK, Program, marked
from helios.cli.client import connect
from helios.cli.home import Home
from helios.cli.main import run
from helios.durable import read_json

pytestmark = pytest.mark.ray
DOCUMENTS = """
apiVersion: helios/v1
kind: Cell
metadata: {name: local}
spec: {provider: local, nodePools: [{name: machine, capacityType: reserved, nodes: 1}]}
---
apiVersion: helios/v1
kind: Job
metadata: {name: steady}
spec:
  resources: {cpus: 0.5}
  entrypoint: python -c "import time; print('once', flush=True); time.sleep(600)"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("HELIOS_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("HELIOS_API", raising=False)
    monkeypatch.delenv("HELIOS_TOKEN", raising=False)
    yield Home(tmp_path / "state")
    run(["down", "--grace", "0"])


def until(condition: Callable[[], Any], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


def told(capsys: pytest.CaptureFixture[str], *, code: int) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["status", "-o", "json"]) == code
    status: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status


def test_work_goes_on_through_the_death_of_the_daemon(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 of the daemon touches neither engines nor jobs; the next `up` finds them; `down` leaves no process."""
    documents = tmp_path / "documents.yaml"
    documents.write_text(DOCUMENTS)
    assert run(["up"]) == 0
    assert run(["up"]) == 0
    assert "already running" in capsys.readouterr().err
    before = told(capsys, code=0)["components"]
    assert [row["state"] for row in before] == ["up", "up", "up"]
    assert run(["apply", str(documents)]) == 0
    until(lambda: told(capsys, code=0)["jobs"] == {"Running": 1})
    assert told(capsys, code=0)["cells"][0]["cpusUsed"] == 0.5
    _check_tracker(home)

    daemon = Program("HELIOS", home.daemon).handle()
    assert daemon is not None
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: not daemon.is_alive())
    down = told(capsys, code=3)["components"]
    assert [row["state"] for row in down] == ["down", "up", "up"]
    assert run(["up"]) == 0
    after = told(capsys, code=0)["components"]
    assert [row["pid"] for row in after[1:]] == [row["pid"] for row in before[1:]]
    assert [row["url"] for row in after] == [row["url"] for row in before]
    with connect() as client:
        steady = client.get("Job", "steady")["status"]
    assert (steady["state"], steady["epoch"]) == ("Running", 1)
    assert run(["logs", "steady"]) == 0
    assert capsys.readouterr().out.count("once") == 1

    records = [home.daemon, home.mlflow / "server.json", home.cell("local") / "ray.json"]
    marks = [(read_json(record) or {})["handle"]["mark"] for record in records]
    assert run(["down", "--grace", "0"]) == 0
    assert "stopping job steady" in capsys.readouterr().err
    assert [process for mark in marks for process in marked({MARK: mark})] == []
    assert [row["state"] for row in told(capsys, code=3)["components"]] == ["down", "down", "down"]


def _check_tracker(home: Home) -> None:
    """On the real server: exactly the curriculum's open parent run is closed."""
    url = MlflowServer(home.mlflow).url

    def call(path: str, **body: Any) -> dict[str, Any]:
        response = httpx.post(f"{url}/api/2.0/mlflow/{path}", json=body, timeout=60, trust_env=False)
        return dict(response.raise_for_status().json())

    def run_of(curriculum: str, **more: str) -> str:
        tags = [{"key": key, "value": value} for key, value in {"helios.curriculum_uid": curriculum, **more}.items()]
        created = call("runs/create", experiment_id=experiment, start_time=int(time.time() * 1000), tags=tags)
        return str(created["run"]["info"]["run_id"])

    def status(run_id: str) -> str:
        got = httpx.get(f"{url}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=60, trust_env=False)
        return str(got.json()["run"]["info"]["status"])

    experiment = str(call("experiments/create", name="life")["experiment_id"])
    parent, child, other = run_of("c-1"), run_of("c-1", **{"mlflow.parentRunId": "p"}), run_of("c-2")
    tracker = MlflowTracker(lambda: url)
    tracker.end_curriculum("nobody", succeeded=True)
    tracker.end_curriculum("c-1", succeeded=False)
    tracker.end_curriculum("c-1", succeeded=True)
    assert [status(each) for each in (parent, child, other)] == ["FAILED", "RUNNING", "RUNNING"]
