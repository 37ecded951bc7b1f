"""What each tenant truly needs, known beforehand: its home cell and its nominal quota.

A scheduler without a global stage gets its cells sized by the demand that will come, not by a forecast. So what a
global stage gains is not just that static cells were cut badly.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helios.scheduler.snapshot import CellState, QuotaState, TenantState
from helios.simulator.traces.table import Bools, Floats, Ints
from helios.simulator.traces.trace import Trace
from helios.simulator.workload.copies import Copy
from helios.simulator.workload.fleet import Fleet
from helios.spec import CapacityType

COHORT = "fleet"
ROUNDS = 1000
"""Moves between cells after which their loads are left as they are."""


@dataclass(frozen=True)
class Tenants:
    """The tenants of a workload, `[T]` each, and the cells, `[C]` each.

    Attributes:
        demand: device-seconds that each would use within the measured window if every job started at once.
        widest: devices of its largest gang.
        homes: place of its home in `cells`.
        quotas: nominal devices.
        sizes: devices of each cell, by their speed.
        any_type: what a job asks for that may have any device.
    """

    names: tuple[str, ...]
    demand: Floats
    widest: Ints
    homes: Ints
    quotas: Ints
    cells: tuple[str, ...]
    sizes: Floats
    any_type: str

    @classmethod
    def of(cls, copies: Sequence[Copy], trace: Trace, fleet: Fleet) -> "Tenants":
        demand = np.array([copy.demand.sum() for copy in copies])
        devices = trace.devices
        widest = np.array([math.ceil(devices[copy.rows].max(initial=0)) for copy in copies])
        sizes, lasting = cell_sizes(fleet.cells, fleet.speeds)
        homes = assign_homes(demand, widest, sizes, lasting)
        return cls(
            names=tuple(copy.tenant for copy in copies),
            demand=demand,
            widest=widest,
            homes=homes,
            quotas=nominal_quotas(demand, widest, fleet.gpus),
            cells=tuple(cell.name for cell in fleet.cells),
            sizes=sizes,
            any_type=fleet.any_type,
        )

    def facts(self) -> dict[str, float]:
        """The fullest cell's load over the fleet's; tenants that cannot run their largest gang within their quota."""
        loads = np.bincount(self.homes, self.demand, len(self.sizes)) / self.sizes
        mean = self.demand.sum() / self.sizes.sum()
        return {
            "tenants": len(self.names),
            "homes_fullest": float(loads.max() / mean),
            "quotas_below_gang": int((self.quotas < self.widest).sum()),
        }


def tenant_states(quotas: Mapping[str, int], fleet: Fleet) -> tuple[TenantState, ...]:
    """Tenants of one cohort, as the scheduler sees them, that borrow and lend without limit.

    Where a fleet has several types of devices, each quota is dealt to them in proportion to what there is of each.
    """
    counts = {kind: sum(node.accelerators.get(kind, 0) for node in fleet.usable) for kind in fleet.types}
    shares = np.array(list(counts.values()), np.float64)
    return tuple(
        TenantState(
            name,
            {
                kind: QuotaState(nominal)
                for kind, nominal in zip(counts, _apportioned(shares, quota).tolist(), strict=True)
            },
            cohort=COHORT,
        )
        for name, quota in quotas.items()
    )


def cell_sizes(cells: Sequence[CellState], speeds: Mapping[str, float]) -> tuple[Floats, Ints]:
    """Devices of each cell, by their speed; and those that nobody takes away, which a guaranteed gang may use."""
    sizes = np.zeros(len(cells))
    lasting = np.zeros(len(cells), np.int64)
    for place, cell in enumerate(cells):
        for node in (one for one in cell.nodes if not one.spare):
            for kind, count in node.accelerators.items():
                sizes[place] += count * speeds.get(kind, 1.0)
                lasting[place] += count * (node.capacity_type is not CapacityType.PREEMPTIBLE)
    return sizes, lasting


def assign_homes(demand: Floats, widest: Ints, sizes: Floats, lasting: Ints) -> Ints:
    """The home cell of each tenant, so that demand over size is as even as whole tenants allow; `[T]`.

    The largest tenants choose first; then tenants move, or two change places, as long as that lowers the larger of the
    two loads.

    Args:
        demand: of each tenant, in any unit, `[T]`.
        widest: devices of its largest gang, `[T]`: its home has as many that last, or is the cell that has most.
        sizes: of each cell, `[C]`.
        lasting: devices of each cell that nobody takes away, `[C]`.
    """
    allowed = lasting[None, :] >= np.minimum(widest, lasting.max())[:, None]
    homes = np.zeros(len(demand), np.int64)
    held = np.zeros(len(sizes))
    for tenant in np.argsort(-demand, kind="stable"):
        loads = np.where(allowed[tenant], (held + demand[tenant]) / sizes, np.inf)
        homes[tenant] = int(loads.argmin())
        held[homes[tenant]] += demand[tenant]
    for _ in range(ROUNDS):
        if not _improve(homes, held, demand, allowed, sizes):
            break
    return homes


def _improve(homes: Ints, held: Floats, demand: Floats, allowed: Bools, sizes: Floats) -> bool:
    """Take the fullest cell, and make the best move or exchange that leaves both cells of it less full than it was."""
    full = int((held / sizes).argmax())
    mine = np.flatnonzero(homes == full)
    # The last columns are nobody of each cell: a move without anything in return.
    others = np.flatnonzero(homes != full)
    there = np.concatenate([homes[others], np.arange(len(sizes))])
    back = np.concatenate([demand[others], np.zeros(len(sizes))])
    welcome = np.concatenate([allowed[others, full], np.arange(len(sizes)) != full])
    moved = demand[mine, None] - back[None, :]
    after = np.maximum((held[full] - moved) / sizes[full], (held[there] + moved) / sizes[there])
    after = np.where(welcome[None, :] & allowed[mine][:, there] & (moved > 0), after, np.inf)
    if not after.size or after.min() >= held[full] / sizes[full] * (1 - 1e-9):
        return False
    one, other = np.unravel_index(int(after.argmin()), after.shape)
    homes[mine[one]] = there[other]
    if other < len(others):
        homes[others[other]] = full
    held[full] -= moved[one, other]
    held[there[other]] += moved[one, other]
    return True


def nominal_quotas(demand: Floats, widest: Ints, gpus: int) -> Ints:
    """Devices of each tenant in proportion to its demand, all of them together; none less than its largest gang, `[T]`.

    Where the largest gangs alone are more than there is, quotas go by demand only.
    """
    shares = demand if demand.any() else np.ones(len(demand))
    floors = widest.astype(np.float64)
    if floors.sum() > gpus:
        return _apportioned(shares, gpus)
    low = np.zeros(len(demand), np.bool_)
    while True:
        rest = gpus - floors[low].sum()
        total = shares[~low].sum()
        exact = np.where(low, floors, rest * shares / total if total else rest / max(1, int((~low).sum())))
        if not (exact < floors).any():
            return _apportioned(exact, gpus)
        low |= exact < floors


def _apportioned(exact: Floats, whole: int) -> Ints:
    """Whole numbers in proportion to `exact` that add up to `whole`, by largest remainders."""
    scaled = exact * (whole / exact.sum())
    counts = np.floor(scaled + 1e-9).astype(np.int64)
    rest = np.argsort(counts - scaled, kind="stable")[: whole - int(counts.sum())]
    counts[rest] += 1
    whole_counts: Ints = counts
    return whole_counts
