"""`helios events`: what happened, as lines."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.text import Text

from helios.cli.client import Client, Object, connect, kind_of
from helios.cli.output import Format, FormatOption, err, examples, out, show, table_of
from helios.cli.steady import steady

WAIT_S = 10.0


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Work",
        epilog=examples("helios events", "helios events --kind job --name my-job", "helios events -f"),
    )(events)


def events(
    kind: Annotated[str, typer.Option(help="Only of this kind.")] = "",
    name: Annotated[str, typer.Option(help="Only of this name.")] = "",
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    how: FormatOption = Format.TABLE,
) -> None:
    """Show what happened, oldest first; with --follow, JSON and YAML come as one JSON object a line."""
    what = kind_of(kind) if kind else ""
    with connect() as client:
        items, after = _so_far(client, what, name)
    if not following:
        show(items, how, lambda: events_table(items))
        return
    _say(items, how)
    _follow(what, name, after, how)


def events_table(items: list[Object]) -> Any:
    """Build the table of events."""
    rows = [[clock(item["time"]), _whose(item), _reason(item), item["message"]] for item in items]
    return table_of(("TIME", "OBJECT", "REASON", "MESSAGE"), rows, empty="nothing happened yet")


def clock(stamp: str) -> str:
    """The time of day of an ISO 8601 timestamp, in UTC."""
    return stamp[11:19]


def _so_far(client: Client, kind: str, name: str) -> tuple[list[Object], int]:
    items: list[Object] = []
    after = 0
    while page := client.events(kind=kind, name=name, after=after)["items"]:
        items += page
        after = page[-1]["number"]
    return items, after


def _follow(kind: str, name: str, after: int, how: Format) -> None:
    seen = [after]  # survives a reconnect

    def fetch(client: Client) -> Object:
        return client.events(kind=kind, name=name, after=seen[0], wait_s=WAIT_S)

    for page in steady(fetch, notice=lambda said: err().print(said, style="yellow"), every_s=0.05):
        _say(page["items"], how)
        seen[0] = page["next"]


def _say(items: list[Object], how: Format) -> None:
    for item in items:
        if how is Format.TABLE:
            line = Text.assemble(clock(item["time"]), "  ", _whose(item), "  ", _reason(item), "  ", item["message"])
            out().print(line, soft_wrap=True)
        else:
            typer.echo(json.dumps(item, ensure_ascii=False))


def _whose(item: Mapping[str, Any]) -> str:
    return f"{item['kind'].lower()}/{item['name']}"


def _reason(item: Mapping[str, Any]) -> Text:
    return Text(item["reason"], style="yellow" if item["type"] == "Warning" else "")
