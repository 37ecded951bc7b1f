"""Whether tenants gain by sharing: finish-time fairness, Jain's index, and each tenant against its own quota alone."""

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from helios.simulator.metrics.columns import Floats, Jobs
from helios.simulator.metrics.distribution import Distribution

TOLERANCE = 0.05
"""A tenant is worse off where its mean completion time is longer than alone by more than this share."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant's measured jobs, shared against alone; seconds are means.

    Attributes:
        quota: devices that it has alone.
        rho: mean over its jobs of completion time shared over completion time alone.
    """

    jobs: int
    quota: float
    shared_s: float
    alone_s: float
    rho: float
    tolerance: float = TOLERANCE

    @property
    def ratio(self) -> float:
        return self.shared_s / self.alone_s if self.alone_s > 0 else math.inf

    @property
    def worse_off(self) -> bool:
        return self.ratio > 1 + self.tolerance


@dataclass(frozen=True, slots=True)
class Fairness:
    """Finish-time fairness of a run.

    Attributes:
        rho: over all measured jobs of tenants that have a quota.
        jain: of the tenants' mean completion time alone over shared: 1 where all gain or lose alike, 1/n where one
            has everything (Jain, Chiu and Hawe, DEC-TR-301, 1984).
        without_quota: tenants that have none and so nothing to compare with.
        simulated: whether alone was a simulated run, rather than `finish_alone`.
    """

    rho: Distribution
    jain: float
    tenants: Mapping[str, Tenant]
    without_quota: tuple[str, ...]
    simulated: bool = False

    @property
    def worse_off(self) -> tuple[str, ...]:
        """Tenants that would have been better served by their own quota alone, the worst first."""
        worse = [name for name, tenant in self.tenants.items() if tenant.worse_off]
        return tuple(sorted(worse, key=lambda name: -self.tenants[name].ratio))


def jain(values: Iterable[float]) -> float:
    """Jain's index of positive numbers; NaN of none."""
    array = np.fromiter(values, dtype=np.float64)
    squares = len(array) * float((array**2).sum())
    return float(array.sum()) ** 2 / squares if squares > 0 else math.nan


def finish_alone(submitted_s: Floats, run_s: Floats, gpus: Floats, quota: float) -> Floats:
    """When each of a tenant's jobs would end if it had its quota to itself.

    The quota is one pool of divisible devices without failures. Jobs are served in the order of submission, each by as
    many devices as it asks for or as are left; only the last one served may have fewer, and is then slower in
    proportion. A gang wider than the quota runs on all of it. No real scheduler on the quota does much better in this
    order, so what is called a gain over it is one.

    Args:
        submitted_s: in ascending order.
        quota: devices, more than 0.
    """
    freed: list[tuple[float, float]] = []  # (when, devices) that jobs submitted earlier give back
    free, finish = quota, np.empty(len(submitted_s))
    wanted = np.minimum(gpus, quota).tolist()
    for job, (now, work) in enumerate(zip(submitted_s.tolist(), (run_s * gpus).tolist(), strict=True)):
        while freed and freed[0][0] <= now:
            free += heapq.heappop(freed)[1]
        width, left, at = wanted[job], work, now
        rate = min(width, free)
        free -= rate
        while rate < width * (1 - 1e-12) and freed and left > rate * (freed[0][0] - at):
            then, more = heapq.heappop(freed)
            left, at = left - rate * (then - at), then
            taken = min(more, width - rate)
            rate += taken
            if more > taken:
                heapq.heappush(freed, (then, more - taken))
        finish[job] = at + left / rate if left > 0 else at
        heapq.heappush(freed, (finish[job], rate))
    return finish


def fairness(jobs: Jobs, quotas: Mapping[str, float], devices: float, *, tolerance: float = TOLERANCE) -> Fairness:
    """Each tenant's jobs shared against alone.

    Finish-time fairness rho is the finish time shared over that with an exclusive share of the fleet (Mahajan et al.,
    "Themis", NSDI 2020). It is approximated: the share is the tenant's nominal quota, or 1/N of the devices where no
    quotas are known, and the time alone is that of `finish_alone` on all of the tenant's jobs, those of the warm-up and
    the tail among them. Elastic gangs are taken at their largest size, with which they take their shortest time.
    Unfinished jobs count with the least that they can still become.

    Args:
        devices: of the whole fleet.
    """
    names = sorted(set(jobs.tenant[jobs.measured].tolist()))
    shares = quotas or dict.fromkeys(names, devices / max(1, len(names)))
    rhos: list[Floats] = []
    tenants: dict[str, Tenant] = {}
    for name in names:
        quota = shares.get(name, 0.0)
        if quota <= 0:
            continue
        own = jobs.where(jobs.tenant == name)
        own = own.where(np.argsort(own.submitted_s, kind="stable").astype(np.int64))
        alone = finish_alone(own.submitted_s, own.run_s, own.widest, quota) - own.submitted_s
        shared, alone = own.completion_s[own.measured], np.maximum(alone[own.measured], 1e-9)
        rhos.append(shared / alone)
        tenants[name] = Tenant(
            len(shared), quota, float(shared.mean()), float(alone.mean()), float(rhos[-1].mean()), tolerance
        )
    return Fairness(
        rho=Distribution.of(np.concatenate(rhos) if rhos else np.empty(0)),
        jain=jain(min(1e9, 1 / tenant.ratio) for tenant in tenants.values() if tenant.ratio > 0),
        tenants=tenants,
        without_quota=tuple(name for name in names if name not in tenants),
    )


def against(shared: Jobs, alone: Jobs, quotas: Mapping[str, float], *, tolerance: float = TOLERANCE) -> Fairness:
    """Like `fairness`, but with a simulated run in which each tenant has nothing but its own quota.

    Jobs are matched by name; those that one of the runs lacks are left out.
    """
    where = {name: at for at, name in enumerate(alone.job_id.tolist())}
    keep = shared.measured & np.isin(shared.job_id, alone.job_id)
    ours = shared.where(keep)
    at = np.array([where[name] for name in ours.job_id.tolist()], dtype=np.int64)
    baseline = np.maximum(alone.completion_s[at], 1e-9) if len(at) else np.empty(0)
    rho = ours.completion_s / baseline
    tenants = {}
    for name in sorted(set(ours.tenant.tolist())):
        own = ours.tenant == name
        tenants[name] = Tenant(
            int(own.sum()),
            quotas.get(name, math.nan),
            float(ours.completion_s[own].mean()),
            float(baseline[own].mean()),
            float(rho[own].mean()),
            tolerance,
        )
    missing = tuple(sorted(set(shared.tenant[shared.measured].tolist()) - set(tenants)))
    index = jain(1 / each.ratio for each in tenants.values() if each.ratio > 0)
    return Fairness(Distribution.of(rho), index, tenants, missing, simulated=True)
