"""What only PostgreSQL promises: news at once, and writers that survive their sessions."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from helios.errors import UnavailableError
from helios.store import Record, open_store
from helios.store.store import SqlStore
from helios.store.transaction import Transaction

DEADLINE_S = 30.0


@pytest.fixture
def store(postgres_url: str) -> Iterator[SqlStore]:
    opened = open_store(postgres_url)
    assert isinstance(opened, SqlStore)
    yield opened
    opened.close()


@pytest.fixture
def admin(postgres_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def until(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not found():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def end_sessions(admin: psycopg.Connection) -> int:
    """Cut every session of the database but this one."""
    ended = admin.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return len(ended.fetchall())


def test_write_of_another_replica_is_heard_without_polling(store: SqlStore, postgres_url: str) -> None:
    """LISTEN/NOTIFY: with polls switched off the waiter still wakes."""
    store._database.poll_s = 3600.0
    other = open_store(postgres_url)
    store.wait(0, 0.0)
    until(lambda: store._database._listener is not None)  # type: ignore[attr-defined]
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(store.wait(0, DEADLINE_S)))
    waiter.start()
    other.create(Record("Job", "a"))
    waiter.join(DEADLINE_S)
    assert found == [1]
    other.close()


def test_listener_that_was_cut_comes_back_and_looks_what_it_missed(
    store: SqlStore, postgres_url: str, admin: psycopg.Connection
) -> None:
    """A lost notification costs latency only."""
    store._database.poll_s = 3600.0
    other = open_store(postgres_url)
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(store.wait(0, DEADLINE_S)))
    waiter.start()
    listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    until(lambda: admin.execute(listening).fetchone() == (1,))
    end_sessions(admin)
    other.create(Record("Job", "a"))
    waiter.join(DEADLINE_S)
    assert found == [1]
    other.close()


def test_cut_sessions_are_replaced_without_anybody_noticing(store: SqlStore, admin: psycopg.Connection) -> None:
    """After a restart of the server, say: reads and writes go on, each write once."""
    record = store.create(Record("Job", "a"))
    store.changes(0)
    assert end_sessions(admin) >= 2
    assert store.find("Job", "a") == record
    end_sessions(admin)
    assert store.changes(0).items == (record,)
    end_sessions(admin)
    saved = store.save(record.with_status(state="Queued"))
    assert saved.resource_version == 2


def test_session_that_is_cut_within_a_write_is_written_again_once(store: SqlStore, admin: psycopg.Connection) -> None:
    """Before its commit a write has no effect; it is run again on another connection, and counted once."""
    runs = []

    def write(transaction: Transaction) -> None:
        runs.append(transaction.revision)
        transaction.put(Record("Job", "a", uid=f"uid-{len(runs)}", resource_version=transaction.count()))
        if len(runs) == 1:
            end_sessions(admin)

    store._write(write)
    assert (runs, store.revision(), store.get("Job", "a").uid) == ([0, 0], 1, "uid-2")


def test_writer_that_stands_still_with_the_lock_does_not_stop_the_others(store: SqlStore, postgres_url: str) -> None:
    """The server ends the session of a paused replica; another one writes; the paused one writes after it, once."""
    other = open_store(postgres_url)
    runs = []

    def paused(transaction: Transaction) -> None:
        runs.append(transaction.revision)
        if len(runs) == 1:
            transaction.connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
            other.create(Record("Job", "other"))
        transaction.put(Record("Job", "mine", uid="mine", resource_version=transaction.count()))

    store._write(paused)
    assert runs == [0, 1]
    assert [record.resource_version for record in store.records("Job")] == [2, 1]
    other.close()


def test_writers_end_idle_transactions_by_default(store: SqlStore) -> None:
    """The limit is part of every writing session."""
    with store._database.writer.connect() as connection:
        assert connection.scalar(sa.text("SHOW idle_in_transaction_session_timeout")) == "3s"


def test_server_that_is_not_there_is_unavailable_and_no_password_is_told() -> None:
    """The error names the place, never the secret in it."""
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        open_store("postgresql://helios:hunter2@127.0.0.1:1/helios")
    assert "hunter2" not in str(caught.value)


def test_text_that_the_database_cannot_hold_is_made_holdable(store: SqlStore) -> None:
    """A NUL byte or half a surrogate in a message does not lose the event."""
    from helios.store import Event

    store.add_events([Event("Job", "a", "u", "Failed", "before\0after \ud800")])
    assert store.events()[0].message == "before\N{REPLACEMENT CHARACTER}after ?"


def test_names_sort_by_code_point_as_on_sqlite(store: SqlStore) -> None:
    """Whatever the server's locale is."""
    for name in ("b", "a-b", "ab", "B"):
        store.create(Record("Job", name))
    assert [record.name for record in store.records("Job")] == ["B", "a-b", "ab", "b"]
