"""Every route against every kind of caller: who may call it, and that nobody else may."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from helios.api.app import check_routes
from helios.api.caller import Authority
from helios.api.roles import ROUTES

EVERYBODY = {"viewer", "researcher", "platform", "admin", "agent"}
PEOPLE = EVERYBODY - {"agent"}
SCIENCE = {"researcher", "admin"}
FLEET = {"platform", "admin"}
ADMIN = {"admin"}
OPEN = EVERYBODY | {"nobody"}

EXPECTED: dict[str, set[str]] = {
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": FLEET,
    "GET /v1/openapi.json": EVERYBODY,
    "GET /v1/whoami": EVERYBODY,
    "GET /v1/status": PEOPLE,
    "GET /v1/queue": PEOPLE,
    "GET /v1/snapshot": FLEET,
    "GET /v1/usage": PEOPLE,
    "GET /v1/events": PEOPLE,
    "GET /v1/events/stream": PEOPLE,
    "GET /v1/audit": ADMIN,
    "GET /v1/tokens": ADMIN,
    "POST /v1/tokens": ADMIN,
    "DELETE /v1/tokens/{id}": ADMIN,
    "GET /v1/cells": PEOPLE,
    "GET /v1/cells/watch": PEOPLE,
    "GET /v1/cells/{name}": PEOPLE,
    "GET /v1/cells/{name}/explain": PEOPLE,
    "PUT /v1/cells/{name}": FLEET,
    "DELETE /v1/cells/{name}": FLEET,
    "POST /v1/cells/{name}/cordon": FLEET,
    "POST /v1/cells/{name}/drain": FLEET,
    "POST /v1/cells/{name}/uncordon": FLEET,
    "GET /v1/tenants": PEOPLE,
    "GET /v1/tenants/watch": PEOPLE,
    "GET /v1/tenants/{name}": PEOPLE,
    "GET /v1/tenants/{name}/explain": PEOPLE,
    "PUT /v1/tenants/{name}": ADMIN,
    "DELETE /v1/tenants/{name}": ADMIN,
    "GET /v1/jobs": PEOPLE,
    "GET /v1/jobs/watch": PEOPLE,
    "GET /v1/jobs/{name}": PEOPLE,
    "GET /v1/jobs/{name}/explain": PEOPLE,
    "GET /v1/jobs/{name}/logs": SCIENCE | FLEET,
    "PUT /v1/jobs/{name}": SCIENCE,
    "DELETE /v1/jobs/{name}": SCIENCE,
    "POST /v1/jobs/{name}/cancel": SCIENCE,
    "POST /v1/jobs/{name}/rerun": SCIENCE,
    "POST /v1/jobs/{name}/preempt": SCIENCE | FLEET,
    "GET /v1/curricula": PEOPLE,
    "GET /v1/curricula/watch": PEOPLE,
    "GET /v1/curricula/{name}": PEOPLE,
    "GET /v1/curricula/{name}/explain": PEOPLE,
    "PUT /v1/curricula/{name}": SCIENCE,
    "DELETE /v1/curricula/{name}": SCIENCE,
    "POST /v1/curricula/{name}/cancel": SCIENCE,
    "POST /v1/curricula/{name}/rerun": SCIENCE,
    "GET /v1/services": PEOPLE,
    "GET /v1/services/watch": PEOPLE,
    "GET /v1/services/{name}": PEOPLE,
    "GET /v1/services/{name}/explain": PEOPLE,
    "PUT /v1/services/{name}": SCIENCE,
    "DELETE /v1/services/{name}": SCIENCE,
    "POST /v1/services/{name}/redeploy": SCIENCE,
    "POST /v1/agents/{cell}/desired": {"agent"},
    "POST /v1/agents/{cell}/report": {"agent"},
    "PUT /v1/agents/{cell}/logs/{uid}/{epoch}": {"agent"},
}
"""Who may call a route; everybody else is refused. Written by hand: what it says is what was decided, not what is."""

NAMES = {"jobs": "j", "curricula": "c", "services": "s", "cells": "spare", "tenants": "team-a"}
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "jobs": ("Job", {"entrypoint": "x", "tenant": "team-a"}),
    "curricula": ("Curriculum", {"tenant": "team-a", "stages": [{"name": "one", "entrypoint": "x"}]}),
    "services": ("Service", {"application": "some.app:build", "tenant": "team-a"}),
    "cells": ("Cell", {"provider": "local", "nodePools": [{"name": "m", "capacityType": "reserved", "nodes": 1}]}),
    "tenants": ("Tenant", {}),
}
TENANT_OWNED = ("/v1/jobs/", "/v1/curricula/", "/v1/services/")


def _document(plural: str) -> dict[str, Any]:
    kind, spec = SPECS[plural]
    return {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": NAMES[plural]}, "spec": spec}


def _call(client: TestClient, route: str, **options: Any) -> Any:
    """Call a route with what it needs to get past its guard. A stream is asked for what it has to refuse."""
    method, template = route.split()
    plural = template.split("/")[2] if template.startswith("/v1/") else ""
    path = template.replace("{name}", NAMES.get(plural, "")).replace("{cell}", "local").replace("{uid}", "u")
    path = path.replace("{epoch}", "1").replace("{id}", "0" * 16)
    if template.endswith("/watch"):
        options["params"] = {"after": 2**62}
    if template.endswith("/stream"):
        options["headers"] = {"Last-Event-ID": "no-number", **options.get("headers", {})}
    if method == "PUT" and plural in SPECS:
        options["json"] = _document(plural)
    if template.endswith("/desired"):
        options["json"] = {}
    if template.endswith("/report"):
        options["json"] = {"cell": "local", "nodes": [], "statuses": []}
    if "/logs/{uid}" in template:
        options["params"] = {"offset": 0}
    return client.request(method, path, **options)


@pytest.fixture
def furnished(house: Any, app: FastAPI) -> FastAPI:
    """The app, with an object of each kind in tenant team-a; their jobs do not end by themselves."""
    house.cell.held |= {"j", "c-one"}
    for plural in ("cells", "tenants", "jobs", "curricula", "services"):
        house.apply(SPECS[plural][0], NAMES[plural], SPECS[plural][1])
    house.apply("Tenant", "team-b", {})
    return app


def _routes(app: FastAPI) -> set[str]:
    return {
        f"{method} {context.path}" for context in iter_route_contexts(app.routes) for method in context.methods or ()
    }


def test_every_route_is_in_the_table_above(app: FastAPI) -> None:
    """A route that this file does not know fails here; so does one that is no more."""
    assert _routes(app) == set(EXPECTED)
    assert {f"{method} {path}" for method, path in ROUTES} == set(EXPECTED)


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_only_the_roles_of_the_table_may_call(furnished: FastAPI, as_: Callable[..., TestClient], role: str) -> None:
    """Every route answers a role that may call it, and 403 to one that may not."""
    client = as_(
        role, *(["team-a"] if role in {"viewer", "researcher"} else []), cell="local" if role == "agent" else ""
    )
    for route, allowed in EXPECTED.items():
        answer = _call(client, route)
        if role in allowed:
            assert answer.status_code not in {401, 403, 500}, (route, answer.text)
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "Forbidden"), (route, answer.text)


def test_nobody_may_call_without_a_good_token(
    furnished: FastAPI, house: Any, bearer: Callable[..., str], api: TestClient
) -> None:
    """Without a token, with one that is made up, expired or revoked: 401 on every route but the open ones."""
    expired, revoked = bearer("admin", ttl=-1.0), bearer("admin")
    assert api.delete(f"/v1/tokens/{revoked.split('_')[1]}").status_code == 200
    altered = bearer("admin")[:-1] + "_"
    client = TestClient(furnished, raise_server_exceptions=False)
    for token in ("", "Bearer ", "Basic YTpi", *(f"Bearer {t}" for t in ("x", "hls_0_0", altered, expired, revoked))):
        headers = {"Authorization": token} if token else {}
        for route, allowed in EXPECTED.items():
            answer = _call(client, route, headers=headers)
            if "nobody" in allowed:
                assert answer.status_code == 200, route
                continue
            assert (answer.status_code, answer.json()["code"]) == (401, "Unauthorized"), (route, token)
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", ["viewer", "researcher"])
def test_objects_of_another_tenant_are_not_there(furnished: FastAPI, as_: Callable[..., TestClient], role: str) -> None:
    """Whoever does not reach a tenant gets of its objects what they get of names that nothing has."""
    client = as_(role, "team-b")
    for route, allowed in EXPECTED.items():
        path = route.split()[1]
        if role not in allowed or not path.startswith(TENANT_OWNED) or "{name}" not in path:
            continue
        answer = _call(client, route)
        if route.startswith("PUT"):
            assert answer.status_code == 403, (route, answer.text)
            continue
        other = _call(client, route.replace("{name}", "unlikely"))
        assert (answer.status_code, answer.json()["code"]) == (404, "NotFound"), (route, answer.text)
        assert _but_for_the_name(answer.json()) == _but_for_the_name(other.json()), route


def _but_for_the_name(problem: dict[str, Any]) -> dict[str, Any]:
    quoted = repr(problem.pop("name"))
    return {key: str(value).replace(quoted, "?") for key, value in problem.items() if key != "requestId"}


def test_lists_show_only_what_one_may_read(furnished: FastAPI, as_: Callable[..., TestClient]) -> None:
    """Objects, queue, usage, status and events of another tenant are in no list."""
    stranger, own = as_("viewer", "team-b"), as_("viewer", "team-a")
    for plural in ("jobs", "curricula", "services"):
        assert stranger.get(f"/v1/{plural}").json()["items"] == []
        assert own.get(f"/v1/{plural}").json()["items"] != []
        assert stranger.get("/v1/status").json()["objects"][plural] == {}
    assert {item["kind"] for item in stranger.get("/v1/events").json()["items"]} <= {"Cell", "Tenant"}
    assert {item["kind"] for item in own.get("/v1/events").json()["items"]} >= {"Job", "Curriculum", "Service"}
    assert stranger.get("/v1/events", params={"kind": "Job", "name": "j"}).json()["items"] == []
    for path in ("/v1/queue", "/v1/usage?by=job"):
        assert stranger.get(path).json()["items"] == []


def test_agent_of_another_cell_is_refused(furnished: FastAPI, house: Any, as_: Callable[..., TestClient]) -> None:
    """An agent speaks for its own cell, and learns nothing of another."""
    house.apply("Cell", "elsewhere", SPECS["cells"][1])
    client = as_("agent", cell="elsewhere")
    for route, allowed in EXPECTED.items():
        if "agent" in allowed and "{cell}" in route:
            assert _call(client, route).status_code == 403, route


def test_name_that_another_tenant_has_is_not_taken_over(
    furnished: FastAPI, as_: Callable[..., TestClient], api: TestClient
) -> None:
    """PUT in one's own tenant over a name of another tenant is a conflict, and changes nothing."""
    before = api.get("/v1/services/s").json()["spec"]
    document = _document("services")
    document["spec"] = {**document["spec"], "tenant": "team-b"}
    answer = as_("researcher", "team-b").put("/v1/services/s", json=document)
    assert (answer.status_code, answer.json()["code"]) == (409, "Conflict")
    assert api.get("/v1/services/s").json()["spec"] == before


