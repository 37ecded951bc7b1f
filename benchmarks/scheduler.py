"""What a scheduling cycle takes on one core, in memory, without a store or a network around it.

Steady churn on a full fleet, a cold fill of an empty one, room for one gang of 1,024 GPUs among preemptible work, and
how times grow with nodes and with the queue. Times are of the wall clock; processor time is printed beside them, since
on a shared machine the two differ. `--against` runs the same of an earlier commit, in turn with today's, and gives the
ratio: absolute times say little on another machine.
Usage: python benchmarks/scheduler.py [--nodes 5000] [--pending 10000] [--cycles 200] [--quick]
       python benchmarks/scheduler.py --against 8625298 [--pairs 3]
"""

import argparse
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helios.cli.replica import collect_seldom
from helios.scheduler import (
    CellState,
    Cycle,
    Fleet,
    Node,
    PendingGang,
    Policy,
    Readiness,
    Request,
    RunningGang,
    TenantState,
    Topology,
    schedule,
)
from helios.spec import QoS

REPO = Path(__file__).parents[1]
CELLS, GPUS, CPUS, RACK, BLOCK = 15, 8, 192, 4, 16
TENANTS = tuple(f"team-{number:02d}" for number in range(20))
NOW = 1_800_000_000.0
DAY = 86_400.0
GOALS = {"steady.p99": 50.0, "fill.pods": 5000.0, "reclaim": 1.0, "large.steady": 1000.0}
CLASSES = ((QoS.GUARANTEED, 0.1), (QoS.STANDARD, 0.5), (QoS.PREEMPTIBLE, 0.4))
SIZES = ((1, 1, 0.45), (1, 2, 0.1), (1, 4, 0.1), (1, 8, 0.15), (2, 8, 0.1), (4, 8, 0.06), (8, 8, 0.03), (32, 8, 0.01))
"""(workers, devices a worker, share of the gangs)."""
Row = dict[str, Any]


def cells(nodes: int) -> list[CellState]:
    """So many 8-GPU nodes in 15 cells, in racks of 4 and blocks of 16 nodes."""
    made = []
    for number in range(CELLS):
        size = nodes // CELLS + (number < nodes % CELLS)
        made.append(CellState(f"cell-{number:02d}", Readiness.READY, tuple(_node(number, row) for row in range(size))))
    return made


def _node(cell: int, row: int) -> Node:
    place = Topology(f"r{row // RACK}", f"b{row // BLOCK}", "f")
    return Node(f"c{cell:02d}-n{row:05d}", "p", CPUS * 1000, 2 << 40, {"H100": GPUS}, topology=place)


@dataclass
class Draw:
    """Gangs as people submit them, drawn by a seed."""

    random: random.Random
    number: int = 0

    def gang(self, at: float) -> PendingGang:
        workers, devices, _ = self.random.choices(SIZES, [share for *_, share in SIZES])[0]
        qos = self.random.choices([qos for qos, _ in CLASSES], [share for _, share in CLASSES])[0]
        self.number += 1
        return PendingGang(
            uid=f"g{self.number:07d}",
            name=f"g{self.number}",
            tenant=self.random.choice(TENANTS),
            qos=qos,
            priority=0,
            submitted_at=at,
            request=Request(devices * 8000, devices << 36, "H100", devices),
            min_workers=workers,
            max_workers=workers,
            estimate=self.random.lognormvariate(8.5, 1.5),
        )

    def small_task(self, at: float) -> PendingGang:
        """Data work: ten workers of two cores."""
        self.number += 1
        request = Request(2000, 1 << 33)
        return PendingGang(
            f"t{self.number:07d}", "t", self.random.choice(TENANTS), QoS.PREEMPTIBLE, 0, at, request, 10, 10
        )


def running(gang: PendingGang, cell: str, nodes: tuple[str, ...], now: float, draw: Draw) -> RunningGang:
    """The gang in its place, somewhere in the middle of its run."""
    return RunningGang(
        gang.uid,
        gang.tenant,
        cell,
        nodes,
        gang.request,
        qos=gang.qos,
        started_at=now - draw.random.uniform(0, 4 * 3600),
        checkpointed_at=now - draw.random.uniform(0, 1800),
        ends_at=now + draw.random.expovariate(1 / (6 * 3600)),
        restart_s=90.0,
    )


def admit(fleet: Fleet, cycle: Cycle, gangs: dict[str, PendingGang], now: float, draw: Draw) -> list[RunningGang]:
    placed = []
    for decision in cycle.admits:
        gang = running(gangs.pop(decision.uid), decision.cell, decision.nodes, now, draw)
        fleet.put(gang)
        placed.append(gang)
    return placed


