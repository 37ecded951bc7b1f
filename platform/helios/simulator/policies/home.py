"""Every tenant in its own cell: best fit there, and no global stage. What static partitions cost.

The cells are sized by the true load of the tenants that live there (docs/decisions/0017), so that pooling alone is not
taken for a scheduler's gain.
"""

from collections.abc import Iterable
from dataclasses import replace

from helios.scheduler import Snapshot
from helios.scheduler.scratch import Scratch
from helios.simulator.jobs import TraceJob
from helios.simulator.policies.serving import CONTROL, Blocked, Decisions, by_class, in_order, serve


class Home:
    """Each cell serves its own tenants, by age; one that has no place is passed."""

    name = "home"

    def __init__(self, jobs: Iterable[TraceJob]) -> None:
        self._homes = {job.job_id: job.home for job in jobs}

    def decide(self, snapshot: Snapshot) -> Decisions:
        queue = in_order(snapshot, by_class(lambda gang: gang.submitted_at))
        at_home = [replace(gang, cells=(self._homes[gang.uid],)) if self._homes[gang.uid] else gang for gang in queue]
        return Decisions(tuple(serve(Scratch(snapshot, CONTROL), at_home, blocked=Blocked.SKIP).admits))
