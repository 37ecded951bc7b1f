"""A node of a real local Ray cell dies under a gang: how soon that is known, and how soon the gang trains again.

Two raylets on this machine, a control plane and the cell's agent in this process; two workers train, one a node, until
SIGKILL ends the raylet of one of them. The gang is elastic (1 to 2 workers) and goes on from its checkpoint on the
node that is left.
Usage: python benchmarks/node_death.py [--out FILE]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from helios.adapters.programs import Program
from helios.adapters.ray_local.driver import RayLocalDriver
from helios.adapters.ray_local.head import RayHead
from helios.agent.cell import CellAgent
from helios.control import ControlPlane, apply
from helios.spec import from_json
from helios.store import Event, Store, open_store

GANG = Path(__file__).with_name("node_death_gang.py")
OUT = Path(__file__).parent / "out" / "node_death.json"
STEPS = 40
PATIENCE_S = 180.0
ENV = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
"""Ray's workers usually give way to everything else on the machine, which a busy one would measure instead."""
CELL = {"provider": "local", "nodePools": [{"name": "machine", "capacityType": "reserved", "nodes": 2}]}
JOB = {
    "entrypoint": f"python {GANG}",
    "workers": {"min": 1, "max": 2},
    "resources": {"cpus": 0.6},
    "checkpoint": {"every": 1},
    "config": {"stage": "t2v", "steps": STEPS, "batch": 192, "warmup": 2, "zero": 0},
}
"""One worker fits a node of one core. Without ZeRO's shards a checkpoint can be loaded by any number of workers."""


@dataclass
class Fleet:
    """A control plane and one cell of two nodes, all alive."""

    store: Store
    driver: RayLocalDriver
    folder: Path

    def until(self, what: str, look: Callable[[], Any]) -> Any:
        """Return what `look` finds, as soon as it finds something. Raises `TimeoutError` with the job as it is then."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            revision = self.store.revision()
            if found := look():
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {PATIENCE_S:g} s: {what}; {self.job()}\n{self.log()[-4000:]}")
            self.store.wait(revision, 0.2)

    def job(self) -> dict[str, Any]:
        return dict(self.store.get("Job", "gang").status)

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in self.store.get("Cell", "lab").status.get("nodes", [])}

    @property
    def job_dir(self) -> Path:
        return self.folder / "bucket" / "jobs" / self.store.get("Job", "gang").uid

    def progress(self) -> dict[str, Any]:
        path = self.job_dir / "progress.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def steps(self, epoch: int) -> list[dict[str, Any]]:
        """The steps that the workers of one start have noted, in order."""
        path = self.job_dir / "steps.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [step for step in map(json.loads, lines) if step["epoch"] == epoch]

    def log(self) -> str:
        path = self.job_dir / "log.txt"
        return path.read_text(errors="replace") if path.exists() else "(no log)"


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    head = RayHead(folder, cpus=2, env=ENV, cell="lab")
    driver = RayLocalDriver(cell="lab", folder=folder, nodes=2, head=head, min_free_bytes=0)
    store = open_store(folder / "helios.db")
    plane = ControlPlane(store)
    agent = CellAgent(plane.gateway, driver, cell="lab", state_dir=folder)
    stop = threading.Event()
    threads = [threading.Thread(target=run, args=(stop,)) for run in (plane.run, agent.run)]
    try:
        head.ensure()
        head.wait_ready()
        for thread in threads:
            thread.start()
        yield Fleet(store, driver, folder)
    finally:
        stop.set()
        store.add_events([Event("Cell", "lab", "", "BenchmarkEnds", "so that nobody waits for a change any more")])
        for thread in threads:
            if thread.ident is not None:
                thread.join(30)
        head.stop()
        store.close()


def hand_in(live: Fleet) -> None:
    """Apply the cell, and the gang once both nodes are there, so that it starts with both workers."""
    for kind, name, spec in (("Cell", "lab", CELL), ("Job", "gang", JOB)):
        document = {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        apply(live.store, from_json(document))
        live.until("both nodes are healthy", lambda: sum(node["healthy"] for node in live.nodes().values()) == 2)


def raylet_of(folder: Path, index: int) -> psutil.Process:
    """The process that is the node for Ray."""
    handle = Program("node", folder / "nodes" / f"{index}.json").handle()
    assert handle is not None
    return next(process for process in handle.processes() if process.name() == "raylet")


def measure(folder: Path) -> dict[str, Any]:
    """Run the story once. Returns its moments in seconds and what the gang did before and after."""
    with fleet(folder) as live:
        hand_in(live)
        live.until("both workers train and have a checkpoint", lambda: live.progress().get("checkpoint_step"))
        before = live.steps(1)
        checkpoint = live.progress()["checkpoint_step"]
        raylet = raylet_of(folder, 1)
        raylet.kill()
        killed, killed_at = time.monotonic(), time.time()
        live.until("the node is lost", lambda: live.nodes()["lab-1"].get("lost"))
        known = time.monotonic() - killed
        live.until("the gang trains again", lambda: live.steps(2))
        resumed = time.monotonic() - killed
        live.until("the job ends", lambda: live.job()["state"] in {"Succeeded", "Failed", "Cancelled"})
        job = live.job()
        return {
            "known_s": known,
            "resumed_s": resumed,
            "state": job["state"],
            "epoch": job["epoch"],
            "failures": job.get("failures", 0),
            "events": [
                [round(event.time - killed_at, 1), event.reason, event.message]
                for event in live.store.events(name="gang")
            ],
            "nodes_before": sorted({step["node"] for step in before}),
            "nodes_after": sorted({step["node"] for step in live.steps(2)}),
            "steps": STEPS,
            "checkpoint_step": checkpoint,
            "last_step_before": max(step["step"] for step in live.steps(1)),
            "first_step_after": live.steps(2)[0]["step"],
            "last_step_after": live.steps(2)[-1]["step"],
        }


def figures(story: dict[str, Any]) -> list[dict[str, Any]]:
    shared = {"unit": "s", "better": "lower", "n": 1, "spread": None}
    return [
        {"name": "node death, known", "value": round(story["known_s"], 2), "goal": 30, **shared},
        {"name": "node death, gang trains again", "value": round(story["resumed_s"], 2), "goal": None, **shared},
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory(prefix="helios-node-death-") as scratch:
        story = measure(Path(scratch) / "lab")
    rows = figures(story)
    for row in rows:
        print(f"{row['name']:34}{row['value']:8.1f} {row['unit']}")
    print(json.dumps(story, indent=1))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    report = {"figures": rows, "story": story, "machine": machine, "commit": commit, "command": " ".join(sys.argv)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    whole = story["state"] == "Succeeded" and story["first_step_after"] > 0 and story["nodes_after"] == ["lab-0"]
    return 0 if whole and story["known_s"] < 30 else 1


if __name__ == "__main__":
    sys.exit(main())
