"""The two-stage scheduler: a snapshot of the fleet in, decisions with reasons out. Pure: no clock, no I/O, no state.

schedule(snapshot: Snapshot) -> tuple[Decision, ...]       one Admit or Wait for every pending gang, in queue order
explain(snapshot: Snapshot, uid: str) -> Explanation       why a pending gang waits and what would unblock it
"""

from helios.scheduler.decisions import Admit, CellVerdict, Decision, NodeReject, Wait, WaitReason
from helios.scheduler.explain import Explanation, explain
from helios.scheduler.global_stage import ordered
from helios.scheduler.schedule import schedule
from helios.scheduler.snapshot import (
    CellState,
    Node,
    PendingGang,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
)

__all__ = [
    "Admit",
    "CellState",
    "CellVerdict",
    "Decision",
    "Explanation",
    "Node",
    "NodeReject",
    "PendingGang",
    "Readiness",
    "Request",
    "RunningGang",
    "Snapshot",
    "TenantState",
    "Wait",
    "WaitReason",
    "explain",
    "ordered",
    "schedule",
]
