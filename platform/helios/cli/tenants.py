"""`helios tenant`: who pays, what they may use, and what they use now."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from helios.cli.client import Object, connect
from helios.cli.completion import complete_tenant
from helios.cli.output import Format, FormatOption, examples, show, state_text, table_of
from helios.cli.placements import devices, held_by, holders, summary
from helios.cli.queued import queue_table
from helios.cli.tables import Cells

MOST_ROWS = 30

tenant_app = typer.Typer(no_args_is_help=True, help="Tenants: who pays, and what they may use.")


def register(app: typer.Typer) -> None:
    app.add_typer(tenant_app, name="tenant", rich_help_panel="Fleet")


@tenant_app.command("list", epilog=examples("helios tenant list", "helios tenant list -o json"))
def list_tenants(how: FormatOption = Format.TABLE) -> None:
    """List tenants with their quota, what they hold of it now, and how much of their work waits."""
    with connect() as client:
        tenants = list(client.list("Tenant"))
        held = _held(holders(client))
        waiting = Counter(item["tenant"] for item in client.queue()["items"])
    rows = [_row(tenant, held, waiting) for tenant in tenants]
    show(rows, how, lambda: table_of(_COLUMNS, map(_cells, rows), empty="no tenants"))


@tenant_app.command(epilog=examples("helios tenant describe research", "helios tenant describe research -o yaml"))
def describe(
    name: Annotated[str, typer.Argument(help="Name of a tenant.", show_default=False, autocompletion=complete_tenant)],
    how: FormatOption = Format.TABLE,
) -> None:
    """Show a tenant: quota and what is held of it, what runs, and what waits."""
    with connect() as client:
        tenant = client.get("Tenant", name)
        placed = list(holders(client, tenant=name))
        waiting = [item for item in client.queue()["items"] if item["tenant"] == name]
    row = _row(tenant, _held(placed), Counter({name: len(waiting)}))
    data = {**tenant, "held": row["held"], "placed": [summary(item) for item in placed], "queue": waiting}
    show(data, how, lambda: Group(*_described(tenant, data)))


def _held(placed: Iterable[Object]) -> Mapping[str, Counter[str]]:
    """Accelerators held, by tenant and type; `running` counts the jobs and services that hold anything."""
    held: dict[str, Counter[str]] = defaultdict(Counter)
    for item in placed:
        place = held_by(item)
        tenant = item["spec"]["tenant"]
        held[tenant]["running"] += 1
        if place is not None and (found := devices(place))[0]:
            held[tenant][f"accelerator:{found[0]}"] += found[1]  # type: ignore[assignment]  # Counter counts parts, too
    return held


def _row(tenant: Object, held: Mapping[str, Counter[str]], waiting: Mapping[str, int]) -> dict[str, Any]:
    name, spec = tenant["metadata"]["name"], tenant["spec"]
    mine = held.get(name) or Counter[str]()
    quotas = {quota["accelerator"]: quota["nominalQuota"] for quota in spec.get("quotas") or []}
    used = {key.partition(":")[2]: count for key, count in mine.items() if key.startswith("accelerator:")}
    return {
        "name": name,
        "cohort": spec.get("cohort"),
        "weight": spec.get("weight", 1),
        "quota": quotas,
        "held": used,
        "running": mine["running"],
        "waiting": waiting.get(name, 0),
    }


_COLUMNS = ("NAME", "COHORT", "WEIGHT", "HELD/QUOTA", "RUNNING", "WAITING")


def _cells(row: Mapping[str, Any]) -> list[str | Text]:
    return [
        row["name"],
        row["cohort"] or "-",
        f"{row['weight']:g}",
        ", ".join(f"{kind} {held:g}/{quota}" for kind, held, quota in _by_accelerator(row)) or "-",
        str(row["running"]),
        str(row["waiting"]),
    ]


def _by_accelerator(row: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Type, devices held, and quota of each type that is granted or held; no quota at all limits nothing."""
    quota, held = row["quota"], row["held"]
    ungranted = "0" if quota else "unlimited"
    kinds = sorted({*quota, *held})
    return [(kind, held.get(kind, 0), str(quota[kind]) if kind in quota else ungranted) for kind in kinds]


def _limit(limit: int | None, spec: Mapping[str, Any]) -> str:
    """What may be borrowed or lent; without a cohort there is nobody to lend to."""
    if not spec.get("cohort"):
        return "-"
    return "all" if limit is None else str(limit)


def _described(tenant: Object, data: Mapping[str, Any]) -> Sequence[RenderableType]:
    spec = tenant["spec"]
    title = Text.assemble((tenant["metadata"]["name"], "bold"), f"  weight {spec.get('weight', 1):g}")
    title.append(f"  cohort {spec['cohort']}" if spec.get("cohort") else "", style="dim")
    quotas = [
        [
            quota["accelerator"],
            f"{data['held'].get(quota['accelerator'], 0):g}",
            str(quota["nominalQuota"]),
            _limit(quota.get("borrowingLimit"), spec),
            _limit(quota.get("lendingLimit"), spec),
        ]
        for quota in spec.get("quotas") or []
    ]
    work: list[Cells] = [
        [
            f"{item['kind'].lower()}/{item['name']}",
            state_text(str(item["state"])),
            str(item["qos"]),
            str(item["workers"]),
        ]
        for item in data["placed"][:MOST_ROWS]
    ]
    more = len(data["placed"]) - MOST_ROWS
    return [
        title,
        Text(),
        table_of(
            ("ACCELERATOR", "HELD", "QUOTA", "MAY BORROW", "LENDS"), quotas, empty="no quota is set: nothing is limited"
        ),
        Text(),
        table_of(("HOLDS RESOURCES", "STATE", "QOS", "WORKERS"), work, empty="nothing of it holds resources"),
        *([Text(f"and {more} more; -o json has them all", style="dim")] if more > 0 else []),
        Text(),
        queue_table(data["queue"][:MOST_ROWS], empty="nothing of it waits"),
    ]
