"""What the control plane looks up in the records, kept up change by change, so that no look scans ten thousand jobs."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from helios.control import status
from helios.control.cell import is_reachable
from helios.control.owners import owner_of
from helios.control.standing import Standing
from helios.lifecycle import TERMINAL
from helios.scheduler import Snapshot
from helios.store import Allocation, Gone, Mirror, Record

KINDS = ("Cell", "Tenant", "Curriculum", "Job", "Service")
"""In the order in which a pass looks at them: what is asked for is known before places are given away."""
_Key = tuple[str, str]
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Placed:
    """What lives in one cell, by uid; `version` moves with everything that its agent is to know."""

    records: dict[str, Record] = field(default_factory=dict)
    version: int = 0


class Index:
    """Lookups over the mirror's records. Thread-safe; it is as current as the mirror is."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._lock = threading.RLock()
        self._moved = threading.Condition(self._lock)
        self._orders_moved = False
        self._known: dict[_Key, Record] = {}
        self._cells: defaultdict[str, _Placed] = defaultdict(_Placed)
        self._place: dict[str, str] = {}
        self._owned: defaultdict[_Key, set[str]] = defaultdict(set)
        self._needed_by: defaultdict[str, set[str]] = defaultdict(set)
        self._unreadable: dict[str, Exception] = {}
        self._strays: dict[str, frozenset[str]] = {}
        self._dirty: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._standing = Standing()
        self.scheduling_version = 0
        """Moves with whatever the scheduler decides on: gangs, cells, quotas."""
        with self._lock:  # what the mirror tells meanwhile waits, and is no older than what is read here
            self._unsubscribe = mirror.subscribe(self._take_in)
            for kind in KINDS:
                self._take_in(mirror.records(kind))

    def close(self) -> None:
        self._unsubscribe()

    # What a cell runs -------------------------------------------------------------------------------------------------

    def placed(self, cell: str) -> tuple[Record, ...]:
        """Jobs and services that are to run, or to be stopped, in that cell."""
        with self._lock:
            return tuple(self._cells[cell].records.values()) if cell in self._cells else ()

    def placement_version(self, cell: str) -> int:
        with self._lock:
            return self._cells[cell].version

    def wait_placed(self, cell: str, after: int, timeout: float) -> int:
        """Block until `placement_version(cell) > after`, or `timeout` seconds passed."""
        deadline = time.monotonic() + timeout
        with self._moved:
            while self._cells[cell].version <= after:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._moved.wait(remaining):
                    break
            return self._cells[cell].version

    # Relations --------------------------------------------------------------------------------------------------------

    def owned(self, kind: str, name: str) -> dict[str, Record]:
        """The jobs that a curriculum, an array or a schedule made, by name."""
        with self._lock:
            names = tuple(self._owned.get((kind, name), ()))
        found = ((job, self._mirror.find("Job", job)) for job in names)
        return {job: record for job, record in found if record is not None}

    def note_strays(self, cell: str, uids: frozenset[str]) -> None:
        """Take in whose launches live in that cell though they should not: none of them starts elsewhere meanwhile."""
        with self._lock:
            self._strays[cell] = uids
            self.scheduling_version += self._standing.bar(self._all_strays())

    def _all_strays(self) -> frozenset[str]:
        return frozenset[str]().union(*self._strays.values())

    def unreadable(self, uid: str) -> Exception | None:
        """Why the scheduler cannot see that job or service, or None."""
        with self._lock:
            return self._unreadable.get(uid)

    # What is to be looked at ------------------------------------------------------------------------------------------

    def touch(self, kind: str, name: str) -> None:
        """Have it looked at in the next pass."""
        with self._lock:
            self._dirty[kind][name] = None

    def touch_all(self) -> None:
        """Level, not edge: whatever notification was lost, everything is looked at again."""
        with self._lock:
            for kind, name in self._known:
                self._dirty[kind][name] = None
            self.scheduling_version += 1

    def take_dirty(self, kind: str) -> list[str]:
        """The names to look at, in the order in which they changed; they are clean from now on."""
        with self._lock:
            return list(self._dirty.pop(kind, ()))

    def has_dirty(self) -> bool:
        with self._lock:
            return any(self._dirty.values())

    def reachable_cells(self) -> tuple[str, ...]:
        """Names of the cells that were in contact when their record was last written."""
        return tuple(cell.name for cell in self._mirror.records("Cell") if is_reachable(cell))

    # What the scheduler sees ------------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> Snapshot:
        """Cells, quotas, what waits and what holds resources."""
        with self._lock:
            return self._standing.snapshot(now)

    def runs_s(self, uid: str, workers: int) -> float | None:
        """Seconds that a job which waits is expected to run with so many workers; None where nothing is known."""
        with self._lock:
            return self._standing.runs_s(uid, workers)

    def remember_use(self, allocations: Sequence[Allocation]) -> None:
        """Take in what tenants had before this process began to count."""
        with self._lock:
            self._standing.use.remember(allocations)

    # Upkeep -----------------------------------------------------------------------------------------------------------

    def _take_in(self, items: Sequence[Record | Gone]) -> None:
        with self._moved:
            for item in items:
                if item.kind in KINDS:
                    self._put(item) if isinstance(item, Record) else self._drop(item)
            if self._orders_moved:  # and not at every change: each waiting agent would look in vain
                self._orders_moved = False
                self._moved.notify_all()

    def _order_moved(self, cell: str) -> None:
        """What the cell's agent is to know is another now."""
        self._cells[cell].version += 1
        self._orders_moved = True

    def _put(self, record: Record) -> None:
        key = (record.kind, record.name)
        old = self._known.get(key)
        if old == record:  # a lower version is news, too: the store was restored
            return
        if old is not None and old.uid != record.uid:
            self._forget(old)
            self._touch_owner(old)
        self._known[key] = record
        self._relate(record)
        self._place_in_cell(record)
        self._feed_scheduler(record)
        self._touch_around(record, old)

    def _drop(self, gone: Gone) -> None:
        record = self._known.get((gone.kind, gone.name))
        if record is None or record.uid != gone.uid:
            return
        del self._known[gone.kind, gone.name]
        self._forget(record)
        if record.kind == "Cell" and record.name in self._strays:
            del self._strays[record.name]
            self._standing.bar(self._all_strays())
        self._touch_around(record, record)
        self._dirty[record.kind].pop(record.name, None)
        self.scheduling_version += 1

    def _forget(self, record: Record) -> None:
        cell = self._place.pop(record.uid, None)
        if cell is not None:
            self._cells[cell].records.pop(record.uid, None)
            self._order_moved(cell)
        self._standing.drop(record)
        self._unreadable.pop(record.uid, None)
        owner = owner_of(record)
        if owner is not None:
            _discard(self._owned, owner, record.name)
        for needed in record.spec.get("needs", ()):
            _discard(self._needed_by, needed, record.name)

    def _relate(self, record: Record) -> None:
        owner = owner_of(record)
        if owner is not None:
            self._owned[owner].add(record.name)
        if record.kind == "Job" and record.state == "Pending":
            for needed in record.spec.get("needs", ()):
                self._needed_by[needed].add(record.name)

    def _place_in_cell(self, record: Record) -> None:
        if record.kind not in {"Job", "Service"}:
            return
        place = status.placement(record)
        over = record.kind == "Job" and record.state in TERMINAL
        cell = None if place is None or over else str(place["cell"])
        before = self._place.get(record.uid)
        if before is not None and before != cell:
            self._cells[before].records.pop(record.uid, None)
            self._order_moved(before)
            del self._place[record.uid]
            self._dirty["Cell"][before] = None  # one that is being deleted goes with the last of its work
        if cell is not None:
            old = self._cells[cell].records.get(record.uid)
            self._cells[cell].records[record.uid] = record
            self._place[record.uid] = cell
            if old is None or _orders(old) != _orders(record):
                self._order_moved(cell)

    def _feed_scheduler(self, record: Record) -> None:
        """Show the scheduler what is new; a record that cannot be read must not keep the others from being seen."""
        try:
            self.scheduling_version += self._standing.put(record)
        except _UNREADABLE as error:
            if record.uid not in self._unreadable:
                _log.error("control: %s %s cannot be scheduled", record.kind, record.name, exc_info=error)
            self._unreadable[record.uid] = error
            self._standing.drop(record)
        else:
            self._unreadable.pop(record.uid, None)

    def _touch_owner(self, record: Record) -> None:
        owner = owner_of(record)
        if owner is not None:
            self._dirty[owner[0]][owner[1]] = None

    def _touch_around(self, record: Record, old: Record | None) -> None:
        """Whatever may have to move because this one did."""
        self._dirty[record.kind][record.name] = None
        self._touch_owner(record)
        if record.kind == "Cell" and (old is None or (old.status, old.deleting) != (record.status, record.deleting)):
            for placed in self._cells[record.name].records.values():
                self._dirty[placed.kind][placed.name] = None
        if record.kind == "Job" and (old is None or old is record or old.state != record.state):
            for waiting in self._needed_by.get(record.name, ()):
                self._dirty["Job"][waiting] = None


def _discard(table: "defaultdict[Any, set[str]]", key: object, name: str) -> None:
    if key in table:
        table[key].discard(name)
        if not table[key]:
            del table[key]


def _orders(record: Record) -> tuple[object, ...]:
    """What its cell's agent is told of it."""
    return (status.epoch(record), record.status.get("stop"))
