"""What passes by itself: the silence of cells, deadlines, and reports that have not been looked at."""

import heapq
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from helios.control.cell import SILENCE_S
from helios.control.index import Index
from helios.ports import Clock
from helios.store import Store, StoredReport

LOOK_AT_CELLS_S = 1.0
MOST_STALE = 1000
"""Deadlines that were moved and lie in the heap still, beyond which it is made anew."""
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Heard:
    """A cell's report.

    Attributes:
        timely: False where it lay in the store from long before this replica began to lead: it says how things ended,
            and nothing about now.
    """

    report: StoredReport
    timely: bool


class Watcher:
    """Timers and the ears of the replica that leads; nothing of it outlives a term of office. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due: dict[_Key, float] = {}
        self._heap: list[tuple[float, _Key]] = []
        self._version = 0
        self._heard: dict[str, tuple[tuple[int, int], float]] = {}
        self._since = 0.0
        self._first = True
        self._met: set[str] = set()
        self._scheduling: list[float] = []
        self._asked: set[float] = set()
        self.begin()

    def begin(self) -> None:
        with self._lock:
            self._due.clear()
            self._heap.clear()
            self._scheduling.clear()
            self._asked.clear()
            self._version = 0
            self._heard.clear()
            self._met.clear()
            self._first = True
            self._since = self._clock.now()

    def fresh(self, store: Store) -> Sequence[Heard]:
        """The newest report of every cell that has said something since the last call."""
        reports = store.reports(after=self._version)
        with self._lock:
            # What lay in the store when this replica began to lead is no sign of life. Clocks of replicas may differ,
            # so what comes later is timely whatever its time says.
            first, self._first = self._first, False
            heard = self._since if first else self._clock.now()
            found = [Heard(one, timely=not first or self._since - one.received_at <= SILENCE_S) for one in reports]
            self._met |= {one.report.cell for one in found if one.timely}
            for report in reports:
                self._version = max(self._version, report.version)
                said = (report.generation, report.sequence)
                known = self._heard.get(report.cell)
                if known is None or known[0] != said:
                    self._heard[report.cell] = (said, heard)
        return found

    def has_met(self, cells: Iterable[str]) -> bool:
        """Whether each of these has told this replica what lives there, or has had the time to."""
        with self._lock:
            return self._clock.now() - self._since > SILENCE_S or self._met.issuperset(cells)

    def silent_for(self, cell: str) -> float:
        """Seconds since the cell's last report, or since this replica began to listen."""
        with self._lock:
            _, heard = self._heard.get(cell, ((0, 0), self._since))
            return self._clock.now() - heard

    def look_at(self, kind: str, name: str, due: float | None) -> None:
        """Have the record looked at again at that time; one time a record, None for never."""
        with self._lock:
            if due is None:
                self._due.pop((kind, name), None)
            elif self._due.get((kind, name)) != due:
                self._due[kind, name] = due
                heapq.heappush(self._heap, (due, (kind, name)))
                if len(self._heap) > len(self._due) + MOST_STALE:
                    self._heap = [(moment, key) for key, moment in self._due.items()]
                    heapq.heapify(self._heap)

    def touch_due(self, index: Index, now: float) -> None:
        """Hand what is due to the index, each once."""
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                due, key = heapq.heappop(self._heap)
                if self._due.get(key) == due:
                    del self._due[key]
                    index.touch(*key)

    def schedule_at(self, due: float) -> None:
        """Have the scheduler decide again at that time, though nothing changes."""
        with self._lock:
            if due not in self._asked:
                self._asked.add(due)
                heapq.heappush(self._scheduling, due)

    def scheduling_due(self, now: float) -> bool:
        with self._lock:
            due = False
            while self._scheduling and self._scheduling[0] <= now:
                self._asked.discard(heapq.heappop(self._scheduling))
                due = True
            return due

    def next_due(self) -> float:
        """When the next record is to be looked at; seconds since the epoch."""
        with self._lock:
            return self._heap[0][0] if self._heap else self._clock.now() + LOOK_AT_CELLS_S

    def next_scheduling(self) -> float:
        """When the scheduler is to decide again though nothing changes; infinite where it is not."""
        with self._lock:
            return self._scheduling[0] if self._scheduling else math.inf
