"""Allocations: written with the record they belong to, read by the time they were held."""

from dataclasses import replace

import pytest

from helios.errors import ConflictError
from helios.store import Allocation, Record, Store, accounting


def held(uid: str, *, opened_at: float, closed_at: float | None = None, epoch: int = 1) -> Allocation:
    return Allocation(
        uid=uid,
        epoch=epoch,
        kind="Job",
        name=uid,
        tenant="t",
        cell="c",
        qos="standard",
        accelerator="H100",
        gpus=8,
        millicpus=64_000,
        opened_at=opened_at,
        bucket="starting",
        since=opened_at,
        closed_at=closed_at,
        seconds={"starting": 0.5},
    )


def test_allocation_is_written_with_its_record_or_not_at_all(store: Store) -> None:
    """One step: a refused save leaves no allocation; a later save moves it on."""
    record = store.create(Record("Job", "a"), allocations=[held("a", opened_at=10.0)])
    assert list(store.allocations()) == [held("a", opened_at=10.0)]
    moved = replace(held("a", opened_at=10.0), bucket="productive", since=12.0, seconds={"starting": 2.0})
    store.save(record.with_status(state="Running"), allocations=[moved])
    with pytest.raises(ConflictError):
        store.save(record, allocations=[held("a", opened_at=10.0, epoch=2)])
    assert list(store.allocations()) == [moved]


def test_allocation_alone_is_a_write(store: Store) -> None:
    """An unchanged record with an allocation to write is written."""
    record = store.create(Record("Job", "a"))
    saved = store.save(record, allocations=[held(record.uid, opened_at=1.0)])
    assert saved.resource_version == record.resource_version + 1
    assert [one.uid for one in store.allocations()] == [record.uid]


def test_allocations_are_selected_by_when_they_were_held(store: Store) -> None:
    """Held at any time in [since, until), by opening time; or held now."""
    store.create(
        Record("Job", "a"),
        allocations=[
            held("late", opened_at=30.0),
            held("early", opened_at=0.0, closed_at=10.0),
            held("middle", opened_at=5.0, closed_at=20.0),
        ],
    )

    def uids(**window: float | bool) -> list[str]:
        return [one.uid for one in store.allocations(**window)]  # type: ignore[arg-type]

    assert uids() == ["early", "middle", "late"]
    assert uids(since=15.0) == ["middle", "late"]
    assert uids(until=5.0) == ["early"]
    assert uids(since=12.0, until=30.0) == ["middle"]
    assert uids(open_only=True) == ["late"]


def test_many_allocations_come_in_pages_without_loss(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages join, also where many were opened at the same moment."""
    monkeypatch.setattr(accounting, "PAGE", 3)
    made = [held(f"u-{number:02}", opened_at=float(number // 4)) for number in range(11)]
    store.create(Record("Job", "a"), allocations=made)
    assert list(store.allocations()) == made
