"""Answers about what waits: `helios explain`, `helios plan`, `helios queue`, as JSON."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from helios.control import admission, fleet
from helios.control.curriculum import owns
from helios.control.owners import makes_jobs
from helios.lifecycle import TERMINAL
from helios.scheduler import CellVerdict, PendingGang, Policy, Request, Reservation, Snapshot, queue_of, schedule
from helios.scheduler import explain as explain_gang
from helios.spec import AnyDocument, Curriculum, Job, Service, to_json
from helios.store import Change, Mirror, Record, timestamp

PREVIEWED = "previewed"
"""Uid of a gang that is not there yet."""


Foretell = Callable[[Snapshot, str], dict[str, Any]]
"""When a gang of the queue will start, as JSON."""


def explain(
    mirror: Mirror, snapshot: Callable[[], Snapshot], kind: str, name: str, policy: Policy, *, foretell: Foretell
) -> dict[str, Any]:
    """Explain a Job, Service or Curriculum. Raises `NotFoundError`."""
    record = mirror.get(kind, name)
    facts: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "state": record.state,
        "reason": record.status.get("reason", ""),
        "message": record.status.get("message", ""),
        "placement": record.status.get("placement"),
        "conditions": record.status.get("conditions", []),
        "restarts": record.status.get("restarts", 0),
        "restartReasons": record.status.get("restartReasons", {}),
        "position": None,
        "ahead": None,
        "cells": [],
        "unblock": [],
        "reservation": None,
        "forecast": None,
    }
    if kind == "Curriculum":
        return facts | _at_stage(mirror, snapshot, record, policy, foretell=foretell)
    if kind == "Job" and record.state == "Pending" and record.spec.get("needs"):
        return facts | {"unblock": _unblock_needs(mirror, record)}
    return facts | (_in_queue(snapshot(), record.uid, policy, foretell) if fleet.waits(record) else {})


def queue(
    mirror: Mirror, snapshot: Snapshot, policy: Policy, reservations: Mapping[str, Reservation]
) -> list[dict[str, Any]]:
    """What waits for a place, in queue order; `reservations` by uid."""
    rows = []
    for position, gang in enumerate(queue_of(snapshot, policy), 1):
        record = mirror.by_uid(gang.uid)
        if record is None:
            continue
        facts = record.status
        rows.append({
            "position": position,
            "kind": record.kind,
            "name": record.name,
            "tenant": gang.tenant,
            "qos": str(gang.qos),
            "priority": gang.priority,
            "workers": {"min": gang.min_workers, "max": gang.max_workers},
            "request": _request(gang.request),
            "reason": facts.get("reason", ""),
            "message": facts.get("message", ""),
            "queuedAt": facts.get("queuedAt") or timestamp(record.created_at),
            "reservation": _reservation(reservations.get(gang.uid)),
        })  # fmt: skip
    return rows


def _request(request: Request) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "accelerator": request.accelerator,
        "accelerators": request.accelerators,
        "millicpus": request.millicpus,
        "memory": request.memory,
    }
    return asked | ({"share": request.share} if request.share else {})


def _reservation(kept: Reservation | None) -> dict[str, Any] | None:
    """The place that is kept, and when it is expected to be free by the estimates of what runs now."""
    return None if kept is None else {"cell": kept.cell, "at": timestamp(kept.at), "nodes": list(kept.nodes)}


def preview(mirror: Mirror, document: AnyDocument, snapshot: Snapshot, policy: Policy) -> dict[str, Any]:
    """What applying would change, and what the scheduler would do with it now. Raises what `apply` would raise."""
    current = admission.check(document, mirror.find, mirror)
    wanted = to_json(document)
    before = {} if current is None else {"labels": dict(current.labels), "spec": dict(current.spec)}
    after = {"labels": wanted["metadata"].get("labels") or {}, "spec": wanted["spec"]}
    diff = list(_differences(before, after, ""))
    result = Change.CREATED if current is None else (Change.CONFIGURED if diff else Change.UNCHANGED)
    answer: dict[str, Any] = {"result": str(result), "diff": diff, "decision": None, "cells": [], "unblock": []}
    gang = _gang_of(document, wanted, snapshot.now)
    if gang is None or (current is not None and result is Change.UNCHANGED):
        return answer
    others = tuple(item for item in snapshot.pending if current is None or item.uid != current.uid)
    with_it = replace(snapshot, pending=(*others, gang))
    decided = _decision(with_it, gang.uid, policy)
    decided["decision"]["subject"] = _subject(document)
    return answer | decided


def _subject(document: AnyDocument) -> str:
    """What the decision is about where it is not the whole document, in words; else empty."""
    if isinstance(document, Curriculum):
        return "the first stage"
    if not isinstance(document, Job):
        return ""
    array, times = document.spec.array, document.spec.schedule
    member = f"the first of {array.size} members" if array is not None else "a run"
    if times is not None:
        return f"{member}, due at {times.cron} ({times.timezone}),"
    return member if array is not None else ""


def _decision(snapshot: Snapshot, uid: str, policy: Policy) -> dict[str, Any]:
    found = next((admit for admit in schedule(snapshot, policy).admits if admit.uid == uid), None)
    if found is not None:
        placed = {"action": "admit", "cell": found.cell, "nodes": list(found.nodes), "workers": found.workers}
        return {"decision": {**placed, "reason": "Admissible", "message": f"{found.reason} of cell {found.cell}"}}
    why = explain_gang(snapshot, uid, policy)
    waits = {"action": "wait", "reason": why.reason, "message": why.message, "position": why.position}
    waits["reservation"] = _reservation(why.reservation)
    return {"decision": waits, "cells": [_verdict(cell) for cell in why.cells], "unblock": list(why.unblock)}


def _gang_of(document: AnyDocument, wanted: Mapping[str, Any], now: float) -> PendingGang | None:
    """The gang that the document would put into the queue first, or None where it puts none there."""
    spec: Mapping[str, Any] = wanted["spec"]
    if isinstance(document, Curriculum):
        first = next(stage for stage in document.spec.stages if not document.spec.needs(stage.name))
        spec = to_json(document.spec.job_spec(first.name))
    elif not isinstance(document, Job | Service):
        return None
    queued = {"state": "Queued", "submittedAt": timestamp(now)}
    kind = "Service" if isinstance(document, Service) else "Job"
    record = Record(kind, document.metadata.name, uid=PREVIEWED, spec=spec, status=queued, created_at=now)
    if makes_jobs(record):
        record = replace(record, spec={**spec, "array": None, "schedule": None})
    if kind == "Service":
        record = record.with_status(state="Pending")
    if not fleet.waits(record):
        return None
    said = fleet.prospect(record).work.stated if kind == "Job" else None
    return fleet.pending(record, said)


def _differences(before: Any, after: Any, path: str) -> Any:
    """Fields that are not the same, each as {"field", "before", "after"}; None for what is not there."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            yield from _differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            old = before[index] if index < len(before) else None
            new = after[index] if index < len(after) else None
            yield from _differences(old, new, f"{path}[{index}]")
    elif before != after:
        yield {"field": path, "before": before, "after": after}


