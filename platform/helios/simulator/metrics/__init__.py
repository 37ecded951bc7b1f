"""What a simulated run came to, and whether one policy is better than another: pure functions of `RunResult`."""

from helios.simulator.metrics.bootstrap import Comparison, Estimate, interval, paired
from helios.simulator.metrics.bounds import Bounds, bounds, pooled_completion
from helios.simulator.metrics.capacity import Capacity, Censored, capacity_ratio, highest_load
from helios.simulator.metrics.columns import Fleet, Jobs, fleet_of, jobs_of
from helios.simulator.metrics.distribution import Distribution
from helios.simulator.metrics.fairness import Fairness, Tenant, against, fairness, finish_alone, jain
from helios.simulator.metrics.groups import Group
from helios.simulator.metrics.objectives import Measure, Objective, Objectives, attained
from helios.simulator.metrics.rates import CellRates, Rates
from helios.simulator.metrics.run import RunMetrics, flat, flat_group, measure

__all__ = [
    "Bounds",
    "Capacity",
    "CellRates",
    "Censored",
    "Comparison",
    "Distribution",
    "Estimate",
    "Fairness",
    "Fleet",
    "Group",
    "Jobs",
    "Measure",
    "Objective",
    "Objectives",
    "Rates",
    "RunMetrics",
    "Tenant",
    "against",
    "attained",
    "bounds",
    "capacity_ratio",
    "fairness",
    "finish_alone",
    "flat",
    "flat_group",
    "fleet_of",
    "highest_load",
    "interval",
    "jain",
    "jobs_of",
    "measure",
    "paired",
    "pooled_completion",
]
