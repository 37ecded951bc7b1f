"""`helios simulate --with`: a live fleet played on under a change, from a file and from the control plane."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helios.ports import LaunchStatus, NodeObservation, Phase
from helios.scheduler import (
    CellState,
    Node,
    PendingGang,
    Policy,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    schedule,
)
from helios.scheduler.codec import canonical, record
from helios.spec import QoS

QUOTA = """apiVersion: helios/v1
kind: Tenant
metadata: {{name: research}}
spec: {{quotas: [{{accelerator: H100, nominalQuota: {devices}}}]}}
"""
JOB = """apiVersion: helios/v1
kind: Job
metadata: {{name: {name}}}
spec:
  entrypoint: python train.py
  tenant: research
  qos: guaranteed
  estimate: 1h
  resources: {{accelerators: "H100:8"}}
"""
SERVICE = """apiVersion: helios/v1
kind: Tenant
metadata: {name: serving}
---
apiVersion: helios/v1
kind: Service
metadata: {name: chat}
spec: {application: "app:app", tenant: serving, resources: {accelerators: "H100:8"}}
"""
POOL = {"name": "gpu", "capacityType": "reserved", "accelerators": "H100:8", "nodes": 3, "price": 2}


@pytest.fixture
def live(cli: Any, up: Any) -> Iterator[Any]:
    """A simulated cell of three nodes; of two jobs of a tenant one runs, the other waits for quota alone."""
    gateway, stop = up.house.plane.gateway, threading.Event()
    nodes = [NodeObservation(f"gpu-{index}", "gpu", 64, 2**39, {"H100": 8}) for index in range(3)]

    def agent() -> None:
        while not stop.wait(0.02):
            desired = gateway.desired("sim")
            running = [LaunchStatus(one.uid, one.epoch, Phase.RUNNING) for one in desired.launches]
            gone = [LaunchStatus(one.uid, one.epoch, Phase.STOPPED, "Stopped") for one in desired.stops]
            gateway.report("sim", nodes, running + gone)

    up.house.apply("Cell", "sim", {"provider": "simulated", "nodePools": [POOL]})
    thread = threading.Thread(target=agent, daemon=True)
    thread.start()
    up.house.until("Cell", "sim", lambda found: found.state == "Ready")
    Path("fleet.yaml").write_text("---\n".join([QUOTA.format(devices=8), JOB.format(name="first")]))
    assert cli("submit", "fleet.yaml").code == 0
    up.house.until("Job", "first", lambda found: found.state == "Running")
    Path("second.yaml").write_text("---\n".join([JOB.format(name="second"), SERVICE]))
    assert cli("submit", "second.yaml").code == 0
    up.house.until("Job", "second", lambda found: found.state == "Queued")
    up.house.until("Service", "chat", lambda found: "placement" in found.status)
    yield up
    stop.set()
    thread.join(10)


def test_more_quota_starts_the_job_that_waits_for_it(cli: Any, live: Any) -> None:
    """Asked of the control plane that runs, and the same from the file that `admin snapshot` writes."""
    Path("more.yaml").write_text(QUOTA.format(devices=16))
    assert cli("admin", "snapshot", "snap.json").code == 0
    running = {gang["name"]: gang for gang in json.loads(Path("snap.json").read_text())["snapshot"]["running"]}
    assert {name: gang["serves"] for name, gang in running.items()} == {"first": False, "chat": True}
    for words in (("--with", "more.yaml"), ("--snapshot", "snap.json", "--with", "more.yaml")):
        result = cli("simulate", *words, "--hours", 5, "-o", "json")
        assert result.code == 0, result.err
        base, more = json.loads(result.out)["alternatives"]
        assert (base["name"], more["name"]) == ("as it is", "more.yaml")
        (gain,) = more["gain"]
        assert (gain["name"], gain["after_s"]) == ("second", 0.0)
        assert gain["before_s"] > 3000
        assert base["total"]["started"] == more["total"]["started"] == 1
        assert base["classes"]["guaranteed"]["ended"] == 2
    record_ = live.house.store.get("Job", "second")
    assert record_.state == "Queued", "nothing of it is done"


def test_table_says_what_is_assumed_and_what_is_otherwise(cli: Any, live: Any) -> None:
    """Within 100 columns; services, which have no end, are counted to the horizon."""
    Path("more.yaml").write_text(QUOTA.format(devices=16))
    words = ("--with", "more.yaml", "--without", "Cell/sim", "--policy", "fifo", "--by", "tenant")
    result = cli("simulate", *words)
    assert result.code == 0, result.err
    text = " ".join(result.out.split())
    assert "Nothing new arrives, and nothing breaks." in text
    assert "0 of 3 have no estimate" in text
    assert "2 of 3 have no checkpoint" in text
    assert "Tenant research: quota H100:8 -> quota H100:16" in text
    assert "Cell sim: gone" in text
    assert "AS IT IS MORE.YAML WITHOUT CELL/SIM FIFO" in text
    assert "research, 2 jobs" in text
    assert max(map(len, result.out.splitlines())) <= 100


@pytest.fixture
def snap(tmp_path: Path) -> Path:
    """A snapshot of a fleet with nothing in it."""
    seen, policy = Snapshot(1.0), Policy()
    file = tmp_path / "snap.json"
    file.write_text(canonical(record(seen, policy, schedule(seen, policy))))
    return file


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--with", "more.yml"), 2, "did you mean 'more.yaml'?"),
        (("--with", "broken.yaml"), 2, "broken.yaml:3:"),
        (("--with", "more.yaml", "--with", "more.yaml"), 2, "more.yaml is asked for twice"),
        (("--without", "Cell/nowhere"), 2, "no cell of the fleet is named 'nowhere'"),
        (("--with", "more.yaml", "--load", "0.8"), 2, "--load is for a trace"),
        (("--with", "more.yaml", "--report", "more.yaml"), 2, "more.yaml is there and is no folder"),
        (("--with", "more.yaml", "--hours", "0"), 2, "--hours: expected more than 0"),
        (("--policy", "kueu"), 2, "did you mean 'kueue'?"),
        ((), 2, "as it is: the fleet has no cell"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    cli: Any, snap: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    """Each with the nearest valid name where there is one, and no traceback."""
    Path("more.yaml").write_text(QUOTA.format(devices=16))
    Path("broken.yaml").write_text(QUOTA.format(devices=16).replace("name: research", "nam: research"))
    result = cli("simulate", "--snapshot", snap, *words)
    assert result.code == code, result.out
    assert said in " ".join(result.err.split())
    assert "Traceback" not in result.err


def test_report_has_the_figures_of_every_alternative_and_who_runs_where(cli: Any) -> None:
    """One page beside the data: a quota that was raised lets the second of two jobs start at once."""
    gpus = tuple(Node(f"gpu-{index}", "gpu", 64_000, 2**39, {"H100": 8}) for index in range(2))
    request = Request(1000, 0, "H100", 8)
    held = RunningGang("a", "research", "east", ("gpu-0",), request, qos=QoS.STANDARD, ends_at=7200.0, name="first")
    queued = PendingGang("b", "second<", "research", QoS.STANDARD, 0, 0.0, request, 1, 1, estimate=3600.0)
    tenants = (TenantState("research", {"H100": 8}), TenantState("idle"))
    seen, policy = Snapshot(1.0, (CellState("east", Readiness.READY, gpus),), tenants, (queued,), (held,)), Policy()
    Path("snap.json").write_text(canonical(record(seen, policy, schedule(seen, policy))))
    Path("more.yaml").write_text(QUOTA.format(devices=16))
    result = cli("simulate", "--snapshot", "snap.json", "--with", "more.yaml", "--report", "out", "-o", "json")
    assert result.code == 0, result.err
    assert sorted(file.name for file in Path("out").iterdir()) == ["report.html", "report.json"]
    data = json.loads(Path("out/report.json").read_text())
    assert data == json.loads(result.out)
    page = Path("out/report.html").read_text()
    assert re.findall("<figcaption><b>(.*?)[.]</b>", page) == [
        "Before and after, by class",
        "Before and after, by tenant",
        "Wait less with more.yaml",
        "Utilization by cell over time",
        "Gangs by cell: as it is",
        "Gangs by cell: more.yaml",
    ]
    assert "quota H100:8 (borrows 0, lends 0) -&gt; quota H100:16" in page
    assert "second&lt;" in page
    assert '<td class="good">0 s<small>-2.0 h</small></td>' in page


def test_options_of_a_live_fleet_are_refused_for_a_trace(cli: Any) -> None:
    """They would have no effect."""
    result = cli("simulate", "--hours", 3)
    assert result.code == 2
    assert "--hours is for the fleet and queue of now" in result.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "snap.json:1:2: is no JSON"),
        ("[]", "expected a document with"),
        ('{"format": 1, "snapshot": {}, "polcy": {}}', "no field 'polcy' Hint: did you mean 'policy'?"),
        ('{"format": 2, "snapshots": {}}', "format: expected 1, got 2"),
        ('{"format": 1, "policy": {}, "format": 1}', "snap.json: format: is there twice"),
        ('{"snapshot": {"cells": [{}, {"name": "a", "name": "b"}]}}', "snapshot.cells[1].name: is there twice"),
        ('{"snapshot": {"a": 1, "a": 2}, "snapshot": {}}', "snap.json: snapshot: is there twice"),
    ],
)
def test_file_that_is_no_snapshot_is_refused(cli: Any, text: str, said: str) -> None:
    """For what-if as for a replay, with the place."""
    Path("snap.json").write_text(text)
    for words in (("simulate", "--snapshot", "snap.json"), ("admin", "replay", "snap.json")):
        result = cli(*words)
        assert result.code == 2
        assert said in " ".join(result.err.split())


def test_gang_on_a_node_that_no_cell_lists_is_told(cli: Any) -> None:
    """A live fleet may have one whose node was taken away, so it is played on; a typo is seen all the same."""
    node = Node("gpu-0", "gpu", 64_000, 2**39, {"H100": 8})
    cell = CellState("east", Readiness.READY, (node,))
    held = [RunningGang(name, "research", "east", (f"gpu-{name}",), Request(1000, 0, "H100", 8)) for name in "01"]
    seen, policy = Snapshot(1.0, (cell,), running=(*held, replace(held[0], uid="2", cell="eats"))), Policy()
    Path("snap.json").write_text(canonical(record(seen, policy, schedule(seen, policy))))
    result = cli("admin", "replay", "snap.json")
    assert result.code == 0, result.err
    said = result.err.splitlines()
    assert (
        said[0] == "snap.json: snapshot.running[1].nodes[0]: cell 'east' lists no node 'gpu-1'; did you mean 'gpu-0'?"
    )
    assert said[1] == "snap.json: snapshot.running[2].cell: no cell is named 'eats'; did you mean 'east'?"
    assert len(said) == 2


def test_snapshot_that_is_not_there_is_named_with_what_writes_one(cli: Any) -> None:
    """For what-if as for a replay."""
    for words in (("simulate", "--snapshot", "none.json"), ("admin", "replay", "none.json")):
        result = cli(*words)
        assert result.code == 2
        assert "none.json: cannot be read: No such file" in " ".join(result.err.split())
        assert "helios admin snapshot FILE" in result.err


def test_without_a_control_plane_it_says_so(cli: Any) -> None:
    """There is no fleet to ask for."""
    Path("more.yaml").write_text(QUOTA.format(devices=16))
    result = cli("simulate", "--with", "more.yaml")
    assert result.code != 0
    assert "Traceback" not in result.err