def _in_queue(snapshot: Snapshot, uid: str, policy: Policy, foretell: Foretell) -> dict[str, Any]:
    if all(gang.uid != uid for gang in snapshot.pending):
        return {}  # it was admitted between two looks
    why = explain_gang(snapshot, uid, policy)
    return {
        "reason": why.reason,
        "message": why.message,
        "position": why.position,
        "ahead": why.ahead,
        "cells": [_verdict(verdict) for verdict in why.cells],
        "unblock": list(why.unblock),
        "reservation": _reservation(why.reservation),
        "forecast": foretell(snapshot, uid),
    }


def _unblock_needs(mirror: Mirror, record: Record) -> list[str]:
    sentences = []
    for name in record.spec["needs"]:
        other = mirror.find("Job", name)
        if other is None:
            sentences.append(f"submit job {name} again: it is not there any more")
        elif other.state in {"Failed", "Cancelled"}:
            sentences.append(f"run job {name} again: helios rerun {name}")
        elif other.state != "Succeeded":
            sentences.append(f"wait until job {name}, now {other.state}, succeeds")
    return sentences


def _at_stage(
    mirror: Mirror, snapshot: Callable[[], Snapshot], record: Record, policy: Policy, *, foretell: Foretell
) -> dict[str, Any]:
    stages = record.status.get("stages", [])
    facts: dict[str, Any] = {"stages": stages}
    current = next((stage for stage in stages if stage["created"] and stage["state"] not in TERMINAL), None)
    if current is None:
        current = next((stage for stage in stages if stage["state"] == "Failed"), None)
    job = mirror.find("Job", current["job"]) if current is not None else None
    # The name may be taken by a job of somebody else, who is not to be told of here.
    if current is not None and job is not None and owns(record, job):
        facts |= {
            "stage": current["name"],
            "job": explain(mirror, snapshot, "Job", job.name, policy, foretell=foretell),
        }
    return facts


def _verdict(verdict: CellVerdict) -> dict[str, Any]:
    return {
        "cell": verdict.cell,
        "reason": str(verdict.reason),
        "message": verdict.message,
        "nodes": verdict.nodes,
        "rejected": {str(reason): count for reason, count in verdict.rejected.items()},
        "fits": verdict.fits,
    }
