"""The two-stage scheduler: a snapshot of the fleet in, decisions with reasons out. Pure: no clock, no I/O, no state.

schedule(snapshot: Snapshot, policy: Policy) -> Cycle            who starts where, who waits and why, who is to leave
explain(snapshot: Snapshot, uid: str, policy) -> Explanation     why a pending gang waits and what would unblock it
forecast(snapshot: Snapshot, uids, policy) -> {uid: Forecast}    when pending gangs start, were nobody to come
Calibration                                                      how far off such forecasts are, learned: bands
Fleet                                                            a ledger that makes snapshots cheap
"""

from helios.scheduler.calibration import Band, Calibration, Unlearned, range_of
from helios.scheduler.cycle import Cycle
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
from helios.scheduler.forecast import Effort, Forecast, forecast
from helios.scheduler.policy import Policy
from helios.scheduler.schedule import schedule
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
    "Band",
    "Calibration",
    "CellState",
    "CellVerdict",
    "Change",
    "Cycle",
    "Decision",
    "Effort",
    "Explanation",
    "Fleet",
    "Forecast",
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
    "Unlearned",
    "Wait",
    "WaitReason",
    "explain",
    "forecast",
    "queue_of",
    "range_of",
    "schedule",
]
