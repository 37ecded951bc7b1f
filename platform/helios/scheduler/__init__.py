"""The two-stage scheduler: a snapshot of the fleet in, decisions with reasons out. Pure: no clock, no I/O, no state.

schedule(snapshot: Snapshot, policy: Policy) -> Cycle            who starts where, who waits and why, who is to leave
explain(snapshot: Snapshot, uid: str, policy) -> Explanation     why a pending gang waits and what would unblock it
Fleet                                                            a ledger that makes snapshots cheap
"""

from helios.scheduler.decisions import (
    Admit,
    CellVerdict,
    Change,
    Decision,
    NodeReject,
    Preempt,
    Reservation,
    Resize,
    StopReason,
    Wait,
    WaitReason,
)
from helios.scheduler.explain import Explanation, explain, queue_of
from helios.scheduler.fleet import Fleet
from helios.scheduler.policy import Policy
from helios.scheduler.schedule import Cycle, schedule
from helios.scheduler.snapshot import (
    NO_END,
    CellState,
    Headroom,
    Node,
    PendingGang,
    QuotaState,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    Topology,
)

__all__ = [
    "NO_END",
    "Admit",
    "CellState",
    "CellVerdict",
    "Change",
    "Cycle",
    "Decision",
    "Explanation",
    "Fleet",
    "Headroom",
    "Node",
    "NodeReject",
    "PendingGang",
    "Policy",
    "Preempt",
    "QuotaState",
    "Readiness",
    "Request",
    "Reservation",
    "Resize",
    "RunningGang",
    "Snapshot",
    "StopReason",
    "TenantState",
    "Topology",
    "Wait",
    "WaitReason",
    "explain",
    "queue_of",
    "schedule",
]
