"""The append-only logs: events of objects, and who wrote what."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from helios.store import rows, schema
from helios.store.part import Part
from helios.store.records import AuditEntry, Event
from helios.store.transaction import Transaction


class EventLog(Part):
    """The part of `helios.store.Store` under "Events and audit"."""

    __slots__ = ()

    def add_events(self, events: Iterable[Event]) -> None:
        happened = tuple(events)

        def run(transaction: Transaction) -> None:
            transaction.log(happened, transaction.count())

        if happened:
            self._write(run)

    def events(
        self, *, kind: str | None = None, name: str | None = None, after: int = 0, limit: int = 1000, last: bool = False
    ) -> tuple[Event, ...]:
        wanted = {"kind": kind, "name": name}
        query = _page(schema.events, wanted, after=after, limit=limit, last=last)
        found = [rows.event(row) for row in self._database.read(lambda connection: connection.execute(query).all())]
        return tuple(reversed(found) if last else found)

    def add_audit(self, entry: AuditEntry) -> None:
        def run(transaction: Transaction) -> None:
            transaction.note(replace(entry, revision=entry.revision or transaction.revision))

        self._write(run)

    def audit(
        self, *, actor: str = "", kind: str = "", name: str = "", after: int = 0, limit: int = 1000
    ) -> tuple[AuditEntry, ...]:
        wanted = {"actor": actor or None, "kind": kind or None, "name": name or None}
        query = _page(schema.audit, wanted, after=after, limit=limit, last=False)
        found = self._database.read(lambda connection: connection.execute(query).all())
        return tuple(rows.audit_entry(row) for row in found)


def _page(
    table: sa.Table, wanted: dict[str, str | None], *, after: int, limit: int, last: bool
) -> sa.Select[*tuple[Any, ...]]:
    number = table.c.number
    query = sa.select(table).where(number > after).order_by(number.desc() if last else number).limit(limit)
    for column, value in wanted.items():
        if value is not None:
            query = query.where(table.c[column] == value)
    return query
