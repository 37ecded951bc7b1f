"""The feed of changes: what followers of the records rely on."""

import time
from dataclasses import replace

import pytest

from helios.errors import CompactedError, ConflictError
from helios.spec import from_json
from helios.store import Event, Gone, Record, Store

JOB = {"apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"entrypoint": "true"}}


def test_feed_has_the_newest_version_of_each_and_what_is_gone_in_order(store: Store) -> None:
    """A record that changed twice comes once, at its last revision; a deleted one comes as gone."""
    a = store.create(Record("Job", "a"))
    b = store.create(Record("Job", "b"))
    a = store.save(a.with_status(state="Queued"))
    store.remove(b)
    changes = store.changes(0)
    assert changes.items == (a, Gone("Job", "b", b.uid, store.revision()))
    assert changes.revision == store.revision()
    assert store.changes(a.resource_version).items == changes.items[1:]
    assert store.changes(changes.revision).items == ()


def test_pages_of_the_feed_join_without_loss(store: Store) -> None:
    """However small the pages, following them to the end shows everything once, by revision."""
    for number in range(7):
        record = store.create(Record("Job", f"job-{number}"))
        if number % 2:
            store.remove(record)
    whole = store.changes(0)
    pages: list[Record | Gone] = []
    after = 0
    while True:
        page = store.changes(after, limit=2)
        pages += page.items
        after = page.revision
        if not page.items:
            break
    assert tuple(pages) == whole.items
    assert after == store.revision()


def test_replaced_object_is_gone_before_its_successor_comes(store: Store) -> None:
    """Who indexes by uid hears that the old uid is gone."""
    old = store.apply(from_json(JOB)).record
    new = store.apply(from_json(JOB), replacing=old).record
    items = store.changes(old.resource_version).items
    assert items == (Gone("Job", "a", old.uid, new.resource_version - 1), new)


def test_events_move_the_revision_and_change_no_record(store: Store) -> None:
    """A follower that sees a new revision with nothing in it goes on from there."""
    store.add_events([Event("Job", "a", "u", "Poke", "")])
    assert store.changes(0).items == ()
    assert store.changes(0).revision == 1


def test_compaction_is_said_to_who_is_behind_it_and_harms_no_other(store: Store) -> None:
    """Old tombstones go; who asks for that time must read anew, from 0, and gets everything whatever the limit."""
    kept = [store.create(Record("Job", f"kept-{number}")) for number in range(3)]
    gone = store.create(Record("Job", "gone"))
    store.remove(gone)
    removed_at = store.revision()
    newer = store.create(Record("Job", "newer"))
    counts = store.compact(before=time.time() + 60)
    assert counts["tombstones"] == 1
    with pytest.raises(CompactedError, match="are not known"):
        store.changes(kept[0].resource_version)
    assert store.changes(0, limit=1).items == (*kept, newer)
    assert store.changes(removed_at).items == (newer,)
    assert store.compact(before=time.time() + 60)["tombstones"] == 0


def test_young_tombstones_and_keys_stay(store: Store) -> None:
    """Compaction forgets what is older than it was told, and nothing younger."""
    applied = store.apply(from_json(JOB), idempotency_key="k").record
    store.remove(applied)
    before = time.time() - 60
    assert store.compact(before=before) == {"tombstones": 0, "idempotency_keys": 0, "logs": 0}
    assert len(store.changes(applied.resource_version).items) == 1
    assert store.compact(before=time.time() + 60)["idempotency_keys"] == 1
    assert store.apply(from_json(JOB), idempotency_key="k").record.uid != applied.uid


def test_revision_that_the_store_never_had_is_refused(store: Store) -> None:
    """A follower of another store (one that was restored from a backup) is told to read anew."""
    with pytest.raises(CompactedError):
        store.changes(store.revision() + 1)


def test_replacing_what_is_gone_is_refused(store: Store) -> None:
    """`replacing` stands for a version that must be the present one."""
    old = store.apply(from_json(JOB)).record
    store.remove(old)
    with pytest.raises(ConflictError, match="is gone"):
        store.apply(from_json(JOB), replacing=replace(old))
