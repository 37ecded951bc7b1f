"""The parts of a status that several kinds share: placements, stops and conditions."""

from collections.abc import Mapping
from typing import Any

from helios.ports import Launch
from helios.scheduler import Admit, Policy, Request
from helios.spec import Accelerators, Resources
from helios.store import Record, timestamp

DEFAULT_GRACE_S = 30.0
"""From notice to end of what does not say itself how long it needs."""
SPEEDUP = Policy().speedup
"""n workers do n ** SPEEDUP times the work of one."""


def request_of(resources: Resources) -> Request:
    """What the scheduler counts for one worker."""
    return _request(resources, resources.accelerators)


def requests_of(resources: Resources) -> tuple[Request, ...]:
    """What a worker may be given, in order of preference."""
    return tuple(_request(resources, devices) for devices in (resources.accelerators, *resources.alternatives))


def _request(resources: Resources, devices: Accelerators | None) -> Request:
    return Request(
        millicpus=round(resources.cpus * 1000),
        memory=resources.memory,
        accelerator=devices.type if devices else "",
        accelerators=devices.count if devices else 0,
        share=devices.share if devices else 0,
    )


def placement_of(admit: Admit, request: Request) -> dict[str, Any]:
    """`status.placement`: where the gang is, and what each worker holds there: `request`, or what was granted for it.

    Of workers that share a device `devices` says which each has on its node, counted from 0.
    """
    granted = admit.request or request
    held: dict[str, Any] = {
        "millicpus": granted.millicpus,
        "memory": granted.memory,
        "accelerator": granted.accelerator,
        "accelerators": granted.accelerators,
    }
    place: dict[str, Any] = {"cell": admit.cell, "nodes": list(admit.nodes), "workers": admit.workers, "request": held}
    if granted.share:
        held["share"] = granted.share
        place["devices"] = list(admit.devices)
    return place


def placement(record: Record) -> Mapping[str, Any] | None:
    """The placement whose resources the record holds, or None."""
    found: Mapping[str, Any] | None = record.status.get("placement")
    return found if found and not record.status.get("released") else None


def epoch(record: Record) -> int:
    """The fencing epoch of the last admission; 0 before the first."""
    return int(record.status.get("epoch", 0))


def launch_of(record: Record) -> Launch:
    """What a cell is told to run for a placed job or service: its spec, with the accelerators that it was granted."""
    place = record.status["placement"]
    return Launch(
        kind=record.kind,
        name=record.name,
        uid=record.uid,
        epoch=epoch(record),
        spec=_granted(record.spec, place["request"]),
        workers=place["workers"],
        nodes=tuple(place["nodes"]),
        devices=tuple(place.get("devices", ())),
        context=record.status.get("context", {}),
    )


def _granted(spec: Mapping[str, Any], held: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec as it is to run: an alternative that was granted stands in the place of what was asked for first."""
    resources = spec["resources"]
    if not resources.get("alternatives"):
        return spec
    devices = Accelerators(held["accelerator"], held["accelerators"], held.get("share", 0))
    return {**spec, "resources": {**resources, "accelerators": str(devices), "alternatives": []}}


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
