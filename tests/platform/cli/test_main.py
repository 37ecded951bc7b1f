"""The edge of the CLI: what it imports, how errors are said, and what it exits with."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer

from helios.cli import main
from helios.errors import (
    ConflictError,
    EngineError,
    ForbiddenError,
    HeliosError,
    NoSpaceError,
    TooManyError,
    UnauthorizedError,
    UnavailableError,
    WorkFailedError,
)

HEAVY = ("torch", "ray", "mlflow", "fastapi", "sqlalchemy", "uvicorn", "pulumi", "httpx")


@pytest.mark.parametrize("module", ["helios.cli", "helios.cli.main"])
def test_importing_the_cli_imports_nothing_heavy(module: str) -> None:
    """`helios --help` must not pay for what other commands need."""
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


SMALLEST = """
import typer

app = typer.Typer()


@app.command()
def one(name: str = "x") -> None:
    "One."


app()
"""


def test_help_answers_at_once(tmp_path: Path) -> None:
    """`helios --help` costs less than three times the help of the smallest Typer program, measured in turn."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def cost(*program: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *program, "--help"], check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # In ratio, the best of some: seconds of processor time double where others use the machine.
    pairs = [(cost("-m", "helios.cli.main"), cost("-c", SMALLEST)) for _ in range(6)]
    ours, smallest = (min(side) for side in zip(*pairs, strict=True))
    assert ours < 3 * smallest


def test_help_documents_exit_codes(cli: Any) -> None:
    """The exit codes of the error tree are in `helios --help`."""
    result = cli("--help")
    assert result.code == 0
    for code in (0, 1, 2, 3, 4, 5, 6, 130):
        assert f" {code} " in result.out.replace("\n", " ").replace(":", ": ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConflictError("no", hint="do that"), 2),
        (UnauthorizedError("no"), 2),
        (ForbiddenError("no"), 2),
        (TooManyError("no", hint="do that"), 2),
        (UnavailableError("no", hint="do that"), 3),
        (EngineError("no"), 4),
        (NoSpaceError("no"), 5),
        (WorkFailedError("no"), 6),
        (HeliosError("no"), 1),
    ],
)
def test_error_becomes_its_exit_code_and_one_line(
    cli: Any, monkeypatch: pytest.MonkeyPatch, error: HeliosError, code: int
) -> None:
    """Each error of the tree leaves as `Error: ...` with its hint on stderr, and its exit code."""
    monkeypatch.setattr("helios.cli.objects.connect", _raising(error))
    result = cli("get", "jobs")
    assert result.code == code
    assert result.out == ""
    assert result.err.startswith("Error: ")
    assert ("Hint: do that" in result.err) == bool(error.hint)


def test_unexpected_error_shows_a_traceback_only_when_asked(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect is one line and exit 1; HELIOS_DEBUG=1 adds the traceback."""
    monkeypatch.setattr("helios.cli.objects.connect", _raising(ZeroDivisionError("by [nought]")))
    result = cli("get", "jobs")
    assert (result.code, "ZeroDivisionError: by [nought]" in result.err) == (1, True)
    assert "Traceback" not in result.err
    monkeypatch.setenv("HELIOS_DEBUG", "1")
    assert "Traceback" in cli("get", "jobs").err


def test_interrupt_exits_130(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends quietly with 130."""
    monkeypatch.setattr("helios.cli.objects.connect", _raising(KeyboardInterrupt()))
    result = cli("get", "jobs")
    assert result.code == 130
    assert "Traceback" not in result.err


def test_not_running_says_how_to_start(cli: Any) -> None:
    """Without a control plane around, commands say so and exit 3."""
    result = cli("get", "jobs")
    assert result.code == 3
    assert result.err == "Error: HELIOS is not running here; start it with `helios up`\n"


@pytest.mark.parametrize("words", [["nonsense"], ["get"], ["get", "jobs", "--no-such"], ["get", "nonsense"]])
def test_wrong_usage_exits_2(cli: Any, words: list[str]) -> None:
    """A command line that makes no sense is the caller's input."""
    result = cli(*words)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_plugin_joins_and_a_broken_one_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Entry points of `helios.commands` become sub-commands; one that cannot be loaded harms nobody."""
    plugin = typer.Typer()
    plugin.command("hello")(lambda: typer.echo("hello from a plugin"))
    plugin.callback()(lambda: None)
    good = EntryPoint("extra", "tests_plugin:app", main.PLUGINS)
    bad = EntryPoint("broken", "no_such_module:app", main.PLUGINS)
    monkeypatch.setattr(
        EntryPoint, "load", lambda self: plugin if self.name == "extra" else __import__("no_such_module")
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [good, bad])
    monkeypatch.setattr(main, "app", main.build())
    assert "Plugin broken is left out" in capfd.readouterr().err
    assert main.run(["extra", "hello"]) == 0
    assert capfd.readouterr().out == "hello from a plugin\n"


def _raising(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it
