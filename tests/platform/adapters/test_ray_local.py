"""A real Ray on this machine as a cell: what is promised about its jobs and services, through kills of all kinds.

One cluster for the module; the tests that end it come last, in the order in which they stand.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from helios.adapters.programs import MARK, marked
from helios.adapters.ray_local.driver import RayLocalDriver
from helios.adapters.ray_local.head import RayHead
from helios.agent.cell import CellAgent
from helios.control import ControlPlane, apply
from helios.durable import read_json
from helios.errors import ConflictError, UnavailableError
from helios.ports import Launch, LaunchStatus, Phase
from helios.spec import from_json
from helios.store import open_store

pytestmark = pytest.mark.ray
OVER = {Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED}
FOREVER = "import time; print('up', flush=True); time.sleep(600)"
HEEDS_NOTICE = """
import os, pathlib, sys, time
notice = pathlib.Path(os.environ["HELIOS_JOB_DIR"], "notice.json")
while not notice.exists():
    time.sleep(0.05)
sys.exit(75)
"""
TELLS = """
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["HELIOS_JOB_DIR"])
wanted = ("HELIOS_JOB", "HELIOS_EPOCH", "HELIOS_TENANT", "HELIOS_CELL", "HELIOS_WORKERS", "HELIOS_WORKER_RESOURCES",
          "HELIOS_CHECKPOINT_EVERY", "HELIOS_STAGE", "MLFLOW_TRACKING_URI", "MY_ENV", "RAY_ADDRESS")
told = {name: os.environ[name] for name in wanted}
told |= {"config": json.load(open(os.environ["HELIOS_CONFIG"])), "cwd": os.getcwd(), "python": sys.executable}
(folder / "result.json").write_text(json.dumps({"message": "told", "outputs": {"told": json.dumps(told)}}))
print("key is", os.environ["KEY"])
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayLocalDriver]:
    folder = tmp_path_factory.mktemp("cell")
    env = {"PYTHONPATH": str(Path(__file__).parent), "CELL_KEY": "k3y-of-the-cell", "OMP_NUM_THREADS": "1"}
    head = RayHead(folder, cpus=2, env=env)
    head.ensure()
    try:
        head.wait_ready()
        yield RayLocalDriver(cell="lab", folder=folder, head=head, tracking_uri="http://127.0.0.1:9", min_free_bytes=0)
    finally:
        head.stop()


def job(uid: str, program: str, *, epoch: int = 1, **spec: Any) -> Launch:
    full = {"entrypoint": f"python -c '{program}'", "resources": {"cpus": 0.5}, **spec}
    return Launch("Job", uid, uid, epoch, full, workers=1, nodes=("lab-0",), context={"HELIOS_STAGE": "t2v"})


