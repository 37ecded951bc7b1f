"""The jobs that wait, counted as they come and go: samples of a long queue cost no more than those of a short one."""

from collections import Counter
from collections.abc import Iterator

from helios.scheduler import PendingGang, Request
from helios.simulator.life import Life
from helios.spec import CapacityType, QoS

Shape = tuple[Request, tuple[str, ...], tuple[CapacityType, ...]]
"""What one worker needs, in which cells (empty: any), on nodes of which capacity types (empty: any)."""


class Waiting:
    """Jobs in the queue.

    Attributes:
        pending: how many there are, by QoS class.
        least: devices that they ask for at least, in thousandths, by QoS class.
        shapes: gangs by what one of their workers needs or could do with.
    """

    __slots__ = ("_uids", "least", "pending", "shapes")

    def __init__(self) -> None:
        self._uids: set[str] = set()
        self.pending: Counter[QoS] = Counter()
        self.least: Counter[QoS] = Counter()
        self.shapes: Counter[Shape] = Counter()

    def __len__(self) -> int:
        return len(self._uids)

    def add(self, life: Life) -> None:
        """It waits from now on."""
        self._uids.add(life.gang.uid)
        self._count(life, 1)

    def remove(self, life: Life) -> None:
        """It waits no more. Raises KeyError where it did not."""
        self._uids.remove(life.gang.uid)
        self._count(life, -1)

    def _count(self, life: Life, sign: int) -> None:
        self.pending[life.job.qos] += sign
        self.least[life.job.qos] += sign * round(1000 * life.least)
        for shape in _shapes(life.gang):
            self.shapes[shape] += sign
            if not self.shapes[shape]:
                del self.shapes[shape]


def _shapes(gang: PendingGang) -> Iterator[Shape]:
    return ((request, gang.cells, gang.capacity_types) for request in (gang.request, *gang.alternatives))
