"""`helios status`: what runs on this machine, or, where HELIOS_API is set, how that control plane and its fleet are."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from helios.cli import embedded
from helios.cli.cell_view import node_state
from helios.cli.client import Client, Object, connect
from helios.cli.output import Format, FormatOption, examples, show, state_text, table_of
from helios.cli.placements import devices, held_by, holders
from helios.cli.tables import Cells


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Fleet", epilog=examples("helios status", "helios status -o json"))(status)


def status(directory: embedded.DirOption = None, how: FormatOption = Format.TABLE) -> None:
    """Show what runs: programs, cells and how full they are, work by state. Exits with 3 where HELIOS is not up.

    Where HELIOS_API is set, it is that control plane which is shown: its replica, who leads, and its fleet.
    """
    if directory is not None or not os.environ.get("HELIOS_API"):
        embedded.status(directory, how)
        return
    with connect() as client:
        data = _fleet(client)
    show(data, how, lambda: _view(data))


def _fleet(client: Client) -> dict[str, Any]:
    held: dict[str, Counter[str]] = {}
    for item in holders(client):
        if place := held_by(item):
            counts = held.setdefault(place["cell"], Counter())
            counts["work"] += 1
            counts["gpus"] += devices(place)[1]  # type: ignore[assignment]  # Counter counts parts, too
    cells = [_cell(cell, held.get(cell["metadata"]["name"]) or Counter()) for cell in client.list("Cell")]
    return {**client.status(), "api": client.url, "cells": cells, "waiting": len(client.queue()["items"])}


def _cell(cell: Object, held: Counter[str]) -> dict[str, Any]:
    status = cell.get("status") or {}
    nodes, cordons = status.get("nodes") or [], status.get("cordons") or {}
    return {
        "name": cell["metadata"]["name"],
        "state": status.get("state") or "Pending",
        "nodes": dict(Counter(node_state(node, cordons) for node in nodes)),
        "gpus": sum(sum((node.get("accelerators") or {}).values()) for node in nodes),
        "gpusHeld": held["gpus"],
        "work": held["work"],
    }


def _view(data: Mapping[str, Any]) -> RenderableType:
    leader = data.get("leader") or {}
    rows: list[Cells] = [
        [
            cell["name"],
            state_text(cell["state"]),
            ", ".join(f"{count} {state}" for state, count in cell["nodes"].items()) or "none seen",
            f"{cell['gpusHeld']:g}/{cell['gpus']}" if cell["gpus"] else "-",
            str(cell["work"]),
        ]
        for cell in data["cells"]
    ]
    who = leader.get("holder") or "nobody yet"
    return Group(
        Text.assemble((data["api"], "bold"), f"  HELIOS {data['version']}  revision {data['revision']}"),
        Text.assemble("answered by ", data.get("replica") or "-", "  led by ", (who, "green" if leader else "red")),
        Text(),
        table_of(("CELL", "STATE", "NODES", "GPUS HELD", "WORK"), rows, empty="no cells yet"),
        Text(),
        *_counts(data["objects"]),
        Text.assemble(("QUEUE       ", "bold"), f"{data['waiting']} wait for a place"),
    )


def _counts(objects: Mapping[str, Mapping[str, int]]) -> Sequence[Text]:
    shown = [(kind, states) for kind, states in objects.items() if kind not in {"cells", "tenants"}]
    return [
        Text.assemble(
            (f"{kind.upper():<12}", "bold"),
            "  ".join(f"{state} {count}" for state, count in sorted(states.items())) or "none",
        )
        for kind, states in shown
    ]
