"""The cell controller: nodes and conditions of a cell, from its agent's reports and its silence."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from helios.control import status
from helios.ports import HealthAction, NodeObservation
from helios.store import Event, EventType, Record, seconds, timestamp

SILENCE_S = 20.0
"""Agents report every 5 seconds at least; after this long without a word the cell is Unknown."""
FORSAKEN_S = 3600.0
"""A cell that is being deleted and was silent for so long does not come back."""
SKEW_S = 30.0
"""Clocks that differ by more are told of: tokens, certificates and the times in logs go wrong with them."""
ALL_NODES = "*"


def observe(record: Record, nodes: Sequence[NodeObservation] | None, now: float, *, skew_s: float = 0.0) -> Record:
    """The cell as its agent reports it; `skew_s` is how far the agent's clock is ahead of the server's."""
    record = status.with_condition(
        record, "Reachable", "True", reason="Reporting", message="the agent reports", now=now
    )
    record = _clock(record, skew_s, now)
    if nodes is None:
        message = "the agent reports that the cell's engine does not answer"
        return _ready(record, "False", "EngineUnavailable", message, now)
    record = record.with_status(nodes=[_node(node) for node in sorted(nodes, key=lambda node: node.name)])
    healthy = sum(node.healthy and not node.lost for node in nodes)
    if not healthy:
        return _ready(record, "False", "NoNodes", "no healthy node has joined yet", now)
    return _ready(record, "True", "NodesReady", f"{healthy} of {len(nodes)} nodes healthy", now)


def _clock(record: Record, skew_s: float, now: float) -> Record:
    if abs(skew_s) <= SKEW_S:
        if status.condition(record, "ClockInSync") is None:
            return record
        message = "the agent's clock agrees with the server's"
        return status.with_condition(record, "ClockInSync", "True", reason="InSync", message=message, now=now)
    way = "ahead of" if skew_s > 0 else "behind"
    message = f"the agent's clock is about {abs(skew_s) / 60:.0f} min {way} the server's; set the time (NTP) on either"
    return status.with_condition(record, "ClockInSync", "False", reason="ClockSkew", message=message, now=now)


def is_reachable(record: Record) -> bool:
    """Whether the cell's agent was heard lately; a cell that no agent has reported from yet is not."""
    reachable = status.condition(record, "Reachable")
    return reachable is not None and reachable["status"] == "True"


def is_forsaken(record: Record, now: float) -> bool:
    """Whether a person deleted it while it was silent, or it has been silent for long since: it will say nothing more.

    A cell that is deleted and then falls silent for a while is only silent: its work runs on to its end.
    """
    reachable = status.condition(record, "Reachable")
    if record.deleted_at is None or reachable is None or reachable["status"] == "True":
        return False
    silent_since = seconds(reachable["lastTransitionTime"])
    return silent_since <= record.deleted_at or now - silent_since >= FORSAKEN_S


def lost_nodes(record: Record) -> frozenset[str]:
    """Nodes that the cell's engine knows to be gone, as last seen."""
    return frozenset(node["name"] for node in record.status.get("nodes", []) if node.get("lost"))


def unhealthy_nodes(record: Record) -> frozenset[str]:
    """Nodes that are lost or unhealthy, as last seen; a cordon by a person says nothing about health."""
    nodes = record.status.get("nodes", [])
    return frozenset(node["name"] for node in nodes if node.get("lost") or not node["healthy"])


def cordoned_nodes(record: Record) -> frozenset[str]:
    """Nodes that a person has closed to new work."""
    cordons = record.status.get("cordons", {})
    if not cordons:
        return frozenset()
    names = (node["name"] for node in record.status.get("nodes", []))
    return frozenset(name for name in names if name in cordons or ALL_NODES in cordons)


def draining_nodes(record: Record) -> frozenset[str]:
    """Nodes whose work is to move away: drained by a person, or by a finding of that severity."""
    cordons = record.status.get("cordons", {})
    names = set()
    for node in record.status.get("nodes", []):
        cordon = cordons.get(node["name"]) or cordons.get(ALL_NODES) or {}
        found = any(finding["action"] == HealthAction.DRAIN for finding in node.get("findings") or [])
        if cordon.get("drain") or found:
            names.add(node["name"])
    return frozenset(names)


def with_cordon(record: Record, node: str, *, reason: str, drain: bool, now: float) -> Record:
    """The cell with a node, or `ALL_NODES`, closed to new work; with `drain` what runs there moves away."""
    since = record.status.get("cordons", {}).get(node, {}).get("since", timestamp(now))
    cordon = {"reason": reason, "drain": drain, "since": since}
    return record.with_status(cordons={**record.status.get("cordons", {}), node: cordon})


def without_cordon(record: Record, node: str) -> Record:
    """The cell with a node open again; with `ALL_NODES` every one."""
    cordons = record.status.get("cordons", {})
    left = {} if node == ALL_NODES else {name: cordon for name, cordon in cordons.items() if name != node}
    return record.with_status(cordons=left or None)


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
    facts = {**asdict(node), "accelerators": dict(node.accelerators), "labels": dict(node.labels)}
    facts["findings"] = [{**asdict(finding), "action": finding.action.value} for finding in node.findings]
    for empty in [name for name in ("labels", "findings") if not facts[name]]:
        del facts[empty]  # thousands of nodes: what says nothing is not kept
    if not facts["lost"]:
        del facts["lost"]
    return facts
