"""What SQLite and PostgreSQL do differently: engines, locks, snapshots, words for errors, news of other processes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa

from helios.errors import HeliosError, InputError, UnavailableError
from helios.store import schema

T = TypeVar("T")
Heard = Callable[[int | None, int | None], None]
"""Takes the revision and the report version that are there now (0: not said); None, None: look for yourself."""
_OF_KIND = sa.select(schema.records).where(schema.records.c.kind == sa.bindparam("of_kind"))


class Database(ABC):
    """Two engines on one database: readers, any number at once, and the one writer of this process.

    Attributes:
        name: for people, without password.
        reader: every statement by itself, no transaction.
        writer: one connection; a transaction of it excludes every other writer from its first statement on.
        poll_s: how soon a waiter looks for what other processes wrote, where no news comes of itself.
    """

    name: str
    reader: sa.Engine
    writer: sa.Engine
    poll_s: float

    def __init__(self) -> None:
        self._statements: dict[Hashable, Any] = {}

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """An INSERT that knows ON CONFLICT."""

    @abstractmethod
    def counters(self) -> sa.Select[str, int]:
        """Rows (key, value) of the counters, read as a writer: locked against other writers."""

    @abstractmethod
    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """Several statements that see one moment."""

    @abstractmethod
    def lock_migrations(self, connection: sa.Connection) -> None:
        """Keep everyone else from migrating until the transaction ends."""

    @abstractmethod
    def fix_numbering(self, connection: sa.Connection, table: sa.Table) -> None:
        """After rows came with their numbers: the next one goes on from there."""

    @abstractmethod
    def announce(self, connection: sa.Connection, *, revision: int | None, report_version: int | None) -> None:
        """Within a writing transaction: wake other processes when it commits."""

    @abstractmethod
    def changed_elsewhere(self) -> bool:
        """Whether another connection may have written since the last call; cheap."""

    @abstractmethod
    def listen(self, heard: Heard) -> None:
        """Call `heard` as soon as any process wrote, where the database can tell; idempotent."""

    @abstractmethod
    def meaning(self, error: BaseException) -> HeliosError | None:
        """Say what this database's own error means; None where it says nothing but that the code is wrong."""

    @abstractmethod
    def close(self) -> None: ...

    def upsert(self, table: sa.Table) -> Any:
        """An INSERT that takes the place of the row with the same primary key."""
        statement = self._statements.get(table)
        if statement is None:
            insert = self.insert(table)
            keys = list(table.primary_key.columns)
            others = {column.name: insert.excluded[column.name] for column in table.columns if column not in keys}
            statement = insert.on_conflict_do_update(index_elements=keys, set_=others)
            self._statements[table] = statement
        return statement

    def among(self, query: sa.Select[*tuple[Any, ...]], column: sa.Column[str]) -> Any:
        """The rows of `query` whose column has one of the parameter `values`."""
        key = ("among", column)
        if key not in self._statements:
            self._statements[key] = query.where(self.is_one_of(column))
        return self._statements[key]

    def find_records(self, connection: sa.Connection, keys: Collection[tuple[str, str]]) -> Iterable[sa.Row[Any]]:
        """Rows of those records, by kind and name, that are there."""
        by_kind: dict[str, list[str]] = {}
        for kind, name in keys:
            by_kind.setdefault(kind, []).append(name)
        query = self.among(_OF_KIND, schema.records.c.name)
        for kind, names in by_kind.items():
            yield from connection.execute(query, {"of_kind": kind, "values": names})

    def is_one_of(self, column: sa.Column[str]) -> sa.ColumnElement[bool]:
        return column.in_(sa.bindparam("values", expanding=True))

    def write_rows(
        self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], *, replace: bool = False
    ) -> None:
        """Insert rows, in their order, all with the same columns.

        With `replace` each takes the place of the one with its primary key; no two of them have the same.
        """
        connection.execute(self.upsert(table) if replace else table.insert(), rows)

    @contextmanager
    def together(self, connection: sa.Connection) -> Iterator[None]:  # noqa: ARG002 - others need it
        """Statements without rows, and a commit: sent without waiting for each answer, where the database can."""
        yield

    def read(self, query: Callable[[sa.Connection], T]) -> T:
        """Run statements that need not see one moment. Raises `UnavailableError`, `NoSpaceError`."""
        return self._reading(self.reader.connect, query)

    def read_snapshot(self, query: Callable[[sa.Connection], T]) -> T:
        """Run statements that see one moment. Raises like `read`."""
        return self._reading(self.snapshot, query)

    def _reading(self, connect: Callable[[], Any], query: Callable[[sa.Connection], T], *, again: bool = True) -> T:
        try:
            with connect() as connection:
                return query(connection)
        except sa.exc.SQLAlchemyError as error:
            # A pooled connection may have been cut long ago; asking twice does no harm to a question.
            if again and self.lost(error):
                return self._reading(connect, query, again=False)
            raise self.translated(error) from error

    def lost(self, error: sa.exc.SQLAlchemyError) -> bool:
        """Whether the connection is gone, so that another one may do better."""
        return isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated

    def surely_rolled_back(self, error: sa.exc.DBAPIError) -> bool:
        """Whether a commit that raised this did not commit: true of every answer, not of silence."""
        return not error.connection_invalidated

    def translated(self, error: sa.exc.SQLAlchemyError) -> Exception:
        """The error of our tree that this is, or itself."""
        if isinstance(error, sa.exc.TimeoutError):
            return UnavailableError(f"the store {self.name} has too many readers at once")
        if not isinstance(error, sa.exc.DBAPIError) or error.orig is None:
            return error
        meaning = self.meaning(error.orig)
        if meaning is None and isinstance(error, sa.exc.DataError):
            meaning = InputError(f"the store {self.name} cannot hold this: {error.orig}")
        return meaning or error
