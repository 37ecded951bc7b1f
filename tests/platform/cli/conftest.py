"""Servers on free ports for the CLI to talk to, and a command line run in this process."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp

from helios.cli.main import run

Serve = Callable[[ASGIApp], str]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


class Server:
    """A uvicorn server in a thread; `port` stays the same over a restart."""

    def __init__(self, app: ASGIApp, port: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the test server did not start"
            time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(app: ASGIApp) -> str:
        servers.append(Server(app))
        return servers[-1].url

    yield start
    for server in servers:
        server.stop()


class Up:
    """What `helios up` leaves in a folder, over a scripted cell; the API can go away and come back on its port."""

    def __init__(self, house: Any, folder: Path) -> None:
        self.house = house
        self._links = {"mlflow": "http://127.0.0.1:5000"}
        self._server = Server(self._app())
        state = folder / ".helios"
        state.mkdir()
        (state / "ports.json").write_text(json.dumps({"api": self._server.port}))
        (state / "token").write_text("a-token-for-tests")

    def _app(self) -> ASGIApp:
        from helios.api.app import create_app

        return create_app(self.house.plane, token="a-token-for-tests", logs=self.house.cell.read, links=self._links)

    def stop_api(self) -> None:
        self._server.stop()

    def start_api(self) -> None:
        self._server = Server(self._app(), self._server.port)


@pytest.fixture
def up(house: Any, cli: Cli, tmp_path: Path) -> Iterator[Up]:
    """A control plane that the command line finds from the test's folder."""
    made = Up(house, tmp_path)
    yield made
    made.stop_api()


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run a command line as `helios` would, in an empty folder with no control plane around."""
    for name in ("HELIOS_HOME", "HELIOS_API", "HELIOS_TOKEN", "HELIOS_DEBUG", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*words: str | Path) -> Result:
        capfd.readouterr()
        code = run([str(word) for word in words])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call
