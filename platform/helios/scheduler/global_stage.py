"""Stage one: which cell a gang goes to, of those that hold it now, by what it costs there in USD."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from helios.scheduler.book import want_of
from helios.scheduler.cell_stage import Fit, access_of, place
from helios.scheduler.layout import Access
from helios.scheduler.lines import Shape
from helios.scheduler.policy import Policy
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import CellState, Request
from helios.scheduler.verdicts import closed
from helios.spec import CapacityType

HOUR = 3600.0
SERVICE_HORIZON = 30 * 86_400.0
"""Seconds over which the costs of what never ends are compared."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A cell that holds the gang now.

    Attributes:
        cost: USD that it costs to run there, waiting for data and slower devices among it.
        used: share of the cell's devices of that type that are held, 0 to 1.
    """

    cell: str
    request: Request
    workers: int
    cost: float
    used: float


Within = Mapping[Request, int]
"""Of what a worker may be given, how many workers the quota allows; what is missing it does not allow at all."""


def choose(shape: Shape, scratch: Scratch, within: Within) -> Fit | None:
    """The cheapest cell that holds at least the fewest workers now, and the nodes there; None where none does."""
    policy = scratch.policy
    access, ends_at = access_of(shape, policy), expected_end(shape, policy, scratch.now)
    offers = [] if scratch.is_refused(shape, ends_at=ends_at) else list(_offers(shape, scratch, access, within))
    if not offers:
        if all(request in within for request in shape.requests):  # and not for want of quota
            scratch.refuse(shape, ends_at=ends_at)
        return None
    if policy.global_stage == "least_loaded":
        best = min(offers, key=lambda offer: (offer.used, offer.cell))
    else:
        # Prices within a cent are alike; then the fullest cell, so that emptier ones stay whole for large gangs.
        best = min(offers, key=lambda offer: (round(offer.cost, 2), -offer.workers, -offer.used, offer.cell))
    capacities, _ = scratch.capacities(best.cell, shape, want_of(best.request, access), ends_at=ends_at)
    demand = scratch.demand(best.request.accelerator)
    return place(scratch.book(best.cell), best.request, best.workers, capacities, policy=policy, demand=demand)


def expected_end(shape: Shape, policy: Policy, now: float) -> float:
    """When a gang would be over that starts now."""
    return now + (policy.unknown_estimate if shape.estimate is None else shape.estimate)


def _offers(shape: Shape, scratch: Scratch, access: Access, within: Within) -> Iterator[Offer]:
    ends_at = expected_end(shape, scratch.policy, scratch.now)
    wants = [want for request in within if scratch.most(want := want_of(request, access)) >= shape.min_workers]
    for cell in scratch.cells if wants else ():
        if closed(shape, cell) is not None:
            continue
        for want in wants:
            if scratch.fits(cell.name, want) < shape.min_workers:
                continue
            request = want.request
            _, fits = scratch.capacities(cell.name, shape, want, ends_at=ends_at)
            workers = min(fits, within[request])
            if workers >= shape.min_workers:
                cost = running_cost(shape, cell, request, workers, scratch=scratch, access=access)
                used = scratch.book(cell.name).used_share(request.accelerator)
                yield Offer(cell.name, request, workers, cost, used)


def running_cost(
    shape: Shape, cell: CellState, request: Request, workers: int, *, scratch: Scratch, access: Access
) -> float:
    """USD that it costs to run the gang there: devices, idle time while data arrives, egress, and all eggs in one."""
    policy = scratch.policy
    devices = workers * request.devices
    estimate = policy.unknown_estimate if shape.estimate is None else min(shape.estimate, SERVICE_HORIZON)
    speed = policy.speeds.get(request.accelerator, 1.0) * float((workers / shape.max_workers) ** policy.speedup)
    arrival, egress = _data(shape, cell, scratch)
    hours = (estimate / speed + arrival) / HOUR
    # Devices cost what they cost; the gang's time is worth what all the devices that it could use are worth.
    waiting = shape.max_workers * request.devices * policy.device_hour
    cost = hours * (devices * _price(cell, request.accelerator, access) + waiting) + egress
    if shape.spread:
        book = scratch.book(cell.name)
        placed = sum(scratch.book(one.name).spreads[shape.spread] for one in scratch.cells)
        cost += policy.spread * workers * (book.spreads[shape.spread] / placed if placed else 0.0)
    return cost


def _data(shape: Shape, cell: CellState, scratch: Scratch) -> tuple[float, float]:
    """Seconds until its data is in the cell, and USD of egress."""
    sources = [*shape.data, *([(shape.home, shape.checkpointed)] if shape.checkpointed else [])]
    size = egress = 0.0
    egresses = {one.name: one.egress for one in scratch.cells} if sources else {}
    for source, gib in sources:
        if source != cell.name:
            size += gib
            egress += gib * egresses.get(source, 0.0)
    return size / cell.ingress_rate, egress


def _price(cell: CellState, accelerator: str, access: Access) -> float:
    """USD a device and hour of the cheapest capacity that it may use and the cell has."""
    if not cell.prices:
        return 0.0
    types = access.types or frozenset(CapacityType)
    return min((cost for (kind, how), cost in cell.prices.items() if kind == accelerator and how in types), default=0.0)
