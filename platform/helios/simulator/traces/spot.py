"""Alibaba's spot-GPU trace (GFS, ASPLOS 2026), of which only tables are published that somebody made from its jobs.

Source: sultanul-ovi/GPU-Cluster-Spot-Resource-Dataset-Analysis (MIT), not checked against the 466,867 jobs, which are
not there. The tables are distributions of one thing at a time; how duration, size and hour hang together is not known.
A workload drawn from them is synthetic in every column. Jobs that ran already when the record began are all counted in
its first hour, so hour of day 0 and day 0 look busier than they were.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helios.errors import InputError
from helios.simulator.traces.folder import trace_file
from helios.simulator.traces.table import Floats, Ints, Table, read_table
from helios.simulator.traces.trace import DAY_S, NODE_GPUS, WEEK_S, Trace, cut_to_nodes
from helios.spec import QoS

NAME = "alibaba-spot-gpu-2026"
LONGEST_S = 15_897_599.0
"""Duration of its longest jobs (`agg_longest_jobs_top200.csv`): the whole record, 184 days."""
LARGEST = 1408
"""GPUs of its largest job by GPU time: 176 workers of 8 (`agg_heaviest_gpu_jobs_top200.csv`)."""
Buckets = Mapping[str, tuple[float, float]]
DURATIONS: Buckets = {
    "0 to 1 min": (1, 60), "1 to 10 min": (60, 600), "10 to 60 min": (600, 3600), "1 to 6 hours": (3600, 21_600),
    "6 to 24 hours": (21_600, DAY_S), "1 to 3 days": (DAY_S, 3 * DAY_S), "over 3 days": (3 * DAY_S, LONGEST_S),
}  # fmt: skip
"""Seconds of each bucket of the tables."""
DEMANDS: dict[str, tuple[int, int]] = {
    "0": (0, 0), "1": (1, 1), "2 to 4": (2, 4), "5 to 8": (5, 8), "9 to 16": (9, 16), "17 to 32": (17, 32),
    "33 to 64": (33, 64), "65 to 128": (65, 128), "129 plus": (129, LARGEST),
}  # fmt: skip
"""GPUs of each bucket of the tables; "0" holds parts of a GPU."""
TYPES = {"HP": QoS.STANDARD, "Spot": QoS.PREEMPTIBLE}
HOURS = {str(hour): str(hour) for hour in range(24)}
COUNT = 10**12
SYNTHETIC = frozenset({"submitted_s", "duration_s", "workers", "gpus", "tenant", "qos", "group"})


@dataclass(frozen=True)
class SpotTables:
    """What is published; shares add up to 1.

    Attributes:
        types: share of jobs and share of GPU time of each job type.
        workers: how many jobs have how many workers: (workers, jobs), `[W]` each.
        durations: quantiles of the duration in seconds.
        duration_shares: share of jobs by bucket of `DURATIONS`.
        demand_shares: share of jobs by bucket of `DEMANDS`.
        hours: jobs submitted by hour of day, `[24]`; hour 0 has those that ran before as well.
        gaps: quantiles of the seconds between two submissions.
    """

    types: dict[str, tuple[float, float]]
    workers: tuple[Ints, Ints]
    durations: dict[float, float]
    duration_shares: dict[str, float]
    demand_shares: dict[str, float]
    hours: Ints
    gaps: dict[float, float]

    @property
    def duration_curve(self) -> tuple[Floats, Floats]:
        """The distribution of durations: shares of jobs, and the logarithm of the seconds that they stay below."""
        below = np.cumsum(list(self.duration_shares.values()))
        points = {0.0: 1.0, **self.durations, 1.0: LONGEST_S}
        points |= {share: DURATIONS[name][1] for share, name in zip(below[:-1], self.duration_shares, strict=False)}
        shares = np.array(sorted(points))
        seconds = np.array([points[share] for share in shares.tolist()])
        return shares, np.log(np.maximum.accumulate(seconds))


def load_spot(folder: Path) -> SpotTables:
    """Read the tables.

    Raises:
        InputError: where one is missing.
        SpecError: with the rows that are wrong.
    """
    types = _table(folder, "agg_job_type_shares", "type", "jobs_share", "gpu_seconds_share")
    counts = _table(folder, "agg_worker_count_distribution", "worker_num", "jobs")
    gaps = _table(folder, "agg_inter_arrival_quantiles", "quantile", "seconds")
    durations = _table(folder, "agg_duration_quantiles", "", "duration_seconds")
    found = SpotTables(
        types=dict(zip(types.words("type", _same(TYPES)), _pairs(types), strict=True)),
        workers=(_whole(counts, "worker_num", 1), _whole(counts, "jobs", 0)),
        durations=_quantiles(durations, "", "duration_seconds"),
        duration_shares=_buckets(folder, "agg_bucket_duration", "duration_bucket", DURATIONS),
        demand_shares=_buckets(folder, "agg_bucket_gpu_demand", "gpu_demand_bucket", DEMANDS),
        hours=_hours(folder),
        gaps=_quantiles(gaps, "quantile", "seconds"),
    )
    for table in (types, counts, gaps, durations):
        table.findings.stop()
    return found


def draw_trace(tables: SpotTables, jobs: int, weeks: int, seed: int) -> Trace:
    """A trace drawn from the tables, each column by itself: synthetic throughout, and labelled so.

    Submissions are a Poisson process whose rate follows the hours of day. Between two published points of their
    distribution durations lie evenly on a logarithmic scale; sizes lie evenly within their bucket, those above 8 in
    eights. Jobs that ask for a part of a GPU (10% of the jobs, 0.8% of their GPU time) are left out. The one tenant is
    `spot`.
    """
    if jobs < 1 or weeks < 1:
        raise InputError(f"expected at least one job and one week, got {jobs} jobs and {weeks} weeks")
    hour, moment, length, size, kind = (np.random.default_rng([seed, column]).random(jobs) for column in range(5))
    durations = np.exp(np.interp(length, *tables.duration_curve))
    gpus = _sizes(size, tables.demand_shares)
    submitted = _moments(hour, moment, tables.hours, weeks)
    order = np.argsort(submitted, kind="stable")
    workers, each = cut_to_nodes(gpus)
    preemptible = kind < tables.types["Spot"][0]
    classes = np.where(preemptible, TYPES["Spot"], TYPES["HP"]).astype(object)
    return Trace(
        name=NAME,
        file="",
        weeks=weeks,
        job_ids=tuple(map(str, range(jobs))),
        lines=np.zeros(jobs, np.int64),
        submitted_s=submitted[order],
        duration_s=np.ceil(durations)[order],
        workers=workers[order],
        gpus=each[order],
        share=np.zeros(jobs, np.int64),
        tenant=np.zeros(jobs, np.int64),
        tenants=("spot",),
        given={"qos": np.array([QoS(one) for one in classes[order]], object)},
        synthetic=SYNTHETIC,
        notes=(f"{NAME}: {jobs} jobs drawn from published tables, each column by itself; nothing of it was recorded.",),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """One published figure, and the same of a trace."""

    name: str
    published: float
    found: float


def compare(trace: Trace, tables: SpotTables) -> tuple[Comparison, ...]:
    """How far a trace's jobs are from the published tables: sizes, durations and the share of preemptible jobs."""
    rows = [
        Comparison(f"duration_s at {share:.0%}", seconds, float(np.quantile(trace.duration_s, share)))
        for share, seconds in tables.durations.items()
    ]
    for bucket, (fewest, most) in DEMANDS.items():
        inside = (trace.devices >= fewest) & (trace.devices <= most) if fewest else trace.devices < 1
        rows.append(Comparison(f"share of jobs, {bucket} GPUs", tables.demand_shares[bucket], float(inside.mean())))
    alone = float(tables.workers[1][tables.workers[0] == 1].sum() / tables.workers[1].sum())
    rows.append(Comparison("share of jobs with one worker", alone, float((trace.workers == 1).mean())))
    if "qos" in trace.given:
        spot = trace.given["qos"] == QoS.PREEMPTIBLE
        time = float(trace.work[spot].sum() / trace.work.sum())
        rows.append(Comparison("share of jobs, preemptible", tables.types["Spot"][0], float(spot.mean())))
        rows.append(Comparison("share of GPU time, preemptible", tables.types["Spot"][1], time))
    return tuple(rows)


