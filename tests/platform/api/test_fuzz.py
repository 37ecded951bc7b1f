"""Every route against what the OpenAPI document says of it, with requests that somebody else made up."""

import asyncio
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from helios.api import tokens
from helios.api.app import create_app
from helios.api.limits import Limits, Rate
from helios.api.roles import ROUTES
from helios.api.tokens import TokenRequest
from helios.control import ControlPlane, apply
from helios.spec import from_json
from helios.store import open_store

TOKEN = "a-token-for-the-fuzzer"
EXAMPLES = 4
SHOWN = 30
LONGEST_WAIT_S = 0.02
OBJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cells": ("Cell", {"provider": "local", "nodePools": [{"name": "m", "capacityType": "reserved", "nodes": 1}]}),
    "tenants": ("Tenant", {}),
    "jobs": ("Job", {"entrypoint": "x"}),
    "curricula": ("Curriculum", {"stages": [{"name": "one", "entrypoint": "x"}]}),
    "services": ("Service", {"application": "some.app:build"}),
}
# The schema of a document cannot say what holds between its fields and between it and what is there, so a document that
# fits it may still be refused for its content. All other checks are as schemathesis has them.
CONFIG: dict[str, Any] = {
    "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "401", "403", "404", "409", "400", "422"]}},
    "generation": {"max-examples": EXAMPLES, "deterministic": True, "no-shrink": True, "database": "none"},
}


class Hurried:
    """The app for a client that waits for no news: long polls are short, and streams end after their first event."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "query_string": _hurried(scope["query_string"])}
        left = asyncio.Event()
        more, streaming = True, False

        async def received() -> MutableMapping[str, Any]:
            nonlocal more
            if more:
                message = dict(await receive())
                more = message.get("more_body", False)
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal streaming
            if left.is_set():
                return
            if message["type"] == "http.response.start":
                streaming = (b"content-type", b"text/event-stream; charset=utf-8") in message["headers"]
            if streaming and message.get("body"):
                left.set()
                message = {**message, "more_body": False}
            await send(message)

        await self._app(scope, received, sent)


def _hurried(query: bytes) -> bytes:
    def short(name: str, value: str) -> str:
        try:
            return str(LONGEST_WAIT_S) if name == "wait" and LONGEST_WAIT_S < float(value) <= 30 else value
        except ValueError:
            return value

    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    if not any(name == "wait" for name, _ in pairs):
        return query
    return urlencode([(name, short(name, value)) for name, value in pairs], encoding="latin-1").encode()


@pytest.fixture
def fuzzed(tmp_path: Path) -> Iterator[tuple[FastAPI, str]]:
    """An app over a store with one object of each kind, in which nothing runs; and the token of an agent."""
    store = open_store(tmp_path / "helios.db")
    plane = ControlPlane(store)
    for plural, (kind, spec) in OBJECTS.items():
        document = {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": plural[0]}, "spec": spec}
        apply(store, from_json(document))
    unlimited = Limits(Rate(1e6, 10**6), Rate(1e6, 10**6))
    app = create_app(plane, token=TOKEN, logs=lambda _, __, offset: (b"", offset), links={}, limits=unlimited)
    request = TokenRequest.model_validate({"subject": "agent", "role": "agent", "cell": "c"})
    agent = tokens.issue(store, request, created_by="test", now=1e9 * 1.9)[1]
    yield app, agent
    plane.mirror.stop()
    store.close()


def _schema(app: FastAPI, token: str) -> Any:
    config = SchemathesisConfig.from_dict(CONFIG)
    headers = {"Authorization": f"Bearer {token}"}
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", app, config=config, headers=headers)
    schema.app = Hurried(app)
    return schema


@pytest.fixture
def people(fuzzed: tuple[FastAPI, str]) -> Any:
    return _schema(fuzzed[0], TOKEN).exclude(path_regex="^/v1/agents/")


@pytest.fixture
def agents(fuzzed: tuple[FastAPI, str]) -> Any:
    return _schema(*fuzzed).include(path_regex="^/v1/agents/")


def _failures(schema: Any, token: str) -> str:
    """Run every phase of schemathesis over every operation, and say what each failed check found."""
    schema.config.update(headers={"Authorization": f"Bearer {token}"})
    found: dict[str, None] = {}
    called: set[str] = set()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found[str(getattr(event, "value", None) or getattr(event, "exception", None))] = None
        if isinstance(event, events.EngineFinished):
            found |= dict.fromkeys(str(failure) for failure in event.failures)
        if isinstance(event, events.ScenarioFinished) and event.recorder.cases:
            called.add(event.recorder.label)
            found |= dict.fromkeys(_failed_checks(event.recorder))
    labels = {result.ok().label for result in schema.get_all_operations()}
    assert labels <= called, f"never called: {labels - called}"
    return "\n".join(list(found)[:SHOWN])


def _failed_checks(recorder: Any) -> Iterator[str]:
    for case_id, checks in recorder.checks.items():
        case = recorder.cases[case_id].value
        for check in checks:
            if check.failure_info is not None:
                yield f"{case.method} {case.formatted_path}: {check.name}: {check.failure_info.failure}"


def test_routes_of_people_keep_to_the_document(people: Any) -> None:
    """No 5xx; statuses, types, headers and bodies as documented; what does not fit the schema is refused."""
    failures = _failures(people, TOKEN)
    assert not failures, failures


def test_routes_of_agents_keep_to_the_document(agents: Any, fuzzed: tuple[FastAPI, str]) -> None:
    """The same for what agents say, by the agent of the one cell that there is."""
    failures = _failures(agents, fuzzed[1])
    assert not failures, failures


def test_every_route_is_in_the_document(people: Any, agents: Any) -> None:
    """What is fuzzed above is every route that there is."""
    found = {result.ok().label for schema in (people, agents) for result in schema.get_all_operations()}
    itself = "GET /v1/openapi.json"  # schemathesis leaves out what it reads the document from
    assert found == {f"{method} {path}" for method, path in ROUTES} - {itself}
