"""What holds resources: jobs and services with a placement that they have not let go of."""

from collections.abc import Iterator, Mapping
from typing import Any

from helios.cli.client import Client, Object

HOLDING = ("Admitted", "Starting", "Running", "Preempting", "Recovering")
"""States of jobs that may hold resources; all others never do."""


def holders(client: Client, *, tenant: str = "") -> Iterator[Object]:
    """Every job and service that holds resources."""
    for state in HOLDING:
        for item in client.list("Job", tenant=tenant, state=state):
            if held_by(item):
                yield item
    for item in client.list("Service", tenant=tenant):
        if held_by(item):
            yield item


def held_by(item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The placement whose resources an object holds, or None."""
    status = item.get("status") or {}
    placement: Mapping[str, Any] | None = status.get("placement")
    return placement if placement and not status.get("released") else None


def devices(placement: Mapping[str, Any]) -> tuple[str, float]:
    """Type and number of the accelerators that a whole gang holds, parts among them; an empty type for none."""
    request = placement["request"]
    workers = int(placement["workers"])
    held = request["share"] / 1000 * workers if request.get("share") else (request.get("accelerators") or 0) * workers
    return str(request.get("accelerator") or ""), held


def summary(item: Mapping[str, Any]) -> dict[str, Any]:
    """A holder in short, as data."""
    placement = held_by(item) or {}
    return {
        "kind": item["kind"],
        "name": item["metadata"]["name"],
        "tenant": item["spec"].get("tenant"),
        "qos": item["spec"].get("qos"),
        "state": (item.get("status") or {}).get("state"),
        "workers": placement.get("workers"),
        "nodes": sorted(set(placement.get("nodes") or ())),
        "request": placement.get("request"),
    }


def headroom_in(item: Mapping[str, Any], cell: str) -> dict[str, Any] | None:
    """What a service in that cell wants room held for there, as data; None for nothing."""
    found, placement = (item.get("status") or {}).get("headroom") or {}, held_by(item)
    if not found.get("replicas") or placement is None or placement["cell"] != cell:
        return None
    return {"kind": item["kind"], "name": item["metadata"]["name"], "tenant": item["spec"].get("tenant"), **found}
