"""All metrics of one run, nested and as one row."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from helios.simulator.metrics.bounds import Bounds, bounds
from helios.simulator.metrics.columns import Jobs, fleet_of, jobs_of, of_class
from helios.simulator.metrics.fairness import TOLERANCE, Fairness, against, fairness
from helios.simulator.metrics.groups import Group, group
from helios.simulator.metrics.objectives import Objectives, attained
from helios.simulator.metrics.rates import CellRates, Rates, cell_rates, rates
from helios.simulator.outcomes import RunResult
from helios.spec import QoS


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """What a run came to.

    Attributes:
        jobs: all measured jobs.
        tenants: measured jobs by tenant.
        devices: healthy ones, the mean over the window.
        cycle_s: processor seconds of a scheduling cycle, the mean; NaN where none was run.
    """

    policy: str
    trace: str
    load: float
    seed: int
    window: tuple[float, float]
    jobs: Group
    classes: Mapping[QoS, Group]
    tenants: Mapping[str, Group]
    rates: Rates
    cells: Mapping[str, CellRates]
    fairness: Fairness
    bounds: Bounds
    devices: float
    cycle_s: float


def measure(
    result: RunResult,
    objectives: Objectives | None = None,
    *,
    tolerance: float = TOLERANCE,
    jobs: Jobs | None = None,
    alone: Jobs | None = None,
) -> RunMetrics:
    """Compute all metrics of a run.

    Args:
        tolerance: share by which a tenant's mean completion time may be longer than alone.
        jobs: the run's outcomes as columns, where the caller has them already.
        alone: outcomes of the same workload where each tenant has nothing but its own quota; without them, what it
            would do there is computed (`finish_alone`).

    Raises:
        InputError: the window has no sample of a healthy device.
    """
    jobs = jobs_of(result) if jobs is None else jobs
    fleet = fleet_of(result)
    measured = jobs.where(jobs.measured)
    ending = jobs.where(jobs.ends)
    kept, undecided = attained(measured, objectives or Objectives())

    def part(mask: np.ndarray) -> Group:
        return group(measured.where(mask), kept[mask], undecided[mask])

    names = sorted(set(measured.tenant.tolist()))
    quotas = result.quotas
    devices = float((fleet.weight_s @ fleet.healthy).sum() / fleet.weight_s.sum())
    return RunMetrics(
        policy=result.policy,
        trace=result.trace,
        load=result.load,
        seed=result.seed,
        window=result.window,
        jobs=group(measured, kept, undecided),
        classes={qos: part(of_class(measured, qos)) for qos in QoS},
        tenants={name: part(np.asarray(measured.tenant == name)) for name in names},
        rates=rates(jobs, fleet),
        cells=cell_rates(fleet),
        fairness=fairness(ending, quotas, devices, tolerance=tolerance)
        if alone is None
        else against(ending, alone, quotas, tolerance=tolerance),
        bounds=bounds(ending.where(ending.measured), result.load, float(fleet.healthy.sum(axis=1).max())),
        devices=devices,
        cycle_s=result.scheduling_s / result.cycles if result.cycles else math.nan,
    )


def flat(metrics: RunMetrics) -> dict[str, float]:
    """All figures of a run but those of single tenants and cells, by name: `standard.delay.p99`, `rates.lost`."""
    row: dict[str, float] = {}
    for name, each in (("all", metrics.jobs), *((qos.value, metrics.classes[qos]) for qos in QoS)):
        row |= {f"{name}.{key}": value for key, value in flat_group(each).items()}
    row |= {f"rates.{name}": value for name, value in asdict(metrics.rates).items()}
    row |= {f"bounds.{name}": value for name, value in asdict(metrics.bounds).items()}
    row |= {f"rho.{name}": value for name, value in asdict(metrics.fairness.rho).items()}
    return row | {
        "jain": metrics.fairness.jain,
        "tenants": len(metrics.tenants),
        "tenants.worse_off": len(metrics.fairness.worse_off),
        "devices": metrics.devices,
        "cycle_s": metrics.cycle_s,
    }


def flat_group(of: Group) -> dict[str, float]:
    """A group's figures by name; `lost` is the sum of its four kinds."""
    row: dict[str, float] = {}
    for name, value in asdict(of).items():
        row |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return row | {"lost": of.lost}
