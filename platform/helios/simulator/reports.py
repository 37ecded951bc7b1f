"""What running gangs say of themselves: written checkpoints, and ends that did not come when they were expected."""

import heapq
import math

from helios.scheduler import Fleet
from helios.scheduler.estimates import Predictor
from helios.simulator.life import Life
from helios.spec import QoS


class Reports:
    """Words that are due, taken in just before a scheduling cycle: no event is needed for each checkpoint."""

    __slots__ = ("_heap", "_ledger", "_pause", "_predictor", "_serial")

    def __init__(self, ledger: Fleet, predictor: Predictor, *, pause: float) -> None:
        self._ledger = ledger
        self._predictor = predictor
        self._pause = pause
        self._heap: list[tuple[float, int, Life, int]] = []
        self._serial = 0

    def expect(self, life: Life, *, after: float) -> None:
        """Listen to a gang that runs, for what it has to say after that moment."""
        due = math.inf
        if life.progress is not None and (life.job.qos is not QoS.GUARANTEED or life.job.most > life.job.workers):
            due = life.progress.next_save(after)
        if life.ends_at is not None:
            due = min(due, max(life.ends_at, after))
        if due < math.inf:
            self._serial += 1
            heapq.heappush(self._heap, (due, self._serial, life, life.version))

    def catch_up(self, now: float) -> None:
        """Show the scheduler what was said until now."""
        while self._heap and self._heap[0][0] <= now:
            _, _, life, version = heapq.heappop(self._heap)
            if life.version != version or life.progress is None:
                continue
            if life.ends_at is not None and life.ends_at <= now:
                left = self._predictor.expected(life.job.beforehand, ran_s=life.kept + life.progress.at(now).done)
                life.ends_at = None if left is None else now + left / life.progress.rate
            self._ledger.put(life.shown(now))
            self.expect(life, after=now + self._pause)
