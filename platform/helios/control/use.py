"""What tenants have had lately, as the scheduler is to know it: decaying device-seconds, and preemptions."""

import math
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable

from helios.scheduler import Policy
from helios.store import Allocation

HALF_LIFE_S = Policy().half_life
PREEMPTIONS_WITHIN_S = 7 * 86_400.0
FORGOTTEN_AFTER = 8
"""Half-lives after which nothing is left of an allocation that would matter."""
_DECAY = math.log(2) / HALF_LIFE_S


class Use:
    """Accounts of all tenants, brought up to a moment at each look; not thread-safe.

    What is held changes with a record, and each such change is followed by a look within a scheduling cycle: what a
    look misses of an allocation is shorter than that.
    """

    def __init__(self) -> None:
        self._held: defaultdict[str, float] = defaultdict(float)
        self._used: defaultdict[str, float] = defaultdict(float)
        self._preempted: defaultdict[str, list[float]] = defaultdict(list)
        self._counted: dict[str, float] = {}
        self._at = 0.0
        self._since = math.inf

    def hold(self, tenant: str, devices: float) -> None:
        """The tenant holds so many devices more (fewer, where negative) from the next look on."""
        self._held[tenant] += devices

    def preempted(self, tenant: str, uid: str, at: float) -> None:
        """A gang of the tenant was preempted at that time; told again of the same it is not counted again."""
        if self._counted.get(uid, 0.0) < at:
            self._counted[uid] = at
            insort(self._preempted[tenant], at)

    def forget(self, uid: str) -> None:
        """The gang is gone; what was counted of it stays."""
        self._counted.pop(uid, None)

    def remember(self, allocations: Iterable[Allocation]) -> None:
        """Count what was held before the first look, from the ledger; nothing before there was a look."""
        if self._since is math.inf:
            return
        for item in allocations:
            end = min(self._since, item.closed_at if item.closed_at is not None else self._since)
            if item.gpus and item.opened_at < end:
                self._used[item.tenant] += item.gpus * _left(end, item.opened_at, self._at)

    def look(self, now: float) -> None:
        """Bring the accounts up to now; a clock that went back stands still."""
        if self._since is math.inf:
            self._since = self._at = now
        elif now > self._at:
            kept = math.exp(-_DECAY * (now - self._at))
            for tenant in self._held.keys() | self._used.keys():
                self._used[tenant] = self._used[tenant] * kept + self._held[tenant] * _left(now, self._at, now)
            self._at = now

    def of(self, tenant: str) -> tuple[float, int]:
        """Device-seconds that the tenant has had, decayed, and its preemptions within the window."""
        times = self._preempted.get(tenant, [])
        del times[: bisect_right(times, self._at - PREEMPTIONS_WITHIN_S)]
        return self._used.get(tenant, 0.0), len(times)

    def last_preemption(self) -> float | None:
        """When any gang was preempted last; None where none ever was."""
        return max((times[-1] for times in self._preempted.values() if times), default=None)


def _left(end: float, begin: float, now: float) -> float:
    """What is left at `now` of a second-by-second use from `begin` to `end` that decays."""
    return (math.exp(-_DECAY * (now - end)) - math.exp(-_DECAY * (now - begin))) / _DECAY
