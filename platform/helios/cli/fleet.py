"""`helios cell`: cells joined, listed and described."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from helios.cli import cells, cordons
from helios.cli.apply import FilesArgument, apply_all, load
from helios.cli.cell_view import described
from helios.cli.client import connect
from helios.cli.follow import settled
from helios.cli.output import Format, FormatOption, examples, out, show
from helios.cli.placements import headroom_in, held_by, holders, summary
from helios.cli.tables import objects_table
from helios.cli.waiting import wait_until

cell_app = typer.Typer(no_args_is_help=True, help="Cells: the clusters that work runs on.")


def register(app: typer.Typer) -> None:
    cells.register(cell_app)
    cordons.register(cell_app)
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
def describe(name: cordons.CellArgument, how: FormatOption = Format.TABLE) -> None:
    """Show a cell: conditions, pools, nodes by state, cordons, health findings, and what runs there."""
    with connect() as client:
        cell = client.get("Cell", name)
        here = [item for item in holders(client) if (place := held_by(item)) is not None and place["cell"] == name]
    placed = [summary(item) for item in here]
    headroom = [found for item in here if (found := headroom_in(item, name)) is not None]
    show({**cell, "placed": placed, "headroom": headroom}, how, lambda: described(cell, placed, headroom))


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
