"""Why a gang waits, in words: the verdict of every cell, and what would unblock it."""

from collections.abc import Sequence
from dataclasses import dataclass

from helios.scheduler.cell_stage import wording
from helios.scheduler.cycle import Cycle
from helios.scheduler.decisions import CellVerdict, Reservation, Wait, WaitReason
from helios.scheduler.fleet import sums_of
from helios.scheduler.policy import Policy
from helios.scheduler.queue import ordered
from helios.scheduler.quota import Quotas
from helios.scheduler.schedule import DEFAULT, schedule
from helios.scheduler.snapshot import PendingGang, QuotaState, Request, Snapshot, TenantState
from helios.spec import QoS


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a pending gang stands.

    Attributes:
        position: place in the queue, from 1.
        reason: typed; `Admissible` where the next cycle will start it.
        cells: why each cell refused.
        unblock: what would let it start, one sentence each; any one of them may be enough.
        reservation: the place that is kept for it, and from when.
    """

    uid: str
    position: int
    reason: str
    message: str
    cells: tuple[CellVerdict, ...] = ()
    unblock: tuple[str, ...] = ()
    reservation: Reservation | None = None

    @property
    def ahead(self) -> int:
        return self.position - 1


def explain(snapshot: Snapshot, uid: str, policy: Policy = DEFAULT) -> Explanation:
    """Explain one pending gang of the snapshot. Raises `KeyError` where it is not pending."""
    position, gang = _position(snapshot, uid, policy)
    cycle = schedule(snapshot, policy)
    admit = next((admit for admit in cycle.admits if admit.uid == uid), None)
    if admit is not None:
        message = f"starts in the next cycle on cell {admit.cell}: {admit.reason}"
        return Explanation(uid, position, "Admissible", message)
    wait = cycle.waits[uid]
    advice = _unblock(gang, wait, snapshot, cycle)
    return Explanation(uid, position, wait.reason, wait.message, wait.cells, advice, wait.reservation)


def queue_of(snapshot: Snapshot, policy: Policy = DEFAULT) -> tuple[PendingGang, ...]:
    """All that wait, in the order in which they are served as things stand."""
    sums = sums_of(snapshot)
    return tuple(ordered(snapshot, policy, Quotas(snapshot.tenants, sums.held), sums.lines))


def _position(snapshot: Snapshot, uid: str, policy: Policy) -> tuple[int, PendingGang]:
    for place, gang in enumerate(queue_of(snapshot, policy), 1):
        if gang.uid == uid:
            return place, gang
    raise KeyError(uid)


def _unblock(gang: PendingGang, wait: Wait, snapshot: Snapshot, cycle: Cycle) -> tuple[str, ...]:
    if wait.reason is WaitReason.NO_CELL:
        return ("apply a cell: helios cell apply cells/local.yaml",)
    if wait.reason is WaitReason.QUOTA_EXCEEDED:
        return _within_quota(gang, snapshot, cycle)
    found = {verdict.reason: verdict for verdict in reversed(wait.cells)}
    return tuple(_advice(gang, found[reason]) for reason in WaitReason if reason in found)


def _within_quota(gang: PendingGang, snapshot: Snapshot, cycle: Cycle) -> tuple[str, ...]:
    """What would let the gang be within its tenant's quota; waiting is no advice where no wait would do."""
    kind = gang.request.accelerator
    tenant = next((tenant for tenant in snapshot.tenants if tenant.name == gang.tenant), TenantState(gang.tenant, {}))
    quota = tenant.quota(kind)
    if quota is None:
        return (f"grant tenant {gang.tenant!r} some {kind}: add it to spec.quotas with a nominalQuota",)
    raised = f"raise spec.quotas[{kind}].nominalQuota of tenant {gang.tenant!r}"
    peers = [one for one in snapshot.tenants if tenant.cohort and one.cohort == tenant.cohort and one is not tenant]
    most = quota.nominal + _borrowable(quota, [one.quota(kind) for one in peers])
    if gang.min_workers * gang.request.devices > most:
        return (raised, f"ask for {most} {kind} or fewer: no wait makes room for more")
    holders = _holders(kind, snapshot, cycle)
    waits = [f"wait until other work of tenant {gang.tenant!r} gives back its {kind}"] * (gang.tenant in holders)
    if not holders.isdisjoint(one.name for one in peers):
        waits.append(f"wait until other tenants of cohort {tenant.cohort!r} give back {kind}")
    return (raised, *waits)


def _borrowable(quota: QuotaState, others: Sequence[QuotaState | None]) -> int:
    """Devices that a tenant could borrow at most, were all of its cohort idle."""
    lent = sum(one.nominal if one.lending is None else min(one.lending, one.nominal) for one in others if one)
    return lent if quota.borrowing is None else min(lent, quota.borrowing)


def _holders(kind: str, snapshot: Snapshot, cycle: Cycle) -> frozenset[str]:
    """Tenants whose work counts against their quota of that type after the cycle; places that are kept count too."""
    found = {gang.tenant for gang in snapshot.running if _counts(gang.qos, gang.request, kind)}
    given = {admit.uid: admit.request for admit in cycle.admits}
    given |= dict.fromkeys(cycle.own)
    found |= {
        gang.tenant
        for gang in snapshot.pending
        if gang.uid in given and _counts(gang.qos, given[gang.uid] or gang.request, kind)
    }
    return frozenset(found)


def _counts(qos: QoS, request: Request, kind: str) -> bool:
    return qos is not QoS.PREEMPTIBLE and request.accelerator == kind


def _advice(gang: PendingGang, verdict: CellVerdict) -> str:
    request, cell = gang.request, verdict.cell
    sentences = {
        WaitReason.WAITING_FOR_CAPACITY: f"wait until work on cell {cell} ends: "
        f"{verdict.fits} of {gang.min_workers} workers fit now",
        WaitReason.RESERVED_FOR_OTHERS: f"wait until gangs ahead of it have started on cell {cell}, or set a shorter "
        "spec.timeout.run, so that it ends before they start",
        WaitReason.MAKING_ROOM: f"wait until the gangs on cell {cell} that were told to leave are gone",
        WaitReason.CAPACITY_TYPE_NOT_ALLOWED: f"let spec.placement.capacityTypes name what cell {cell} has",
        WaitReason.CELL_HELD_OFF: f"wait until cell {cell} is asked again for capacity",
        WaitReason.NODES_CLOSED: f"open cordoned nodes of cell {cell} (helios cell uncordon {cell}), "
        "or have unhealthy ones repaired",
        WaitReason.CELL_UNKNOWN: f"bring the agent of cell {cell} back into contact",
        WaitReason.CELL_NOT_READY: f"make cell {cell} ready: {verdict.message}",
        WaitReason.GANG_DOES_NOT_FIT: f"lower spec.workers.min, or give cell {cell} more nodes",
        WaitReason.WORKER_DOES_NOT_FIT: f"ask for less than {wording(request)} a worker, "
        f"or add larger nodes to cell {cell}",
        WaitReason.NO_CELL_HAS_ACCELERATOR: f"add a node pool with {request.accelerator} to a cell, "
        "or submit without spec.resources.accelerators",
        WaitReason.CELL_NOT_ALLOWED: f"let spec.placement.cells name {cell} too",
    }
    return sentences[verdict.reason]
