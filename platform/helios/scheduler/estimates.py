"""How long work will run, as one may know who sees only what its owner says and what finished before it."""

import math
from bisect import bisect_right, insort
from collections import deque
from dataclasses import dataclass

KEPT = 64
"""Finished run times that are remembered of one kind of work: the latest say most."""
PRIOR = 3.0
"""For how many finished runs the word of the owner, or of a wider kind, counts."""
LEAST_S = 60.0
"""What is taken to be left of work that outlived every expectation, at least."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is known beforehand of a job.

    Attributes:
        size: workers and devices in one word; jobs of another size are another kind.
        group: what jobs that do the same have in common; empty where nothing says so.
        stated: seconds that its owner says it will take; None where nothing was said.
    """

    tenant: str
    size: str
    group: str = ""
    stated: float | None = None

    @property
    def kinds(self) -> tuple[tuple[str, ...], ...]:
        """From wide to narrow: all work; the tenant's; the tenant's of one size; that of one group."""
        wide: tuple[tuple[str, ...], ...] = ((), (self.tenant,), (self.tenant, self.size))
        return (*wide, (self.tenant, self.size, self.group)) if self.group else wide


class History:
    """The latest finished run times of one kind of work, in order."""

    __slots__ = ("_latest", "_ordered")

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._ordered)

    def add(self, seconds: float) -> None:
        self._latest.append(seconds)
        insort(self._ordered, seconds)
        if len(self._latest) > KEPT:
            del self._ordered[bisect_right(self._ordered, self._latest.popleft()) - 1]

    def quantile(self, share: float, *, beyond: float = -1.0) -> tuple[float, int] | None:
        """The quantile of those above `beyond`, and how many those are; None where there are none."""
        first = bisect_right(self._ordered, beyond)
        left = len(self._ordered) - first
        return (self._ordered[first + min(int(left * share), left - 1)], left) if left else None


class Predictor:
    """Running quantiles of what finished, narrow kinds of work before wide ones, blended with the owner's estimate.

    A kind with n finished runs counts for n, what is expected without it for `PRIOR`, as a weighted geometric mean:
    run times span five orders of magnitude. The owner's estimate, where there is one, stands in for the wide kinds,
    multiplied by the median of (run time / estimate) of the tenant's finished work. It is a simple relative of QSSF's
    rolling estimates (Hu et al., "Characterization and Prediction of Deep Learning Workloads", SC '21). Seconds are of
    work at a job's largest number of workers.
    """

    def __init__(self, quantile: float = 0.5) -> None:
        self._quantile = quantile
        self._kinds: dict[tuple[str, ...], History] = {}
        self._ratios: dict[str, History] = {}

    def learn(self, work: Work, ran_s: float) -> int:
        """Take in that it ended, one way or another, after so much work; how often its narrowest kind did by now."""
        count = 0
        for kind in work.kinds:
            history = self._kinds.setdefault(kind, History())
            history.add(ran_s)
            count = len(history)
        if work.stated and ran_s > 0:
            self._ratios.setdefault(work.tenant, History()).add(ran_s / work.stated)
        return count

    def expected(self, work: Work, *, ran_s: float = 0.0) -> float | None:
        """Seconds of work that are still before it, after `ran_s` of it; None where nothing is known."""
        guess = self._owners(work)
        for kind in work.kinds if guess is None else work.kinds[3:]:
            history = self._kinds.get(kind)
            found = history.quantile(self._quantile, beyond=ran_s or -1.0) if history else None
            if found is not None:
                guess = _blend(*found, guess)
        if guess is None:
            return None
        # One that outlived what was expected goes on for about as long again: run times have heavy tails.
        return guess - ran_s if guess > ran_s else max(LEAST_S, ran_s)

    def _owners(self, work: Work) -> float | None:
        if work.stated is None:
            return None
        ratios = self._ratios.get(work.tenant)
        ratio = ratios.quantile(0.5) if ratios else None
        return work.stated * _blend(*ratio, 1.0) if ratio else work.stated


def _blend(found: float, count: int, guess: float | None) -> float:
    if guess is None or guess <= 0 or found <= 0:
        return found
    return math.exp((count * math.log(found) + PRIOR * math.log(guess)) / (count + PRIOR))
