"""Whatever is asked of a store, in whatever order, it answers as a few dictionaries would: on both databases."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from helios.errors import ConflictError, NotFoundError
from helios.store import Event, Gone, Mirror, Record, Store, open_store

NAMES = st.sampled_from(["a", "b", "c"])
KINDS = st.sampled_from(["Job", "Service"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=3)


@dataclass
class Model:
    """What a store is, without a database."""

    revision: int = 0
    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    feed: list[Record | Gone] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)

    def put(self, record: Record) -> None:
        self.revision += 1
        assert record.resource_version == self.revision
        self._forget(record.kind, record.name)
        self.records[record.kind, record.name] = record
        self.feed.append(record)

    def take(self, record: Record) -> None:
        self.revision += 1
        self._forget(record.kind, record.name)
        del self.records[record.kind, record.name]
        self.feed.append(Gone(record.kind, record.name, record.uid, self.revision))

    def current(self, record: Record) -> bool:
        return self.records.get((record.kind, record.name)) == record

    def _forget(self, kind: str, name: str) -> None:
        self.feed = [one for one in self.feed if isinstance(one, Gone) or (one.kind, one.name) != (kind, name)]


class StoreMachine(RuleBasedStateMachine):
    """Compare-and-swap, deletion, order and the feed, step by step against the model."""

    make: Callable[[], Store]
    seen: Bundle[Record] = Bundle("seen")

    @initialize()
    def begin(self) -> None:
        self.store = type(self).make()
        self.model = Model()
        self.mirror = Mirror(self.store)

    @rule(target=seen, kind=KINDS, name=NAMES, spec=OBJECTS, finalizers=st.sampled_from([(), ("f",)]))
    def create(self, kind: str, name: str, spec: dict[str, Any], finalizers: tuple[str, ...]) -> Any:
        record = Record(kind, name, spec=spec, finalizers=finalizers)
        if (kind, name) in self.model.records:
            with pytest.raises(ConflictError):
                self.store.create(record)
            return multiple()
        made = self.store.create(record)
        assert replace(record, uid=made.uid, resource_version=made.resource_version, created_at=made.created_at) == made
        self.model.put(made)
        self.model.events.append((self.model.revision, "Accepted"))
        return made

    @rule(target=seen, record=seen, status=OBJECTS, spec=st.none() | OBJECTS, with_event=st.booleans())
    def save(self, record: Record, status: dict[str, Any], spec: dict[str, Any] | None, *, with_event: bool) -> Any:
        wanted = replace(record, status=status, spec=record.spec if spec is None else spec)
        events = [Event(record.kind, record.name, record.uid, "Saved", "")] if with_event else []
        if not self.model.current(record):
            with pytest.raises(ConflictError):
                self.store.save(wanted, events=events)
            return multiple()
        saved = self.store.save(wanted, events=events)
        if wanted == record and not events:
            assert saved == record
            return multiple()
        assert saved.generation == record.generation + (wanted.spec != record.spec)
        assert (saved.spec, saved.status, saved.uid) == (wanted.spec, wanted.status, record.uid)
        self.model.put(saved)
        self.model.events += [(self.model.revision, "Saved")] * with_event
        return saved

    @rule(target=seen, kind=KINDS, name=NAMES)
    def request_delete(self, kind: str, name: str) -> Any:
        record = self.model.records.get((kind, name))
        if record is None:
            with pytest.raises(NotFoundError):
                self.store.request_delete(kind, name)
            return multiple()
        marked = self.store.request_delete(kind, name)
        assert marked.deleting
        if record.deleting:
            assert marked == record
        elif record.finalizers:
            self.model.put(marked)
            self.model.events.append((self.model.revision, "DeletionRequested"))
            return marked
        else:
            self.model.take(record)
            self.model.events.append((self.model.revision, "Deleted"))
        return multiple()

    @rule(record=consumes(seen))
    def remove(self, record: Record) -> None:
        if not self.model.current(record):
            with pytest.raises(ConflictError):
                self.store.remove(record)
            return
        self.store.remove(record)
        self.model.take(record)
        self.model.events.append((self.model.revision, "Deleted"))

    @rule()
    def add_event(self) -> None:
        self.store.add_events([Event("Job", "a", "", "Poke", "")])
        self.model.revision += 1
        self.model.events.append((self.model.revision, "Poke"))

    @rule(share=st.floats(0, 1), limit=st.integers(1, 5))
    def follow(self, share: float, limit: int) -> None:
        after = int(share * self.model.revision)
        expected = [one for one in self.model.feed if _revision(one) > after]
        changes = self.store.changes(after, limit=limit)
        assert list(changes.items) == expected[:limit]
        assert changes.revision == (_revision(expected[limit - 1]) if len(expected) > limit else self.model.revision)

    @rule()
    def look_into_the_mirror(self) -> None:
        assert self.mirror.sync() == self.model.revision
        for kind in ("Job", "Service"):
            assert self.mirror.records(kind) == self.store.records(kind)

    @invariant()
    def store_is_as_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.revision() == self.model.revision
        for kind in ("Job", "Service"):
            expected = [record for key, record in sorted(self.model.records.items()) if key[0] == kind]
            assert list(self.store.records(kind)) == expected
        assert [(event.revision, event.reason) for event in self.store.events()] == self.model.events

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def _revision(item: Record | Gone) -> int:
    return item.resource_version if isinstance(item, Record) else item.revision


@pytest.fixture
def make(request: pytest.FixtureRequest, kind: str) -> Iterator[Callable[[], Store]]:
    """Makes an empty store, as many as are asked for."""
    if kind == "postgres":
        factory = request.getfixturevalue("postgres_url_factory")
        yield lambda: open_store(factory())
        return
    with tempfile.TemporaryDirectory() as folder:
        count = iter(range(1_000_000))
        yield lambda: open_store(Path(folder) / f"{next(count)}.db")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_store_answers_as_the_model(make: Callable[[], Store], kind: str) -> None:
    """Any sequence of creations, saves, deletions and readings, with stale versions among them."""
    machine = type("Machine", (StoreMachine,), {"make": staticmethod(make)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20 if kind == "sqlite" else 8,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
