"""One writing transaction, shared by several operations: what they read, and what is to be written at its end.

Records, events, audit entries and allocations are collected and written in a few statements for all operations
together; `find` sees what is collected. Everything else is written at once (`execute`). An operation that refuses does
so before it collects or writes anything, so that it leaves no trace in what the others share.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from helios.errors import FencedError
from helios.store import rows, schema
from helios.store.database import Database
from helios.store.records import Actor, Allocation, AuditEntry, Event, Fence, Record

Key = tuple[str, str]
"""Kind and name of a record."""

_KEYS = sa.select(schema.idempotency_keys)
_DELETE = schema.records.delete().where(
    schema.records.c.kind == sa.bindparam("of_kind"), schema.records.c.name == sa.bindparam("of_name")
)
_COUNT = (
    schema.meta.update()
    .where(schema.meta.c.key == sa.bindparam("counter"))
    .values(value=sa.bindparam("number", type_=sa.BigInteger))
)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What a key was used for; `digest` is of the content that came with it."""

    key: str
    digest: str
    kind: str
    name: str
    created_at: float


class Transaction:
    """See the module.

    Attributes:
        revision: of the newest write, of this transaction too.
        writes: how much was collected and written so far; rises with each.
    """

    def __init__(self, connection: sa.Connection, database: Database, *, now: float) -> None:
        self.connection = connection
        self.now = now
        self.writes = 0
        self._database = database
        self._counters: dict[str, int] = dict(connection.execute(database.counters()).all())
        self._began = dict(self._counters)
        self._records: dict[Key, Record | None] = {}
        self._keys: dict[str, IdempotencyKey | None] = {}
        self._tokens: dict[str, int] | None = None
        self._changed: set[Key] = set()
        self._pending: dict[str, list[dict[str, Any]]] = {}

    # Counters ---------------------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        return self._counters["revision"]

    def counter(self, name: str) -> int:
        return self._counters.get(name, 0)

    def count(self, name: str = "revision", *, to: int | None = None) -> int:
        """Raise a counter by one, or set it; returns its value."""
        self.writes += 1
        self._counters[name] = self.counter(name) + 1 if to is None else to
        return self._counters[name]

    def news(self) -> tuple[int | None, int | None]:
        """The revision and the report version, where this transaction raised them."""
        revision, reports = (
            self.counter(name) if self.counter(name) != self._began.get(name, 0) else None
            for name in ("revision", "report_version")
        )
        return revision, reports

    # Reading ----------------------------------------------------------------------------------------------------------

    def prefetch(self, records: Iterable[Key], keys: Iterable[str]) -> None:
        """Read what operations will ask for in a statement or two."""
        if unread := {key for key in records if key not in self._records}:
            self._records.update(dict.fromkeys(unread, None))
            for found in self._database.find_records(self.connection, unread):
                self._records[found.kind, found.name] = rows.record(found)
        if wanted := [key for key in keys if key and key not in self._keys]:
            self._keys.update(dict.fromkeys(wanted, None))
            query = self._database.among(_KEYS, schema.idempotency_keys.c.key)
            for row in self.connection.execute(query, {"values": wanted}):
                self._keys[row.key] = IdempotencyKey(*row)

    def find(self, kind: str, name: str) -> Record | None:
        if (kind, name) not in self._records:
            self.prefetch([(kind, name)], ())
        return self._records[kind, name]

    def key(self, key: str) -> IdempotencyKey | None:
        if key not in self._keys:
            self.prefetch((), [key])
        return self._keys[key]

    def check(self, fence: Fence | None) -> None:
        """Raise `FencedError` where the lease has come to another holder."""
        if fence is None:
            return
        if self._tokens is None:
            leases = schema.leases
            query = sa.select(leases.c.name, leases.c.token)
            self._tokens = dict(self.connection.execute(query).all())
        token = self._tokens.get(fence.lease, 0)
        if token != fence.token:
            raise FencedError(
                f"the lease {fence.lease!r} has another holder (token {token}, not {fence.token}): nothing was written"
            )

    # Writing ----------------------------------------------------------------------------------------------------------

    def execute(self, statement: Any, parameters: Any = None) -> sa.CursorResult[Any]:
        """Write at once."""
        self.writes += 1
        return self.connection.execute(statement, parameters)

    def upsert(self, table: sa.Table, values: Mapping[str, Any]) -> None:
        """Write a row at once, in the place of the one with its primary key."""
        self.execute(self._database.upsert(table), values)

    def put_token(self, lease: str, token: int) -> None:
        """Let `check` know of a lease that this transaction gave away."""
        if self._tokens is not None:
            self._tokens[lease] = token

    def put(self, record: Record) -> None:
        self._note((record.kind, record.name), record)

    def delete(self, record: Record, revision: int) -> None:
        """Take the record away and leave a tombstone."""
        self._note((record.kind, record.name), None)
        self._collect(
            schema.tombstones,
            {"uid": record.uid, "kind": record.kind, "name": record.name, "revision": revision, "time": self.now},
        )

    def put_key(self, key: IdempotencyKey) -> None:
        self._keys[key.key] = key
        row = {"key": key.key, "digest": key.digest, "kind": key.kind, "name": key.name, "created_at": key.created_at}
        self._collect(schema.idempotency_keys, row)

    def log(self, events: Iterable[Event], revision: int) -> None:
        for event in events:
            self._collect(schema.events, rows.event_row(event, revision=revision, time=self.now))

    def note(self, entry: AuditEntry) -> None:
        self._collect(schema.audit, rows.audit_row(entry, time=self.now))

    def note_write(self, actor: Actor | None, verb: str, record: Record, *, before: int = 0) -> None:
        """Leave an audit entry where there is somebody to name; `before` is the version that was there."""
        if actor is not None:
            self.note(
                AuditEntry(
                    actor.name,
                    verb,
                    record.kind,
                    record.name,
                    request=actor.request,
                    detail=f"from version {before}" if before else "",
                    revision=self.revision,
                )
            )

    def put_allocations(self, allocations: Iterable[Allocation]) -> None:
        for allocation in allocations:
            self._collect(schema.allocations, rows.fields(allocation))

    def flush(self) -> None:
        """Write what was collected."""
        pending, self._pending = self._pending, {}
        gone = [key for key in self._changed if self._records[key] is None]
        kept = [record for key in self._changed if (record := self._records[key]) is not None]
        self._changed = set()
        # Tombstones go before deletions: see the trigger in migration 0002.
        for table in (schema.tombstones, schema.idempotency_keys, schema.events, schema.audit):
            if table.name in pending:
                self._database.write_rows(self.connection, table, pending[table.name])
        if gone:
            self.connection.execute(_DELETE, [{"of_kind": kind, "of_name": name} for kind, name in gone])
        if kept:
            self._database.write_rows(
                self.connection, schema.records, [rows.record_row(record) for record in kept], replace=True
            )
        if schema.allocations.name in pending:
            # The last version of each: no statement may write a row twice.
            newest = {(row["uid"], row["epoch"]): row for row in pending[schema.allocations.name]}
            self._database.write_rows(self.connection, schema.allocations, list(newest.values()), replace=True)
        changed = [name for name, value in self._counters.items() if value != self._began.get(name, 0)]
        if changed:
            self.connection.execute(_COUNT, [{"counter": name, "number": self._counters[name]} for name in changed])

    def _note(self, key: Key, record: Record | None) -> None:
        self.writes += 1
        self._records[key] = record
        self._changed.add(key)

    def _collect(self, table: sa.Table, row: dict[str, Any]) -> None:
        self.writes += 1
        self._pending.setdefault(table.name, []).append(row)
