"""What agents say and are asked: reports and logs."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios.errors import FencedError
from helios.store import Store, agentmail, open_store


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(place: Path | str, clock: Clock) -> Iterator[Store]:
    """The store on the test's clock."""
    opened = open_store(place, clock=clock)
    yield opened
    opened.close()


def test_newest_report_of_each_cell_is_kept(store: Store) -> None:
    """A report replaces the one before; `after` gives what is newer, by version; records are not touched."""
    store.put_report("a", generation=1, sequence=1, body={"n": 1})
    store.put_report("b", generation=1, sequence=1, body={"n": 2})
    store.put_report("a", generation=1, sequence=2, body={"n": 3})
    reports = store.reports()
    assert [(report.cell, report.body, report.sequence) for report in reports] == [
        ("b", {"n": 2}, 1),
        ("a", {"n": 3}, 2),
    ]
    assert [report.cell for report in store.reports(after=reports[0].version)] == ["a"]
    assert store.revision() == 0


def test_report_that_is_not_newer_is_left_out(store: Store) -> None:
    """One that was sent twice or overtaken changes nothing."""
    store.put_report("a", generation=1, sequence=2, body={"n": 2})
    before = store.reports()
    store.put_report("a", generation=1, sequence=2, body={"n": 9})
    store.put_report("a", generation=1, sequence=1, body={"n": 9})
    assert store.reports() == before


def test_agent_whose_successor_has_reported_is_refused(store: Store) -> None:
    """A lower generation is fenced; a higher one starts its sequence anew."""
    store.put_report("a", generation=1, sequence=7, body={})
    store.put_report("a", generation=2, sequence=1, body={"n": 1})
    with pytest.raises(FencedError, match="successor"):
        store.put_report("a", generation=1, sequence=8, body={})
    assert store.reports()[0].body == {"n": 1}


def test_report_wakes_who_waits_for_it(store: Store) -> None:
    """`wait_reports` returns the version as soon as there is one, and gives up in time."""
    assert store.wait_reports(0, 0.01) == 0
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(store.wait_reports(0, 20.0)))
    waiter.start()
    began = time.monotonic()
    store.put_report("a", generation=1, sequence=1, body={})
    waiter.join()
    assert found == [1]
    assert time.monotonic() - began < 10


def test_report_of_another_process_is_heard(store: Store, place: Path | str) -> None:
    """Another opener stands for another replica."""
    other = open_store(place)
    other.put_report("a", generation=1, sequence=1, body={"n": 1})
    assert store.wait_reports(0, 10.0) == 1
    assert store.reports()[0].body == {"n": 1}
    other.close()


def test_wanted_log_is_asked_of_its_cell_until_it_is_here(store: Store) -> None:
    """The agent is asked for what comes next, and no more once the log has ended."""
    store.want_log("a", "u", 1, offset=0, ttl_s=60)
    assert store.log_wants("a") == (("u", 1, 0),)
    assert store.log_wants("b") == ()
    store.put_log("u", 1, offset=0, data=b"hello ", ended=False)
    assert store.log_wants("a") == (("u", 1, 6),)
    assert store.read_log("u", 1, offset=0) == (b"hello ", False)
    store.put_log("u", 1, offset=6, data=b"world", ended=True)
    assert store.log_wants("a") == ()
    assert store.read_log("u", 1, offset=0) == (b"hello world", True)
    assert store.read_log("u", 1, offset=11) == (b"", True)
    assert store.read_log("u", 2, offset=0) == (b"", False)


def test_overlapping_log_bytes_are_cut(store: Store) -> None:
    """What an agent sends again after a lost answer changes nothing, whatever the cuts."""
    text = bytes(range(200))
    for start, stop in ((50, 100), (0, 20), (10, 60), (90, 200), (0, 200)):
        store.put_log("u", 1, offset=start, data=text[start:stop], ended=False)
    assert store.read_log("u", 1, offset=0) == (text, False)
    before = store.revision()
    store.put_log("u", 1, offset=5, data=text[5:50], ended=False)
    assert store.revision() == before


