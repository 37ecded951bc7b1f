"""The fleet that is harmed, and the work that it is given: the same seed gives the same."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SIZES = (96, 80, 72, 64, 56, 48, 40, 36, 32, 28, 24, 20, 16, 8, 5)
"""Nodes of eight GPUs by cell; 5,000 GPUs in all."""
TYPES = ("H100", "A100", "H100", "B200", "H100")
GANGS = ((1, 30), (2, 22), (4, 18), (8, 15), (12, 9), (16, 6))
"""Workers of a job, one a node, and how often."""
QOS = (("guaranteed", 1), ("standard", 6), ("preemptible", 3))
CANCELLED = 0.03
"""Share of the jobs that somebody cancels."""
GRACE_S = 5


@dataclass(frozen=True, slots=True)
class CellPlan:
    name: str
    accelerator: str
    document: dict[str, Any]

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.document["spec"]
        return spec


@dataclass(frozen=True, slots=True)
class JobPlan:
    """One job.

    Attributes:
        at: seconds from the beginning to its submission.
        cancel_after: seconds from its acceptance until somebody cancels it; None where nobody does.
    """

    at: float
    document: dict[str, Any]
    cancel_after: float | None = None

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])


def cells(count: int, *, seed: int) -> tuple[CellPlan, ...]:
    """Unequal cells; a third of the nodes of every other one can be taken back. The last one has no faults."""
    if not 2 <= count <= len(SIZES):
        raise ValueError(f"expected 2 to {len(SIZES)} cells, got {count}")
    return tuple(_cell(index, seed=seed, faulty=index < count - 1) for index in range(count))


def _cell(index: int, *, seed: int, faulty: bool) -> CellPlan:
    accelerator, nodes = TYPES[index % len(TYPES)], SIZES[index]
    preemptible = nodes // 3 if index % 2 else 0
    pools = [_pool("reserved", "reserved", accelerator, nodes - preemptible)]
    if preemptible:
        pools.append(_pool("spot", "preemptible", accelerator, preemptible))
    simulation: dict[str, Any] = {"seed": seed + index, "start": "1s"}
    if faulty:
        simulation["faults"] = {
            "capacity": 0.03, "partialStart": 0.01, "lostResponse": 0.02, "slowStart": 0.05, "slowStartBy": "8s",
            "nodeDeath": 5, "nodeRepair": "30s", "preemption": 10, "preemptionNotice": "10s", "jobFailure": 0.03,
        }  # fmt: skip
    name = f"cell-{index:02d}-{accelerator.lower()}"
    spec = {"provider": "simulated", "nodePools": pools, "simulation": simulation}
    document = {"apiVersion": "helios/v1", "kind": "Cell", "metadata": {"name": name}, "spec": spec}
    return CellPlan(name, accelerator, document)


def _pool(name: str, capacity_type: str, accelerator: str, nodes: int) -> dict[str, Any]:
    return {"name": name, "capacityType": capacity_type, "accelerators": f"{accelerator}:8", "nodes": nodes}


def jobs(count: int, *, seconds: float, fleet: tuple[CellPlan, ...], seed: int) -> Iterator[JobPlan]:
    """Arrivals at random over the time; types in proportion to the fleet, of which they fill some 60 %; 3 to 60 s."""
    dice = random.Random(f"jobs {seed}")
    arrivals = sorted(dice.uniform(0, seconds) for _ in range(count))
    types = [cell.accelerator for cell in fleet]
    weights = [float(sum(pool["nodes"] for pool in cell.spec["nodePools"])) for cell in fleet]
    largest = {kind: max(_nodes(cell) for cell in fleet if cell.accelerator == kind) for kind in types}
    for index, at in enumerate(arrivals):
        (accelerator,) = dice.choices(types, weights)
        (workers,) = dice.choices([size for size, _ in GANGS], [weight for _, weight in GANGS])
        (qos,) = dice.choices([name for name, _ in QOS], [weight for _, weight in QOS])
        run = min(60.0, 3.0 + dice.expovariate(1 / 30))
        document = job(
            f"job-{index:05d}",
            accelerator=accelerator,
            gpus=dice.choice((8, 8, 8, 4, 1)),
            workers=min(workers, largest[accelerator]),
            run=run,
            qos=qos,
        )
        cancelled = dice.random() < CANCELLED
        yield JobPlan(at, document, dice.uniform(0, run) if cancelled else None)


def _nodes(cell: CellPlan) -> int:
    return int(sum(pool["nodes"] for pool in cell.spec["nodePools"]))


def job(
    name: str, *, accelerator: str, gpus: int, workers: int, run: float, qos: str = "standard", cell: str = ""
) -> dict[str, Any]:
    """A job document for simulated cells; `cell` is the only one that may run it."""
    spec: dict[str, Any] = {
        "entrypoint": "python -m training",
        "qos": qos,
        "workers": workers,
        "resources": {"cpus": gpus, "memory": f"{gpus}Gi", "accelerators": f"{accelerator}:{gpus}"},
        "config": {"simulation": {"run": f"{run:.1f}s", "checkpointEvery": "4s", "steps": max(1, int(run / 4))}},
        "checkpoint": {"grace": f"{GRACE_S}s"},
        "retry": {"maxRetries": 10},
    }
    if cell:
        spec["placement"] = {"cells": [cell]}
    return {"apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
