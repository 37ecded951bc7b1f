"""What somebody with a token tries who means harm: none of it reaches further than the token does."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from helios.api import guard
from helios.api.app import create_app
from helios.api.connections import BoundedHttp
from helios.api.limits import Limits
from helios.api.roles import Grant, Principal, Role
from helios.errors import UnauthorizedError

JWT = {"Authorization": "Bearer a.b.c"}
NODE: dict[str, Any] = {"name": "n", "pool": "m", "cpus": 4.0, "memory": 2**34}
STATUS: dict[str, Any] = {"uid": "u", "epoch": 1, "phase": "Running"}
DEADLINE_S = 15.0


class Vouching:
    """An issuer whose every token is of one person."""

    def __init__(self, *grants: Grant) -> None:
        self.person = Principal("mallory", grants, credential="oidc:mallory")

    def needs_issuer(self, _: str) -> bool:
        return False

    def principal(self, _: str) -> Principal:
        return self.person


class Silent(Vouching):
    """An issuer that does not answer until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    def needs_issuer(self, _: str) -> bool:
        return True

    def principal(self, _: str) -> Principal:
        self.let.wait(DEADLINE_S)
        raise UnauthorizedError("nobody's")


def body(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def reported(**changes: Any) -> bytes:
    report = {"cell": "local", "nodes": [NODE], "statuses": [], **changes}
    return json.dumps(report).encode()


@pytest.fixture
def mallory(house: Any) -> TestClient:
    """May work for one tenant and only look at the other one."""
    for tenant in ("hers", "theirs"):
        house.apply("Tenant", tenant, {})
    grants = (Grant(Role.RESEARCHER, frozenset({"hers"})), Grant(Role.VIEWER, frozenset({"*"})))
    oidc: Any = Vouching(*grants)
    app = create_app(house.plane, logs=house.cell.read, links={}, oidc=oidc)
    return TestClient(app, headers=JWT, raise_server_exceptions=False)


def test_grants_do_not_add_up_to_a_write_that_neither_gives(house: Any, mallory: TestClient) -> None:
    """Who may write for one tenant and read another's puts nothing of hers in the place of what is theirs."""
    house.apply("Job", "done", {"tenant": "theirs", "entrypoint": "true"})
    house.until("Job", "done", lambda job: job.state == "Succeeded")
    house.apply("Service", "avatar", {"tenant": "theirs", "application": "package.module:build"})
    for path, document in (
        ("/v1/jobs/done", body("Job", "done", tenant="hers", entrypoint="false")),
        ("/v1/services/avatar", body("Service", "avatar", tenant="hers", application="package.module:other")),
    ):
        for query in ("", "?dryRun=true"):
            assert mallory.put(path + query, json=document).status_code == 403, path + query
    assert house.store.get("Job", "done").spec["tenant"] == "theirs"


def test_grants_do_not_add_up_to_logs_that_neither_gives(house: Any, mallory: TestClient) -> None:
    """Who reads the logs of one tenant and sees the jobs of another reads no logs of those."""
    house.apply("Job", "secretive", {"tenant": "theirs", "entrypoint": "true"})
    house.apply("Job", "open", {"tenant": "hers", "entrypoint": "true"})
    for name in ("secretive", "open"):
        house.until("Job", name, lambda job: job.state == "Succeeded")
    assert mallory.get("/v1/jobs/secretive").status_code == 200
    assert mallory.get("/v1/jobs/secretive/logs").status_code == 403
    assert mallory.get("/v1/jobs/open/logs").content == b"open epoch 1\n"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("nodes[0].memory", {"nodes": [{**NODE, "memory": 2**70}]}),
        ("nodes[0].memory", {"nodes": [{**NODE, "memory": -1}]}),
        ("nodes[0].cpus", {"nodes": [{**NODE, "cpus": float("nan")}]}),
        ("nodes[0].cpus", {"nodes": [{**NODE, "cpus": float("inf")}]}),
        ("nodes[0].accelerators.H100", {"nodes": [{**NODE, "accelerators": {"H100": 2**80}}]}),
        ("nodes[0].accelerators.H100", {"nodes": [{**NODE, "accelerators": {"H100": -8}}]}),
        ("statuses[0].epoch", {"statuses": [{**STATUS, "epoch": 2**80}]}),
        ("statuses[0].progress", {"statuses": [{**STATUS, "progress": {"step": 2**80}}]}),
        ("session.sequence", {"session": {"generation": 1, "sequence": 2**63}}),
        ("session.generation", {"session": {"generation": 2**63 - 1, "sequence": 1}}),
    ],
)  # fmt: skip
def test_numbers_that_are_none_do_not_leave_an_agent(
    as_: Callable[..., TestClient], api: TestClient, field: str, changes: dict[str, Any]
) -> None:
    """A report with a number that could not be shown or added up is refused with its field, and nothing is taken in."""
    answer = as_("agent", cell="local").post("/v1/agents/local/report", content=reported(**changes))
    assert (answer.status_code, answer.json()["code"]) == (400, "Input")
    assert f"report.{field}: " in answer.json()["detail"]
    assert api.get("/v1/cells").status_code == 200


def test_agent_is_not_shut_out_by_a_generation_that_never_comes(house: Any, as_: Callable[..., TestClient]) -> None:
    """Whoever had an agent's token for a while cannot make the control plane deaf to that cell for good."""
    pools = [{"name": "m", "capacityType": "reserved", "nodes": 1}]
    house.apply("Cell", "far", {"provider": "local", "nodePools": pools})
    agent, now = as_("agent", cell="far"), int(time.time())

    def report(generation: int) -> Any:
        session = {"generation": generation, "sequence": 1}
        return agent.post("/v1/agents/far/report", content=reported(cell="far", session=session))

    lie = report(now + 10 * 86400)
    assert (lie.status_code, "clock" in lie.json()["hint"]) == (400, True)
    assert report(now).status_code == 204


