"""Where agents meet the control plane, on any replica: what a cell is to run, and what it says it runs.

Nothing here outlives the process but reports, which lie in the store for the replica that leads. Nothing else needs
to: agents report levels, so what was lost is said again.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from helios import wire
from helios.control import status
from helios.control.index import Index
from helios.errors import ForbiddenError, NotFoundError
from helios.lifecycle import TERMINAL
from helios.ports import Desired, LaunchStatus, LogWant, NodeObservation, Phase, Report, Session, Stop
from helios.store import Mirror, Record, Store

STRAY_GRACE_S = 30.0
LOOK_S = 0.5
"""How often a waiting agent's call looks for logs that somebody wants; launches and stops wake it at once."""
NO_SESSION = Session()
_LIVE = frozenset({Phase.STARTING, Phase.RUNNING})


class CellGateway:
    """An `AgentChannel` over the store. Thread-safe."""

    def __init__(
        self, store: Store, mirror: Mirror, index: Index, *, on_report: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._index = index
        self._on_report = on_report
        self._lock = threading.Lock()
        self._strays: dict[str, tuple[Stop, ...]] = {}
        self._sequence = itertools.count(time.time_ns())

    def desired(self, cell: str) -> Desired:
        """What the cell is to run and to stop. Raises `NotFoundError` for a cell that nobody applied."""
        self._mirror.sync()
        return self._desired(cell)

    def wait(self, cell: str, known: Desired, timeout: float) -> Desired:
        """Return `desired(cell)` as soon as it differs from `known`, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            version = self._index.placement_version(cell)
            desired = self._desired(cell) if self._mirror.follows else self.desired(cell)
            remaining = deadline - time.monotonic()
            if desired != known or remaining <= 0:
                return desired
            self._index.wait_placed(cell, version, min(remaining, LOOK_S))

    def report(
        self,
        cell: str,
        nodes: Sequence[NodeObservation] | None,
        statuses: Sequence[LaunchStatus] = (),
        *,
        session: Session = NO_SESSION,
    ) -> None:
        """Take in what the cell says: its nodes, and the status of everything in `desired`.

        Raises:
            NotFoundError: for a cell that nobody applied.
            FencedError: a later agent of this cell has reported.
        """
        # To judge what nobody wants, everything that was ever ordered must be known here: a launch that another
        # replica's leader ordered a moment ago is no stray.
        self._mirror.sync()
        self._mirror.get("Cell", cell)
        strays = self._find_strays(cell, statuses)
        with self._lock:
            self._strays[cell] = strays
        report = Report(cell, None if nodes is None else tuple(nodes), tuple(statuses), session)
        sequence = session.sequence if session.generation else next(self._sequence)
        body = wire.report_to_json(report)
        self._store.put_report(cell, generation=session.generation, sequence=sequence, body=body)
        self._on_report()

    def push_log(self, cell: str, uid: str, epoch: int, *, offset: int, data: bytes, ended: bool) -> None:
        """Keep log bytes that somebody reads.

        Raises:
            NotFoundError: for a cell that nobody applied, or a launch that is not there.
            ForbiddenError: the launch is another cell's, and nobody asked this one for its log.
        """
        self._mirror.get("Cell", cell)
        record = self._mirror.by_uid(uid)
        place = record.status.get("placement") if record is not None else None
        wanted = any((want[0], want[1]) == (uid, epoch) for want in self._store.log_wants(cell))
        if not wanted and record is None:
            raise NotFoundError("launch", uid)
        if not wanted and (record is None or place is None or place["cell"] != cell or epoch > status.epoch(record)):
            raise ForbiddenError(f"cell {cell!r} was not asked for the log of {uid} epoch {epoch}")
        self._store.put_log(uid, epoch, offset=offset, data=data, ended=ended)

    def _desired(self, cell: str) -> Desired:
        self._mirror.get("Cell", cell)
        here = self._index.placed(cell)
        launches = tuple(status.launch_of(record) for record in here if not record.status.get("stop"))
        stops = tuple(_stop(record) for record in here if record.status.get("stop"))
        wants = tuple(LogWant(uid, epoch, offset) for uid, epoch, offset in self._store.log_wants(cell))
        with self._lock:
            found = self._strays.get(cell, ())
        # Judged again: the report that they are from is of a moment ago, or longer where agents have moved elsewhere.
        strays = tuple(stop for stop in found if unwanted(self._mirror.by_uid(stop.uid), cell, stop.epoch))
        return Desired(launches, stops + strays, wants)

    def _find_strays(self, cell: str, statuses: Sequence[LaunchStatus]) -> tuple[Stop, ...]:
        """Launches that live in a cell and that nobody wants there: of an epoch that was replaced, or of no record."""
        return tuple(
            Stop(seen.uid, seen.epoch, STRAY_GRACE_S, "Superseded")
            for seen in statuses
            if seen.phase in _LIVE and unwanted(self._mirror.by_uid(seen.uid), cell, seen.epoch)
        )


def report_of(body: Mapping[str, Any]) -> Report:
    """The report that lies in the store. Raises `InputError` for what is none."""
    return wire.report_from_json(body)


def unwanted(record: Record | None, cell: str, epoch: int) -> bool:
    """Whether a launch of that epoch has no business in that cell: it was replaced, or nobody knows of it."""
    if record is None:
        return True
    over = record.kind == "Job" and record.state in TERMINAL
    place = status.placement(record)
    return over or place is None or place["cell"] != cell or epoch != status.epoch(record)


def _stop(record: Record) -> Stop:
    stop = record.status["stop"]
    return Stop(record.uid, status.epoch(record), float(stop.get("grace", status.DEFAULT_GRACE_S)), stop["reason"])
