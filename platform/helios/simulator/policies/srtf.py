"""Shortest remaining time first, by the truth, stopping what runs: an oracle, the best known order for mean times.

Schrage, "A Proof of the Optimality of the Shortest Remaining Processing Time Discipline", Operations Research 1968 (one
server, no costs); here with restarts at their cost, so stopped only where a quarter of an hour is behind a gang.
"""

from collections.abc import Iterable

from helios.scheduler import PendingGang, RunningGang, Snapshot
from helios.scheduler.scratch import Scratch
from helios.simulator.jobs import TraceJob
from helios.simulator.policies.preempting import make_room
from helios.simulator.policies.serving import CONTROL, Blocked, Decisions, by_class, in_order, serve

ROUND_S = 300.0
"""Seconds between two rounds of making room."""


class Srtf:
    """The queue and what runs by true time left."""

    name = "srtf-oracle"

    def __init__(self, jobs: Iterable[TraceJob]) -> None:
        self._left = {job.job_id: job.duration_s for job in jobs}
        self._true = dict(self._left)
        self._next_round = 0.0

    def stopped(self, job: TraceJob, now: float, held: float, done: float) -> None:  # noqa: ARG002 - its signature
        """What is left of it is known to an oracle."""
        self._left[job.job_id] = max(0.0, self._true[job.job_id] - done)

    def decide(self, snapshot: Snapshot) -> Decisions:
        queue = in_order(snapshot, by_class(lambda gang: self._left[gang.uid]))
        served = serve(Scratch(snapshot, CONTROL), queue, blocked=Blocked.SKIP)
        if not served.refused or snapshot.now < self._next_round:
            return Decisions(tuple(served.admits), next_look=self._next_round if served.refused else None)
        self._next_round = snapshot.now + ROUND_S

        def order(gang: PendingGang | RunningGang) -> tuple[float, ...]:
            left = self._left[gang.uid]
            if isinstance(gang, RunningGang) and gang.started_at is not None:
                left = max(0.0, left - (snapshot.now - gang.started_at)) - gang.restart_s
            return (left,)

        changes = make_room(snapshot, served.refused, order)
        return Decisions(tuple(served.admits), changes, self._next_round)
