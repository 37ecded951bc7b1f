"""PostgreSQL through psycopg 3: what replicas share.

Whoever writes locks the counter of revisions first, so that transactions commit in the order of their revisions. A
replica that stands still with that lock (paused, cut off) would stop all others: the server ends its session.
"""

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects import postgresql

from helios.errors import HeliosError, NoSpaceError, UnavailableError
from helios.store import jsontext, schema
from helios.store.arrays import TextArray, Texts, TextsDumper, insert_from_arrays
from helios.store.database import Database, Heard

CHANNEL = "helios"
"""One channel for both counters; the payload is `<revision> <report version>`, either may be empty."""
READERS = 10
MORE_READERS = 30
MIGRATION_LOCK = 0x48454C494F53
"""Key of the advisory lock: `HELIOS`."""
CONNECTION = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
MIGRATING = {"lock_timeout": "5min", "idle_in_transaction_session_timeout": "1min"}
"""Whoever comes second waits for the first."""
IDLE_WRITER_MS = 3_000
LOCK_MS = 15_000
STATEMENT_MS = 60_000
CLOSE_S = 2.0
"""How long `close` waits for the listener, who may be in the middle of connecting to what does not answer."""
RECONNECT_S = (0.05, 2.0)
"""The first and the longest pause between attempts to listen again."""
_KINDS, _NAMES = (
    sa.cast(sa.bindparam(name, type_=TextArray("")), postgresql.ARRAY(sa.String())) for name in ("kinds", "names")
)
_WANTED = sa.func.unnest(_KINDS, _NAMES).table_valued("kind", "name", name="wanted").render_derived()
_BY_KEYS = sa.select(schema.records).join(
    _WANTED, sa.and_(schema.records.c.kind == _WANTED.c.kind, schema.records.c.name == _WANTED.c.name)
)
_GONE = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)


