"""How long a job will run, as one may know who sees only what its owner says and what finished before it."""

import math
from bisect import bisect_right, insort
from collections import deque

from helios.simulator.jobs import TraceJob

KEPT = 64
"""Finished run times that are remembered of one kind of job: the latest say most."""
PRIOR = 3.0
"""For how many finished jobs the word of the owner, or of a wider kind, counts."""
LEAST_S = 60.0
"""What a job that outlived every expectation is taken to go on for at least."""


class History:
    """The latest finished run times of one kind of job, in order."""

    __slots__ = ("_latest", "_ordered")

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._ordered)

    def add(self, seconds: float) -> None:
        self._latest.append(seconds)
        insort(self._ordered, seconds)
        if len(self._latest) > KEPT:
            del self._ordered[bisect_right(self._ordered, self._latest.popleft()) - 1]

    def quantile(self, share: float, *, beyond: float = -1.0) -> tuple[float, int] | None:
        """The quantile of those above `beyond`, and how many those are; None where there are none."""
        first = bisect_right(self._ordered, beyond)
        left = len(self._ordered) - first
        return (self._ordered[first + min(int(left * share), left - 1)], left) if left else None


class Predictor:
    """Running quantiles of what finished, narrow kinds of job before wide ones, blended with the owner's estimate.

    A kind with n finished jobs counts for n, what is expected without it for `PRIOR`, as a weighted geometric mean:
    run times span five orders of magnitude. The kinds are, from wide to narrow: all jobs; a tenant's; a tenant's of
    one size; those of one group. The owner's estimate, where there is one, stands in for the wide ones, multiplied by
    the median of (run time / estimate) of the tenant's finished jobs. It is a simple relative of QSSF's rolling
    estimates (Hu et al., "Characterization and Prediction of Deep Learning Workloads", SC '21). Seconds are of work
    at a job's largest number of workers.
    """

    def __init__(self, quantile: float = 0.5) -> None:
        self._quantile = quantile
        self._kinds: dict[tuple[str, ...], History] = {}
        self._ratios: dict[str, History] = {}

    def learn(self, job: TraceJob, ran_s: float) -> None:
        """Take in that a job ended, one way or another, after so much work."""
        for kind in _kinds(job):
            if kind not in self._kinds:
                self._kinds[kind] = History()
            self._kinds[kind].add(ran_s)
        if job.estimate_s and ran_s > 0:
            if job.tenant not in self._ratios:
                self._ratios[job.tenant] = History()
            self._ratios[job.tenant].add(ran_s / job.estimate_s)

    def expected(self, job: TraceJob, *, ran_s: float = 0.0) -> float | None:
        """Seconds of work that it still has before it, who has done `ran_s` already; None where nothing is known."""
        guess = self._owners(job)
        kinds = _kinds(job)
        for kind in kinds if guess is None else kinds[3:]:
            history = self._kinds.get(kind)
            found = history.quantile(self._quantile, beyond=ran_s or -1.0) if history else None
            if found is not None:
                guess = _blend(*found, guess)
        if guess is None:
            return None
        # One that outlived what was expected goes on for about as long again: run times have heavy tails.
        return guess - ran_s if guess > ran_s else max(LEAST_S, ran_s)

    def _owners(self, job: TraceJob) -> float | None:
        if job.estimate_s is None:
            return None
        ratios = self._ratios.get(job.tenant)
        ratio = ratios.quantile(0.5) if ratios else None
        return job.estimate_s * _blend(*ratio, 1.0) if ratio else job.estimate_s


def _kinds(job: TraceJob) -> tuple[tuple[str, ...], ...]:
    size = f"{job.most}x{job.gpus or job.share / 1000}"
    wide: tuple[tuple[str, ...], ...] = ((), (job.tenant,), (job.tenant, size))
    return (*wide, (job.tenant, size, job.group)) if job.group else wide


def _blend(found: float, count: int, guess: float | None) -> float:
    if guess is None or guess <= 0 or found <= 0:
        return found
    return math.exp((count * math.log(found) + PRIOR * math.log(guess)) / (count + PRIOR))
