"""The command line is an interface: commands and flags change on purpose, with the list beside this test.

`make reference` remakes the list, and the page of commands; say in CHANGELOG.md what changed.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from helios.cli.main import app
from helios.cli.reference import reference

FROZEN = Path(__file__).with_name("frozen_flags.txt")


def flags(command: Any, path: str) -> Iterator[str]:
    """One line for each command, argument and option, as `helios cell apply --wait`."""
    yield path
    for parameter in command.params:
        words = sorted((*parameter.opts, *parameter.secondary_opts)) if parameter.opts[0].startswith("-") else []
        yield f"{path} {' '.join(words) or f'<{parameter.name}>'}"
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from flags(child, f"{path} {name}")


def current() -> str:
    return "\n".join(flags(typer.main.get_command(app), "helios")) + "\n"


def test_flags_are_the_committed_ones() -> None:
    """No command or flag appears, changes or goes away unnoticed."""
    assert current() == FROZEN.read_text(encoding="utf-8")


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
    for name, child in (children or {}).items():
        yield from _commands(child, (*path, name))


def test_every_command_has_help_with_examples() -> None:
    """Each command says what it does and shows how it is typed."""
    for path, command in _commands(typer.main.get_command(app)):
        assert command.help, path
        assert f"$ helios {' '.join(path)}" in (command.epilog or ""), f"no example in `helios {' '.join(path)} --help`"


def test_every_option_says_what_it_is_for() -> None:
    """No option is without a word of help."""
    for path, command in _commands(typer.main.get_command(app)):
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"helios {' '.join(path)}: {parameter.name}"


def test_reference_page_is_what_the_commands_say() -> None:
    """docs/reference/cli.md is the page that `make reference` makes now."""
    page = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
    assert page.read_text(encoding="utf-8") == reference()


if __name__ == "__main__":
    FROZEN.write_text(current(), encoding="utf-8")
    sys.stdout.write(f"wrote {FROZEN}\n")
