"""Quasi-shortest-service-first: the queue by predicted GPU time, nothing is stopped.

Hu et al., "Characterization and Prediction of Deep Learning Workloads in Large-Scale GPU Datacenters", SC 2021. Their
predictor knows users and job names; ours is the one that every policy here is given (helios.scheduler.estimates):
finished jobs of the same group, and what the owner says.
"""

from helios.scheduler import Snapshot
from helios.scheduler.scratch import Scratch
from helios.simulator.policies.serving import CONTROL, Blocked, Decisions, by_class, in_order, serve

UNKNOWN_S = 86_400.0
"""Taken for the run time of what nothing is known of."""


class Qssf:
    """The queue by predicted run time times devices."""

    name = "qssf"

    def decide(self, snapshot: Snapshot) -> Decisions:
        queue = in_order(
            snapshot,
            by_class(lambda gang: (gang.estimate or UNKNOWN_S) * gang.min_workers * max(gang.request.devices, 0.01)),
        )
        return Decisions(tuple(serve(Scratch(snapshot, CONTROL), queue, blocked=Blocked.SKIP).admits))
