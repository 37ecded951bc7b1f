"""The clock of a simulated cell: ours, from the cell's first moment on, at the cell's own speed."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from helios.ports import Clock


@dataclass(frozen=True, slots=True)
class Pace:
    """From our time `real` on, which is `cell` on the cell's clock, `speed` of its seconds pass in one of ours."""

    real: float
    cell: float
    speed: float


class CellClock:
    """Both clocks agree at the cell's first moment; neither goes back, also where its speed changes later.

    Args:
        paces: in order, at least one.
    """

    def __init__(self, real: Clock, paces: Sequence[Pace]) -> None:
        self._real = real
        self._paces = tuple(paces)
        self._cells = [pace.cell for pace in paces]
        self._last = -math.inf

    @property
    def paces(self) -> tuple[Pace, ...]:
        return self._paces

    def now(self) -> float:
        """Seconds on the cell's clock; it stands still while ours goes back."""
        pace = self._paces[-1]
        self._last = max(self._last, pace.cell + (self._real.now() - pace.real) * pace.speed)
        return self._last

    def real(self, cell_time: float) -> float:
        """Our time when the cell's clock showed this; infinite times stay infinite."""
        if math.isinf(cell_time):
            return cell_time
        pace = self._paces[max(0, bisect_right(self._cells, cell_time) - 1)]
        return pace.real + (cell_time - pace.cell) / pace.speed
