"""When what waits will start, and how far to trust that: live forecasts, and what became of those before.

Now and then some random gangs of the queue are forecast, and once they start it is learned how far off that was. It is
learned by each replica for itself, in memory, and begins anew with the process: a forecast that nobody noted down then
cannot be made up later from the records.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from helios.lifecycle import TERMINAL
from helios.ports import Clock
from helios.scheduler import Band, Calibration, Forecast, PendingGang, Policy, Snapshot, forecast
from helios.spec import QoS
from helios.store import Mirror, seconds, timestamp

COVERAGE = 0.8
EVERY_S = 60.0
"""Between two rounds of forecasts that are learned from."""
SHARE = 49.0
"""The same at least, in lengths of the round before: with ten thousand in the queue a round takes seconds."""
GANGS = 2
"""Of each class, that are forecast in a round."""
TICK_S = 0.001
"""What a record cuts off a moment at most."""
_log = logging.getLogger(__name__)


class Forecaster:
    """Foretells starts, and keeps the calibration. Thread-safe; never in the way of a scheduling cycle."""

    def __init__(self, mirror: Mirror, snapshot: Callable[[], Snapshot], clock: Clock, policy: Policy) -> None:
        self._mirror, self._snapshot, self._clock, self._policy = mirror, snapshot, clock, policy
        self._lock = threading.Lock()
        self._calibration = Calibration()
        self._made_at: dict[str, float] = {}
        self._random = random.Random(0)  # draws samples, no secrets

    @property
    def waiting(self) -> frozenset[str]:
        """Gangs of which a start is waited for, by uid."""
        return frozenset(self._made_at)

    def answer(self, snapshot: Snapshot, uid: str) -> dict[str, Any]:
        """When a gang that waits will start, as JSON. Raises `KeyError` where it is not pending."""
        told = forecast(snapshot, [uid], self._policy)[uid]
        qos = next(gang.qos for gang in snapshot.pending if gang.uid == uid)
        facts: dict[str, Any] = {
            "at": None if told.at is None else timestamp(told.at),
            "notBefore": None if told.at is not None or told.until == math.inf else timestamp(told.until),
            "band": None,
            "calibration": None,
        }
        if _is_due(told) or told.wait == math.inf:
            return facts  # it starts in the next cycle, or never: there is nothing to be learned from
        with self._lock:
            found = self._calibration.band(told, qos, COVERAGE)
        if isinstance(found, Band):
            return facts | {"band": _band(found, told)}
        return facts | {"calibration": {"learned": found.learned, "needed": found.needed}}

    def look(self) -> None:
        """One round: learn what started since the last one, then forecast some that wait."""
        self._learn()
        snapshot = self._snapshot()
        waiting = {gang.uid: gang.qos for gang in self._sample(snapshot)}
        if not waiting:
            return
        told = forecast(snapshot, waiting, self._policy)
        with self._lock:
            for uid, qos in waiting.items():
                if not _is_due(told[uid]) and self._calibration.note(told[uid], qos):
                    self._made_at[uid] = snapshot.now

    def run(self, stop: threading.Event) -> None:
        """A round now and then, until `stop` is set."""
        pause = EVERY_S
        while not stop.wait(pause):
            began = time.thread_time()
            try:
                self.look()
            except Exception:  # noqa: BLE001 - what one round met must not end all learning; the next tries again
                _log.exception("control: starts could not be forecast")
            pause = max(EVERY_S, SHARE * (time.thread_time() - began))

    def _sample(self, snapshot: Snapshot) -> list[PendingGang]:
        jobs = [gang for gang in snapshot.pending if gang.uid not in self._made_at and self._is_job(gang.uid)]
        drawn: list[PendingGang] = []
        for qos in QoS:
            of_class = [gang for gang in jobs if gang.qos is qos]
            drawn += self._random.sample(of_class, min(GANGS, len(of_class)))
        return drawn

    def _is_job(self, uid: str) -> bool:
        """Services do not say when they were given their place."""
        record = self._mirror.by_uid(uid)
        return record is not None and record.kind == "Job"

    def _learn(self) -> None:
        now = self._clock.now()
        for uid, made_at in list(self._made_at.items()):
            record = self._mirror.by_uid(uid)
            admitted = None if record is None else record.status.get("admittedAt")
            started_at = seconds(admitted) if admitted else -math.inf
            with self._lock:
                if started_at + TICK_S > made_at:
                    self._calibration.started(uid, started_at)
                elif record is None or record.state in TERMINAL:
                    self._calibration.withdrawn(uid, now)
                else:
                    continue
            del self._made_at[uid]


def _is_due(told: Forecast) -> bool:
    """Whether the next cycle starts it."""
    return told.at == told.made_at


def _band(band: Band, told: Forecast) -> dict[str, Any]:
    return {
        "coverage": band.coverage,
        "earliest": timestamp(told.made_at + band.earliest),
        "latest": None if band.latest == math.inf else timestamp(told.made_at + band.latest),
        "learned": band.learned,
        "basis": band.basis,
    }
