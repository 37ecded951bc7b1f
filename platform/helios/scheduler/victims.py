"""What a running gang gives when it is asked for room, and what that loses; who may be asked, `candidates` says."""

from dataclasses import dataclass

from helios.scheduler.decisions import StopReason
from helios.scheduler.lines import Shape
from helios.scheduler.policy import Policy
from helios.scheduler.queue import QOS_ORDER
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import PendingGang, RunningGang
from helios.spec import QoS


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """A running gang that could give room.

    Attributes:
        freed: nodes that its leaving workers are on; all of its nodes, or those of a shrinking gang's surplus.
        kept: nodes that it goes on with; empty where it leaves as a whole.
        cost: device-seconds that are lost.
        order: who is stopped first has the lowest: the lowest class, of that whose devices come free at the least cost,
            of equals who has begun last: without checkpoints that one loses the least.
    """

    gang: RunningGang
    reason: StopReason
    freed: tuple[str, ...]
    kept: tuple[str, ...]
    cost: float
    order: tuple[float, float, float, str]

    @property
    def devices(self) -> tuple[int, ...]:
        """Of its leaving workers, where they share devices."""
        return self.gang.devices if len(self.freed) == len(self.gang.nodes) else ()


@dataclass(frozen=True, slots=True, eq=False)
class Stoppable:
    """A running gang that may be asked for room, as a whole or for its surplus.

    Attributes:
        whole: what it frees when it leaves.
        shrunk: what it frees when it goes on with its fewest workers; None where it has no more than these.
        yields_to: a gang of its own class goes before it that takes fewer seconds.
    """

    whole: Victim
    shrunk: Victim | None
    yields_to: float

    def for_class(self, shape: Shape) -> Victim | None:
        """What it does for a gang of that shape, or None."""
        whole, shrunk, mine, other = self.whole, self.shrunk, self.whole.gang.qos, shape.qos
        if QOS_ORDER[other] < QOS_ORDER[mine] or (
            other is mine and shape.estimate is not None and shape.estimate < self.yields_to
        ):
            return whole if shrunk is None else min(whole, shrunk, key=lambda one: one.order)
        return shrunk if other is mine else None


def stoppable_of(gang: RunningGang, scratch: Scratch, *, yields_to: float) -> Stoppable:
    """What the gang could give."""
    whole, shrunk = leaver(gang, StopReason.PREEMPTED, scratch), None
    if len(gang.nodes) > gang.fewest and scratch.policy.elastic and not gang.request.share:
        kept, freed = gang.nodes[: gang.fewest], gang.nodes[gang.fewest :]
        cost = whole.cost * len(kept) / len(gang.nodes)
        shrunk = Victim(gang, StopReason.RESIZED, freed, kept, cost, _order(gang, len(freed), cost))
    return Stoppable(whole, shrunk, yields_to)


def leaver(gang: RunningGang, reason: StopReason, scratch: Scratch) -> Victim:
    """The gang as a whole."""
    cost = loss(gang, scratch.policy, scratch.now)
    return Victim(gang, reason, gang.nodes, (), cost, _order(gang, len(gang.nodes), cost))


def _order(gang: RunningGang, freed: int, cost: float) -> tuple[float, float, float, str]:
    each = cost / max(1e-9, freed * gang.request.devices)
    return (-QOS_ORDER[gang.qos], each, -(gang.started_at or 0.0), gang.uid)


def loss(gang: RunningGang, policy: Policy, now: float) -> float:
    """Device-seconds that are lost where the gang leaves now: work since its last checkpoint, and its restart."""
    return gang.held * lost(gang, policy, now)


def lost(gang: RunningGang, policy: Policy, now: float) -> float:
    """The same in seconds of the gang: what each of its devices loses, and what work without devices does."""
    since = policy.default_loss if gang.checkpointed_at is None else max(0.0, now - gang.checkpointed_at)
    return since + gang.restart_s


def owes(running: RunningGang, gang: PendingGang, scratch: Scratch) -> bool:
    """Whether it holds quota that is the pending gang's tenant's own; `preemptible` work holds nobody's."""
    quotas, kind = scratch.quotas, running.request.accelerator
    if running.qos is QoS.PREEMPTIBLE or not quotas.same_cohort(gang.tenant, running.tenant):
        return False
    return quotas.borrowed(running.tenant, kind) > 0
