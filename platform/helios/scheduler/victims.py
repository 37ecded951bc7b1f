"""Who may be stopped for whom, and what that loses.

What a preemption loses is in device-seconds: work since the last checkpoint and the restart. A gang that publishes no
checkpoint is charged a fixed loss, so that hiding progress protects it from no class above its own. Gangs are left
alone that have not run for their class's minimum, that were preempted as often as a job or its tenant may be, or that
are leaving already.

Whole gangs leave for a class above theirs, or where they hold borrowed quota that its owner wants back. Within
`preemptible`, one that has run for long makes room for one that will be short (least attained service: Gu et al.,
"Tiresias", NSDI 2019), unless it never published a checkpoint: it would begin again, and by all that it has run that is
longer than what it makes room for. A running gang gives up workers above its minimum for its own class, too.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from helios.scheduler.book import Book
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


@dataclass(frozen=True, slots=True)
class Holders:
    """Gangs of a cell that have devices of one type.

    Attributes:
        open: may be asked for room.
        young: may be asked later, from when on: they have not run for their class's minimum.
    """

    open: Sequence[RunningGang]
    young: Sequence[tuple[float, RunningGang]]


def holders(book: Book, accelerator: str, scratch: Scratch) -> Holders:
    """Who may be asked for room with such devices, now or later."""
    opened, young = [], []
    for gang in book.holding(accelerator):
        at = stoppable_from(gang, scratch)
        if at <= scratch.now:
            opened.append(gang)
        elif at < math.inf:
            young.append((at, gang))
    return Holders(opened, young)


def stoppable_of(gang: RunningGang, scratch: Scratch) -> Stoppable:
    """What the gang could give."""
    policy, whole, shrunk = scratch.policy, leaver(gang, StopReason.PREEMPTED, scratch), None
    if _has_surplus(gang, policy):
        kept, freed = gang.nodes[: gang.fewest], gang.nodes[gang.fewest :]
        cost = whole.cost * len(kept) / len(gang.nodes)
        shrunk = Victim(gang, StopReason.RESIZED, freed, kept, cost, _order(gang, len(freed), cost))
    return Stoppable(whole, shrunk, _yields_to(gang, policy, scratch.now))


def gives_at(gang: RunningGang, at: float, shape: Shape, policy: Policy) -> bool:
    """Whether it could do something for a gang of that shape at that moment; what that is, `stoppable_of` says."""
    if gang.qos is not shape.qos:
        return QOS_ORDER[shape.qos] < QOS_ORDER[gang.qos]
    shorter = shape.estimate is not None and shape.estimate < _yields_to(gang, policy, at)
    return shorter or _has_surplus(gang, policy)


def _has_surplus(gang: RunningGang, policy: Policy) -> bool:
    return len(gang.nodes) > gang.fewest and policy.elastic and not gang.request.share


def _yields_to(gang: RunningGang, policy: Policy, at: float) -> float:
    if gang.qos is not QoS.PREEMPTIBLE or not policy.least_attained or gang.started_at is None:
        return 0.0
    if gang.checkpointed_at is None:  # all that it ran would be lost, which is no less than what the other takes
        return 0.0
    # What ran for long has probably as much before it; a short one is through sooner, price included.
    return (at - gang.started_at) / policy.least_attained - lost(gang, policy, at)


def ranked(gangs: Iterable[RunningGang], scratch: Scratch) -> list[tuple[float, float, str, RunningGang]]:
    """Those that may be asked for room: the lowest class first, of that the cheapest a device."""
    found: list[tuple[float, float, str, RunningGang]] = []
    for gang in gangs:
        cost = lost(gang, scratch.policy, scratch.now)
        surplus = len(gang.nodes) - gang.fewest
        if surplus:  # what it gives up by shrinking may come cheaper
            cost = min(cost, cost * gang.fewest / surplus)
        found.append((-QOS_ORDER[gang.qos], cost, gang.uid, gang))
    found.sort(key=itemgetter(0, 1, 2))
    return found


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


def stoppable_from(gang: RunningGang, scratch: Scratch) -> float:
    """From when on the gang may be asked to leave; infinity where that is never, as things stand."""
    policy = scratch.policy
    if gang.qos is QoS.GUARANTEED or gang.leaving_at is not None or gang.preemptions >= policy.job_budget:
        return math.inf
    if scratch.quotas.tenant(gang.tenant).preemptions >= policy.tenant_budget:
        return math.inf
    least = policy.min_run.get(gang.qos, 0.0)
    if gang.started_at is None:  # in this very cycle, in which it is not stopped again
        return scratch.now + least if least else math.inf
    return gang.started_at + least


def owes(running: RunningGang, gang: PendingGang, scratch: Scratch) -> bool:
    """Whether it holds quota that is the pending gang's tenant's own; `preemptible` work holds nobody's."""
    quotas, kind = scratch.quotas, running.request.accelerator
    if running.qos is QoS.PREEMPTIBLE or not quotas.same_cohort(gang.tenant, running.tenant):
        return False
    return quotas.borrowed(running.tenant, kind) > 0
