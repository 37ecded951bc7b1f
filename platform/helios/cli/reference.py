"""Makes docs/reference/cli.md from the commands themselves: `make reference`."""

import sys
from collections.abc import Iterator
from typing import Any

import typer.main

from helios.cli.main import EXIT_CODES, app

HEAD = """\
# Commands

<!-- Made by `make reference` from platform/helios/cli; a test holds it true. Edit the commands there. -->

"""


def reference() -> str:
    """The page, whole."""
    return HEAD + EXIT_CODES + "\n" + "".join(_sections(typer.main.get_command(app), "helios"))


def _sections(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is None:
        yield f"\n## {path}\n\n{_plain(command.help)}\n{_table(command)}{_examples(command)}"
    for name, child in sorted((children or {}).items()):
        yield from _sections(child, f"{path} {name}")


def _table(command: Any) -> str:
    rows = [
        f"| {_name(item)} | {_plain(item.help)}{_default(item)} |\n" for item in command.params if item.name != "help"
    ]
    return "\n| argument or option | |\n|---|---|\n" + "".join(rows) if rows else ""


def _name(parameter: Any) -> str:
    if parameter.opts[0].startswith("-"):
        return ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
    return f"`{parameter.name.upper()}`" + ("" if parameter.required else " (optional)")


def _default(parameter: Any) -> str:
    if parameter.required and parameter.opts[0].startswith("-"):
        return " Required."
    default = getattr(parameter.default, "value", parameter.default)
    shown = default not in (None, "", False, True, ()) and not callable(default)
    return f" Default: `{default}`." if shown else ""


def _examples(command: Any) -> str:
    lines = [line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith("$ ")]
    return "\n```console\n" + "".join(f"{_plain(line)}\n" for line in lines) + "```\n" if lines else ""


def _plain(text: str | None) -> str:
    """Help text without the escapes of Rich's markup, fit for a table cell."""
    return " ".join((text or "").replace("\\[", "[").replace("|", "\\|").split())


if __name__ == "__main__":
    sys.stdout.write(reference())
