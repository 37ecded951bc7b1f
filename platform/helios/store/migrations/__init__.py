"""Bring a database to the newest schema: under a lock, in one transaction, so that it is done once or not at all.

A migration adds; it never takes away or re-words what the release before reads and writes, so that old and new servers
work side by side while they are rolled. What says who may open a database:

- `alembic_version.version_num`: the newest migration it has, as four digits.
- `meta.min_reader`: the lowest `schema.HEAD` that a server must have to work with it. A migration that an older server
  cannot live with raises it.
- `meta.schema_version`: what releases without migrations compare with 1 and refuse otherwise.
"""

import sqlalchemy as sa

from helios.errors import UnavailableError
from helios.store import schema

FIRST_SCHEMA_VERSION = 1
"""`meta.schema_version` of every database that the first release can work with."""


def is_current(connection: sa.Connection, *, where: str) -> bool:
    """Whether the database needs no migration. Raises `UnavailableError` where this release cannot work with it."""
    if not has_table(connection, "meta"):
        return False
    values: dict[str, int] = dict(connection.execute(sa.select(schema.meta.c.key, schema.meta.c.value)).all())
    if values.get("schema_version", FIRST_SCHEMA_VERSION) != FIRST_SCHEMA_VERSION:
        raise _refusal(where, f"schema version {values['schema_version']}", f"version {FIRST_SCHEMA_VERSION}")
    if not has_table(connection, "alembic_version"):
        return False
    version = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    if values.get("min_reader", 0) > schema.HEAD:
        raise _refusal(where, f"schema {version}", f"up to {schema.HEAD:04}")
    return int(version or 0) >= schema.HEAD


def has_table(connection: sa.Connection, table: str) -> bool:
    return sa.inspect(connection).has_table(table)


def _refusal(where: str, has: str, reads: str) -> UnavailableError:
    return UnavailableError(
        f"the store {where} has {has}; this HELIOS reads {reads}",
        hint="use the HELIOS version that wrote it, or a newer one",
    )
