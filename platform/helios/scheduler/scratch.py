"""The working state of one cycle: books that are copied when first changed, quotas, and places that are kept."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import numpy as np

from helios.scheduler.book import Book, Want, want_of
from helios.scheduler.cell_stage import Demand, access_of
from helios.scheduler.decisions import Reservation
from helios.scheduler.fleet import Sums, sums_of
from helios.scheduler.layout import Ints
from helios.scheduler.lines import Shape
from helios.scheduler.policy import Policy
from helios.scheduler.quota import Quotas
from helios.scheduler.snapshot import NO_END, CellState, PendingGang, RunningGang, Snapshot
from helios.spec import QoS

_NOTHING = frozenset[str]()

T = TypeVar("T")


@dataclass(slots=True)
class Kept:
    """Room in one cell that is kept from some moment on: what is free then, less what it is kept for.

    Attributes:
        at: from when on, seconds since the epoch; work that is over by then may use it.
        book: what is free at that moment, less the kept room.
        lent_to: classes that may use it all the same, and are asked to leave when it is needed.
        reservation: of the gang that it is kept for; None for the headroom of services.
        nodes: of that headroom.
    """

    at: float
    book: Book
    lent_to: frozenset[QoS] = frozenset()
    reservation: Reservation | None = None
    nodes: frozenset[str] = frozenset()


class Scratch:
    """What is still free while a cycle gives places away."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.snapshot = snapshot
        self.policy = policy
        self.now = snapshot.now
        self.sums: Sums = sums_of(snapshot)
        self.quotas = Quotas(snapshot.tenants, self.sums.held)
        self.kept: dict[str, list[Kept]] = {}
        self._books: dict[str, Book] = dict(self.sums.books)
        self._own: set[str] = set()
        self._cells = [book.cell for book in self._books.values()]
        self._demand: dict[str, Demand] = {}
        self._most: dict[Want, int] = {}
        self._wants: dict[Shape, tuple[Want, ...]] = {}
        self._found: dict[str, dict[Hashable, object]] = {}
        self._prices: dict[tuple[str, Want], float] = {}
        self._refused: dict[tuple[object, ...], list[tuple[int, float]]] = {}

    @property
    def cells(self) -> Sequence[CellState]:
        """By name."""
        return self._cells

    def book(self, cell: str) -> Book:
        """The cell's book as it is now; not to be changed."""
        return self._books[cell]

    def owned(self, cell: str) -> Book:
        """The cell's book, to be changed."""
        self._found.pop(cell, None)
        if cell not in self._own:
            self._books[cell] = self._books[cell].copy()
            self._own.add(cell)
        return self._books[cell]

    def once(self, cell: str, about: Hashable, find: Callable[[], T]) -> T:
        """What is found of the cell's book as it is now; found again only once something was entered there."""
        known = self._found.setdefault(cell, {})
        if about not in known:
            known[about] = find()
        return cast("T", known[about])

    def demand(self, accelerator: str) -> Demand:
        """Share of gangs by whole devices a worker, of those that use this type."""
        if accelerator not in self._demand:
            found = {
                devices: count
                for (kind, devices), count in self.sums.demand.items()
                if kind == accelerator and devices and count > 0
            }
            total = sum(found.values())
            self._demand[accelerator] = tuple((devices, count / total) for devices, count in sorted(found.items()))
        return self._demand[accelerator]

    def wants(self, shape: Shape) -> tuple[Want, ...]:
        """What a worker of that shape may be given, of the nodes that it may use; in order of preference."""
        wants = self._wants.get(shape)
        if wants is None:
            access = access_of(shape, self.policy)
            wants = self._wants[shape] = tuple(want_of(request, access) for request in shape.requests)
        return wants

    @cached_property
    def egresses(self) -> dict[str, float]:
        """USD a GiB that is read from the bucket of each cell by another one."""
        return {cell.name: cell.egress for cell in self._cells}

    def price(self, cell: CellState, want: Want) -> float:
        """USD a device and hour of the cheapest capacity that the want may use and the cell has."""
        price = self._prices.get((cell.name, want))
        if price is None:
            types, kind = want.access.types, want.request.accelerator
            found = (cost for (its, how), cost in cell.prices.items() if its == kind and (not types or how in types))
            price = self._prices[cell.name, want] = min(found, default=0.0)
        return price

    # Room that is kept ------------------------------------------------------------------------------------------------

    def keep(self, cell: str, kept: Kept) -> None:
        """Nothing that would be in its way is placed there from now on."""
        self.kept.setdefault(cell, []).append(kept)

    def reserved(self, cell: str, gang: PendingGang) -> frozenset[str]:
        """Nodes there that are reserved for others than that gang, or held for services and not lent to its class."""
        kept = self.kept.get(cell)
        if kept is None:
            return _NOTHING
        found: list[Iterable[str]] = [one.nodes for one in kept if one.nodes and gang.qos not in one.lent_to]
        found += [one.reservation.nodes for one in kept if one.reservation and one.reservation.uid != gang.uid]
        return frozenset[str]().union(*found)

    def in_the_way(self, cell: str, shape: Shape, *, ends_at: float) -> Iterator[Kept]:
        """What a gang of that shape that ends then has to leave alone."""
        for kept in self.kept.get(cell, ()):
            if shape.qos not in kept.lent_to and ends_at > kept.at:
                yield kept

    def capacities(self, cell: str, shape: Shape, want: Want, *, ends_at: float) -> tuple[Ints, int]:
        """Workers that each node takes, kept room left out; and their sum."""
        look = self._books[cell].see(want)
        capacities, total = look.capacities, look.total
        if cell not in self.kept:
            return capacities, total
        for kept in self.in_the_way(cell, shape, ends_at=ends_at):
            capacities = np.minimum(capacities, kept.book.see(want).capacities)
            total = int(capacities.sum())
        return capacities, total

    def fits(self, cell: str, want: Want) -> int:
        """Workers that fit now, were nothing kept."""
        return self._books[cell].see(want).total

    def most(self, want: Want) -> int:
        """No cell takes more workers than that; found once a cycle, since what is free only shrinks."""
        if want not in self._most:
            self._most[want] = max((book.see(want).total for book in self._books.values()), default=0)
        return self._most[want]

    def refuse(self, shape: Shape, *, ends_at: float) -> None:
        """No cell takes such a gang now."""
        self._refused.setdefault(self._needs(shape), []).append((shape.min_workers, ends_at))

    def is_refused(self, shape: Shape, *, ends_at: float) -> bool:
        """Whether one that asked for no more, and for no longer, had no place: free resources only shrink here."""
        known = self._refused.get(self._needs(shape))
        return known is not None and any(shape.min_workers >= fewest and ends_at >= end for fewest, end in known)

    def _needs(self, shape: Shape) -> tuple[object, ...]:
        """What two shapes must have in common for the refusal of one to say anything of the other."""
        return (self.wants(shape), shape.qos, shape.cells, shape.held_off)

    # Entries ----------------------------------------------------------------------------------------------------------

    def enter(self, gang: RunningGang) -> None:
        """It holds its place; from rooms that are kept for a time that it outlasts it takes too."""
        self.owned(gang.cell).enter(gang)
        if gang.qos is not QoS.PREEMPTIBLE:
            self.quotas.take(gang.tenant, gang.request.accelerator, gang.held)
        ends_at = NO_END if gang.ends_at is None else gang.ends_at
        for kept in self.kept.get(gang.cell, ()):
            if ends_at > kept.at:
                kept.book.take(gang.request, gang.nodes, gang.devices)


def needs_of(shape: Shape) -> tuple[object, ...]:
    """What two shapes must have in common for the words to one that waits to be true of the other."""
    classes = (shape.qos, shape.capacity_types, shape.recovering)
    return (shape.request, shape.alternatives, shape.cells, shape.held_off, classes)
