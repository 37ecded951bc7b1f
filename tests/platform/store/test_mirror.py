"""The mirror: every record in memory, as current as a reader asks for."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from helios.errors import CompactedError, NotFoundError, UnavailableError
from helios.store import Event, Gone, Mirror, Record, Store, mirror, open_store


@pytest.fixture
def follower(store: Store) -> Mirror:
    """A mirror without a thread: it moves when a test says so."""
    return Mirror(store)


@pytest.fixture
def running(store: Store) -> Iterator[Mirror]:
    made = Mirror(store)
    made.start()
    yield made
    made.stop()


def placed(name: str, cell: str | None, *, kind: str = "Job") -> Record:
    return Record(kind, name, status={"placement": {"cell": cell}} if cell else {})


def test_mirror_shows_what_the_store_has_after_sync(store: Store, follower: Mirror) -> None:
    """Creations, changes and deletions; find, get, by_uid and records answer as the store does."""
    store.create(Record("Job", "b", labels={"team": "x"}))
    a = store.create(Record("Job", "a"))
    assert follower.sync() == 2
    assert follower.records("Job") == store.records("Job")
    assert follower.records("Job", {"team": "x"}) == store.records("Job", labels={"team": "x"})
    moved = store.save(a.with_status(state="Queued"))
    assert follower.find("Job", "a") == a
    follower.sync()
    assert (follower.get("Job", "a"), follower.by_uid(a.uid)) == (moved, moved)
    store.remove(moved)
    follower.sync()
    assert (follower.find("Job", "a"), follower.by_uid(a.uid)) == (None, None)
    assert follower.records("Job") == store.records("Job")
    assert follower.records("Service") == ()
    with pytest.raises(NotFoundError, match=r"no job is named 'bb'.*'b'"):
        follower.get("Job", "bb")


def test_reader_gets_at_least_what_it_has_seen_written(store: Store, running: Mirror) -> None:
    """`sync(record.resource_version)` is read-your-writes, whoever catches up first."""
    for number in range(20):
        record = store.create(Record("Job", f"job-{number}"))
        assert running.sync(record.resource_version) >= record.resource_version
        assert running.find("Job", record.name) == record


def test_revision_that_does_not_come_is_an_error_in_time(follower: Mirror) -> None:
    """Nobody waits for ever for a revision of another store."""
    with pytest.raises(UnavailableError, match="has not come to revision 99"):
        follower.sync(99, timeout=0.05)


def test_running_mirror_keeps_up_by_itself(store: Store, running: Mirror, place: Path | str) -> None:
    """What any process writes is shown soon, and wakes who waits."""
    other = open_store(place)
    written = other.create(Record("Job", "a"))
    assert running.wait(0, 10.0) == written.resource_version
    assert running.find("Job", "a") == written
    assert running.wait(written.resource_version, 0.01) == written.resource_version
    other.close()


def test_changes_that_follow_one_another_come_in_one_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred writes a second the thread reads many at a time; the first of them it reads at once."""
    monkeypatch.setattr(mirror, "REST_S", 30.0)
    follower = Mirror(store)
    follower.start()
    first = store.create(Record("Job", "first"))
    assert follower.wait(0, 10.0) == first.resource_version
    for number in range(3):
        last = store.create(Record("Job", f"job-{number}"))
    assert follower.wait(first.resource_version, 0.05) == first.resource_version
    assert follower.sync() == last.resource_version  # whoever asks does not wait for the rest to end
    follower.stop()


def test_mirror_without_a_thread_can_be_waited_for(store: Store, follower: Mirror) -> None:
    """`wait` catches up in the caller's thread."""
    assert follower.wait(0, 0.01) == 0
    record = store.create(Record("Job", "a"))
    assert follower.wait(0, 10.0) == 1
    assert follower.find("Job", "a") == record


def test_cell_index_follows_placements(store: Store, follower: Mirror) -> None:
    """Jobs and services by the cell they are placed in, through moves, releases and deletions."""
    job = store.create(placed("job", "a"))
    service = store.create(placed("service", "a", kind="Service"))
    store.create(placed("cell", "a", kind="Cell"))
    store.create(placed("waiting", None))
    follower.sync()
    assert sorted(record.name for record in follower.on_cell("a")) == ["job", "service"]
    moved = store.save(job.with_status(placement={"cell": "b"}))
    store.save(service.with_status(placement=None))
    follower.sync()
    assert (follower.on_cell("a"), follower.on_cell("b")) == ((), (moved,))
    store.remove(moved)
    follower.sync()
    assert follower.on_cell("b") == ()


