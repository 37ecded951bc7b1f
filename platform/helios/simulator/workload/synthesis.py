"""What no trace says of a job, made up: the class, estimate, checkpoints, elasticity, failures and data of each.

Each thing is read off its own column of numbers that are even on [0, 1), so that to sweep one setting changes nothing
else. Every field that is made up here is named in `TraceJob.synthetic`.

Estimates follow what is known of those that people give. They take few values (20 of them for about 90% of the jobs),
and are no multiple of the run time, which would tell a scheduler too much: Tsafrir, Etsion and Feitelson, "Modeling
User Runtime Estimates", JSSPP 2005; Tsafrir, "Using Inaccurate Estimates Accurately", JSSPP 2010. The share of an
estimate that a job uses is about even between nothing and all: Mu'alem and Feitelson, IEEE TPDS 12(6), 2001. Here no
job is killed at its estimate, so some are too short as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from helios.errors import InputError
from helios.simulator.traces.table import Bools, Floats, Ints
from helios.simulator.traces.trace import NODE_GPUS
from helios.spec import QoS

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
ROUND_S: Floats = np.array(
    [minutes * MINUTE_S for minutes in (5, 10, 15, 20, 30)]
    + [hours * HOUR_S for hours in (1, 2, 3, 4, 6, 8, 12, 18)]
    + [days * DAY_S for days in (1, 2, 3, 5, 7, 14, 28)]
)
"""The twenty values that estimates take."""
HABITS_S = (6 * HOUR_S, DAY_S, 3 * DAY_S, 7 * DAY_S)
"""What a tenant's people write who do not think about it; one for each tenant."""
Range = tuple[float, float]

QOS, ELASTIC, SAID, SORT, USED, WRITES, EVERY, COST, RESTART, HAS_DATA, GIB, WHERE, CELL, FAILS = range(14)
"""Columns of the even numbers."""


@dataclass(frozen=True, slots=True)
class Synthesis:
    """Shares of jobs, from 0 to 1, and ranges, from least to most.

    Attributes:
        guaranteed: share that is of class `guaranteed`.
        preemptible: share that is of class `preemptible`; the rest is `standard`.
        estimated: share whose owner gives an estimate.
        habitual: share of these estimates that is the tenant's habit, or the next round value that is long enough.
        short: share of these estimates that is shorter than the job.
        used: share of the estimate that a job uses, before it is rounded up; evenly within the range.
        checkpointed: share that writes checkpoints.
        checkpoint_s: seconds of work between two, evenly on a logarithmic scale.
        checkpoint_cost_s: seconds that writing one takes.
        restart_s: seconds from an admission to work, evenly on a logarithmic scale.
        elastic: share that is elastic, of those with at least `elastic_gpus` devices that two or more workers share.
        elastic_gpus: devices that an elastic job has at least.
        elastic_least: share of its workers that an elastic job can do with.
        failing: share that fails for good after the work that the trace recorded.
        with_data: share whose input lies in some cell's bucket.
        data_gib: GiB of it, evenly on a logarithmic scale.
        data_home: share of the inputs that lies in the tenant's home cell; the rest lies anywhere, by size of the cell.
    """

    guaranteed: float = 0.1
    preemptible: float = 0.3
    estimated: float = 0.8
    habitual: float = 0.3
    short: float = 0.1
    used: Range = (0.05, 1.0)
    checkpointed: float = 0.9
    checkpoint_s: Range = (600.0, 3600.0)
    checkpoint_cost_s: Range = (5.0, 30.0)
    restart_s: Range = (60.0, 300.0)
    elastic: float = 0.3
    elastic_gpus: int = 8
    elastic_least: float = 0.5
    failing: float = 0.05
    with_data: float = 0.5
    data_gib: Range = (1.0, 1000.0)
    data_home: float = 0.8

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, tuple) and not (len(value) == 2 and 0 < value[0] <= value[1] < float("inf")):
                raise InputError(f"{each.name}: expected a range from least to most, above 0, got {value}")
            if not isinstance(value, tuple) and each.name != "elastic_gpus" and not 0 <= value <= 1:
                raise InputError(f"{each.name}: expected a share from 0 to 1, got {value}")
        if self.guaranteed + self.preemptible > 1 or self.habitual + self.short > 1:
            raise InputError("guaranteed and preemptible, or habitual and short, are together more than all")
        if self.used[1] > 1 or self.elastic_gpus < 2:
            raise InputError("a job uses no more than its estimate, and an elastic job has two devices or more")


