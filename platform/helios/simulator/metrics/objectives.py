"""What each QoS class is promised, and which jobs got it."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from helios.errors import InputError
from helios.simulator.metrics.columns import Bools, Floats, Jobs, of_class
from helios.spec import QoS


class Measure(StrEnum):
    DELAY = "queueing delay"
    SLOWDOWN = "bounded slowdown"


@dataclass(frozen=True, slots=True)
class Objective:
    """A bound on each job of a class, and the share of the class's jobs that must keep it.

    Attributes:
        bound: seconds of queueing delay, all waits of a job together; or completion time over run time.
        share: of the jobs, in (0, 1].

    Raises:
        InputError: the bound is not positive, or the share is no share.
    """

    measure: Measure
    bound: float
    share: float

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise InputError(f"an objective's bound on {self.measure} is {self.bound:g}; expected more than 0")
        if not 0 < self.share <= 1:
            raise InputError(f"an objective's share of jobs is {self.share:g}; expected more than 0 and at most 1")

    def __str__(self) -> str:
        bound = f"{self.bound / 60:g} min" if self.measure is Measure.DELAY else f"{self.bound:g}"
        return f"{self.share * 100:.6g}% of the jobs with a {self.measure} of at most {bound}"


@dataclass(frozen=True, slots=True)
class Objectives:
    """The objectives of the three classes.

    The defaults are ours, as no trace says what its users were promised. `guaranteed` serves people who wait: five
    minutes is a node's start-up, and one job in a thousand may miss it. `standard` is work of the day: an hour.
    `preemptible` runs on what is left, so that only its stretch is bounded, as in studies of batch systems (bounded
    slowdown: Feitelson et al., "Theory and Practice in Parallel Job Scheduling", JSSPP 1997).

    Attributes:
        shortest_run_s: run times below it count as this long in a slowdown, lest jobs of seconds decide it.
    """

    guaranteed: Objective = Objective(Measure.DELAY, 300.0, 0.999)
    standard: Objective = Objective(Measure.DELAY, 3600.0, 0.95)
    preemptible: Objective = Objective(Measure.SLOWDOWN, 10.0, 0.90)
    shortest_run_s: float = 600.0

    def of(self, qos: QoS) -> Objective:
        return {
            QoS.GUARANTEED: self.guaranteed,
            QoS.STANDARD: self.standard,
            QoS.PREEMPTIBLE: self.preemptible,
        }[qos]


def slowdown(jobs: Jobs, shortest_run_s: float) -> Floats:
    """Completion time over run time, at least 1; of an unfinished job the least that it can become, 1 if endless."""
    stretch = np.ones(len(jobs))
    np.divide(jobs.completion_s, np.maximum(jobs.run_s, shortest_run_s), out=stretch, where=jobs.ends)
    return np.maximum(1.0, stretch)


def attained(jobs: Jobs, objectives: Objectives) -> tuple[Bools, Bools]:
    """Which jobs kept their class's bound, and which of the others might still have kept it.

    A job that has broken the bound by the end of the run has missed it. One that has neither broken it nor started
    (nor ended, where its slowdown counts) is undecided: it is not counted as kept.
    """
    kept = np.zeros(len(jobs), dtype=np.bool_)
    undecided = np.zeros(len(jobs), dtype=np.bool_)
    for qos in QoS:
        objective = objectives.of(qos)
        by_delay = objective.measure is Measure.DELAY
        values = jobs.delay_s if by_delay else slowdown(jobs, objectives.shortest_run_s)
        decided = jobs.started if by_delay else jobs.ended
        within = of_class(jobs, qos) & (values <= objective.bound)
        kept |= within & decided
        undecided |= within & ~decided
    return kept, undecided
