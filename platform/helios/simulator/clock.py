"""The virtual clock: what is to happen, in the order of its time."""

import heapq
import math
from collections.abc import Callable
from typing import Any

JOBS, NODES = 0, 1
"""Ranks: at the same moment, jobs that end go before nodes that die."""

Handler = Callable[[Any, int], None]
_Entry = tuple[float, int, int, Handler, Any, int]


class Agenda:
    """Events to come. Those of one moment go by rank, then in the order in which they were put down.

    Nothing is ever taken off: an event carries the version of its subject, and a handler passes over what is stale.
    """

    __slots__ = ("_heap", "_serial", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[_Entry] = []
        self._serial = 0

    def put(self, at: float, handler: Handler, subject: object, version: int = 0, *, rank: int = JOBS) -> None:
        """Have `handler(subject, version)` called at that time; never, where it is infinite."""
        if at < math.inf:
            self._serial += 1
            heapq.heappush(self._heap, (at, rank, self._serial, handler, subject, version))

    @property
    def next_at(self) -> float:
        """When the next event is; infinite where none is to come."""
        return self._heap[0][0] if self._heap else math.inf

    def step(self) -> None:
        """Let the clock go to the next event, and the event happen."""
        self.now, _, _, handler, subject, version = heapq.heappop(self._heap)
        handler(subject, version)
