"""Group commit: threads share a transaction, and nothing but its fate when the database fails."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from helios.errors import ConflictError, HeliosError, NoSpaceError, UnavailableError
from helios.store import Record, open_store
from helios.store.store import SqlStore
from helios.store.transaction import Transaction

THREADS = 16


@pytest.fixture
def store(place: Path | str) -> Any:
    opened = open_store(place)
    assert isinstance(opened, SqlStore)
    yield opened
    opened.close()


def together(store: SqlStore, writes: list[Callable[[], object]]) -> list[object]:
    """Run writes so that they share one transaction: all queue while one before them holds the writer."""
    inside, release = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        inside.set()
        assert release.wait(30)

    results: list[object] = [None] * len(writes)

    def run(index: int) -> None:
        try:
            results[index] = writes[index]()
        except Exception as error:  # noqa: BLE001 - it is the result
            results[index] = error

    holder = threading.Thread(target=lambda: store._write(hold))
    holder.start()
    assert inside.wait(30)
    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(writes))]
    for count, thread in enumerate(threads, start=1):
        thread.start()
        while len(store._writer._queue) < count:
            threading.Event().wait(0.001)
    release.set()
    for thread in [*threads, holder]:
        thread.join(60)
        assert not thread.is_alive()
    return results


def commits(store: SqlStore) -> list[str]:
    """The list that every commit of the writer is noted in from now on."""
    seen: list[str] = []
    sa.event.listen(store._database.writer, "commit", lambda _: seen.append("commit"))
    return seen


def test_threads_that_write_at_once_share_a_commit(store: SqlStore) -> None:
    """Ten creations wait for one sync, and each has a revision of its own."""
    seen = commits(store)
    made = together(store, [partial(store.create, Record("Job", f"job-{n}")) for n in range(10)])
    assert seen == ["commit"]
    assert [record.resource_version for record in made if isinstance(record, Record)] == list(range(1, 11))
    assert len(store.records("Job")) == 10


def test_later_operation_of_a_group_sees_the_earlier(store: SqlStore) -> None:
    """Compare-and-swap holds within a shared transaction: of two with the same version, one is refused."""
    record = store.create(Record("Job", "a"))
    first, second, third = together(
        store,
        [
            lambda: store.save(record.with_status(n=1)),
            lambda: store.save(record.with_status(n=2)),
            lambda: store.create(Record("Job", "a")),
        ],
    )
    assert isinstance(first, Record)
    assert isinstance(second, ConflictError)
    assert isinstance(third, ConflictError)
    assert store.get("Job", "a") == first


def test_deleted_and_made_again_in_one_group(store: SqlStore) -> None:
    """The feed has the end of the old one and the new one."""
    record = store.create(Record("Job", "a"))
    _, again = together(store, [lambda: store.remove(record), lambda: store.create(Record("Job", "a"))])
    assert isinstance(again, Record)
    assert store.get("Job", "a") == again
    gone, new = store.changes(record.resource_version).items
    assert (gone.uid, new) == (record.uid, again)


def test_broken_operation_fails_alone(store: SqlStore) -> None:
    """What breaks the shared transaction gets its error; all others are written, once."""
    unwritable = Record("Job", "bad", status={"what": object()})
    made = together(
        store,
        [
            lambda: store.create(Record("Job", "before")),
            lambda: store.create(unwritable),
            lambda: store.create(Record("Job", "after")),
        ],
    )
    assert isinstance(made[1], (TypeError, sa.exc.StatementError))
    assert [record.name for record in store.records("Job")] == ["after", "before"]
    assert [event.name for event in store.events()] == ["before", "after"]
    assert store.revision() == 2


def test_rows_that_the_database_refuses_fail_alone(store: SqlStore) -> None:
    """Where it says so only as it commits, too: the operation gets the error, the others are written, once."""
    taken = store.create(Record("Job", "a")).uid

    def collide(transaction: Transaction) -> None:
        transaction.put(Record("Job", "b", uid=taken, resource_version=transaction.count()))

    made = together(store, [lambda: store.create(Record("Job", "c")), lambda: store._write(collide)])
    assert isinstance(made[0], Record)
    assert isinstance(made[1], sa.exc.IntegrityError)
    assert [record.name for record in store.records("Job")] == ["a", "c"]
    assert [event.name for event in store.events()] == ["a", "c"]


def test_operation_that_refuses_after_writing_harms_no_other(store: SqlStore) -> None:
    """Half an operation is never committed, whoever shares its transaction."""

    def torn(transaction: Transaction) -> None:
        transaction.put(Record("Job", "half", uid="half", resource_version=transaction.count()))
        raise ConflictError("too late")

    made = together(store, [lambda: store.create(Record("Job", "a")), lambda: store._write(torn)])
    assert isinstance(made[0], Record)
    assert isinstance(made[1], Exception)
    assert [record.name for record in store.records("Job")] == ["a"]


def test_sixteen_threads_lose_no_increment(store: SqlStore) -> None:
    """Compare-and-swap under contention: the sum is what was acknowledged."""
    store.create(Record("Job", "a", status={"n": 0}))
    refused = []

    def count() -> None:
        for _ in range(10):
            while True:
                record = store.get("Job", "a")
                try:
                    store.save(record.with_status(n=record.status["n"] + 1))
                    break
                except ConflictError:
                    refused.append(1)

    threads = [threading.Thread(target=count) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("Job", "a").status["n"] == 10 * THREADS
    assert store.revision() == 1 + 10 * THREADS


def test_two_openers_share_one_order(store: SqlStore, place: Path | str) -> None:
    """Replicas count in one sequence: no revision twice, none left out, and followers miss nothing."""
    other = open_store(place)
    made: list[Record] = []

    def create(opened: Any, name: str) -> None:
        made.extend(opened.create(Record("Job", f"{name}-{number}")) for number in range(20))

    threads = [
        threading.Thread(target=create, args=(opened, f"t{index}")) for index, opened in enumerate([store, other] * 3)
    ]
    for thread in threads:
        thread.start()
    after = 0
    seen: list[int] = []
    while len(seen) < 120:
        assert store.wait(after, 30.0) > after
        page = store.changes(after)
        seen += [item.resource_version for item in page.items if isinstance(item, Record)]
        after = page.revision
    for thread in threads:
        thread.join()
    assert seen == list(range(1, 121))
    assert sorted(record.resource_version for record in made) == seen
    other.close()


def _failing(store: SqlStore, error: BaseException, *, times: int) -> None:
    """Let the next commits of the writer fail as the driver would."""
    left = [times]

    def fail(_: sa.Connection) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    sa.event.listen(store._database.writer, "commit", fail)


def _disk_full() -> sa.exc.OperationalError:
    original = sqlite3.OperationalError("database or disk is full")
    original.sqlite_errorcode = sqlite3.SQLITE_FULL
    return sa.exc.OperationalError("COMMIT", {}, original)


def test_full_disk_is_said_to_every_writer_of_the_group(tmp_path: Path) -> None:
    """`NoSpaceError` for all, nothing written, and the next write goes through once there is space."""
    store = open_store(tmp_path / "helios.db")
    assert isinstance(store, SqlStore)
    _failing(store, _disk_full(), times=1)
    made = together(store, [partial(store.create, Record("Job", f"job-{n}")) for n in range(3)])
    assert [type(error) for error in made] == [NoSpaceError] * 3
    assert len({id(error) for error in made}) == 3
    assert (store.records("Job"), store.revision()) == ((), 0)
    assert store.create(Record("Job", "a")).resource_version == 1
    store.close()


def test_really_full_disk_is_reported_as_such(tmp_path: Path) -> None:
    """SQLite's own word for it is understood: a database that may not grow any more."""
    store = open_store(tmp_path / "helios.db")
    assert isinstance(store, SqlStore)
    with store._database.writer.connect() as connection:
        pages = connection.scalar(sa.text("PRAGMA page_count"))
        connection.execute(sa.text(f"PRAGMA max_page_count = {pages}"))

    def fill() -> None:
        for number in range(200):
            store.create(Record("Job", f"job-{number}", spec={"text": "x" * 4000}))

    with pytest.raises(NoSpaceError, match="is full"):
        fill()
    written = store.records("Job")
    assert store.revision() == len(written)
    store.close()


