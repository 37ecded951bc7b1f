"""Tiresias: least attained service in two dimensions, in discrete queues, stopping what runs.

Gu et al., "Tiresias: A GPU Cluster Manager for Distributed Deep Learning", NSDI 2019 (Discretized-2DAS): a job's
priority falls when its attained service, devices times time, passes a threshold; within a queue it is first come,
first served; a job that waited for `KNOB` times what it has run is promoted to the first queue again. No run time
needs to be known. Two queues, as in their evaluation; restarts cost here what they cost everyone.
"""

from dataclasses import dataclass, field

from helios.scheduler import PendingGang, RunningGang, Snapshot
from helios.scheduler.scratch import Scratch
from helios.simulator.jobs import TraceJob
from helios.simulator.policies.preempting import make_room
from helios.simulator.policies.serving import CONTROL, Blocked, Decisions, by_class, in_order, serve

ROUND_S = 300.0
"""Seconds between two rounds of making room."""
THRESHOLD = 3.0 * 3600
"""Device-seconds of the first queue."""
KNOB = 8.0
"""Waits of so many times what it has run promote a job."""


@dataclass(slots=True)
class Tiresias:
    """The queue and what runs by attained service."""

    name: str = "tiresias"
    _held: dict[str, float] = field(default_factory=dict)
    _base: dict[str, float] = field(default_factory=dict)
    """What a job had held when it was promoted: its account began anew."""
    _stopped_at: dict[str, float] = field(default_factory=dict)
    _submitted_s: dict[str, float] = field(default_factory=dict)
    _next_round: float = 0.0

    def started(self, job: TraceJob, now: float) -> None:  # noqa: ARG002 - its signature
        """When it came, which orders a queue whether it runs or waits."""
        self._submitted_s[job.job_id] = job.submitted_s

    def stopped(self, job: TraceJob, now: float, held: float, done: float) -> None:  # noqa: ARG002 - its signature
        """What it has attained."""
        self._held[job.job_id] = held
        self._stopped_at[job.job_id] = now

    def decide(self, snapshot: Snapshot) -> Decisions:
        now = snapshot.now
        for gang in snapshot.pending:
            self._promote(gang, now)

        def queue_of(gang: PendingGang | RunningGang) -> float:
            attained = self._held.get(gang.uid, 0.0) - self._base.get(gang.uid, 0.0)
            if isinstance(gang, RunningGang):
                attained += gang.held * (now - (now if gang.started_at is None else gang.started_at))
            return float(attained >= THRESHOLD)

        def order(gang: PendingGang | RunningGang) -> tuple[float, ...]:
            came = gang.submitted_at if isinstance(gang, PendingGang) else self._submitted_s.get(gang.uid, now)
            return (queue_of(gang), came)

        queue = in_order(snapshot, by_class(queue_of))
        served = serve(Scratch(snapshot, CONTROL), queue, blocked=Blocked.SKIP)
        if not served.refused or now < self._next_round:
            return Decisions(tuple(served.admits), next_look=self._next_round if served.refused else None)
        self._next_round = now + ROUND_S
        return Decisions(tuple(served.admits), make_room(snapshot, served.refused, order), self._next_round)

    def _promote(self, gang: PendingGang, now: float) -> None:
        """It has waited for so long that it counts as new."""
        held = self._held.get(gang.uid, 0.0)
        attained = held - self._base.get(gang.uid, 0.0)
        waited = now - self._stopped_at.get(gang.uid, now)
        if attained >= THRESHOLD and waited > KNOB * attained / (gang.min_workers * gang.request.devices):
            self._base[gang.uid] = held
