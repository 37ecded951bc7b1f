"""Versioned records, compare-and-swap, events, waiting for change: the one place where HELIOS remembers.

    open_store(path_or_url: Path | str, *, clock: Clock | None = None) -> Store
                             a SQLite file, `sqlite:///PATH` or `postgresql://...`; created or migrated where need be
    Store (protocol.py)      what every store promises: records, changes, events, audit, leases, agents, care
    Record (records.py)      one object: kind, name, uid, generation, resource_version, labels, annotations, spec, ...
    Event, Gone, Changes, Lease, Fence, Actor, AuditEntry, Allocation, StoredReport (records.py)
    Applied                  what `apply` did: .record and .change (`created`, `configured`, `unchanged`)
    Mirror (mirror.py)       all records in memory, kept current
    SystemClock, timestamp(seconds) -> ISO text, seconds(text) -> float

A `Record` is a value. To change one, build the next (`record.with_status(...)`) and `save` it: the store compares
`resource_version` and refuses with `ConflictError` when someone else wrote first. What `save` returned is durable.
"""

from pathlib import Path

from helios.ports import Clock
from helios.store.clock import SystemClock, seconds, timestamp
from helios.store.mirror import Mirror
from helios.store.protocol import Store
from helios.store.records import (
    Actor,
    Admission,
    Allocation,
    Applied,
    AuditEntry,
    Birth,
    Change,
    Changes,
    Event,
    EventType,
    Fence,
    Gone,
    Lease,
    Look,
    Record,
    StoredReport,
    Verdict,
)

__all__ = [
    "Actor",
    "Admission",
    "Allocation",
    "Applied",
    "AuditEntry",
    "Birth",
    "Change",
    "Changes",
    "Event",
    "EventType",
    "Fence",
    "Gone",
    "Lease",
    "Look",
    "Mirror",
    "Record",
    "Store",
    "StoredReport",
    "SystemClock",
    "Verdict",
    "open_store",
    "seconds",
    "timestamp",
]


def open_store(path_or_url: Path | str, *, clock: Clock | None = None) -> Store:
    """Open, or create, the store in a SQLite file or in a PostgreSQL database; migrate it where it needs it.

    Raises:
        InputError: a URL of neither database.
        UnavailableError: it is of a release that this one cannot work with, or cannot be opened.
    """
    # SQLAlchemy would slow every importer of the records.
    from helios.store.opening import database_at
    from helios.store.store import open_database

    return open_database(database_at(path_or_url), clock=clock or SystemClock())
