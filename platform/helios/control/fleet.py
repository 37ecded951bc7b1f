"""The scheduler's snapshot, taken from the records."""

from collections.abc import Iterable, Mapping
from typing import Any

from helios.control import status
from helios.control.job_machine import TERMINAL, JobState
from helios.control.parsed import Specs
from helios.scheduler import CellState, Node, PendingGang, Readiness, RunningGang, Snapshot, TenantState
from helios.spec import JobSpec, ServiceSpec
from helios.store import Record, Store, seconds

_WAITING = frozenset({JobState.QUEUED, JobState.RECOVERING})


def snapshot(store: Store, specs: Specs, now: float) -> Snapshot:
    """Cells, quotas, what waits and what holds resources, at this revision of the store."""
    jobs, services = store.records("Job"), store.records("Service")
    pending = [_pending_job(job, specs.job(job)) for job in jobs if job_waits(job)]
    pending += [_pending_service(item, specs.service(item)) for item in services if service_waits(item)]
    return Snapshot(
        now=now,
        cells=tuple(_cell(record) for record in store.records("Cell")),
        tenants=tuple(_tenant(record) for record in store.records("Tenant")),
        pending=tuple(pending),
        running=tuple(_running(jobs + services)),
    )


def job_waits(record: Record) -> bool:
    """Whether the scheduler is to find a place for this job."""
    asked_to_end = record.deleting or record.status.get("cancelRequested")
    return record.state in _WAITING and status.placement(record) is None and not asked_to_end


def service_waits(record: Record) -> bool:
    """Whether the scheduler is to find a place for this service."""
    wanted = not record.deleting and bool(record.spec["replicas"])
    return wanted and record.state == "Pending" and status.placement(record) is None


def _pending_job(record: Record, spec: JobSpec) -> PendingGang:
    return PendingGang(
        uid=record.uid,
        name=record.name,
        tenant=spec.tenant,
        qos=spec.qos,
        priority=spec.priority,
        submitted_at=seconds(record.status["submittedAt"]),
        request=status.request_of(spec.resources),
        min_workers=spec.workers.min,
        max_workers=spec.workers.max,
        cells=tuple(spec.placement.cells),
    )


def _pending_service(record: Record, spec: ServiceSpec) -> PendingGang:
    return PendingGang(
        uid=record.uid,
        name=record.name,
        tenant=spec.tenant,
        qos=spec.qos,
        priority=0,
        submitted_at=record.created_at,
        request=status.request_of(spec.resources),
        min_workers=spec.replicas,
        max_workers=spec.replicas,
        cells=tuple(spec.placement.cells),
    )


def _running(records: Iterable[Record]) -> Iterable[RunningGang]:
    for record in records:
        place = status.placement(record)
        if place is not None and (record.kind == "Service" or record.state not in TERMINAL):
            yield RunningGang(
                record.uid, record.spec["tenant"], place["cell"], tuple(place["nodes"]), status.held(record)
            )


def _cell(record: Record) -> CellState:
    ready = status.condition(record, "Ready") or {"status": "False", "message": "no agent has reported yet"}
    words = {"True": Readiness.READY, "False": Readiness.NOT_READY, "Unknown": Readiness.UNKNOWN}
    readiness = Readiness.NOT_READY if record.deleting else words[ready["status"]]
    message = "the cell is being deleted" if record.deleting else ready["message"]
    return CellState(record.name, readiness, tuple(_node(node) for node in record.status.get("nodes", [])), message)


def _node(node: Mapping[str, Any]) -> Node:
    return Node(
        name=node["name"],
        pool=node["pool"],
        millicpus=round(node["cpus"] * 1000),
        memory=node["memory"],
        accelerators=node["accelerators"],
        healthy=node["healthy"],
    )


def _tenant(record: Record) -> TenantState:
    quotas = {quota["accelerator"]: quota["nominalQuota"] for quota in record.spec["quotas"]}
    return TenantState(record.name, quotas or None)
