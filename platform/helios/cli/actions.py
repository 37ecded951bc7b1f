"""`helios cancel`, `preempt` and `rerun`: work taken back, moved aside, and tried again."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from helios.cli.client import Client, connect
from helios.cli.completion import WORK, complete_job, complete_work
from helios.cli.confirming import confirmed
from helios.cli.follow import ENDED
from helios.cli.objects import SelectorOption
from helios.cli.output import err, examples, out, said
from helios.cli.submit import FollowOption, finish, mlflow_of
from helios.cli.targets import find_all, find_work
from helios.errors import InputError

Work = tuple[str, str]
"""Kind and name."""
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Work",
        epilog=examples("helios cancel tiny", "helios cancel job-a job-b", "helios cancel -l team=avatar --yes"),
    )(cancel)
    app.command(rich_help_panel="Work", epilog=examples("helios preempt my-job", "helios preempt job-a job-b"))(preempt)
    app.command(rich_help_panel="Work", epilog=examples("helios rerun tiny --follow", "helios rerun tiny --all"))(rerun)


def cancel(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Jobs, curricula, or stages as NAME/STAGE.", autocompletion=complete_work),
    ] = None,
    selector: SelectorOption = "",
    yes: YesOption = False,
) -> None:
    """Stop work; running workers get notice and may write a checkpoint.

    Where one of the names is not there, nothing is cancelled. --selector takes all that is not over.
    """
    if bool(names) == bool(selector):
        raise InputError("give either names or --selector")
    with connect() as client:
        work = _selected(client, selector) if selector else _named(client, names or [], WORK)
        if not work:
            err().print(f"nothing that is not over has the labels {escape(selector)}", style="dim")
            return
        if selector and not confirmed(f"Cancel {_listed(work)}?", yes=yes):
            return
        for kind, name in work:
            state = (client.cancel(kind, name).get("status") or {}).get("state")
            over = state in ENDED and state != "Cancelled"
            said(f"{kind.lower()}/{escape(name)} {f'was over: {state}' if over else 'cancelled'}")


def preempt(
    names: Annotated[
        list[str],
        typer.Argument(help="Jobs, or stages as NAME/STAGE.", autocompletion=complete_job, show_default=False),
    ],
) -> None:
    """Make running jobs give their place to others; they write a checkpoint, and go on from it when it is their turn.

    Where one of the names is not there, nothing is preempted.
    """
    with connect() as client:
        for kind, name in _named(client, names, ("Job",)):
            client.action(kind, name, "preempt")
            said(f"job/{escape(name)} makes room; it goes back to the queue")


def rerun(
    name: Annotated[
        str,
        typer.Argument(
            help="A job, a curriculum, or one stage as NAME/STAGE.", show_default=False, autocompletion=complete_work
        ),
    ],
    following: FollowOption = False,
    everything: Annotated[bool, typer.Option("--all", help="Begin a new run, and not where it failed.")] = False,
) -> None:
    """Try a failed or cancelled job or curriculum again; what had succeeded is kept, unless --all is given."""
    with connect() as client:
        kind, found = find_work(client, name, WORK)
        name = found["metadata"]["name"]
        client.rerun(kind, name, everything=everything)
        mlflow = mlflow_of(client)
    out().print(f"{kind.lower()}/{escape(name)} runs again")
    if following:
        finish(kind, name, mlflow=mlflow)


def _named(client: Client, names: Sequence[str], kinds: Sequence[str]) -> list[Work]:
    found = find_all(client, names, kinds)
    return list(dict.fromkeys((kind, item["metadata"]["name"]) for kind, item in found))


def _selected(client: Client, selector: str) -> list[Work]:
    """All work with the labels that is not over; the jobs of a curriculum that is among it go with it."""
    found = [
        (kind, item)
        for kind in reversed(WORK)
        for item in client.list(kind, selector=selector)
        if (item.get("status") or {}).get("state") not in ENDED
    ]
    return [(kind, item["metadata"]["name"]) for kind, item in found]


def _listed(work: Sequence[Work], most: int = 5) -> str:
    names = ", ".join(f"{kind.lower()}/{name}" for kind, name in work[:most])
    return names if len(work) <= most else f"{names} and {len(work) - most} more"
