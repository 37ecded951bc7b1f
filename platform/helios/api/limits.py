"""How much one caller may ask for: a token bucket for each credential, in this process."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_BUCKETS = 10_000
"""Credentials that are counted; the one that has been quiet for longest is forgotten first."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second that go on for ever, and how many more may come at once."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one credential may ask of one replica. A cell's agent asks little and often, however its cell grows."""

    people: Rate = Rate(1000.0, 2000)
    agents: Rate = Rate(50.0, 200)
    at_once: int = 500
    """Requests of one credential that are being answered: streams and long polls cost others as long as they last."""


class Buckets:
    """Token buckets of one rate, by credential. For one thread: the event loop's."""

    def __init__(self, rate: Rate, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, credential: str) -> float:
        """Take one request out of the credential's bucket: 0, or the seconds after which there is one again."""
        now = self._monotonic()
        level, since = self._buckets.pop(credential, (float(self._rate.burst), now))
        level = min(self._rate.burst, level + (now - since) * self._rate.per_second)
        missing = max(0.0, 1.0 - level) / self._rate.per_second
        self._buckets[credential] = (level if missing else level - 1.0, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return missing