def test_undeclared_route_keeps_the_app_from_being_built(app: FastAPI, house: Any) -> None:
    """A route that no permission was declared for, or that does not ask who calls, is refused when the app is made."""
    authority = next(item.dependency for item in app.router.dependencies if isinstance(item.dependency, Authority))
    open_app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    open_app.add_api_route("/healthz", lambda: None)
    with pytest.raises(ValueError, match="does not ask who calls"):
        check_routes(open_app, authority)
    undeclared = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(authority)])
    undeclared.add_api_route("/v1/secrets", lambda: None)
    with pytest.raises(ValueError, match="nothing says who may call"):
        check_routes(undeclared, authority)


def test_refused_writes_are_in_the_audit_log(
    furnished: FastAPI, as_: Callable[..., TestClient], api: TestClient
) -> None:
    """Who was refused what, under which request; both where it is forbidden and where it is hidden."""
    as_("viewer", "team-a", subject="vera").post("/v1/jobs/j/cancel", headers={"X-Request-Id": "r-1"})
    as_("researcher", "team-b", subject="rolf").delete("/v1/jobs/j", headers={"X-Request-Id": "r-2"})
    entries = [item for item in api.get("/v1/audit").json()["items"] if item["outcome"] == "denied"]
    assert [(item["actor"], item["verb"], item["kind"], item["name"], item["request"]) for item in entries] == [
        ("vera", "cancel", "Job", "j", "r-1"),
        ("rolf", "delete", "Job", "j", "r-2"),
    ]


def test_every_write_names_its_author(furnished: FastAPI, as_: Callable[..., TestClient], api: TestClient) -> None:
    """Applied, cancelled, cordoned, deleted: each write is in the audit log with subject and request id."""
    rosa, pete = as_("researcher", "team-a", subject="rosa"), as_("platform", subject="pete")
    document = _document("jobs")
    document["metadata"]["name"] = "mine"
    assert rosa.put("/v1/jobs/mine", json=document, headers={"X-Request-Id": "r-1"}).status_code == 201
    assert rosa.post("/v1/jobs/mine/cancel", headers={"X-Request-Id": "r-2"}).status_code == 202
    assert rosa.delete("/v1/jobs/mine", headers={"X-Request-Id": "r-3"}).status_code == 202
    assert pete.post("/v1/cells/spare/cordon", headers={"X-Request-Id": "r-4"}).status_code == 202
    entries = api.get("/v1/audit").json()["items"]
    found = {item["request"]: (item["actor"], item["name"], item["outcome"]) for item in entries}
    assert found["r-1"] == found["r-2"] == found["r-3"] == ("rosa", "mine", "allowed")
    assert found["r-4"] == ("pete", "spare", "allowed")