def test_lost_connection_during_commit_is_never_tried_again(tmp_path: Path) -> None:
    """Whether it was written nobody knows: the writer says so instead of writing twice."""
    store = open_store(tmp_path / "helios.db")
    assert isinstance(store, SqlStore)
    lost = sa.exc.OperationalError("COMMIT", {}, sqlite3.OperationalError("gone"), connection_invalidated=True)
    seen = commits(store)
    _failing(store, lost, times=1)
    with pytest.raises(UnavailableError, match="whether it did is not known"):
        store.create(Record("Job", "a"))
    assert len(seen) == 1
    store.close()


def test_connection_that_is_lost_after_the_commit_writes_nothing_twice(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the commit was answered for is done, whatever is heard of the connection next."""

    @contextmanager
    def cut(_: sa.Connection) -> Iterator[None]:
        yield
        raise sa.exc.OperationalError("", None, Exception("cut"), connection_invalidated=True)

    monkeypatch.setattr(store._database, "together", cut)
    made = store.create(Record("Job", "a"))
    assert (store.get("Job", "a"), [event.name for event in store.events()]) == (made, ["a"])


def test_file_that_another_process_locks_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is held too long is an error of the tree that says so; reading goes on."""
    monkeypatch.setattr("helios.store.sqlite.LOCK_TIMEOUT_S", 0.05)
    store = open_store(tmp_path / "helios.db")
    other = sqlite3.connect(tmp_path / "helios.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="locked by another process"):
        store.create(Record("Job", "a"))
    assert store.records("Job") == ()
    other.execute("ROLLBACK")
    store.create(Record("Job", "a"))
    other.close()
    store.close()


def test_interrupted_leader_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Ctrl-C in the thread that writes for others: they get an error, and the next write has a leader."""
    store = open_store(tmp_path / "helios.db")
    assert isinstance(store, SqlStore)

    def interrupted(_: Transaction) -> None:
        raise KeyboardInterrupt

    results: list[object] = []

    def leader() -> None:
        with pytest.raises(KeyboardInterrupt):
            store._write(interrupted)

    def run() -> None:
        results.extend(together(store, [leader, lambda: store.create(Record("Job", "a"))]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert isinstance(results[1], HeliosError)
    assert store.create(Record("Job", "b")).name == "b"
    store.close()