def test_subscriber_hears_every_change_once_in_order(store: Store, follower: Mirror) -> None:
    """What it hears of is already shown; after unsubscribing it hears nothing."""
    heard: list[Record | Gone] = []

    def callback(items: Sequence[Record | Gone]) -> None:
        for item in items:
            shown = follower.find(item.kind, item.name)
            assert (shown is None) == isinstance(item, Gone)
        heard.extend(items)

    unsubscribe = follower.subscribe(callback)
    first = store.create(Record("Job", "a"))
    follower.sync()
    second = store.save(first.with_status(n=1))
    follower.sync()
    store.remove(second)
    follower.sync()
    assert heard == [first, second, Gone("Job", "a", first.uid, 3)]
    unsubscribe()
    store.create(Record("Job", "b"))
    follower.sync()
    assert len(heard) == 3


def test_subscriber_that_breaks_hears_the_same_again(store: Store, follower: Mirror) -> None:
    """A change is not lost on who could not take it in."""
    heard: list[str] = []

    def callback(items: Sequence[Record | Gone]) -> None:
        heard.append(items[0].name)
        if len(heard) == 1:
            raise ValueError("not now")

    follower.subscribe(callback)
    store.create(Record("Job", "a"))
    with pytest.raises(ValueError, match="not now"):
        follower.sync()
    assert follower.revision == 0
    follower.sync()
    assert heard == ["a", "a"]


def test_running_mirror_outlives_a_subscriber_that_breaks(
    store: Store, running: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on, and the change comes again."""
    monkeypatch.setattr(mirror, "RETRY_S", 0.01)
    heard = threading.Event()
    calls: list[int] = []

    def callback(_: Sequence[Record | Gone]) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not now")
        heard.set()

    running.subscribe(callback)
    store.create(Record("Job", "a"))
    assert heard.wait(10)
    assert running.wait(0, 10.0) == 1


def test_recent_changes_are_remembered_in_order(
    store: Store, follower: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By kind and revision, as far back as there is room; further back is an error, never a gap."""
    monkeypatch.setattr(mirror, "REMEMBERED", 4)
    store.create(Record("Job", "before"))
    start = follower.sync()
    with pytest.raises(CompactedError):
        follower.changed("Job", 0)
    a = store.create(Record("Job", "a"))
    store.create(Record("Service", "s"))
    follower.sync()
    moved = store.save(a.with_status(n=1))
    store.remove(moved)
    follower.sync()
    assert follower.changed("Job", start) == (a, Gone("Job", "a", a.uid, store.revision()))
    assert follower.changed("Job", moved.resource_version) == (Gone("Job", "a", a.uid, store.revision()),)
    for number in range(4):
        store.create(Record("Job", f"later-{number}"))
    follower.sync()
    with pytest.raises(CompactedError):
        follower.changed("Job", start)
    assert len(follower.changed("Job", store.revision() - 2)) == 2


def test_mirror_that_fell_behind_a_compaction_reads_anew(store: Store, follower: Mirror) -> None:
    """Subscribers hear of what went and what came, as if they had heard it all along."""
    kept = store.create(Record("Job", "kept"))
    gone = store.create(Record("Job", "gone"))
    follower.sync()
    heard: list[Record | Gone] = []
    follower.subscribe(heard.extend)
    store.remove(gone)
    replaced = store.create(Record("Job", "gone"))
    moved = store.save(kept.with_status(n=1))
    last = store.create(Record("Job", "last"))
    store.remove(last)
    store.compact(before=time.time() + 60)
    follower.sync()
    assert heard == [Gone("Job", "gone", gone.uid, follower.revision), replaced, moved]
    assert follower.records("Job") == store.records("Job")
    with pytest.raises(CompactedError):
        follower.changed("Job", kept.resource_version)


def test_large_store_is_read_in_pages(store: Store) -> None:
    """The first read of many records joins its pages, also while they are being written to."""
    changes = store.changes

    class Paged:
        """The store, with small pages and a writer between them."""

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def changes(self, after: int) -> object:
            page = changes(after, limit=3)
            if after == 3:
                store.remove(store.get("Job", "job-1"))
            return page

    for number in range(10):
        store.create(Record("Job", f"job-{number}"))
    paged = Mirror(Paged())  # type: ignore[arg-type]
    paged.sync()
    assert paged.records("Job") == store.records("Job")
    assert len(paged.records("Job")) == 9


def test_events_alone_move_the_revision(store: Store, follower: Mirror) -> None:
    """A revision with no record in it is caught up with all the same."""
    store.add_events([Event("Job", "a", "u", "Poke", "")])
    assert follower.sync() == 1


def test_readers_and_the_thread_do_not_disturb_each_other(store: Store, running: Mirror) -> None:
    """Readers in threads always see a record that was shown before, at the same or a later version."""
    store.create(Record("Job", "a", status={"n": 0}))
    running.sync()
    stop = threading.Event()
    backwards: list[tuple[int, int]] = []

    def read() -> None:
        last = 0
        while not stop.is_set():
            version = running.get("Job", "a").resource_version
            if version < last:
                backwards.append((last, version))
            last = version
            assert len(running.records("Job")) == 1

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(30):
        record = store.save(store.get("Job", "a").with_status(n=number + 1))
    running.sync()
    stop.set()
    for reader in readers:
        reader.join()
    assert (backwards, running.get("Job", "a")) == ([], record)