def full_fleet(
    nodes: int, pending: int, tasks: int, draw: Draw, policy: Policy
) -> tuple[Fleet, dict[str, PendingGang], list[RunningGang]]:
    """A fleet whose GPUs are all held, with small CPU tasks up to `tasks` workers, and a queue."""
    fleet, gangs, placed = Fleet(), {}, []
    for cell in cells(nodes):
        fleet.put_cell(cell)
    for tenant in TENANTS:
        fleet.put_tenant(TenantState(tenant))
    workers = 0
    for _ in range(int(nodes * GPUS / 6)):
        gang = draw.gang(NOW - draw.random.uniform(0, 2 * DAY))
        gangs[gang.uid] = gang
        fleet.put(gang)
    placed += admit(fleet, schedule(fleet.snapshot(NOW), policy), gangs, NOW, draw)
    workers = sum(len(gang.nodes) for gang in placed)
    while workers < tasks:
        many = min(2000, (tasks - workers + 9) // 10)
        for _ in range(many):
            task = draw.small_task(NOW - 60)
            gangs[task.uid] = task
            fleet.put(task)
        started = admit(fleet, schedule(fleet.snapshot(NOW), policy), gangs, NOW, draw)
        if not started:
            break
        placed += started
        workers += sum(len(gang.nodes) for gang in started)
    for uid in list(gangs)[: max(0, len(gangs) - pending)]:
        fleet.drop(uid)
        del gangs[uid]
    while len(gangs) < pending:
        gang = draw.gang(NOW - draw.random.uniform(0, 6 * 3600))
        gangs[gang.uid] = gang
        fleet.put(gang)
    return fleet, gangs, placed


def steady(nodes: int, pending: int, tasks: int, cycles: int, churn: int = 20) -> tuple[list[float], list[float], Row]:
    """Milliseconds a cycle, of the wall and of the processor, while gangs end and as many arrive.

    The ledger's upkeep and the snapshot are in it.
    """
    draw, policy = Draw(random.Random(1)), Policy()
    fleet, gangs, placed = full_fleet(nodes, pending, tasks, draw, policy)
    facts = {
        "running_workers": sum(len(gang.nodes) for gang in placed),
        "running_gangs": len(placed),
        "pending": len(gangs),
        "lines": len({(g.tenant, g.qos, g.request, g.min_workers) for g in gangs.values()}),
    }
    now, taken, busy, admitted, changes = NOW, [], [], 0, 0
    with garbage_as_live():
        for _ in range(cycles):
            now += 5.0
            arrivals = [draw.gang(now) for _ in range(churn)]
            ended = [placed.pop(draw.random.randrange(len(placed))) for _ in range(churn)]
            began, worked = time.perf_counter(), time.process_time()
            for gone in ended:
                fleet.drop(gone.uid)
            for gang in arrivals:
                gangs[gang.uid] = gang
                fleet.put(gang)
            cycle = schedule(fleet.snapshot(now), policy)
            admitted += len(cycle.admits)
            changes += len(cycle.changes)
            placed += admit(fleet, cycle, gangs, now, draw)
            taken.append(1e3 * (time.perf_counter() - began))
            busy.append(1e3 * (time.process_time() - worked))
            stopped = {change.uid for change in cycle.changes if not getattr(change, "nodes", ())}
            for number, one in enumerate(placed):
                if one.uid in stopped:
                    placed[number] = replace(one, leaving_at=now + 5)
                    fleet.put(placed[number])
    return taken, busy, {**facts, "admitted": admitted, "changes": changes}


@contextmanager
def garbage_as_live() -> Iterator[None]:
    """Cyclic garbage is looked for as the control plane does (`collect_seldom`), and as before afterwards."""
    threshold, callbacks = gc.get_threshold(), list(gc.callbacks)
    collect_seldom()
    try:
        yield
    finally:
        gc.callbacks[:] = callbacks
        gc.set_threshold(*threshold)
        gc.unfreeze()


def cold_fill(nodes: int, pending: int) -> tuple[float, int]:
    """Seconds to give a whole queue its places on an empty fleet, and the workers that were placed."""
    draw, fleet = Draw(random.Random(2)), Fleet()
    for cell in cells(nodes):
        fleet.put_cell(cell)
    for tenant in TENANTS:
        fleet.put_tenant(TenantState(tenant))
    for _ in range(pending):
        fleet.put(draw.gang(NOW - draw.random.uniform(0, 3600)))
    snapshot = fleet.snapshot(NOW)
    began = time.perf_counter()
    cycle = schedule(snapshot)
    return time.perf_counter() - began, sum(admit.workers for admit in cycle.admits)


def reclaim(nodes: int) -> tuple[float, int]:
    """Seconds to make room for one guaranteed gang of 1,024 GPUs on nodes full of preemptible work; gangs stopped."""
    draw, fleet = Draw(random.Random(3)), Fleet()
    cell = CellState("cell-00", Readiness.READY, tuple(_node(0, row) for row in range(nodes)))
    fleet.put_cell(cell)
    for tenant in TENANTS:
        fleet.put_tenant(TenantState(tenant))
    for node in cell.nodes:
        for _ in range(GPUS):
            task = replace(
                draw.gang(NOW - DAY),
                qos=QoS.PREEMPTIBLE,
                request=Request(8000, 1 << 36, "H100", 1),
                min_workers=1,
                max_workers=1,
            )
            fleet.put(running(task, cell.name, (node.name,), NOW - 3600, draw))
    big = replace(
        draw.gang(NOW), qos=QoS.GUARANTEED, request=Request(64000, 1 << 39, "H100", 8), min_workers=128, max_workers=128
    )
    fleet.put(big)
    snapshot = fleet.snapshot(NOW)
    began = time.perf_counter()
    cycle = schedule(snapshot)
    return time.perf_counter() - began, len(cycle.changes)


def percentile(values: Iterable[float], part: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(part * len(ranked)))]


