"""Versioned records, compare-and-swap, events, waiting for change: the one place where HELIOS remembers.

    open_store(path: Path, *, clock: Clock | None = None) -> Store      SQLite; creates the file, checks its version
    Store (protocol.py)      get, find, records, apply, create, save, request_delete, remove, add_events, events,
                             revision, wait, close
    Record (records.py)      one object: kind, name, uid, generation, resource_version, labels, annotations, spec, ...
    Event                    one line of the append-only log
    Applied                  what `apply` did: .record and .change (`created`, `configured`, `unchanged`)
    SystemClock, timestamp(seconds) -> ISO text, seconds(text) -> float

A `Record` is a value. To change one, build the next (`record.with_status(...)`) and `save` it: the store compares
`resource_version` and refuses with `ConflictError` when someone else wrote first. What `save` returned is durable.
"""

from pathlib import Path

from helios.ports import Clock
from helios.store.clock import SystemClock, seconds, timestamp
from helios.store.protocol import Store
from helios.store.records import Applied, Change, Event, EventType, Record

__all__ = [
    "Applied",
    "Change",
    "Event",
    "EventType",
    "Record",
    "Store",
    "SystemClock",
    "open_store",
    "seconds",
    "timestamp",
]


def open_store(path: Path, *, clock: Clock | None = None) -> Store:
    """Open, or create, the store in the SQLite file `path`.

    Raises:
        UnavailableError: the file was written by another schema version, or cannot be opened.
    """
    from helios.store.sqlite import SqliteStore  # SQLAlchemy would slow every importer of the records

    return SqliteStore(path, clock=clock or SystemClock())
