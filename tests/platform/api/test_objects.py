"""Objects over HTTP: applied, listed, watched, explained, deleted; and what is wrong with a document said in full."""

import json
import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

JOB = {"entrypoint": "python train.py"}


def document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def put(api: TestClient, name: str, spec: dict[str, Any], **metadata: Any) -> Any:
    return api.put(f"/v1/jobs/{name}", json=document("Job", name, spec, **metadata))


def test_apply_creates_then_is_unchanged(api: TestClient, house: Any) -> None:
    """PUT creates with 201; the same again is 200 and unchanged; and get gives it back."""
    house.cell.held.add("j")
    first, second = put(api, "j", JOB), put(api, "j", JOB)
    assert (first.status_code, first.headers["Helios-Result"]) == (201, "created")
    assert (second.status_code, second.headers["Helios-Result"]) == (200, "unchanged")
    assert first.json()["metadata"]["uid"] == second.json()["metadata"]["uid"]
    assert api.get("/v1/jobs/j").json()["spec"]["entrypoint"] == "python train.py"


def test_changing_a_running_job_is_a_conflict(api: TestClient, house: Any) -> None:
    """A running job keeps its spec; the answer says what to do."""
    house.cell.held.add("j")
    put(api, "j", JOB)
    answer = put(api, "j", {"entrypoint": "python other.py"})
    assert (answer.status_code, answer.json()["code"]) == (409, "Conflict")
    assert "cancel" in answer.json()["hint"]


def test_idempotency_key_answers_again_and_refuses_other_content(api: TestClient, house: Any) -> None:
    """One key, one content: the same request again writes nothing, another with the key is a conflict."""
    house.cell.held.add("j")
    headers = {"Idempotency-Key": "k1"}
    first = api.put("/v1/jobs/j", json=document("Job", "j", JOB), headers=headers)
    again = api.put("/v1/jobs/j", json=document("Job", "j", JOB), headers=headers)
    other = api.put("/v1/jobs/other", json=document("Job", "other", JOB), headers=headers)
    assert [first.status_code, again.status_code, other.status_code] == [201, 200, 409]


def test_every_problem_of_a_document_is_told(api: TestClient) -> None:
    """422 names each wrong field, with the nearest valid name."""
    answer = put(api, "j", {"entrypoint": "x", "worker": 2, "priority": "high"})
    body = answer.json()
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["code"], body["status"], body["type"]) == ("Spec", 422, "urn:helios:error:Spec")
    problems = {item["field"]: item for item in body["problems"]}
    assert set(problems) == {"spec.worker", "spec.priority"}
    assert problems["spec.worker"]["nearest"] == "workers"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/jobs/other", document("Job", "j", JOB), 422),
        ("/v1/cells/j", document("Job", "j", JOB), 422),
        ("/v1/jobs/j", [], 422),
        ("/v1/jobs/j", {}, 422),
        ("/v1/jobs/j", document("Job", "j", {**JOB, "tenant": "nobody"}), 404),
        ("/v1/jobs/j", document("Job", "j", {**JOB, "placement": {"cells": ["locl"]}}), 422),
        ("/v1/nonsense/j", document("Job", "j", JOB), 404),
    ],
)
def test_wrong_documents_are_refused_and_leave_nothing(api: TestClient, path: str, body: Any, status: int) -> None:
    """Whatever is wrong is a problem document of the right status, and no object appears."""
    answer = api.put(path, json=body)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert answer.json()["detail"]
    assert api.get("/v1/jobs").json()["items"] == []


def test_body_that_is_not_json_is_refused(api: TestClient) -> None:
    """YAML, or half a JSON document, is a 422 and not a defect."""
    answer = api.put("/v1/jobs/j", content=b"kind: Job", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "Spec")


