"""`report.json`: the figures in the form of all benchmarks, with machine, commit and command."""

import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helios.simulator.metrics import Estimate
from helios.simulator.report.figures import HEADLINE, MORE_SHARES, MORE_TIMES, Unit
from helios.simulator.report.goals import Goal
from helios.simulator.report.runs import Runs


@dataclass(frozen=True, slots=True)
class Origin:
    """Where figures come from, so that they can be made again."""

    machine: str
    commit: str
    command: str


def origin(command: str = "") -> Origin:
    """This machine, the commit that is checked out here (empty where none is), and the command that was given."""
    git = shutil.which("git")
    found = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False) if git else None
    return Origin(
        machine=f"{platform.machine()}, {os.cpu_count()} cores, CPython {platform.python_version()}",
        commit=found.stdout.strip() if found else "",
        command=command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def figures(tables: Sequence[tuple[Runs, Sequence[Goal]]]) -> Iterator[dict[str, Any]]:
    """The goals, then every figure of every policy and load."""
    for runs, goals in tables:
        for goal in goals:
            name = f"{runs.trace}, load {runs.reference:g}: {goal.title}" + (
                f" ({goal.against})" if goal.against else ""
            )
            yield _figure(name, goal.found, goal.unit, goal.better, goal.goal)
    for runs, _ in tables:
        for policy in runs.policies:
            for load in runs.loads:
                for figure in (*HEADLINE, *MORE_TIMES, *MORE_SHARES):
                    name = f"{runs.trace}, load {load:g}, {policy}: {figure.title}"
                    yield _figure(name, runs.estimate(policy, figure, load), figure.unit, figure.better)


def _figure(name: str, found: Estimate, unit: Unit, better: str, goal: float | None = None) -> dict[str, Any]:
    value, low, high = (None if math.isnan(each) else each for each in (found.value, found.low, found.high))
    spread = None if low is None or high is None else [low, high]
    return {
        "name": name,
        "value": value,
        "unit": unit.value,
        "goal": goal,
        "better": better,
        "n": found.n,
        "spread": spread,
    }


def write(path: Path, source: Origin, tables: Sequence[tuple[Runs, Sequence[Goal]]]) -> None:
    data = {
        "machine": source.machine,
        "commit": source.commit,
        "command": source.command,
        "figures": list(figures(tables)),
    }
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
