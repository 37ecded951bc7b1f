"""How the client finds the control plane, and how its answers become our errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from helios.cli.client import Client, Endpoint, find_home, kind_of
from helios.cli.transport import error_of
from helios.errors import (
    ConflictError,
    HeliosError,
    InputError,
    NotFoundError,
    Problem,
    SpecError,
    UnavailableError,
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HELIOS_HOME", "HELIOS_API", "HELIOS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def _state(folder: Path, port: object = 1234) -> Path:
    home = folder / ".helios"
    home.mkdir(parents=True)
    (home / "ports.json").write_text(json.dumps({"api": port}))
    (home / "token").write_text("secret\n")
    return home


def test_nearest_state_folder_is_found_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project's own control plane is found from any folder in it."""
    _state(tmp_path)
    inner = _state(tmp_path / "a", 2345)
    below = tmp_path / "a" / "b" / "c"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_home() == inner
    assert Endpoint.find() == Endpoint("http://127.0.0.1:2345", "secret", inner)


def test_environment_names_another_state_folder_or_another_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HELIOS_HOME takes the place of the search, HELIOS_API of the folder."""
    home = _state(tmp_path / "elsewhere")
    monkeypatch.setenv("HELIOS_HOME", str(home))
    assert Endpoint.find().token == "secret"
    monkeypatch.setenv("HELIOS_API", "http://fleet.example:80/")
    monkeypatch.setenv("HELIOS_TOKEN", "t")
    assert Endpoint.find() == Endpoint("http://fleet.example:80", "t")


@pytest.mark.parametrize("port", ["not a number", None, [1]])
def test_unreadable_state_folder_is_unavailable(tmp_path: Path, port: object) -> None:
    """A damaged ports.json is said with its folder, not tripped over."""
    _state(tmp_path, port)
    with pytest.raises(UnavailableError, match=r"\.helios cannot be read"):
        Endpoint.find()


def test_no_state_folder_is_not_running() -> None:
    """Nothing there: how to start it."""
    with pytest.raises(UnavailableError, match="helios up"):
        Endpoint.find()


@pytest.mark.parametrize(
    "error",
    [
        ConflictError("it changed", hint="try again"),
        UnavailableError("away"),
        SpecError([Problem("is wrong", field="spec.x", value="1", nearest="y")], hint="h"),
        NotFoundError("job", "x", known=["xy"], hint="h"),
    ],
)
def test_errors_survive_the_wire(error: HeliosError) -> None:
    """What the API raised is what the client raises: class, message, hint and data."""
    from helios.api.problems import of_error

    back = error_of(error.http_status, json.loads(bytes(of_error(error).body)))
    assert type(back) is type(error)
    assert (back.message, back.hint) == (error.message, error.hint)
    if isinstance(error, SpecError):
        assert isinstance(back, SpecError)
        assert back.problems == error.problems


@pytest.mark.parametrize(("status", "kind"), [(418, InputError), (500, HeliosError), (502, UnavailableError)])
def test_answers_without_our_code_keep_their_sense(status: int, kind: type[HeliosError]) -> None:
    """A proxy's error still has the right exit code."""
    assert type(error_of(status, {})) is kind


def test_another_program_on_the_port_is_not_helios(serve: Any) -> None:
    """An answer that is not ours is said to be so, whatever it is."""
    app = FastAPI()
    app.get("/v1/status")(lambda: PlainTextResponse("hello"))
    with Client(Endpoint(serve(app), "t")) as client:
        with pytest.raises(UnavailableError, match="not HELIOS"):
            client.status()
        with pytest.raises(InputError, match="404"):
            client.get("Job", "x")


@pytest.mark.parametrize("word", ["job", "Job", "JOBS", "jobs"])
def test_kinds_are_known_by_any_usual_word(word: str) -> None:
    """Singular, plural, any case."""
    assert kind_of(word) == "Job"
    assert kind_of("curriculums") == kind_of("curricula") == "Curriculum"


def test_names_cannot_lead_elsewhere(serve: Any) -> None:
    """A name with path characters stays one name."""
    app = FastAPI()
    seen: list[str] = []

    @app.get("/{path:path}")
    def anything(path: str) -> dict[str, str]:
        seen.append(path)
        return {}

    with Client(Endpoint(serve(app), "t")) as client:
        client.get("Job", "../status")
    assert seen == ["v1/jobs/../status"]
