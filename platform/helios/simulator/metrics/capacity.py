"""The highest load at which every class meets its objective."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from helios.simulator.metrics.bootstrap import Estimate, resample
from helios.simulator.metrics.columns import Floats
from helios.simulator.metrics.objectives import Objectives
from helios.simulator.metrics.run import RunMetrics
from helios.spec import QoS

_MISSED = -1e-9  # below it is no rounding


class Censored(StrEnum):
    """Where the loads that were run do not hold the answer between them."""

    NO = ""
    ABOVE = "met at every load that was run"
    BELOW = "met at none of the loads that were run"


@dataclass(frozen=True, slots=True)
class Capacity:
    """The highest load that meets all objectives.

    Attributes:
        load: with its interval; the highest load that was run if it is `ABOVE`, the lowest if it is `BELOW`.
        first_missed: the class that is missed first above it; None where none is.
    """

    load: Estimate
    censored: Censored
    first_missed: QoS | None


def highest_load(runs: Sequence[RunMetrics], objectives: Objectives) -> Capacity:
    """The load at which the first class falls below its share, for runs of one policy on one trace.

    At each load the attainment of a class is its mean over the seeds that were run at all loads; between two loads it
    is taken as linear. What counts is the first load at which a class misses, also where it is met again above it.
    """
    loads, seeds, margins = _margins({(run.load, run.seed): run for run in runs}, objectives)
    if not seeds:
        return Capacity(resample(np.empty((0, 1)), lambda rows: rows[:, 0]), Censored.NO, None)
    shape = (-1, len(loads), len(QoS))
    rows = margins.reshape(len(seeds), -1)  # [seed, load x class]
    estimate = resample(rows, lambda means: _crossings(loads, means.reshape(shape)))
    return Capacity(estimate, *_verdict(margins.mean(axis=0)))


def capacity_ratio(ours: Sequence[RunMetrics], theirs: Sequence[RunMetrics], objectives: Objectives) -> Estimate:
    """Our highest load over theirs, paired by seed, over the loads at which both were run."""
    sides = [{(run.load, run.seed): run for run in runs} for runs in (ours, theirs)]
    shared = sides[0].keys() & sides[1].keys()
    tables = [_margins({key: side[key] for key in shared}, objectives) for side in sides]
    loads, seeds, _ = tables[0]
    size = len(loads) * len(QoS)
    rows = np.concatenate([margins.reshape(len(seeds), size) for _, _, margins in tables], axis=1)
    shape = (-1, len(loads), len(QoS))

    def ratio(sample: Floats) -> Floats:
        return _crossings(loads, sample[:, :size].reshape(shape)) / _crossings(loads, sample[:, size:].reshape(shape))

    return resample(rows, ratio)


def _margins(
    runs: Mapping[tuple[float, int], RunMetrics], objectives: Objectives
) -> tuple[list[float], list[int], Floats]:
    """Loads, the seeds that were run at all of them, and attainment less what is asked [seed, load, class]."""
    loads = sorted({load for load, _ in runs})
    seeds = [seed for seed in sorted({seed for _, seed in runs}) if all((load, seed) in runs for load in loads)]
    margins = np.array(
        [[[_margin(runs[load, seed], qos, objectives) for qos in QoS] for load in loads] for seed in seeds]
    )
    return loads, seeds, margins.reshape(len(seeds), len(loads), len(QoS))


def _margin(run: RunMetrics, qos: QoS, objectives: Objectives) -> float:
    """Attainment less the share that is asked for; a class without jobs misses nothing."""
    attainment = run.classes[qos].attainment
    return (1.0 if math.isnan(attainment) else attainment) - objectives.of(qos).share


def _crossings(loads: Sequence[float], margins: Floats) -> Floats:
    """Where the least margin over the classes first falls below 0, for margins [sample, load, class]."""
    at = np.asarray(loads)
    found = np.full(len(margins), at[-1])
    open_ = np.ones(len(margins), dtype=np.bool_)
    missed = np.any(margins < _MISSED, axis=2)
    found[missed[:, 0]] = at[0]
    open_ &= ~missed[:, 0]
    for index in range(1, len(at)):
        now = open_ & missed[:, index]
        before, after = margins[now, index - 1], margins[now, index]
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(after < _MISSED, before / (before - after), 1.0)
        found[now] = at[index - 1] + part.min(axis=1, initial=1.0) * (at[index] - at[index - 1])
        open_ &= ~now
    return found


def _verdict(margins: Floats) -> tuple[Censored, QoS | None]:
    """Whether the loads hold the crossing, and the class that crosses first, for mean margins [load, class]."""
    missed = np.any(margins < _MISSED, axis=1)
    if not missed.any():
        return Censored.ABOVE, None
    first = int(missed.argmax())
    classes = tuple(QoS)
    if first == 0:
        return Censored.BELOW, classes[int(margins[0].argmin())]
    before, after = margins[first - 1], margins[first]
    part = np.where(after < _MISSED, before / np.where(after < _MISSED, before - after, 1.0), np.inf)
    return Censored.NO, classes[int(part.argmin())]
