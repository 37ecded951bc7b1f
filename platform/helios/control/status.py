"""The parts of a status that several kinds share: placements, stops and conditions."""

from collections.abc import Mapping
from typing import Any

from helios.ports import Launch
from helios.scheduler import Admit, Request
from helios.spec import Resources
from helios.store import Record, timestamp

DEFAULT_GRACE_S = 30.0
"""From notice to end of what does not say itself how long it needs."""


def request_of(resources: Resources) -> Request:
    """What the scheduler counts for one worker."""
    devices = resources.accelerators
    return Request(
        millicpus=round(resources.cpus * 1000),
        memory=resources.memory,
        accelerator=devices.type if devices else "",
        accelerators=devices.count if devices else 0,
    )


def placement_of(admit: Admit, request: Request) -> dict[str, Any]:
    """`status.placement`: where the gang is, and what each worker holds there."""
    held = {
        "millicpus": request.millicpus,
        "memory": request.memory,
        "accelerator": request.accelerator,
        "accelerators": request.accelerators,
    }
    return {"cell": admit.cell, "nodes": list(admit.nodes), "workers": admit.workers, "request": held}


def placement(record: Record) -> Mapping[str, Any] | None:
    """The placement whose resources the record holds, or None."""
    found: Mapping[str, Any] | None = record.status.get("placement")
    return found if found and not record.status.get("released") else None


def epoch(record: Record) -> int:
    """The fencing epoch of the last admission; 0 before the first."""
    return int(record.status.get("epoch", 0))


def launch_of(record: Record) -> Launch:
    """What a cell is told to run for a placed job or service."""
    place = record.status["placement"]
    return Launch(
        kind=record.kind,
        name=record.name,
        uid=record.uid,
        epoch=epoch(record),
        spec=record.spec,
        workers=place["workers"],
        nodes=tuple(place["nodes"]),
        context=record.status.get("context", {}),
    )


def with_condition(record: Record, type_: str, status: str, *, reason: str, message: str, now: float) -> Record:
    """Return the record with this condition; its transition time moves only when `status` does."""
    conditions = {condition["type"]: condition for condition in record.status.get("conditions", [])}
    old = conditions.get(type_)
    same = old is not None and old["status"] == status
    conditions[type_] = {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and same else timestamp(now),
    }
    return record.with_status(conditions=list(conditions.values()))


def condition(record: Record, type_: str) -> Mapping[str, str] | None:
    """The condition of that type, or None."""
    found: list[Mapping[str, str]] = record.status.get("conditions", [])
    return next((item for item in found if item["type"] == type_), None)


def held(record: Record) -> Request:
    """What each worker of a placed record holds; the spec may ask for something else by now."""
    return Request(**record.status["placement"]["request"])
