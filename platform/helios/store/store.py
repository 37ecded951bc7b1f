"""The store, put together of its parts."""

from dataclasses import dataclass, replace
from typing import Self

import sqlalchemy as sa

from helios.ports import Clock
from helios.store import schema
from helios.store.accounting import Accounting
from helios.store.agentmail import AgentMail
from helios.store.care import Care
from helios.store.database import Database
from helios.store.eventlog import EventLog
from helios.store.leases import Leases
from helios.store.migrations import is_current
from helios.store.recordkeeping import RecordKeeping
from helios.store.records import Actor, Fence
from helios.store.waiting import Counters
from helios.store.writer import Writer

_COUNTERS = sa.select(schema.meta.c.key, schema.meta.c.value)


@dataclass(slots=True)
class SqlStore(RecordKeeping, EventLog, Leases, AgentMail, Accounting, Care):
    """`helios.store.Store` on a database."""

    def acting(self, *, fence: Fence | None = None, actor: Actor | None = None) -> Self:
        return replace(self, _fence=fence or self._fence, _actor=actor or self._actor)

    def close(self) -> None:
        self._database.close()


def open_database(database: Database, *, clock: Clock) -> SqlStore:
    """Migrate the database where it needs it, and open the store on it. Raises `UnavailableError`."""

    def look() -> tuple[int, int]:
        found: dict[str, int] = database.read(lambda one: dict(one.execute(_COUNTERS).all()))
        return found.get("revision", 0), found.get("report_version", 0)

    try:
        _migrate(database)
    except BaseException:
        database.close()
        raise
    counters = Counters(database, look)
    return SqlStore(database, Writer(database, clock=clock, counters=counters), counters, clock)


def _migrate(database: Database) -> None:
    if database.read(lambda connection: is_current(connection, where=database.name)):
        return
    from helios.store.migrations.running import migrate  # before the lock is held: Alembic is slow to import

    try:
        with database.writer.begin() as connection:
            database.lock_migrations(connection)
            migrate(connection, where=database.name)
    except sa.exc.SQLAlchemyError as error:
        raise database.translated(error) from error
