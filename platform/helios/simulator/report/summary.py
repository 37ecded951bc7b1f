"""The summary for terminals: the goals, and a row for each policy, within 100 columns."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from helios.simulator.metrics import Objectives, RunMetrics
from helios.simulator.report.figures import GOODPUT, LOST, MEAN_JCT, UNFINISHED, attainment, delay_p99, written
from helios.simulator.report.goals import Goal, Verdict, goals
from helios.simulator.report.roles import Part, Roles
from helios.simulator.report.runs import Runs, tables
from helios.spec import QoS

_COLUMNS = (
    ("P99 WAIT", delay_p99(QoS.STANDARD)),
    ("MEAN JCT", MEAN_JCT),
    ("GOODPUT", GOODPUT),
    ("LOST", LOST),
    *((f"MET {qos.value[0].upper()}", attainment(qos)) for qos in QoS),
    ("OPEN", UNFINISHED),
)
_STYLES = {Verdict.REACHED: "green", Verdict.UNSURE: "yellow", Verdict.MISSED: "bold red", Verdict.OPEN: "dim"}


def summary(
    measured: Sequence[RunMetrics],
    *,
    roles: Roles | None = None,
    objectives: Objectives | None = None,
    reference: float = 0.85,
) -> list[dict[str, Any]]:
    """The summary as data: for each trace its goals, and the figures of each policy and load."""
    found = tables(measured, roles or Roles(), reference)
    return [
        {
            "trace": runs.trace,
            "reference_load": runs.reference,
            "seeds": len(runs.seeds),
            "goals": [_goal(goal) for goal in goals(runs, objectives or Objectives())],
            "policies": [
                {"policy": policy, "part": runs.roles.part(policy).value, "load": load}
                | {"seeds": len(runs.of(policy, load))}
                | {figure.key: _number(runs.estimate(policy, figure, load).value) for _, figure in _COLUMNS}
                for policy in _in_order(runs)
                for load in runs.loads
                if runs.of(policy, load)
            ],
        }
        for runs in found
    ]


def _goal(goal: Goal) -> dict[str, Any]:
    plain = {name: value for name, value in asdict(goal).items() if name != "found"}
    found = {name: _number(value) for name, value in asdict(goal.found).items()}
    return plain | found | {"verdict": goal.verdict.name.lower(), "missed_by": _number(goal.missed_by)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def summary_table(
    measured: Sequence[RunMetrics],
    *,
    roles: Roles | None = None,
    objectives: Objectives | None = None,
    reference: float = 0.85,
) -> Group:
    """The summary for a terminal: for each trace a table of policies at the reference load, and one of its goals."""
    parts: list[Table | Text] = []
    for runs in tables(measured, roles or Roles(), reference):
        parts += [_title(runs), _policies(runs), Text("p99 wait of standard; met G, S, P: objectives", style="dim")]
        found = goals(runs, objectives or Objectives())
        parts += [Text(), _goals(found), Text()] if found else [Text()]
    return Group(*parts)


def _title(runs: Runs) -> Text:
    count = len(runs.seeds)
    return Text(f"{runs.trace} at load {runs.reference:g}, {count} seed{'s'[: count != 1]}", style="bold")


def _policies(runs: Runs) -> Table:
    table = _table(("POLICY", *(name for name, _ in _COLUMNS)), first=24)
    for policy in _in_order(runs):
        if not runs.of(policy, runs.reference):
            continue
        cells = [written(runs.estimate(policy, figure).value, figure.unit) for _, figure in _COLUMNS]
        short = runs.short_of_seeds(policy)
        name = Text(policy, style="bold" if runs.roles.part(policy) is Part.OURS else "")
        table.add_row(name.append(f"\n{short}", style="dim") if short else name, *cells)
    return table


def _goals(found: Sequence[Goal]) -> Table:
    table = _table(("GOAL", "ASKED", "FOUND", "95% INTERVAL", "VERDICT"), first=36)
    for goal in found:
        sign = "<=" if goal.better == "lower" else ">="
        table.add_row(
            Text(goal.title + (f" ({goal.against})" if goal.against else ""), overflow="fold"),
            f"{sign} {written(goal.goal, goal.unit)}",
            written(goal.found.value, goal.unit),
            goal.interval,
            Text(goal.said, style=_STYLES[goal.verdict]),
        )
    return table


def _table(columns: Sequence[str], *, first: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for index, name in enumerate(columns):
        if index == 0:
            table.add_column(name, max_width=first, overflow="ellipsis" if first < 30 else "fold")
        else:
            table.add_column(name, justify="right", overflow="fold")
    return table


def _in_order(runs: Runs) -> list[str]:
    shown = runs.roles.compared(runs.policies)
    return shown + [policy for policy in runs.policies if policy not in shown]
