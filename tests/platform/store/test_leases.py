"""Leases, fences and the audit log: who may write, and who did."""

import pytest

from helios.errors import ConflictError, FencedError
from helios.spec import from_json
from helios.store import Actor, AuditEntry, Event, Fence, Lease, Record, Store

JOB = {"apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"entrypoint": "true"}}


def test_token_rises_with_every_holder_and_stays_with_renewals(store: Store) -> None:
    """First 1, then one more each time; a renewal counts `renewals` only."""
    assert store.lease("leader") is None
    first = store.take_lease("leader", "a", term_s=5.0, seen=None, address="http://a")
    assert first == Lease("leader", "a", token=1, renewals=0, term_s=5.0, address="http://a")
    renewed = store.renew_lease(first)
    assert (renewed.token, renewed.renewals) == (1, 1)
    second = store.take_lease("leader", "b", term_s=5.0, seen=renewed)
    assert (store.lease("leader"), second.token, second.holder) == (second, 2, "b")


def test_one_of_two_candidates_gets_it(store: Store) -> None:
    """Who saw an older lease than the present one is refused, whether it was taken or renewed."""
    first = store.take_lease("leader", "a", term_s=5.0, seen=None)
    with pytest.raises(ConflictError):
        store.take_lease("leader", "b", term_s=5.0, seen=None)
    store.renew_lease(first)
    with pytest.raises(ConflictError):
        store.take_lease("leader", "b", term_s=5.0, seen=first)


def test_old_holder_can_neither_renew_nor_release_it(store: Store) -> None:
    """After another took it, a renewal is refused and a release does nothing."""
    old = store.take_lease("leader", "a", term_s=5.0, seen=None)
    new = store.take_lease("leader", "b", term_s=5.0, seen=old)
    with pytest.raises(FencedError, match="taken by b"):
        store.renew_lease(old)
    store.release_lease(old)
    assert store.lease("leader") == new


def test_released_lease_is_free_and_its_token_is_spent(store: Store) -> None:
    """It has no holder; the next one gets a higher token."""
    held = store.take_lease("leader", "a", term_s=5.0, seen=None)
    store.release_lease(held)
    free = store.lease("leader")
    assert free is not None
    assert (free.holder, free.token) == ("", 1)
    with pytest.raises(FencedError, match="given up"):
        store.renew_lease(held)
    assert store.take_lease("leader", "b", term_s=5.0, seen=free).token == 2


def test_every_write_of_a_replaced_leader_is_refused_and_writes_nothing(store: Store) -> None:
    """The fence is checked with the write, for every kind of write."""
    old = store.take_lease("leader", "a", term_s=5.0, seen=None)
    fenced = store.acting(fence=Fence("leader", old.token))
    record = fenced.create(Record("Job", "a"))
    store.take_lease("leader", "b", term_s=5.0, seen=old)
    before = store.revision()
    document = from_json(JOB)
    for write in (
        lambda: fenced.apply(document),
        lambda: fenced.create(Record("Job", "b")),
        lambda: fenced.save(record.with_status(state="Queued")),
        lambda: fenced.request_delete("Job", "a"),
        lambda: fenced.remove(record),
        lambda: fenced.add_events([Event("Job", "a", "", "Poke", "")]),
        lambda: fenced.add_audit(AuditEntry("a", "applied", "Job", "a")),
        lambda: fenced.put_report("cell", generation=1, sequence=1, body={}),
    ):
        with pytest.raises(FencedError, match="token 2, not 1"):
            write()
    assert (store.revision(), store.get("Job", "a")) == (before, record)
    assert (store.audit(), store.reports()) == ((), ())


def test_fence_of_a_lease_that_nobody_ever_took_is_refused(store: Store) -> None:
    """No lease, no leader."""
    with pytest.raises(FencedError):
        store.acting(fence=Fence("leader", 1)).create(Record("Job", "a"))


def test_every_write_of_an_actor_is_in_the_audit_log(store: Store) -> None:
    """Who, what, at which revision, from which version; what changed nothing leaves nothing."""
    acting = store.acting(actor=Actor("alice", request="r-1"))
    applied = acting.apply(from_json(JOB)).record
    acting.apply(from_json(JOB))
    saved = acting.save(applied.with_status(state="Queued"))
    acting.request_delete("Job", "a")
    acting.remove(store.get("Job", "a"))
    entries = store.audit(actor="alice")
    assert [(entry.verb, entry.revision) for entry in entries] == [
        ("applied", applied.resource_version),
        ("saved", saved.resource_version),
        ("deleted", saved.resource_version + 1),
        ("removed", store.revision()),
    ]
    assert {(entry.request, entry.kind, entry.name, entry.outcome) for entry in entries} == {
        ("r-1", "Job", "a", "allowed")
    }
    assert entries[1].detail == f"from version {applied.resource_version}"


def test_audit_log_is_read_by_actor_object_and_position(store: Store) -> None:
    """Refusals are noted by who refused; the filters combine."""
    store.add_audit(AuditEntry("bob", "delete", "Job", "a", outcome="denied", detail="needs the role researcher"))
    store.acting(actor=Actor("alice")).create(Record("Job", "a"))
    store.acting(actor=Actor("alice")).create(Record("Job", "b"))
    assert [entry.outcome for entry in store.audit(actor="bob")] == ["denied"]
    assert [entry.actor for entry in store.audit(kind="Job", name="a")] == ["bob", "alice"]
    first = store.audit(limit=1)
    assert [entry.name for entry in store.audit(after=first[0].number)] == ["a", "b"]


def test_refused_write_leaves_no_audit_entry_of_success(store: Store) -> None:
    """The entry is part of the write."""
    acting = store.acting(actor=Actor("alice"))
    record = acting.create(Record("Job", "a"))
    acting.save(record.with_status(state="Queued"))
    with pytest.raises(ConflictError):
        acting.save(record.with_status(state="Failed"))
    assert [entry.verb for entry in store.audit()] == ["created", "saved"]


def test_view_keeps_its_fence_when_it_gets_an_actor(store: Store) -> None:
    """Views of views add up, and share the store."""
    lease = store.take_lease("leader", "a", term_s=5.0, seen=None)
    view = store.acting(fence=Fence("leader", lease.token)).acting(actor=Actor("controller"))
    view.create(Record("Job", "a"))
    assert [entry.actor for entry in store.audit()] == ["controller"]
    store.take_lease("leader", "b", term_s=5.0, seen=lease)
    with pytest.raises(FencedError):
        view.create(Record("Job", "b"))
