"""One pass over the runs of a report: each is measured, written to the raw tables and forgotten but for its picture."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helios.simulator.metrics import Jobs, Objectives, RunMetrics, fleet_of, jobs_of, measure
from helios.simulator.metrics.columns import Floats, Ints
from helios.simulator.outcomes import RunResult, Stay
from helios.simulator.report.runs import load_names
from helios.simulator.report.tables import jobs_table
from helios.spec import QoS

EXCERPT_S = 2 * 86_400.0
"""Seconds that the Gantt chart shows: of the middle of the window, so that nobody chose them."""

GRID_S: Floats = np.concatenate(([0.0], np.geomspace(1.0, 1e8, 401)))
"""Delays at which the distributions are counted."""


@dataclass(frozen=True)
class Picture:
    """What the charts of one run need.

    Attributes:
        at_s: moments of the samples, seconds since the run began.
        used: allocated over healthy devices [moment, cell]; NaN where none was healthy.
        devices: the most that were healthy, by cell.
        stays: those that lie in the excerpt, at least in part.
        qos: of their jobs.
        excerpt: seconds (from, to).
    """

    policy: str
    load: float
    seed: int
    window: tuple[float, float]
    at_s: Floats
    cells: tuple[str, ...]
    used: Floats
    devices: Mapping[str, float]
    stays: tuple[Stay, ...]
    qos: Mapping[str, QoS]
    excerpt: tuple[float, float]


@dataclass
class Collected:
    """All that is kept of the runs.

    Attributes:
        delays: jobs by delay, counted up to each of `GRID_S`, for each trace, policy, load and class.
        pictures: of the first seed, at the load nearest to the reference, by trace and policy.
    """

    runs: list[RunMetrics] = field(default_factory=list)
    delays: dict[tuple[str, str, float, QoS], Ints] = field(default_factory=dict)
    pictures: dict[tuple[str, str], Picture] = field(default_factory=dict)

    def delays_at(self, trace: str, load: float) -> Mapping[tuple[str, QoS], Ints]:
        """Counts by policy and class over all seeds, at the load that has this name."""
        names = load_names([run for run in self.runs if run.trace == trace])
        found: dict[tuple[str, QoS], Ints] = {}
        for (of, policy, exact, qos), counts in self.delays.items():
            if of == trace and names[exact] == load:
                found[policy, qos] = found.get((policy, qos), 0) + counts
        return found


def collect(
    results: Iterable[RunResult],
    table: Path,
    *,
    objectives: Objectives,
    reference: float,
    alone: Iterable[RunResult] = (),
) -> Collected:
    """Measure runs one at a time, so that any number fits in memory, and write a row of `table` for each job of each.

    Args:
        reference: load of which pictures are kept.
        alone: runs of the same traces, loads and seeds in which each tenant has nothing but its own quota.
    """
    kept = Collected()
    separate = {(run.trace, run.load, run.seed): jobs_of(run) for run in alone}
    with jobs_table(table) as write:
        for result in results:
            write(result)
            jobs = jobs_of(result)
            baseline = separate.get((result.trace, result.load, result.seed))
            kept.runs.append(measure(result, objectives, jobs=jobs, alone=baseline))
            for qos, counts in _delays(jobs):
                key = (result.trace, result.policy, result.load, qos)
                kept.delays[key] = kept.delays.get(key, np.zeros(len(GRID_S), dtype=np.int64)) + counts
            at = (result.trace, result.policy)
            if at not in kept.pictures or _nearer(result, kept.pictures[at], reference):
                kept.pictures[at] = picture(result)
    return kept


def _delays(jobs: Jobs) -> Iterator[tuple[QoS, Ints]]:
    for qos in QoS:
        values = np.sort(jobs.delay_s[jobs.measured & (jobs.qos == qos.value)])
        yield qos, np.searchsorted(values, GRID_S, side="right").astype(np.int64)


def _nearer(result: RunResult, than: Picture, reference: float) -> bool:
    return (abs(result.load - reference), result.load, result.seed) < (
        abs(than.load - reference),
        than.load,
        than.seed,
    )


def picture(result: RunResult, excerpt: tuple[float, float] | None = None) -> Picture:
    """What the charts of a run need; stays of the middle of its window, where no excerpt is named."""
    since, until = result.window
    middle = (since + until) / 2
    excerpt = excerpt or (max(since, middle - EXCERPT_S / 2), min(until, middle + EXCERPT_S / 2))
    stays = tuple(stay for stay in result.stays if stay.since_s < excerpt[1] and stay.until_s > excerpt[0])
    shown = {stay.job_id for stay in stays}
    fleet = fleet_of(result)
    with np.errstate(invalid="ignore", divide="ignore"):
        used = np.where(fleet.healthy > 0, fleet.allocated / fleet.healthy, np.nan)
    return Picture(
        policy=result.policy,
        load=result.load,
        seed=result.seed,
        window=result.window,
        at_s=fleet.at_s,
        cells=fleet.cells,
        used=used,
        devices=dict(zip(fleet.cells, fleet.healthy.max(axis=0).tolist(), strict=True)),
        stays=stays,
        qos={outcome.job_id: outcome.qos for outcome in result.outcomes if outcome.job_id in shown},
        excerpt=excerpt,
    )
