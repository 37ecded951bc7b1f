"""The tables of a report: policies against the best baseline, two stages by two, what each part of ours brings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from helios.simulator.metrics import Capacity, Censored, Estimate, Objectives, highest_load
from helios.simulator.report.figures import HEADLINE, LOST, MEAN_JCT, Figure, Unit, delay_p99, seconds, written
from helios.simulator.report.roles import Part
from helios.simulator.report.runs import Runs
from helios.spec import QoS

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: what it says, what stands small below, and how it is marked (`best`, `good`, `bad`)."""

    text: str
    note: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its heading, rows of cells, and a sentence that says how to read it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str


def policies(runs: Runs, figures: Sequence[Figure] = HEADLINE, *, title: str = "Policies") -> Grid:
    """Every policy's figures at the reference load, and under each what it is of the best baseline's."""
    best = {figure.key: runs.best_baseline(figure) for figure in figures}
    rows = []
    for policy in [*runs.roles.compared(runs.policies), *_others(runs)]:
        if not runs.of(policy, runs.reference):
            continue
        part = runs.roles.part(policy)
        notes = ["" if part is Part.BASELINE else part.value, runs.short_of_seeds(policy)]
        rows.append(
            [Cell(policy, ", ".join(note for note in notes if note), "ours" if part is Part.OURS else "")]
            + [_against(runs, policy, figure, best[figure.key]) for figure in figures]
        )
    caption = (
        f"At load {runs.reference:g}, means over seeds. Under each figure stands its ratio to the best baseline's "
        "for this figure, which is bold; oracles and what is made of ours are no baselines."
    )
    return Grid(title, ["policy", *(figure.title for figure in figures)], rows, caption)


def _others(runs: Runs) -> list[str]:
    shown = set(runs.roles.compared(runs.policies))
    return [policy for policy in runs.policies if policy not in shown]


def _against(runs: Runs, policy: str, figure: Figure, best: str | None) -> Cell:
    value = runs.estimate(policy, figure).value
    if best is None or policy == best or math.isnan(value):
        return Cell(written(value, figure.unit), mark="best" if policy == best else "")
    ratio = runs.compare(policy, best, figure).ratio.value
    return Cell(written(value, figure.unit), "" if not math.isfinite(ratio) else written(ratio, Unit.RATIO))


def two_by_two(runs: Runs) -> Grid | None:
    """Ours and the control's, each stage by itself; None unless all four were run at the reference load."""
    roles = runs.roles
    cells = ((roles.ours, roles.ours_first), (roles.ours_second, roles.neither))
    if not all(runs.of(policy, runs.reference) for row in cells for policy in row):
        return None
    runs = runs.common([policy for row in cells for policy in row])
    if not runs.runs:
        return None
    rows = [
        [Cell(figure.title if first else "", f"{whose} stage 1")]
        + [_to_neither(runs, policy, figure) for policy in row]
        for figure in (delay_p99(QoS.STANDARD), MEAN_JCT, LOST)
        for first, whose, row in zip((True, False), ("our", "control's"), cells, strict=True)
    ]
    caption = (
        f"At load {runs.reference:g}, {len(runs.seeds)} seeds: each figure, and below it the ratio to ours with both "
        "stages the control's, and its 95% interval. From row to row of a figure the choice of the cell changes, from "
        "column to column that of nodes; order, quota, preemption and backfill are ours throughout."
    )
    return Grid("Stage 1 by stage 2", ["", "our stage 2", "control's stage 2"], rows, caption)


def _to_neither(runs: Runs, policy: str, figure: Figure) -> Cell:
    value = written(runs.estimate(policy, figure).value, figure.unit)
    if policy == runs.roles.neither:
        return Cell(value)
    return Cell(value, _interval(runs.compare(policy, runs.roles.neither, figure).ratio, Unit.RATIO))


def ablations(runs: Runs) -> Grid | None:
    """What each part of ours brings: ours without it over ours; None where none was run at the reference load."""
    ours = runs.roles.ours
    names = [name for name in runs.roles.ablations if runs.of(name, runs.reference)]
    if not names or not runs.of(ours, runs.reference):
        return None
    rows = [
        [Cell(f"without {runs.roles.ablations[name]}", f"{name}, {_seeds(runs, name, ours)}")]
        + [_change(runs, name, ours, figure) for figure in HEADLINE]
        for name in names
    ]
    caption = (
        f"At load {runs.reference:g}: the figure without the part over the figure with it, and its 95% interval below. "
        "Blue: the part helps, beyond chance. Orange: it harms, beyond chance. Unmarked: these seeds do not show it."
    )
    return Grid("What each part brings", ["", *(figure.title for figure in HEADLINE)], rows, caption)


def _seeds(runs: Runs, *policies: str) -> str:
    count = len(runs.common(policies).seeds)
    return f"{count} seed{'s'[: count != 1]}"


