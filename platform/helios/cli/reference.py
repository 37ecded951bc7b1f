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

CONVENTIONS = """

## Conventions

- **Data**: what shows data takes `-o json` and `-o yaml`; data is on standard output, and everything said about it on
  standard error. Tables fit 100 columns, and have no colours where there is no terminal.
- **Bad input is never half done**: of several names or documents all are checked before anything is changed.
- **Replicas**: `HELIOS_API` takes several URLs, separated by commas; where one does not answer, the next is asked.
  While none does, as during a failover, what can safely be repeated is tried again for ten seconds, and this is said.
  An apply or a submit carries an idempotency key, so that however often it is sent it is done once. Followers (`-f`,
  `-w`) go on through restarts of the control plane.
- **Completion**: `helios --install-completion` sets up the shell (bash, zsh, fish, PowerShell); `--show-completion`
  prints what it would add. Names of objects are asked of the control plane; one that does not answer within a second
  completes nothing.
"""


def reference() -> str:
    """The page, whole."""
    return HEAD + EXIT_CODES + CONVENTIONS + "".join(_sections(typer.main.get_command(app), "helios"))


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
