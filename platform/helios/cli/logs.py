"""`helios logs`: what work printed, through its restarts."""

import sys
from typing import Annotated

import typer
from rich.markup import escape

from helios.cli.client import Client, LogPart, Object, connect
from helios.cli.completion import complete_work
from helios.cli.output import err, examples
from helios.cli.steady import steady
from helios.cli.targets import current_stage, find_work, stage_job
from helios.errors import InputError

WAIT_S = 10.0
_WAITING = frozenset({"Pending", "Queued"})


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Work", epilog=examples("helios logs -f tiny", "helios logs tiny/distill", "helios logs my-job")
    )(logs)


def logs(
    name: Annotated[
        str,
        typer.Argument(
            help="A job, a curriculum, or one stage as NAME/STAGE.", show_default=False, autocompletion=complete_work
        ),
    ],
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the work ends.")] = False,
) -> None:
    """Print what a job printed, from its first start on."""
    with connect() as client:
        kind, found = find_work(client, name, ("Job", "Curriculum"))
        job = found["metadata"]["name"]
        _refuse_makers(found)
        if kind == "Curriculum":
            job = stage_job(found, current_stage(found))
            err().print(f"[dim]stage {escape(current_stage(found))} (job {escape(job)})[/dim]", soft_wrap=True)
        _say_where_it_waits(found)
        if not following:
            _print_all(client, job)
            return
    _follow(job)


def _refuse_makers(found: Object) -> None:
    """Raise for a job that only makes others: what is printed is printed by those."""
    name = found["metadata"]["name"]
    for what in ("array", "schedule"):
        if found["kind"] == "Job" and found["spec"].get(what):
            hint = f"`helios get jobs -l helios/{what}={name}` lists them"
            raise InputError(f"job {name} only makes other jobs, and prints nothing itself", hint=hint)


def _say_where_it_waits(found: Object) -> None:
    """Say of a job that has no place why nothing comes, lest silence look like an answer."""
    status, name = found.get("status") or {}, found["metadata"]["name"]
    state = status.get("state") or "Pending"
    if found["kind"] == "Job" and state in _WAITING:
        said = f"job {name} is {state} and prints nothing now; `helios explain {name}` says why"
        err().print(said, style="dim", markup=False, soft_wrap=True)


def _print_all(client: Client, job: str) -> None:
    epoch, offset = 0, 0
    while True:
        part = client.logs(job, epoch=epoch, offset=offset, wait_s=0)
        _write(part.data)
        if not part.data and (part.epoch, part.offset) == (epoch, offset):
            return
        epoch, offset = part.epoch, part.offset
        if part.ended:
            return


def _follow(job: str) -> None:
    at = [0, 0]  # epoch and offset; survive a reconnect

    def fetch(client: Client) -> LogPart:
        return client.logs(job, epoch=at[0], offset=at[1], wait_s=WAIT_S)

    for part in steady(fetch, notice=lambda said: err().print(said, style="yellow"), every_s=0.05):
        if at[0] and part.epoch != at[0]:
            err().print(f"[yellow]started again (epoch {part.epoch})[/yellow]")
        _write(part.data)
        at[:] = [part.epoch, part.offset]
        if part.ended:
            return


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
