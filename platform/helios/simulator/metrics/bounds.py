"""What no policy can beat: limits of utilization and completion time that are drawn into every figure."""

import heapq
from dataclasses import dataclass

import numpy as np

from helios.simulator.metrics.columns import Floats, Jobs


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits for the measured jobs of a run.

    Attributes:
        productive: share of healthy device-seconds that can be productive: min(1, load).
        run_s: mean run time alone: no mean completion time is shorter.
        completion_s: the least mean completion time on the pooled fluid fleet, and not less than `run_s`.
        delay_s: what that leaves of waiting in the mean, `completion_s - run_s`. It bounds waiting and losses together.
        faster: jobs that succeeded sooner than they can: 0, or run times or devices are not what the run says.
    """

    productive: float
    run_s: float
    completion_s: float
    delay_s: float
    faster: int


def bounds(jobs: Jobs, load: float, devices: float) -> Bounds:
    """Limits for measured jobs on a fleet of so many devices, at its most.

    A job that failed before its run time was over is taken to need no longer than it took.
    """
    run = np.where(jobs.ended & ~jobs.succeeded, np.minimum(jobs.run_s, jobs.completion_s), jobs.run_s)
    early = jobs.ended & jobs.succeeded & (jobs.completion_s < jobs.run_s * (1 - 1e-6) - 1e-3)
    mean_run = float(run.mean()) if len(run) else 0.0
    pooled = pooled_completion(jobs.submitted_s, run, jobs.gpus, devices) if len(run) else 0.0
    return Bounds(
        productive=min(1.0, load),
        run_s=mean_run,
        completion_s=max(mean_run, pooled),
        delay_s=max(0.0, pooled - mean_run),
        faster=int(early.sum()),
    )


def pooled_completion(submitted_s: Floats, run_s: Floats, gpus: Floats, devices: float) -> float:
    """Least mean completion time on one pool of divisible devices, jobs processed as fluid.

    Gangs, nodes, cells, start-up, failures and preemption cost are relaxed away, and so is that a job can use no more
    devices than it asks for: the pool is one server of rate `devices`, job j is `gpus_j * run_j` of work, and shortest
    remaining work first is optimal on it (Schrage, "A proof of the optimality of the shortest remaining processing time
    discipline", Operations Research 16, 1968). Every schedule of the real fleet is one of the relaxed pool's, so its
    mean is not below this one.
    """
    order = np.argsort(submitted_s, kind="stable")
    arrivals, work = submitted_s[order].tolist(), (run_s * gpus)[order].tolist()
    left: list[float] = []
    now = total = 0.0
    for arrival, size in zip(arrivals, work, strict=True):
        while left and now + left[0] / devices <= arrival:
            now += heapq.heappop(left) / devices
            total += now
        if left:
            heapq.heapreplace(left, left[0] - (arrival - now) * devices)
        now = arrival
        heapq.heappush(left, size)
    while left:
        now += heapq.heappop(left) / devices
        total += now
    return float(total - sum(arrivals)) / len(arrivals)
