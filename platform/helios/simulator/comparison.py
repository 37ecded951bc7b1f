"""What became of the same fleet and queue under each of several alternatives, side by side."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from helios.simulator.metrics.distribution import Distribution
from helios.simulator.outcomes import JobOutcome, RunResult
from helios.simulator.scene import Scene
from helios.spec import QoS

HOUR_S = 3600.0


@dataclass(frozen=True)
class Played:
    """One alternative, played to the horizon.

    Attributes:
        said: what is otherwise than on the live fleet.
        result: with stays.
    """

    name: str
    said: tuple[str, ...]
    scene: Scene
    result: RunResult

    @cached_property
    def outcomes(self) -> Mapping[str, JobOutcome]:
        return {outcome.job_id: outcome for outcome in self.result.outcomes}

    @cached_property
    def in_place(self) -> frozenset[str]:
        """Gangs that go on running where they are."""
        nodes = {cell.name: {node.name for node in cell.nodes} for cell in self.scene.fleet}
        running = self.scene.running.items()
        return frozenset(uid for uid, gang in running if nodes.get(gang.cell, set()).issuperset(gang.nodes))

    @cached_property
    def waited(self) -> frozenset[str]:
        """Gangs that were in the queue at any time."""
        again = {outcome.job_id for outcome in self.result.outcomes if outcome.restarts}
        return frozenset((self.outcomes.keys() - self.in_place) | again)

    @cached_property
    def costs(self) -> Mapping[str, float]:
        """USD by job."""
        found: defaultdict[str, float] = defaultdict(float)
        for stay in self.result.stays:
            found[stay.job_id] += stay.price * (stay.until_s - stay.since_s) / HOUR_S
        return found


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of some jobs within the horizon.

    Attributes:
        jobs: how many of them there are.
        started: that did not run at the beginning and were given a place.
        ended: that are over.
        unstarted: that were given none.
        wait_mean_s, wait_p50_s, wait_p99_s: seconds in the queue from now on, of jobs that wait at some time in any of
            the alternatives; those that still wait count with what they waited. None where there are none.
        productive_gpu_h: device-hours that advanced them.
        lost_gpu_h: device-hours of starts, restarts, work done again, and idling while held.
        cost_usd: of all that they held, at the prices of the cells.
        preemptions: by the scheduler.
    """

    jobs: int
    started: int
    ended: int
    unstarted: int
    wait_mean_s: float | None
    wait_p50_s: float | None
    wait_p99_s: float | None
    productive_gpu_h: float
    lost_gpu_h: float
    cost_usd: float
    preemptions: int


@dataclass(frozen=True, slots=True)
class Row:
    """How a figure is shown.

    Attributes:
        key: its name in `Figures`, or `stranded_gpu_h` of the whole fleet.
        unit: `count`, `time` (seconds) or `number`.
        better: `higher` or `lower`; empty where neither is.
    """

    key: str
    title: str
    unit: str
    better: str = ""


ROWS = (
    Row("started", "jobs started", "count", "higher"),
    Row("unstarted", "not started", "count", "lower"),
    Row("ended", "jobs ended", "count", "higher"),
    Row("wait_mean_s", "wait, mean", "time", "lower"),
    Row("wait_p50_s", "wait, p50", "time", "lower"),
    Row("wait_p99_s", "wait, p99", "time", "lower"),
    Row("productive_gpu_h", "GPU-hours productive", "number", "higher"),
    Row("lost_gpu_h", "GPU-hours lost", "number", "lower"),
    Row("stranded_gpu_h", "GPU-hours stranded", "number", "lower"),
    Row("cost_usd", "cost, USD", "number"),
    Row("preemptions", "preemptions", "count", "lower"),
)


@dataclass(frozen=True, slots=True)
class Moved:
    """A job that waits longer or shorter than as it is.

    Attributes:
        before_s, after_s: seconds from now on until it starts; 0 where it runs, None where it does not start in time.
        waits_s: seconds in the queue more than as it is; negative where it is less.
    """

    name: str
    tenant: str
    qos: QoS
    before_s: float | None
    after_s: float | None
    waits_s: float