def _moments(hour: Floats, moment: Floats, hours: Ints, weeks: int) -> Floats:
    """Submissions by hour of day; `hour` and `moment` are even on [0, 1).

    Hour 0 is taken to be as busy as hours 1 and 23 are in the mean, since the table counts what ran before in it.
    """
    rates = hours.astype(np.float64)
    rates[0] = (rates[1] + rates[23]) / 2
    edges = np.cumsum(rates) / rates.sum()
    of_day = np.minimum(np.searchsorted(edges, hour, side="right"), 23)
    day = np.floor(moment * weeks * 7)
    within = moment * weeks * 7 - day
    seconds: Floats = day * DAY_S + (of_day + within) * 3600.0
    return np.minimum(seconds, weeks * WEEK_S - 1.0)


def _sizes(even: Floats, shares: dict[str, float]) -> Ints:
    """GPUs for even numbers on [0, 1): the bucket by its share, and evenly within it."""
    buckets = [bucket for bucket in shares if DEMANDS[bucket][0]]
    edges = np.cumsum([shares[bucket] for bucket in buckets])
    edges = np.concatenate([[0.0], edges / edges[-1]])
    place = np.minimum(np.searchsorted(edges, even, side="right") - 1, len(buckets) - 1)
    within = (even - edges[place]) / (edges[place + 1] - edges[place])
    fewest, most = np.array([DEMANDS[bucket] for bucket in buckets]).T
    gpus = np.minimum(fewest[place] + np.floor(within * (most - fewest + 1)[place]), most[place]).astype(np.int64)
    eights: Ints = -(-gpus // NODE_GPUS) * NODE_GPUS
    return np.where(gpus > NODE_GPUS, eights, gpus)


def _table(folder: Path, name: str, *columns: str) -> Table:
    return read_table(trace_file(folder, NAME, f"{name}.csv"), columns, closed=False)


def _same(names: dict[str, QoS]) -> dict[str, str]:
    return {name: name for name in names}


def _whole(table: Table, column: str, least: int) -> Ints:
    return table.whole(column, f"a whole number, {least} or more", least=least, most=COUNT)


def _shares(table: Table, column: str) -> Floats:
    return table.numbers(column, "a share from 0 to 1", least=0, most=1)


def _pairs(table: Table) -> list[tuple[float, float]]:
    return list(zip(_shares(table, "jobs_share").tolist(), _shares(table, "gpu_seconds_share").tolist(), strict=True))


def _quantiles(table: Table, column: str, values: str) -> dict[float, float]:
    seconds = table.numbers(values, "seconds", least=0, most=COUNT)
    return dict(zip(_shares(table, column).tolist(), seconds.tolist(), strict=True))


def _buckets(folder: Path, name: str, column: str, known: Collection[str]) -> dict[str, float]:
    table = _table(folder, name, column, "jobs_share")
    names = table.words(column, {bucket: bucket for bucket in known})
    shares = _shares(table, "jobs_share")
    table.findings.stop()
    found = dict(zip(names, shares.tolist(), strict=True))
    if set(found) != set(known) or abs(sum(found.values()) - 1) > 1e-6:
        raise InputError(f"{table.file}: expected shares that add up to 1 for {', '.join(known)}")
    return {bucket: found[bucket] for bucket in known}


def _hours(folder: Path) -> Ints:
    table = _table(folder, "agg_hour_of_day_patterns", "hour_of_day", "jobs")
    names = table.words("hour_of_day", HOURS)
    jobs = _whole(table, "jobs", 0)
    table.findings.stop()
    if names != list(HOURS):
        raise InputError(f"{table.file}: expected the hours 0 to 23 in their order")
    return jobs
