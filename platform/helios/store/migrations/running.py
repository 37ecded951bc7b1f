"""Run the migrations. Apart, because Alembic takes longer to import than a current database takes to open."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from helios.store.migrations import has_table, is_current


def migrate(connection: sa.Connection, *, where: str) -> None:
    """Bring the database to `schema.HEAD`, in the caller's transaction, which holds the migration lock.

    Args:
        where: name of the database for people, without password.

    Raises:
        UnavailableError: the database is of a schema that this release cannot work with.
    """
    if is_current(connection, where=where):
        return
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if has_table(connection, "meta") and not has_table(connection, "alembic_version"):
        command.stamp(config, "0001")
    command.upgrade(config, "head")