class PostgresDatabase(Database):
    poll_s = 2.0

    def __init__(self, url: sa.URL) -> None:
        super().__init__()
        self._url = url.set(drivername="postgresql+psycopg")
        self.name = url.set(drivername="postgresql").render_as_string(hide_password=True)
        writing = f"-c idle_in_transaction_session_timeout={IDLE_WRITER_MS} -c lock_timeout={LOCK_MS}"
        reading = f"-c statement_timeout={STATEMENT_MS}"
        self.reader = self._engine(reading, size=READERS, more=MORE_READERS, isolation="AUTOCOMMIT")
        self.writer = self._engine(writing, size=1, more=0, isolation="READ COMMITTED")
        self._listening = threading.Lock()
        self._listener: threading.Thread | None = None
        self._stop = threading.Event()

    def _engine(self, options: str, *, size: int, more: int, isolation: str) -> sa.Engine:
        given = self._url.query.get("options", "")
        engine = sa.create_engine(
            self._url,
            connect_args={**CONNECTION, "options": f"{given} {options}".strip()},
            json_serializer=jsontext.dumps,
            json_deserializer=jsontext.loads,
            pool_size=size,
            max_overflow=more,
            pool_timeout=30,
            isolation_level=isolation,
        )

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            connection.adapters.register_dumper(Texts, TextsDumper)

        return engine

    def insert(self, table: sa.Table) -> postgresql.Insert:
        return postgresql.insert(table)

    def is_one_of(self, column: sa.Column[str]) -> sa.ColumnElement[bool]:
        return column == sa.any_(sa.bindparam("values", type_=TextArray("")))

    def find_records(self, connection: sa.Connection, keys: Collection[tuple[str, str]]) -> Iterable[sa.Row[Any]]:
        """One statement for all kinds: every answer that is waited for is waited for with the lock held."""
        kinds, names = zip(*keys, strict=True)
        return connection.execute(_BY_KEYS, {"kinds": kinds, "names": names})

    def write_rows(
        self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], *, replace: bool = False
    ) -> None:
        """One statement with an array a column: parsed, sent and answered once, however many the rows."""
        names = tuple(rows[0])
        key = (table, names, replace)
        if key not in self._statements:
            self._statements[key] = insert_from_arrays(table, names, replace=replace)
        connection.execute(self._statements[key], {f"of_{name}": [row[name] for row in rows] for name in names})

    @contextmanager
    def together(self, connection: sa.Connection) -> Iterator[None]:
        driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        try:
            with driver.pipeline():
                yield
        except psycopg.Error as error:
            # Raised where the answers come in, outside of SQLAlchemy's statements, which would have said the same.
            raise sa.exc.DBAPIError.instance(
                "", None, error, psycopg.Error, connection_invalidated=driver.closed, dialect=connection.dialect
            ) from error

    def counters(self) -> sa.Select[str, int]:
        # In the order of the key, so that two who lock never wait for each other.
        return sa.select(schema.meta.c.key, schema.meta.c.value).order_by(schema.meta.c.key).with_for_update()

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self.reader.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def lock_migrations(self, connection: sa.Connection) -> None:
        for setting, value in MIGRATING.items():
            connection.execute(sa.select(sa.func.set_config(setting, value, True)))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))

    def fix_numbering(self, connection: sa.Connection, table: sa.Table) -> None:
        highest = connection.scalar(sa.select(sa.func.max(table.c.number)))
        if highest:
            connection.execute(sa.select(sa.func.setval(sa.func.pg_get_serial_sequence(table.name, "number"), highest)))

    def announce(self, connection: sa.Connection, *, revision: int | None, report_version: int | None) -> None:
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{revision or ''} {report_version or ''}")))

    def changed_elsewhere(self) -> bool:
        return True

    def listen(self, heard: Heard) -> None:
        with self._listening:
            if self._listener is None:
                self._listener = threading.Thread(
                    target=self._listen, args=(heard,), name="store-listener", daemon=True
                )
                self._listener.start()

    def _listen(self, heard: Heard) -> None:
        pause = RECONNECT_S[0]
        while not self._stop.is_set():
            # Where the database is away, whoever reads or writes hears of it; here it only costs latency.
            with suppress(*_GONE, HeliosError):
                url = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
                with psycopg.connect(url, autocommit=True, **CONNECTION) as connection:  # type: ignore[arg-type]
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    pause = RECONNECT_S[0]
                    self._hear(connection, heard)
            self._stop.wait(pause)
            pause = min(2 * pause, RECONNECT_S[1])

    def _hear(self, connection: psycopg.Connection, heard: Heard) -> None:
        heard(None, None)  # what was said while nobody listened
        while not self._stop.is_set():
            for notification in connection.notifies(timeout=0.25):
                revision, _, report_version = notification.payload.partition(" ")
                heard(int(revision or 0), int(report_version or 0))

    def lost(self, error: sa.exc.SQLAlchemyError) -> bool:
        return super().lost(error) or _ended_for_idling(error)

    def surely_rolled_back(self, error: sa.exc.DBAPIError) -> bool:
        return super().surely_rolled_back(error) or _ended_for_idling(error)

    def meaning(self, error: BaseException) -> HeliosError | None:
        state = getattr(error, "sqlstate", None) or ""
        if state == "53100":
            return NoSpaceError(f"the disk of the store {self.name} is full", hint="free some space, then try again")
        if state == "55P03":
            return UnavailableError(f"the store {self.name} is locked by another writer for over {LOCK_MS // 1000} s")
        if isinstance(error, _GONE):
            return UnavailableError(f"the store {self.name} does not answer: {str(error).strip()}")
        return None

    def close(self) -> None:
        self._stop.set()
        if self._listener is not None:
            self._listener.join(CLOSE_S)
        self.reader.dispose()
        self.writer.dispose()


def _ended_for_idling(error: sa.exc.SQLAlchemyError) -> bool:
    """The server ended the session, with its transaction, because nothing came for too long."""
    return isinstance(error, sa.exc.DBAPIError) and isinstance(
        error.orig, psycopg.errors.IdleInTransactionSessionTimeout
    )
