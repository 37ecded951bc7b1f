"""The cell controller: nodes and conditions of a cell, from its agent's reports and its silence."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from helios.control import status
from helios.ports import NodeObservation
from helios.store import Event, EventType, Record

SILENCE_S = 30.0


def observe(record: Record, nodes: Sequence[NodeObservation] | None, now: float) -> Record:
    """The cell as its agent reports it."""
    record = status.with_condition(
        record, "Reachable", "True", reason="Reporting", message="the agent reports", now=now
    )
    if nodes is None:
        message = "the agent reports that the cell's engine does not answer"
        return _ready(record, "False", "EngineUnavailable", message, now)
    record = record.with_status(nodes=[_node(node) for node in sorted(nodes, key=lambda node: node.name)])
    healthy = sum(node.healthy for node in nodes)
    if not healthy:
        return _ready(record, "False", "NoNodes", "no healthy node has joined yet", now)
    return _ready(record, "True", "NodesReady", f"{healthy} of {len(nodes)} nodes healthy", now)


def reconcile(record: Record, silent_for: float, now: float) -> Record:
    """Mark a cell that has been silent for too long. What runs there is left alone: sight is lost, not work."""
    if status.condition(record, "Ready") is None:
        return _ready(record, "False", "NoAgent", "no agent has reported from this cell yet", now)
    reachable = status.condition(record, "Reachable")
    if silent_for <= SILENCE_S or reachable is None:
        return record
    message = f"no report for more than {SILENCE_S:.0f} s; what runs there is left alone"
    record = status.with_condition(record, "Reachable", "Unknown", reason="AgentSilent", message=message, now=now)
    return _ready(record, "Unknown", "AgentSilent", message, now)


def changes(before: Record, after: Record) -> list[Event]:
    """One event for every condition that another status was written to."""
    old = {item["type"]: item["status"] for item in before.status.get("conditions", [])}
    return [
        Event(
            after.kind,
            after.name,
            after.uid,
            item["reason"],
            f"{item['type']} is {item['status']}: {item['message']}",
            EventType.NORMAL if item["status"] == "True" else EventType.WARNING,
        )
        for item in after.status.get("conditions", [])
        if old.get(item["type"]) != item["status"]
    ]


def _ready(record: Record, word: str, reason: str, message: str, now: float) -> Record:
    states = {"True": "Ready", "False": "NotReady", "Unknown": "Unknown"}
    record = status.with_condition(record, "Ready", word, reason=reason, message=message, now=now)
    state = "Pending" if reason == "NoAgent" else states[word]
    return record.with_status(state=state, reason=reason, message=message)


def _node(node: NodeObservation) -> dict[str, Any]:
    return {**asdict(node), "accelerators": dict(node.accelerators)}
