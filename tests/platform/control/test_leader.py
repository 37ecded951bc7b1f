"""One leader at a time, on both databases; one that was paused changes nothing when it wakes up."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helios.control import ControlPlane, apply
from helios.control.leader import Elector
from helios.errors import FencedError, UnavailableError
from helios.spec import from_json
from helios.store import Fence, Lease, Store, open_store

TERM_S = 0.4
DEADLINE_S = 20.0


def job(name: str) -> Any:
    return from_json({
        "apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"entrypoint": "true"},
    })  # fmt: skip


@pytest.fixture(params=["sqlite", "postgres"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the same database again and again, as replicas do."""
    where = tmp_path / "helios.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    stores: list[Store] = []

    def build() -> Store:
        stores.append(open_store(where))
        return stores[-1]

    yield build
    for store in stores:
        store.close()


@dataclass
class Replica:
    """A candidate in a thread, which notes when it leads."""

    store: Store
    name: str
    stop: threading.Event = field(default_factory=threading.Event)
    elected: threading.Event = field(default_factory=threading.Event)
    leases: list[Lease] = field(default_factory=list)
    thread: threading.Thread | None = None

    def begin(self) -> "Replica":
        elector = Elector(self.store, "control", self.name, term_s=TERM_S)

        def lead(lease: Lease, lost: threading.Event) -> None:
            self.leases.append(lease)
            self.elected.set()
            lost.wait()
            self.elected.clear()

        self.thread = threading.Thread(target=elector.run, args=(self.stop, lead))
        self.thread.start()
        return self

    def end(self) -> None:
        self.stop.set()
        assert self.thread is not None
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


def test_one_of_two_leads_and_the_other_takes_over_at_once_when_it_leaves(make_store: Callable[[], Store]) -> None:
    """A leader that ends gives its lease up: the next one need not wait for the term, and has a higher token."""
    first = Replica(make_store(), "a").begin()
    assert first.elected.wait(DEADLINE_S)
    second = Replica(make_store(), "b").begin()
    try:
        assert not second.elected.wait(TERM_S * 2), "two lead at once"
        first.end()
        assert second.elected.wait(DEADLINE_S)
        assert second.leases[0].token == first.leases[0].token + 1
    finally:
        second.end()


def test_leader_that_stands_still_is_replaced_and_its_writes_are_refused(make_store: Callable[[], Store]) -> None:
    """Past its term the lease is anybody's; what the old leader writes with its token changes nothing."""
    store = make_store()
    old = Elector(store, "control", "a", term_s=TERM_S).try_take()  # and never renews: it was paused here
    assert old is not None
    store.apply(job("train"))
    paused = store.acting(fence=Fence(old.name, old.token))
    record = paused.get("Job", "train")
    second = Replica(make_store(), "b").begin()
    try:
        assert second.elected.wait(DEADLINE_S)
        with pytest.raises(FencedError):
            paused.save(record.with_status(state="Failed"))
        with pytest.raises(FencedError):
            store.renew_lease(old)
        assert store.get("Job", "train").status["state"] == "Pending"
    finally:
        second.end()


def test_leader_that_is_started_again_need_not_wait(make_store: Callable[[], Store]) -> None:
    """A process that takes the place of one of the same name takes its lease at once; another name waits."""
    store = make_store()
    killed = Elector(store, "control", "a", term_s=DEADLINE_S).try_take()
    assert killed is not None
    assert Elector(store, "control", "b", term_s=DEADLINE_S).try_take() is None
    again = Elector(store, "control", "a", term_s=DEADLINE_S).try_take()
    assert again is not None
    assert again.token == killed.token + 1


def test_leader_that_cannot_reach_its_store_leads_no_more(make_store: Callable[[], Store]) -> None:
    """When renewals fail for a whole term it stops by itself, whatever it can or cannot see."""

    class Cut:
        def __init__(self, store: Store) -> None:
            self._store = store
            self.cut = False

        def __getattr__(self, name: str) -> Any:
            if self.cut and name == "renew_lease":
                raise UnavailableError("the database does not answer")
            return getattr(self._store, name)

    cut = Cut(make_store())
    replica = Replica(cut, "a").begin()
    try:
        assert replica.elected.wait(DEADLINE_S)
        cut.cut = True
        deadline = time.monotonic() + DEADLINE_S
        while replica.elected.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not replica.elected.is_set() or len(replica.leases) > 1
    finally:
        replica.end()


def test_second_replica_goes_on_where_the_first_one_died(make_store: Callable[[], Store]) -> None:
    """Two control planes on one database: jobs are admitted by whichever leads, each once."""
    stores = [make_store(), make_store()]
    planes = [ControlPlane(store) for store in stores]
    stops = [threading.Event(), threading.Event()]
    threads = [
        threading.Thread(target=plane.campaign, args=(stop,), kwargs={"holder": name, "term_s": TERM_S})
        for plane, stop, name in zip(planes, stops, "ab", strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        apply(stores[0], job("first"))
        _until(stores[0], "first", "NoCell")
        leader = planes[0].leader()
        assert leader is not None
        first = "ab".index(leader["holder"])
        stops[first].set()
        threads[first].join(DEADLINE_S)
        apply(stores[first], job("second"))
        _until(stores[first], "second", "NoCell")
        after = planes[first].leader()
        assert after is not None
        assert (after["holder"], after["token"]) == ("ba"[first], leader["token"] + 1)
    finally:
        for stop in stops:
            stop.set()
        for thread in threads:
            thread.join(DEADLINE_S)
    reasons = [event.reason for event in stores[0].events(kind="Job", name="first")]
    assert reasons.count("NoCell") == 1


def _until(store: Store, name: str, reason: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while store.get("Job", name).status.get("reason") != reason:
        revision = store.revision()
        assert time.monotonic() < deadline, store.get("Job", name)
        store.wait(revision, 0.2)
