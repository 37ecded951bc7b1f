"""One cell cut off for minutes: its jobs go on, nothing is started again, and soon after its return all is right."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.checker import Finding
from benchmarks.chaos.client import Client
from benchmarks.chaos.fleet import CellPlan, job
from benchmarks.chaos.proxy import Proxy

from helios.adapters.simulated import SimulatedDriver, Span
from helios.ports import Phase
from helios.spec import CellSpec
from helios.store import Record, Store

JOBS = 24
START_S = 60.0
RIGHT_S = 15.0
GIVE_UP_S = 120.0
SILENCE_S = 30.0
"""After which a cell is marked `Unknown`."""


@dataclass(frozen=True, slots=True)
class Blackout:
    """What came of it.

    Attributes:
        right_after: seconds from the return to the moment when every state was right; infinite where it never was.
        accepted: uid by name of the jobs that ran through it.
    """

    cut_s: float
    right_after: float
    accepted: dict[str, str]
    findings: tuple[Finding, ...]


def black_out(
    plan: CellPlan,
    *,
    ways: Sequence[Proxy],
    folder: Path,
    store: Store,
    client: Client,
    cut_s: float,
    tell: Callable[[str], None],
) -> Blackout:
    """Fill the cell, cut its agent's connections, mend them, and wait until store and cell agree."""
    spec = CellSpec.model_validate(plan.spec)
    driver = SimulatedDriver.open(name=plan.name, spec=spec, folder=folder)
    try:
        accepted = _fill(plan, client, cut_s)
        tell("waits until its jobs run")
        if not _until(lambda: all(record.state == "Running" for record in _records(store, accepted)), START_S):
            raise RuntimeError(f"the jobs of {plan.name} did not all start within {START_S:.0f} s")
        for way in ways:
            way.cut()
        cut_at = time.time()
        while (left := cut_at + cut_s - time.time()) > 0:
            tell(f"cut off, for another {left:.0f} s")
            time.sleep(min(1.0, left))
        findings = _meanwhile(plan, store, accepted, cut_s)
        client.ask("POST", f"/v1/jobs/{next(iter(accepted))}/cancel", within=60)
        for way in ways:
            way.mend()
        back_at = time.time()
        tell("back; waits until all states are right")
        right = _until(lambda: _is_right(plan, store, _spans(driver), accepted), GIVE_UP_S)
        right_after = time.time() - back_at if right else float("inf")
        findings += _restarted(_spans(driver), accepted)
        return Blackout(cut_s, right_after, accepted, tuple(findings))
    finally:
        driver.close()


def _fill(plan: CellPlan, client: Client, cut_s: float) -> dict[str, str]:
    """First one that is cancelled out of sight; then jobs that end during the cut, and jobs that end after it."""
    accepted = {}
    nodes = sum(pool["nodes"] for pool in plan.spec["nodePools"])
    count = min(JOBS, nodes * 8)
    for index in range(count):
        kind = "cancelled" if index == 0 else "short" if index % 2 else "long"
        run = 15 + cut_s * 0.5 if kind == "short" else 60 + cut_s
        name = f"blackout-{index:02d}-{kind}"
        document = job(name, accelerator=plan.accelerator, gpus=1, workers=1, run=run, cell=plan.name)
        body = client.ask("PUT", f"/v1/jobs/{name}", within=60, json=document)
        accepted[name] = body["metadata"]["uid"]
    return accepted


def _meanwhile(plan: CellPlan, store: Store, accepted: dict[str, str], cut_s: float) -> list[Finding]:
    """What the control plane may have made of it: sight is lost, and nothing else."""
    findings = []
    cell = store.get("Cell", plan.name)
    if cut_s > SILENCE_S + 5 and cell.state != "Unknown":
        message = f"cut off for {cut_s:.0f} s, it is {cell.state} ({cell.status.get('message', '')})"
        findings.append(Finding("Unseen", plan.name, message))
    for record in _records(store, accepted):
        if record.state != "Running" or record.status.get("epoch") != 1:
            message = f"out of sight it became {record.state}, epoch {record.status.get('epoch')}"
            findings.append(Finding("Disturbed", record.name, message))
    return findings


def _is_right(plan: CellPlan, store: Store, spans: dict[str, Span], accepted: dict[str, str]) -> bool:
    """Whether the store says of every job what its cell says, the first of them being cancelled."""
    if store.get("Cell", plan.name).state != "Ready":
        return False
    for record in _records(store, accepted):
        span = spans[record.uid]
        wanted = {Phase.SUCCEEDED: "Succeeded", Phase.STOPPED: "Cancelled"}.get(span.phase, "Running")
        if record.state != wanted or (record.name == next(iter(accepted)) and record.state == "Running"):
            return False
    return True


def _restarted(spans: dict[str, Span], accepted: dict[str, str]) -> list[Finding]:
    return [
        Finding("Restarted", name, f"its last start has epoch {spans[uid].epoch}")
        for name, uid in accepted.items()
        if spans[uid].epoch != 1
    ]


def _spans(driver: SimulatedDriver) -> dict[str, Span]:
    """The last start of each job, by uid."""
    return {span.uid: span for span in driver.history().spans}


def _records(store: Store, accepted: dict[str, str]) -> list[Record]:
    return [record for record in store.records("Job") if record.uid in set(accepted.values())]


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
