"""Rows of the tables to values and back. Columns have the order of the schema, which the readers here rely on."""

from dataclasses import fields as dataclass_fields
from typing import Any

import sqlalchemy as sa

from helios.store.records import Allocation, AuditEntry, Event, EventType, Gone, Lease, Record, StoredReport


def fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, as they are (`dataclasses.asdict` would copy every nested value)."""
    return {field.name: getattr(value, field.name) for field in dataclass_fields(value)}


def text(value: str) -> str:
    """Text that every database holds: PostgreSQL takes no NUL, neither takes half a surrogate pair."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def record(row: Any) -> Record:
    values: list[Any] = list(row)
    values[-1] = tuple(values[-1])
    return Record(*values)


def record_row(value: Record) -> dict[str, Any]:
    return {
        "kind": value.kind,
        "name": value.name,
        "uid": value.uid,
        "generation": value.generation,
        "resource_version": value.resource_version,
        "labels": value.labels,
        "annotations": value.annotations,
        "spec": value.spec,
        "status": value.status,
        "created_at": value.created_at,
        "deleted_at": value.deleted_at,
        "finalizers": value.finalizers,
    }


def event(row: sa.Row[*tuple[Any, ...]]) -> Event:
    return Event(
        kind=row.kind,
        name=row.name,
        uid=row.uid,
        reason=row.reason,
        message=row.message,
        type=EventType(row.type),
        time=row.time,
        revision=row.revision,
        number=row.number,
    )


def event_row(value: Event, *, revision: int, time: float) -> dict[str, Any]:
    return {
        "revision": revision,
        "time": time,
        "kind": value.kind,
        "name": value.name,
        "uid": value.uid,
        "type": value.type.value,
        "reason": value.reason,
        "message": text(value.message),
    }


def audit_entry(row: sa.Row[*tuple[Any, ...]]) -> AuditEntry:
    return AuditEntry(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor


def audit_row(value: AuditEntry, *, time: float) -> dict[str, Any]:
    return {
        "revision": value.revision,
        "time": time,
        "actor": text(value.actor),
        "request": text(value.request),
        "verb": value.verb,
        "kind": text(value.kind),
        "name": text(value.name),
        "outcome": value.outcome,
        "detail": text(value.detail),
    }


def lease(row: sa.Row[*tuple[Any, ...]]) -> Lease:
    return Lease(*row)


def gone(row: sa.Row[*tuple[Any, ...]]) -> Gone:
    return Gone(kind=row.kind, name=row.name, uid=row.uid, revision=row.revision)


def report(row: sa.Row[*tuple[Any, ...]]) -> StoredReport:
    return StoredReport(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor


def allocation(row: sa.Row[*tuple[Any, ...]]) -> Allocation:
    return Allocation(*row)
