"""How many workers fit while gangs leave one after the other, and some of them stay after all."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from helios.scheduler.book import BOUNDLESS, Book
from helios.scheduler.layout import Bools, Ints
from helios.scheduler.snapshot import Request


class Emptying:
    """Workers of one request that fit on some nodes of a cell. The book is left as it is.

    Plain numbers: gangs touch a few nodes each, and to change an element of an array costs ten times as much.

    Attributes:
        total: workers that fit now.
    """

    def __init__(self, book: Book, request: Request, inside: Bools, fitting: Ints | None = None) -> None:
        """Begin with what fits.

        Args:
            inside: the nodes that are looked at.
            fitting: workers that fit on each of these, where that is known.
        """
        self._request, self._row_of, self._inside = request, book.layout.rows, inside
        # Where devices are shared, which of them comes free is the book's to say.
        self._shared = book.bare() if request.share or book.is_shared(request.accelerator) else None
        self._before = book.fitting(request) if fitting is None else fitting
        free = book.free.get(request.accelerator)
        self._columns = (np.zeros_like(self._before) if free is None else free, book.millicpus, book.memory)
        # Of the nodes that somebody left, since these are few.
        self._left: dict[int, list[int]] = {}
        self._fits: dict[int, int] = {}
        self.total = int(self._before[inside].sum())

    @property
    def capacities(self) -> Ints:
        """Workers that fit on each node of the cell; none outside of those that are looked at."""
        found = np.where(self._inside, self._before, 0)
        found[list(self._fits)] = list(self._fits.values())
        return found

    def leave(self, held: Request, nodes: tuple[str, ...], devices: Sequence[int] = (), *, sign: int = 1) -> None:
        """One worker on each of `nodes` gives back what it holds; with `sign=-1` it takes it again."""
        for row in self._give(held, nodes, devices, sign):
            self._count(row)

    def leave_all(self, leavers: Iterable[tuple[Request, tuple[str, ...], Sequence[int]]]) -> None:
        """`leave` of many, summed up once at the end."""
        touched: set[int] = set()
        for held, nodes, devices in leavers:
            touched.update(self._give(held, nodes, devices, 1))
        for row in touched:
            self._count(row)

    def _give(self, held: Request, nodes: tuple[str, ...], devices: Sequence[int], sign: int) -> list[int]:
        """Enter it; the rows that it changed."""
        if self._shared is not None:
            self._shared.take(held, nodes, devices, sign=-sign)
        same = sign * held.accelerators if held.accelerator == self._request.accelerator else 0
        millicpus, memory, row_of, known = sign * held.millicpus, sign * held.memory, self._row_of, self._left
        rows = []
        for name, workers in counted(nodes):
            row = row_of.get(name, -1)
            left = known.get(row)
            if left is None:
                if row < 0 or not self._inside[row]:
                    continue
                left = known[row] = [column.item(row) for column in self._columns]
                self._fits[row] = self._before.item(row)
            left[0] += workers * same
            left[1] += workers * millicpus
            left[2] += workers * memory
            rows.append(row)
        return rows

    def _count(self, row: int) -> None:
        fits = self._fit(row, self._left[row])
        self.total += fits - self._fits[row]
        self._fits[row] = fits

    def _fit(self, row: int, left: Sequence[int]) -> int:
        request = self._request
        if self._shared is not None:
            return int(self._shared.fitting_on(request, np.array([row]))[0])
        fits = left[0] // request.accelerators if request.accelerators else BOUNDLESS
        if request.millicpus:
            fits = min(fits, left[1] // request.millicpus)
        if request.memory:
            fits = min(fits, left[2] // request.memory)
        return max(fits, 0)


@lru_cache(maxsize=100_000)
def counted(nodes: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Each node once, and how many workers are on it."""
    return ((nodes[0], 1),) if len(nodes) == 1 else tuple(Counter(nodes).items())
