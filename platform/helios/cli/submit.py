"""`helios submit`: work handed in, and followed to its end."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from helios.cli.apply import FilesArgument, apply_all, load
from helios.cli.client import Applied, Client, Object, connect
from helios.cli.completion import WORK
from helios.cli.follow import ENDED, View, follow
from helios.cli.output import Format, FormatOption, err, examples, out, show, useful
from helios.errors import InputError, WorkFailedError

FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Show it until it ends.")]


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Work",
        epilog=examples(
            "helios submit jobs/curricula/tiny.yaml --follow",
            "helios submit jobs/curricula/tiny.yaml --rerun",
            "helios submit my-job.yaml my-other-job.yaml",
        ),
    )(submit)


def submit(
    files: FilesArgument,
    following: FollowOption = False,
    again: Annotated[bool, typer.Option("--rerun", help="Run again what is unchanged and ended.")] = False,
    how: FormatOption = Format.TABLE,
) -> None:
    """Hand in jobs and curricula; what is there unchanged is left as it is.

    With --follow the command ends as the work does: exit code 0 when it succeeded, 6 when it did not.
    """
    documents = load(files)
    if not any(loaded.document.kind in WORK for loaded in documents):
        raise InputError("there is no Job or Curriculum in what was given", hint="`helios apply` takes other kinds")
    if following and (endless := [one.document.metadata.name for one in documents if _has_schedule(one.document)]):
        raise InputError(
            f"job {endless[0]} has a schedule, so it has no end to follow", hint="submit it without --follow"
        )
    with connect() as client:
        applied = apply_all(client, documents, console=out() if how is Format.TABLE else err())
        work = [_started(client, item, again=again) for item in applied if item.object["kind"] in WORK]
        mlflow = mlflow_of(client)
    if how is not Format.TABLE:
        show([item.object for item in applied], how, lambda: "")
    for found in work:
        kind, name = found["kind"], found["metadata"]["name"]
        if following:
            finish(kind, name, mlflow=mlflow)
        else:
            _say_useful(kind, name, spec=found["spec"], mlflow=mlflow)


def finish(kind: str, name: str, *, mlflow: str) -> None:
    """Follow work to its end; raises `WorkFailedError` where that is not success."""
    console = err() if not out().is_terminal else out()
    try:
        view = follow(kind, name, console)
    except KeyboardInterrupt:
        console.print(f"\n{kind.lower()}/{escape(name)} goes on without being followed.")
        _say_useful(kind, name, mlflow=mlflow)
        raise
    _say_useful(kind, name, view, mlflow=mlflow)
    if view.state != "Succeeded":
        raise WorkFailedError(
            f"{kind.lower()} {name} {view.state.lower()}{_why(view)}", hint=f"`helios explain {name}`"
        )


def _started(client: Client, applied: Applied, *, again: bool) -> Object:
    kind, name = applied.object["kind"], applied.object["metadata"]["name"]
    state = (applied.object.get("status") or {}).get("state", "Pending")
    if applied.result == "unchanged" and state in ENDED:
        if again:
            client.rerun(kind, name, everything=state == "Succeeded")
            out().print(f"{kind.lower()}/{escape(name)} runs again")
        else:
            err().print(f"It {state.lower()} before and nothing changed since; run it again with --rerun.", style="dim")
    return applied.object


def _why(view: View) -> str:
    failed = next((row for row in view.rows if row.state in {"Failed", "Cancelled"}), None)
    said = f"{failed.name}: {failed.message or failed.reason}" if failed and view.kind == "Curriculum" else view.message
    return f": {said}" if said else ""


def mlflow_of(client: Client) -> str:
    """Where MLflow is, asked for while the control plane answers; empty where there is none."""
    return str((client.status().get("links") or {}).get("mlflow") or "")


def _has_schedule(document: Any) -> bool:
    return document.kind == "Job" and document.spec.schedule is not None


def _say_useful(
    kind: str, name: str, view: View | None = None, *, mlflow: str, spec: Mapping[str, Any] | None = None
) -> None:
    of_interest = [row.name for row in (view.rows if view and kind == "Curriculum" else ()) if row.state != "Succeeded"]
    stage = f"/{of_interest[0]}" if of_interest else ""
    lines = _made_by(name, spec or {}) or [
        (f"helios logs {'' if view and view.ended else '-f '}{name}{stage}", "its output")
    ]
    lines.append((f"helios explain {name}", "what happened, why it waits"))
    if view is None or not view.ended:
        lines.append((f"helios cancel {name}", "stop it"))
    if mlflow:
        lines.append((mlflow, "its losses, videos and lineage in MLflow"))
    useful(*lines)


def _made_by(name: str, spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How to look at the jobs that an array or a schedule makes; empty for what runs itself."""
    if spec.get("array"):
        return [
            (f"helios get jobs -l helios/array={name}", "its members"),
            (f"helios logs -f {name}-0", "the output of the first"),
        ]
    return [(f"helios get jobs -l helios/schedule={name} -w", "its runs")] if spec.get("schedule") else []
