"""Shortest job first, by the truth: an oracle, to see how far an order alone can go without stopping anything."""

from collections.abc import Iterable

from helios.scheduler import Snapshot
from helios.scheduler.scratch import Scratch
from helios.simulator.jobs import TraceJob
from helios.simulator.policies.serving import CONTROL, Blocked, Decisions, by_class, in_order, serve


class Sjf:
    """The queue by true run time."""

    name = "sjf-oracle"

    def __init__(self, jobs: Iterable[TraceJob]) -> None:
        self._true = {job.job_id: job.duration_s for job in jobs}

    def decide(self, snapshot: Snapshot) -> Decisions:
        queue = in_order(snapshot, by_class(lambda gang: self._true[gang.uid]))
        return Decisions(tuple(serve(Scratch(snapshot, CONTROL), queue, blocked=Blocked.SKIP).admits))
