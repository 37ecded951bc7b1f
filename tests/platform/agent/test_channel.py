"""Over real HTTP an agent is told and heard as if it sat in the same process; what goes wrong has our own names."""

import gzip
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from helios import wire
from helios.agent.cell import CellAgent
from helios.agent.channel import HttpChannel
from helios.api.agents import MAX_REPORT_BYTES
from helios.api.app import create_app
from helios.api.roles import Role
from helios.api.tokens import TokenRequest, issue
from helios.control import ControlPlane, apply, request_cancel, request_delete
from helios.errors import (
    EngineError,
    FencedError,
    ForbiddenError,
    HeliosError,
    InputError,
    NotFoundError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from helios.ports import Desired, Launch, LaunchStatus, NodeObservation, Phase, Session
from helios.spec import from_json
from helios.store import Record, open_store

TOKEN = "a-token-for-tests"
NODE = NodeObservation("n0", "m", cpus=8.0, memory=64 << 30)


class Server:
    """Uvicorn in a thread; the port stays the same over a restart."""

    def __init__(self, app: FastAPI, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._socket.close()


@dataclass
class Plane:
    """A control plane with its API."""

    folder: Path
    control: ControlPlane = field(init=False)
    server: Server = field(init=False)
    port: int = 0

    def begin(self) -> None:
        """Start, or start again over what an earlier one left."""
        store = open_store(self.folder / "helios.db")
        self.control = ControlPlane(store)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.control.run, args=(self._stop,))
        self._thread.start()
        self.server = Server(create_app(self.control, token=TOKEN, links={}), self.port)
        self.port = self.server.port

    def end(self) -> None:
        self.server.stop()
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.control.store.close()

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> Record:
        document = {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        return apply(self.control.store, from_json(document)).record

    def token(self, cell: str) -> str:
        """A new token of the cell's agent."""
        wanted = TokenRequest(subject=f"agent:{cell}", role=Role.AGENT, cell=cell)
        return issue(self.control.store, wanted, created_by="test", now=time.time())[1]

    def until(self, kind: str, name: str, found: Callable[[Record], bool]) -> Record:
        deadline = time.monotonic() + 20
        while True:
            revision = self.control.store.revision()
            record = self.control.store.get(kind, name)
            if found(record):
                return record
            assert time.monotonic() < deadline, f"{name} is {record.status}"
            self.control.store.wait(revision, 1.0)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """With the cell `c`."""
    made = Plane(tmp_path / "plane")
    made.begin()
    made.apply("Cell", "c", {"provider": "local", "nodePools": [{"name": "m", "capacityType": "reserved", "nodes": 1}]})
    yield made
    made.end()


@pytest.fixture
def channel(plane: Plane) -> Iterator[HttpChannel]:
    with HttpChannel(plane.server.url, plane.token("c")) as made:
        yield made


def bearer(plane: Plane) -> dict[str, str]:
    return {"Authorization": f"Bearer {plane.token('c')}"}


def _runs(record: Record) -> bool:
    return record.state == "Running"


def job(plane: Plane, channel: HttpChannel, name: str = "job") -> Launch:
    """A job that was placed on the cell, as the cell is told of it."""
    channel.report("c", [NODE], session=Session(1, time.time_ns()))
    plane.apply("Job", name, {"entrypoint": "true"})
    desired = channel.desired("c")
    deadline = time.monotonic() + 20
    while not (found := [launch for launch in desired.launches if launch.name == name]):
        assert time.monotonic() < deadline
        desired = channel.wait("c", desired, 5.0)
    return found[0]


def test_the_same_is_told_over_http(plane: Plane, channel: HttpChannel) -> None:
    """What is wanted over HTTP is what is wanted in the same process, spec and all, also when asked again."""
    launch = job(plane, channel)
    assert channel.desired("c") == plane.control.gateway.desired("c")
    assert channel.desired("c").launches == (launch,)
    assert launch.spec["entrypoint"] == "true"


def test_known_launches_do_not_travel_again(plane: Plane, channel: HttpChannel) -> None:
    """Of a launch that the agent has only the name comes, so that three hundred of them cost little."""
    launch = job(plane, channel)
    asked = {"have": [[launch.uid, launch.epoch]]}
    answer = httpx.post(f"{plane.server.url}/v1/agents/c/desired", json=asked, headers=bearer(plane)).json()
    assert answer["launches"] == [{"uid": launch.uid, "epoch": launch.epoch}]


def test_news_come_without_waiting_for_the_end_of_the_call(plane: Plane, channel: HttpChannel) -> None:
    """A call that waits returns when something is wanted, long before its time is up."""
    known = Desired((job(plane, channel),))
    began = time.monotonic()
    cancel = threading.Timer(0.3, request_cancel, args=(plane.control.store, "Job", "job"))
    cancel.start()
    desired = channel.wait("c", known, 30.0)
    cancel.join()
    assert [stop.uid for stop in desired.stops] == [known.launches[0].uid]
    assert time.monotonic() - began < 10.0


def test_nothing_new_is_said_at_the_end_of_the_call(channel: HttpChannel) -> None:
    """Where nothing changes the call returns what was known, after its time."""
    began = time.monotonic()
    known = channel.desired("c")
    assert channel.wait("c", known, 1.0) == known
    assert time.monotonic() - began >= 1.0


def test_reports_are_heard(plane: Plane, channel: HttpChannel) -> None:
    """What an agent reports becomes the state of cell and job."""
    launch = job(plane, channel)
    plane.until("Cell", "c", lambda cell: cell.state == "Ready")
    status = LaunchStatus(launch.uid, launch.epoch, Phase.SUCCEEDED, "Completed", outputs={"checkpoint": "/b/1"})
    channel.report("c", [NODE], [status], session=Session(1, time.time_ns()))
    ended = plane.until("Job", "job", lambda record: record.state == "Succeeded")
    assert ended.status["outputs"] == {"checkpoint": "/b/1"}


def test_large_cells_are_heard(plane: Plane, channel: HttpChannel) -> None:
    """Five thousand nodes fit into a request."""
    nodes = [NodeObservation(f"node-{index}", "m", 8.0, 1 << 40, {"H100": 8}) for index in range(5000)]
    channel.report("c", nodes, session=Session(1, 1))
    plane.until("Cell", "c", lambda cell: len(cell.status.get("nodes", [])) == 5000)


def test_log_bytes_are_handed_in(plane: Plane, channel: HttpChannel) -> None:
    """Bytes arrive as they are, and their end is known."""
    launch = job(plane, channel)
    data = bytes(range(256)) * 4
    channel.push_log("c", launch.uid, launch.epoch, offset=0, data=data, ended=False)
    channel.push_log("c", launch.uid, launch.epoch, offset=len(data), data=b"", ended=True)
    assert plane.control.store.read_log(launch.uid, launch.epoch, offset=0) == (data, True)


def test_earlier_agent_is_told_that_it_was_replaced(channel: HttpChannel) -> None:
    """Once a later generation has reported, the earlier one is refused by name."""
    channel.report("c", [NODE], session=Session(8, 1))
    with pytest.raises(FencedError):
        channel.report("c", [NODE], session=Session(7, 99))


def test_unknown_cell(plane: Plane, channel: HttpChannel) -> None:
    """A cell that was taken away is not found, whatever is called."""
    request_delete(plane.control.store, "Cell", "c")
    deadline = time.monotonic() + 20
    while plane.control.store.find("Cell", "c") is not None:
        assert time.monotonic() < deadline
        plane.control.store.wait(plane.control.store.revision(), 0.2)
    for call in (
        lambda: channel.desired("c"),
        lambda: channel.report("c", None),
        lambda: channel.push_log("c", "u", 1, offset=0, data=b"", ended=False),
        lambda: channel.document("c"),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_token_opens_its_own_cell_alone(plane: Plane, channel: HttpChannel) -> None:
    """An agent's token is refused at another cell's door, and a wrong one at every door."""
    pools = [{"name": "m", "capacityType": "reserved", "nodes": 1}]
    plane.apply("Cell", "d", {"provider": "simulated", "nodePools": pools})
    channel.report("c", [NODE], session=Session(1, 1))
    assert channel.document("c")["spec"]["provider"] == "local"
    for call in (lambda: channel.desired("d"), lambda: channel.report("d", None), lambda: channel.document("d")):
        with pytest.raises(ForbiddenError):
            call()
    with HttpChannel(plane.server.url, "not-the-token") as stranger, pytest.raises(UnauthorizedError):
        stranger.desired("c")


def test_control_plane_that_is_away(plane: Plane, channel: HttpChannel) -> None:
    """Nobody there is `Unavailable`, and the same channel works when it is back."""
    plane.end()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        channel.desired("c")
    plane.begin()
    assert channel.desired("c") == Desired()


def test_other_replica_is_asked(plane: Plane) -> None:
    """Of several addresses the next one is used where one does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with HttpChannel(f"{nobody}, {plane.server.url}", plane.token("c")) as channel:
        with pytest.raises(UnavailableError):
            channel.desired("c")
        assert channel.desired("c") == Desired()
        assert channel.url == plane.server.url


def test_control_plane_that_hangs() -> None:
    """One that takes the connection and says nothing is given up on."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        HttpChannel(f"http://127.0.0.1:{silent.getsockname()[1]}", TOKEN, answer_s=0.2) as channel,
        pytest.raises(UnavailableError, match="did not answer in time"),
    ):
        channel.desired("c")


def answering(answer: httpx.Response | Exception) -> HttpChannel:
    """A channel to a server that says this, whatever it is asked."""

    def answered(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return HttpChannel("http://helios.example", TOKEN, transport=httpx.MockTransport(answered))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(200, text="<html>welcome</html>"), UnavailableError),
        (httpx.Response(200, json=[]), UnavailableError),
        (httpx.Response(200, json={"launches": [{"uid": "u", "epoch": 1}]}), EngineError),
        (httpx.Response(502, text="bad gateway"), UnavailableError),
        (httpx.Response(404, text="no such page"), UnavailableError),
        (httpx.Response(301, headers={"Location": "http://elsewhere.example"}), UnavailableError),
        (httpx.Response(403, text="no"), ForbiddenError),
        (httpx.Response(413, text="too much"), InputError),
        (httpx.Response(503, headers={"Content-Type": "application/problem+json"}, text="{"), UnavailableError),
        (httpx.RemoteProtocolError("peer closed connection"), UnavailableError),
        (httpx.DecodingError("no gzip"), UnavailableError),
    ],
)
def test_whatever_answers_is_one_of_our_errors(answer: httpx.Response | Exception, error: type[HeliosError]) -> None:
    """Proxies, other servers and broken connections are told by names that the agent knows what to do with."""
    with answering(answer) as channel, pytest.raises(HeliosError) as caught:
        channel.desired("c")
    assert type(caught.value) is error


