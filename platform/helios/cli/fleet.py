"""`helios cell`: cells joined, listed and described."""

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from helios.cli import cells
from helios.cli.apply import FilesArgument, apply_all, load
from helios.cli.client import connect
from helios.cli.follow import settled
from helios.cli.output import Format, FormatOption, examples, out, show, table_of
from helios.cli.tables import conditions_table, objects_table
from helios.cli.waiting import wait_until

cell_app = typer.Typer(no_args_is_help=True, help="Cells: the clusters that work runs on.")


def register(app: typer.Typer) -> None:
    cells.register(cell_app)
    app.add_typer(cell_app, name="cell", rich_help_panel="Fleet")


@cell_app.command("apply", epilog=examples("helios cell apply cells/local.yaml", "helios cell apply cells/ --wait"))
def apply_cells(
    files: FilesArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until each is Ready.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 600.0,
) -> None:
    """Create or change cells from YAML."""
    documents = load(files, only=("Cell",))
    with connect() as client:
        applied = apply_all(client, documents, console=out())
    if wait:
        for item in applied:
            _await_ready(item.object["metadata"]["name"], timeout_s=timeout)


@cell_app.command("list", epilog=examples("helios cell list", "helios cell list -o json"))
def list_cells(how: FormatOption = Format.TABLE) -> None:
    """List cells and whether they are Ready."""
    with connect() as client:
        items = list(client.list("Cell"))
    show(items, how, lambda: objects_table("Cell", items))


@cell_app.command(epilog=examples("helios cell describe local", "helios cell describe local -o yaml"))
def describe(
    name: Annotated[str, typer.Argument(help="Name of a cell.", show_default=False)], how: FormatOption = Format.TABLE
) -> None:
    """Show a cell: its conditions, pools, nodes and what runs on it."""
    with connect() as client:
        cell = client.get("Cell", name)
        placed = [
            item
            for kind in ("Job", "Service")
            for item in client.list(kind)
            if ((item.get("status") or {}).get("placement") or {}).get("cell") == name
        ]
    show(cell, how, lambda: _described(cell, placed))


def _described(cell: dict[str, Any], placed: list[dict[str, Any]]) -> RenderableType:
    spec, status = cell["spec"], cell.get("status") or {}
    nodes = status.get("nodes") or []
    rows = [
        [
            node["name"],
            node.get("pool") or "-",
            f"{node.get('cpus', 0):g}",
            f"{node.get('memory', 0) / 2**30:.1f} GiB",
            ", ".join(f"{kind}:{count}" for kind, count in (node.get("accelerators") or {}).items()) or "-",
            "healthy" if node.get("healthy", True) else "unhealthy",
        ]
        for node in nodes
    ]
    work = [
        [f"{item['kind'].lower()}/{item['metadata']['name']}", str((item.get("status") or {}).get("state"))]
        for item in placed
    ]
    title = Text.assemble((cell["metadata"]["name"], "bold"), f"  {_state(cell)}  {spec['provider']}  ")
    title.append(f"{spec.get('region') or ''}  standard {spec.get('standard')}", style="dim")
    return Group(
        title,
        Text(),
        conditions_table(status),
        Text(),
        table_of(("NODE", "POOL", "CPUS", "MEMORY", "ACCELERATORS", "HEALTH"), rows, empty="no nodes seen yet"),
        Text(),
        table_of(("PLACED HERE", "STATE"), work, empty="nothing is placed here"),
    )


def _await_ready(name: str, *, timeout_s: float) -> None:
    wait_until(
        "Cell",
        name,
        done=lambda cell: _state(cell) == "Ready" and settled(cell),
        line=_standing,
        timeout_s=timeout_s,
        hint=f"`helios cell describe {name}` shows its conditions",
    )
    out().print(f"cell/{escape(name)} [green]Ready[/green]")


def _standing(cell: dict[str, Any]) -> str:
    conditions = (cell.get("status") or {}).get("conditions") or []
    open_ones = [item for item in conditions if item["status"] != "True"]
    why = (open_ones[0].get("message") or open_ones[0].get("reason") or "") if open_ones else ""
    done = f"{len(conditions) - len(open_ones)}/{len(conditions)} conditions"
    return f"{_state(cell)}, {done}" + (f" ({why})" if why else "")


def _state(cell: dict[str, Any]) -> str:
    return (cell.get("status") or {}).get("state") or "Pending"