def _change(runs: Runs, name: str, ours: str, figure: Figure) -> Cell:
    found = runs.compare(name, ours, figure).ratio
    if not math.isfinite(found.value):
        return Cell("-")
    worse, better = (found.low > 1, found.high < 1) if figure.better == "lower" else (found.high < 1, found.low > 1)
    note = "" if math.isnan(found.low) else f"{found.low:.2f} to {found.high:.2f}"
    return Cell(written(found.value, Unit.RATIO), note, "good" if worse else "bad" if better else "")


def capacities(runs: Runs, objectives: Objectives) -> Grid | None:
    """The highest load that meets all objectives, a row a policy; None where only one load was run."""
    if len(runs.loads) < 2:
        return None
    rows = []
    for policy in [*runs.roles.compared(runs.policies), *_others(runs)]:
        found = highest_load(runs.of(policy), objectives)
        if not math.isnan(found.load.value):
            rows.append([Cell(policy), Cell(*_load(found)), Cell(str(found.first_missed or "none"))])
    asked = "; ".join(f"{qos}: {objectives.of(qos)}" for qos in QoS)
    caption = (
        f"The load at which the first class falls below its objective, linear between the loads that were run "
        f"({', '.join(f'{load:g}' for load in runs.loads)}), with the 95% interval over seeds. Objectives: {asked}."
    )
    return Grid(
        "Highest load that meets all objectives", ["policy", "highest load", "class missed first"], rows, caption
    )


def _load(found: Capacity) -> tuple[str, str]:
    sign = {Censored.ABOVE: "at least ", Censored.BELOW: "below "}.get(found.censored, "")
    note = "" if math.isnan(found.load.low) else f"{found.load.low:.3f} to {found.load.high:.3f}"
    return f"{sign}{found.load.value:.3f}", found.censored.value or note


def _interval(found: Estimate, unit: Unit) -> str:
    if math.isnan(found.low):
        return written(found.value, unit)
    return f"{written(found.value, unit)} ({found.low:.2f} to {found.high:.2f})"


def unfinished(runs: Runs) -> Grid:
    """What was open when the runs were over, and mean completion times without and with it, at the reference load."""
    rows = []
    for policy in [*runs.roles.compared(runs.policies), *_others(runs)]:
        found = runs.of(policy, runs.reference)
        if not found:
            continue
        keys = ("unfinished", "unfinished_held", "unfinished_left", "undecided")
        count, held, left, undecided = (sum(getattr(run.jobs, key) for run in found) / len(found) for key in keys)
        ended = [run.jobs.completion_ended.mean for run in found]
        all_ = [run.jobs.completion.mean for run in found]
        rows.append(
            [Cell(policy)]
            + [Cell(text) for text in (f"{count:,.1f}", f"{held / _HOUR_S:,.0f}", f"{left / _HOUR_S:,.0f}")]
            + [Cell(seconds(sum(each) / len(each))) for each in (ended, all_)]
            + [Cell(f"{undecided:,.1f}")]
        )
    columns = [
        "policy",
        "unfinished jobs",
        "device-hours they had",
        "device-hours they need at least",
        "mean JCT without them",
        "mean JCT with the least they can become",
        "jobs whose objective is undecided",
    ]
    caption = (
        f"At load {runs.reference:g}, mean over seeds. All other figures count unfinished jobs with the least that "
        "they can still become, and undecided ones as missed."
    )
    return Grid("Unfinished jobs", columns, rows, caption)


def tenants(runs: Runs, most: int = 12) -> Grid | None:
    """The tenants that sharing serves worst under ours; None where ours was not run or no tenant has a quota."""
    found: dict[str, list[tuple[float, float, float, float, int]]] = {}
    for run in runs.of(runs.roles.ours, runs.reference):
        for name, each in run.fairness.tenants.items():
            found.setdefault(name, []).append((each.quota, each.shared_s, each.alone_s, each.rho, each.jobs))
    if not found:
        return None
    means = {name: [sum(column) / len(column) for column in zip(*each, strict=True)] for name, each in found.items()}
    worst = sorted(means, key=lambda name: -means[name][1] / means[name][2])[:most]
    rows = []
    for name in worst:
        quota, shared, alone, rho, jobs = means[name]
        ratio = Cell(written(shared / alone, Unit.RATIO), mark="bad" if shared > alone else "good")
        texts = (f"{quota:g}", f"{jobs:,.0f}", seconds(shared), seconds(alone))
        rows.append([Cell(name), *(Cell(text) for text in texts), ratio, Cell(written(rho, Unit.RATIO))])
    simulated = runs.of(runs.roles.ours, runs.reference)[0].fairness.simulated
    source = (
        "a simulated run in which each tenant has nothing else"
        if simulated
        else "computed: its quota as one pool of divisible devices, without failures, jobs in the order of submission"
    )
    caption = (
        f"The {len(rows)} of {len(means)} tenants with the highest ratio, under {runs.roles.ours} at load "
        f"{runs.reference:g}. Alone is {source}. rho is the mean over jobs, as in Themis."
    )
    columns = ["tenant", "quota", "jobs", "mean JCT shared", "mean JCT alone", "shared / alone", "rho"]
    return Grid("Tenants against their own quota alone", columns, rows, caption)