def test_gap_in_a_log_is_not_read_over(store: Store) -> None:
    """Bytes behind a gap wait until the gap is filled; the agent is asked for the gap."""
    store.put_log("u", 1, offset=0, data=b"abc", ended=False)
    store.put_log("u", 1, offset=6, data=b"ghi", ended=True)
    store.want_log("a", "u", 1, offset=0, ttl_s=60)
    assert store.read_log("u", 1, offset=0) == (b"abc", False)
    assert store.log_wants("a") == (("u", 1, 3),)
    store.put_log("u", 1, offset=3, data=b"def", ended=False)
    assert store.read_log("u", 1, offset=0) == (b"abcdefghi", True)
    assert store.read_log("u", 1, offset=7) == (b"hi", True)


def test_want_is_news_once(store: Store) -> None:
    """The agent is woken for a new want, not for every poll of the reader."""
    before = store.revision()
    store.want_log("a", "u", 1, offset=0, ttl_s=60)
    assert store.revision() == before + 1
    store.want_log("a", "u", 1, offset=0, ttl_s=60)
    assert store.revision() == before + 1


def test_log_bytes_wake_who_waits_for_a_change(store: Store) -> None:
    """A follower of a log blocks in `wait`."""
    before = store.revision()
    store.put_log("u", 1, offset=0, data=b"x", ended=False)
    assert store.wait(before, 0.0) == before + 1
    store.put_log("u", 1, offset=1, data=b"", ended=True)
    assert store.wait(before + 1, 0.0) == before + 2


def test_want_that_nobody_renews_expires(timed: Store, clock: Clock) -> None:
    """After its time the agent is not asked any more; wanted again, it is news again."""
    timed.want_log("a", "u", 1, offset=0, ttl_s=30)
    clock.time += 20
    timed.want_log("a", "u", 1, offset=0, ttl_s=30)
    clock.time += 20
    assert timed.log_wants("a") == (("u", 1, 0),)
    clock.time += 20
    assert timed.log_wants("a") == ()
    before = timed.revision()
    timed.want_log("a", "u", 1, offset=0, ttl_s=30)
    assert timed.revision() == before + 1


def test_long_log_keeps_its_newest_bytes_and_is_asked_for_no_faster_than_it_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the cap the oldest chunks go; far ahead of its reader, the agent rests until the reader follows."""
    monkeypatch.setattr(agentmail, "MOST_KEPT", 4000)
    monkeypatch.setattr(agentmail, "FAR_AHEAD", 2000)
    monkeypatch.setattr(agentmail, "CHUNK", 500)
    store.want_log("a", "u", 1, offset=0, ttl_s=60)
    for offset in range(0, 2000, 250):
        assert store.log_wants("a") == (("u", 1, offset),)
        store.put_log("u", 1, offset=offset, data=bytes(250), ended=False)
    assert store.log_wants("a") == ()
    before = store.revision()
    store.want_log("a", "u", 1, offset=1000, ttl_s=60)
    assert store.revision() == before + 1
    assert store.log_wants("a") == (("u", 1, 2000),)
    for offset in range(2000, 6000, 250):
        store.put_log("u", 1, offset=offset, data=bytes(250), ended=False)
    assert store.read_log("u", 1, offset=1000) == (b"", False)
    assert len(store.read_log("u", 1, offset=2500)[0]) == 3500


def test_read_of_a_log_is_bounded(store: Store) -> None:
    """At most 1 MiB at a time; it goes on where it stopped."""
    text = bytes(index % 251 for index in range(agentmail.MOST_READ + 1000))
    store.put_log("u", 1, offset=0, data=text, ended=True)
    first, ended = store.read_log("u", 1, offset=0)
    assert (len(first), ended) == (agentmail.MOST_READ, False)
    rest, ended = store.read_log("u", 1, offset=len(first))
    assert (first + rest == text, ended) == (True, True)


def test_old_logs_are_forgotten(timed: Store, clock: Clock) -> None:
    """Compaction takes logs that nobody wrote to since, and their bytes."""
    timed.put_log("old", 1, offset=0, data=b"x", ended=True)
    clock.time += 100
    timed.put_log("new", 1, offset=0, data=b"y", ended=True)
    assert timed.compact(before=clock.time - 50)["logs"] == 1
    assert timed.read_log("old", 1, offset=0) == (b"", False)
    assert timed.read_log("new", 1, offset=0) == (b"y", True)
