"""What only the embedded database promises."""

import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from helios.errors import InputError, UnavailableError
from helios.store import Event, Record, SystemClock, open_store
from helios.store.opening import database_at
from helios.store.sqlite import ROWS
from helios.store.store import open_database


def test_acknowledged_writes_survive_a_power_cut(tmp_path: Path) -> None:
    """WAL with synchronous=FULL: SQLite syncs the log before it answers."""
    database = database_at(tmp_path / "helios.db")
    with database.writer.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(sa.text("PRAGMA synchronous")) == 2
    database.close()


def test_new_file_that_another_process_just_opened_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself would say at once that it is locked, as the file is not in WAL mode yet."""
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE another (x)")
    timer = threading.Timer(0.3, other.execute, args=("COMMIT",))
    timer.start()
    store = open_store(path)
    timer.join()
    other.close()
    assert store.revision() == 0
    store.close()


def test_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    """An error of the tree, not of SQLAlchemy."""
    path = tmp_path / "helios.db"
    path.write_text("this is not a database, it only has the name of one" * 100)
    with pytest.raises(UnavailableError, match="cannot be read or written: file is not a database"):
        open_store(path)


def test_url_names_the_same_file_as_a_path(tmp_path: Path) -> None:
    """`sqlite:///PATH` and the path open one store."""
    store = open_store(f"sqlite:///{tmp_path / 'helios.db'}")
    written = store.create(Record("Job", "job"))
    store.close()
    again = open_store(tmp_path / "helios.db")
    assert again.get("Job", "job") == written
    again.close()


def test_many_rows_are_one_statement(tmp_path: Path) -> None:
    """However many writes share a transaction, the driver is called about as often: it gives the interpreter away each
    time."""
    statements: list[int] = []
    for count in (1, ROWS, 2 * ROWS):
        database = database_at(tmp_path / f"{count}.db")
        store = open_database(database, clock=SystemClock())
        records = tuple(Event("Job", f"job-{number}", "uid", "Reason", "message") for number in range(count))
        sa.event.listen(database.writer, "before_cursor_execute", lambda *_: statements.append(count))  # noqa: B023
        store.add_events(records)
        assert [event.name for event in store.events(limit=count)] == [event.name for event in records]
        store.close()
    assert statements.count(ROWS) == statements.count(1)
    assert statements.count(2 * ROWS) == statements.count(1) + 1


@pytest.mark.parametrize("place", ["helios.db", "mysql://host/database", "sqlite://"])
def test_place_that_is_no_store_is_refused(place: str) -> None:
    """The error says what is expected."""
    with pytest.raises(InputError, match=r"expected sqlite:///PATH or postgresql://"):
        open_store(place)
