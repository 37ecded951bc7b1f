"""`helios cell cordon`, `drain` and `uncordon`: nodes, or whole cells, taken out of use and given back."""

import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from helios.cli.client import Client, connect
from helios.cli.completion import complete_cell
from helios.cli.confirming import confirmed
from helios.cli.output import err, examples, out, said
from helios.cli.placements import held_by, holders
from helios.cli.steady import steady
from helios.errors import NotFoundError, UnavailableError

CellArgument = Annotated[str, typer.Argument(help="Name of a cell.", show_default=False, autocompletion=complete_cell)]
NodeOption = Annotated[
    list[str] | None, typer.Option("--node", help="Only this node; may be given several times.", show_default=False)
]
ReasonOption = Annotated[str, typer.Option(help="Why; everybody who looks at the cell reads it.")]


def register(cell_app: typer.Typer) -> None:
    cell_app.command(
        epilog=examples(
            "helios cell cordon use1 --node gpu-017 --reason 'fan noise'", "helios cell cordon use1 --reason upgrade"
        )
    )(cordon)
    cell_app.command(
        epilog=examples("helios cell drain use1 --node gpu-017 --wait", "helios cell drain use1 --reason upgrade --yes")
    )(drain)
    cell_app.command(epilog=examples("helios cell uncordon use1 --node gpu-017", "helios cell uncordon use1"))(uncordon)


def cordon(name: CellArgument, node: NodeOption = None, reason: ReasonOption = "") -> None:
    """Place nothing new on a cell, or on some of its nodes; what runs there goes on."""
    _ask("cordon", name, node, reason=reason, done="cordoned")


def drain(
    name: CellArgument,
    *,
    node: NodeOption = None,
    reason: ReasonOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing runs there.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 600.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a whole cell is drained.")] = False,
) -> None:
    """Cordon a cell, or some of its nodes, and move their work elsewhere, each job from its newest checkpoint."""
    if not node and not confirmed(f"Move everything away from cell {name}?", yes=yes):
        return
    _ask("drain", name, node, reason=reason, done="draining")
    if wait:
        _await_empty(name, node or [], timeout_s=timeout)


def uncordon(name: CellArgument, node: NodeOption = None) -> None:
    """Use a cell, or some of its nodes, again."""
    _ask("uncordon", name, node, reason="", done="in use again")


def _ask(verb: str, name: str, nodes: Sequence[str] | None, *, reason: str, done: str) -> None:
    with connect() as client:
        cell = client.get("Cell", name)
        known = [node["name"] for node in (cell.get("status") or {}).get("nodes") or []]
        known += (cell.get("status") or {}).get("cordons") or {}  # a node may be gone, and still be cordoned
        for node in nodes or ():
            if node not in known:
                raise NotFoundError("node", node, known=known, hint=f"`helios cell describe {name}` shows the nodes")
        for node in nodes or ("",):
            client.cell_action(name, verb, node=node, reason=reason)
            whose = f"cell/{name} node {node}" if node else f"cell/{name}"
            said(f"{escape(whose)} {done}")


def _await_empty(name: str, nodes: Sequence[str], *, timeout_s: float) -> None:
    """Raises `UnavailableError` where work is still there after the timeout."""
    console, deadline = err(), time.monotonic() + timeout_s

    def left(client: Client) -> list[str]:
        return [
            f"{item['kind'].lower()}/{item['metadata']['name']}"
            for item in holders(client)
            if (place := held_by(item)) and place["cell"] == name and (not nodes or set(nodes) & set(place["nodes"]))
        ]

    with console.status("moving work away") as spinner:
        for work in steady(left, notice=console.print):
            if not work:
                out().print(f"nothing runs there any more: {escape(name)}", soft_wrap=True)
                return
            spinner.update(f"{len(work)} left: {escape(', '.join(work[:3]))}")
            if time.monotonic() > deadline:
                raise UnavailableError(f"{', '.join(work[:5])} still run there", hint="the drain goes on")
