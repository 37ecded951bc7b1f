"""Allocations as they are stored; what their seconds mean is `helios.control`'s."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from helios.store import rows, schema
from helios.store.part import Part
from helios.store.records import Allocation

PAGE = 1000
_columns = schema.allocations.c


class Accounting(Part):
    """The part of `helios.store.Store` under "Accounting"."""

    __slots__ = ()

    def allocations(
        self, *, since: float = 0.0, until: float | None = None, open_only: bool = False
    ) -> Iterator[Allocation]:
        query = _held(since, until, open_only=open_only)
        last: Allocation | None = None
        while True:
            page = query if last is None else query.where(_position() > _position_of(last))
            found = self._page(page)
            yield from found
            if len(found) < PAGE:
                return
            last = found[-1]

    def _page(self, query: sa.Select[*tuple[Any, ...]]) -> list[Allocation]:
        return self._database.read(lambda connection: [rows.allocation(row) for row in connection.execute(query)])


def _held(since: float, until: float | None, *, open_only: bool) -> sa.Select[*tuple[Any, ...]]:
    query = sa.select(schema.allocations).order_by(_columns.opened_at, _columns.uid, _columns.epoch).limit(PAGE)
    if open_only:
        query = query.where(_columns.closed_at.is_(None))
    elif since > 0:
        query = query.where(sa.or_(_columns.closed_at.is_(None), _columns.closed_at >= since))
    if until is not None:
        query = query.where(_columns.opened_at < until)
    return query


def _position() -> sa.Tuple:
    return sa.tuple_(_columns.opened_at, _columns.uid, _columns.epoch)


def _position_of(allocation: Allocation) -> sa.Tuple:
    return sa.tuple_(*(sa.literal(part) for part in (allocation.opened_at, allocation.uid, allocation.epoch)))
