"""First in, first out: who came first is served first, and whoever has no place holds up those behind.

With EASY backfilling: Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995; the head of the queue gets a reservation,
and others pass where they do not delay it, by the estimates.
"""

from dataclasses import dataclass

from helios.scheduler import Snapshot
from helios.scheduler.scratch import Scratch
from helios.simulator.policies.serving import CONTROL, Blocked, Decisions, by_class, in_order, serve


@dataclass(frozen=True, slots=True)
class Fifo:
    """The queue by age; `easy` lets others pass where that does not delay its head."""

    easy: bool = False

    @property
    def name(self) -> str:
        return "fifo-easy" if self.easy else "fifo"

    def decide(self, snapshot: Snapshot) -> Decisions:
        queue = in_order(snapshot, by_class(lambda gang: gang.submitted_at))
        blocked = Blocked.EASY if self.easy else Blocked.STOP
        return Decisions(tuple(serve(Scratch(snapshot, CONTROL), queue, blocked=blocked).admits))
