"""The API over a living control plane, called in this process."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from helios.api import tokens
from helios.api.app import create_app
from helios.api.tokens import TokenRequest

TOKEN = "a-token-for-tests"
DEADLINE_S = 10.0


@pytest.fixture
def app(house: Any) -> FastAPI:
    return create_app(house.plane, token=TOKEN, logs=house.cell.read, links={"mlflow": "http://127.0.0.1:5000"})


@pytest.fixture
def api(app: FastAPI) -> Iterator[TestClient]:
    """A client that holds the token; what the server raises comes back as an answer, as it would to anybody."""
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def bearer(house: Any) -> Callable[..., str]:
    """Makes a token of a role, and gives its text."""

    def make(role: str, *tenants: str, cell: str = "", subject: str = "", ttl: float = 3600.0) -> str:
        wanted: dict[str, Any] = {"subject": subject or f"the-{role}", "role": role, "tenants": list(tenants)}
        request = TokenRequest.model_validate({**wanted, "cell": cell or None, "ttl": 3600})
        _, text = tokens.issue(house.store, request, created_by="test", now=time.time() - 3600 + ttl)
        house.plane.mirror.sync()
        return text

    return make


@pytest.fixture
def as_(app: FastAPI, bearer: Callable[..., str]) -> Callable[..., TestClient]:
    """Makes a client that holds a token of a role."""

    def client(role: str, *tenants: str, cell: str = "", subject: str = "") -> TestClient:
        text = bearer(role, *tenants, cell=cell, subject=subject)
        return TestClient(app, headers={"Authorization": f"Bearer {text}"}, raise_server_exceptions=False)

    return client


@dataclass
class Reader:
    """One reader of a stream of server-sent events; reads only when it is asked to."""

    app: FastAPI
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    token: str = TOKEN
    status: int = 0
    content: bytes = b""
    """What was read and is no whole event yet; the whole body where the answer is no stream."""

    async def __aenter__(self) -> Self:
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._gone = asyncio.Event()
        self._begun = asyncio.Event()
        self._events: list[tuple[str, int, Any]] = []
        self._task = asyncio.create_task(self._run())
        async with asyncio.timeout(DEADLINE_S):
            await self._begun.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def next(self) -> tuple[str, int, Any] | None:
        """The next event as (event, id, data), or None at the end of the stream."""
        async with asyncio.timeout(DEADLINE_S):
            while b"\n\n" not in self.content:
                part = await self._parts.get()
                if part is None:
                    return None
                self.content += part
        frame, _, self.content = self.content.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in frame.decode().splitlines())
        return fields["event"], int(fields["id"]), json.loads(fields["data"])

    async def until(self, event: str) -> tuple[str, int, Any]:
        """The next event of that type."""
        while True:
            found = await self.next()
            assert found is not None, f"the stream ended without {event}"
            if found[0] == event:
                return found

    async def body(self) -> bytes:
        """The whole of an answer that ends."""
        async with asyncio.timeout(DEADLINE_S):
            while (part := await self._parts.get()) is not None:
                self.content += part
        return self.content

    async def _run(self) -> None:
        given = {"authorization": f"Bearer {self.token}", **self.headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self._begun.set()
            elif message.get("body"):
                await self._parts.put(message["body"])
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await self._parts.put(None)

        await self.app(scope, receive, send)


@pytest.fixture
def reader(app: FastAPI) -> Callable[..., Reader]:
    """Opens streams: `async with reader("/v1/jobs/watch", query="after=3") as stream`."""

    def make(path: str, **options: Any) -> Reader:
        return Reader(app, path, **options)

    return make
