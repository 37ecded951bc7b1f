"""Who gets in: nobody without the token, on any route; and nothing too large."""

from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from helios.api.app import create_app
from helios.api.guard import MAX_BODY_BYTES, OPEN_PATHS


def test_path_tricks_do_not_open_a_route(app: FastAPI) -> None:
    """Only the exact open path is open."""
    client = TestClient(app)
    for path in ("/healthz/", "//healthz", "/healthz/../v1/jobs", "/healthz%2F..%2Fv1%2Fjobs", "/v1/jobs?x=/healthz"):
        assert client.get(path, follow_redirects=False).status_code == 401, path


def test_routes_that_do_not_exist_need_a_token_too(app: FastAPI) -> None:
    """Without a token nobody learns which routes there are."""
    client = TestClient(app)
    for method, path in [("GET", "/v1/no-such-route"), ("POST", "/"), ("GET", "/docs"), ("PATCH", "/v1/jobs/j")]:
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "Unauthorized"), path


def test_open_paths_are_health_alone(app: FastAPI) -> None:
    """Nothing but the two health checks is answered to anybody."""
    assert set(OPEN_PATHS) == {"/healthz", "/readyz"}


def test_without_a_static_token_an_empty_one_opens_nothing(house: Any) -> None:
    """An API that was given no static token takes none, and no empty one either."""
    client = TestClient(create_app(house.plane, links={}))
    for header in ("Bearer", "Bearer ", "Bearer  "):
        assert client.get("/v1/jobs", headers={"Authorization": header}).status_code == 401


def test_stated_size_over_the_limit_is_refused(api: TestClient) -> None:
    """A body that says it is too large is refused with 413."""
    answer = api.put("/v1/jobs/x", content=b" " * (MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "TooLarge")


def test_unstated_size_over_the_limit_is_refused(api: TestClient) -> None:
    """A body that streams on past the limit is refused as well."""

    def chunks() -> Any:
        for _ in range(MAX_BODY_BYTES // 2**16 + 1):
            yield b" " * 2**16

    assert api.put("/v1/jobs/x", content=chunks()).status_code == 413
