"""What the scheduler sees of jobs and services, read from their JSON: ten thousand specs are not parsed for it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from helios import lifecycle
from helios.control import status
from helios.control.owners import makes_jobs
from helios.lifecycle import TERMINAL, JobState
from helios.scheduler import NO_END, Headroom, PendingGang, Request, RunningGang
from helios.scheduler.estimates import Work
from helios.spec import CapacityType, QoS, Resources
from helios.spec.quantities import parse_duration, parse_memory
from helios.store import Record, seconds

MOST_RESIZES = 20
"""After so many a gang stays as it is: each costs what a restart does."""
LEAVING = ":leaving"
"""Ends the uid of what a shrinking gang gives up, shown beside what it goes on with."""
GIB = 2.0**30
DEFAULT_RESTART_S = 30.0
"""From an admission to work, of what never worked yet."""
_WAITING = frozenset({JobState.QUEUED, JobState.RECOVERING})
_PREEMPTIONS = (lifecycle.PREEMPTED, lifecycle.RECLAIMED, lifecycle.DEFRAGMENTED)
_BEFORE_WORK = ("queue-held", "provisioning", "starting")
_duration = lru_cache(maxsize=4096)(parse_duration)
_memory = lru_cache(maxsize=4096)(parse_memory)


def job_waits(record: Record) -> bool:
    """Whether the scheduler is to find a place for this job."""
    if record.state not in _WAITING or makes_jobs(record):
        return False
    asked_to_end = record.deleting or record.status.get("cancelRequested")
    return status.placement(record) is None and not asked_to_end


def service_waits(record: Record) -> bool:
    """Whether the scheduler is to find a place for this service."""
    wanted = not record.deleting and bool(record.spec["replicas"])
    return wanted and record.state == "Pending" and status.placement(record) is None


def waits(record: Record) -> bool:
    """Whether the scheduler is to find a place for this job or service."""
    return job_waits(record) if record.kind == "Job" else record.kind == "Service" and service_waits(record)


def gangs(record: Record, estimate: float | None = None) -> tuple[PendingGang | RunningGang, ...]:
    """The job or service as the scheduler sees it: waiting, holding resources (in two parts while it shrinks), or not.

    Args:
        estimate: seconds that it will run, where it waits and anything is known.
    """
    if waits(record):
        return (pending(record, estimate),)
    place = status.placement(record)
    if place is None or (record.kind == "Job" and record.state in TERMINAL):
        return ()
    return _resizing(record, _running(record, place))


# What waits -----------------------------------------------------------------------------------------------------------


def pending(record: Record, estimate: float | None) -> PendingGang:
    """A gang of the queue."""
    spec, facts = record.spec, record.status
    is_job = record.kind == "Job"
    fewest, most = _workers(record)
    placement = spec["placement"]
    return PendingGang(
        uid=record.uid,
        name=record.name,
        tenant=spec["tenant"],
        qos=QoS(spec["qos"]),
        priority=spec["priority"] if is_job else 0,
        submitted_at=seconds(facts["submittedAt"]) if is_job else record.created_at,
        request=request_of(spec["resources"]),
        min_workers=fewest,
        max_workers=most,
        cells=tuple(placement["cells"]),
        held_off=tuple(sorted((name, seconds(until)) for name, until in facts.get("heldOff", {}).items())),
        alternatives=alternatives_of(spec["resources"]),
        capacity_types=tuple(CapacityType(one) for one in placement.get("capacityTypes", ())),
        data=tuple((one["cell"], _memory(one["size"]) / GIB) for one in placement.get("data", ())),
        estimate=estimate if is_job else NO_END,
        checkpointed=_checkpointed(facts) if facts.get("lastCell") else 0.0,
        home=facts.get("lastCell", ""),
        recovering=facts.get("lastEnd") == lifecycle.NODE_LOST,
        preemptions=_preemptions(facts),
        spread=_spread(record),
        promised=_promised(facts),
    )


def offered(gang: PendingGang, now: float) -> PendingGang:
    """The gang as it is offered now: cells that it was held off from until a while ago may be asked again."""
    if not gang.held_off:
        return gang
    return replace(gang, held_off=tuple(item for item in gang.held_off if item[1] > now))


def _promised(facts: Mapping[str, Any]) -> tuple[str, float] | None:
    """Where others were told to leave for it, and by when they will have."""
    place = facts.get("promised")
    return None if place is None else (place["cell"], seconds(place["until"]))


def request_of(resources: Mapping[str, Any]) -> Request:
    """What the scheduler counts for one worker, from the spec's JSON."""
    return _request(resources.get("cpus", 1.0), resources.get("memory", 0), resources.get("accelerators"))


