"""`helios cell plan`: what a cell would be made of, and its price, before any of it is there."""

import importlib.metadata
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from helios.cli.output import Format, FormatOption, err, examples, show, table_of
from helios.errors import InputError, Problem, SpecError, UnavailableError

if TYPE_CHECKING:
    from helios.ports import CellPlan, PlannedResource, Provisioner
    from helios.spec import Cell, Loaded

PROVISIONERS = "helios.provisioners"
HOURS_A_MONTH = 730
FileArgument = Annotated[Path, typer.Argument(help="YAML file with a cell.", show_default=False)]


def register(cell_app: typer.Typer) -> None:
    cell_app.command(
        epilog=examples(
            "helios cell plan cells/aws-use1-h100.yaml", "helios cell plan cells/aws-use1-h100.yaml -o json"
        )
    )(plan)


def plan(file: FileArgument, how: FormatOption = Format.TABLE) -> None:
    """Show what provisioning a cell would create, with its price an hour. Nothing is created, and no cloud is asked."""
    loaded, cell = _the_cell(file)
    provisioner = _provisioner(cell.spec.provider)
    console = err()
    try:
        with console.status("planning") as status:
            planned = provisioner.plan(cell, on_progress=lambda said: status.update(f"planning: {escape(said)}"))
    except SpecError as error:
        raise SpecError([_placed(problem, loaded) for problem in error.problems], hint=error.hint) from error
    show(_json(planned), how, lambda: _view(planned, cell))


def _the_cell(file: Path) -> "tuple[Loaded, Cell]":
    from helios.spec import Cell, load_documents

    found = [(loaded, loaded.document) for loaded in load_documents([file]) if isinstance(loaded.document, Cell)]
    if len(found) != 1:
        raise InputError(f"{file} holds {len(found)} cells; a plan is of one")
    return found[0]


def _provisioner(provider: str) -> "Provisioner":
    entries = {entry.name: entry for entry in importlib.metadata.entry_points(group=PROVISIONERS)}
    if provider not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise InputError(
            f"nothing provisions cells of provider {provider!r}",
            hint=f"a cell of provider local needs no plan; installed provisioners: {known}",
        )
    try:
        made: Provisioner = entries[provider].load()()
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"planning a cell on {provider} needs the package {error.name}, which is not installed",
            hint=f"pip install 'helios-platform[{provider}]'",
        ) from error
    return made


def _placed(problem: Problem, loaded: "Loaded") -> Problem:
    """Give a problem the line of its field, or of the nearest field above it that was written."""
    path = problem.field
    while path and path not in loaded.positions:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    line, column = loaded.positions.get(path, (loaded.line, 0))
    return replace(problem, file=loaded.file, line=line, column=column)


def _json(planned: "CellPlan") -> dict[str, Any]:
    return {
        "cell": planned.cell,
        "pricePerHour": round(planned.price_per_hour, 4),
        "pricePerMonth": round(planned.price_per_hour * HOURS_A_MONTH, 2),
        "currency": "USD",
        "resources": [
            {("pricePerHour" if name == "price_per_hour" else name): value for name, value in asdict(resource).items()}
            for resource in planned.resources
        ],
        "notes": list(planned.notes),
    }


def _view(planned: "CellPlan", cell: "Cell") -> RenderableType:
    hour = planned.price_per_hour
    title = Text.assemble((planned.cell, "bold"), f"  {cell.spec.provider}  {cell.spec.region}  ")
    title.append(f"{len(planned.resources)} resources would be created", style="dim")
    total = Text.assemble(
        ("Total  ", "bold"), (f"${hour:,.2f} an hour", "bold green"), f"  ${hour * HOURS_A_MONTH:,.0f} a month"
    )
    priced = table_of(("COSTS", "NAME", "COUNT", "USD/HOUR", "NOTE"), _priced(planned))
    free = table_of(("FREE", "NAME", "COUNT"), _free(planned))
    notes = [Text(f"- {note}", style="dim") for note in planned.notes]
    return Group(title, Text(), priced, Text(), free, Text(), total, *notes)


def _priced(planned: "CellPlan") -> list[list[str]]:
    """What costs money, the dearest first and what is billed by use last."""
    dear = [resource for resource in planned.resources if resource.price_per_hour != 0]
    return [
        [
            _short(resource.type),
            _own_name(resource, planned),
            str(resource.quantity),
            "by use" if resource.price_per_hour is None else f"{resource.price_per_hour:,.3f}",
            resource.note,
        ]
        for resource in sorted(dear, key=lambda one: -(one.price_per_hour or 0.0))
    ]


def _free(planned: "CellPlan") -> list[list[str]]:
    """The rest, counted by type."""
    counted: dict[str, list[PlannedResource]] = defaultdict(list)
    for resource in planned.resources:
        if resource.price_per_hour == 0:
            counted[resource.type].append(resource)
    return [
        [_short(kind), ", ".join(sorted(_own_name(one, planned) for one in same)), str(len(same))]
        for kind, same in sorted(counted.items())
    ]


def _own_name(resource: "PlannedResource", planned: "CellPlan") -> str:
    """A resource's name without the cell's, which all have in front."""
    return resource.name.removeprefix(f"{planned.cell}-")


def _short(kind: str) -> str:
    """`aws:ec2/natGateway:NatGateway` as `ec2 NatGateway`."""
    _, module, name = kind.split(":")
    return f"{module.partition('/')[0]} {name}"