def compared(played: Sequence[Played], hours: float, *, most: int = 10) -> list[dict[str, Any]]:
    """The alternatives as data, each with its figures and its difference from the first, which is as it is."""
    waited = frozenset().union(*(one.waited for one in played))
    tenants = sorted({outcome.tenant for one in played for outcome in one.result.outcomes})
    base = played[0]
    found: list[dict[str, Any]] = []
    for one in played:
        total = _part(one, waited) | {"stranded_gpu_h": _stranded(one.result, hours)}
        entry: dict[str, Any] = {
            "name": one.name,
            "policy": one.result.policy,
            "changes": list(one.said),
            "total": total,
            "classes": {str(qos): _part(one, waited, qos=qos) for qos in QoS},
            "tenants": {tenant: _part(one, waited, tenant=tenant) for tenant in tenants},
        }
        if one is not base:
            entry["difference"] = {key: _less(total[key], found[0]["total"][key]) for key in total}
            moved = moves(base, one)
            entry["gain"] = [_shown(each) for each in moved if each.waits_s < 0][:most]
            entry["lose"] = [_shown(each) for each in reversed(moved) if each.waits_s > 0][:most]
        found.append(entry)
    return found


def moves(base: Played, other: Played) -> list[Moved]:
    """Jobs that are in both and wait otherwise, those that gain most first."""
    found = []
    for uid in base.outcomes.keys() & other.outcomes.keys():
        before, after = base.outcomes[uid], other.outcomes[uid]
        waits = after.queued_s - before.queued_s
        if abs(waits) >= 1:
            name = base.scene.gangs[uid].name
            found.append(Moved(name, before.tenant, before.qos, before.started_s, after.started_s, waits))
    return sorted(found, key=lambda each: (each.waits_s, each.name))


def _part(one: Played, waited: Collection[str], *, qos: QoS | None = None, tenant: str = "") -> dict[str, Any]:
    chosen = (
        outcome
        for outcome in one.result.outcomes
        if (qos is None or outcome.qos is qos) and (not tenant or outcome.tenant == tenant)
    )
    return asdict(_figures(one, chosen, waited))


def _figures(one: Played, outcomes: Iterable[JobOutcome], waited: Collection[str]) -> Figures:
    jobs = list(outcomes)
    waits = Distribution.of(np.array([job.queued_s for job in jobs if job.job_id in waited], np.float64))
    fresh = [job for job in jobs if job.job_id not in one.in_place]
    gone = (job.preemptions - one.scene.gangs[job.job_id].preemptions for job in jobs)
    lost = sum(job.starting + job.recomputed + job.idle + job.failed for job in jobs)
    return Figures(
        jobs=len(jobs),
        started=sum(job.started_s is not None for job in fresh),
        ended=sum(job.ended_s is not None for job in jobs),
        unstarted=sum(job.started_s is None for job in fresh),
        wait_mean_s=_number(waits.mean),
        wait_p50_s=_number(waits.p50),
        wait_p99_s=_number(waits.p99),
        productive_gpu_h=sum(job.productive for job in jobs) / HOUR_S,
        lost_gpu_h=lost / HOUR_S,
        cost_usd=sum(one.costs.get(job.job_id, 0.0) for job in jobs),
        preemptions=sum(gone),
    )


def _stranded(result: RunResult, hours: float) -> float:
    """Free device-hours on nodes that none of those who wait fits on: each sample stands until the next one."""
    total, until = 0.0, hours * HOUR_S
    ends = [sample.at_s for sample in result.samples[1:]] + [until]
    for sample, end in zip(result.samples, ends, strict=True):
        total += sum(sample.stranded.values()) * max(0.0, end - sample.at_s)
    return total / HOUR_S


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _shown(moved: Moved) -> dict[str, Any]:
    return asdict(moved) | {"qos": str(moved.qos)}
