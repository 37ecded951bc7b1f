"""`helios server` and `helios agent` as real processes: they start, say what is wrong, survive, and leave."""

import gc
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from helios.adapters.simulated import SimulatedDriver
from helios.cli.main import run
from helios.cli.replica import Listen, _set_aside, admin_token, collect_all, read_token
from helios.errors import InputError
from helios.spec import CellSpec
from helios.store import open_store

POOL = {"name": "a", "capacityType": "reserved", "nodes": 2, "accelerators": "H100:8"}
CELL = {"provider": "simulated", "nodePools": [POOL], "simulation": {"run": "3600s", "start": "0s"}}
Start = Callable[..., "Process"]


class Knot:
    """What refers to itself."""

    itself: "Knot"


class Process:
    """One `helios` that was started, and what it says."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self.child = subprocess.Popen([sys.executable, "-m", "helios.cli.main", *words], stdout=file, stderr=file)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, text: str, *, timeout: float = 60.0) -> None:
        """Wait until it says this."""
        until(lambda: text in self.said or self.child.poll() is not None, timeout=timeout, why=lambda: self.said)
        assert text in self.said, self.said

    def wait(self, *, timeout: float = 60.0) -> int:
        return self.child.wait(timeout)

    def end(self) -> int:
        self.child.terminate()
        return self.wait()

    def kill(self) -> None:
        self.child.kill()
        self.wait()


def until(found: Callable[[], Any], *, timeout: float = 60.0, why: Callable[[], object] = lambda: "") -> Any:
    deadline = time.monotonic() + timeout
    while not (value := found()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)
    return value


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    for name in list(os.environ):
        if name.startswith(("HELIOS_", "MLFLOW_")):
            monkeypatch.delenv(name)
    processes: list[Process] = []

    def begin(*words: str | Path) -> Process:
        processes.append(Process([str(word) for word in words], tmp_path / f"{len(processes)}.log"))
        return processes[-1]

    yield begin
    for process in processes:
        if process.child.poll() is None:
            process.kill()


class Served:
    """A server with its address and its admin."""

    def __init__(self, start: Start, folder: Path, *words: str, database: str = "", tls: str = "") -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.scheme = "https" if tls else "http"
        self.words = (
            *("server", "--listen", f"127.0.0.1:{self.port}", "--database", database or str(folder / "helios.db")),
            *("--admin-token-file", str(folder / "admin.token"), *words),
        )
        self.start = start
        self.verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=tls) if tls else False
        self.again()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def again(self) -> None:
        self.process = self.start(*self.words)
        self.process.says("answers at")

    def call(self, method: str, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {read_token(self.folder / 'admin.token')}"}
        with httpx.Client(base_url=self.url, headers=headers, verify=self.verify, trust_env=False, timeout=30) as http:
            return http.request(method, path, json=body or None).raise_for_status().json()

    def apply(self, kind: str, plural: str, name: str, spec: dict[str, Any]) -> None:
        document = {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.call("PUT", f"/v1/{plural}/{name}", **document)

    def state(self, path: str) -> str:
        return str((self.call("GET", path).get("status") or {}).get("state", "Pending"))

    def agent(self, *words: str | Path, state: str = "agent") -> Process:
        token = self.folder / "agent.token"
        if not token.exists():
            made = self.call("POST", "/v1/tokens", subject="agent:sim", role="agent", cell="sim")
            token.write_text(made["token"])
        return self.start(
            *(
                "agent",
                "--cell",
                "sim",
                "--api",
                self.url,
                "--token-file",
                token,
                "--state",
                self.folder / state,
                *words,
            )
        )


@pytest.fixture
def served(start: Start, tmp_path: Path) -> Served:
    """A server that knows the simulated cell `sim`."""
    made = Served(start, tmp_path)
    made.apply("Cell", "cells", "sim", CELL)
    return made


def test_garbage_that_was_set_aside_is_collected_in_the_end() -> None:
    """What becomes a dead cycle after a look for garbage is not looked at again but by the rare look at everything."""
    stop, cycle = threading.Event(), Knot()
    cycle.itself = cycle
    gone = weakref.finalize(cycle, stop.set)
    _set_aside("stop", {})
    del cycle
    gc.collect()
    assert gone.alive
    collect_all(stop, every_s=0.0)
    assert not gone.alive


def test_server_starts_serves_and_leaves(start: Start, tmp_path: Path) -> None:
    """It makes its token for its owner alone, and at SIGTERM ends what waits in good order and lets go of its lease."""
    server = Served(start, tmp_path, "--name", "one")
    assert (tmp_path / "admin.token").stat().st_mode & 0o777 == 0o600
    until(lambda: server.call("GET", "/v1/status")["leader"])
    assert httpx.get(f"{server.url}/v1/jobs", trust_env=False).status_code == 401
    answers: list[tuple[int, str]] = []

    def wait(path: str) -> None:
        headers = {"Authorization": f"Bearer {read_token(tmp_path / 'admin.token')}"}
        answer = httpx.get(f"{server.url}{path}", headers=headers, trust_env=False, timeout=60)
        answers.append((answer.status_code, answer.text))

    paths = ["/v1/events?after=1000&wait=30", "/v1/events/stream"]
    waiting = [threading.Thread(target=wait, args=(path,)) for path in paths]
    for thread in waiting:
        thread.start()
    waiting[0].join(2.0)
    began = time.monotonic()
    assert server.process.end() == 0
    assert time.monotonic() - began < 5.0
    for thread in waiting:
        thread.join(20)
    assert sorted(code for code, _ in answers) == [200, 503], "a stream is closed, a long poll is told to ask again"
    assert "this replica is ending" in dict(answers)[503]
    assert "Traceback" not in server.process.said
    store = open_store(tmp_path / "helios.db")
    try:
        lease = store.lease("control")
    finally:
        store.close()
    assert lease is None or not lease.holder, "the lease was not released"
    token = read_token(tmp_path / "admin.token")
    server.again()
    assert read_token(tmp_path / "admin.token") == token


def test_log_lines_are_json_where_asked(start: Start, tmp_path: Path) -> None:
    """With `--log-format json` every line is an object that names the replica."""
    server = Served(start, tmp_path, "--name", "one", "--log-format", "json")
    server.process.end()
    lines = [json.loads(line) for line in server.process.said.splitlines()]
    assert lines
    assert all(line["replica"] == "one" for line in lines)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--database", "mysql://db/helios"], 2, "mysql"),
        (["--database", "postgresql://nobody@127.0.0.1:1/helios"], 3, "127.0.0.1"),
        (["--database", "{tmp}/file/helios.db"], 3, "file/helios.db"),
        (["--database", "{tmp}/a.db", "--listen", "8600"], 2, "expected HOST:PORT"),
        (["--database", "{tmp}/a.db", "--listen", "203.0.113.7:0"], 2, "203.0.113.7"),
        (["--database", "{tmp}/a.db", "--tls-cert", "{tmp}/file"], 2, "go together"),
        (["--database", "{tmp}/a.db", "--tls-cert", "{tmp}/file", "--tls-key", "{tmp}/file"], 2, "not usable together"),
        (["--database", "{tmp}/a.db", "--admin-token-file", "{tmp}/file"], 2, "holds what is no token"),
        (["--database", "{tmp}/a.db", "--admin-token-file", "{tmp}/no/token"], 2, "cannot be made"),
        (["--database", "{tmp}/a.db", "--oidc", "{tmp}/none.yaml"], 2, "none.yaml"),
    ],
)
def test_server_says_what_keeps_it_from_starting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    """What is wrong with an option, or not there, is a line or two and an exit code, and no traceback."""
    (tmp_path / "file").write_text("short")
    given = [word.format(tmp=tmp_path) for word in words]
    listen = [] if "--listen" in given else ["--listen", "127.0.0.1:0"]
    assert run(["server", *listen, *given]) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A port that something else holds is said before the database is opened."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(["server", "--database", str(tmp_path / "a.db"), "--listen", f"127.0.0.1:{port}"]) == 2
    assert f"port {port} of 127.0.0.1 is in use" in capsys.readouterr().err
    assert not (tmp_path / "a.db").exists()


@pytest.mark.parametrize("text", ["", "8600", "host", "host:", ":8600", "host:99999", "[::1:8600", "::1:8600", "a b:1"])
def test_listen_is_checked(text: str) -> None:
    """What is no host and port is refused with what one is like."""
    with pytest.raises(InputError, match="expected HOST:PORT"):
        Listen.parse(text)


def test_listen_takes_both_kinds_of_address() -> None:
    """Names, IPv4, and IPv6 in brackets."""
    assert Listen.parse("0.0.0.0:8600") == Listen("0.0.0.0", 8600)
    assert Listen.parse("[::1]:80") == Listen("::1", 80)
    assert Listen.parse("helios.internal:0") == Listen("helios.internal", 0)


def test_no_token_file_is_no_token() -> None:
    """Without a file there is no token that opens everything."""
    assert admin_token(None) == ""


def test_agent_is_killed_and_comes_back(served: Served, tmp_path: Path) -> None:
    """kill -9 of an agent touches no job; the next one finds them, and nothing was started twice."""
    agent = served.agent()
    for name in ("one", "two"):
        served.apply("Job", "jobs", name, {"entrypoint": "true", "resources": {"accelerators": "H100:8"}})
    until(lambda: served.state("/v1/jobs/one") == served.state("/v1/jobs/two") == "Running", why=lambda: agent.said)
    agent.kill()
    before = _generation(tmp_path)
    again = served.agent()
    until(lambda: _generation(tmp_path) > before, why=lambda: again.said)
    served.call("POST", "/v1/jobs/one/cancel")
    until(lambda: served.state("/v1/jobs/one") == "Cancelled", why=lambda: again.said)
    assert served.state("/v1/jobs/two") == "Running"
    assert served.call("GET", "/v1/jobs/two")["status"]["epoch"] == 1
    assert again.end() == 0
    driver = SimulatedDriver.open(name="sim", spec=CellSpec.model_validate(CELL), folder=tmp_path / "agent")
    history = driver.history()
    driver.close()
    assert len(history.spans) == 2
    assert history.violations == ()


def _generation(folder: Path) -> int:
    return int(json.loads((folder / "agent" / "agent.json").read_text())["generation"])


def _heard(served: Served) -> bool:
    return served.state("/v1/cells/sim") == "Ready"


def test_second_agent_takes_over(served: Served) -> None:
    """Of two agents of one cell the earlier one leaves with a reason and a code, and the later one goes on."""
    early = served.agent()
    until(lambda: _heard(served), why=lambda: early.said)
    late = served.agent()
    assert early.wait() == 2
    assert "another agent" in early.said
    assert "Traceback" not in early.said
    served.apply("Job", "jobs", "one", {"entrypoint": "true"})
    until(lambda: served.state("/v1/jobs/one") == "Running", why=lambda: late.said)
    assert late.end() == 0


def test_agent_starts_while_the_control_plane_is_away(served: Served, tmp_path: Path) -> None:
    """An agent that knew its cell once starts without being told again, and is heard when somebody listens."""
    agent = served.agent()
    served.apply("Job", "jobs", "one", {"entrypoint": "true"})
    until(lambda: served.state("/v1/jobs/one") == "Running", why=lambda: agent.said)
    agent.kill()
    served.process.child.send_signal(signal.SIGKILL)
    served.process.wait()
    again = served.agent()
    again.says("as it was last known")
    served.again()
    served.call("POST", "/v1/jobs/one/cancel")
    until(lambda: served.state("/v1/jobs/one") == "Cancelled", why=lambda: again.said)
    assert again.end() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "missing: --cell, --api, --token-file, --state"),
        (["--cell", "sim", "--api", "nowhere", "--token-file", "{tmp}/token", "--state", "{tmp}/s"], "not the URL"),
        (["--cell", "sim", "--api", "http://h", "--token-file", "{tmp}/none", "--state", "{tmp}/s"], "cannot be read"),
        (["--cell", "sim", "--api", "http://h", "--token-file", "{tmp}/token", "--state", "{tmp}/token"], "--state"),
    ],
)
def test_agent_says_what_keeps_it_from_starting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """What is wrong with an option is said at once."""
    (tmp_path / "token").write_text("a-token-for-tests")
    assert run(["agent", *(word.format(tmp=tmp_path) for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_agent_with_a_wrong_token(served: Served, tmp_path: Path) -> None:
    """A token that opens nothing ends the agent with a reason."""
    (tmp_path / "agent.token").write_text("hls_0123456789abcdef_" + "x" * 43)
    agent = served.agent()
    assert agent.wait() == 2
    assert "Traceback" not in agent.said


def test_tls_from_end_to_end(start: Start, tmp_path: Path) -> None:
    """Server and agent speak TLS, and an agent that does not trust the certificate says so and does not connect."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=helios"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    server = Served(start, tmp_path, "--tls-cert", str(certificate), "--tls-key", str(key), tls=str(certificate))
    server.apply("Cell", "cells", "sim", CELL)
    stranger = server.agent(state="stranger")
    stranger.says("certificate verify failed")
    assert stranger.end() == 0
    agent = server.agent("--ca-file", certificate)
    until(lambda: _heard(server), why=lambda: agent.said)
    assert agent.end() == 0
