"""`helios explain`: why something is where it is, and what would move it, as JSON."""

from typing import Any

from helios.control import fleet
from helios.control.job_machine import TERMINAL
from helios.control.parsed import Specs
from helios.scheduler import CellVerdict
from helios.scheduler import explain as explain_gang
from helios.store import Record, Store


def explain(store: Store, now: float, kind: str, name: str) -> dict[str, Any]:
    """Explain a Job, Service or Curriculum. Raises `NotFoundError`."""
    record = store.get(kind, name)
    facts: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "state": record.state,
        "reason": record.status.get("reason", ""),
        "message": record.status.get("message", ""),
        "placement": record.status.get("placement"),
        "conditions": record.status.get("conditions", []),
        "restarts": record.status.get("restarts", 0),
        "position": None,
        "ahead": None,
        "cells": [],
        "unblock": [],
    }
    if kind == "Curriculum":
        return facts | _at_stage(store, now, record)
    waits = fleet.job_waits(record) if kind == "Job" else kind == "Service" and fleet.service_waits(record)
    return facts | (_in_queue(store, now, record.uid) if waits else {})


def _in_queue(store: Store, now: float, uid: str) -> dict[str, Any]:
    snapshot = fleet.snapshot(store, Specs(), now)
    if all(gang.uid != uid for gang in snapshot.pending):
        return {}  # it was admitted between two reads
    why = explain_gang(snapshot, uid)
    return {
        "reason": why.reason,
        "message": why.message,
        "position": why.position,
        "ahead": why.ahead,
        "cells": [_verdict(verdict) for verdict in why.cells],
        "unblock": list(why.unblock),
    }


def _at_stage(store: Store, now: float, record: Record) -> dict[str, Any]:
    stages = record.status.get("stages", [])
    facts: dict[str, Any] = {"stages": stages}
    current = next((stage for stage in stages if stage["created"] and stage["state"] not in TERMINAL), None)
    if current is None:
        current = next((stage for stage in stages if stage["state"] == "Failed"), None)
    job = store.find("Job", current["job"]) if current is not None else None
    if current is not None and job is not None:
        facts |= {"stage": current["name"], "job": explain(store, now, "Job", job.name)}
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