def until(condition: Callable[[], Any], *, timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
    return value


def await_phase(driver: RayLocalDriver, uid: str, epoch: int, *phases: Phase) -> LaunchStatus:
    seen: list[LaunchStatus] = []

    def reached() -> LaunchStatus | None:
        seen.append(driver.status(uid, epoch))
        assert seen[-1].phase in phases or seen[-1].phase not in OVER, seen[-1]
        return seen[-1] if seen[-1].phase in phases else None

    found = until(reached)
    assert isinstance(found, LaunchStatus)
    return found


def start(driver: RayLocalDriver, launch: Launch) -> None:
    """Start as an agent does: again while Ray is not ready for it."""

    def started() -> bool:
        try:
            driver.start(launch)
        except UnavailableError:
            return False
        return True

    until(started)


def test_job_runs_in_its_contract(driver: RayLocalDriver) -> None:
    """A job finds its environment, config and secrets, and hands on outputs and log; a second start does nothing."""
    launch = job(
        "tells", TELLS.replace("'", '"'), config={"steps": 3}, envs={"MY_ENV": "mine"}, secrets={"KEY": "env:CELL_KEY"}
    )
    start(driver, launch)
    start(driver, launch)
    status = await_phase(driver, "tells", 1, Phase.SUCCEEDED)
    told = json.loads(status.outputs["told"])
    assert (status.reason, status.message) == ("Completed", "told")
    assert told["config"] == {"steps": 3}
    assert (told["HELIOS_CELL"], told["HELIOS_STAGE"], told["MY_ENV"]) == ("lab", "t2v", "mine")
    assert json.loads(told["HELIOS_WORKER_RESOURCES"]) == {"CPU": 0.5, "GPU": 0}
    assert told["HELIOS_CHECKPOINT_EVERY"] == "600"
    start(driver, launch)
    log, after = driver.logs("tells", 1, offset=0)
    assert log.count(b"key is [redacted]") == 1, "the secret is masked, and the job ran once"
    assert driver.logs("tells", 1, offset=after) == (b"", after)
    assert b"k3y-of-the-cell" not in b"".join(path.read_bytes() for path in driver.head.folder.rglob("*.json"))


def test_killed_and_noticed_jobs_end_as_what_they_are(driver: RayLocalDriver) -> None:
    """kill -9 of a program is a failure that says so; a job that leaves on notice was stopped, not failed."""
    start(driver, job("killed", FOREVER.replace("'", '"')))
    start(driver, job("noticed", HEEDS_NOTICE))
    await_phase(driver, "killed", 1, Phase.RUNNING)
    pid = read_json(driver.head.folder / "bucket/jobs/killed/pid.json")
    assert pid is not None
    os.kill(pid["child"], signal.SIGKILL)
    failed = await_phase(driver, "killed", 1, Phase.FAILED)
    assert failed.reason == "Killed"
    await_phase(driver, "noticed", 1, Phase.RUNNING)
    before = time.monotonic()
    driver.stop("noticed", 1, grace_s=60)
    assert time.monotonic() - before < 2, "stop gives notice and returns"
    assert await_phase(driver, "noticed", 1, Phase.STOPPED).reason == "Preempted"


def test_lower_epochs_are_over_before_a_higher_one_starts(driver: RayLocalDriver) -> None:
    """A higher epoch ends what the lower one left; the lower one is refused from then on, also by a new driver."""
    program = FOREVER.replace("'", '"')
    start(driver, job("fenced", program, epoch=1))
    await_phase(driver, "fenced", 1, Phase.RUNNING)
    start(driver, job("fenced", program, epoch=2))
    assert marked({"HELIOS_JOB_UID": "fenced", "HELIOS_EPOCH": "1"}) == []
    assert driver.status("fenced", 1).phase is Phase.STOPPED
    await_phase(driver, "fenced", 2, Phase.RUNNING)
    again = RayLocalDriver(cell="lab", folder=driver.head.folder, min_free_bytes=0)
    with pytest.raises(ConflictError, match="epoch 1 is fenced"):
        again.start(job("fenced", program, epoch=1))
    driver.stop("fenced", 2, grace_s=0)
    assert await_phase(again, "fenced", 2, Phase.STOPPED).epoch == 2


def test_service_answers_and_a_redeploy_loads_anew(driver: RayLocalDriver) -> None:
    """A service answers under its route with its args; a higher epoch of the same words replaces it."""
    spec = {"application": "greeting:build", "config": {"tone": "kind"}, "secrets": {"SECRET": "env:CELL_KEY"}}
    for epoch in (1, 2):
        start(driver, Launch("Service", "hello", "svc", epoch, spec, workers=1, nodes=("lab-0",)))
        url = await_phase(driver, "svc", epoch, Phase.RUNNING).outputs["url"]
        answer = httpx.get(url, timeout=30).json()
        assert (answer["config"], answer["epoch"], answer["secret"]) == ({"tone": "kind"}, epoch, "k3y-of-the-cell")
        assert Path(answer["job_dir"]).is_dir()
    assert url.endswith("/hello")


def test_control_plane_to_ray_and_back_through_the_loss_of_ray(driver: RayLocalDriver, tmp_path: Path) -> None:
    """kill -9 of Ray: what ran is lost for that reason alone, Ray comes back, and the job goes on as its next epoch."""
    store = open_store(tmp_path / "helios.db")
    plane = ControlPlane(store)
    agent = CellAgent(plane.gateway, driver, cell="lab", state_dir=tmp_path)
    pools = [{"name": "machine", "capacityType": "reserved", "nodes": 1}]
    program = """import os, time; time.sleep(0 if os.environ["HELIOS_EPOCH"] == "2" else 600)"""
    for kind, name, spec in (
        ("Cell", "lab", {"provider": "local", "nodePools": pools}),
        ("Job", "phoenix", {"entrypoint": f"python -c '{program}'", "resources": {"cpus": 0.5}}),
    ):
        document = {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        apply(store, from_json(document))

    def reaches(state: str) -> Callable[[], bool]:
        def look() -> bool:
            agent.tick()
            plane.tick()
            record = store.get("Job", "phoenix")
            assert record.state == state or record.state not in {"Failed", "Cancelled", "Succeeded"}, record.status
            return record.state == state

        return look

    until(reaches("Running"))
    handle = driver.head.handle()
    assert handle is not None
    os.kill(handle.pid, signal.SIGKILL)
    until(reaches("Recovering"))
    assert "EngineLost" in {event.reason for event in store.events(name="phoenix")}
    assert marked({MARK: handle.mark}) == [], "nothing of the lost Ray is left"
    assert driver.status("svc", 2).reason == "EngineLost"
    until(reaches("Succeeded"), timeout_s=90)
    assert store.get("Job", "phoenix").status["epoch"] == 2
    store.close()


def test_stop_leaves_no_process(driver: RayLocalDriver) -> None:
    """After stop none of the processes is left, nor Ray's folder, and stopping again is a no-op."""
    handle = driver.head.handle()
    assert handle is not None
    pids = {process.pid for process in handle.processes()}
    assert len(pids) > 5
    assert driver.head.stop() >= len(pids) - 2  # Ray's own short-lived ones may come and go
    assert not any(psutil.pid_exists(pid) and marked({MARK: handle.mark}) for pid in pids)
    assert not driver.head.temp.exists()
    assert driver.head.stop() == 0
