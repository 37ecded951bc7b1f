"""The fair control for stage one: by age, on the least-loaded feasible cell, there by best fit; one may pass."""

from helios.scheduler import Snapshot
from helios.scheduler.scratch import Scratch
from helios.simulator.policies.serving import CONTROL, Blocked, Decisions, by_class, in_order, serve


class Control:
    """First come, first served where there is room."""

    name = "control"

    def decide(self, snapshot: Snapshot) -> Decisions:
        queue = in_order(snapshot, by_class(lambda gang: gang.submitted_at))
        return Decisions(tuple(serve(Scratch(snapshot, CONTROL), queue, blocked=Blocked.SKIP).admits))
