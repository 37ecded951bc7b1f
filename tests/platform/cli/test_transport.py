"""What the command line does while replicas of the control plane are away, slow or taking over."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from helios.cli import transport
from helios.cli.client import Client, Endpoint
from helios.errors import InputError, NotFoundError, TooManyError, UnavailableError

AWAY = Response("nobody leads", status_code=503)
GONE = JSONResponse(
    {"code": "NotFound", "detail": "no job is named 'j'", "what": "job", "name": "j"},
    status_code=404,
    media_type="application/problem+json",
)
OK = JSONResponse({"items": [], "next": None, "revision": 1})


class Replica:
    """An ASGI application that answers as it is told, in turn, and remembers what it was asked."""

    def __init__(self, *answers: Response) -> None:
        self._answers: Iterator[Response] = iter(answers)
        self.asked: list[Request] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.asked.append(Request(scope))
            await next(self._answers)(scope, receive, send)


@pytest.fixture
def dead() -> Iterator[str]:
    """The URL of a port on which nothing listens, and which nobody else can get meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def client_of(notices: list[str]) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(*urls: str, patience_s: float = 5.0, home: Path | None = None) -> Client:
        endpoint = Endpoint(urls[0], "t", home, tuple(urls[1:]))
        made.append(Client(endpoint, timeout_s=5, patience_s=patience_s, notice=notices.append))
        return made[-1]

    yield make
    for client in made:
        client.__exit__()


def test_the_next_replica_answers_for_one_that_is_gone(dead: str, serve: Any, client_of: Any, notices: Any) -> None:
    """With several URLs in HELIOS_API a dead replica costs nothing that anybody notices, not even for a POST."""
    living = Replica(OK, OK, OK)
    client = client_of(dead, serve(living))
    client.status()
    client.action("Job", "j", "preempt")
    client.status()
    assert [request.method for request in living.asked] == ["GET", "POST", "GET"]
    assert notices == []


def test_a_stream_comes_from_the_next_replica(dead: str, serve: Any, client_of: Any) -> None:
    """A watch goes over a dead replica and one that is starting to the one that streams."""
    stream = Response(b'event: changed\nid: 3\ndata: {"a": 1}\n\n', media_type="text/event-stream")
    client = client_of(dead, serve(Replica(AWAY)), serve(Replica(stream)))
    assert [(event.id, event.data) for event in client.watch("Job", after=2)] == [("3", {"a": 1})]


def test_a_stream_that_nobody_gives_is_unavailable(dead: str, serve: Any, client_of: Any) -> None:
    """Whether replicas are dead or not ready, the watcher hears of it as of any other call."""
    with pytest.raises(UnavailableError):
        list(client_of(dead).watch("Job", after=0))
    with pytest.raises(UnavailableError):
        list(client_of(serve(Replica(AWAY))).watch("Job", after=0))
    with pytest.raises(NotFoundError):
        list(client_of(serve(Replica(GONE))).watch("Job", after=0))


def test_a_call_is_tried_again_until_somebody_leads(serve: Any, client_of: Any, notices: Any) -> None:
    """A failover costs a notice and some seconds, not the command."""
    replica = Replica(AWAY, AWAY, OK)
    assert client_of(serve(replica)).status()["revision"] == 1
    assert len(replica.asked) == 3
    assert notices == ["the control plane does not answer; trying again ..."]


def test_patience_ends(dead: str, client_of: Any) -> None:
    """A control plane that stays away is an error with its URL after a bounded time."""
    with pytest.raises(UnavailableError, match=dead):
        client_of(dead, patience_s=0.1).status()


