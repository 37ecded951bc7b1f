"""What the scheduler sees of each record, read from its JSON: specs of ten thousand jobs are not parsed for it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from helios.control import cell, status
from helios.control.owners import makes_jobs
from helios.lifecycle import TERMINAL, JobState
from helios.scheduler import CellState, Node, PendingGang, Readiness, Request, RunningGang, TenantState
from helios.spec import QoS, Resources
from helios.store import Record, seconds

_WAITING = frozenset({JobState.QUEUED, JobState.RECOVERING})


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


def gang(record: Record) -> PendingGang | RunningGang | None:
    """The job or service as the scheduler sees it: waiting, holding resources, or neither."""
    if waits(record):
        return _pending(record)
    place = status.placement(record)
    if place is None or (record.kind == "Job" and record.state in TERMINAL):
        return None
    return RunningGang(record.uid, record.spec["tenant"], place["cell"], tuple(place["nodes"]), status.held(record))


def offered(pending: PendingGang, now: float) -> PendingGang:
    """The gang as it is offered now: cells that it was held off from until a while ago may be asked again."""
    if not pending.held_off:
        return pending
    return replace(pending, held_off=tuple(item for item in pending.held_off if item[1] > now))


def cell_state(record: Record) -> CellState:
    ready = status.condition(record, "Ready") or {"status": "False", "message": "no agent has reported yet"}
    words = {"True": Readiness.READY, "False": Readiness.NOT_READY, "Unknown": Readiness.UNKNOWN}
    readiness = Readiness.NOT_READY if record.deleting else words[ready["status"]]
    message = "the cell is being deleted" if record.deleting else ready["message"]
    cordons, unhealthy = cell.cordoned_nodes(record), cell.unhealthy_nodes(record)
    nodes = tuple(_node(node, cordons, unhealthy) for node in record.status.get("nodes", []))
    return CellState(record.name, readiness, nodes, message)


def tenant_state(record: Record) -> TenantState:
    quotas = {quota["accelerator"]: quota["nominalQuota"] for quota in record.spec["quotas"]}
    return TenantState(record.name, quotas or None)


def _pending(record: Record) -> PendingGang:
    spec = record.spec
    if record.kind == "Job":
        fewest, most = spec["workers"]["min"], spec["workers"]["max"]
        submitted, priority = seconds(record.status["submittedAt"]), spec["priority"]
    else:
        fewest = most = spec["replicas"]
        submitted, priority = record.created_at, 0
    held_off = record.status.get("heldOff", {})
    return PendingGang(
        uid=record.uid,
        name=record.name,
        tenant=spec["tenant"],
        qos=QoS(spec["qos"]),
        priority=priority,
        submitted_at=submitted,
        request=request_of(spec["resources"]),
        min_workers=fewest,
        max_workers=most,
        cells=tuple(spec["placement"]["cells"]),
        held_off=tuple(sorted((name, seconds(until)) for name, until in held_off.items())),
    )


def request_of(resources: Mapping[str, Any]) -> Request:
    """What the scheduler counts for one worker, from the spec's JSON."""
    return _request(resources.get("cpus", 1.0), resources.get("memory", 0), resources.get("accelerators"))


@lru_cache(maxsize=4096)
def _request(cpus: float, memory: str | int, accelerators: str | None) -> Request:
    parsed = Resources.model_validate({"cpus": cpus, "memory": memory, "accelerators": accelerators})
    return status.request_of(parsed)


def _node(node: Mapping[str, Any], cordoned: frozenset[str], unhealthy: frozenset[str]) -> Node:
    return Node(
        name=node["name"],
        pool=node["pool"],
        millicpus=math.floor(node["cpus"] * 1000 + 0.5),
        memory=node["memory"],
        accelerators=node["accelerators"],
        healthy=node["name"] not in unhealthy,
        cordoned=node["name"] in cordoned,
    )
