"""What every command prints with: consoles, the formats of `-o`, tables that fit 100 columns, and durations."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

WIDTH = 100
_SHOWN_AS = {"\t": " ", "\n": " "}


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="How to print.", show_default=True)]

STYLES = {
    "Ready": "green",
    "Running": "green",
    "Succeeded": "green",
    "Failed": "bold red",
    "Cancelled": "yellow",
    "Preempting": "yellow",
    "Recovering": "yellow",
    "Queued": "cyan",
    "Pending": "dim",
}


def out() -> Console:
    """Standard output: colours only on a terminal, and 100 columns where there is none."""
    return _console(stderr=False)


def err() -> Console:
    return _console(stderr=True)


class SafeConsole(Console):
    """A console on which what a job or a person wrote somewhere cannot move the cursor or steer the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(printable, segment.text.split("\n"))), segment.style)


def printable(text: str) -> str:
    """`text` without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else _SHOWN_AS.get(char, "\N{REPLACEMENT CHARACTER}") for char in text)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return SafeConsole(stderr=stderr, highlight=False, width=None if stream.isatty() else WIDTH)


def said(line: str) -> None:
    """Print a line about something that was done; a reader who went away does not keep the rest from being done."""
    with contextlib.suppress(SystemExit):  # which is how rich ends a program whose pipe is broken
        out().print(line, soft_wrap=True)


def examples(*commands: str) -> str:
    """Build the epilog of a command's --help."""
    return "Examples:\n\n" + "\n\n".join(f"  $ {escape(command)}" for command in commands)


def show(data: Any, how: Format, table: Callable[[], RenderableType]) -> None:
    """Print data as JSON, YAML or by its table."""
    if how is Format.JSON:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif how is Format.YAML:
        import yaml

        typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
    else:
        out().print(table())


def table_of(columns: Iterable[str], rows: Iterable[Iterable[str | Text]], *, empty: str = "") -> RenderableType:
    """Build a plain table; `empty` is printed in its place where there are no rows."""
    listed = [list(row) for row in rows]
    if not listed and empty:
        return Text(empty, style="dim")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="ellipsis" if index == 0 else "fold")
    for row in listed:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def state_text(state: str) -> Text:
    return Text(state, style=STYLES.get(state, ""))


def useful(*commands: tuple[str, str]) -> None:
    """Print the "Useful commands" that end a submit, on stderr so that output stays data."""
    console = err()
    console.print("\nUseful commands", style="bold")
    width = max(len(command) for command, _ in commands)
    for command, what in commands:
        console.print(f"  [cyan]{escape(command.ljust(width))}[/cyan]  {escape(what)}", soft_wrap=True)


def seconds_of(stamp: str | float | None) -> float | None:
    """Read a timestamp of the API (ISO 8601 or seconds) as seconds since the epoch."""
    if stamp is None or stamp == "":
        return None
    if isinstance(stamp, int | float):
        return float(stamp)
    parsed = datetime.fromisoformat(stamp)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def age(stamp: str | float | None, *, until: str | float | None = None) -> str:
    """Say how long ago a timestamp is, or how long before `until`."""
    start = seconds_of(stamp)
    if start is None:
        return "-"
    end = seconds_of(until)
    return duration((time.time() if end is None else end) - start)


def until(stamp: str | float | None) -> str:
    """Say how far ahead a timestamp is; `0s` where it has passed."""
    due = seconds_of(stamp)
    return "-" if due is None else duration(due - time.time())


def duration(seconds: float | None) -> str:
    """Write 192.4 as `3m12s`; `-` for None."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    for unit, size, lower, lower_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // lower_size:02d}{lower}"
    return f"{whole}s"