def test_an_embedded_control_plane_is_not_waited_for(
    dead: str, client_of: Any, notices: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where nothing listens on this machine nothing will: it is said at once how to start it."""
    monkeypatch.setattr("helios.cli.transport.time.sleep", lambda _: pytest.fail("it waited"))
    with pytest.raises(UnavailableError, match="helios up"):
        client_of(dead, home=tmp_path).status()
    assert notices == []


def test_what_must_not_be_done_twice_is_not_sent_twice(serve: Any, client_of: Any) -> None:
    """A POST that may have been carried out is an error, not a second POST."""
    replica = Replica(AWAY, OK)
    with pytest.raises(UnavailableError):
        client_of(serve(replica)).action("Job", "j", "preempt")
    assert len(replica.asked) == 1


def test_every_try_of_an_apply_carries_the_same_key(serve: Any, client_of: Any) -> None:
    """However often an apply is sent, the control plane can tell that it is one; the next one has another key."""
    replica = Replica(AWAY, AWAY, OK, OK)
    client = client_of(serve(replica))
    document = {"kind": "Job", "metadata": {"name": "j"}}
    client.apply(document)
    client.apply(document)
    keys = [request.headers["idempotency-key"] for request in replica.asked]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[2]


def test_a_deletion_whose_answer_was_lost_is_done(serve: Any, client_of: Any) -> None:
    """Not found after a try that nobody answered means that it went; without such a try it is an error."""
    client_of(serve(Replica(AWAY, GONE))).delete("Job", "j")
    with pytest.raises(NotFoundError):
        client_of(serve(Replica(GONE))).delete("Job", "j")


def test_a_limit_on_the_rate_is_waited_out(serve: Any, client_of: Any, notices: Any) -> None:
    """429 is tried again when it says, and is an error where that is too late."""

    def slow_down(seconds: str) -> Response:
        body = {"code": "TooMany", "detail": "too many requests"}
        headers = {"Retry-After": seconds}
        return JSONResponse(body, status_code=429, headers=headers, media_type="application/problem+json")

    assert client_of(serve(Replica(slow_down("0"), OK))).status()["revision"] == 1
    with pytest.raises(TooManyError):
        client_of(serve(Replica(slow_down("600")))).status()


@pytest.mark.parametrize("token", ["two\nlines", "schlüssel"])
def test_token_that_no_header_can_carry_is_the_callers_error(token: str) -> None:
    """What is wrong with the token is said without printing it."""
    with pytest.raises(InputError, match="characters that no token has") as raised:
        Client(Endpoint("http://127.0.0.1:1", token))
    assert token not in raised.value.message


@pytest.mark.parametrize("configured", ["fleet.example:8600", ",", "http://a,b"])
def test_what_is_no_url_is_the_callers_error(configured: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HELIOS_API says how it is written."""
    monkeypatch.setenv("HELIOS_API", configured)
    with pytest.raises(InputError, match="HELIOS_API is not a URL"):
        Endpoint.find()


@pytest.mark.parametrize("token", ["", " \n"])
def test_no_token_for_an_api_elsewhere_is_the_callers_error(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HELIOS_TOKEN nothing is sent; what is to be set is named."""
    monkeypatch.setenv("HELIOS_API", "https://a:1")
    monkeypatch.setenv("HELIOS_TOKEN", token)
    with pytest.raises(InputError, match="HELIOS_TOKEN is not set"):
        Endpoint.find()


def test_several_urls_are_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas in HELIOS_API separate replicas, asked in that order."""
    monkeypatch.setenv("HELIOS_API", "https://a:1/, https://b:2")
    monkeypatch.setenv("HELIOS_TOKEN", "t")
    assert Endpoint.find().urls == ("https://a:1", "https://b:2")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_the_callers_error(content: str | None, tmp_path: Path) -> None:
    """HELIOS_CA_FILE is named with the file, before anything is sent; without TLS nobody looks at it."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=r"HELIOS_CA_FILE.*ca\.pem"):
        Client(Endpoint("https://127.0.0.1:1", "t", ca_file=str(file)))
    Client(Endpoint("http://127.0.0.1:1", "t", ca_file=str(file))).__exit__()
