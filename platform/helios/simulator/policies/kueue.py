"""Quota as Kueue has it: nominal quotas, borrowing in a cohort, reclaim, and preemption by priority.

Kueue (kubernetes-sigs/kueue), ClusterQueues with `BestEffortFIFO`, `reclaimWithinCohort: Any` and
`withinClusterQueue: LowerPriority`: who stays within its quota comes before who borrows, then by priority class, then
by age; one that has no quota or place is passed. Candidates for preemption are borrowers of the cohort where quota is
reclaimed, else lower priorities, the lowest first, of that the latest admitted; those are let go again that turn out
not to be needed. It knows neither checkpoints nor topology unless told, and nothing of cells but flavours: here the
least-loaded feasible one.
"""

from collections.abc import Callable, Iterator

from helios.scheduler import PendingGang, Preempt, RunningGang, Snapshot, StopReason
from helios.scheduler.lines import Shape, shape_of
from helios.scheduler.plans import Site, plan_among
from helios.scheduler.preemption import Rooms
from helios.scheduler.queue import QOS_ORDER
from helios.scheduler.scratch import Scratch
from helios.scheduler.victims import Victim
from helios.simulator.policies.serving import CONTROL, Decisions, in_order, place
from helios.spec import QoS

PRIORITY = 1e15
"""More than any gang's device-seconds: no age makes up for a priority."""
TRIES = 4
"""Gangs that a cycle tries to make room for; it makes room for one."""


class Kueue:
    """Quota with borrowing, and preemption that does not ask what it costs."""

    name = "kueue"

    def decide(self, snapshot: Snapshot) -> Decisions:
        scratch = Scratch(snapshot, CONTROL)
        admits, blocked = [], []
        refused: set[tuple[Shape, str]] = set()
        for gang in in_order(snapshot, _entries(scratch)):
            shape = shape_of(gang)
            allowance = scratch.quotas.allowance(gang.tenant, gang.request.accelerator, gang.qos)
            fits = allowance.workers(gang.request) >= shape.min_workers
            admit = place(scratch, gang, shape) if fits and (shape, "") not in refused else None
            if admit is not None:
                admits.append(admit)
                continue
            if fits:
                refused.add((shape, ""))
            if fits or allowance.own >= shape.devices:
                blocked.append((gang, shape, 0.0 if fits else shape.devices - allowance.devices))
        for gang, shape, lacking in blocked[:TRIES]:
            changes = tuple(_preempt(gang, shape, scratch, lacking))
            if changes:
                return Decisions(tuple(admits), changes)
        return Decisions(tuple(admits))


def _entries(scratch: Scratch) -> Callable[[PendingGang], tuple[float, ...]]:
    """The order of entries: who stays within its own quota before who borrows, then priority, then age.

    `preemptible` work, which has no quota here, counts as borrowing.
    """

    def key(gang: PendingGang) -> tuple[float, ...]:
        own = scratch.quotas.allowance(gang.tenant, gang.request.accelerator, gang.qos).own
        borrows = gang.qos is QoS.PREEMPTIBLE or own < gang.min_workers * gang.request.devices
        return (borrows, QOS_ORDER[gang.qos], gang.submitted_at)

    return key


def _preempt(gang: PendingGang, shape: Shape, scratch: Scratch, lacking: float) -> Iterator[Preempt]:
    for site in Rooms(scratch).sites(gang, shape, shape.requests):
        leaving = sum(one.held for one in site.book.leaving.values())
        if leaving >= shape.devices:
            return  # room is being made already
        candidates = [_victim(one, scratch) for one in site.book.gangs.values() if _candidate(one, gang, site, lacking)]
        plan = plan_among(candidates, site, lacking=lacking)
        if plan is not None:
            for victim in plan.victims:
                one = victim.gang
                yield Preempt(one.uid, one.cell, victim.reason, "preempted by priority or reclaim", gang.uid, 0.0)
            return


def _candidate(one: RunningGang, gang: PendingGang, site: Site, lacking: float) -> bool:
    if one.leaving_at is not None or one.request.accelerator != site.request.accelerator or one.qos is QoS.GUARANTEED:
        return False
    if lacking > 0:
        quotas = site.scratch.quotas
        return quotas.borrowed(one.tenant, site.request.accelerator) > 0 and quotas.same_cohort(gang.tenant, one.tenant)
    return QOS_ORDER[gang.qos] < QOS_ORDER[one.qos]


def _victim(one: RunningGang, scratch: Scratch) -> Victim:
    """As a cost: the lowest priority is the cheapest, of that the latest admitted."""
    ran = scratch.now - (scratch.now if one.started_at is None else one.started_at)
    order = (-QOS_ORDER[one.qos], ran, 0.0, one.uid)
    above = QOS_ORDER[QoS.PREEMPTIBLE] - QOS_ORDER[one.qos]
    return Victim(one, StopReason.PREEMPTED, one.nodes, (), one.held * ran + above * PRIORITY, order)