@pytest.mark.parametrize("path", ["/v1/tenants/watch", "/v1/events/stream"])
def test_stream_ends_with_its_token(  # noqa: PLR0917  # fixtures
    house: Any,
    api: TestClient,
    bearer: Callable[..., str],
    reader: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    """A token that is revoked reads on in no stream that it had opened before."""
    monkeypatch.setattr(guard, "PROVE_EVERY_S", 0.0)
    text = bearer("viewer", "default")

    async def story() -> None:
        async with reader(path, token=text) as stream:
            await stream.until("bookmark")
            assert await asyncio.to_thread(lambda: api.delete(f"/v1/tokens/{text.split('_')[1]}").status_code) == 200
            house.apply("Tenant", "later", {})
            assert await stream.next() is None

    asyncio.run(story())


def test_silent_issuer_holds_up_nobody_else(house: Any) -> None:
    """Tokens with made-up keys wait for an issuer that does not answer; requests with other tokens do not."""
    issuer: Any = Silent()
    app = create_app(house.plane, token="static", links={}, oidc=issuer)

    async def story() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://helios") as client:
            stuck = [asyncio.create_task(client.get("/v1/jobs", headers=JWT)) for _ in range(100)]
            try:
                await asyncio.sleep(0)
                async with asyncio.timeout(DEADLINE_S / 2):
                    answer = await client.get("/v1/jobs", headers={"Authorization": "Bearer static"})
                assert answer.status_code == 200
                assert not any(task.done() for task in stuck)
            finally:
                issuer.let.set()
            assert {answer.status_code for answer in await asyncio.gather(*stuck)} == {401}

    asyncio.run(story())


def test_streams_of_one_token_are_bounded(house: Any, reader: Callable[..., Any]) -> None:
    """One token may not hold all the streams that there are: above its bound it is told to wait."""
    bounded = create_app(house.plane, token="static", links={}, limits=Limits(at_once=2))
    client = TestClient(bounded, headers={"Authorization": "Bearer static"})

    streams = [reader(path, token="static") for path in ("/v1/tenants/watch", "/v1/events/stream")]
    for stream in streams:
        stream.app = bounded

    async def story() -> None:
        async with streams[0], streams[1]:
            refused = await asyncio.to_thread(client.get, "/v1/jobs")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["code"] == "TooMany"
        assert (await asyncio.to_thread(client.get, "/v1/jobs")).status_code == 200

    asyncio.run(story())


def test_explanation_tells_nothing_of_a_job_that_only_has_the_name(house: Any, as_: Callable[..., TestClient]) -> None:
    """A curriculum whose stage has the name of another tenant's job does not explain that job."""
    for tenant in ("hers", "theirs"):
        house.apply("Tenant", tenant, {})
    house.cell.failing["study-r1-one"] = ("Error", "theirs alone")
    house.apply("Job", "study-r1-one", {"tenant": "theirs", "entrypoint": "true"})
    house.until("Job", "study-r1-one", lambda job: job.state == "Failed")
    house.apply("Curriculum", "study", {"tenant": "hers", "stages": [{"name": "one", "entrypoint": "true"}]})
    house.until("Curriculum", "study", lambda curriculum: curriculum.state == "Failed")
    answer = as_("viewer", "hers").get("/v1/curricula/study/explain")
    assert answer.status_code == 200
    assert "theirs" not in answer.text
    assert all(event["kind"] == "Curriculum" for event in answer.json()["events"])


def flood(connection: socket.socket, unit: bytes) -> None:
    for _ in range(256):
        connection.sendall(unit * (2**18 // len(unit)))


@pytest.fixture
def served(app: FastAPI) -> Iterator[tuple[str, int]]:
    """The API at a port, as a replica serves it."""
    config = uvicorn.Config(app, port=0, http=BoundedHttp, loop="uvloop", log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    listening.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("unit", [b"a", b"b\r\nX: "], ids=["one header", "many headers"])
@pytest.mark.parametrize(
    "start",
    [b"GET /healthz HTTP/1.1\r\nX: ", b"PUT /v1/jobs/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "],
    ids=["headers", "trailers"],
)
def test_headers_without_end_are_cut_off(served: tuple[str, int], start: bytes, unit: bytes) -> None:
    """Who sends headers on and on is hung up on, before the server has kept much of them, and others are answered."""
    with socket.create_connection(served, timeout=DEADLINE_S) as connection:
        connection.sendall(start)
        with pytest.raises(ConnectionError):
            flood(connection, unit)
    assert httpx.get(f"http://{served[0]}:{served[1]}/healthz").status_code == 200


def test_headers_and_bodies_within_bounds_are_answered(served: tuple[str, int], bearer: Callable[..., str]) -> None:
    """A long header is no attack, nor is a large body, nor are many requests over one connection."""
    long = {"Authorization": f"Bearer {bearer('admin')}", "X-Long": "a" * 60_000}
    with httpx.Client(base_url=f"http://{served[0]}:{served[1]}", headers=long) as client:
        for _ in range(5):
            answer = client.put("/v1/jobs/x", content=b" " * 2**20)
            assert (answer.status_code, answer.json()["code"]) == (422, "Spec")
