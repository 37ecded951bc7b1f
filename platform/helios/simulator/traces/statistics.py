"""What a trace is like: sizes, durations, and how well a job's past tells how long the next will take."""

import heapq
from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from helios.simulator.traces.table import Floats
from helios.simulator.traces.trace import Trace

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
FAR = 10.0
"""A prediction is far off where it is more than so many times too long or too short."""


@dataclass(frozen=True, slots=True)
class SizeRow:
    """Jobs of one size.

    Attributes:
        devices: of each job.
        jobs: share of all jobs.
        work: share of all GPU time.
    """

    devices: float
    count: int
    jobs: float
    work: float
    median_s: float
    mean_s: float


@dataclass(frozen=True, slots=True)
class Predictability:
    """What a job's group tells of its duration; NaN where no group has a past.

    Attributes:
        explained: share of the variance of the logarithm of durations that lies between groups.
        groups: how many there are.
        unknown: share of jobs of whose group none had ended when they were submitted.
        half, tenth: factor by which the median of the group's ended jobs is wrong for half, and for a tenth, of the
            other jobs.
        far_jobs: share of these for which it is more than ten times too long or too short.
        far_work: share of their GPU time for which it is.
    """

    explained: float
    groups: int
    unknown: float
    half: float
    tenth: float
    far_jobs: float
    far_work: float


def by_size(trace: Trace) -> tuple[SizeRow, ...]:
    """The sizes of a trace, the smallest first."""
    devices, work = trace.devices, trace.work
    rows = []
    for size in np.unique(devices).tolist():
        durations = trace.duration_s[devices == size]
        share = float(work[devices == size].sum() / work.sum())
        count = len(durations)
        rows.append(
            SizeRow(size, count, count / len(trace), share, float(np.median(durations)), float(durations.mean()))
        )
    return tuple(rows)


def duration_quantiles(trace: Trace) -> dict[float, float]:
    """Seconds by share of jobs."""
    return dict(zip(QUANTILES, np.quantile(trace.duration_s, QUANTILES).tolist(), strict=True))


def share_beyond(trace: Trace, seconds: float) -> tuple[int, float]:
    """Jobs that run longer, and their share of the GPU time."""
    long = trace.duration_s > seconds
    return int(long.sum()), float(trace.work[long].sum() / trace.work.sum())


def predictability(trace: Trace) -> Predictability:
    """How good the median duration of the group's ended jobs would have been, as known at each submission."""
    groups = trace.groups
    guess = _past_medians(trace, groups)
    known = ~np.isnan(guess)
    off = np.maximum(guess[known] / trace.duration_s[known], trace.duration_s[known] / guess[known])
    work = trace.work[known]
    return Predictability(
        explained=_explained(np.log(trace.duration_s), groups),
        groups=len(set(groups)),
        unknown=float((~known).mean()),
        half=float(np.quantile(off, 0.5)) if off.size else float("nan"),
        tenth=float(np.quantile(off, 0.9)) if off.size else float("nan"),
        far_jobs=float((off > FAR).mean()) if off.size else float("nan"),
        far_work=float(work[off > FAR].sum() / work.sum()) if off.size else float("nan"),
    )


def _past_medians(trace: Trace, groups: tuple[str, ...]) -> Floats:
    """Median of what had ended of each job's group when it was submitted, if it had started at once; NaN: nothing."""
    ended: dict[str, list[float]] = defaultdict(list)
    running: list[tuple[float, str, float]] = []
    medians = []
    for moment, duration, group in zip(trace.submitted_s.tolist(), trace.duration_s.tolist(), groups, strict=True):
        while running and running[0][0] <= moment:
            _, other, lasted = heapq.heappop(running)
            insort(ended[other], lasted)
        past = ended[group]
        medians.append(past[len(past) // 2] if past else float("nan"))
        heapq.heappush(running, (moment + duration, group, duration))
    return np.array(medians)


def _explained(values: Floats, groups: tuple[str, ...]) -> float:
    names = sorted(set(groups))
    place = np.array([bisect_left(names, group) for group in groups])
    means = np.bincount(place, values) / np.bincount(place)
    rest: Floats = values - means[place]
    return 1 - float(rest.var() / values.var()) if values.var() else 0.0
