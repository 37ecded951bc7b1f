"""Who may be stopped for whom, and what that loses.

What a preemption loses is in device-seconds: work since the last checkpoint and the restart. A gang that publishes no
checkpoint is charged a fixed loss, so that hiding progress never protects it. Gangs are left alone that have not run
for their class's minimum, that were preempted as often as a job or its tenant may be, or that are leaving already.

Whole gangs leave for a class above theirs, or where they hold borrowed quota that its owner wants back. Within
`preemptible`, one that has run for long makes room for one that will be short (least attained service: Gu et al.,
"Tiresias", NSDI 2019). A running gang gives up workers above its minimum for its own class, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

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
        rank: of its class; the highest is stopped first.
    """

    gang: RunningGang
    reason: StopReason
    freed: tuple[str, ...]
    kept: tuple[str, ...]
    cost: float
    rank: int = 0

    @property
    def devices(self) -> tuple[int, ...]:
        """Of its leaving workers, where they share devices."""
        return self.gang.devices if len(self.freed) == len(self.gang.nodes) else ()

    @property
    def density(self) -> float:
        """Cost of a device that comes free."""
        return self.cost / max(1e-9, len(self.freed) * self.gang.request.devices)

    @property
    def order(self) -> tuple[float, float, str]:
        """Who is stopped first has the lowest."""
        return (-self.rank, self.density, self.gang.uid)


def victim(gang: RunningGang, reason: StopReason, scratch: Scratch) -> Victim:
    """The gang as a whole."""
    cost = loss(gang, scratch.policy, scratch.now)
    return Victim(gang, reason, gang.nodes, (), cost, QOS_ORDER[gang.qos])


def loss(gang: RunningGang, policy: Policy, now: float) -> float:
    """Device-seconds that are lost where the gang leaves now: work since its last checkpoint, and its restart."""
    since = policy.default_loss if gang.checkpointed_at is None else max(0.0, now - gang.checkpointed_at)
    return gang.held * (since + gang.restart_s)


def may_be_stopped(gang: RunningGang, scratch: Scratch) -> bool:
    """Whether the gang may be asked to leave at all."""
    policy = scratch.policy
    if gang.qos is QoS.GUARANTEED or gang.leaving_at is not None or gang.started_at is None:
        return False
    if gang.preemptions >= policy.job_budget or scratch.now - gang.started_at < policy.min_run.get(gang.qos, 0.0):
        return False
    return scratch.quotas.tenant(gang.tenant).preemptions < policy.tenant_budget


def for_class(book: Book, shape: Shape, scratch: Scratch) -> Iterator[Victim]:
    """Gangs of a cell that would leave, or shrink, for a gang of that shape."""
    kind = shape.request.accelerator
    for gang in book.gangs.values():
        if (kind and gang.request.accelerator != kind) or not may_be_stopped(gang, scratch):
            continue
        shrunk = _shrunk(gang, scratch)
        if _leaves_for(gang, shape, scratch):
            whole = victim(gang, StopReason.PREEMPTED, scratch)
            yield whole if shrunk is None else min(whole, shrunk, key=lambda one: one.density)
        elif shrunk is not None and QOS_ORDER[shape.qos] <= QOS_ORDER[gang.qos]:
            yield shrunk


def for_owner(book: Book, gang: PendingGang, scratch: Scratch) -> Iterator[Victim]:
    """Gangs of a cell that hold quota which is the pending gang's tenant's own."""
    kind, quotas = gang.request.accelerator, scratch.quotas
    for running in book.gangs.values():
        if running.request.accelerator != kind or not may_be_stopped(running, scratch):
            continue
        if quotas.borrowed(running.tenant, kind) > 0 and quotas.same_cohort(gang.tenant, running.tenant):
            yield victim(running, StopReason.RECLAIMED, scratch)


def _leaves_for(gang: RunningGang, shape: Shape, scratch: Scratch) -> bool:
    mine, other = QOS_ORDER[gang.qos], QOS_ORDER[shape.qos]
    if other != mine or gang.qos is not QoS.PREEMPTIBLE or not scratch.policy.least_attained:
        return other < mine
    if shape.estimate is None or gang.started_at is None:
        return False
    # What ran for so long has probably as much before it; the other one is through sooner, the stop's price included.
    ran = scratch.now - gang.started_at
    since = scratch.policy.default_loss if gang.checkpointed_at is None else scratch.now - gang.checkpointed_at
    return ran > scratch.policy.least_attained * (shape.estimate + since + gang.restart_s)


def _shrunk(gang: RunningGang, scratch: Scratch) -> Victim | None:
    """The gang without what it has above its minimum; it restarts with the rest."""
    if len(gang.nodes) <= gang.fewest or not scratch.policy.elastic or gang.request.share:
        return None
    kept, freed = gang.nodes[: gang.fewest], gang.nodes[gang.fewest :]
    cost = loss(gang, scratch.policy, scratch.now) * len(kept) / len(gang.nodes)
    return Victim(gang, StopReason.RESIZED, freed, kept, cost, QOS_ORDER[gang.qos])
