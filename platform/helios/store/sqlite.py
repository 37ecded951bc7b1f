"""The embedded database: one SQLite file in WAL mode, one writer at a time, any number of readers.

`synchronous=FULL`: an acknowledged write is an intent that something outside will act on (a cell starts a gang), so it
must survive a power cut, which WAL with NORMAL does not promise.
"""

import sqlite3
import threading
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
        connect_args={"check_same_thread": False, "timeout": LOCK_TIMEOUT_S},
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
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    if begin is not None:

        @sa.event.listens_for(engine, "begin")
        def begin_transaction(connection: sa.Connection) -> None:
            connection.exec_driver_sql(begin)

    return engine
