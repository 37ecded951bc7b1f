"""The nodes beside a local cell's head, told by two signals; real processes stand for raylets, and no Ray runs."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from helios.adapters.programs import MARK, marked
from helios.adapters.ray_local import head as ray_head
from helios.adapters.ray_local import machine, raylets
from helios.adapters.ray_local.driver import RayLocalDriver
from helios.adapters.ray_local.environment import job_env
from helios.adapters.ray_local.head import RayHead
from helios.adapters.ray_local.machine import shares
from helios.adapters.ray_local.raylets import Cluster, Raylets, Sight, selectors
from helios.adapters.ray_local.records import Records, Start
from helios.durable import read_json, write_json
from helios.errors import UnavailableError
from helios.ports import Launch
from helios.spec import JobSpec

STARTING, HEALTHY, UNFIT, LOST = Sight(healthy=False), Sight(healthy=True), Sight(healthy=False), Sight(False, True)


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Raylets]]:
    """Makes `Raylets` of one folder, whose raylets only sleep."""
    sleeper = tmp_path / "raylet"
    sleeper.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    sleeper.chmod(0o700)
    monkeypatch.setattr(raylets, "sys", SimpleNamespace(executable=str(sleeper)))

    def make(rejoin_s: float = 3600.0) -> Raylets:
        return Raylets(tmp_path, tmp_path / "temp", rejoin_s=rejoin_s)

    yield make
    make().stop()


def cluster(nodes: int = 2, instance: str = "first") -> Cluster:
    names = [f"lab-{index}" for index in range(nodes)]
    return Cluster(instance, "127.0.0.1:1", names, shares(nodes, cpus=2), env={})


def ray_says(folder: Path, state: str, *, index: int = 1) -> list[dict[str, Any]]:
    """Ray's list of nodes, with the present start of one node in `state` and an older one of it dead."""
    record = read_json(folder / "nodes" / f"{index}.json")
    assert record is not None
    starts = {"older": "DEAD", record["facts"]["start"]: state}
    return [{"labels": {"helios/start": start}, "state": said} for start, said in starts.items()]


def pid(folder: Path, index: int = 1) -> int:
    record = read_json(folder / "nodes" / f"{index}.json")
    assert record is not None
    return int(record["handle"]["pid"])


def kill(number: int) -> None:
    os.kill(number, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(number)], timeout=10)


def test_node_is_lost_where_both_signals_say_so(beside: Callable[..., Raylets], tmp_path: Path) -> None:
    """Started, counted in, killed: unfit at once, lost only when Ray has given it up, too."""
    nodes = beside()
    assert nodes.tend(cluster(), []) == [STARTING]
    assert nodes.tend(cluster(), ray_says(tmp_path, "ALIVE")) == [HEALTHY]
    kill(pid(tmp_path))
    assert nodes.tend(cluster(), ray_says(tmp_path, "ALIVE")) == [UNFIT]
    assert nodes.tend(cluster(), ray_says(tmp_path, "DEAD")) == [LOST]
    assert nodes.tend(cluster(), ray_says(tmp_path, "DEAD")) == [LOST], "and it stays away for a while"


def test_node_that_ray_gave_up_is_ended(beside: Callable[..., Raylets], tmp_path: Path) -> None:
    """A raylet that hung until Ray gave it up can never come back: its process is ended, and then it is lost."""
    nodes = beside()
    nodes.tend(cluster(), [])
    hung = psutil.Process(pid(tmp_path))
    assert nodes.tend(cluster(), ray_says(tmp_path, "DEAD")) == [LOST]
    assert not hung.is_running() or hung.status() == psutil.STATUS_ZOMBIE


def test_dead_node_comes_back_as_another_start(beside: Callable[..., Raylets], tmp_path: Path) -> None:
    """After its time away it is started again; that Ray remembers the dead start says nothing of the new one."""
    nodes = beside(rejoin_s=0.0)
    nodes.tend(cluster(), [])
    before = ray_says(tmp_path, "DEAD")
    first = pid(tmp_path)
    kill(first)
    assert nodes.tend(cluster(), before) == [STARTING]
    assert pid(tmp_path) != first
    assert nodes.tend(cluster(), before) == [STARTING]
    assert nodes.tend(cluster(), [*before, *ray_says(tmp_path, "ALIVE")]) == [HEALTHY]


def test_nodes_are_found_again_and_follow_their_head(beside: Callable[..., Raylets], tmp_path: Path) -> None:
    """Another process finds the raylet as it is; one of a head that is over is replaced at once."""
    beside().tend(cluster(), [])
    first = pid(tmp_path)
    assert beside().tend(cluster(), ray_says(tmp_path, "ALIVE")) == [HEALTHY]
    assert pid(tmp_path) == first
    assert beside().tend(cluster(instance="second"), ray_says(tmp_path, "ALIVE")) == [STARTING]
    assert pid(tmp_path) != first


def test_stop_ends_every_node_there_ever_was(beside: Callable[..., Raylets], tmp_path: Path) -> None:
    """Nodes of a larger shape are ended too, by whoever asks; asking again is a no-op."""
    beside().tend(cluster(nodes=4), [])
    marks = [str((read_json(tmp_path / "nodes" / f"{index}.json") or {})["handle"]["mark"]) for index in (1, 2, 3)]
    ports = [(read_json(tmp_path / "nodes" / f"{index}.json") or {})["facts"]["node-manager-port"] for index in (1, 2)]
    assert len(set(ports)) == 2
    assert beside().stop() == 3
    assert [marked({MARK: mark}) for mark in marks] == [[], [], []]
    assert beside().stop() == 0