def qos_of(settings: Synthesis, even: Floats) -> npt.NDArray[Any]:
    """The class of each job, `[J]`."""
    classes = np.empty(len(even), object)
    classes.fill(QoS.STANDARD)
    classes[even[:, QOS] < settings.guaranteed] = QoS.GUARANTEED
    classes[even[:, QOS] >= 1 - settings.preemptible] = QoS.PREEMPTIBLE
    return classes


def gangs(settings: Synthesis, even: Floats, workers: Ints, gpus: Ints) -> tuple[Ints, Ints, Ints]:
    """Fewest workers, most workers, devices of one worker, `[J]` each; most is 0 where a job is not elastic.

    An elastic job has all its recorded devices at its most workers. One that fits on a node is two workers of half.
    """
    devices = workers * gpus
    alone = (workers == 1) & (gpus % 2 == 0)
    most = np.where(alone, 2, workers)
    each = np.where(alone, gpus // 2, gpus)
    can = (devices >= settings.elastic_gpus) & (most > 1) & (each > 0) & (each <= NODE_GPUS)
    does = can & (even[:, ELASTIC] < settings.elastic)
    least = np.maximum(1, np.ceil(most * settings.elastic_least).astype(np.int64))
    return np.where(does, least, workers), np.where(does, most, 0), np.where(does, each, gpus)


def estimates(settings: Synthesis, even: Floats, habits: Floats, duration_s: Floats) -> npt.NDArray[Any]:
    """What the owner of each job says that it takes, in seconds; None where nothing is said. `[J]`.

    Args:
        settings: the shares and ranges.
        even: numbers on [0, 1), `[J, COLUMNS]`.
        habits: one such number for each job's tenant, `[J]`.
        duration_s: the truth, `[J]`.
    """
    used = _between(settings.used, even[:, USED])
    thought = _rounded_up(duration_s / used)
    habit = np.array(HABITS_S)[(habits * len(HABITS_S)).astype(np.int64)]
    habitual = np.maximum(habit, _rounded_up(duration_s))
    below = np.maximum(np.searchsorted(ROUND_S, duration_s) - 1, 0)
    short = even[:, SORT] >= 1 - settings.short
    said = np.where(even[:, SORT] < settings.habitual, habitual, np.where(short, ROUND_S[below], thought))
    return _or_none(said, even[:, SAID] < settings.estimated)


def times(settings: Synthesis, even: Floats) -> Mapping[str, npt.NDArray[Any]]:
    """Checkpoint intervals (None where none is written) and costs, and restart times, in seconds; `[J]` each."""
    every = _log_between(settings.checkpoint_s, even[:, EVERY])
    return {
        "checkpoint_s": _or_none(every, even[:, WRITES] < settings.checkpointed),
        "checkpoint_cost_s": _between(settings.checkpoint_cost_s, even[:, COST]),
        "restart_s": _log_between(settings.restart_s, even[:, RESTART]),
    }


def failures(settings: Synthesis, even: Floats) -> npt.NDArray[Any]:
    """1 where a job fails for good after its recorded work, else None; `[J]`. So failures take no work away."""
    return _or_none(np.ones(len(even)), even[:, FAILS] < settings.failing)


def inputs(
    settings: Synthesis, even: Floats, home: Ints, sizes: Floats, names: tuple[str, ...]
) -> list[tuple[tuple[str, float], ...]]:
    """GiB of input by the cell where it lies, of each job.

    Args:
        settings: the shares and ranges.
        even: numbers on [0, 1), `[J, COLUMNS]`.
        home: place of the home cell of each job's tenant, `[J]`.
        sizes: devices of each cell, `[C]`.
        names: of the cells, `[C]`.
    """
    gib = np.round(_log_between(settings.data_gib, even[:, GIB]), 1)
    edges = np.cumsum(sizes) / sizes.sum()
    anywhere = np.minimum(np.searchsorted(edges, even[:, CELL], side="right"), len(sizes) - 1)
    where = np.where(even[:, WHERE] < settings.data_home, home, anywhere)
    has = even[:, HAS_DATA] < settings.with_data
    rows = zip(has.tolist(), where.tolist(), gib.tolist(), strict=True)
    return [((names[cell], size),) if some else () for some, cell, size in rows]


def _between(limits: Range, even: Floats) -> Floats:
    return limits[0] + even * (limits[1] - limits[0])


def _log_between(limits: Range, even: Floats) -> Floats:
    spread: Floats = limits[0] * (limits[1] / limits[0]) ** even
    return spread


def _rounded_up(seconds: Floats) -> Floats:
    """The next of the values that estimates take, or the largest."""
    return ROUND_S[np.minimum(np.searchsorted(ROUND_S, seconds), len(ROUND_S) - 1)]


def _or_none(values: Floats, some: Bools) -> npt.NDArray[Any]:
    column = values.astype(object)
    column[~some] = None
    return column
