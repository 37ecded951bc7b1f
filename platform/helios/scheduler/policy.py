"""The numbers that a scheduling cycle goes by; the rest of its behaviour is in the code."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from helios.spec import CapacityType, QoS

_EVERYTHING = frozenset(CapacityType)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a fleet is scheduled.

    Attributes:
        patience: seconds after which a waiting gang of a class goes ahead of all fair shares, in order of age, with a
            reservation: the bound on starvation (docs/concepts/scheduling.md).
        half_life: seconds after which a tenant's past use counts half.
        short_first: how much the expected length of a gang counts in the order of a class: 0 is by age, 1 by response
            ratio (wait over expected run).
        size_weight: how much its number of devices counts in that: 1 orders by device-seconds.
        head_start: seconds of wait that each gang has from the beginning, so that short ones need not wait first.
        fair_share: how much it counts what the tenant holds and has had lately: 0 is not at all.
        unknown_estimate: seconds that a gang is taken to run of which nothing is known.
        backfill: whether gangs may pass one that waits with a reservation; without it the head of a class blocks it.
        reservations: how many gangs, the first of those that wait, may have one; one a cell at most.
        preemption: whether gangs may be asked to leave for others.
        min_run: seconds that a gang of a class runs before it may be preempted, from its admission.
        preempt_after: seconds that a gang of a class has waited before others are stopped for it.
        at_any_cost: classes for which others are stopped whatever that loses; for the rest it must lose less than the
            wait that it saves.
        preemption_gap: seconds between two grants, fleet-wide.
        preemption_tokens: gangs for which others are stopped in one cycle; each gets one token.
        urgency: how many lost device-seconds a device-second of a class's wait is worth.
        least_attained: a `preemptible` gang that ran for so many times what another of its class will take, the price
            of the stop included, makes room for it, if it ever wrote a checkpoint; 0: never.
        preemption_tries: gangs for which a way is looked for in one cycle.
        leaving: seconds within which a place that is foreseen is waited for, and nobody is stopped.
        job_budget: preemptions of one gang, after which it is left alone.
        tenant_budget: preemptions of one tenant's gangs within the window, after which they are left alone.
        default_loss: seconds of work that a gang is charged which never said that it wrote a checkpoint.
        elastic: whether running gangs are grown and shrunk.
        resize_gap: seconds that a gang runs between two resizes.
        speedup: exponent of the work done by n workers: n ** speedup.
        topology: whether gangs are kept within racks, blocks and fabrics.
        domain_penalty: share of a gang's speed that is lost at each wider domain (rack, block, fabric, cell).
        fragmentation: weight of the fragmentation gradient where nodes are chosen; 0 is best fit.
        defragmentation: whether gangs are moved to make a whole place.
        spread: USD that it costs to put a gang where all of its kind already are (blast radius).
        device_hour: USD that an idle device costs an hour, to weigh waiting against prices.
        capacity_types: of the nodes that a class may use.
        speeds: relative speed by accelerator type; 1 where it is missing.
        global_stage: `helios`, or `least_loaded` (the control: the feasible cell with the lowest allocated share).
        cell_stage: `helios`, or `best_fit` (the control).
    """

    patience: Mapping[QoS, float] = field(
        default_factory=lambda: {QoS.GUARANTEED: 300.0, QoS.STANDARD: 86_400.0, QoS.PREEMPTIBLE: 7 * 86_400.0}
    )
    half_life: float = 7 * 86_400.0
    short_first: float = 1.0
    size_weight: float = 0.5
    head_start: float = 600.0
    fair_share: float = 0.5
    unknown_estimate: float = 86_400.0
    backfill: bool = True
    reservations: int = 16
    preemption: bool = True
    min_run: Mapping[QoS, float] = field(default_factory=lambda: {QoS.STANDARD: 1800.0, QoS.PREEMPTIBLE: 120.0})
    preempt_after: Mapping[QoS, float] = field(default_factory=lambda: {QoS.PREEMPTIBLE: 60.0})
    at_any_cost: frozenset[QoS] = frozenset({QoS.GUARANTEED})
    preemption_gap: float = 0.0
    preemption_tokens: int = 16
    urgency: Mapping[QoS, float] = field(default_factory=lambda: {QoS.STANDARD: 4.0, QoS.PREEMPTIBLE: 0.25})
    least_attained: float = 1.0
    preemption_tries: int = 64
    leaving: float = 120.0
    job_budget: int = 5
    tenant_budget: int = 1000
    default_loss: float = 3600.0
    elastic: bool = True
    resize_gap: float = 1800.0
    speedup: float = 0.9
    topology: bool = True
    domain_penalty: float = 0.03
    fragmentation: float = 1.0
    defragmentation: bool = True
    spread: float = 10.0
    device_hour: float = 2.0
    capacity_types: Mapping[QoS, frozenset[CapacityType]] = field(
        default_factory=lambda: {
            QoS.GUARANTEED: frozenset({CapacityType.RESERVED, CapacityType.ON_DEMAND}),
            QoS.STANDARD: _EVERYTHING,
            QoS.PREEMPTIBLE: _EVERYTHING,
        }
    )
    speeds: Mapping[str, float] = field(default_factory=dict)
    global_stage: str = "helios"
    cell_stage: str = "helios"