def figure(name: str, value: float, unit: str, *, n: int, better: str = "lower", spread: Any = None) -> Row:
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "goal": GOALS.get(name),
        "better": better,
        "n": n,
        "spread": spread,
    }


def against(commit: str, pairs: int, cycles: int) -> Iterator[Row]:
    """Figures of today's scheduler over those of that commit, each by its own benchmark, pair by pair."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "then"
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", place, commit], cwd=REPO, check=True)
        try:
            for number in range(pairs):
                then, now = (_quick(where, Path(folder) / f"{number}.json", cycles) for where in (place, REPO))
                print(f"pair {number + 1}: then {then}", f"pair {number + 1}: now  {now}", sep="\n", flush=True)
                for name in then.keys() & now.keys():
                    found.setdefault(name, []).append(now[name] / then[name])
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", place], cwd=REPO, check=True)
    for name, ratios in sorted(found.items()):
        spread = [round(min(ratios), 3), round(max(ratios), 3)]
        better = "higher" if name == "fill.pods" else "lower"
        yield figure(f"{name}.ratio", statistics.median(ratios), "x", n=pairs, better=better, spread=spread)


def _quick(place: Path, out: Path, cycles: int) -> dict[str, float]:
    """What the benchmark of a checkout finds, in a process of its own."""
    script = str(place / "benchmarks/scheduler.py")
    command = [sys.executable, script, "--quick", "--cycles", str(cycles), "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(place / "platform")}
    subprocess.run(command, cwd=place, env=env, check=True, stdout=subprocess.DEVNULL)
    return {row["name"]: row["value"] for row in json.loads(out.read_text())["figures"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pending", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="the first three figures alone")
    parser.add_argument("--out", type=Path, default=REPO / "benchmarks/out/scheduler.json")
    parser.add_argument("--against", metavar="COMMIT", help="the ratio to an earlier commit, run in turn, instead")
    parser.add_argument("--pairs", type=int, default=3, help="how often, with --against")
    asked = parser.parse_args()
    rows: list[Row] = []

    def tell(row: Row) -> None:
        rows.append(row)
        goal = f"   goal {row['goal']:g}" if row["goal"] else ""
        print(f"{row['name']:32} {row['value']:>12.2f} {row['unit']}{goal}", flush=True)

    if asked.against:
        if asked.pairs < 1:
            parser.error(f"--pairs: expected 1 or more, got {asked.pairs}")
        look = ["git", "rev-parse", "--quiet", "--verify", f"{asked.against}^{{commit}}"]
        if subprocess.run(look, cwd=REPO, check=False, stdout=subprocess.DEVNULL).returncode:
            parser.error(f"--against: {asked.against!r} is no commit of this checkout")
        for row in against(asked.against, asked.pairs, asked.cycles):
            tell(row)
        write(asked.out, {"against": asked.against}, rows)
        return
    taken, busy, facts = steady(asked.nodes, asked.pending, asked.tasks, asked.cycles)
    print(facts)
    spread = [round(percentile(taken, part), 2) for part in (0.5, 0.9, 1.0)]
    tell(figure("steady.p99", percentile(taken, 0.99), "ms", n=len(taken), spread=spread))
    tell(figure("steady.median", statistics.median(taken), "ms", n=len(taken)))
    tell(figure("steady.p99.processor", percentile(busy, 0.99), "ms", n=len(busy)))
    seconds, pods = cold_fill(asked.nodes, asked.pending)
    tell(figure("fill.pods", pods / seconds, "gang-pods/s", n=pods, better="higher"))
    seconds, stopped = reclaim(1000)
    tell(figure("reclaim", seconds, "s", n=stopped))
    if not asked.quick:
        for nodes in (1250, 2500, 10_000, 20_000):
            taken, *_ = steady(nodes, asked.pending, 40 * nodes, 40)
            tell(figure(f"steady.nodes.{nodes}", statistics.median(taken), "ms", n=len(taken)))
        for pending in (2500, 5000, 20_000, 40_000):
            taken, *_ = steady(asked.nodes, pending, asked.tasks, 40)
            tell(figure(f"steady.pending.{pending}", statistics.median(taken), "ms", n=len(taken)))
        taken, *_ = steady(50_000, asked.pending, 400_000, 30)
        tell(figure("large.steady", percentile(taken, 0.99), "ms", n=len(taken)))
    write(asked.out, facts, rows)


def write(out: Path, facts: Row, rows: list[Row]) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}; one core used",
        "commit": commit.strip(), "command": "python " + " ".join(sys.argv), "facts": facts, "figures": rows,
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
