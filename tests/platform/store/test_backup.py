"""Backup and restore: the same file for either database, whole or refused."""

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from helios.errors import ConflictError, InputError, NoSpaceError
from helios.spec import from_json
from helios.store import Actor, Allocation, AuditEntry, Event, Fence, Record, Store, backup, open_store
from helios.store.opening import database_at

JOB = {"apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"entrypoint": "true"}}
HELD = Allocation("u", 1, "Job", "a", "t", "c", "standard", "H100", 8, 100, 1.0, "starting", 1.0, None, {"queue": 0.25})


@pytest.fixture
def full(store: Store) -> Store:
    """A store with a row in every table, and what JSON finds hard."""
    lease = store.take_lease("leader", "a", term_s=5.0, seen=None)
    acting = store.acting(fence=Fence("leader", lease.token), actor=Actor("alice"))
    job = acting.apply(from_json(JOB), idempotency_key="k").record
    hard = {"big": 2**70, "text": 'ü\u2028 ": \ud800', "nested": {"$base64": "eA=="}, "float": 1e300, "none": None}
    acting.save(job.with_status(state="Queued", hard=hard), events=[Event("Job", "a", job.uid, "Queued", "waits")])
    acting.create(Record("Job", "b"), allocations=[HELD])
    store.remove(store.create(Record("Job", "gone")))
    store.put_report("cell", generation=3, sequence=7, body={"nodes": []})
    store.put_log("u", 1, offset=0, data=bytes(range(256)), ended=True)
    return store


def content(store: Store) -> dict[str, Any]:
    """Everything that readers can see."""
    return {
        "revision": store.revision(),
        "records": store.records("Job"),
        "changes": store.changes(0),
        "events": store.events(),
        "audit": store.audit(),
        "reports": store.reports(),
        "log": store.read_log("u", 1, offset=0),
        "allocations": tuple(store.allocations()),
    }


def test_backup_goes_through_both_databases_and_back_unchanged(
    tmp_path: Path, full: Store, postgres_url_factory: Callable[..., str]
) -> None:
    """What comes out of the other database is what went in, to the last field, and writing goes on from there."""
    expected = content(full)
    source = full
    places: list[Path | str] = [postgres_url_factory(), tmp_path / "again.db", postgres_url_factory()]
    for step, place in enumerate(places):
        file = tmp_path / f"backup-{step}"
        source.backup(file)
        if source is not full:
            source.close()
        source = open_store(place)
        source.restore(file)
        assert content(source) == expected
    written = source.create(Record("Job", "next"))
    assert written.resource_version == expected["revision"] + 1
    assert source.events(last=True, limit=1)[0].number > expected["events"][-1].number
    assert source.apply(from_json(JOB), idempotency_key="k").record == source.get("Job", "a")
    source.close()


def test_lease_comes_back_without_holder_and_its_tokens_go_on(tmp_path: Path, full: Store) -> None:
    """No leader of the old store can write to the restored one."""
    full.backup(tmp_path / "backup")
    restored = open_store(tmp_path / "restored.db")
    restored.restore(tmp_path / "backup")
    free = restored.lease("leader")
    assert free is not None
    assert (free.holder, free.token) == ("", 1)
    assert restored.take_lease("leader", "b", term_s=5.0, seen=free).token == 2
    restored.close()


def test_store_that_is_not_empty_is_not_restored_into(tmp_path: Path, full: Store) -> None:
    """Nothing is mixed, nothing is overwritten."""
    full.backup(tmp_path / "backup")
    before = content(full)
    with pytest.raises(ConflictError, match="is not empty"):
        full.restore(tmp_path / "backup")
    assert content(full) == before


def test_store_with_no_more_than_a_report_is_not_empty(tmp_path: Path, store: Store) -> None:
    """A server that agents have found already holds something that a restore would mix with."""
    store.backup(tmp_path / "backup")
    store.put_report("cell", generation=1, sequence=1, body={})
    with pytest.raises(ConflictError, match="is not empty"):
        store.restore(tmp_path / "backup")


def test_existing_file_is_not_overwritten(tmp_path: Path, full: Store) -> None:
    """A backup never takes the place of another."""
    (tmp_path / "backup").write_text("mine")
    with pytest.raises(ConflictError, match="exists"):
        full.backup(tmp_path / "backup")
    assert (tmp_path / "backup").read_text() == "mine"


def test_backup_is_of_one_moment(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written while the backup is being taken is not in it, in no table."""
    store.create(Record("Job", "before"))
    dump = backup._dump

    def slow(connection: sa.Connection, *rest: Any, **named: Any) -> None:
        connection.execute(sa.text("SELECT count(*) FROM records"))
        store.create(Record("Job", "during"))
        dump(connection, *rest, **named)

    monkeypatch.setattr(backup, "_dump", slow)
    store.backup(tmp_path / "backup")
    restored = open_store(tmp_path / "restored.db")
    restored.restore(tmp_path / "backup")
    assert [record.name for record in restored.records("Job")] == ["before"]
    assert (restored.revision(), len(restored.events())) == (1, 1)
    restored.close()


@pytest.mark.parametrize("damage", ["cut", "flipped", "unfinished", "foreign", "text"])
def test_file_that_is_no_whole_backup_is_refused(tmp_path: Path, damage: str) -> None:
    """Every kind of damage is found before anything is written."""
    source = open_store(tmp_path / "source.db")
    for number in range(50):
        source.create(Record("Job", f"job-{number}"))
    source.backup(tmp_path / "good")
    source.close()
    packed = (tmp_path / "good").read_bytes()
    lines = gzip.decompress(packed).splitlines(keepends=True)
    damaged = {
        "cut": packed[: len(packed) // 2],
        "flipped": gzip.compress(b"".join(lines).replace(b"job-7", b"job-8", 1)),
        "unfinished": gzip.compress(b"".join(lines[:-1])),
        "foreign": gzip.compress(b'{"format": "other"}\n'),
        "text": b"no backup at all",
    }
    (tmp_path / "bad").write_bytes(damaged[damage])
    store = open_store(tmp_path / "target.db")
    with pytest.raises(InputError, match=r"no backup of HELIOS|damaged"):
        store.restore(tmp_path / "bad")
    assert (store.revision(), store.records("Job")) == (0, ())
    store.restore(tmp_path / "good")
    assert len(store.records("Job")) == 50
    store.close()


def test_backup_of_a_later_release_is_refused_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the version that can restore it."""
    store = open_store(tmp_path / "store.db")
    with monkeypatch.context() as later:
        later.setattr("helios.store.schema.HEAD", 99)
        store.backup(tmp_path / "later")
    with pytest.raises(InputError, match="schema 99"):
        store.restore(tmp_path / "later")
    store.close()


def test_missing_backup_is_said_to_be_missing(tmp_path: Path) -> None:
    """A wrong path is the caller's error."""
    store = open_store(tmp_path / "store.db")
    with pytest.raises(InputError, match="No such file"):
        store.restore(tmp_path / "nowhere")
    with pytest.raises(InputError, match="No such file"):
        store.backup(tmp_path / "no" / "folder")
    store.close()


def test_full_disk_leaves_no_half_backup(tmp_path: Path, full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`NoSpaceError`, and neither the file nor a temporary one is left."""

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NoSpaceError, match="the disk is full"):
        full.backup(tmp_path / "folder" / "backup")
    assert list((tmp_path / "folder").iterdir()) == []


def test_every_table_is_in_a_backup_or_named_as_left_out(tmp_path: Path) -> None:
    """A table added later is backed up without anybody thinking of it."""
    database = database_at(tmp_path / "store.db")
    open_store(tmp_path / "store.db").close()
    with database.reader.connect() as connection:
        there = set(sa.inspect(connection).get_table_names())
    database.close()
    assert there - {table.name for table in backup.TABLES} == {"log_wants", "alembic_version"}


def test_denied_and_allowed_stay_apart(tmp_path: Path) -> None:
    """The audit log comes back in its order."""
    store = open_store(tmp_path / "store.db")
    store.add_audit(AuditEntry("bob", "delete", "Job", "a", outcome="denied"))
    store.acting(actor=Actor("alice")).create(Record("Job", "a"))
    store.backup(tmp_path / "backup")
    restored = open_store(tmp_path / "restored.db")
    restored.restore(tmp_path / "backup")
    assert restored.audit() == store.audit()
    store.close()
    restored.close()
