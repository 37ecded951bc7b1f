"""What was promised of our policy, and whether it was reached, missed and by how much."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from helios.simulator.metrics import Censored, Estimate, Objectives, capacity_ratio, highest_load
from helios.simulator.report.figures import LOST, MEAN_JCT, WORSE_OFF, Figure, Unit, attainment, delay_p99, written
from helios.simulator.report.roles import Part
from helios.simulator.report.runs import Runs
from helios.spec import QoS


class Verdict(StrEnum):
    """A goal is reached where the figure and its whole interval are on the good side of it."""

    REACHED = "reached"
    UNSURE = "reached, but the interval crosses the goal"
    MISSED = "missed"
    OPEN = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal against what was measured.

    Attributes:
        found: the figure that the goal bounds: a ratio to `against`, or a plain value.
        ours, theirs: what the two sides of a ratio are, as people read them.
        limit: what keeps it from being better, or empty.
    """

    title: str
    goal: float
    better: str
    unit: Unit
    found: Estimate
    against: str = ""
    ours: str = ""
    theirs: str = ""
    limit: str = ""

    @property
    def verdict(self) -> Verdict:
        if math.isnan(self.found.value):
            return Verdict.OPEN
        if not self._meets(self.found.value):
            return Verdict.MISSED
        worst = self.found.high if self.better == "lower" else self.found.low
        return Verdict.UNSURE if math.isnan(worst) or not self._meets(worst) else Verdict.REACHED

    @property
    def missed_by(self) -> float:
        """How far the figure is from the goal, in its unit; 0 where it is reached."""
        gap = self.found.value - self.goal if self.better == "lower" else self.goal - self.found.value
        return max(0.0, gap)

    @property
    def interval(self) -> str:
        """The 95% interval as people read it."""
        if math.isnan(self.found.low):
            return "-"
        return f"{written(self.found.low, self.unit)} to {written(self.found.high, self.unit)}"

    @property
    def said(self) -> str:
        """The verdict in words."""
        if self.verdict is not Verdict.MISSED:
            return self.verdict.value
        gap = "points" if self.unit is Unit.SHARE else ""
        shown = f"{self.missed_by * 100:.2g} {gap}" if gap else written(self.missed_by, self.unit)
        return f"missed by {shown}"

    def _meets(self, value: float) -> bool:
        return value <= self.goal if self.better == "lower" else value >= self.goal


def goals(runs: Runs, objectives: Objectives) -> Sequence[Goal]:
    """The goals of the scheduler at the reference load; none where our policy was not run."""
    if not runs.of(runs.roles.ours, runs.reference):
        return ()
    makers: list[Callable[[], Goal]] = [
        lambda: _ratio(runs, delay_p99(QoS.STANDARD), 0.60),
        lambda: _ratio(runs, MEAN_JCT, 0.85),
        lambda: _ratio(runs, LOST, 0.70),
        lambda: _plain(runs, attainment(QoS.GUARANTEED), objectives.guaranteed.share),
        lambda: _plain(runs, WORSE_OFF, 0.0),
        lambda: _capacity(runs, objectives),
    ]
    return [make() for make in makers]


def _ratio(runs: Runs, figure: Figure, goal: float) -> Goal:
    """Ours over the best baseline's."""
    title, ours, best = f"{figure.title}, against the best baseline", runs.roles.ours, runs.best_baseline(figure)
    if best is None:
        return Goal(title, goal, figure.better, Unit.RATIO, Estimate(math.nan, math.nan, math.nan, 0))
    mine, other = runs.estimate(ours, figure).value, runs.estimate(best, figure).value
    return Goal(
        title,
        goal,
        figure.better,
        Unit.RATIO,
        runs.compare(ours, best, figure).ratio,
        against=best,
        ours=written(mine, figure.unit),
        theirs=written(other, figure.unit),
        limit=_limit(runs, figure, other) if other > 0 else "",
    )


def _limit(runs: Runs, figure: Figure, theirs: float) -> str:
    """What keeps a ratio to the best baseline from being better: bounds, what the trace decides, the best oracle."""
    ours, parts = runs.roles.ours, []
    if figure is MEAN_JCT:
        bound = _mean([run.bounds.completion_s for run in runs.of(ours, runs.reference)])
        parts.append(f"no policy is below {written(bound, Unit.SECONDS)}, {written(bound / theirs, Unit.RATIO)}")
    if figure is LOST:
        failed = _mean([run.rates.failed for run in runs.of(ours, runs.reference)])
        parts.append(f"work of jobs that fail is {written(failed / theirs, Unit.RATIO)} by itself")
    seen = [policy for policy in runs.policies if runs.roles.part(policy) is Part.ORACLE]
    found = {policy: runs.estimate(policy, figure).value for policy in seen if runs.of(policy, runs.reference)}
    if found:
        best = (min if figure.better == "lower" else max)(found, key=lambda policy: found[policy])
        parts.append(f"the oracle {best} has {written(found[best] / theirs, Unit.RATIO)}")
    return "; ".join(parts)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plain(runs: Runs, figure: Figure, goal: float) -> Goal:
    """A figure of ours that has to be so good by itself."""
    found = runs.estimate(runs.roles.ours, figure)
    return Goal(figure.title, goal, figure.better, figure.unit, found, ours=written(found.value, figure.unit))


def _capacity(runs: Runs, objectives: Objectives) -> Goal:
    """Our highest load over the fair control's."""
    title, sides = "highest load that meets all objectives, against the control", (runs.roles.ours, runs.roles.control)
    found = [highest_load(runs.of(policy), objectives) for policy in sides]
    known = len(runs.loads) > 1 and all(runs.of(policy) for policy in sides)
    missing = Estimate(math.nan, math.nan, math.nan, 0)
    ratio = capacity_ratio(runs.of(sides[0]), runs.of(sides[1]), objectives) if known else missing
    shown = [
        f"{each.load.value:.3f}" + {Censored.ABOVE: " or more", Censored.BELOW: " or less"}.get(each.censored, "")
        for each in found
    ]
    limits = [
        f"{policy}: {each.first_missed} is missed first"
        for policy, each in zip(sides, found, strict=True)
        if each.first_missed is not None
    ]
    return Goal(
        title,
        1.10,
        "higher",
        Unit.RATIO,
        ratio,
        against=runs.roles.control if known else "",
        ours=shown[0] if known else "",
        theirs=shown[1] if known else "",
        limit="; ".join(limits) if known else "",
    )
