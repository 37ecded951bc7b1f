"""Where agents meet the control plane: what a cell is to run, and what it says it runs."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from helios.control import status
from helios.control.job_machine import TERMINAL
from helios.ports import Clock, Launch, LaunchStatus, NodeObservation, Phase
from helios.store import Record, Store

STOP_GRACE_S = 30.0
_LIVE = frozenset({Phase.STARTING, Phase.RUNNING})


@dataclass(frozen=True, slots=True)
class Stop:
    """A launch that is to end: notice, `grace_s` for a checkpoint, then the end."""

    uid: str
    epoch: int
    grace_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Desired:
    launches: tuple[Launch, ...] = ()
    stops: tuple[Stop, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What a cell said at one moment; `nodes` is None where the agent is there and its engine is not."""

    cell: str
    nodes: tuple[NodeObservation, ...] | None
    statuses: tuple[LaunchStatus, ...]


class CellGateway:
    """Thread-safe. Intents are read from the store; reports wait here for the next tick.

    Nothing here outlives the process, and nothing needs to: agents report levels, so what was lost is said again.
    """

    def __init__(self, store: Store, clock: Clock, *, on_report: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._clock = clock
        self._on_report = on_report
        self._lock = threading.Lock()
        self._reports: deque[Report] = deque()
        self._heard: dict[str, float] = {}
        self._strays: dict[str, tuple[Stop, ...]] = {}
        self._since = clock.now()

    def desired(self, cell: str) -> Desired:
        """What the cell is to run and to stop. Raises `NotFoundError` for a cell that nobody applied."""
        self._store.get("Cell", cell)
        here = [record for record in self._work() if (status.placement(record) or {}).get("cell") == cell]
        live = [record for record in here if record.state not in TERMINAL or record.kind == "Service"]
        launches = tuple(status.launch_of(record) for record in live if not record.status.get("stop"))
        stops = tuple(_stop(record) for record in live if record.status.get("stop"))
        with self._lock:
            return Desired(launches, stops + self._strays.get(cell, ()))

    def wait(self, cell: str, known: Desired, timeout: float) -> Desired:
        """Return `desired(cell)` as soon as it differs from `known`, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            revision = self._store.revision()
            desired = self.desired(cell)
            remaining = deadline - time.monotonic()
            if desired != known or remaining <= 0:
                return desired
            self._store.wait(revision, remaining)

    def report(self, cell: str, nodes: Sequence[NodeObservation] | None, statuses: Sequence[LaunchStatus] = ()) -> None:
        """Take in what the cell says: its nodes, and the status of everything in `desired`.

        Raises:
            NotFoundError: for a cell that nobody applied.
        """
        self._store.get("Cell", cell)
        strays = self._find_strays(cell, statuses)
        with self._lock:
            self._heard[cell] = self._clock.now()
            self._strays[cell] = strays
            self._reports.append(Report(cell, None if nodes is None else tuple(nodes), tuple(statuses)))
        self._on_report()

    def take(self) -> tuple[Report, ...]:
        """The reports since the last call, in order."""
        with self._lock:
            reports = tuple(self._reports)
            self._reports.clear()
            return reports

    def silent_for(self, cell: str) -> float:
        """Seconds since the cell's last report, or since this process began to listen."""
        with self._lock:
            return self._clock.now() - self._heard.get(cell, self._since)

    def _work(self) -> tuple[Record, ...]:
        return self._store.records("Job") + self._store.records("Service")

    def _find_strays(self, cell: str, statuses: Sequence[LaunchStatus]) -> tuple[Stop, ...]:
        """Launches that live in a cell and that nobody wants there: of an epoch that was replaced, or of no record."""
        live = [seen for seen in statuses if seen.phase in _LIVE]
        if not live:
            return ()
        wanted = {record.uid: record for record in self._work()}
        return tuple(
            Stop(seen.uid, seen.epoch, STOP_GRACE_S, "Superseded")
            for seen in live
            if seen.uid not in wanted or _unwanted(wanted[seen.uid], cell, seen.epoch)
        )


def _unwanted(record: Record, cell: str, epoch: int) -> bool:
    place = status.placement(record)
    return place is None or place["cell"] != cell or epoch != status.epoch(record)


def _stop(record: Record) -> Stop:
    reason = record.status["stop"]["reason"]
    return Stop(record.uid, status.epoch(record), STOP_GRACE_S, reason)
