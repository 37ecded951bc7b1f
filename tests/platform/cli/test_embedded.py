"""`helios up`, `status` and `down` where nothing runs: said clearly, nothing left behind."""

import json
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from helios.adapters.programs import NO_PID, Program, end
from helios.adapters.ray_local.records import Records, Start
from helios.cli.home import Home, Progress
from helios.cli.main import run
from helios.durable import write_json
from helios.errors import EngineError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HELIOS_HOME", str(tmp_path / "state"))
    return Home(tmp_path / "state")


def test_import_is_light() -> None:
    """The commands cost no engine and no server framework until one of them runs."""
    heavy = "{'ray', 'mlflow', 'sqlalchemy', 'fastapi', 'uvicorn', 'psutil', 'httpx', 'torch'}"
    program = f"import sys, helios.cli.embedded; print(sorted({heavy} & sys.modules.keys()))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"


def test_status_where_nothing_runs(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Every program is down, as JSON too, and the exit code is 3."""
    assert run(["status", "-o", "json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["up"] is False
    assert {row["name"]: row["state"] for row in told["components"]} == {"HELIOS": "down", "MLflow": "down"}
    assert not home.root.exists(), "looking makes nothing"


def test_down_where_nothing_runs(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to end, and that is no error."""
    assert run(["down"]) == 0
    assert "not running" in capsys.readouterr().err
    home.create()
    assert run(["down"]) == 0


def test_port_that_is_taken(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """A fixed port that something else holds is refused before anything starts."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert run(["up", "--port", str(port)]) == 2
    assert f"port {port} is in use" in capsys.readouterr().err
    assert not home.daemon.exists()
    assert "api" not in home.ports()


def test_half_started_daemon_is_ended_before_the_next(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of `helios up` before it noted its daemon's process: the next `up` ends that daemon, not two of them."""
    half = Program("HELIOS", home.daemon)
    started = half.start([sys.executable, "-c", "import time; time.sleep(600)"], log=home.log)
    write_json(home.daemon, {"handle": asdict(replace(started, pid=NO_PID, created=0.0)), "facts": {}})

    def cannot(*_: object, **__: object) -> None:
        raise EngineError("not in this test")

    monkeypatch.setattr(Program, "start", cannot)
    try:
        assert run(["up"]) == EngineError.exit_code
        assert not started.is_alive()
    finally:
        end(started, name="daemon", term_s=0.0)


def test_down_ends_all_where_ray_is_gone(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """A service that ran in a Ray that died is no reason to wait, to fail, or to leave other programs running."""
    home.create()
    ray = Program("Ray", home.cell("local") / "ray.json")
    facts = {"dashboard": "http://127.0.0.1:9", "port": "9", "serve": "9"}
    dead = ray.start([sys.executable, "-c", ""], log=home.log, facts=facts)
    spec = {"application": "some.app:build", "replicas": 1}
    service = Start("Service", "avatar", "uid-1", 1, 1, spec, {}, at=0.0, instance=dead.mark)
    with Records(home.cell("local") / "launches").of("uid-1") as entry:
        entry.save(service)
    mlflow = Program("MLflow", home.mlflow / "server.json")
    other = mlflow.start([sys.executable, "-c", "import time; time.sleep(600)"], log=home.log)
    try:
        assert run(["down"]) == 0
        assert not other.is_alive()
    finally:
        end(other, name="MLflow", term_s=0.0)
    shown = capsys.readouterr()
    assert "service avatar ends with its Ray" in shown.err
    assert "HELIOS is down" in shown.out


def test_state_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state folder in the place of a file is the caller's error."""
    (tmp_path / "file").write_text("")
    assert run(["up", "--dir", str(tmp_path / "file")]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_token_is_made_once_for_its_owner(home: Home) -> None:
    """The token stays, and only its owner may read it."""
    home.create()
    token = home.token()
    assert home.token() == token
    assert len(token) > 30
    assert (home.root / "token").stat().st_mode & 0o777 == 0o600
    assert home.root.stat().st_mode & 0o777 == 0o700


def test_progress_of_an_earlier_daemon_counts_for_nothing(home: Home) -> None:
    """`up` waits for the daemon it started, not for the words of one before."""
    home.create()
    Progress(pid=1, states={"API": "ready"}).write(home.components)
    assert Progress.read(home.components, pid=2) is None
    mine = Progress.read(home.components, pid=1)
    assert mine is not None
    assert mine.ready
