"""`helios agent`: the programs that run in a cell. Its own, and one on each node that has GPUs."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from helios.cli.output import Format, FormatOption, examples, show, table_of
from helios.cli.server import PANEL, LogOption
from helios.errors import InputError

if TYPE_CHECKING:
    from helios.agent.node import Look

STYLES = {"drain": "bold red", "cordon": "red", "alert": "yellow"}
StateOption = Annotated[
    Path | None,
    typer.Option("--state", envvar="HELIOS_AGENT_STATE", help="Folder that outlives this program.", show_default=False),
]


class Driver(StrEnum):
    """As `helios.cli.hosting.DriverKind`, which would import Ray's adapter for `helios --help`."""

    AUTO = "auto"
    RAY_LOCAL = "ray_local"
    SIMULATED = "simulated"


def register(app: typer.Typer) -> None:
    group = typer.Typer(invoke_without_command=True)
    group.callback(
        epilog=examples(
            "helios agent --cell a --api https://helios.example:8600 --token-file a.token --state /var/lib/helios"
        )
    )(agent)
    group.command(epilog=examples("helios agent node --state /var/lib/helios", "helios agent node --state . --once"))(
        node
    )
    app.add_typer(group, name="agent", rich_help_panel=PANEL)


def agent(
    context: typer.Context,
    *,
    cell: Annotated[str, typer.Option(envvar="HELIOS_CELL", help="The cell to look after.")] = "",
    api: Annotated[
        str,
        typer.Option(
            metavar="URL", envvar="HELIOS_API", help="The control plane; several replicas are separated by commas."
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="HELIOS_AGENT_TOKEN_FILE", help="Holds the cell's token.", show_default=False),
    ] = None,
    state: StateOption = None,
    driver: Annotated[Driver, typer.Option(help="What runs the work; as the cell's provider asks for it.")] = (
        Driver.AUTO
    ),
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) to trust besides this machine's.", show_default=False)
    ] = None,
    mlflow: Annotated[
        str, typer.Option(metavar="URL", envvar="MLFLOW_TRACKING_URI", help="Tracker that jobs are told of.")
    ] = "",
    log_format: LogOption = "console",
) -> None:
    """Look after a cell until SIGTERM: fetch what it is to run, run it, say how it is. Connects out, never in.

    What runs goes on when this ends, and when the control plane cannot be reached.
    """
    if context.invoked_subcommand is not None:
        return
    given = {"--cell": cell, "--api": api, "--token-file": token_file, "--state": state}
    if missing := [name for name, value in given.items() if not value]:
        raise InputError(f"missing: {', '.join(missing)}", hint="`helios agent --help` says what each is")
    from helios.cli import cell_agent  # drivers, and what they run on: not for `helios --help`
    from helios.cli.hosting import DriverKind
    from helios.cli.replica import configure_logging

    assert token_file is not None
    assert state is not None
    configure_logging(log_format, replica=cell)
    cell_agent.serve(
        cell_agent.Options(
            cell=cell,
            api=api,
            token_file=token_file,
            state=state,
            driver=DriverKind(driver.value),
            ca_file=str(ca_file or ""),
            mlflow=mlflow,
        )
    )


def node(
    *,
    name: Annotated[
        str, typer.Option(envvar="HELIOS_NODE", help="As its cell knows it; this machine's where not set.")
    ] = "",
    state: StateOption = None,
    rules: Annotated[
        Path | None, typer.Option(help="Health rules (YAML), in the place of those shipped.", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, print what is seen, and leave.")] = False,
    how: FormatOption = Format.TABLE,
    log_format: LogOption = "console",
) -> None:
    """Watch this node's GPUs until SIGTERM, and tell the cell's agent what is wrong with them."""
    import socket

    from helios.agent.health import SHIPPED, load_rules
    from helios.agent.node import NodeAgent
    from helios.agent.nvml import NvmlGpus
    from helios.cli import cell_agent
    from helios.cli.replica import configure_logging

    if state is None:
        raise InputError("missing: --state", hint="the state folder of the cell's agent, which reads what is found")
    watcher = NodeAgent(NvmlGpus(), load_rules(rules or SHIPPED), node=name or socket.gethostname(), state_dir=state)
    if once:
        _print(watcher.look(), watcher.node, how)
        return
    configure_logging(log_format, replica=watcher.node)
    watcher.run(cell_agent.stop_on_signal())


def _print(look: "Look", name: str, how: Format) -> None:
    from helios.agent.node import as_json
    from helios.wire import finding_to_json

    data: dict[str, Any] = {
        "node": name,
        "driver": look.reading.driver,
        "problem": look.reading.problem,
        "gpus": [as_json(gpu) for gpu in look.reading.gpus],
        "findings": [finding_to_json(finding) for finding in look.findings],
    }
    show(data, how, lambda: _table(data))


def _table(data: dict[str, Any]) -> RenderableType:
    found: dict[str, list[dict[str, str]]] = {}
    for finding in data["findings"]:
        found.setdefault(finding.get("device", ""), []).append(finding)
    gpus = [
        [
            str(gpu["index"]),
            gpu["name"] or "-",
            f"{gpu['memory'] / 2**30:.0f} GiB" if gpu["memory"] else "-",
            f"{gpu['temperature']:.0f} °C" if "temperature" in gpu else "-",
            _rules(found.get(gpu["uuid"] or str(gpu["index"]), [])),
        ]
        for gpu in data["gpus"]
    ]
    why = f"no GPUs: {data['problem']}" if data["problem"] else "no GPUs"
    lines = [[_action(item), item["rule"], item.get("device") or "node", item["message"]] for item in data["findings"]]
    return Group(
        table_of(("GPU", "NAME", "MEMORY", "TEMP", "STATE"), gpus, empty=why),
        Text(),
        table_of(("ACTION", "RULE", "WHERE", "WHAT"), lines, empty="nothing is wrong"),
    )


def _rules(findings: list[dict[str, str]]) -> Text:
    return Text(", ".join(item["rule"] for item in findings), style="red") if findings else Text("ok", style="green")


def _action(finding: dict[str, str]) -> Text:
    return Text(finding["action"], style=STYLES[finding["action"]])
