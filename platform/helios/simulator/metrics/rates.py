"""Where a fleet's device-seconds went within the window: four rates kept apart, by cell, and fragmentation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from helios.simulator.metrics.columns import Fleet, Jobs


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the healthy device-seconds of the window.

    `allocated` and `stranded` are integrals of the samples. What was productive and what was lost is known of a whole
    job only: the share of its device-seconds that lies in the window decides how much of each counts. Jobs of the
    warm-up and the tail are among them. What the two ways differ by is `unaccounted`: near 0, or something is wrong.

    Attributes:
        lost: the sum of the four that follow it.
        rollback: work done again after a preemption or failure.
        restart: first starts and restarts.
        idle: held without work.
        failed: work of jobs that failed for good.
        stranded: free, while gangs wait that do not fit.
        fragmentation: of the devices that are free while any gang waits, the share that is stranded; NaN if none is.
    """

    allocated: float
    productive: float
    lost: float
    rollback: float
    restart: float
    idle: float
    failed: float
    stranded: float
    unaccounted: float
    fragmentation: float


@dataclass(frozen=True, slots=True)
class CellRates:
    """One cell's shares of its own healthy device-seconds, by the samples; `devices` is the mean that was healthy."""

    devices: float
    allocated: float
    productive: float
    stranded: float


def rates(jobs: Jobs, fleet: Fleet) -> Rates:
    healthy = float((fleet.weight_s @ fleet.healthy).sum())
    allocated = float((fleet.weight_s @ fleet.allocated).sum()) / healthy
    stranded = float((fleet.weight_s @ fleet.stranded).sum())
    split = {
        name: float(jobs.present @ column) / healthy
        for name, column in (
            ("rollback", jobs.recomputed),
            ("restart", jobs.starting),
            ("idle", jobs.idle),
            ("failed", jobs.failed),
        )
    }
    lost, productive = sum(split.values()), float(jobs.present @ jobs.productive) / healthy
    waiting = fleet.weight_s * fleet.waiting
    free = float((waiting @ (fleet.healthy - fleet.allocated)).sum())
    return Rates(
        allocated=allocated,
        productive=productive,
        lost=lost,
        stranded=stranded / healthy,
        unaccounted=allocated - productive - lost,
        fragmentation=stranded / free if free > 0 else math.nan,
        **split,
    )


def cell_rates(fleet: Fleet) -> Mapping[str, CellRates]:
    """Rates by cell; a cell that was never healthy in the window has none."""
    seconds = fleet.weight_s.sum()
    healthy = fleet.weight_s @ fleet.healthy
    allocated, productive, stranded = (
        fleet.weight_s @ values for values in (fleet.allocated, fleet.productive, fleet.stranded)
    )
    return {
        cell: CellRates(
            devices=float(healthy[at] / seconds),
            allocated=float(allocated[at] / healthy[at]),
            productive=float(productive[at] / healthy[at]),
            stranded=float(stranded[at] / healthy[at]),
        )
        for at, cell in enumerate(fleet.cells)
        if healthy[at] > 0
    }
