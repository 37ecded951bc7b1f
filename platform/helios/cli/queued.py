"""`helios queue`: what waits for a place, in the order in which it will get one."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from helios.cli.client import connect
from helios.cli.completion import complete_tenant
from helios.cli.output import Format, FormatOption, age, examples, show, table_of, until


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Work", epilog=examples("helios queue", "helios queue --tenant research -o json"))(
        queue
    )


def queue(
    tenant: Annotated[str, typer.Option(help="Only what this tenant pays for.", autocompletion=complete_tenant)] = "",
    how: FormatOption = Format.TABLE,
) -> None:
    """Show what waits, first things first: place, what it asks for, since when, expected start, and why it waits."""
    with connect() as client:
        waiting = [item for item in client.queue()["items"] if tenant in {"", item["tenant"]}]
        if tenant and not waiting:
            client.get("Tenant", tenant)  # a name that nobody has is a typo, not an empty queue
    show(waiting, how, lambda: queue_table(waiting, empty="nothing waits"))


def queue_table(waiting: Iterable[Mapping[str, Any]], *, empty: str) -> RenderableType:
    """Build the table of entries of the queue."""
    return table_of(_COLUMNS, map(_row, waiting), empty=empty)


_COLUMNS = ("NAME", "#", "QOS", "PRIO", "TENANT", "ASKS FOR", "WAITING", "STARTS IN", "REASON")


def _row(item: Mapping[str, Any]) -> list[str | Text]:
    return [
        f"{item['kind'].lower()}/{item['name']}",
        str(item["position"]),
        item["qos"],
        str(item["priority"]),
        item["tenant"],
        asked(item["workers"], item["request"]),
        age(item.get("queuedAt")),
        until((item.get("reservation") or {}).get("at")),
        Text(item.get("reason") or "-", style="yellow"),
    ]


def asked(workers: Mapping[str, int], request: Mapping[str, Any]) -> str:
    """A gang's request in short: `4 x H100:8`, `1-2 x 8 CPUs`."""
    least, most = workers["min"], workers["max"]
    count = str(least) if least == most else f"{least}-{most}"
    if request.get("accelerator"):
        number = request["share"] / 1000 if request.get("share") else request["accelerators"]
        each = f"{request['accelerator']}:{number:g}"
    else:
        each = f"{request['millicpus'] / 1000:g} CPUs"
    return f"{count} x {each}"
