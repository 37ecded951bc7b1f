"""What holds for every request: limits, ids, problems, and the two ways of asking without doing."""

from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from helios.api.app import create_app
from helios.api.limits import MAX_BUCKETS, Buckets, Limits, Rate


def _job(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"entrypoint": "x", **spec}}


def test_bucket_lets_through_its_rate_and_a_burst() -> None:
    """A burst at once, then the rate; whoever is over it is told for how long; others are not held up."""
    now = [0.0]
    buckets = Buckets(Rate(per_second=2.0, burst=3), monotonic=lambda: now[0])
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("b") == 0.0
    now[0] = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0.0, 0.5]
    now[0] = 1000.0
    assert [buckets.take("a") for _ in range(4)][-1] > 0


def test_buckets_are_bounded() -> None:
    """Ever new credentials take no ever new memory."""
    buckets = Buckets(Rate(1.0, 1), monotonic=lambda: 0.0)
    for number in range(MAX_BUCKETS + 10):
        buckets.take(str(number))
    assert buckets.take(str(MAX_BUCKETS + 9)) > 0
    assert buckets.take("0") == 0.0


def test_too_many_requests_are_429_with_retry_after(house: Any) -> None:
    """Over its rate a token gets a problem document that says when to try again; agents are counted apart."""
    app = create_app(house.plane, token="static-token", links={}, limits=Limits(people=Rate(0.1, 2)))
    client = TestClient(app, headers={"Authorization": "Bearer static-token"})
    answers = [client.get("/v1/whoami") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["content-type"] == "application/problem+json"
    assert (answers[2].json()["code"], int(answers[2].headers["retry-after"])) == ("TooMany", 10)
    assert client.get("/healthz").status_code == 200


def test_request_id_is_taken_or_made_and_told(api: TestClient) -> None:
    """The id comes back in the header and in problems; one that could forge log lines is replaced."""
    mine = api.get("/v1/jobs/none", headers={"X-Request-Id": "trace-1"})
    assert (mine.headers["x-request-id"], mine.json()["requestId"]) == ("trace-1", "trace-1")
    made = api.get("/v1/jobs/none", headers={"X-Request-Id": "a b\tc"})
    assert made.headers["x-request-id"] == made.json()["requestId"] != "a b\tc"


def test_every_refusal_is_a_problem_document(api: TestClient) -> None:
    """404, 405 with Allow, 413, 415, 422: same form, own code, nothing of the framework's."""
    cases = [
        (api.get("/v1/no-such-route"), 404, "NoRoute"),
        (api.patch("/v1/jobs/j"), 405, "MethodNotAllowed"),
        (
            api.put("/v1/jobs/j", content=b"kind: Job", headers={"Content-Type": "text/yaml"}),
            415,
            "UnsupportedMediaType",
        ),
        (api.put("/v1/jobs/j", content=b"{", headers={"Content-Type": "application/json"}), 422, "Spec"),
        (api.put("/v1/jobs/j", content=b""), 422, "Spec"),
        (api.get("/v1/jobs", params={"limit": 0}), 422, "Spec"),
        (api.put("/v1/jobs/watch", json=_job("watch")), 405, "MethodNotAllowed"),
        (api.get("/v1/jobs", params={"labelselector": "a=b"}), 422, "Spec"),
        (api.post("/v1/cells/local/cordon", json={"nod": "x"}), 422, "Spec"),
        (api.post("/v1/cells/local/cordon", json={"node": "machin"}), 404, "NotFound"),
    ]
    for answer, status, code in cases:
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert (answer.status_code, body["status"], body["code"]) == (status, status, code), answer.text
        assert body["detail"]
    assert cases[1][0].headers["allow"] == "DELETE, GET, PUT"
    assert cases[7][0].json()["problems"][0]["nearest"] == "labelSelector"
    assert cases[8][0].json()["problems"][0]["nearest"] == "node"
    assert cases[9][0].json()["nearest"] == "machine"


def test_dry_run_says_what_would_happen_and_writes_nothing(api: TestClient, house: Any) -> None:
    """Created, configured or unchanged, the diff, and where the scheduler would put it; the store stays as it is."""
    house.cell.held.add("j")
    planned = api.put("/v1/jobs/j", params={"dryRun": "true"}, json=_job("j")).json()
    assert planned["result"] == "created"
    assert planned["decision"]["cell"] == "local"
    assert api.get("/v1/jobs/j").status_code == 404
    assert api.put("/v1/tenants/team", json={**_job("team"), "kind": "Tenant", "spec": {}}).status_code == 201
    changed = {**_job("team"), "kind": "Tenant", "spec": {"weight": 2.0}}
    planned = api.put("/v1/tenants/team", params={"dryRun": "true"}, json=changed).json()
    assert planned["result"] == "configured"
    assert {"field": "spec.weight", "before": 1.0, "after": 2.0} in planned["diff"]
    assert api.get("/v1/tenants/team").json()["spec"]["weight"] == 1.0
    assert api.put("/v1/jobs/j", params={"dryRun": "true"}, json=_job("j", tenant="nobody")).status_code == 404


def test_dry_run_asks_for_the_right_to_write(app: FastAPI, as_: Any) -> None:
    """Whoever may not write may not try, either."""
    answer = as_("viewer", "default").put("/v1/jobs/j", params={"dryRun": "true"}, json=_job("j"))
    assert answer.status_code == 403


def test_idempotency_keys_are_each_callers_own(house: Any, as_: Any) -> None:
    """The same key of two callers is two keys; one caller's other content under it is a conflict."""
    house.cell.held |= {"one", "two"}
    rosa, rolf = as_("researcher", "default", subject="rosa"), as_("researcher", "default", subject="rolf")
    headers = {"Idempotency-Key": "k"}
    assert rosa.put("/v1/jobs/one", json=_job("one"), headers=headers).status_code == 201
    assert rolf.put("/v1/jobs/two", json=_job("two"), headers=headers).status_code == 201
    assert rosa.put("/v1/jobs/two", json=_job("two"), headers=headers).status_code == 409


def test_suspected_secret_is_repeated_nowhere(api: TestClient) -> None:
    """A secret written where its reference belongs is in no answer, event or audit entry."""
    secret = "hunter2-hunter2-hunter2"
    answer = api.put("/v1/jobs/j", json=_job("j", secrets={"TOKEN": secret}))
    assert answer.status_code == 422
    seen = answer.text + api.get("/v1/events").text + api.get("/v1/audit").text
    assert "spec.secrets.TOKEN" in answer.text
    assert secret not in seen


def test_readiness_and_metrics(api: TestClient, as_: Any) -> None:
    """Ready says up to which revision; metrics count requests by route template and show no name."""
    assert api.get("/readyz").json()["revision"] > 0
    api.get("/v1/jobs/a-name-that-nobody-has")
    text = api.get("/metrics").text
    assert 'route="/v1/jobs/{name}"' in text
    assert "a-name-that-nobody-has" not in text
    assert as_("viewer", "*").get("/metrics").status_code == 200


def test_usage_takes_seconds_and_times(api: TestClient) -> None:
    """A window as seconds or ISO times; what is neither, or ends before it begins, is refused by name."""
    window = api.get("/v1/usage", params={"by": "cell", "since": 0, "until": "2026-01-01T00:00:00Z"}).json()
    assert (window["since"], window["until"]) == ("1970-01-01T00:00:00.000Z", "2026-01-01T00:00:00.000Z")
    wrong = api.get("/v1/usage", params={"since": "yesterday"})
    assert (wrong.status_code, wrong.json()["problems"][0]["field"]) == (422, "query.since")
    assert api.get("/v1/usage", params={"since": 10, "until": 5}).status_code == 400
