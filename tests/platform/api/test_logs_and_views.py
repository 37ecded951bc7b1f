"""Logs through restarts, events, and the status of everything."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from helios.api.fleet import Fleet
from helios.api.logs import LogReader, LogRelay
from helios.errors import UnavailableError
from helios.ports import LogWant
from helios.store import Mirror, Record, open_store


def test_log_goes_on_through_restarts() -> None:
    """The end of one start leads to the next; the end of the last is the end only when the job is over."""
    logs = {1: b"first\n", 2: b"", 3: b"third\n"}
    reader = LogReader(lambda _, epoch, offset: (logs[epoch][offset:], len(logs[epoch])))
    running = Record("Job", "j", uid="u", status={"state": "Running", "epoch": 3})
    one = reader.part(running, epoch=0, offset=0)
    two = reader.part(running, epoch=one.epoch, offset=one.offset)
    three = reader.part(running, epoch=two.epoch, offset=two.offset)
    assert [part.data for part in (one, two, three)] == [b"first\n", b"third\n", b""]
    assert [part.ended for part in (one, two, three)] == [False, False, False]
    over = Record("Job", "j", uid="u", status={"state": "Failed", "epoch": 3})
    assert reader.part(over, epoch=three.epoch, offset=three.offset).ended


def test_job_that_never_started_has_no_log() -> None:
    """Before the first start there is nothing to read, and nothing is asked of a cell."""
    reader = LogReader(lambda *_: (_ for _ in ()).throw(AssertionError("not to be called")))
    queued = reader.part(Record("Job", "j", status={"state": "Queued"}), epoch=0, offset=0)
    assert (queued.data, queued.ended) == (b"", False)
    cancelled = reader.part(Record("Job", "j", status={"state": "Cancelled"}), epoch=0, offset=0)
    assert cancelled.ended


def _relay(house: Any, **changes: Any) -> LogReader:
    return LogReader(None, LogRelay(Fleet(house.store, house.plane.mirror)), **changes)


def test_log_of_another_process_comes_through_the_store(house: Any) -> None:
    """Without a local reader the cell is asked for the bytes, and what its agent pushes is what is read."""
    house.cell.held.add("j")
    house.apply("Job", "j", {"entrypoint": "x"})
    job = house.until("Job", "j", lambda found: found.state == "Running")
    reader = _relay(house)
    first = reader.part(job, epoch=0, offset=0)
    assert (first.data, first.ended, first.pending) == (b"", False, True)
    assert house.plane.gateway.desired("local").logs == (LogWant(job.uid, 1, 0),)
    house.plane.gateway.push_log("local", job.uid, 1, offset=0, data=b"hello\n", ended=False)
    part = reader.part(job, epoch=1, offset=0)
    assert (part.data, part.offset, part.ended) == (b"hello\n", 6, False)
    house.plane.gateway.push_log("local", job.uid, 1, offset=6, data=b"bye\n", ended=True)
    over = replace(job, status={**job.status, "state": "Failed"})
    last = reader.part(over, epoch=1, offset=6)
    assert (last.data, last.offset) == (b"bye\n", 10)
    assert reader.part(over, epoch=1, offset=10).ended


def test_log_on_a_cell_out_of_sight_is_refused_with_the_reason(tmp_path: Path) -> None:
    """A cell that cannot be seen cannot be asked: said at once, where there is nothing to show."""
    store = open_store(tmp_path / "helios.db")
    mirror = Mirror(store)
    store.create(Record("Cell", "far", status={"state": "Unknown", "message": "no report for 40 s"}))
    mirror.sync()
    reader = LogReader(None, LogRelay(Fleet(store, mirror)))
    status = {"state": "Running", "epoch": 1, "placement": {"cell": "far"}}
    job = Record("Job", "j", uid="u", spec={"tenant": "default"}, status=status)
    with pytest.raises(UnavailableError, match="'far', which cannot be seen: no report for 40 s"):
        reader.part(job, epoch=1, offset=0)
    store.put_log("u", 1, offset=0, data=b"kept\n", ended=False)
    assert reader.part(job, epoch=1, offset=0).data == b"kept\n"
    store.close()


def test_only_local_cells_are_read_directly(house: Any) -> None:
    """A reader that is good for some cells is asked for those alone."""
    reader = replace(_relay(house, local_cells=lambda: ["here"]), read=lambda *_: (b"direct", 6))
    job = Record("Job", "j", uid="u", spec={"tenant": "default"}, status={"state": "Running", "epoch": 1})
    here = replace(job, status={**job.status, "placement": {"cell": "here"}})
    there = replace(job, status={**job.status, "placement": {"cell": "local"}})
    assert reader.part(here, epoch=1, offset=0).data == b"direct"
    assert reader.part(there, epoch=1, offset=0).pending


def test_log_waits_for_what_is_printed_next(api: TestClient, house: Any) -> None:
    """A follow request answers when bytes come, not before and not much later."""
    house.cell.held.add("j")
    house.apply("Job", "j", {"entrypoint": "x"})
    job = house.until("Job", "j", lambda found: found.state == "Running")
    key = (job.uid, 1)
    first = api.get("/v1/jobs/j/logs")
    assert first.content == b"j epoch 1\n"
    assert first.headers["content-type"].startswith("text/plain")
    offset = first.headers["Helios-Log-Offset"]
    writer = threading.Timer(0.3, lambda: house.cell.logs.update({key: b"j epoch 1\nmore\n"}))
    writer.start()
    more = api.get("/v1/jobs/j/logs", params={"epoch": 1, "offset": offset, "wait": 20})
    writer.join()
    assert more.content == b"more\n"
    assert more.headers["Helios-Log-Ended"] == "false"


def test_events_tell_a_jobs_life_in_order(api: TestClient, house: Any) -> None:
    """Accepted to Completed, numbered, pageable, and of that one job."""
    house.apply("Job", "j", {"entrypoint": "x"})
    house.until("Job", "j", lambda job: job.state == "Succeeded")
    page = api.get("/v1/events", params={"kind": "Job", "name": "j"}).json()
    reasons = [item["reason"] for item in page["items"]]
    assert reasons[0] == "Accepted"
    assert reasons[-1] == "Completed"
    assert api.get("/v1/events", params={"kind": "Job", "name": "j", "after": page["next"]}).json()["items"] == []


def test_status_counts_objects_and_gives_links(api: TestClient) -> None:
    """One look says what there is and where else to look."""
    status = api.get("/v1/status").json()
    assert status["objects"]["cells"] == {"Ready": 1}
    assert status["links"] == {"mlflow": "http://127.0.0.1:5000"}
    assert status["revision"] > 0


def test_out_of_range_parameters_are_problems(api: TestClient) -> None:
    """Waits and limits beyond their documented range are refused by name."""
    answer = api.get("/v1/events", params={"wait": 3600})
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["field"] == "query.wait"


def test_openapi_document_names_every_kind(api: TestClient) -> None:
    """The OpenAPI 3.1 document is served, behind the token as all else, with problem documents as its errors."""
    document = api.get("/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for plural in ("cells", "tenants", "jobs", "curricula", "services"):
        put = document["paths"][f"/v1/{plural}/{{name}}"]["put"]
        for status in ("401", "403", "409", "413", "415", "422", "429"):
            assert set(put["responses"][status]["content"]) == {"application/problem+json"}
