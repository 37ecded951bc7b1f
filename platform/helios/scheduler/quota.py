"""How much a tenant may hold: its nominal quota, and what others of its cohort leave idle and lend.

`preemptible` work needs no quota where its tenant was granted the type at all, and counts against none: it runs on what
is idle, and leaves when anybody with quota comes.

Of a cohort, together: what is borrowed beyond nominal quotas never exceeds what the lenders leave idle and lend. An
owner that wants its own back while it is lent out waits for borrowers to leave, and may have them preempted (reclaim).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from helios.scheduler.snapshot import Request, TenantState
from helios.spec import QoS

THOUSAND = 1000
"""Held devices are counted in thousandths: whole numbers, so that the order of adding does not matter."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a tenant may add of a device type.

    Attributes:
        devices: that it may hold more than it holds now.
        own: devices of its nominal quota that it does not use; more than `devices` only where others borrow them.
        borrowable: devices beyond its nominal quota that it may hold more than it holds now.
        nominal: its quota; None where it was granted none of that type.
    """

    devices: float
    own: float
    tenant: str = ""
    accelerator: str = ""
    held: float = 0.0
    nominal: int | None = None
    borrowable: float = 0.0
    cohort: str = ""

    def workers(self, request: Request) -> int | float:
        """How many workers of a request that is. Counted in thousandths: ten tenths of a device are one device."""
        if not request.thousandths or self.devices == math.inf:
            return math.inf
        return round(self.devices * THOUSAND) // request.thousandths

    @property
    def message(self) -> str:
        """What limits it."""
        tenant, kind = self.tenant, self.accelerator
        if self.nominal is None:
            return f"tenant {tenant!r} was granted no {kind}"
        if not self.cohort:
            return f"tenant {tenant!r} may hold {self.nominal} {kind} and holds {self.held:g}"
        message = (
            f"tenant {tenant!r} holds {self.held:g} of its {self.nominal} {kind} and may borrow "
            f"{self.borrowable:g} more from cohort {self.cohort!r}"
        )
        return message + (f"; {self.own - self.devices:g} of its own are lent out" if self.own > self.devices else "")


UNLIMITED = Allowance(float("inf"), float("inf"))


class Quotas:
    """The quota ledger of one cycle.

    Args:
        held: thousandths of devices by (tenant, accelerator).
    """

    def __init__(self, tenants: Iterable[TenantState], held: Mapping[tuple[str, str], int]) -> None:
        self._tenants = {tenant.name: tenant for tenant in tenants}
        self._held = dict(held)
        self._cohorts: defaultdict[str, list[TenantState]] = defaultdict(list)
        self._sums: dict[tuple[str, str], tuple[int, int]] = {}
        self._aside: Counter[tuple[str, str]] = Counter()
        for tenant in self._tenants.values():
            if tenant.cohort and tenant.quotas is not None:
                self._cohorts[tenant.cohort].append(tenant)

    def copy(self) -> "Quotas":
        """Another ledger that says the same and may be changed."""
        twin = Quotas(self._tenants.values(), self._held)
        twin._aside = self._aside.copy()
        return twin

    def tenant(self, name: str) -> TenantState:
        """The tenant; one that nobody applied has no quota at all."""
        return self._tenants.get(name) or TenantState(name, {})

    def held(self, tenant: str, accelerator: str) -> float:
        """Devices of a type that the tenant holds."""
        return self._held.get((tenant, accelerator), 0) / THOUSAND

    def take(self, name: str, accelerator: str, devices: float) -> None:
        """Count so many more (or fewer) devices as held."""
        if not accelerator:
            return
        tenant = self.tenant(name)
        before = self._part(tenant, accelerator)
        self._held[name, accelerator] = self._held.get((name, accelerator), 0) + round(devices * THOUSAND)
        known = self._sums.get((tenant.cohort, accelerator))
        if known is not None and name in self._tenants:
            after = self._part(tenant, accelerator)
            self._sums[tenant.cohort, accelerator] = (
                known[0] + after[0] - before[0],
                known[1] + after[1] - before[1],
            )

    def set_aside(self, name: str, accelerator: str, devices: float) -> None:
        """Lend so many more (or fewer) of its idle devices to nobody: they are for a gang of its own."""
        self._aside[name, accelerator] += round(devices * THOUSAND)

    def borrowed(self, tenant: str, accelerator: str) -> float:
        """Devices that it holds beyond its nominal quota."""
        return self._part(self.tenant(tenant), accelerator)[1] / THOUSAND

    def allowance(self, name: str, accelerator: str, qos: QoS = QoS.STANDARD) -> Allowance:
        """What the tenant may add for work of that class, and what limits it."""
        tenant = self.tenant(name)
        if not accelerator or tenant.quotas is None:
            return UNLIMITED
        quota = tenant.quota(accelerator)
        if quota is None:
            return Allowance(0.0, 0.0, name, accelerator)
        if qos is QoS.PREEMPTIBLE:
            return UNLIMITED
        held = self._held.get((name, accelerator), 0)
        own = max(0, quota.nominal * THOUSAND - held)
        if len(self._cohorts.get(tenant.cohort, ())) < 2:
            free = own / THOUSAND
            return Allowance(free, free, name, accelerator, held / THOUSAND, quota.nominal)
        lendable, mine = self._part(tenant, accelerator)
        of_all = self._sum(tenant.cohort, accelerator)
        lent, over = of_all[0] - lendable, of_all[1] - mine
        borrowable = lent - over - mine - self._kept_from(tenant, accelerator)
        if quota.borrowing is not None:
            borrowable = min(borrowable, quota.borrowing * THOUSAND - mine)
        borrowable = max(0, borrowable)
        # What is its own may be lent out: then the cohort as a whole has less idle than the tenant is owed.
        devices = min(own + borrowable, max(0, own + lent - over)) if over else own + borrowable
        return Allowance(
            devices / THOUSAND,
            own / THOUSAND,
            name,
            accelerator,
            held / THOUSAND,
            quota.nominal,
            borrowable / THOUSAND,
            tenant.cohort,
        )

    def lacking(self, name: str, accelerator: str, devices: float) -> float:
        """Devices that its cohort has to give back before the tenant may hold so many more of its own quota.

        More than it asks for where the cohort holds more than its quotas. 0 where it may have them now, and where they
        are not its own.
        """
        tenant, needs = self.tenant(name), round(devices * THOUSAND)
        quota = tenant.quota(accelerator) if tenant.quotas is not None else None
        own = 0 if quota is None else quota.nominal * THOUSAND - self._held.get((name, accelerator), 0)
        if needs > own or len(self._cohorts.get(tenant.cohort, ())) < 2:
            return 0.0
        lendable, _ = self._part(tenant, accelerator)
        of_all = self._sum(tenant.cohort, accelerator)
        over = of_all[1]
        return max(0, needs - (own + of_all[0] - lendable - over)) / THOUSAND if over else 0.0

    def same_cohort(self, one: str, other: str) -> bool:
        """Whether the two lend each other."""
        cohort = self.tenant(one).cohort
        return bool(cohort) and cohort == self.tenant(other).cohort

    def _kept_from(self, tenant: TenantState, accelerator: str) -> int:
        """Thousandths that others of its cohort would lend, were they not set aside."""
        found = 0
        for (name, kind), aside in self._aside.items():
            if aside and kind == accelerator and name != tenant.name and self.same_cohort(name, tenant.name):
                other = self.tenant(name)
                found += self._part(other, kind)[0] - self._part(other, kind, aside=aside)[0]
        return found

    def _sum(self, cohort: str, accelerator: str) -> tuple[int, int]:
        """Thousandths that the cohort's tenants leave idle and lend, and that they hold beyond their own."""
        key = (cohort, accelerator)
        if key not in self._sums:
            parts = [self._part(tenant, accelerator) for tenant in self._cohorts[cohort]]
            self._sums[key] = (sum(part[0] for part in parts), sum(part[1] for part in parts))
        return self._sums[key]

    def _part(self, tenant: TenantState, accelerator: str, *, aside: int = 0) -> tuple[int, int]:
        """Thousandths that the tenant leaves idle and lends, and that it holds beyond its own; so many more held."""
        quota = None if tenant.quotas is None else tenant.quota(accelerator)
        if quota is None:
            return 0, 0
        idle = quota.nominal * THOUSAND - self._held.get((tenant.name, accelerator), 0) - aside
        if idle < 0:
            return 0, -idle
        return (idle if quota.lending is None else min(idle, quota.lending * THOUSAND)), 0
