"""How many GPUs stay unallocated when a cluster is filled: fragmentation gradient descent against other packing.

Alibaba's openb cluster (1,213 nodes, 6,212 GPUs) and mixes of its pods, after Weng et al., "Beware of Fragmentation",
USENIX ATC 2023. A run: the pods of a trace once, shuffled, then pods drawn from it with replacement, until they ask for
130% of the cluster's GPUs; each is placed when it comes or never. Every policy sees the same pods and the same order of
nodes, in which the first of equally good ones is taken, as published; here the order is shuffled too, for each seed.
The settings other than `shuffled` say what the outcome hangs on.
Usage: python benchmarks/packing.py [--folder DIR] [--traces default gpuspec33] [--seeds 10]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from helios.simulator.packing import POLICIES, Nodes, Request, arrivals, inflate, read_nodes, read_requests, typical
from helios.simulator.packing.fgd import Fgd
from helios.simulator.packing.policies import Policy, policy

REPO = Path(__file__).parents[1]
FOLDER = REPO.parent / "shared/data/traces/alibaba-openb-2023"
TRACES = ("default", "gpushare40", "multigpu20", "multigpu50", "gpuspec33")
PUBLISHED = json.loads((Path(__file__).parent / "packing_published.json").read_text())["traces"]
ARRIVED = 1.3
"""GPUs asked for when a run ends, as a share of capacity."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """How a run is made. The published ones had names for order, whole scores, 95% and the first of equals.

    Attributes:
        shuffled: nodes in another order for each seed, not as the file has them.
        whole: scores are compared by their whole points.
        covered: share of pods that FGD's typical classes make up.
        random_ties: FGD draws lots between equally good places.
    """

    name: str
    policies: Sequence[str] = POLICIES
    shuffled: bool = True
    whole: bool = True
    covered: float = 0.95
    random_ties: bool = False

    def policy(self, name: str, requests: Sequence[Request], nodes: Nodes) -> Policy:
        known = typical(requests, self.covered)
        if name == "fgd":
            return Fgd.of(known, nodes.models, whole=self.whole, random_ties=self.random_ties)
        return policy(name, known, nodes.models)


STANDARD = Setting("shuffled")
FILE_ORDER = Setting("file_order", shuffled=False)
OTHERS = (
    FILE_ORDER,
    Setting("exact_scores", whole=False),
    Setting("fgd_random_ties", ("fgd",), random_ties=True),
    Setting("fgd_all_classes", ("fgd",), covered=1.0),
    Setting("fgd_all_classes_random_ties", ("fgd",), covered=1.0, random_ties=True),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run's outcome: percent of GPUs allocated at 100% of demand, GPUs that are not in the end."""

    trace: str
    setting: str
    policy: str
    seed: int
    allocated_at_100: float
    unallocated: float
    pods: int
    placed: int
    seconds: float


def runs(trace: str, setting: Setting, nodes: Nodes, requests: Sequence[Request], seeds: int) -> Iterator[Run]:
    for name in setting.policies:
        chosen = setting.policy(name, requests, nodes)
        for seed in range(seeds):
            coming = arrivals(requests, int(ARRIVED * nodes.capacity), np.random.default_rng((seed, 0)))
            order = np.random.default_rng((seed, 1)).permutation(len(nodes.devices))
            cluster = nodes.rows(order) if setting.shuffled else nodes
            began = time.perf_counter()
            done = inflate(cluster, coming, chosen, np.random.default_rng((seed, 2)), whole=setting.whole)
            yield Run(
                trace,
                setting.name,
                name,
                seed,
                allocated_at_100=100 * done.allocated_at(1.0),
                unallocated=done.unallocated_at(ARRIVED),
                pods=len(coming),
                placed=int(done.placed.sum()),
                seconds=time.perf_counter() - began,
            )


