"""A small fleet under made-up policies: runs that are consistent in themselves, for a report to be made of.

A queue in front of a few cells, gangs that start where they fit, faults that cost a rollback. Policies differ in the
order of the queue, in whether gangs wait for their home cell, and in how much a fault costs.
"""

import heapq
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from helios.simulator.outcomes import JobOutcome, RunResult, Sample, Stay
from helios.spec import QoS

HOUR, DAY = 3600.0, 86_400.0
CELLS: Mapping[str, float] = {"iad-1": 96, "iad-2": 64, "sjc-1": 64, "fra-1": 32, "nrt-1": 24, "lab": 8}
QUOTAS: Mapping[str, float] = {"vision": 96, "speech": 64, "ranking": 48, "robots": 32, "agents": 32, "guests": 16}
RANK = {qos: number for number, qos in enumerate(QoS)}


@dataclass
class Waiting:
    number: int
    tenant: str
    qos: QoS
    gpus: float
    at: float
    run: float
    fault: float


@dataclass
class Fleet:
    free: dict[str, float] = field(default_factory=lambda: dict(CELLS))
    ends: list[tuple[float, int, str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Made:
    """A made-up policy."""

    order: Callable[[Waiting], tuple[float, ...]]
    home: bool = False
    rollback: float = 900.0
    stops_at_head: bool = False


POLICIES: Mapping[str, Made] = {
    "helios": Made(lambda job: (RANK[job.qos], job.run * job.gpus / (job.at + 1e6)), rollback=400.0),
    "control": Made(lambda job: (RANK[job.qos], job.at)),
    "helios-cell-control": Made(lambda job: (RANK[job.qos], job.run / (job.at + 1e6)), rollback=600.0),
    "helios-global-control": Made(lambda job: (RANK[job.qos], job.at), rollback=500.0),
    "helios-both-control": Made(lambda job: (RANK[job.qos], job.at), rollback=800.0),
    "fifo": Made(lambda job: (job.at,), stops_at_head=True),
    "home": Made(lambda job: (RANK[job.qos], job.at), home=True),
    "kueue": Made(lambda job: (RANK[job.qos], job.at), rollback=1200.0),
    "sjf-oracle": Made(lambda job: (job.run,)),
    "helios-no-preemption": Made(lambda job: (job.run * job.gpus,), rollback=300.0),
    "helios-no-backfill": Made(lambda job: (RANK[job.qos], job.at), stops_at_head=True, rollback=400.0),
}


def jobs(load: float, seed: int, days: float) -> list[Waiting]:
    """Arrivals that make the load, more by day than by night; each has a fault that may strike while it runs."""
    draw = random.Random(seed)  # the same jobs at each load, only closer together
    mean = 52_000.0  # device-seconds a job, about
    gap = mean / (load * sum(CELLS.values()))
    found: list[Waiting] = []
    at = 0.0
    while at < days * DAY:
        at += draw.expovariate(1) * gap / (1 + 0.6 * math.sin(2 * math.pi * at / DAY))
        gpus = draw.choices((1.0, 2.0, 4.0, 8.0, 16.0), (50, 15, 15, 15, 5))[0]
        run = min(3 * DAY, draw.lognormvariate(8.8, 1.35))
        qos = draw.choices(tuple(QoS), (1, 6, 3))[0]
        tenant = draw.choices(tuple(QUOTAS), tuple(QUOTAS.values()))[0]
        found.append(Waiting(len(found), tenant, qos, gpus, at, run, draw.expovariate(1 / (30 * DAY))))
    return found


def run(policy: str, load: float, seed: int, *, days: float = 14.0, trace: str = "made-up") -> RunResult:
    """One run, measured from its second day on until a day before the submissions end."""
    made, window = POLICIES[policy], (2 * DAY, (days - 1) * DAY)
    rng, fleet, queue = random.Random(seed), Fleet(), list[Waiting]()
    outcomes, stays, samples = dict[int, JobOutcome](), list[Stay](), list[Sample]()
    arriving = jobs(load, seed, days)
    moments = [(job.at, 1, job) for job in arriving]
    looks = iter([hour * HOUR for hour in range(int(days * 24) + 24)])
    look, end = next(looks), (days + 0.5) * DAY
    position = 0
    while True:
        arrival = moments[position][0] if position < len(moments) else math.inf
        leaving = fleet.ends[0][0] if fleet.ends else math.inf
        now = min(arrival, leaving, look)
        if now > end:
            break
        if now == look:
            samples.append(sample(now, fleet, queue))
            look = next(looks, math.inf)
            continue
        if now == leaving:
            _, _, cell, gpus = heapq.heappop(fleet.ends)
            fleet.free[cell] += gpus
        else:
            queue.append(moments[position][2])
            queue.sort(key=made.order)
            position += 1
        for job, cell in started(queue, fleet, made):
            outcome = lived(job, cell, now, made, end=end, rng=rng, warm=job.at < window[0])
            until = outcome.ended_s or end
            outcomes[job.number] = outcome
            stays.append(Stay(outcome.job_id, cell, job.gpus, now, until))
            heapq.heappush(fleet.ends, (until, job.number, cell, job.gpus))
    for job in queue:
        outcomes[job.number] = never(job, end, warm=job.at < window[0])
    return RunResult(
        policy=policy,
        trace=trace,
        load=load,
        seed=seed,
        window=window,
        outcomes=tuple(outcomes[number] for number in sorted(outcomes)),
        samples=tuple(samples),
        stays=tuple(stays),
        quotas=QUOTAS,
        cycles=len(moments),
        scheduling_s=0.002 * len(moments),
    )


def started(queue: list[Waiting], fleet: Fleet, made: Made) -> Iterator[tuple[Waiting, str]]:
    for job in tuple(queue):
        cells = [tuple(CELLS)[job.number % 3]] if made.home else list(CELLS)
        fits = [cell for cell in cells if fleet.free[cell] >= job.gpus]
        if fits:
            cell = max(fits, key=lambda name: fleet.free[name] / CELLS[name])
            fleet.free[cell] -= job.gpus
            queue.remove(job)
            yield job, cell
        elif made.stops_at_head:
            return


def lived(job: Waiting, cell: str, now: float, made: Made, *, end: float, rng: random.Random, warm: bool) -> JobOutcome:
    """It starts for a minute, works, and if its fault strikes goes back and starts again."""
    struck = job.fault < job.run
    lost = min(made.rollback * rng.uniform(0.5, 1.5), job.fault) if struck else 0.0
    starts = 120.0 if struck else 60.0
    until = now + job.run + lost + starts - 60.0
    whole = until <= end
    worked = max(0.0, min(until, end) - now - starts - lost)
    fails = whole and job.number % 23 == 0
    return JobOutcome(
        job_id=f"{job.tenant}-{job.number}",
        tenant=job.tenant,
        qos=job.qos,
        gpus=job.gpus,
        submitted_s=job.at,
        run_s=job.run,
        started_s=now,
        ended_s=until if whole else None,
        succeeded=whole and not fails,
        queued_s=now - job.at,
        productive=0.0 if fails else worked * job.gpus,
        starting=min(starts, end - now) * job.gpus,
        recomputed=lost * job.gpus,
        idle=0.0,
        failed=worked * job.gpus if fails else 0.0,
        preemptions=int(struck and job.qos is QoS.PREEMPTIBLE),
        restarts=int(struck),
        cells=(cell,),
        racks=2 if job.gpus > 8 else 1,
        warm_up=warm,
    )


def never(job: Waiting, end: float, *, warm: bool) -> JobOutcome:
    return JobOutcome(
        job_id=f"{job.tenant}-{job.number}",
        tenant=job.tenant,
        qos=job.qos,
        gpus=job.gpus,
        submitted_s=job.at,
        run_s=job.run,
        started_s=None,
        ended_s=None,
        succeeded=False,
        queued_s=end - job.at,
        productive=0.0,
        starting=0.0,
        recomputed=0.0,
        idle=0.0,
        failed=0.0,
        preemptions=0,
        restarts=0,
        cells=(),
        racks=0,
        warm_up=warm,
    )


def sample(now: float, fleet: Fleet, queue: Sequence[Waiting]) -> Sample:
    held = {cell: CELLS[cell] - free for cell, free in fleet.free.items()}
    smallest = min((job.gpus for job in queue), default=0.0)
    return Sample(
        at_s=now,
        allocated=held,
        productive={cell: 0.97 * each for cell, each in held.items()},
        healthy=dict(CELLS),
        stranded={cell: free if queue and free < smallest else 0.0 for cell, free in fleet.free.items()},
        pending={qos: sum(job.qos is qos for job in queue) for qos in QoS},
        pending_gpus={qos: sum(job.gpus for job in queue if job.qos is qos) for qos in QoS},
    )
