"""`helios usage`: where every GPU-second went, by tenant, cell or job."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from helios.cli.client import Object, connect
from helios.cli.durations import seconds_in
from helios.cli.output import Format, FormatOption, examples, show

BAR_WIDTH = 30
PRODUCTIVE = "productive"
STYLES: Mapping[str, str] = {
    PRODUCTIVE: "green",
    "checkpointing": "cyan",
    "recomputing": "magenta",
    "starting": "blue",
    "provisioning": "bright_blue",
    "queue-held": "yellow",
    "draining": "bright_yellow",
    "idle": "red",
    "unhealthy": "bright_red",
}
"""Colour of each bucket, in the order in which a bar shows them: what advances work comes first."""
LETTERS: Mapping[str, str] = dict(zip(STYLES, "PCRSVQDIU", strict=True))
"""What a bar is drawn with where there are no colours."""


class By(StrEnum):
    TENANT = "tenant"
    CELL = "cell"
    JOB = "job"


class Resource(StrEnum):
    GPU = "gpu"
    CPU = "cpu"


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Fleet",
        epilog=examples("helios usage", "helios usage --by job --since 24h", "helios usage --by cell -o json"),
    )(usage)


def usage(
    by: Annotated[By, typer.Option(help="What the rows are.")] = By.TENANT,
    *,
    since: Annotated[str, typer.Option(metavar="AGO", help="From how long ago on: 24h, 7d.")] = "7d",
    until: Annotated[str, typer.Option(metavar="AGO", help="Up to how long ago: 0s is now.")] = "0s",
    resource: Annotated[Resource, typer.Option(help="Device-seconds, or core-seconds.")] = Resource.GPU,
    top: Annotated[int, typer.Option(help="Rows of the table, the largest first; data has all.", min=1)] = 20,
    how: FormatOption = Format.TABLE,
) -> None:
    """Show where the time of allocated GPUs went; every second of an allocation is in exactly one bucket."""
    now = time.time()
    start, end = now - seconds_in(since, option="--since"), now - seconds_in(until, option="--until")
    with connect() as client:
        found = client.usage(by=by.value, since=start, until=end, resource=resource.value)
    show(found, how, lambda: usage_view(found["items"], by=by.value, resource=resource.value, top=top))


def usage_view(rows: Sequence[Object], *, by: str, resource: str, top: int) -> RenderableType:
    """Draw rows as stacked bars with what each bucket came to, and the sum of all."""
    if not rows:
        return Text(f"no {resource.upper()} was allocated in that time", style="dim")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(by.upper(), no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column(f"{resource.upper()}-HOURS", justify="right", no_wrap=True)
    table.add_column("PRODUCTIVE", justify="right", no_wrap=True)
    table.add_column("BUCKETS", no_wrap=True)
    table.add_column("MOST OF THE REST", no_wrap=True)
    for row in rows[:top]:
        _add(table, row)
    more = [Text(f"and {len(rows) - top} more; --top shows more of them", style="dim")] if len(rows) > top else []
    return Group(table, *more, Text(), _totals(rows, resource))


def _add(table: Table, row: Mapping[str, Any]) -> None:
    name = str(row["name"]) if row.get("kind") in {None, "Job"} else f"{row['kind'].lower()}/{row['name']}"
    shares = shares_of(row["seconds"])
    table.add_row(
        Text(name),
        f"{row['total'] / 3600:,.2f}",
        f"{shares.get(PRODUCTIVE, 0):.1%}",
        bar(shares),
        _largest_other(shares),
    )


def shares_of(seconds: Mapping[str, float]) -> dict[str, float]:
    """Each bucket's share of the whole, in the order of `STYLES`, then any that is not known here; they add up to 1."""
    total = sum(seconds.values())
    order = [*STYLES, *sorted(set(seconds) - set(STYLES))]
    return {bucket: seconds[bucket] / total for bucket in order if total and seconds.get(bucket)}


def bar(shares: Mapping[str, float], width: int = BAR_WIDTH) -> Text:
    """Shares as one stacked bar of exactly `width` characters; each edge is where its sum is."""
    drawn = Text()
    reached = 0.0
    for bucket, share in shares.items():
        start, reached = round(reached * width), reached + share
        drawn.append(LETTERS.get(bucket, "?") * (round(reached * width) - start), style=STYLES.get(bucket, ""))
    return drawn


def _totals(rows: Sequence[Mapping[str, Any]], resource: str) -> RenderableType:
    """All rows together, a line for each bucket; the key to the bars."""
    seconds: Counter[str] = Counter()
    for row in rows:
        seconds.update(row["seconds"])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("BUCKET", no_wrap=True)
    table.add_column(f"{resource.upper()}-HOURS", justify="right", no_wrap=True)
    table.add_column("SHARE", justify="right", no_wrap=True)
    table.add_column("")
    for bucket, share in shares_of(seconds).items():
        letter = LETTERS.get(bucket, "?")
        style = STYLES.get(bucket, "")
        part = Text(letter * round(share * BAR_WIDTH), style=style)
        table.add_row(
            Text.assemble((letter, style), f" {bucket}"), f"{seconds[bucket] / 3600:,.2f}", f"{share:.1%}", part
        )
    table.add_row(Text("  all", style="bold"), f"{seconds.total() / 3600:,.2f}", "100.0%", "")
    return table


def _largest_other(shares: Mapping[str, float]) -> str:
    others = [(share, bucket) for bucket, share in shares.items() if bucket != PRODUCTIVE]
    return f"{max(others)[1]} {max(others)[0]:.1%}" if others else "-"