def figures(done: Sequence[Run], gpus: float) -> list[Row]:
    """Means over seeds, and by how much FGD's unallocated GPUs are fewer, seed by seed."""
    by_key: dict[tuple[str, str, str], list[Run]] = {}
    for run in done:
        by_key.setdefault((run.trace, run.setting, run.policy), []).append(run)
    rows = []
    for (trace, setting, name), group in by_key.items():
        key = f"{trace}.{setting}.{name}"
        left = [run.unallocated for run in group]
        known, best = _published(trace, setting, name, gpus), _published(trace, setting, "fgd", gpus)
        rows.append(_figure(f"{key}.unallocated", left, "GPUs", "lower", known and known[1]))
        at_100 = [run.allocated_at_100 for run in group]
        rows.append(_figure(f"{key}.allocated_at_100", at_100, "%", "higher", known and known[0]))
        if name == "fgd" or (trace, setting, "fgd") not in by_key:
            continue
        fewer = [its - run.unallocated for its, run in zip(left, by_key[trace, setting, "fgd"], strict=True)]
        apart = known[1] - best[1] if known and best else None
        rows.append(_figure(f"{key}.minus_fgd", fewer, "GPUs", "higher", apart))
        share = [100 * less / its for less, its in zip(fewer, left, strict=True)]
        rows.append(
            _figure(f"{key}.fgd_fewer", share, "%", "higher", 100 * apart / known[1] if known and apart else None)
        )
    return rows


def _published(trace: str, setting: str, name: str, gpus: float) -> tuple[float, float] | None:
    """Percent allocated at 100% of demand and GPUs unallocated in the end, where the artifact has them."""
    known = PUBLISHED.get(trace, {}).get(name) if setting in {STANDARD.name, FILE_ORDER.name} else None
    return (known[0], gpus * (1 - known[1] / 100)) if known else None


def _figure(name: str, values: Sequence[float], unit: str, better: str, published: float | None) -> Row:
    """Mean and 95% interval (Student's t) over seeds."""
    mean = statistics.mean(values)
    half = 0.0
    if len(values) > 1:
        half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    row = {"name": name, "value": mean, "unit": unit, "goal": None, "better": better, "n": len(values)}
    return {**row, "spread": [mean - half, mean + half], "published": published}


def show(rows: Sequence[Row]) -> None:
    """One line a policy: each figure with its interval, and in brackets what was published."""
    columns = ("unallocated", "allocated_at_100", "minus_fgd", "fgd_fewer")
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        key, column = row["name"].rsplit(".", 1)
        published = f" [{row['published']:.1f}]" if row["published"] is not None else ""
        lines.setdefault(key, {})[column] = f"{row['value']:.1f} +- {row['spread'][1] - row['value']:.1f}{published}"
    print(f"{'':46}" + "".join(f"{column:24}" for column in columns))
    for key, cells in lines.items():
        print(f"{key:46}" + "".join(f"{cells.get(column, ''):24}" for column in columns).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--traces", nargs="+", default=TRACES)
    parser.add_argument("--seeds", type=int, default=10)
    chosen = parser.parse_args()
    nodes = read_nodes(chosen.folder / "openb_node_list_all_node.csv.xz")
    done: list[Run] = []
    for trace in chosen.traces:
        requests = read_requests(chosen.folder / f"openb_pod_list_{trace}.csv.xz", nodes.models)
        for setting in (STANDARD, *OTHERS) if trace == "default" else (STANDARD,):
            done += runs(trace, setting, nodes, requests, chosen.seeds)
    rows = figures(done, nodes.capacity / 1000)
    show(rows)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    report = {"machine": machine, "commit": commit, "command": " ".join(sys.argv), "figures": rows}
    folder = Path(__file__).parent / "out"
    folder.mkdir(exist_ok=True)
    (folder / "packing.json").write_text(json.dumps({**report, "runs": [asdict(run) for run in done]}, indent=1))


if __name__ == "__main__":
    main()
