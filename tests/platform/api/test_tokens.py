"""Bearer tokens: issued once, kept as a hash, scoped, expiring, revoked for good and everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from helios.api.app import create_app
from helios.control import ControlPlane
from helios.store import Mirror, open_store


def _create(api: TestClient, **wanted: Any) -> Any:
    return api.post("/v1/tokens", json=wanted)


def test_token_is_shown_once_and_stored_hashed(api: TestClient, house: Any, tmp_path: Path) -> None:
    """The answer has the bearer text; no record, list, event or file of the store has its secret part."""
    made = _create(api, subject="alice", role="viewer", tenants=["default"], ttl="1h")
    assert made.status_code == 201
    text = made.json()["token"]
    _, name, secret = text.split("_", 2)
    assert (name, len(secret)) == (made.json()["id"], 43)
    assert secret not in api.get("/v1/tokens").text + api.get("/v1/events").text + api.get("/v1/audit").text
    files = [path.read_bytes() for path in (tmp_path / "state").iterdir() if path.is_file()]
    assert files
    assert all(secret.encode() not in content for content in files)
    assert house.store.get("Token", name).spec["hash"] not in api.get("/v1/tokens").text


def test_token_opens_what_its_role_opens(api: TestClient, house: Any) -> None:
    """A new token works at once; whoami says what it is."""
    text = _create(api, subject="alice", role="researcher", tenants=["default"]).json()["token"]
    headers = {"Authorization": f"Bearer {text}"}
    me = api.get("/v1/whoami", headers=headers).json()
    assert me == {"subject": "alice", "cell": "", "grants": [{"role": "researcher", "tenants": ["default"]}]}
    assert api.get("/v1/jobs", headers=headers).status_code == 200


def test_revoked_token_opens_nothing_on_any_replica(api: TestClient, house: Any) -> None:
    """Revoked on one replica, refused on that one at once and on another as soon as it has heard."""
    text = _create(api, subject="alice", role="admin").json()["token"]
    headers = {"Authorization": f"Bearer {text}"}
    mirror = Mirror(house.store)
    mirror.start()
    try:
        other = TestClient(create_app(ControlPlane(house.store, mirror=mirror), links={}))
        assert other.get("/v1/whoami", headers=headers).status_code == 200
        revoked = api.delete(f"/v1/tokens/{text.split('_')[1]}").json()
        assert revoked["state"] == "Revoked"
        assert api.get("/v1/whoami", headers=headers).status_code == 401
        mirror.sync()
        answer = other.get("/v1/whoami", headers=headers)
        assert (answer.status_code, "revoked" in answer.json()["detail"]) == (401, True)
    finally:
        mirror.stop()
    assert api.delete(f"/v1/tokens/{text.split('_')[1]}").status_code == 200


def test_expired_token_says_so(api: TestClient, bearer: Callable[..., str]) -> None:
    """401 with the time at which it expired, and what to do."""
    answer = api.get("/v1/whoami", headers={"Authorization": f"Bearer {bearer('admin', ttl=-1.0)}"})
    assert answer.status_code == 401
    assert "expired at 20" in answer.json()["detail"]
    assert answer.json()["hint"]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"subject": "a", "role": "vewer", "tenants": ["default"]}, "role"),
        ({"subject": "a", "role": "viewer"}, "tenants"),
        ({"subject": "a", "role": "viewer", "tenants": ["defalt"]}, "tenants[0]"),
        ({"subject": "a", "role": "agent"}, "cell"),
        ({"subject": "a", "role": "agent", "cell": "locl"}, "cell"),
        ({"subject": "a", "role": "agent", "cell": "local", "tenants": ["default"]}, "tenants"),
        ({"subject": "a", "role": "viewer", "tenants": ["default"], "cell": "local"}, "cell"),
        ({"subject": "a", "role": "admin", "tenants": ["default"]}, "tenants"),
        ({"subject": "a b", "role": "admin"}, "subject"),
        ({"subject": "a", "role": "admin", "ttl": "soon"}, "ttl"),
        ({"subject": "a", "role": "admin", "ttl": "0s"}, "ttl"),
        ({"subject": "a", "role": "admin", "tenant": "default"}, "tenant"),
        ({"role": "admin"}, "subject"),
    ],
)
def test_wrong_requests_name_the_field(api: TestClient, wanted: dict[str, Any], field: str) -> None:
    """422 for what no token can be, with the field; and no token is made."""
    answer = _create(api, **wanted)
    assert answer.status_code == 422, answer.text
    assert field in {item["field"] for item in answer.json()["problems"]}
    assert api.get("/v1/tokens").json()["items"] == []


def test_near_misses_are_named(api: TestClient) -> None:
    """A tenant, cell or role that is almost right comes back with the right one."""
    for wanted, near in (
        ({"subject": "a", "role": "viewer", "tenants": ["defalt"]}, "default"),
        ({"subject": "a", "role": "agent", "cell": "locl"}, "local"),
        ({"subject": "a", "role": "vewer", "tenants": ["default"]}, "viewer"),
    ):
        assert _create(api, **wanted).json()["problems"][0]["nearest"] == near


def test_tokens_outlive_the_process(tmp_path: Path) -> None:
    """A token made before a restart opens the API after it."""
    path = tmp_path / "helios.db"
    store = open_store(path)
    api = TestClient(create_app(ControlPlane(store), token="root-token-1234567", links={}))
    root = {"Authorization": "Bearer root-token-1234567"}
    text = api.post("/v1/tokens", json={"subject": "ci", "role": "admin", "ttl": None}, headers=root).json()["token"]
    store.close()
    again = open_store(path)
    later = TestClient(create_app(ControlPlane(again), links={}))
    assert later.get("/v1/whoami", headers={"Authorization": f"Bearer {text}"}).json()["subject"] == "ci"
    again.close()