def test_machine_is_divided_without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores and GPUs are all given away, each once; one node has the whole machine, and a node at least one core."""
    monkeypatch.setattr(machine, "devices", lambda: ("H100", "H100", "H100"))
    parts = shares(2, cpus=5)
    assert [part.cpus for part in parts] == [3, 2]
    assert [part.devices for part in parts] == [(0, 1), (2,)]
    assert parts[0].environment() == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert [dict(part.observe(name="n", pool="p", healthy=True, lost=False).accelerators) for part in parts] == [
        {"H100": 2},
        {"H100": 1},
    ]
    assert shares(1, cpus=5)[0].ray_options()[:2] == ["--num-cpus", "5"]
    assert shares(1, cpus=5)[0].devices is None
    assert [part.cpus for part in shares(3, cpus=1)] == [1, 1, 1]


def test_labels_of_long_names_stay_apart() -> None:
    """A label holds 63 characters; the names of a cell's nodes differ in their last ones."""
    names = [f"{'c' * 63}-{index}" for index in (0, 1, 12)]
    labels = [label for selector in selectors(names) for label in selector.values()]
    assert all(len(label) <= 63 for label in labels)
    assert len(set(labels)) == 3
    assert selectors(["lab-1"]) == [{"helios/node": "lab-1"}]


def test_gang_is_told_its_nodes(tmp_path: Path) -> None:
    """The scheduler's choice reaches the job, also from the cell's own record; selectors only where Ray has several."""
    launch = Launch("Job", "a", "a", 1, {"entrypoint": "python -V"}, workers=2, nodes=("lab-0", "lab-1"))
    with Records(tmp_path).of("a") as entry:
        entry.save(Start.of(launch, at=0.0))
    with Records(tmp_path).of("a") as entry:
        start = entry.start(1)
    assert start is not None

    def told(*, labelled: bool) -> dict[str, Any]:
        spec = JobSpec.model_validate(start.spec)
        env = job_env(start, spec, cell="lab", bucket="b", folder=tmp_path, tracking_uri="", labelled=labelled)
        return {name: json.loads(env[name]) for name in ("HELIOS_NODES", "HELIOS_NODE_SELECTORS")}

    assert told(labelled=True) == {
        "HELIOS_NODES": ["lab-0", "lab-1"],
        "HELIOS_NODE_SELECTORS": [{"helios/node": "lab-0"}, {"helios/node": "lab-1"}],
    }
    assert told(labelled=False)["HELIOS_NODE_SELECTORS"] == []


def test_record_without_nodes_is_still_read(tmp_path: Path) -> None:
    """What a cell wrote before it knew of nodes is a start on no node in particular."""
    launch = Launch("Job", "a", "a", 1, {"entrypoint": "python -V"}, workers=1, nodes=("lab-0",))
    with Records(tmp_path).of("a") as entry:
        entry.save(Start.of(launch, at=0.0))
    path = tmp_path / "a.json"
    record = read_json(path)
    assert record is not None
    del record["starts"]["1"]["nodes"]
    write_json(path, record, private=True)
    with Records(tmp_path).of("a") as entry:
        start = entry.start(1)
    assert start is not None
    assert start.nodes == ()


def test_shape_is_that_of_all_pools_and_outlives_the_process(tmp_path: Path) -> None:
    """Pools add up, the driver's cell names the nodes, and a head without orders keeps the shape it had."""
    driver = RayLocalDriver(cell="lab", folder=tmp_path, pools={"fast": 1, "slow": 2})
    assert driver.head.wanted == 3
    assert driver.head.nodes == 1, "until Ray is started"
    write_json(tmp_path / "ray.json", {"handle": None, "facts": {"nodes": "3"}})
    assert RayHead(tmp_path, cell="lab").names == ["lab-0", "lab-1", "lab-2"]
    driver.resize({"fast": 1})
    assert driver.head.wanted == 1


def test_other_number_of_nodes_waits_for_the_end_of_what_runs(
    beside: Callable[..., Raylets], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray is started anew for it only when nothing runs there; until then the cell shows the nodes that there are."""
    monkeypatch.setattr(ray_head, "sys", SimpleNamespace(executable=str(tmp_path / "raylet")))
    monkeypatch.setattr(RayHead, "is_ready", lambda _: True)
    driver = RayLocalDriver(cell="lab", folder=tmp_path, pool="old")
    running = ["a job"]
    monkeypatch.setattr(driver, "running", lambda: running)
    driver.head.ensure()
    try:
        first = driver.head.handle()
        driver.resize({"new": 1, "more": 1})
        assert [(node.name, node.pool) for node in driver.nodes()] == [("lab-0", "new")]
        assert driver.head.handle() == first
        running.clear()
        with pytest.raises(UnavailableError, match="started anew with 2 nodes"):
            driver.nodes()
        assert driver.head.nodes == 2
        assert driver.head.handle() != first
    finally:
        driver.head.stop()
