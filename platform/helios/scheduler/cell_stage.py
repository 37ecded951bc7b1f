"""Stage two: the workers of one gang on the nodes of one cell, all of them (at least the minimum) or none.

Topology domains are gone through from the narrowest: one node, one rack, one block, one fabric, the cell. In the first
that holds the gang, nodes are filled whole, and the rest goes where it breaks up least (fragmentation gradient).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from helios.scheduler.book import Book
from helios.scheduler.fragmentation import Floats, gradient
from helios.scheduler.layout import LEVELS, Access, Bools, Ints
from helios.scheduler.lines import Shape
from helios.scheduler.policy import Policy
from helios.scheduler.snapshot import Request
from helios.spec import CapacityType

Demand = tuple[tuple[int, float], ...]
"""Devices that a worker asks for, and the share of the gangs whose workers do."""
WIDTHS = ("node", *LEVELS, "cell")


@dataclass(frozen=True, slots=True)
class Fit:
    """A place for a gang.

    Attributes:
        nodes: the node of each worker.
        devices: for a share: the device of each worker on its node.
        width: the narrowest topology domain that holds all of it, as an index into `WIDTHS`.
    """

    cell: str
    request: Request
    nodes: tuple[str, ...]
    devices: tuple[int, ...] = ()
    width: int = 0


def access_of(shape: Shape, policy: Policy) -> Access:
    """Which nodes the gang may use."""
    allowed = policy.capacity_types.get(shape.qos)
    asked = frozenset(shape.capacity_types)
    types = asked & allowed if asked and allowed is not None else asked or allowed or frozenset()
    if asked and not types:  # what it asks for its class may not have; nothing may take it
        types = asked
    return _access(types, spares=shape.recovering)


@lru_cache(maxsize=4096)
def _access(types: frozenset[CapacityType], *, spares: bool) -> Access:
    """One object for equals: they are compared by identity first."""
    return Access(types, spares)


def place(book: Book, request: Request, workers: int, capacities: Ints, *, policy: Policy, demand: Demand) -> Fit:
    """Nodes for so many workers.

    Args:
        capacities: workers that each node may take; their sum is at least `workers`.
    """
    helios = policy.cell_stage == "helios"
    width, inside = _domain(book, capacities, workers, levels=LEVELS if helios and policy.topology else ())
    capacities = np.where(inside, capacities, 0)
    weights = demand if helios and policy.fragmentation and request.accelerators else ()
    nodes = _fill(book, request, workers, capacities, demand=weights)
    devices = book.share_devices(request.accelerator, request.share, nodes) if request.share else ()
    return Fit(book.cell.name, request, nodes, devices, width)


def _domain(book: Book, capacities: Ints, workers: int, *, levels: Sequence[str]) -> tuple[int, Bools]:
    """The narrowest domain that holds them all, the tightest of its level; its width and its nodes."""
    if capacities.max(initial=0) >= workers:
        return 0, capacities >= workers
    for level in levels:
        domain = book.layout.domains[level]
        sums = np.bincount(domain, weights=capacities)
        holds = np.flatnonzero(sums >= workers)
        if holds.size:
            tightest = holds[np.argmin(sums[holds])]
            return WIDTHS.index(level), domain == tightest
    return len(WIDTHS) - 1, np.ones(len(capacities), dtype=np.bool_)


def _fill(book: Book, request: Request, workers: int, capacities: Ints, *, demand: Demand) -> tuple[str, ...]:
    """Fill the roomiest nodes, those that are near each other first; put the rest where it costs others least."""
    left, rest, names = np.flatnonzero(capacities), workers, book.layout.names
    chosen: list[str] = []
    if capacities.max() < workers:
        domains = [book.layout.domains[level] for level in LEVELS]
        near = [-np.bincount(domain, weights=capacities)[domain][left] for domain in domains]
        left = left[np.lexsort([left, -capacities[left], *near])]
        filled = np.cumsum(capacities[left])
        whole = int(np.searchsorted(filled, workers))
        chosen = [names[row] for row in left[:whole] for _ in range(int(capacities[row]))]
        left, rest = left[whole:], workers - len(chosen)
    if rest:
        holders = left[capacities[left] >= rest]
        chosen += [names[_gentlest(book, request, holders, rest, capacities, demand=demand)]] * rest
    return tuple(chosen)


def _gentlest(book: Book, request: Request, rows: Ints, workers: int, capacities: Ints, *, demand: Demand) -> int:
    """The node that loses least of what others could use; among equals the tightest, then the first."""
    tightness = capacities[rows]
    if not demand:
        return int(rows[np.argmin(tightness)])
    free = book.free[request.accelerator][rows]
    cost = _gradients(int(free.max()), workers * request.accelerators, demand)[free]
    return int(rows[np.lexsort((rows, tightness, cost))[0]])


@lru_cache(maxsize=4096)
def _gradients(most: int, take: int, demand: Demand) -> Floats:
    """The gradient by how many devices are free, 0 to `most`."""
    return gradient(np.arange(most + 1), take, dict(demand))


def racks(book: Book, nodes: Sequence[str]) -> int:
    """How many racks these nodes are in."""
    layout = book.layout
    return len(Counter(int(layout.domains["rack"][layout.rows[name]]) for name in nodes if name in layout.rows))


def wording(request: Request) -> str:
    """`8 x H100, 16 cpus, 64.0 GiB`."""
    parts = [f"{request.accelerators} x {request.accelerator}"] if request.accelerators else []
    if request.share:
        parts.append(f"{request.share / 1000:g} of a {request.accelerator}")
    parts.append(f"{request.millicpus / 1000:g} cpus")
    if request.memory:
        parts.append(f"{request.memory / 2**30:.3g} GiB")
    return ", ".join(parts)
