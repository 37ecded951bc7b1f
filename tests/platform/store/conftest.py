"""The same store twice: what is promised is promised on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helios.store import Store, open_store

DATABASES = ("sqlite", "postgres")


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty store is: what `open_store` takes."""
    if request.param == "sqlite":
        return tmp_path / "state" / "helios.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(place: Path | str) -> Iterator[Store]:
    opened = open_store(place)
    yield opened
    opened.close()
