"""Records: reading, applying documents, compare-and-swap, deletion, the feed of changes."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace

import sqlalchemy as sa

from helios.errors import CompactedError, ConflictError, NotFoundError
from helios.spec import AnyDocument, to_json
from helios.store import rows, schema
from helios.store.part import Part
from helios.store.records import (
    STOP_FINALIZER,
    Admission,
    Allocation,
    Applied,
    Birth,
    Change,
    Changes,
    Event,
    Gone,
    Record,
    Verdict,
)
from helios.store.transaction import IdempotencyKey, Transaction

_FIND = sa.select(schema.records).where(
    schema.records.c.kind == sa.bindparam("of_kind"), schema.records.c.name == sa.bindparam("of_name")
)
_RECORDS = (
    sa.select(schema.records).where(schema.records.c.kind == sa.bindparam("of_kind")).order_by(schema.records.c.name)
)
_CHANGED, _GONE = (
    sa.select(table).where(column > sa.bindparam("after")).order_by(column).limit(sa.bindparam("most"))
    for table, column in (
        (schema.records, schema.records.c.resource_version),
        (schema.tombstones, schema.tombstones.c.revision),
    )
)
_COUNTERS = sa.select(schema.meta.c.key, schema.meta.c.value)


class RecordKeeping(Part):
    """The part of `helios.store.Store` under "Change" and "Records"."""

    __slots__ = ()

    def revision(self) -> int:
        query = sa.select(schema.meta.c.value).where(schema.meta.c.key == "revision")
        return self._database.read(lambda connection: connection.scalar(query)) or 0

    def wait(self, after_revision: int, timeout: float) -> int:
        return self._counters.wait_revision(after_revision, timeout)

    def changes(self, after: int, *, limit: int = 5000) -> Changes:
        return self._database.read_snapshot(lambda connection: _changes(connection, after, limit))

    def find(self, kind: str, name: str) -> Record | None:
        return self._database.read(lambda connection: _find(connection, kind, name))

    def get(self, kind: str, name: str) -> Record:
        return self._database.read(lambda connection: _get(connection, kind, name))

    def records(self, kind: str, *, labels: Mapping[str, str] | None = None) -> tuple[Record, ...]:
        found = self._database.read(lambda connection: connection.execute(_RECORDS, {"of_kind": kind}).all())
        wanted = (labels or {}).items()
        return tuple(record for row in found if wanted <= (record := rows.record(row)).labels.items())

    def apply(
        self,
        document: AnyDocument,
        *,
        idempotency_key: str = "",
        replacing: Record | None = None,
        admission: Admission | None = None,
    ) -> Applied:
        wanted = _wanted(document)
        digest = _digest(wanted) if idempotency_key else ""

        def run(transaction: Transaction) -> Applied:
            used = transaction.key(idempotency_key) if idempotency_key else None
            if used is not None:
                return Applied(_repeated(transaction, used, digest), Change.UNCHANGED)
            applied = self._admitted(transaction, wanted, replacing, admission)
            if idempotency_key:
                transaction.put_key(
                    IdempotencyKey(idempotency_key, digest, wanted.kind, wanted.name, created_at=transaction.now)
                )
            return applied

        keys = (idempotency_key,) if idempotency_key else ()
        looks = admission.looks if admission is not None else ()
        return self._write(run, records=((wanted.kind, wanted.name), *looks), keys=keys)

    def create(self, record: Record, *, events: Iterable[Event] = (), allocations: Iterable[Allocation] = ()) -> Record:
        happened, held = tuple(events), tuple(allocations)

        def run(transaction: Transaction) -> Record:
            if transaction.find(record.kind, record.name) is not None:
                raise ConflictError(f"{record.kind} {record.name!r} exists")
            written = self._insert(transaction, record, happened)
            transaction.put_allocations(replace(one, uid=one.uid or written.uid) for one in held)
            transaction.note_write(self._actor, "created", written)
            return written

        return self._write(run, records=((record.kind, record.name),))

    def save(self, record: Record, *, events: Iterable[Event] = (), allocations: Iterable[Allocation] = ()) -> Record:
        happened, held = tuple(events), tuple(allocations)

        def run(transaction: Transaction) -> Record:
            stored = _same_version(transaction, record)
            if stored == record and not happened and not held:
                return stored
            written = self._replace(transaction, stored, record, happened)
            transaction.put_allocations(held)
            transaction.note_write(self._actor, "saved", written, before=stored.resource_version)
            return written

        return self._write(run, records=((record.kind, record.name),))

    def request_delete(self, kind: str, name: str) -> Record:
        def run(transaction: Transaction) -> Record:
            record = transaction.find(kind, name)
            if record is None:
                raise NotFoundError(kind.lower(), name, known=_names(transaction.connection, kind))
            if record.deleting:
                return record
            event = Event(kind, name, record.uid, "DeletionRequested", f"deletion of {kind} {name!r} was asked for")
            marked = replace(record, deleted_at=transaction.now)
            if record.finalizers:
                marked = self._replace(transaction, record, marked, (event,))
            else:
                self._delete(transaction, record)
            transaction.note_write(self._actor, "deleted", marked, before=record.resource_version)
            return marked

        return self._write(run, records=((kind, name),))

    def remove(self, record: Record) -> None:
        def run(transaction: Transaction) -> None:
            stored = _same_version(transaction, record)
            self._delete(transaction, stored)
            transaction.note_write(self._actor, "removed", stored, before=stored.resource_version)

        self._write(run, records=((record.kind, record.name),))

    def _admitted(
        self, transaction: Transaction, wanted: Record, replacing: Record | None, admission: Admission | None
    ) -> Applied:
        if admission is None:
            return self._apply(transaction, wanted, replacing, Birth(wanted.status))
        verdict = admission.decide(transaction.find)
        current = transaction.find(wanted.kind, wanted.name)
        if verdict is Verdict.KEEP and current is not None:
            return Applied(current, Change.UNCHANGED)
        replacing = current if verdict is Verdict.REPLACE else replacing
        return self._apply(transaction, wanted, replacing, admission.birth(transaction.now))

    def _apply(self, transaction: Transaction, wanted: Record, replacing: Record | None, birth: Birth) -> Applied:
        current = transaction.find(wanted.kind, wanted.name)
        if replacing is not None and current is None:
            raise ConflictError(f"{replacing.kind} {replacing.name!r} is gone")
        if current is None:
            made = self._insert(transaction, replace(wanted, status=birth.status), birth.events)
            transaction.note_write(self._actor, "applied", made)
            return Applied(made, Change.CREATED)
        if current.deleting:
            raise ConflictError(
                f"{current.kind} {current.name!r} is being deleted", hint="wait until it is gone, or use another name"
            )
        if replacing is not None:
            _same_version(transaction, replacing)
            transaction.delete(current, transaction.count())
            made = self._insert(transaction, replace(wanted, status=birth.status), birth.events)
            transaction.note_write(self._actor, "replaced", made, before=current.resource_version)
            return Applied(made, Change.CREATED)
        target = replace(current, spec=wanted.spec, labels=wanted.labels, annotations=wanted.annotations)
        if target == current:
            return Applied(current, Change.UNCHANGED)
        event = Event(current.kind, current.name, current.uid, "Configured", "a changed document was applied")
        written = self._replace(transaction, current, target, (event,))
        transaction.note_write(self._actor, "applied", written, before=current.resource_version)
        return Applied(written, Change.CONFIGURED)

    def _insert(self, transaction: Transaction, record: Record, events: Iterable[Event]) -> Record:
        revision = transaction.count()
        uid = str(uuid.uuid4())
        written = replace(
            record,
            uid=uid,
            generation=1,
            resource_version=revision,
            created_at=transaction.now,
            deleted_at=None,
        )
        transaction.put(written)
        accepted = Event(written.kind, written.name, uid, "Accepted", f"{written.kind} {written.name!r} accepted")
        transaction.log((accepted, *(replace(event, uid=uid) for event in events)), revision)
        return written

    def _replace(self, transaction: Transaction, stored: Record, record: Record, events: Iterable[Event]) -> Record:
        revision = transaction.count()
        generation = stored.generation + (stored.spec != record.spec)
        written = replace(record, generation=generation, resource_version=revision)
        transaction.put(written)
        transaction.log(events, revision)
        return written

    def _delete(self, transaction: Transaction, record: Record) -> None:
        revision = transaction.count()
        transaction.delete(record, revision)
        gone = Event(record.kind, record.name, record.uid, "Deleted", f"{record.kind} {record.name!r} is gone")
        transaction.log((gone,), revision)


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


def _digest(wanted: Record) -> str:
    # These very bytes: keys outlive the release that stored them.
    content = [wanted.kind, wanted.name, wanted.spec, wanted.labels, wanted.annotations]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _repeated(transaction: Transaction, used: IdempotencyKey, digest: str) -> Record:
    if used.digest != digest:
        raise ConflictError(f"idempotency key {used.key!r} was used before with other content", hint="use a new key")
    record = transaction.find(used.kind, used.name)
    if record is None:
        raise NotFoundError(used.kind.lower(), used.name, hint="it was made with this idempotency key, and is gone")
    return record


def _same_version(transaction: Transaction, record: Record) -> Record:
    stored = transaction.find(record.kind, record.name)
    if stored is None or stored.uid != record.uid:
        raise ConflictError(f"{record.kind} {record.name!r} is gone")
    if stored.resource_version != record.resource_version:
        raise ConflictError(
            f"{record.kind} {record.name!r} changed meanwhile "
            f"(version {stored.resource_version}, not {record.resource_version})"
        )
    return stored


def _find(connection: sa.Connection, kind: str, name: str) -> Record | None:
    row = connection.execute(_FIND, {"of_kind": kind, "of_name": name}).one_or_none()
    return None if row is None else rows.record(row)


def _get(connection: sa.Connection, kind: str, name: str) -> Record:
    record = _find(connection, kind, name)
    if record is None:
        raise NotFoundError(kind.lower(), name, known=_names(connection, kind))
    return record


def _names(connection: sa.Connection, kind: str) -> tuple[str, ...]:
    return tuple(connection.scalars(sa.select(schema.records.c.name).where(schema.records.c.kind == kind)))


def _changes(connection: sa.Connection, after: int, limit: int) -> Changes:
    counters: dict[str, int] = dict(connection.execute(_COUNTERS).all())
    revision, compacted = counters["revision"], counters.get("compacted_revision", 0)
    if 0 < after < compacted or after > revision:
        raise CompactedError(
            f"changes after revision {after} are not known (from {compacted} to {revision} they are)",
            hint="read everything anew",
        )
    # What begins at 0 behind a compaction comes whole: a second page would ask for what is compacted.
    most = limit if after or not compacted else revision
    found = [rows.record(row) for row in connection.execute(_CHANGED, {"after": after, "most": most + 1})]
    gone = [rows.gone(row) for row in connection.execute(_GONE, {"after": after, "most": most + 1})]
    both: list[Record | Gone] = [*gone, *found]
    items = sorted(both, key=_revision)
    if len(items) <= most:
        return Changes(tuple(items), revision)
    # The cut is between two revisions, never within one.
    end = _revision(items[most])
    kept = [item for item in items[: most + 1] if _revision(item) < end]
    kept = kept or [item for item in items if _revision(item) == end]
    return Changes(tuple(kept), _revision(kept[-1]))


def _revision(item: Record | Gone) -> int:
    return item.resource_version if isinstance(item, Record) else item.revision
