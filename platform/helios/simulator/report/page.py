"""The report as one HTML file that needs nothing from anywhere else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from helios.simulator.metrics import Objectives
from helios.simulator.report import compare, curves, fleet, gantt
from helios.simulator.report.benchmark import Origin
from helios.simulator.report.checks import above_load, doubts
from helios.simulator.report.collect import Collected, Picture
from helios.simulator.report.figures import MORE_SHARES, MORE_TIMES, written
from helios.simulator.report.goals import Goal
from helios.simulator.report.ink import Plot
from helios.simulator.report.runs import Runs
from helios.spec import QoS


@dataclass(frozen=True, slots=True)
class Chapter:
    """All of one trace."""

    runs: Runs
    goals: Sequence[Goal]
    curves: Sequence[Plot]
    distributions: Plot
    capacities: compare.Grid | None
    policies: compare.Grid
    more: Sequence[compare.Grid]
    two_by_two: compare.Grid | None
    ablations: compare.Grid | None
    losses: Plot
    cells: Sequence[Plot]
    fairness: Plot
    tenants: compare.Grid | None
    unfinished: compare.Grid
    doubts: Sequence[str]
    above_load: str


def render(
    tables: Sequence[tuple[Runs, Sequence[Goal]]],
    kept: Collected,
    source: Origin,
    *,
    objectives: Objectives,
    synthetic: Sequence[str],
    notes: Iterable[str],
) -> str:
    """Draw everything and fill it in."""
    environment = Environment(
        loader=PackageLoader("helios.simulator.report", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["written"] = written
    return environment.get_template("report.html.j2").render(
        chapters=[_chapter(runs, goals, kept, objectives) for runs, goals in tables],
        objectives=[(qos.value, objectives.of(qos)) for qos in QoS],
        shortest_run_s=objectives.shortest_run_s,
        synthetic=synthetic,
        notes=list(notes),
        source=source,
    )


def _chapter(runs: Runs, goals: Sequence[Goal], kept: Collected, objectives: Objectives) -> Chapter:
    return Chapter(
        runs=runs,
        goals=goals,
        curves=curves.load_curves(runs, objectives),
        distributions=curves.delay_distributions(runs, kept.delays_at(runs.trace, runs.reference), objectives),
        capacities=compare.capacities(runs, objectives),
        policies=compare.policies(runs),
        more=(
            compare.policies(runs, MORE_TIMES, title="Policies: further times, and unfinished jobs"),
            compare.policies(runs, MORE_SHARES, title="Policies: shares, fairness, preemptions"),
        ),
        two_by_two=compare.two_by_two(runs),
        ablations=compare.ablations(runs),
        losses=fleet.losses(runs),
        cells=_cells(_pictures(runs, kept)),
        fairness=fleet.fairness(runs),
        tenants=compare.tenants(runs),
        unfinished=compare.unfinished(runs),
        doubts=doubts(runs),
        above_load=above_load(runs),
    )


def _pictures(runs: Runs, kept: Collected) -> list[Picture]:
    """Of ours and of the control; of the first policy, where neither was run."""
    found = {policy: kept.pictures[runs.trace, policy] for policy in runs.policies}
    pair = [found[name] for name in (runs.roles.ours, runs.roles.control) if name in found]
    return pair or [found[runs.policies[0]]]


def _cells(pictures: Sequence[Picture]) -> list[Plot]:
    drawn = [fleet.utilization(pictures)]
    return drawn + [gantt.gantt(picture) for picture in pictures if picture.stays]
