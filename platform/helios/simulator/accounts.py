"""What tenants had lately: use that decays, and preemptions within a window."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from helios.scheduler import TenantState


class Account:
    """One tenant's use, kept up with each change of what it holds.

    Attributes:
        held: devices that it holds now.
        used: device-seconds that it has had, not decayed.
    """

    __slots__ = ("_at", "_decay", "_preempted", "_usage", "_window", "held", "tenant", "used")

    def __init__(self, tenant: TenantState, *, half_life: float, window: float) -> None:
        self.tenant = tenant
        self.held = 0.0
        self.used = 0.0
        self._usage = tenant.usage
        self._at = 0.0
        self._decay = math.log(2) / half_life
        self._window = window
        self._preempted: deque[float] = deque([0.0] * tenant.preemptions)

    def hold(self, devices: float, now: float) -> None:
        """It holds so many devices more from now on (fewer, where negative)."""
        self._advance(now)
        self.held += devices

    def preempted(self, now: float) -> None:
        self._preempted.append(now)

    def state(self, now: float) -> TenantState:
        """The tenant as the scheduler is to see it."""
        self._advance(now)
        while self._preempted and self._preempted[0] <= now - self._window:
            self._preempted.popleft()
        return replace(self.tenant, usage=self._usage, preemptions=len(self._preempted))

    def _advance(self, now: float) -> None:
        passed = now - self._at
        if passed > 0:
            kept = math.exp(-self._decay * passed)
            gained = self.held * passed if self._decay == 0 else self.held * (1 - kept) / self._decay
            self._usage = self._usage * kept + gained
            self.used += self.held * passed
            self._at = now


def accounts(tenants: Iterable[TenantState], *, half_life: float, window: float) -> dict[str, Account]:
    """An account for each tenant, by its name."""
    return {tenant.name: Account(tenant, half_life=half_life, window=window) for tenant in tenants}
