"""Intervals over seeds: paired, so that the same traces and faults stand on both sides."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from helios.errors import InputError
from helios.simulator.metrics.columns import Floats

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95% interval; `low` and `high` are NaN where fewer than two runs leave nothing to resample."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One policy's mean against another's over the same seeds: ours minus theirs, ours over theirs."""

    difference: Estimate
    ratio: Estimate


def interval(values: Sequence[float], *, level: float = 0.95, resamples: int = RESAMPLES) -> Estimate:
    """Mean over seeds, with its bootstrap interval."""
    column = np.asarray(values, dtype=np.float64)[:, None]
    return resample(column, lambda means: means[:, 0], level=level, resamples=resamples)


def paired(
    ours: Sequence[float], theirs: Sequence[float], *, level: float = 0.95, resamples: int = RESAMPLES
) -> Comparison:
    """Compare two policies seed by seed: pairs are drawn, never single runs.

    Args:
        ours: a value a seed.
        theirs: of the same seeds in the same order.

    Raises:
        InputError: the lengths differ.
    """
    if len(ours) != len(theirs):
        raise InputError(f"paired runs are needed: {len(ours)} of one policy, {len(theirs)} of the other")
    pairs = np.column_stack((np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return Comparison(
            difference=resample(pairs, lambda means: means[:, 0] - means[:, 1], level=level, resamples=resamples),
            ratio=resample(pairs, lambda means: means[:, 0] / means[:, 1], level=level, resamples=resamples),
        )


def resample(
    rows: Floats, statistic: Callable[[Floats], Floats], *, level: float = 0.95, resamples: int = RESAMPLES
) -> Estimate:
    """Bootstrap a statistic of column means; rows are drawn whole, with a generator of fixed seed.

    Percentile intervals are too narrow with few rows, so their level is widened as Student's t is against the normal
    (the expanded percentile interval: Hesterberg, "What Teachers Should Know About the Bootstrap", The American
    Statistician 69, 2015).

    Args:
        rows: [seed, column].
        statistic: of means [resample, column], one value a resample.
    """
    n = len(rows)
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(statistic(rows.mean(axis=0)[None])[0])
    if n < 2:
        return Estimate(value, math.nan, math.nan, n)
    drawn = np.random.default_rng(0).integers(n, size=(resamples, n))
    values = statistic(rows[drawn].mean(axis=1))
    tail = _expanded_tail(n, level)
    low, high = np.quantile(values, (tail, 1 - tail)).tolist() if np.isfinite(values).all() else (math.nan, math.nan)
    return Estimate(value, low, high, n)


def _expanded_tail(n: int, level: float) -> float:
    """Normal probability of one tail, for an interval as wide as Student's with n - 1 degrees of freedom."""
    normal = NormalDist()
    z, nu = normal.inv_cdf((1 + level) / 2), n - 1
    # Abramowitz and Stegun 26.7.5; within 1% of the quantile of t from three degrees of freedom on.
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    t = sum(term / nu**power for power, term in enumerate(terms))
    return normal.cdf(-math.sqrt(n / (n - 1)) * t)
