"""How far off forecasts of starts are, learned from what became of those before: bands of a stated coverage.

Split-conformal prediction (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; Lei et al.,
"Distribution-Free Predictive Inference for Regression", JASA 2018), with a quantile at either side as in Romano,
Patterson and Candes ("Conformalized Quantile Regression", NeurIPS 2019), over the score
log((actual wait + 60 s) / (predicted wait + 60 s)). Mondrian: a group of its own for each class and range of predicted
waits, and wider groups while that has seen few. What comes later is what a forecast without arrivals misses, and what
these scores hold.

Gangs that have not started yet are no less part of it: their score is known to be above that of the time gone by, so
quantiles are those of the product-limit estimate (Kaplan and Meier, JASA 1958; for conformal bands Candes, Lei and Ren,
JRSS B 2023). To leave them out would make bands too short, since the long waits are the ones not over. Those that leave
the queue without a start count the same, up to then. What this supposes: that whoever leaves would not have waited for
longer than the rest, and that the near past is like the near future. Queues swell and empty, so it is not: each class
widens its bands a little with every start that they missed, and narrows them with those that they held (adaptive
conformal inference: Gibbs and Candes, NeurIPS 2021). What they cover is measured: `make bench-forecast`.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from helios.scheduler.forecast import Forecast
from helios.spec import QoS

COVERAGES = (0.5, 0.8, 0.95)
OFFSET_S = 60.0
"""Added to waits before they are compared: below a minute nobody minds how many times longer it took."""
EDGES = (60.0, 600.0, 3600.0, 6 * 3600.0, 86_400.0)
"""Seconds of predicted wait at which a range ends."""
RANGES = (
    "up to 1 min",
    "1 to 10 min",
    "10 min to 1 h",
    "1 to 6 h",
    "6 h to 1 d",
    "more than 1 d",
    "beyond the horizon",
)
SPAN = 4.0
"""Predicted waits that a full group reaches back over at least: else it would hold none but those not over yet."""
GAIN = 0.005
"""By how much of the miss or the hit the share that bands are made for is moved."""
LEAST_MISSED = 0.01
"""Of bands, whatever was missed: nothing that was seen says more of what is rarer."""
Group = tuple[str, ...]


def range_of(forecast: Forecast) -> str:
    """The range of its predicted wait, in words."""
    return RANGES[-1] if forecast.at is None else RANGES[bisect_left(EDGES, forecast.wait)]


@dataclass(frozen=True, slots=True)
class Band:
    """Between when and when a gang will start, with a chance of `coverage`.

    Attributes:
        earliest: seconds of wait from the forecast.
        latest: the same; infinity where too many of its like have not started yet to tell.
        learned: forecasts whose starts it was learned from.
        basis: whose these were, in words: a class and a range of predicted waits, a class, or all.
    """

    coverage: float
    earliest: float
    latest: float
    learned: int
    basis: str


@dataclass(frozen=True, slots=True)
class Unlearned:
    """There is no band yet: `learned` forecasts came to a start, of `needed`."""

    learned: int
    needed: int


@dataclass(slots=True)
class _Noted:
    """A forecast, the band that each coverage had for it, and what became of it."""

    qos: QoS
    made_at: float
    predicted: float
    bands: Mapping[float, "Band | Unlearned"]
    wait: float | None = None
    started: bool = False

    def score(self, now: float) -> float:
        wait = max(0.0, now - self.made_at) if self.wait is None else self.wait
        return math.log((wait + OFFSET_S) / (self.predicted + OFFSET_S))


class Calibration:
    """Learns online from forecasts and what became of them, with a bounded memory. Not thread-safe.

    Args:
        kept: the latest forecasts that a group remembers.
        needed: starts that a group must have seen before it says anything; 39 are the fewest that can cover 95%.
        most_open: forecasts that may be waited for at a time; while they are so many, no other is noted.
        coverages: that bands are asked for; above 0 and below 1.
    """

    def __init__(
        self,
        *,
        kept: int = 512,
        needed: int = 50,
        most_open: int = 4096,
        coverages: Sequence[float] = COVERAGES,
    ) -> None:
        if not all(0 < coverage < 1 for coverage in coverages):
            raise ValueError(f"expected coverages above 0 and below 1, got {coverages}")
        self._missed = {(qos, coverage): 1 - coverage for qos in QoS for coverage in coverages}
        self._coverages = tuple(coverages)
        self._kept, self._needed, self._most_open = kept, needed, most_open
        self._groups: dict[Group, deque[_Noted]] = {}
        self._last: dict[Group, float] = {}
        self._open: dict[str, list[_Noted]] = {}

    @property
    def waiting(self) -> frozenset[str]:
        """Gangs of which a start is waited for, by uid."""
        return frozenset(self._open)

    @property
    def learned(self) -> int:
        """Starts that are remembered."""
        return _started(self._groups.get((), ()))

    def note(self, forecast: Forecast, qos: QoS) -> bool:
        """Take in a forecast whose start is to be learned; False where it is passed over.

        That does not hang on what comes of it: there are enough of its like just now, or too many are waited for, or it
        says never.
        """
        groups = _groups(forecast, qos)
        gap = SPAN * (forecast.wait + OFFSET_S) / self._kept
        recent = forecast.made_at - self._last.get(groups[0], -math.inf) < gap
        if recent or len(self._open) >= self._most_open or forecast.wait == math.inf:
            return False
        self._last[groups[0]] = forecast.made_at
        bands = {coverage: self.band(forecast, qos, coverage) for coverage in self._coverages}
        noted = _Noted(qos, forecast.made_at, forecast.wait, bands)
        for group in groups:
            self._groups.setdefault(group, deque(maxlen=self._kept)).append(noted)
        self._open.setdefault(forecast.uid, []).append(noted)
        return True

    def started(self, uid: str, at: float) -> None:
        """The gang was given its place, at that time."""
        self._close(uid, at, started=True)

    def withdrawn(self, uid: str, at: float) -> None:
        """The gang left the queue without a start."""
        self._close(uid, at, started=False)

    def _close(self, uid: str, at: float, *, started: bool) -> None:
        for noted in self._open.pop(uid, ()):
            noted.wait, noted.started = max(0.0, at - noted.made_at), started
            for coverage, band in noted.bands.items():
                if started and isinstance(band, Band):
                    missed = not band.earliest <= noted.wait <= band.latest
                    share = self._missed[noted.qos, coverage] + GAIN * (1 - coverage - missed)
                    self._missed[noted.qos, coverage] = min(max(share, LEAST_MISSED), 1 - LEAST_MISSED)

    def band(self, forecast: Forecast, qos: QoS, coverage: float) -> Band | Unlearned:
        """The band of a forecast, from the narrowest group that has seen enough; ValueError for other coverages."""
        if coverage not in self._coverages:
            raise ValueError(f"expected a coverage of {self._coverages}, got {coverage}")
        learned = 0
        for group in _groups(forecast, qos):
            noted = self._groups.get(group, ())
            learned = _started(noted)
            if learned >= self._needed and forecast.wait < math.inf:
                low, high = _quantiles(noted, self._missed[qos, coverage], forecast.made_at)
                earliest, latest = (_wait(score, forecast.wait) for score in (low, high))
                return Band(coverage, earliest, latest, learned, _words(group))
        return Unlearned(min(learned, self._needed), self._needed)


def _groups(forecast: Forecast, qos: QoS) -> tuple[Group, ...]:
    """From narrow to wide."""
    return ((str(qos), range_of(forecast)), (str(qos),), ())


def _words(group: Group) -> str:
    return ", predicted wait ".join(group) or "all"


def _started(noted: Iterable[_Noted]) -> int:
    return sum(one.started for one in noted)


def _wait(score: float, predicted: float) -> float:
    return max(0.0, (predicted + OFFSET_S) * math.exp(score) - OFFSET_S) if score < math.inf else math.inf


def _quantiles(noted: Iterable[_Noted], missed: float, now: float) -> tuple[float, float]:
    """The scores between which a new one lies, but for a chance of `missed`, by the product-limit estimate.

    Without any that have not started they are the order statistics of split-conformal prediction: the
    floor((n + 1) a)-th and the ceil((n + 1) (1 - a))-th of n, with a = missed / 2.
    """
    # At one score starts come before what has not started: that was waiting still.
    scores = sorted((one.score(now), not one.started) for one in noted)
    n, tail = sum(not unknown for _, unknown in scores), missed / 2
    below = math.floor((n + 1) * tail + 1e-9) / n
    above = math.ceil((n + 1) * (1 - tail) - 1e-9) / n
    low, high, surviving = -math.inf, math.inf, 1.0
    for place, (score, unknown) in enumerate(scores):
        if unknown:
            continue
        surviving *= 1 - 1 / (len(scores) - place)
        done = 1 - surviving + 1e-9
        if low == -math.inf and 0 < below <= done:
            low = score
        if done >= above:
            high = score
            break
    return low, high
