"""What came of the chaos test: a table for people, and figures in the form of all benchmarks."""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.blackout import RIGHT_S, Blackout
from benchmarks.chaos.checker import Facts, Failovers, Fault, Finding
from rich.console import Console
from rich.table import Table

OUT = Path("benchmarks/out/chaos.json")
FAILOVER_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one store."""

    store: str
    facts: Facts
    faults: tuple[Fault, ...]
    blackout: Blackout
    waits: tuple[float, ...]
    failovers: Failovers
    findings: tuple[Finding, ...]


def figures_of(outcome: Outcome) -> list[dict[str, Any]]:
    counts = Counter(finding.rule for finding in outcome.findings)
    faults, spans = outcome.faults, outcome.facts.spans()
    plain = [
        ("jobs accepted", len(outcome.facts.accepted), "", None, "higher"),
        ("faults done", len(faults), "", None, "higher"),
        ("accepted jobs lost", counts["Lost"], "", 0, "lower"),
        ("run twice at once", counts["TwiceAtOnce"] + counts["TwoEpochs"], "", 0, "lower"),
        ("finished jobs re-run", counts["RunAgain"] + counts["StartedAfterSuccess"], "", 0, "lower"),
        ("leaked allocations", counts["Leaked"], "", 0, "lower"),
        ("starts without an intent", counts["Unintended"], "", 0, "lower"),
        ("nodes overcommitted", counts["Overcommitted"], "", 0, "lower"),
        ("all findings", len(outcome.findings), "", 0, "lower"),
        ("starts in cells", sum(map(len, spans.values())), "", None, "lower"),
        ("incidents of nodes", sum(history.incidents for history in outcome.facts.histories), "", None, "lower"),
        ("cell cut off", outcome.blackout.cut_s, "s", None, "higher"),
        ("all states right after its return", outcome.blackout.right_after, "s", RIGHT_S, "lower"),
    ]
    figures = [
        _figure(outcome, name, value=value, unit=unit, goal=goal, better=better)
        for name, value, unit, goal, better in plain
    ]
    times, single = outcome.failovers, outcome.store == "sqlite"
    timed = (
        ("failover to a replica that was ready", times.standby, FAILOVER_S),
        ("failover to a program that had to start", times.alone, FAILOVER_S if single else None),
        ("wait for acceptance", outcome.waits, None),
    )
    for name, values, limit in timed:
        if values:
            middle, longest, n = statistics.median(values), max(values), len(values)
            figures.append(_figure(outcome, f"{name}, median", value=middle, unit="s", n=n))
            figures.append(_figure(outcome, f"{name}, longest", value=longest, unit="s", goal=limit, n=n))
    return figures


def _figure(
    outcome: Outcome,
    name: str,
    *,
    value: float,
    unit: str = "",
    goal: float | None = None,
    better: str = "lower",
    n: int = 1,
) -> dict[str, Any]:
    shown = round(value, 3) if math.isfinite(value) else None
    figure = {"name": f"{outcome.store}: {name}", "value": shown, "unit": unit, "goal": goal}
    return {**figure, "better": better, "n": n, "spread": None}


def show(outcome: Outcome, console: Console) -> None:
    table = Table(title=f"chaos on {outcome.store}", title_justify="left")
    for heading, justify in (("figure", "left"), ("value", "right"), ("goal", "right"), ("n", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for figure in figures_of(outcome):
        goal = "" if figure["goal"] is None else f"{figure['goal']:g}"
        name = figure["name"].partition(": ")[2]
        value = "never" if figure["value"] is None else f"{figure['value']:g} {figure['unit']}".strip()
        table.add_row(name, value, goal, str(figure["n"]))
    console.print(table)
    kinds = Counter(f"{fault.kind} {fault.target.rstrip('-0123456789')}" for fault in outcome.faults)
    console.print("faults: " + ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common()))
    times = outcome.failovers
    lost = len(times.standby) + len(times.alone) + times.spoiled
    console.print(f"leaders lost: {lost}; {times.spoiled} of them are not timed, as the next fault came first")
    ends = Counter(record.state for record in outcome.facts.records)
    console.print("ends: " + ", ".join(f"{count} {state}" for state, count in ends.most_common()))
    for rule, count in Counter(finding.rule for finding in outcome.findings).most_common():
        console.print(f"[bold red]{rule}[/]: {count}")
        for finding in [finding for finding in outcome.findings if finding.rule == rule][:10]:
            console.print(f"  {finding.name}: {finding.message}", markup=False)


def write(outcomes: Sequence[Outcome]) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    data = {
        "figures": [figure for outcome in outcomes for figure in figures_of(outcome)],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPython {platform.python_version()}",
        "commit": commit,
        "command": " ".join(["python", "-m", "benchmarks.chaos.run", *sys.argv[1:]]),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(data, indent=1), encoding="utf-8")
