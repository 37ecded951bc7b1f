"""Many rows in one statement of PostgreSQL: an array a column, unnested by the server.

Every array goes as text[] in the binary format, which needs no quoting; the server casts it to the column's type.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from psycopg import adapt, pq
from sqlalchemy.dialects import postgresql

from helios.store import jsontext

_TEXT, _TEXT_ARRAY = 25, 1009
_HEADER = struct.Struct("!5i")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)


class Texts(list[str | None]):
    """The values of one column, as text."""


class TextsDumper(adapt.Dumper):
    """`Texts` in PostgreSQL's binary form of text[]."""

    format = pq.Format.BINARY
    oid = _TEXT_ARRAY

    def dump(self, obj: Texts) -> bytes:
        parts = [_HEADER.pack(1, 1, _TEXT, len(obj), 1)]
        for text in obj:
            if text is None:
                parts.append(_NULL)
            else:
                data = text.encode()
                parts += (_LENGTH.pack(len(data)), data)
        return b"".join(parts)


class TextArray(sa.types.UserDefinedType[Sequence[Any]]):
    """A bound array of what a column of type `of` holds."""

    cache_ok = True

    def __init__(self, of: str) -> None:
        self.of = of

    def get_col_spec(self, **_: Any) -> str:
        return "TEXT[]"

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Sequence[Any] | None], Texts]:  # noqa: ARG002
        text: Callable[[Any], str] = jsontext.dumps if self.of == "JSON" else str

        def process(values: Sequence[Any] | None) -> Texts:
            return Texts(None if value is None else text(value) for value in values or ())

        return process


def insert_from_arrays(table: sa.Table, names: Sequence[str], *, replace: bool) -> Any:
    """An INSERT with a parameter `of_<column>` for each column, in the order of the arrays."""
    columns = [table.c[name] for name in names]
    arrays = [
        sa.cast(
            sa.bindparam(f"of_{column.name}", type_=TextArray("JSON" if isinstance(column.type, sa.JSON) else "")),
            postgresql.ARRAY(_plain(column.type)),
        )
        for column in columns
    ]
    rows = (
        sa.func.unnest(*arrays)
        .table_valued(*(sa.column(column.name, column.type) for column in columns), with_ordinality="position")
        .render_derived()
    )
    query = sa.select(*(rows.c[name] for name in names)).order_by(rows.c.position)
    insert = postgresql.insert(table).from_select(names, query)
    if not replace:
        return insert
    keys = list(table.primary_key.columns)
    others = {column.name: insert.excluded[column.name] for column in columns if column not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=others)


def _plain(of: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """The type without collation, which belongs to the column."""
    return sa.String() if isinstance(of, sa.String) else of
