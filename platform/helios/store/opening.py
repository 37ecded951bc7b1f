"""From the place of a store to its database."""

from pathlib import Path

import sqlalchemy as sa

from helios.errors import InputError, UnavailableError
from helios.store.database import Database
from helios.store.sqlite import SqliteDatabase

EXPECTED = "expected sqlite:///PATH or postgresql://USER@HOST/DATABASE"


def database_at(place: Path | str) -> Database:
    """Raises `InputError` for a URL of something else, `UnavailableError` where no file can be made."""
    if isinstance(place, Path):
        return _sqlite(place)
    try:
        url = sa.make_url(place)
    except sa.exc.ArgumentError as error:
        raise InputError(f"the store {place!r} is no URL: {EXPECTED}") from error
    backend = url.get_backend_name()
    if backend == "sqlite" and url.database:
        return _sqlite(Path(url.database))
    if backend in ("postgresql", "postgres"):
        from helios.store.postgres import PostgresDatabase  # the driver, which the embedded store does without

        return PostgresDatabase(url)
    raise InputError(f"the store {url.render_as_string()!r} is of no kind that HELIOS knows: {EXPECTED}")


def _sqlite(path: Path) -> SqliteDatabase:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"the store {path} cannot be opened: {error.strerror}") from error
    return SqliteDatabase(path)
