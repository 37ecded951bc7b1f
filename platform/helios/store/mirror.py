"""All records in memory, kept current from the feed of changes: what reads often reads here.

A mirror is behind the store by the latency of a notification; `sync` closes the gap where a reader needs what was
written before it asked.
"""

import logging
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from helios.errors import CompactedError, NotFoundError, UnavailableError
from helios.store.protocol import Store
from helios.store.records import Gone, Record

Item = Record | Gone
Callback = Callable[[Sequence[Item]], None]

REMEMBERED = 20_000
"""Changes that `changed` can go back."""
SLICE_S = 0.5
"""How long the thread waits at a stretch: what `stop` waits for at most."""
REST_S = 0.02
"""From one look of the thread to its next where one change follows another: they come in one look then. A change after
a quiet time is taken in at once, and `sync` waits for nothing.
"""
RETRY_S = 1.0
PLACED_KINDS = ("Job", "Service")
_log = logging.getLogger(__name__)


class Mirror:
    """Thread-safe. Works without `start`, by `sync` alone.

    Attributes:
        revision: everything written up to here is in the mirror, and every subscriber has heard of it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pulling = threading.RLock()
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._shelves: dict[str, _Shelf] = {}
        self._by_uid: dict[str, Record] = {}
        self._cells: dict[str, dict[str, Record]] = {}
        self._cell_of: dict[str, str] = {}
        self._subscribers: list[Callback] = []
        self._recent: deque[Item] = deque()
        self._forgotten = 0
        self._untold: tuple[Sequence[Item], int, bool] | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.revision = 0

    # Keeping up -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Catch up, then keep up in a thread. Raises `UnavailableError` where the store does not answer."""
        self.sync()
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._keep_up, name="store-mirror", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def follows(self) -> bool:
        """Whether it keeps up by itself, so that whoever can wait for a notification need not ask the store."""
        return self._thread is not None

    def sync(self, min_revision: int | None = None, *, timeout: float = 5.0) -> int:
        """Catch up, in this thread where need be, at least to `min_revision`, or to the store's present revision.

        Returns `revision`.

        Raises:
            UnavailableError: the store does not answer, or did not come to that revision within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        wanted = self._store.revision() if min_revision is None else min_revision
        while self.revision < wanted:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise UnavailableError(f"the store has not come to revision {wanted} in {timeout:g} s")
            with self._pulling:
                moved = self.revision >= wanted or self._pull()
            if not moved:
                self._store.wait(self.revision, min(remaining, SLICE_S))
        return self.revision

    def wait(self, after_revision: int, timeout: float) -> int:
        """Block until `revision > after_revision` or `timeout` seconds passed; return the revision then."""
        if self._thread is None:
            if self.revision <= after_revision:
                self._store.wait(max(after_revision, self.revision), timeout)
                self.sync()
            return self.revision
        with self._moved:
            self._moved.wait_for(lambda: self.revision > after_revision, timeout)
            return self.revision

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Have it called with what changed, in order, after the mirror shows it; returns how to end that.

        It is called in whichever thread catches up, one call at a time. Where it raises, the same changes come again.
        """
        with self._lock:
            self._subscribers = [*self._subscribers, callback]

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = [other for other in self._subscribers if other is not callback]

        return unsubscribe

    # Reading ----------------------------------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> Record | None:
        with self._lock:
            shelf = self._shelves.get(kind)
            return None if shelf is None else shelf.records.get(name)

    def get(self, kind: str, name: str) -> Record:
        """Like `find`; raises `NotFoundError` with the nearest name."""
        record = self.find(kind, name)
        if record is None:
            with self._lock:
                known = tuple(self._shelves[kind].records) if kind in self._shelves else ()
            raise NotFoundError(kind.lower(), name, known=known)
        return record

    def records(self, kind: str, labels: Mapping[str, str] | None = None) -> tuple[Record, ...]:
        """All records of a kind that carry every given label, by name."""
        with self._lock:
            shelf = self._shelves.get(kind)
            found = () if shelf is None else shelf.by_name()
        if not labels:
            return found
        return tuple(record for record in found if labels.items() <= record.labels.items())

    def by_uid(self, uid: str) -> Record | None:
        with self._lock:
            return self._by_uid.get(uid)

    def on_cell(self, cell: str) -> tuple[Record, ...]:
        """Jobs and services whose `status.placement.cell` is that cell."""
        with self._lock:
            return tuple(self._cells.get(cell, {}).values())

    def changed(self, kind: str, after: int) -> tuple[Item, ...]:
        """Every change of records of a kind after a revision, up to `revision`, oldest first.

        Raises:
            CompactedError: it is too long ago; read everything anew.
        """
        with self._lock:
            if after < self._forgotten:
                raise CompactedError(f"changes after revision {after} are forgotten (up to {self._forgotten})")
            found = []
            for item in reversed(self._recent):
                if _revision(item) <= after:
                    break
                if item.kind == kind:
                    found.append(item)
        return tuple(reversed(found))

    # Upkeep -----------------------------------------------------------------------------------------------------------

    def _keep_up(self) -> None:
        rested_at = 0.0
        while not self._stop.is_set():
            try:
                if self._store.wait(self.revision, SLICE_S) != self.revision:
                    self._stop.wait(max(0.0, rested_at - time.monotonic()))
                    rested_at = time.monotonic() + REST_S
                    with self._pulling:
                        self._pull()
            except UnavailableError as error:
                _log.warning("the mirror cannot read the store, and tries again: %s", error)
                self._stop.wait(RETRY_S)
            except Exception:  # noqa: BLE001 - see below
                # A subscriber broke on a change. The mirror goes on for all others, and the change comes again.
                _log.exception("a change could not be taken in, and is tried again")
                self._stop.wait(RETRY_S)

    def _pull(self) -> bool:
        """Take in a page of changes; whether there was anything new."""
        before = self.revision
        if self._untold is not None:
            self._tell()
        elif before == 0:
            self._read_anew()
        else:
            try:
                changes = self._store.changes(before)
            except CompactedError:
                self._read_anew()
            else:
                self._take_in(changes.items, changes.revision)
        return self.revision != before

    def _read_anew(self) -> None:
        """Read everything, and work out what changed against what was there."""
        try:
            there, revision = self._read_whole()
        except CompactedError:  # a compaction came between two pages; behind one, everything comes in one
            there, revision = self._read_whole()
        with self._lock:
            missing = [record for uid, record in self._by_uid.items() if uid not in there]
            news = [one for one in there.values() if self._by_uid.get(one.uid) != one]
        gone = [Gone(record.kind, record.name, record.uid, revision) for record in missing]
        self._take_in([*gone, *sorted(news, key=_revision)], revision, whole=True)

    def _read_whole(self) -> tuple[dict[str, Record], int]:
        """Every record by uid, and the revision up to which they are all there is."""
        there: dict[str, Record] = {}
        after = 0
        while True:
            changes = self._store.changes(after)
            for item in changes.items:
                if isinstance(item, Record):
                    there[item.uid] = item
                else:
                    there.pop(item.uid, None)
            if not changes.items or changes.revision == after:
                return there, changes.revision
            after = changes.revision

    def _take_in(self, items: Sequence[Item], revision: int, *, whole: bool = False) -> None:
        with self._lock:
            for item in items:
                self._put(item) if isinstance(item, Record) else self._drop(item)
        self._untold = (items, revision, whole)
        self._tell()

    def _tell(self) -> None:
        """Let the subscribers hear what is shown, and only then count it as caught up with."""
        assert self._untold is not None
        items, revision, whole = self._untold
        if items:
            for callback in self._subscribers:
                callback(items)
        self._untold = None
        with self._moved:
            if whole:
                self._recent.clear()
                self._forgotten = revision
            else:
                self._remember(items)
            self.revision = revision
            self._moved.notify_all()

    def _remember(self, items: Sequence[Item]) -> None:
        self._recent.extend(items)
        while len(self._recent) > REMEMBERED:
            self._forgotten = _revision(self._recent.popleft())

    def _put(self, record: Record) -> None:
        shelf = self._shelves.setdefault(record.kind, _Shelf())
        old = shelf.put(record)
        if old is not None and old.uid != record.uid:
            self._forget(old)
        self._by_uid[record.uid] = record
        self._place(record)

    def _drop(self, gone: Gone) -> None:
        shelf = self._shelves.get(gone.kind)
        record = None if shelf is None else shelf.records.get(gone.name)
        if shelf is not None and record is not None and record.uid == gone.uid:
            shelf.drop(gone.name)
            self._forget(record)

    def _forget(self, record: Record) -> None:
        self._by_uid.pop(record.uid, None)
        cell = self._cell_of.pop(record.uid, None)
        if cell is not None:
            del self._cells[cell][record.uid]

    def _place(self, record: Record) -> None:
        placement = record.status.get("placement") if record.kind in PLACED_KINDS else None
        cell = placement.get("cell") if isinstance(placement, Mapping) else None
        before = self._cell_of.pop(record.uid, None)
        if before is not None and before != cell:
            del self._cells[before][record.uid]
        if cell:
            self._cells.setdefault(cell, {})[record.uid] = record
            self._cell_of[record.uid] = cell


class _Shelf:
    """The records of one kind. The tuple of all is made once for all readers between two changes."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._names: list[str] = []
        self._all: tuple[Record, ...] | None = ()

    def by_name(self) -> tuple[Record, ...]:
        if self._all is None:
            self._all = tuple(map(self.records.__getitem__, self._names))
        return self._all

    def put(self, record: Record) -> Record | None:
        """Returns the one whose place it takes."""
        old = self.records.get(record.name)
        if old is None:
            insort(self._names, record.name)
        self.records[record.name] = record
        self._all = None
        return old

    def drop(self, name: str) -> None:
        del self.records[name]
        del self._names[bisect_left(self._names, name)]
        self._all = None


def _revision(item: Item) -> int:
    return item.resource_version if isinstance(item, Record) else item.revision
