"""How much a tenant may hold: its nominal quota, and what others of its cohort leave idle and lend.

Of a cohort, together: what is borrowed beyond nominal quotas never exceeds what the lenders leave idle and lend. An
owner that wants its own back while it is lent out waits for borrowers to leave, and may have them preempted (reclaim).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from helios.scheduler.snapshot import QuotaState, TenantState


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a tenant may add of a device type.

    Attributes:
        devices: that it may hold more than it holds now.
        own: devices of its nominal quota that it does not use; more than `devices` only where others borrow them.
        message: what limits it.
    """

    devices: float
    own: float
    message: str
    granted: bool = True

    @property
    def reclaimable(self) -> bool:
        """Whether borrowers hold what is the tenant's own."""
        return self.own > self.devices


UNLIMITED = Allowance(float("inf"), float("inf"), "")
THOUSAND = 1000
"""Held devices are counted in thousandths: whole numbers, so that the order of adding does not matter."""


class Quotas:
    """The quota ledger of one cycle.

    Args:
        held: thousandths of devices by (tenant, accelerator).
    """

    def __init__(self, tenants: Iterable[TenantState], held: Mapping[tuple[str, str], int]) -> None:
        self._tenants = {tenant.name: tenant for tenant in tenants}
        self._held = dict(held)
        self._allowances: dict[tuple[str, str], Allowance] = {}
        self._cohorts: defaultdict[str, list[TenantState]] = defaultdict(list)
        for tenant in self._tenants.values():
            if tenant.cohort and tenant.quotas is not None:
                self._cohorts[tenant.cohort].append(tenant)

    def tenant(self, name: str) -> TenantState:
        """The tenant; one that nobody applied has no quota at all."""
        return self._tenants.get(name) or TenantState(name, {})

    def held(self, tenant: str, accelerator: str) -> float:
        """Devices of a type that the tenant holds."""
        return self._held.get((tenant, accelerator), 0) / THOUSAND

    def take(self, tenant: str, accelerator: str, devices: float) -> None:
        """Count so many more (or fewer) devices as held."""
        if accelerator:
            self._allowances.clear()
            held = self._held.get((tenant, accelerator), 0)
            self._held[tenant, accelerator] = held + round(devices * THOUSAND)

    def borrowed(self, tenant: str, accelerator: str) -> float:
        """Devices that it holds beyond its nominal quota."""
        quota = self._quota(self.tenant(tenant), accelerator)
        return 0.0 if quota is None else max(0.0, self.held(tenant, accelerator) - quota.nominal)

    def allowance(self, name: str, accelerator: str) -> Allowance:
        """What the tenant may add, and what limits it."""
        known = self._allowances.get((name, accelerator))
        if known is None:
            known = self._allowances[name, accelerator] = self._allowance(name, accelerator)
        return known

    def _allowance(self, name: str, accelerator: str) -> Allowance:
        tenant = self.tenant(name)
        if not accelerator or tenant.quotas is None:
            return UNLIMITED
        quota = tenant.quota(accelerator)
        if quota is None:
            return Allowance(0.0, 0.0, f"tenant {name!r} was granted no {accelerator}", granted=False)
        held = self.held(name, accelerator)
        own = max(0.0, quota.nominal - held)
        others = [one for one in self._cohorts.get(tenant.cohort, ()) if one.name != name]
        if not others:
            return Allowance(own, own, f"tenant {name!r} may hold {quota.nominal} {accelerator} and holds {held:g}")
        lent = sum(self._lendable(one, accelerator) for one in others)
        over = sum(self.borrowed(one.name, accelerator) for one in others)
        mine = max(0.0, held - quota.nominal)
        borrowable = lent - over - mine
        if quota.borrowing is not None:
            borrowable = min(borrowable, quota.borrowing - mine)
        # What is its own may be lent out: then the cohort as a whole has less idle than the tenant is owed.
        idle = own + lent - over
        devices = max(0.0, min(own + max(0.0, borrowable), max(idle, 0.0) if over else float("inf")))
        message = (
            f"tenant {name!r} holds {held:g} of its {quota.nominal} {accelerator} and may borrow "
            f"{max(0.0, borrowable):g} more from cohort {tenant.cohort!r}"
        )
        if own > devices:
            message += f"; {own - devices:g} of its own are lent out"
        return Allowance(devices, own, message)

    def same_cohort(self, one: str, other: str) -> bool:
        """Whether the two lend each other."""
        cohort = self.tenant(one).cohort
        return bool(cohort) and cohort == self.tenant(other).cohort

    def _lendable(self, tenant: TenantState, accelerator: str) -> float:
        quota = self._quota(tenant, accelerator)
        if quota is None:
            return 0.0
        idle = max(0.0, quota.nominal - self.held(tenant.name, accelerator))
        return idle if quota.lending is None else min(idle, float(quota.lending))

    @staticmethod
    def _quota(tenant: TenantState, accelerator: str) -> QuotaState | None:
        return None if tenant.quotas is None else tenant.quota(accelerator)
