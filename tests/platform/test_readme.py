"""What README tells a reader to type exists."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

REPO = Path(__file__).parents[2]
README = REPO / "README.md"

if not README.exists():
    pytest.skip("README is part of the checkout, not of an installed wheel", allow_module_level=True)


def commands() -> list[str]:
    """Every line that starts with `$ ` in a fenced block, continuation lines joined."""
    blocks: list[str] = re.findall(
        r"```(?:console|bash|sh)\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.removeprefix("$ ").split("  #")[0].strip() for line in joined.splitlines() if line.startswith("$ ")]


def test_readme_shows_commands() -> None:
    """The README has the two set-up commands, first."""
    assert commands()[:2] == ["make quickstart", "make test"]


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_make_target_exists(line: str) -> None:
    """Every `make` line names a target of the Makefile."""
    target = line.split()[1]
    assert re.search(rf"^{re.escape(target)}:", (REPO / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("line", [line for line in commands() if "helios " in line and not line.startswith("make ")])
def test_helios_command_parses(line: str) -> None:
    """Every `helios` line names a command that exists and options that it has."""
    from helios.cli.main import app

    words = shlex.split(line[line.index("helios ") :])[1:]
    command: Any = typer.main.get_command(app)
    while words and (children := getattr(command, "commands", None)) and not words[0].startswith("-"):
        assert words[0] in children, f"no command {words[0]!r} in: {line}"
        command, words = children[words[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.split("=")[0] for word in words if word.startswith("-")}
    assert used <= known | {"--help"}, f"unknown options {used - known} in: {line}"


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!https?:)[^)#]+)", README.read_text(encoding="utf-8")))
def test_linked_file_exists(target: str) -> None:
    """Every relative link and picture in README points at a file."""
    assert (REPO / target).exists()
