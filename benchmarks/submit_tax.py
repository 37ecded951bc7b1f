"""What HELIOS costs a submission: from the command to the first line of user code, against `ray job submit`.

Both are real command lines, run in turn on the same Ray of the same local cell. A pair is one submission of each; the
figure is the median of the pairs' ratios. Most of `ray job submit` is the import of Ray, so each round also hands the
program to Ray by a bare HTTP request from this process, with no command line at all: what is left over that is HELIOS's
command line and control plane. Where the time goes is said by the records on the way.
Usage: python benchmarks/submit_tax.py [--pairs 10]
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from helios.adapters.ray_local.head import RayHead

OUT = Path(__file__).parent / "out" / "submit_tax.json"
GOAL = 1.15
PATIENCE_S = 120.0
BIN = Path(sys.executable).parent
PROGRAM = """import time
now = time.time()
import pathlib, sys
pathlib.Path(sys.argv[1]).write_text(str(now))
"""
CELL = """apiVersion: helios/v1
kind: Cell
metadata: {name: local}
spec: {provider: local, nodePools: [{name: machine, capacityType: reserved, nodes: 1}]}
"""
JOB = """apiVersion: helios/v1
kind: Job
metadata: {{name: {name}}}
spec: {{entrypoint: python {program} {out}, resources: {{cpus: 0.1}}}}
"""


Way = Callable[["House", Path, int], dict[str, float]]


@dataclass
class House:
    """An embedded HELIOS of this benchmark's own."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "helios"

    @property
    def head(self) -> RayHead:
        return RayHead(self.home / "cells" / "local")

    def helios(self, *arguments: str) -> None:
        subprocess.run(
            [BIN / "helios", *arguments],
            env=self.env(),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def env(self) -> dict[str, str]:
        return {**os.environ, "HELIOS_HOME": str(self.home)}

    def api(self) -> httpx.Client:
        port = json.loads((self.home / "ports.json").read_text())["api"]
        token = (self.home / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=30)

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def get(self, path: str) -> dict[str, Any]:
        with self.api() as api:
            answer = api.get(path)
            answer.raise_for_status()
            return dict(answer.json())


def until(what: str, look: Callable[[], Any], *, every: float = 0.02) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(every)
    return found


def run(command: list[str | Path], env: dict[str, str], out: Path) -> tuple[float, float]:
    """Start `command`; return when that was, and when the first line of the program it submits ran."""
    began = time.time()
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(f"{out.name} is written", lambda: out.exists() and out.read_text())
        if process.wait(timeout=60) != 0:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return began, float(out.read_text())


def by_helios(house: House, program: Path, turn: int) -> dict[str, float]:
    name, out = f"tax-{turn}", house.folder / f"helios-{turn}"
    document = house.file(f"{name}.yaml", JOB.format(name=name, program=program, out=out))
    began, first = run([BIN / "helios", "submit", document], house.env(), out)

    def ended() -> dict[str, Any] | None:
        found = house.get(f"/v1/jobs/{name}")
        return found if found["status"]["state"] in {"Succeeded", "Failed"} else None

    job = until(f"{name} ends", ended, every=0.2)
    if job["status"]["state"] != "Succeeded":
        raise RuntimeError(f"{name} failed: {job['status']}")
    uid = job["metadata"]["uid"]
    submission = f"helios-{uid}-e{job['status']['epoch']}"
    record = house.head.connect().job(submission)
    assert record is not None
    pid = json.loads((house.head.folder / "bucket" / "jobs" / uid / "pid.json").read_text())
    moments = {
        "accepted": seconds(job["status"]["submittedAt"]),
        "admitted": seconds(job["status"]["admittedAt"]),
        "taken by Ray": record["start_time"] / 1000,
        "program started": pid["started_at"],
        "first line": first,
    }
    return {"total": first - began} | steps_between(began, moments)


def by_ray(house: House, program: Path, turn: int) -> dict[str, float]:
    out, name = house.folder / f"ray-{turn}", f"plain-{turn}"
    address = house.head.address()
    assert address is not None
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": address.token, "RAY_ADDRESS": address.dashboard}
    command: list[str | Path] = [BIN / "ray", "job", "submit", "--no-wait", "--submission-id", name]
    began, first = run([*command, "--", sys.executable, program, out], env, out)
    record = until(f"{name} ends", lambda: ended_in_ray(house, name), every=0.2)
    return {"total": first - began} | steps_between(
        began, {"taken by Ray": record["start_time"] / 1000, "first line": first}
    )


def by_http(house: House, program: Path, turn: int) -> dict[str, float]:
    """The least that Ray asks for: one request, from a process that runs already."""
    out, name = house.folder / f"http-{turn}", f"bare-{turn}"
    began = time.time()
    entrypoint = shlex.join(map(str, (sys.executable, program, out)))
    house.head.connect().submit(name, entrypoint=entrypoint, env={}, hook="", name=name)
    until(f"{out.name} is written", lambda: out.exists() and out.read_text())
    until(f"{name} ends", lambda: ended_in_ray(house, name), every=0.2)
    return {"total": float(out.read_text()) - began}


def ended_in_ray(house: House, name: str) -> dict[str, Any] | None:
    record = house.head.connect().job(name)
    return record if record is not None and record["status"] in {"SUCCEEDED", "FAILED"} else None


def steps_between(began: float, moments: dict[str, float]) -> dict[str, float]:
    """Seconds from each moment to the next, by the later one's name."""
    steps, last = {}, began
    for name, moment in moments.items():
        steps[f"to {name}"] = moment - last
        last = moment
    return steps


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def measure(folder: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Submit by each way in turn, another one first in every round; the first round is not counted."""
    house = House(folder)
    program = house.file("program.py", PROGRAM)
    ways: dict[str, Way] = {"helios submit": by_helios, "ray job submit": by_ray, "bare HTTP": by_http}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    house.helios("up")
    try:
        house.helios("apply", str(house.file("cell.yaml", CELL)))
        until("the cell is ready", lambda: house.get("/v1/cells/local").get("status", {}).get("state") == "Ready")
        for turn in range(rounds + 1):
            order = sorted(ways, key=lambda name: (list(ways).index(name) + turn) % len(ways))
            for name in order:
                taken[name].append(ways[name](house, program, turn))
            print(
                f"round {turn}: " + ", ".join(f"{name} {taken[name][-1]['total']:.2f} s" for name in ways), flush=True
            )
        return {name: values[1:] for name, values in taken.items()}
    finally:
        house.helios("down", "--grace", "0")


def ratios(taken: dict[str, list[dict[str, float]]], other: str) -> list[float]:
    pairs = zip(taken["helios submit"], taken[other], strict=True)
    return [ours["total"] / theirs["total"] for ours, theirs in pairs]


def row(name: str, values: list[float], unit: str, goal: float | None = None) -> dict[str, Any]:
    low, _, high = statistics.quantiles(values, n=4)
    return {"name": name, "value": statistics.median(values), "unit": unit, "goal": goal, "better": "lower"} | {
        "n": len(values),
        "spread": [low, high],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="helios-tax-") as scratch:
        taken = measure(Path(scratch), options.pairs)
    ours = taken["helios submit"]
    rows = [
        row("submit tax, over ray job submit", ratios(taken, "ray job submit"), "x", GOAL),
        row("submit tax, over a bare HTTP request", ratios(taken, "bare HTTP"), "x"),
    ]
    for name, values in taken.items():
        rows += [row(f"{name}, {step}", [one[step] for one in values], "s") for step in values[0]]
    inside = [one["to admitted"] + one["to taken by Ray"] for one in ours]
    rows.append(row("helios, from acceptance to Ray", inside, "s"))
    for one in rows:
        low, high = one["spread"]
        print(f"{one['name']:40}{one['value']:8.3f} {one['unit']}   (quartiles {low:.3f} .. {high:.3f}, n={one['n']})")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    report = {"figures": rows, "machine": machine, "commit": commit, "command": " ".join(sys.argv)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0 if rows[0]["value"] <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
