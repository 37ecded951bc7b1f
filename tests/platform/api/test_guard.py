"""Who gets in: nobody without the token, on any route; and nothing too large."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from helios.api.guard import MAX_BODY_BYTES, OPEN_PATHS, Guard


def _routes(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Method and path of everything that is answered, in included routers too."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _routes(inner.routes)
            continue
        assert getattr(route, "methods", None), f"{route} is no plain route: say here how it is guarded"
        for method in route.methods:
            yield method, re.sub(r"{\w+}", "any", route.path)


def test_every_route_but_health_needs_the_token(app: FastAPI) -> None:
    """Without the token, or with another, every route answers 401 as a problem document; /healthz alone is open."""
    routes = sorted(_routes(app.routes))
    assert len(routes) > 30
    assert set(OPEN_PATHS) == {"/healthz"}
    client = TestClient(app)
    for method, path in [*routes, ("GET", "/v1/no-such-route"), ("POST", "/"), ("GET", "/docs")]:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}, {"Authorization": ""}):
            answer = client.request(method, path, headers=headers)
            if path == "/healthz":
                assert answer.status_code == 200
                continue
            assert answer.status_code == 401, (method, path, headers)
            if method != "HEAD":
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["code"] == "Unauthorized"
                assert answer.headers["www-authenticate"] == "Bearer"


def test_path_tricks_do_not_open_a_route(app: FastAPI) -> None:
    """Only the exact open path is open."""
    client = TestClient(app)
    for path in ("/healthz/", "//healthz", "/healthz/../v1/jobs", "/healthz%2F..%2Fv1%2Fjobs", "/v1/jobs?x=/healthz"):
        assert client.get(path, follow_redirects=False).status_code == 401, path


def test_api_without_a_token_is_refused() -> None:
    """An empty token would let everybody in, so there is no such API."""
    with pytest.raises(ValueError, match="token"):
        Guard(FastAPI(), token="")


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
