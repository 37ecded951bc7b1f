"""The embedded store: one SQLite file in WAL mode, one writer at a time, any number of readers.

`synchronous=FULL`: an acknowledged write is an intent that something outside will act on (a cell starts a gang), so it
must survive a power cut, which WAL with NORMAL does not promise.
"""

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from helios.errors import ConflictError, NotFoundError, UnavailableError
from helios.ports import Clock
from helios.spec import AnyDocument, to_json
from helios.store import schema
from helios.store.records import STOP_FINALIZER, Applied, Change, Event, EventType, Record

OTHER_PROCESS_POLL_S = 0.5
"""How soon `wait` sees what another process wrote; writes of this process wake it at once."""


class SqliteStore:
    """See `helios.store.Store`."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._clock = clock
        self._write_lock = threading.Lock()
        self._changed = threading.Condition()
        self._written = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = _engine(path)
        try:
            self._prepare(path)
        except sa.exc.DBAPIError as error:
            self.close()
            raise UnavailableError(f"the store {path} cannot be opened: {error.orig}") from error

    def close(self) -> None:
        self._engine.dispose()

    def revision(self) -> int:
        with self._engine.begin() as connection:
            return _revision(connection)

    def wait(self, after_revision: int, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while True:
            # The file is asked for what other processes wrote; what this one wrote is known without asking, so that
            # many who wait do not all read at every write.
            revision = self.revision()
            with self._changed:
                remaining = deadline - time.monotonic()
                if max(revision, self._written) > after_revision or remaining <= 0:
                    return max(revision, self._written)
                pause = min(remaining, OTHER_PROCESS_POLL_S)
                if self._changed.wait_for(lambda: self._written > after_revision, pause):
                    return self._written

    def find(self, kind: str, name: str) -> Record | None:
        with self._engine.begin() as connection:
            return _find(connection, kind, name)

    def get(self, kind: str, name: str) -> Record:
        with self._engine.begin() as connection:
            return _get(connection, kind, name)

    def records(self, kind: str, *, labels: Mapping[str, str] | None = None) -> tuple[Record, ...]:
        query = sa.select(schema.records).where(schema.records.c.kind == kind).order_by(schema.records.c.name)
        with self._engine.begin() as connection:
            found = [_record(row) for row in connection.execute(query)]
        return tuple(record for record in found if (labels or {}).items() <= record.labels.items())

    def apply(self, document: AnyDocument, *, idempotency_key: str = "", replacing: Record | None = None) -> Applied:
        wanted = _wanted(document)
        digest = hashlib.sha256(
            json.dumps(
                [wanted.kind, wanted.name, wanted.spec, wanted.labels, wanted.annotations], sort_keys=True
            ).encode()
        ).hexdigest()
        with self._write() as connection:
            if idempotency_key:
                repeated = _repeated(connection, idempotency_key, digest)
                if repeated is not None:
                    return Applied(repeated, Change.UNCHANGED)
                row = {"key": idempotency_key, "digest": digest, "kind": wanted.kind, "name": wanted.name}
                connection.execute(schema.idempotency_keys.insert().values(**row, created_at=self._clock.now()))
            return self._apply(connection, wanted, replacing)

    def create(self, record: Record, *, events: Iterable[Event] = ()) -> Record:
        with self._write() as connection:
            if _find(connection, record.kind, record.name) is not None:
                raise ConflictError(f"{record.kind} {record.name!r} exists")
            return self._insert(connection, record, events)

    def save(self, record: Record, *, events: Iterable[Event] = ()) -> Record:
        happened = tuple(events)
        with self._write() as connection:
            stored = _same_version(connection, record)
            if stored == record and not happened:
                return record
            return self._replace(connection, stored, record, happened)

    def request_delete(self, kind: str, name: str) -> Record:
        with self._write() as connection:
            record = _get(connection, kind, name)
            if record.deleting:
                return record
            event = Event(kind, name, record.uid, "DeletionRequested", f"deletion of {kind} {name!r} was asked for")
            marked = replace(record, deleted_at=self._clock.now())
            if record.finalizers:
                return self._replace(connection, record, marked, (event,))
            self._delete(connection, record)
            return marked

    def remove(self, record: Record) -> None:
        with self._write() as connection:
            self._delete(connection, _same_version(connection, record))

    def add_events(self, events: Iterable[Event]) -> None:
        happened = tuple(events)
        if happened:
            with self._write() as connection:
                self._log(connection, happened, _next_revision(connection))

    def events(
        self, *, kind: str | None = None, name: str | None = None, after: int = 0, limit: int = 1000
    ) -> tuple[Event, ...]:
        table = schema.events
        query = sa.select(table).where(table.c.number > after).order_by(table.c.number).limit(limit)
        if kind is not None:
            query = query.where(table.c.kind == kind)
        if name is not None:
            query = query.where(table.c.name == name)
        with self._engine.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(Event(**{**row, "type": EventType(row["type"])}) for row in rows)

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with self._write_lock, self._engine.connect().execution_options(helios_write=True) as connection:
            with connection.begin():
                yield connection
                revision = _revision(connection)
            with self._changed:
                self._written = revision
                self._changed.notify_all()

    def _prepare(self, path: Path) -> None:
        with self._write() as connection:
            schema.metadata.create_all(connection)
            version = _meta(connection, "schema_version")
            if version is None:
                first = [{"key": "schema_version", "value": schema.SCHEMA_VERSION}, {"key": "revision", "value": 0}]
                connection.execute(schema.meta.insert(), first)
            elif version != schema.SCHEMA_VERSION:
                raise UnavailableError(
                    f"the store {path} has schema version {version}; this HELIOS reads version {schema.SCHEMA_VERSION}",
                    hint="use the HELIOS version that wrote it, or start with an empty state folder",
                )

    def _apply(self, connection: sa.Connection, wanted: Record, replacing: Record | None) -> Applied:
        current = _find(connection, wanted.kind, wanted.name)
        if current is None:
            return Applied(self._insert(connection, wanted, ()), Change.CREATED)
        if current.deleting:
            raise ConflictError(
                f"{current.kind} {current.name!r} is being deleted", hint="wait until it is gone, or use another name"
            )
        if replacing is not None:
            _same_version(connection, replacing)
            connection.execute(_by_name(schema.records.delete(), current))
            return Applied(self._insert(connection, wanted, ()), Change.CREATED)
        target = replace(current, spec=wanted.spec, labels=wanted.labels, annotations=wanted.annotations)
        if target == current:
            return Applied(current, Change.UNCHANGED)
        event = Event(current.kind, current.name, current.uid, "Configured", "a changed document was applied")
        return Applied(self._replace(connection, current, target, (event,)), Change.CONFIGURED)

    def _insert(self, connection: sa.Connection, record: Record, events: Iterable[Event]) -> Record:
        revision = _next_revision(connection)
        written = replace(
            record,
            uid=str(uuid.uuid4()),
            generation=1,
            resource_version=revision,
            created_at=self._clock.now(),
            deleted_at=None,
        )
        connection.execute(schema.records.insert().values(**asdict(written)))
        accepted = Event(
            written.kind, written.name, written.uid, "Accepted", f"{written.kind} {written.name!r} accepted"
        )
        self._log(connection, (accepted, *(replace(event, uid=written.uid) for event in events)), revision)
        return written

    def _replace(self, connection: sa.Connection, stored: Record, record: Record, events: Iterable[Event]) -> Record:
        revision = _next_revision(connection)
        generation = stored.generation + (stored.spec != record.spec)
        written = replace(record, generation=generation, resource_version=revision)
        connection.execute(_by_name(schema.records.update(), written).values(**asdict(written)))
        self._log(connection, events, revision)
        return written

    def _delete(self, connection: sa.Connection, record: Record) -> None:
        connection.execute(_by_name(schema.records.delete(), record))
        gone = Event(record.kind, record.name, record.uid, "Deleted", f"{record.kind} {record.name!r} is gone")
        self._log(connection, (gone,), _next_revision(connection))

    def _log(self, connection: sa.Connection, events: Iterable[Event], revision: int) -> None:
        rows = [asdict(replace(event, revision=revision, time=self._clock.now())) for event in events]
        for row in rows:
            del row["number"]
        if rows:
            connection.execute(schema.events.insert(), rows)


def _engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        # SQLAlchemy begins transactions itself below; the driver's own implicit BEGIN would be a deferred one.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A writer takes its lock at the start: upgrading a read lock later can fail at once in spite of busy_timeout.
        write = connection.get_execution_options().get("helios_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _wanted(document: AnyDocument) -> Record:
    content = to_json(document)
    metadata = content["metadata"]
    return Record(
        kind=content["kind"],
        name=metadata["name"],
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        spec=content["spec"],
        status={"state": "Pending"},
        finalizers=(STOP_FINALIZER,),
    )


def _repeated(connection: sa.Connection, key: str, digest: str) -> Record | None:
    table = schema.idempotency_keys
    row = connection.execute(sa.select(table).where(table.c.key == key)).one_or_none()
    if row is None:
        return None
    if row.digest != digest:
        raise ConflictError(f"idempotency key {key!r} was used before with other content", hint="use a new key")
    return _get(connection, row.kind, row.name)


def _by_name(statement: Any, record: Record) -> Any:
    return statement.where(schema.records.c.kind == record.kind, schema.records.c.name == record.name)


def _find(connection: sa.Connection, kind: str, name: str) -> Record | None:
    query = sa.select(schema.records).where(schema.records.c.kind == kind, schema.records.c.name == name)
    row = connection.execute(query).one_or_none()
    return None if row is None else _record(row)


def _get(connection: sa.Connection, kind: str, name: str) -> Record:
    record = _find(connection, kind, name)
    if record is None:
        names = connection.scalars(sa.select(schema.records.c.name).where(schema.records.c.kind == kind))
        raise NotFoundError(kind.lower(), name, known=names)
    return record


def _same_version(connection: sa.Connection, record: Record) -> Record:
    stored = _find(connection, record.kind, record.name)
    if stored is None or stored.uid != record.uid:
        raise ConflictError(f"{record.kind} {record.name!r} is gone")
    if stored.resource_version != record.resource_version:
        raise ConflictError(
            f"{record.kind} {record.name!r} changed meanwhile "
            f"(version {stored.resource_version}, not {record.resource_version})"
        )
    return stored


def _record(row: Any) -> Record:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor
    return Record(**{**values, "finalizers": tuple(values["finalizers"])})


def _meta(connection: sa.Connection, key: str) -> int | None:
    return connection.scalar(sa.select(schema.meta.c.value).where(schema.meta.c.key == key))


def _revision(connection: sa.Connection) -> int:
    return _meta(connection, "revision") or 0


def _next_revision(connection: sa.Connection) -> int:
    revision = _revision(connection) + 1
    connection.execute(schema.meta.update().where(schema.meta.c.key == "revision").values(value=revision))
    return revision
