"""The metrics of a group of jobs: all of a run, a QoS class, a tenant."""

import math
from dataclasses import dataclass

import numpy as np

from helios.simulator.metrics.columns import Bools, Jobs
from helios.simulator.metrics.distribution import Distribution


@dataclass(frozen=True, slots=True)
class Group:
    """What became of a group of measured jobs.

    Times are seconds. A job that was unfinished when the run was over counts with the least that it can still become,
    so that every figure of all jobs is a lower bound where `unfinished` is not 0; the `_ended` ones leave it out, which
    flatters whoever starves the long ones.

    Attributes:
        completion: from submission to the end (JCT); services, which have none, are in neither of the two.
        delay: in the queue, all waits of a job together.
        attainment: share that kept its class's objective; NaN where the group is empty.
        undecided: jobs that the run's end keeps us from judging; they are not counted as kept.
        unfinished: jobs without an end, services left out.
        unfinished_held: device-seconds that they were given.
        unfinished_left: device-seconds of work that they still need at least.
        preemptions: a job.
        restarts: a job.
        cross_rack: share of started jobs of more than one device that ran across racks.
        productive, rollback, restart, idle, failed: device-seconds over their whole lives.
    """

    jobs: int
    completion: Distribution
    completion_ended: Distribution
    delay: Distribution
    delay_ended: Distribution
    attainment: float
    undecided: int
    unfinished: int
    unfinished_held: float
    unfinished_left: float
    preemptions: float
    restarts: float
    cross_rack: float
    productive: float
    rollback: float
    restart: float
    idle: float
    failed: float

    @property
    def lost(self) -> float:
        """Device-seconds that came to nothing."""
        return self.rollback + self.restart + self.idle + self.failed


def group(jobs: Jobs, kept: Bools, undecided: Bools) -> Group:
    """Metrics of these jobs, with the verdicts of `attained` on them."""
    ended, open_ = jobs.ended, jobs.ends & ~jobs.ended
    wide = jobs.started & (jobs.gpus > 1)
    left = np.maximum(0.0, jobs.run_s[open_] * jobs.gpus[open_] - jobs.productive[open_])
    return Group(
        jobs=len(jobs),
        completion=Distribution.of(jobs.completion_s[jobs.ends]),
        completion_ended=Distribution.of(jobs.completion_s[ended]),
        delay=Distribution.of(jobs.delay_s),
        delay_ended=Distribution.of(jobs.delay_s[ended]),
        attainment=_mean(kept),
        undecided=int(undecided.sum()),
        unfinished=int(open_.sum()),
        unfinished_held=float(jobs.held[open_].sum()),
        unfinished_left=float(left.sum()),
        preemptions=_mean(jobs.preemptions),
        restarts=_mean(jobs.restarts),
        cross_rack=_mean(jobs.racks[wide] > 1),
        productive=float(jobs.productive.sum()),
        rollback=float(jobs.recomputed.sum()),
        restart=float(jobs.starting.sum()),
        idle=float(jobs.idle.sum()),
        failed=float(jobs.failed.sum()),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
