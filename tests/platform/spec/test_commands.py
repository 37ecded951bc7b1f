import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from helios.cli import specs
from helios.errors import NotFoundError, Problem
from helios.spec import KINDS

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Runs `helios validate` or `helios schema`."""
    app = typer.Typer()
    specs.register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    """A job with a typo and a bad quantity."""
    path = tmp_path / "job.yaml"
    path.write_text(
        "apiVersion: helios/v1\nkind: Job\nmetadata: {name: x}\nspec:\n"
        "  entrypoint: run\n  resources: {memory: 2GB}\n  qso: standard\n"
    )
    return path


def test_valid_documents_are_listed(invoke: Invoke, repository: Path) -> None:
    """Kind, name, file and line of each; exit 0."""
    result = invoke("validate", repository / "cells" / "local.yaml", repository / "jobs")
    assert result.exit_code == 0, result.output
    assert "Curriculum" in result.stdout
    assert "tiny.yaml:2" in result.stdout.replace("\n", "")
    assert "all valid" in result.stdout


def test_problems_show_their_line_with_a_caret(invoke: Invoke, wrong: Path) -> None:
    """The source line, a caret as wide as the value, the nearest name; exit 2, nothing on standard output."""
    result = invoke("validate", wrong)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert "6 |   resources: {memory: 2GB}" in lines
    assert "  |                       ^^^" in lines
    assert "  |   ^^^ did you mean 'qos'?" in lines
    assert any(line.endswith(f"{wrong}:7:3") for line in lines)
    assert lines[-1] == "2 problems in 1 file"


def test_problems_as_json(invoke: Invoke, wrong: Path) -> None:
    result = invoke("validate", wrong, "-o", "json")
    data = json.loads(result.stdout)
    assert result.exit_code == 2
    assert data["valid"] is False
    assert [(one["line"], one["field"], one["nearest"]) for one in data["problems"]] == [
        (6, "spec.resources.memory", ""),
        (7, "spec.qso", "qos"),
    ]


def test_valid_documents_as_json(invoke: Invoke, repository: Path) -> None:
    data = json.loads(invoke("validate", repository / "cells" / "local.yaml", "-o", "json").stdout)
    assert data["valid"] is True
    assert (data["documents"][0]["kind"], data["documents"][0]["name"]) == ("Cell", "local")


def test_a_missing_file_is_a_problem_without_a_line(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("validate", tmp_path / "no.yaml")
    assert result.exit_code == 2
    assert "no such file" in result.stderr


def test_terminals_are_not_steered_by_what_files_say(invoke: Invoke, tmp_path: Path) -> None:
    """Control characters from a file do not reach the terminal, in no part of what is printed."""
    path = tmp_path / "x.yaml"
    path.write_text('apiVersion: "\\e[31m"\nkind: "[bold]x"\n"\\e]0;x\\a": 1\n')
    raw = tmp_path / "raw.yaml"
    raw.write_text("a: \x1b[31mred\n")
    result = invoke("validate", path, raw)
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert "[bold]x" in result.stderr


def test_a_secret_in_the_wrong_place_is_not_printed(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "apiVersion: helios/v1\nkind: Job\nmetadata: {name: x}\nspec: {entrypoint: a, secrets: {A: hf_abc}}\n"
    )
    result = invoke("validate", path)
    assert result.exit_code == 2
    assert "hf_abc" not in result.output


def test_carets_sit_under_wide_characters_and_in_long_lines() -> None:
    """East Asian characters take two cells; of a long line the part around the problem is shown."""
    line, indent, width = specs._window("name: 名前 x", 9, "x")
    assert (line, indent, width) == ("name: 名前 x", 11, 1)
    line, indent, width = specs._window("a" * 500 + "bad" + "c" * 500, 500, "bad")
    assert line[indent : indent + width] == "bad"
    assert len(line) <= specs.SNIPPET_WIDTH
    assert specs._problem_view(Problem("m", "f", 3, 9), ["a"]).plain.startswith("error: m")


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_printed_for_every_kind(invoke: Invoke, kind: str) -> None:
    """Named in any case; standard output is the schema alone."""
    assert json.loads(invoke("schema", kind.lower()).stdout)["title"] == kind


def test_an_unknown_kind_offers_the_nearest(invoke: Invoke) -> None:
    result = invoke("schema", "jbo")
    assert isinstance(result.exception, NotFoundError)
    assert result.exception.nearest == "Job"
