"""`helios serve`: services deployed, listed and taken down."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from helios.cli.apply import FilesArgument, apply_all, load
from helios.cli.client import connect
from helios.cli.follow import said_of, settled
from helios.cli.output import Format, FormatOption, err, examples, out, show
from helios.cli.tables import objects_table
from helios.cli.waiting import wait_until
from helios.errors import WorkFailedError

FAILURES = 3
"""Starts in a row that may fail before `--wait` gives up; the control plane itself goes on trying."""

serve_app = typer.Typer(no_args_is_help=True, help="Services: models behind HTTP endpoints.")


def register(app: typer.Typer) -> None:
    app.add_typer(serve_app, name="serve", rich_help_panel="Use a model")


@serve_app.command(
    epilog=examples("helios serve deploy jobs/services/avatar.yaml", "helios serve deploy s.yaml --no-wait")
)
def deploy(
    files: FilesArgument,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it answers.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 600.0,
) -> None:
    """Deploy services; one that is unchanged is deployed anew, so that it takes up its model's newest version.

    Prints the URL of each on standard output.
    """
    documents = load(files, only=("Service",))
    with connect() as client:
        applied = apply_all(client, documents, console=err())
        for item in applied:
            if item.result == "unchanged":
                name = item.object["metadata"]["name"]
                client.action("Service", name, "redeploy")
                err().print(f"service/{escape(name)} deployed anew")
    if wait:
        for item in applied:
            name = item.object["metadata"]["name"]
            out().print(_await_ready(name, timeout_s=timeout), soft_wrap=True, markup=False)


@serve_app.command("list", epilog=examples("helios serve list", "helios serve list -o json"))
def list_services(how: FormatOption = Format.TABLE) -> None:
    """List services with their URLs."""
    with connect() as client:
        items = list(client.list("Service"))
    show(items, how, lambda: objects_table("Service", items))


@serve_app.command(epilog=examples("helios serve delete avatar"))
def delete(name: Annotated[str, typer.Argument(help="Name of a service.", show_default=False)]) -> None:
    """Take a service down."""
    with connect() as client:
        client.delete("Service", name)
    out().print(f"service/{escape(name)} deleted")


def _await_ready(name: str, *, timeout_s: float) -> str:
    hint = f"it goes on deploying; `helios explain {name}` says why"
    found = wait_until("Service", name, done=_is_ready, line=_standing, timeout_s=timeout_s, hint=hint)
    return str(found["status"]["url"])


def _is_ready(service: dict[str, Any]) -> bool:
    """Whether the service answers; raises `WorkFailedError` where it fails again and again, or for good."""
    status = service.get("status") or {}
    if not settled(service):
        return False
    if status.get("state") == "Failed" and ("retryAt" not in status or status.get("failures", 0) >= FAILURES):
        name = service["metadata"]["name"]
        raise WorkFailedError(f"service {name} failed: {said_of(status)}", hint=f"`helios explain {name}`")
    return status.get("state") == "Ready" and bool(status.get("url"))


def _standing(service: dict[str, Any]) -> str:
    status = service.get("status") or {}
    said = said_of(status)
    return (status.get("state") or "Pending") + (f" ({said})" if said else "")