@pytest.mark.parametrize("url", ["", "helios.example:8600", "ftp://helios.example", "https://", "http://a, b"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """An address that cannot be one is said at once, with what one is like."""
    with pytest.raises(InputError, match="URL") as caught:
        HttpChannel(url, TOKEN)
    assert "https://" in caught.value.hint


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    """A file of certificates that holds none is said by name."""
    (tmp_path / "ca.pem").write_text("no certificate")
    for file in ("ca.pem", "none.pem"):
        with pytest.raises(InputError, match=file):
            HttpChannel("https://helios.example", TOKEN, ca_file=str(tmp_path / file))


def test_clocks_that_disagree_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Five minutes between the clocks are a warning, once, and it is said when they agree again."""
    dates = [-300.0, -300.0, 0.0]

    def answered(_: httpx.Request) -> httpx.Response:
        moment = time.gmtime(time.time() + dates.pop(0))
        return httpx.Response(200, json={}, headers={"Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", moment)})

    caplog.set_level(logging.INFO)
    with HttpChannel("http://helios.example", TOKEN, transport=httpx.MockTransport(answered)) as channel:
        for _ in range(2):
            channel.desired("c")
        assert channel.skew_s == pytest.approx(-300, abs=3)
        channel.desired("c")
    said = [record.getMessage() for record in caplog.records if "clock" in record.getMessage()]
    assert len(said) == 2
    assert "+300 s" in said[0] or "+299 s" in said[0] or "+301 s" in said[0]
    assert "agrees" in said[1]


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{}", {}, 400, "report.cell"),
        (b'{"cell": "d", "nodes": null, "statuses": []}', {}, 400, "the URL says"),
        (
            b'{"cell": "c", "nodes": null, "statuses": [], "session": {"sequence": 9223372036854775808}}',
            {},
            400,
            "report.session.sequence",
        ),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400, "Content-Encoding says gzip"),
        (gzip.compress(b"{}", mtime=0)[:-3], {"Content-Encoding": "gzip"}, 400, "cut short"),
        (gzip.compress(b" " * (MAX_REPORT_BYTES + 1)), {"Content-Encoding": "gzip"}, 413, "at most"),
    ],
)
def test_broken_reports_are_refused(plane: Plane, body: bytes, headers: dict[str, str], status: int, said: str) -> None:
    """A report that is none is refused by field, and one that unpacks without end is given up on."""
    answer = httpx.post(f"{plane.server.url}/v1/agents/c/report", content=body, headers={**bearer(plane), **headers})
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_too_large_is_told_by_name(plane: Plane, channel: HttpChannel) -> None:
    """A piece of a log beyond the limit is refused as what it is."""
    with pytest.raises(TooLargeError):
        channel.push_log("c", "u", 1, offset=0, data=b"x" * (33 << 20), ended=False)
    assert channel.desired("c") == plane.control.gateway.desired("c")


class Driver:
    """One node, and launches that run until the test ends them."""

    def __init__(self) -> None:
        self.phases: dict[wire.Key, Phase] = {}
        self.starts: list[wire.Key] = []

    def nodes(self) -> list[NodeObservation]:
        return [NODE]

    def start(self, launch: Launch) -> None:
        key = (launch.uid, launch.epoch)
        if key not in self.phases:
            self.starts.append(key)
            self.phases[key] = Phase.RUNNING

    def stop(self, uid: str, epoch: int, *, grace_s: float) -> None:
        self.phases[uid, epoch] = Phase.STOPPED

    def status(self, uid: str, epoch: int) -> LaunchStatus:
        return LaunchStatus(uid, epoch, self.phases.get((uid, epoch), Phase.ABSENT))

    def logs(self, uid: str, epoch: int, *, offset: int) -> tuple[bytes, int]:
        del uid, epoch
        return b"", offset


def test_agent_and_control_plane_outlive_each_other(plane: Plane, tmp_path: Path) -> None:
    """The control plane goes and comes back while a job runs and another one ends: nothing is started twice or lost."""
    driver, stop = Driver(), threading.Event()
    with HttpChannel(plane.server.url, plane.token("c")) as channel:
        agent = CellAgent(channel, driver, cell="c", state_dir=tmp_path / "agent", poll_s=2.0)
        thread = threading.Thread(target=agent.run, args=(stop,))
        thread.start()
        try:
            for name in ("stays", "ends"):
                plane.apply("Job", name, {"entrypoint": "true"})
            stays, ends = (plane.until("Job", name, _runs) for name in ("stays", "ends"))
            plane.end()
            driver.phases[ends.uid, 1] = Phase.SUCCEEDED
            plane.begin()
            plane.until("Job", "ends", lambda record: record.state == "Succeeded")
            assert plane.control.store.get("Job", "stays").state == "Running"
            assert driver.phases[stays.uid, 1] is Phase.RUNNING
            assert sorted(driver.starts) == sorted([(stays.uid, 1), (ends.uid, 1)])
        finally:
            stop.set()
            thread.join(20)
            assert not thread.is_alive()


def test_two_calls_that_fail_together_leave_one_replica() -> None:
    """Where several threads find the same replica away, the next one is asked, and not the same again."""
    both = threading.Barrier(2)

    def hangs(request: httpx.Request) -> httpx.Response:
        if request.url.host == "one":
            both.wait(20)
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json={})

    with HttpChannel("http://one,http://two", TOKEN, transport=httpx.MockTransport(hangs)) as channel:

        def call() -> None:
            with pytest.raises(UnavailableError):
                channel.desired("c")

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert channel.url == "http://two"