def alternatives_of(resources: Mapping[str, Any]) -> tuple[Request, ...]:
    """What would do in the place of `request_of`, in order of preference."""
    cpus, memory = resources.get("cpus", 1.0), resources.get("memory", 0)
    return tuple(_request(cpus, memory, accelerators) for accelerators in resources.get("alternatives", ()))


@lru_cache(maxsize=4096)
def _request(cpus: float, memory: str | int, accelerators: str | None) -> Request:
    parsed = Resources.model_validate({"cpus": cpus, "memory": memory, "accelerators": accelerators})
    return status.request_of(parsed)


def _workers(record: Record) -> tuple[int, int]:
    """The fewest and the most that it may be given. What cannot change its number keeps that of its first start."""
    if record.kind != "Job":
        return record.spec["replicas"], record.spec["replicas"]
    workers, begun = record.spec["workers"], record.status.get("firstWorkers")
    if workers.get("elastic") is False and begun:
        return begun, begun
    return workers["min"], workers["max"]


def _checkpointed(facts: Mapping[str, Any]) -> float:
    """GiB that another cell than its last one would wait for.

    Buckets are not shared: elsewhere a job begins anew. So what it would do again counts as if that were its
    checkpoint's way, at the GiB a second that a cell takes in; or the checkpoint's size, as the job says, where that is
    more.
    """
    if "checkpointedAt" not in facts or "startedAt" not in facts:
        return 0.0
    kept = seconds(facts["checkpointedAt"]) - seconds(facts["startedAt"])
    size = facts.get("progress", {}).get("checkpoint_bytes")
    known = isinstance(size, int | float) and not isinstance(size, bool) and 0 < size < 2.0**60
    return max(1.0, kept, float(size) / GIB if known else 0.0)


def _spread(record: Record) -> str:
    """Services of one tenant that serve the same application should not all die with one cell."""
    return f"{record.spec['tenant']}/{record.spec['application']}" if record.kind == "Service" else ""


def _preemptions(facts: Mapping[str, Any]) -> int:
    counts = facts.get("restartReasons", {})
    return sum(int(counts.get(reason, 0)) for reason in _PREEMPTIONS)


# What holds resources -------------------------------------------------------------------------------------------------


def _running(record: Record, place: Mapping[str, Any]) -> RunningGang:
    spec, facts = record.spec, record.status
    fewest, most = _elastic(record)
    started_at = seconds(facts["admittedAt"]) if "admittedAt" in facts else None
    stop = facts.get("stop")
    return RunningGang(
        record.uid,
        spec["tenant"],
        place["cell"],
        tuple(place["nodes"]),
        status.held(record),
        tuple(place.get("devices", ())),
        QoS(spec["qos"]) if record.kind == "Job" else QoS.GUARANTEED,  # what serves is not stopped for others
        spec["priority"] if record.kind == "Job" else 0,
        started_at=started_at,
        checkpointed_at=_saved_at(facts, started_at),
        ends_at=seconds(facts["expectedEnd"]) if "expectedEnd" in facts else None,
        restart_s=_restart_s(facts),
        leaving_at=None if stop is None else _leaving_at(stop, started_at),
        min_workers=fewest,
        max_workers=most,
        preemptions=_preemptions(facts),
        spread=_spread(record),
        name=record.name,
        serves=record.kind == "Service",
    )


def _elastic(record: Record) -> tuple[int, int]:
    """What it may be shrunk and grown to; 0 and 0 where it is to be left as it is."""
    if record.kind != "Job" or not record.spec["workers"].get("elastic"):
        return 0, 0
    if int(record.status.get("restartReasons", {}).get(lifecycle.RESIZED, 0)) >= MOST_RESIZES:
        return 0, 0
    return record.spec["workers"]["min"], record.spec["workers"]["max"]


