"""Records and events, as every store keeps them."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helios.errors import ConflictError, NotFoundError
from helios.spec import AnyDocument, from_json
from helios.store import Change, Event, Record, Store, open_store, seconds, timestamp


def job(name: str = "job", **spec: Any) -> AnyDocument:
    metadata = {"name": name, "labels": spec.pop("labels", {})}
    return from_json(
        {"apiVersion": "helios/v1", "kind": "Job", "metadata": metadata, "spec": {"entrypoint": "true", **spec}}
    )


def test_applied_document_comes_back_after_reopening(store: Store, place: Path | str) -> None:
    """What was acknowledged is there for the next process, to the last field."""
    written = store.apply(job(config={"steps": 3}, labels={"team": "a"})).record
    store.close()
    again = open_store(place)
    assert again.get("Job", "job") == written
    assert (written.state, written.generation, written.spec["config"]) == ("Pending", 1, {"steps": 3})
    again.close()


def test_generation_counts_specs_and_resource_version_counts_writes(store: Store) -> None:
    """A status moves the version only; a spec moves both; the same again moves neither."""
    first = store.apply(job()).record
    second = store.save(first.with_status(state="Queued"))
    assert (second.generation, second.resource_version > first.resource_version) == (1, True)
    third = store.apply(job(priority=1))
    assert (third.change, third.record.generation, third.record.uid) == (Change.CONFIGURED, 2, first.uid)
    assert third.record.status == {"state": "Queued"}
    assert store.apply(job(priority=1)).change is Change.UNCHANGED
    assert store.revision() == third.record.resource_version


def test_stale_writer_is_refused(store: Store) -> None:
    """Two who read the same version: the second to write gets a conflict, and what the first wrote stays."""
    record = store.apply(job()).record
    store.save(record.with_status(state="Queued"))
    with pytest.raises(ConflictError, match="changed meanwhile"):
        store.save(record.with_status(state="Cancelled"))
    with pytest.raises(ConflictError, match="changed meanwhile"):
        store.remove(record)
    assert store.get("Job", "job").state == "Queued"


def test_record_of_a_new_object_with_the_old_name_is_not_written_to(store: Store) -> None:
    """The uid guards against writing the state of a thing that is gone to its successor."""
    old = store.apply(job()).record
    new = store.apply(job(priority=1), replacing=old).record
    assert (new.uid != old.uid, new.generation) == (True, 1)
    with pytest.raises(ConflictError, match="is gone"):
        store.save(old.with_status(state="Queued"))
    with pytest.raises(ConflictError):
        store.apply(job(priority=2), replacing=old)


def test_writers_in_threads_lose_nothing(store: Store) -> None:
    """Eight threads count up one field by compare-and-swap; every acknowledged step is in the sum."""
    store.apply(job())

    def count() -> None:
        for _ in range(10):
            while True:
                record = store.get("Job", "job")
                try:
                    store.save(record.with_status(count=record.status.get("count", 0) + 1))
                    break
                except ConflictError:
                    continue

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("Job", "job").status["count"] == 80


def test_key_that_comes_again_makes_nothing_again(store: Store) -> None:
    """A retried request is answered with what the first one made; other content under the key is a conflict."""
    first = store.apply(job(), idempotency_key="k").record
    moved = store.save(first.with_status(state="Succeeded"))
    again = store.apply(job(), idempotency_key="k")
    assert (again.record, again.change) == (moved, Change.UNCHANGED)
    with pytest.raises(ConflictError, match="other content"):
        store.apply(job(priority=1), idempotency_key="k")
    assert store.get("Job", "job").generation == 1


def test_refused_apply_does_not_use_up_its_key(store: Store) -> None:
    """A key is remembered with the write it stands for, or not at all."""
    record = store.apply(job()).record
    store.request_delete("Job", "job")
    with pytest.raises(ConflictError, match="is being deleted"):
        store.apply(job(priority=1), idempotency_key="k")
    store.remove(store.get("Job", "job"))
    assert store.apply(job(priority=1), idempotency_key="k").record.uid != record.uid


def test_deletion_waits_for_finalizers(store: Store) -> None:
    """With finalizers the record is marked and stays; without, it goes at once; its events stay."""
    store.apply(job())
    marked = store.request_delete("Job", "job")
    assert marked.deleting
    assert store.request_delete("Job", "job") == marked
    store.save(replace(marked, finalizers=()))
    store.remove(store.get("Job", "job"))
    assert store.find("Job", "job") is None
    plain = store.create(Record("Job", "plain"))
    store.request_delete("Job", plain.name)
    assert store.find("Job", "plain") is None
    assert [event.reason for event in store.events(name="job")] == ["Accepted", "DeletionRequested", "Deleted"]


def test_name_that_nothing_has_is_answered_with_the_nearest(store: Store) -> None:
    """`get` of a typo says what was probably meant."""
    store.apply(job("training"))
    with pytest.raises(NotFoundError, match=r"no job is named 'trainign'.*'training'"):
        store.get("Job", "trainign")


def test_records_are_selected_by_labels(store: Store) -> None:
    """Every given label must be there."""
    store.apply(job("a", labels={"team": "x", "tier": "1"}))
    store.apply(job("b", labels={"team": "x"}))
    assert [record.name for record in store.records("Job", labels={"team": "x"})] == ["a", "b"]
    assert [record.name for record in store.records("Job", labels={"team": "x", "tier": "1"})] == ["a"]
    assert store.records("Service") == ()


def test_event_is_written_with_its_change_or_not_at_all(store: Store) -> None:
    """One revision for both; a refused write leaves no event."""
    record = store.apply(job()).record
    event = Event("Job", "job", record.uid, "Queued", "waits")
    saved = store.save(record.with_status(state="Queued"), events=[event])
    with pytest.raises(ConflictError):
        store.save(record.with_status(state="Queued"), events=[event])
    logged = [found for found in store.events(kind="Job") if found.reason == "Queued"]
    assert [found.revision for found in logged] == [saved.resource_version]
    later = store.events(after=logged[0].number)
    assert later == ()


def test_last_events_come_in_the_order_they_were_written(store: Store) -> None:
    """The newest few of one object, oldest of them first."""
    for number in range(5):
        store.add_events([Event("Job", "a", "u", f"R{number}", ""), Event("Job", "b", "u", "Other", "")])
    assert [event.reason for event in store.events(name="a", last=True, limit=2)] == ["R3", "R4"]
    assert [event.reason for event in store.events(name="a", limit=2)] == ["R0", "R1"]


def test_key_of_what_is_gone_makes_no_second_one(store: Store) -> None:
    """A late retry of a creation does not bring a deleted object back."""
    store.remove(store.apply(job(), idempotency_key="k").record)
    with pytest.raises(NotFoundError, match="no job is named 'job'"):
        store.apply(job(), idempotency_key="k")
    assert store.find("Job", "job") is None


def test_numbers_beyond_64_bits_and_odd_text_come_back_as_they_were(store: Store) -> None:
    """A seed of 2**70 is no float, and half a surrogate pair harms nobody."""
    spec = {"seed": 2**70, "low": -(2**63), "text": 'a": \u2028 \ud800', "nested": [{"x": 2**64}], "empty": {}}
    store.create(Record("Job", "a", spec=spec))
    assert store.get("Job", "a").spec == spec


def test_wait_wakes_at_once_and_gives_up_in_time(store: Store) -> None:
    """A write wakes who waits in far less than a poll; silence returns the same revision after the timeout."""
    revision = store.revision()
    assert store.wait(revision, 0.01) == revision
    woken: list[float] = []

    def waiter() -> None:
        store.wait(revision, 10.0)
        woken.append(time.perf_counter())

    delays = []
    for _ in range(3):
        revision = store.revision()
        thread = threading.Thread(target=waiter)
        thread.start()
        store.add_events([Event("Job", "job", "u", "Poke", "")])
        wrote = time.perf_counter()
        thread.join()
        delays.append(woken.pop() - wrote)
    assert min(delays) < 0.2


def test_wait_sees_what_another_process_wrote(store: Store, place: Path | str) -> None:
    """Another opener of the file stands for another process: no notification, yet `wait` returns."""
    other = open_store(place)
    revision = store.revision()
    written = other.apply(job()).record
    assert store.wait(revision, 10.0) == written.resource_version
    other.close()


def test_time_is_text_that_reads_back() -> None:
    """ISO 8601 in UTC, to the millisecond."""
    assert timestamp(1_800_000_000.25) == "2027-01-15T08:00:00.250Z"
    assert seconds(timestamp(1_800_000_000.25)) == 1_800_000_000.25


def test_document_has_the_form_that_the_api_answers_with(store: Store) -> None:
    """Metadata, spec and status as in YAML, with what the control plane adds."""
    document = store.apply(job(labels={"team": "x"})).record.document()
    assert (document["apiVersion"], document["kind"]) == ("helios/v1", "Job")
    assert {"name", "labels", "uid", "generation", "resourceVersion", "creationTimestamp"} <= document[
        "metadata"
    ].keys()
    assert from_json(document).metadata.name == "job"
