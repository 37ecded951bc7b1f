"""What a node's agent found, as a file that its cell's agent reads: one writer, one reader, never half written.

<state>/nodes/<node>.json    {"node", "at", "findings": [...], "gpus": [...], "driver", "state": {...}}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from helios.durable import read_json, write_json
from helios.errors import InputError
from helios.ports import HealthAction, HealthFinding, NodeObservation
from helios.store import timestamp
from helios.wire import finding_from_json, finding_to_json

SILENT_S = 30.0
"""A node agent that wrote nothing for so long is silent, which is said, and is no reason to stop using the node."""
_NODE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.:]{0,252}")


def findings_file(folder: Path, node: str) -> Path:
    """Where the findings of that node lie. Raises `InputError` for what cannot name a node."""
    if not _NODE.fullmatch(node):
        raise InputError(f"expected the name of a node (letters, digits and any of - _ . :), got {node[:80]!r}")
    return folder / f"{node}.json"


def write_findings(
    folder: Path, node: str, findings: Sequence[HealthFinding], *, at: float, facts: Mapping[str, Any]
) -> None:
    """Say what was found at that time (seconds since the epoch); `facts` lie beside it, for people and restarts."""
    said = [finding_to_json(finding) for finding in findings]
    write_json(findings_file(folder, node), {**facts, "node": node, "at": at, "findings": said})


def merged(nodes: Sequence[NodeObservation], folder: Path, *, now: float) -> tuple[NodeObservation, ...]:
    """The nodes with what their agents found; a finding that asks to cordon or drain makes a node unhealthy."""
    told = {path.stem for path in folder.glob("*.json")} if folder.is_dir() else set()
    return tuple(_with_findings(node, folder, now) if node.name in told else node for node in nodes)


def _with_findings(node: NodeObservation, folder: Path, now: float) -> NodeObservation:
    findings = (*node.findings, *_read(folder / f"{node.name}.json", now))
    fit = all(finding.action is HealthAction.ALERT for finding in findings)
    return replace(node, findings=findings, healthy=node.healthy and fit)


def _read(path: Path, now: float) -> tuple[HealthFinding, ...]:
    try:
        data = read_json(path) or {}
        findings = tuple(finding_from_json(item) for item in data["findings"])
        at = float(data["at"])
    except (KeyError, TypeError, ValueError, InputError, OSError):
        return (_silent(f"what it wrote to {path.name} cannot be read"),)
    return findings if now - at < SILENT_S else (*findings, _silent(f"it wrote nothing since {timestamp(at)}"))


def _silent(why: str) -> HealthFinding:
    return HealthFinding("NodeAgentSilent", HealthAction.ALERT, "warning", f"the node's agent is silent: {why}")
