"""What is wrong with a workload, fleet or tenants, said before anything is simulated."""

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from helios.errors import InputError
from helios.scheduler import CellState, Request, TenantState
from helios.simulator.ground import WHOLE
from helios.simulator.jobs import TraceJob
from helios.simulator.settings import Settings

_SHOWN = 3
_COUNTS = ("duration_s", "gpus", "share", "cpus", "memory", "submitted_s", "checkpoint_cost_s", "restart_s")


def check(
    jobs: Sequence[TraceJob], fleet: Sequence[CellState], tenants: Mapping[str, TenantState], settings: Settings
) -> None:
    """Raise InputError for the first kind of mistake found; it names the first jobs that have it, and counts all."""
    check_fleet(fleet)
    _complain([f"{cell.name} has no accelerator on any node" for cell in fleet if not _devices(cell)], "cells")
    _complain([wrong for job in jobs if (wrong := _wrong(job))], "jobs")
    times = Counter(job.job_id for job in jobs)
    _complain([f"{job_id} is there {count} times" for job_id, count in times.items() if count > 1], "jobs")
    _complain([_stranger(job, tenants) for job in jobs if job.tenant not in tenants], "jobs")
    rooms: dict[Request, tuple[int, str]] = {}
    large = []
    for job in jobs:
        request, others = requests(job, settings)
        for each in (request, *others):
            if each not in rooms:
                rooms[each] = _room(each, fleet)
        if max(rooms[each][0] for each in (request, *others)) < job.workers:
            large.append(_too_large(job, rooms[request]))
    _complain(large, "jobs")


def check_fleet(fleet: Sequence[CellState]) -> None:
    """Raise InputError where there is no cell, two of one name, or data that arrives at no rate at all."""
    if not fleet:
        raise InputError("the fleet has no cell", hint="give at least one cell with nodes")
    names = [cell.name for cell in fleet]
    _complain([f"{name} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1], "cells")
    rates = [cell for cell in fleet if not cell.ingress_rate > 0]
    _complain([f"{cell.name}: ingress rate is {cell.ingress_rate}; above 0 is needed" for cell in rates], "cells")
    for cell in fleet:
        nodes = [node.name for node in cell.nodes]
        if len(set(nodes)) < len(nodes):
            twice = next(name for name in nodes if nodes.count(name) > 1)
            raise InputError(f"cell {cell.name}: node {twice} is there twice")


def requests(job: TraceJob, settings: Settings) -> tuple[Request, tuple[Request, ...]]:
    """What the scheduler counts for one worker of a job, and what would do as well."""
    kind = job.accelerator if job.gpus or job.share else ""
    share = 0 if job.gpus else job.share
    first = Request(round(job.cpus * 1000), job.memory, kind, job.gpus, share)
    return _shared(first, settings.alternatives.get(kind, ()))


@lru_cache(maxsize=4096)
def _shared(first: Request, others: tuple[str, ...]) -> tuple[Request, tuple[Request, ...]]:
    """One object for all jobs that ask for the same."""
    return first, tuple(replace(first, accelerator=kind) for kind in others)


def _complain(wrongs: Sequence[str], what: str) -> None:
    if wrongs:
        rest = f"; so are {len(wrongs) - _SHOWN} more" if len(wrongs) > _SHOWN else ""
        raise InputError(f"{what}: {'; '.join(wrongs[:_SHOWN])}{rest}")


def _wrong(job: TraceJob) -> str:
    """The first number of a job that cannot be, or empty."""
    # A comparison with NaN is false, so each says what is right.
    fails_at, every, estimate = job.fails_at, job.checkpoint_s, job.estimate_s
    checks = [(0 <= getattr(job, name) < math.inf, name, "a number of 0 or more is needed") for name in _COUNTS]
    checks += [
        (job.workers >= 1, "workers", "at least 1 is needed"),
        (job.max_workers in {0, job.most}, "max_workers", "no fewer than `workers` are needed"),
        (job.share <= WHOLE, "share", "thousandths of one device are needed, at most 1000"),
        (fails_at is None or 0 <= fails_at <= 1, "fails_at", "a share of 0 to 1 is needed"),
        (every is None or every > 0, "checkpoint_s", "seconds above 0 are needed"),
        (estimate is None or estimate >= 0, "estimate_s", "seconds of 0 or more are needed"),
        (all(0 <= gib < math.inf for _, gib in job.data), "data", "GiB of 0 or more are needed"),
    ]
    wrong = next(((name, needed) for right, name, needed in checks if not right), None)
    return "" if wrong is None else f"{job.job_id}: {wrong[0]} is {getattr(job, wrong[0])}; {wrong[1]}"


def _stranger(job: TraceJob, tenants: Mapping[str, TenantState]) -> str:
    near = difflib.get_close_matches(job.tenant, tenants, n=1)
    return f"{job.job_id}: no tenant {job.tenant!r} is there" + (f" (did you mean {near[0]!r}?)" if near else "")


def _too_large(job: TraceJob, room: tuple[int, str]) -> str:
    each = f"{job.gpus}" if job.gpus else f"{job.share / 1000:g}"
    holds = f"cell {room[1]}, which has the most room, holds {room[0]}" if room[0] else "no node of any cell holds one"
    return f"{job.job_id} needs {job.workers} workers with {each} {job.accelerator} each; {holds}"


def _room(request: Request, fleet: Sequence[CellState]) -> tuple[int, str]:
    """Workers that the roomiest cell could hold, were it empty, and its name."""
    return max(((_capacity(request, cell), cell.name) for cell in fleet), key=lambda room: room[0])


def _capacity(request: Request, cell: CellState) -> int:
    workers = 0
    for node in cell.nodes:
        devices = node.accelerators.get(request.accelerator, 0)
        limits = [1_000_000]
        if request.accelerators:
            limits.append(devices // request.accelerators)
        elif request.share:
            limits.append(devices * (WHOLE // request.share))
        if request.millicpus:
            limits.append(node.millicpus // request.millicpus)
        if request.memory:
            limits.append(node.memory // request.memory)
        workers += min(limits)
    return workers


def _devices(cell: CellState) -> int:
    return sum(sum(node.accelerators.values()) for node in cell.nodes)