def _saved_at(facts: Mapping[str, Any], started_at: float | None) -> float | None:
    """When its work was safe last: what it went on from it cannot lose any more."""
    if "checkpointedAt" not in facts:
        return None
    saved = seconds(facts["checkpointedAt"])
    return saved if started_at is None else max(saved, started_at)


def _restart_s(facts: Mapping[str, Any]) -> float:
    """Seconds that its last start took before it worked, as its ledger has them."""
    spent = facts.get("allocation", {}).get("seconds", {})
    return sum(float(spent.get(bucket, 0.0)) for bucket in _BEFORE_WORK) or DEFAULT_RESTART_S


def _leaving_at(stop: Mapping[str, Any], started_at: float | None) -> float:
    asked = seconds(stop["at"]) if "at" in stop else (started_at or 0.0)
    return asked + float(stop.get("grace", status.DEFAULT_GRACE_S))


def _resizing(record: Record, gang: RunningGang) -> tuple[RunningGang, ...]:
    """While a resize is under way: what it goes on with, and beside it what it gives up, until it has left."""
    target = record.status.get("resize")
    if target is None or gang.leaving_at is None:
        return (gang,)
    nodes = tuple(target["nodes"])
    staying = replace(gang, nodes=nodes, started_at=gang.leaving_at, leaving_at=None, min_workers=0, max_workers=0)
    freed = list(gang.nodes)
    for node in nodes:
        if node in freed:
            freed.remove(node)
    return (staying, replace(gang, uid=gang.uid + LEAVING, nodes=tuple(freed), ends_at=None)) if freed else (staying,)


def headroom_of(record: Record) -> Headroom | None:
    """Room that a service is to have for more replicas, in its cell, where its replicas are together; None for none."""
    replicas = record.status.get("headroom", {}).get("replicas", 0) if record.kind == "Service" else 0
    if not replicas or record.deleting:
        return None
    spec, place = record.spec, status.placement(record)
    cells = tuple(spec["placement"]["cells"]) if place is None else (place["cell"],)
    return Headroom(record.name, spec["tenant"], request_of(spec["resources"]), replicas, cells)


# How long it will run -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is known of how long a job will run.

    Attributes:
        most: seconds after which it is given up (`timeout.run`).
        left: share of its work that is still to be done.
    """

    work: Work
    most: float | None
    left: float


def prospect(record: Record) -> Prospect:
    """What a job says, and what it is like. Without an estimate, `timeout.run` stands for one."""
    spec = record.spec
    request, (_, most) = request_of(spec["resources"]), _workers(record)
    limit, stated = spec["timeout"]["run"], spec.get("estimate")
    longest = None if limit is None else _duration(limit)
    size = f"{most}x{request.accelerator or 'cpu'}:{request.devices or request.millicpus / 1000:g}"
    group = f"{re.sub(r'([-_.]?[0-9]+)+$', '', record.name)} {spec['entrypoint']}"
    said = longest if stated is None else _duration(stated)
    return Prospect(Work(spec["tenant"], size, group, said), longest, _left(record.status.get("progress", {})))


def ran(record: Record) -> float | None:
    """Seconds that a job took which succeeded in one start, at its most workers; None where nothing can be said."""
    facts = record.status
    if record.kind != "Job" or record.state != JobState.SUCCEEDED or makes_jobs(record) or facts.get("restarts"):
        return None
    place = facts.get("placement")
    if place is None or "startedAt" not in facts or "finishedAt" not in facts:
        return None
    return (seconds(facts["finishedAt"]) - seconds(facts["startedAt"])) / slowdown(record, place["workers"])


def slowdown(record: Record, workers: int) -> float:
    """How much longer it takes with so many workers than with its most."""
    return float((record.spec["workers"]["max"] / workers) ** status.SPEEDUP)


def _left(progress: Mapping[str, Any]) -> float:
    done, whole = progress.get("checkpoint_step"), progress.get("total_steps")
    if isinstance(done, int) and isinstance(whole, int) and 0 < done < whole:
        return 1.0 - done / whole
    return 1.0
