"""How many more replicas a service may need before a new one could answer: by how much its load rose before.

The load of an hour's beginning and the highest of that hour are kept for two weeks. The forecast is the present load
and a quantile of earlier rises: of those at about the same hour of the day, where two days or more are known, else of
all.
It is the naive forecast with an interval of empirical residuals (Hyndman and Athanasopoulos, "Forecasting: Principles
and Practice", 3rd ed., 5.5) by season; the quantile is that of split conformal prediction (Lei et al., JASA 2018), so
that it covers what it says where hours are alike. Rises are compared over the square root of the load that they began
at: the spread of counts grows so (Brown et al., JASA 2005, of calls to a call center).
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Floats = npt.NDArray[np.float64]

STEP_S = 3600.0
"""What is told apart in time; shorter leads count as that."""
DAY = 24
KEPT = 14 * DAY
"""Hours that are remembered of a service."""
SEASON_AFTER = 2 * DAY
"""Hours that must be known before the hour of the day counts."""
NEAR = 3
"""Hours of the day that are still about the same."""
_EXACT = 1e-6


class Basis(StrEnum):
    """What a forecast rests on."""

    HOUR_OF_DAY = "hour of day"
    """Rises at about this hour on earlier days."""
    RECENT = "recent hours"
    """All rises that are known, that of the hour which has begun among them."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The load of one service, in replicas' worth of work, hour by hour. Between two samples it is as it was.

    Attributes:
        hour: number of the newest hour, since the epoch.
        load: as last said.
        opens: load at the beginning of each hour, the newest last; at most `KEPT` and the one that has begun.
        peaks: highest load of each of these hours.
    """

    hour: int
    load: float
    opens: tuple[float, ...]
    peaks: tuple[float, ...]

    @classmethod
    def begin(cls, at: float, load: float) -> Self:
        """What is known after the first sample."""
        return cls(_hour(at), load, (load,), (load,))

    def sampled(self, at: float, load: float) -> Self:
        """The same with a sample.

        Args:
            at: seconds since the epoch; a clock that went back stands still.
            load: replicas' worth of work.
        """
        opens, peaks, begun = self.opens, self.peaks, _hour(at) - self.hour
        if begun > 0:
            quiet = (self.load,) * min(begun, KEPT + 1)
            opens, peaks = (*opens, *quiet)[-KEPT - 1 :], (*peaks, *quiet)[-KEPT - 1 :]
        peaks = (*peaks[:-1], max(peaks[-1], load))
        return type(self)(max(self.hour, _hour(at)), load, opens, peaks)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The load that will probably not be exceeded.

    Attributes:
        load: replicas' worth of work.
        rises: earlier ones that it rests on; fewer than 1 / (1 - quantile) cannot tell that quantile, and the largest
            of them stands for it.
    """

    load: float
    basis: Basis
    rises: int


def forecast(demand: Demand, now: float, *, lead_s: float, quantile: float) -> Forecast:
    """The load that is not exceeded within `lead_s` seconds from now with a probability of `quantile`."""
    known = demand.sampled(now, demand.load)
    hours = max(1, math.ceil(lead_s / STEP_S - _EXACT))
    basis, opens, rises = _rises(known, hours)
    scales = np.sqrt(np.maximum(1.0, opens))
    ratios = np.sort(rises / scales)
    place = min(len(ratios), math.ceil((len(ratios) + 1) * quantile - _EXACT)) - 1
    rise = min(float(ratios[place]) * math.sqrt(max(1.0, known.load)), float(rises.max()))
    return Forecast(known.load + rise, basis, len(rises))


def replicas_to_hold(expected: Forecast, *, replicas: int, most: int) -> int:
    """Replicas that room is held for beside those that the service has."""
    return min(most, max(0, math.ceil(expected.load - _EXACT) - replicas))


def _rises(demand: Demand, hours: int) -> tuple[Basis, Floats, Floats]:
    """By how much the load rose within so many hours, and from what: at about that hour of the day, or at all."""
    opens, peaks = np.array(demand.opens), np.array(demand.peaks)
    whole = len(opens) - hours
    if whole >= SEASON_AFTER:
        opens, tops = opens[:whole], sliding_window_view(peaks[:-1], hours).max(axis=1)
        ago = len(demand.opens) - 1 - np.arange(whole)
        apart = np.abs((ago + DAY // 2) % DAY - DAY // 2)
        near = apart <= NEAR
        return Basis.HOUR_OF_DAY, opens[near], (tops - opens)[near]
    width = min(hours, len(opens))
    tops = sliding_window_view(peaks, width).max(axis=1)
    opens = opens[: len(tops)]
    return Basis.RECENT, opens, tops - opens


def _hour(at: float) -> int:
    return math.floor(at / STEP_S)
