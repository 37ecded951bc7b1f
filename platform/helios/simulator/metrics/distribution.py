"""A distribution in six numbers."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from helios.simulator.metrics.columns import Floats


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean, quantiles (linear between order statistics) and maximum of `n` values; NaN where there are none."""

    n: int
    mean: float
    p50: float
    p90: float
    p99: float
    longest: float

    @classmethod
    def of(cls, values: Floats) -> Self:
        if not len(values):
            return cls(0, *[math.nan] * 5)
        p50, p90, p99 = np.quantile(values, (0.5, 0.9, 0.99)).tolist()
        return cls(len(values), float(values.mean()), p50, p90, p99, float(values.max()))