@pytest.mark.parametrize(
    ("config", "status"),
    [
        (r'{"a": "\ud800"}', 422),
        (r'{"\ud800": 1}', 422),
        ('{"a": NaN}', 422),
        ('{"a": 1e999}', 422),
        ('{"a": 1' + "0" * 5000 + "}", 422),
        ('{"a":' * 900 + "1" + "}" * 900, 422),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, 422),
    ],
)
def test_json_that_could_not_be_given_back_is_not_taken(api: TestClient, config: str, status: int) -> None:
    """Half surrogates, not-numbers and bottomless nesting are refused, and cannot break the list for everybody."""
    whole = json.dumps(document("Job", "j", {"entrypoint": "x", "config": "CONFIG"}))
    body = whole.replace('"CONFIG"', config)
    answer = api.put("/v1/jobs/j", content=body.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert api.get("/v1/jobs").json()["items"] == []


def test_body_that_is_text_with_half_a_surrogate_is_refused(api: TestClient) -> None:
    """The refusal can be printed, although what it is of cannot."""
    answer = api.put("/v1/jobs/j", content=rb'"\ud800"', headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert (answer.json()["problems"][0]["line"], answer.json()["problems"][0]["file"]) == (1, "<body>")


def test_missing_object_names_the_nearest(api: TestClient, house: Any) -> None:
    """404 carries the kind, the name and the name that was probably meant."""
    house.cell.held.add("training")
    put(api, "training", JOB)
    body = api.get("/v1/jobs/trainin").json()
    assert (body["status"], body["code"], body["nearest"]) == (404, "NotFound", "training")


def test_list_selects_by_label_and_pages(api: TestClient, house: Any) -> None:
    """All pages together are the list; a selector takes what carries every label."""
    for index in range(5):
        house.cell.held.add(f"j{index}")
        put(api, f"j{index}", JOB, labels={"parity": "odd" if index % 2 else "even", "team": "a"})
    first = api.get("/v1/jobs", params={"limit": 2}).json()
    second = api.get("/v1/jobs", params={"limit": 2, "after": first["next"]}).json()
    third = api.get("/v1/jobs", params={"limit": 2, "after": second["next"]}).json()
    names = [item["metadata"]["name"] for page in (first, second, third) for item in page["items"]]
    assert names == [f"j{index}" for index in range(5)]
    assert third["next"] is None
    odd = api.get("/v1/jobs", params={"labelSelector": "parity=odd,team=a"}).json()["items"]
    assert [item["metadata"]["name"] for item in odd] == ["j1", "j3"]
    assert api.get("/v1/jobs", params={"labelSelector": "parity"}).status_code == 400


def test_watch_waits_for_a_change_and_gives_only_that(api: TestClient, house: Any) -> None:
    """A watch answers as soon as something of its kind changes, and else after its wait."""
    before = api.get("/v1/tenants").json()
    assert api.get("/v1/tenants", params={"watch": before["revision"], "wait": 0}).json()["items"] == []
    writer = threading.Timer(0.2, lambda: house.apply("Tenant", "late", {}))
    writer.start()
    after = api.get("/v1/tenants", params={"watch": before["revision"], "wait": 20}).json()
    writer.join()
    assert [item["metadata"]["name"] for item in after["items"]] == ["late"]
    assert after["revision"] > before["revision"]


def test_waiting_job_is_explained(api: TestClient, house: Any) -> None:
    """A GPU job on a CPU cell: the cell's verdict, what would unblock it, and the events so far."""
    put(api, "gpu", {**JOB, "resources": {"accelerators": "H100:8"}})
    house.until("Job", "gpu", lambda job: job.state == "Queued")
    why = api.get("/v1/jobs/gpu/explain").json()
    assert [verdict["cell"] for verdict in why["cells"]] == ["local"]
    assert why["unblock"]
    assert why["events"][0]["reason"] == "Accepted"


def test_cancel_stops_a_running_job(api: TestClient, house: Any) -> None:
    """POST cancel answers at once; the job ends as Cancelled."""
    house.cell.held.add("j")
    put(api, "j", JOB)
    house.until("Job", "j", lambda job: job.state == "Running")
    assert api.post("/v1/jobs/j/cancel").status_code == 202
    house.until("Job", "j", lambda job: job.state == "Cancelled")


def test_rerun_of_a_failed_job_and_refusal_of_a_succeeded_one(api: TestClient, house: Any) -> None:
    """What failed runs again when asked to; what succeeded does not."""
    house.cell.failing["j"] = ("InvalidConfig", "no such preset")
    put(api, "j", JOB)
    house.until("Job", "j", lambda job: job.state == "Failed")
    del house.cell.failing["j"]
    assert api.post("/v1/jobs/j/rerun").status_code == 202
    house.until("Job", "j", lambda job: job.state == "Succeeded")
    assert api.post("/v1/jobs/j/rerun").status_code == 409


def test_delete_takes_the_object_away(api: TestClient, house: Any) -> None:
    """DELETE answers at once; what ran is stopped, then the object is gone."""
    house.cell.held.add("j")
    put(api, "j", JOB)
    house.until("Job", "j", lambda job: job.state == "Running")
    assert api.delete("/v1/jobs/j").status_code == 202
    house.until("Job", "j", lambda job: job is None)
    assert api.delete("/v1/jobs/j").status_code == 404


def test_service_comes_up_and_is_redeployed(api: TestClient, house: Any) -> None:
    """A service gets its URL; redeploy starts it anew under a higher epoch."""
    api.put("/v1/services/s", json=document("Service", "s", {"application": "some.app:build"}))
    first = house.until("Service", "s", lambda service: service.state == "Ready")
    assert api.post("/v1/services/s/redeploy").status_code == 202
    second = house.until(
        "Service", "s", lambda found: found.state == "Ready" and found.status["epoch"] > first.status["epoch"]
    )
    assert second.status["url"].endswith("/s")


def test_defect_leaves_no_traceback(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception nobody foresaw is a plain 500 problem without its text."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("helios.api.actions.request_cancel", broken)
    put(api, "j", JOB)
    answer = api.post("/v1/jobs/j/cancel")
    assert (answer.status_code, answer.json()["code"]) == (500, "Internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_deleting_the_default_tenant_is_a_conflict(api: TestClient) -> None:
    """409 with the envelope; the tenant is there afterwards."""
    answer = api.delete("/v1/tenants/default")
    assert (answer.status_code, answer.json()["code"]) == (409, "Conflict")
    assert "deletionTimestamp" not in api.get("/v1/tenants/default").json()["metadata"]
