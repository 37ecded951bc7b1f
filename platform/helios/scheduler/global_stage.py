"""Stage one: which cell a gang goes to, of those that hold it now, by what it costs there in USD."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from helios.scheduler.book import Want
from helios.scheduler.cell_stage import Fit, place
from helios.scheduler.layout import Ints
from helios.scheduler.lines import Shape
from helios.scheduler.policy import Policy
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import CellState, Request
from helios.scheduler.verdicts import closed

HOUR = 3600.0
SERVICE_HORIZON = 30 * 86_400.0
"""Seconds over which the costs of what never ends are compared."""


class Offer(NamedTuple):
    """A cell that holds the gang now.

    Attributes:
        capacities: workers that each node may take.
        cost: USD that it costs to run there, waiting for data and slower devices among it.
        used: share of the cell's devices of that type that are held, 0 to 1.
    """

    cell: str
    request: Request
    workers: int
    capacities: Ints
    cost: float
    used: float


Within = Mapping[Request, int]
"""Of what a worker may be given, how many workers the quota allows; what is missing it does not allow at all."""


def choose(shape: Shape, scratch: Scratch, within: Within) -> Fit | None:
    """The cheapest cell that holds at least the fewest workers now, and the nodes there; None where none does."""
    policy, ends_at = scratch.policy, expected_end(shape, scratch.policy, scratch.now)
    offers = [] if scratch.is_refused(shape, ends_at=ends_at) else list(_offers(shape, scratch, within, ends_at))
    if not offers:
        if len(within) == len(shape.requests):  # and not for want of quota
            scratch.refuse(shape, ends_at=ends_at)
        return None
    if policy.global_stage == "least_loaded":
        best = min(offers, key=lambda offer: (offer.used, offer.cell))
    else:
        # Prices within a cent are alike; then the fullest cell, so that emptier ones stay whole for large gangs.
        best = min(offers, key=lambda offer: (round(offer.cost, 2), -offer.workers, -offer.used, offer.cell))
    book, demand = scratch.book(best.cell), scratch.demand(best.request.accelerator)
    return place(book, best.request, best.workers, best.capacities, policy=policy, demand=demand)


def expected_end(shape: Shape, policy: Policy, now: float) -> float:
    """When a gang would be over that starts now."""
    return now + (policy.unknown_estimate if shape.estimate is None else shape.estimate)


def _offers(shape: Shape, scratch: Scratch, within: Within, ends_at: float) -> Iterator[Offer]:
    fewest = shape.min_workers
    wants = [want for want in scratch.wants(shape) if want.request in within and scratch.most(want) >= fewest]
    for cell in scratch.cells if wants else ():
        if closed(shape, cell) is not None:
            continue
        book = scratch.book(cell.name)
        for want in wants:
            if book.see(want).total < fewest:
                continue
            request = want.request
            capacities, fits = scratch.capacities(cell.name, shape, want, ends_at=ends_at)
            workers = min(fits, within[request])
            if workers >= fewest:
                cost = running_cost(shape, cell, want, workers, scratch=scratch)
                yield Offer(cell.name, request, workers, capacities, cost, book.used_share(request.accelerator))


def running_cost(shape: Shape, cell: CellState, want: Want, workers: int, *, scratch: Scratch) -> float:
    """USD that it costs to run the gang there: devices, idle time while data arrives, egress, and all eggs in one."""
    policy, request = scratch.policy, want.request
    devices = workers * request.devices
    estimate = policy.unknown_estimate if shape.estimate is None else min(shape.estimate, SERVICE_HORIZON)
    speed = policy.speeds.get(request.accelerator, 1.0) * float((workers / shape.max_workers) ** policy.speedup)
    arrival, egress = _data(shape, cell, scratch) if shape.data or shape.checkpointed else (0.0, 0.0)
    hours = (estimate / speed + arrival) / HOUR
    # Devices cost what they cost; the gang's time is worth what all the devices that it could use are worth.
    waiting = shape.max_workers * request.devices * policy.device_hour
    cost = hours * (devices * scratch.price(cell, want) + waiting) + egress
    if shape.spread:
        book = scratch.book(cell.name)
        placed = sum(scratch.book(one.name).spreads[shape.spread] for one in scratch.cells)
        cost += policy.spread * workers * (book.spreads[shape.spread] / placed if placed else 0.0)
    return cost


def _data(shape: Shape, cell: CellState, scratch: Scratch) -> tuple[float, float]:
    """Seconds until its data is in the cell, and USD of egress."""
    sources = [*shape.data, *([(shape.home, shape.checkpointed)] if shape.checkpointed else [])]
    size = egress = 0.0
    for source, gib in sources:
        if source != cell.name:
            size += gib
            egress += gib * scratch.egresses.get(source, 0.0)
    return size / cell.ingress_rate, egress
