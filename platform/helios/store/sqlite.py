"""The embedded database: one SQLite file in WAL mode, one writer at a time, any number of readers.

`synchronous=FULL`: an acknowledged write is an intent that something outside will act on (a cell starts a gang), so it
must survive a power cut, which WAL with NORMAL does not promise.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from helios.errors import HeliosError, NoSpaceError, UnavailableError
from helios.store import jsontext, schema
from helios.store.database import Database, Heard

LOCK_TIMEOUT_S = 10
ROWS = 64
"""Written in one statement at most; each number of rows is a statement of its own, which the driver keeps prepared."""
STATEMENTS = 512
"""Prepared statements that a connection keeps."""
READERS = 40
"""Connections at most; as many threads as an API server has may read at once."""


class SqliteDatabase(Database):
    poll_s = 0.1

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.name = str(path)
        self.reader = _engine(path, size=READERS, begin=None)
        self.writer = _engine(path, size=1, begin="BEGIN IMMEDIATE")
        self._snapshots = _engine(path, size=READERS, begin="BEGIN")
        self._watching = threading.Lock()
        self._watcher: sqlite3.Connection | None = None
        self._path = path
        self._data_version = -1

    def insert(self, table: sa.Table) -> sqlite.Insert:
        return sqlite.insert(table)

    def is_one_of(self, column: sa.Column[str]) -> sa.ColumnElement[bool]:
        """One statement for any number of values, where IN (?, ?, ...) would be composed anew for each."""
        values = sa.bindparam("values", type_=sa.JSON)
        return column.in_(sa.select(sa.func.json_each(values).table_valued("value").c.value))

    def write_rows(
        self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], *, replace: bool = False
    ) -> None:
        """Many rows a statement: for each step of one the driver gives the interpreter away, and waits to have it back.

        With a row a step, a group of twenty writes waited a hundred times for whatever else computes in this process.
        """
        names = tuple(rows[0])
        written = [jsontext.dumps if isinstance(table.c[name].type, sa.JSON) else None for name in names]
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            values = tuple(
                row[name] if dumps is None else dumps(row[name])
                for row in some
                for name, dumps in zip(names, written, strict=True)
            )
            connection.exec_driver_sql(self._insertion(table, names, len(some), replace=replace), values)

    def _insertion(self, table: sa.Table, names: tuple[str, ...], count: int, *, replace: bool) -> str:
        key = (table.name, names, count, replace)
        text = self._statements.get(key)
        if text is None:
            row = f"({', '.join('?' * len(names))})"
            text = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([row] * count)}"  # noqa: S608 - our own schema's
            if replace:
                keys = [column.name for column in table.primary_key.columns]
                others = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
                text += f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {others}"
            self._statements[key] = text
        return str(text)

    def counters(self) -> sa.Select[str, int]:
        return sa.select(schema.meta.c.key, schema.meta.c.value)

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        with self._snapshots.begin() as connection:
            yield connection

    def lock_migrations(self, connection: sa.Connection) -> None:
        """Nothing more to do: every writing transaction excludes all others from its beginning."""

    def fix_numbering(self, connection: sa.Connection, table: sa.Table) -> None:
        """Nothing to do: AUTOINCREMENT goes on from the highest number there ever was."""

    def announce(self, connection: sa.Connection, *, revision: int | None, report_version: int | None) -> None:
        """Nothing to do: other processes look at the file (`changed_elsewhere`)."""

    def listen(self, heard: Heard) -> None:
        """Nothing to do: SQLite has no notifications."""

    def changed_elsewhere(self) -> bool:
        with self._watching:
            if self._watcher is None:
                self._watcher = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            version = self._watcher.execute("PRAGMA data_version").fetchone()[0]
            changed = version != self._data_version
            self._data_version = version
            return bool(changed)

    def meaning(self, error: BaseException) -> HeliosError | None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the rest says which of it
        if code == sqlite3.SQLITE_FULL:
            return NoSpaceError(f"the disk of the store {self.name} is full", hint="free some space, then try again")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return UnavailableError(f"the store {self.name} is locked by another process for over {LOCK_TIMEOUT_S} s")
        if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.ProgrammingError | sqlite3.IntegrityError | sqlite3.DataError
        ):
            return UnavailableError(f"the store {self.name} cannot be read or written: {error}")
        return None

    def close(self) -> None:
        for engine in (self.reader, self.writer, self._snapshots):
            engine.dispose()
        with self._watching:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None


def _engine(path: Path, *, size: int, begin: str | None) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"check_same_thread": False, "timeout": LOCK_TIMEOUT_S, "cached_statements": STATEMENTS},
        json_serializer=jsontext.dumps,
        json_deserializer=jsontext.loads,
        pool_size=size,
        max_overflow=0,
        pool_timeout=30,
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        # Transactions begin below; the driver's own implicit BEGIN would be a deferred one, and upgrading a read lock
        # later can fail at once in spite of the timeout.
        connection.isolation_level = None
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")

    if begin is not None:

        @sa.event.listens_for(engine, "begin")
        def begin_transaction(connection: sa.Connection) -> None:
            connection.exec_driver_sql(begin)

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Put the file into WAL mode, where it stays.

    Only in a new file is there something to change, and in that SQLite does not wait for others who have just opened it
    too: it says at once that the file is locked.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return
