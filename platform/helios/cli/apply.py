"""`helios apply`, `get` and `delete`: documents in, objects out."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from helios.cli.client import KINDS, Applied, Client, connect, kind_of
from helios.cli.output import Format, FormatOption, examples, out, show
from helios.cli.tables import objects_table
from helios.errors import InputError, Problem, SpecError

if TYPE_CHECKING:
    from helios.spec import Loaded  # pydantic: only a command that reads documents pays for it

FilesArgument = Annotated[list[Path], typer.Argument(help="YAML files, or folders of them.", show_default=False)]


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Objects", epilog=examples("helios apply cells/local.yaml", "helios apply jobs/ -o json")
    )(apply)
    app.command(
        rich_help_panel="Objects",
        epilog=examples("helios get jobs", "helios get curriculum tiny -o yaml", "helios get jobs -l team=avatar"),
    )(get)
    app.command(rich_help_panel="Objects", epilog=examples("helios delete job my-job", "helios delete service avatar"))(
        delete
    )


def apply(files: FilesArgument, how: FormatOption = Format.TABLE) -> None:
    """Create or change objects from YAML; nothing is changed where a document is not valid."""
    documents = load(files)
    with connect() as client:
        applied = [apply_one(client, loaded) for loaded in documents]
    if how is Format.TABLE:
        say_applied(applied)
    else:
        show([item.object for item in applied], how, lambda: "")


def get(
    kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS.values())}.")],
    name: Annotated[str | None, typer.Argument(help="One object; all of them without it.")] = None,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Labels, as in team=avatar,tier=gold.")] = "",
    how: FormatOption = Format.TABLE,
) -> None:
    """Show objects of a kind."""
    what = kind_of(kind)
    if name and selector:
        raise InputError("give either a name or --selector")
    with connect() as client:
        if name:
            found = client.get(what, name)
            show(found, how, lambda: objects_table(what, [found]))
            return
        items = list(client.list(what, selector=selector))
    show(items, how, lambda: objects_table(what, items))


def delete(
    kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS.values())}.")],
    names: Annotated[list[str], typer.Argument(help="Names.", show_default=False)],
) -> None:
    """Delete objects; what runs is stopped first."""
    what = kind_of(kind)
    with connect() as client:
        for name in names:
            client.delete(what, name)
            out().print(f"{what.lower()}/{escape(name)} deleted")


def load(files: Iterable[Path], *, only: Sequence[str] = ()) -> "list[Loaded]":
    """Load and validate documents, in the order in which they need each other; `only` limits the kinds.

    Raises:
        SpecError: with every problem of every document.
    """
    from helios.spec import load_documents

    documents = load_documents(list(files))
    if not documents:
        raise InputError("there is no document in what was given")
    problems = [
        Problem(f"{loaded.document.kind} is not taken here; expected {' or '.join(only)}", loaded.file, loaded.line)
        for loaded in documents
        if only and loaded.document.kind not in only
    ]
    if problems:
        raise SpecError(problems, hint="`helios apply` takes documents of every kind")
    order = list(KINDS)
    return sorted(documents, key=lambda loaded: order.index(loaded.document.kind))


def apply_one(client: Client, loaded: "Loaded") -> Applied:
    """Apply one document; what the control plane finds wrong is reported with the document's file and line."""
    from helios.spec import to_json

    try:
        return client.apply(to_json(loaded.document))
    except SpecError as error:
        raise SpecError([_placed(item, loaded) for item in error.problems], hint=error.hint) from error


def _placed(problem: Problem, loaded: "Loaded") -> Problem:
    line, column = loaded.positions.get(problem.field, (loaded.line, 0))
    return replace(problem, file=loaded.file, line=line, column=column)


def say_applied(applied: Iterable[Applied], *, console: Console | None = None) -> None:
    """Print a line for each applied object, on standard output unless told."""
    styles = {"created": "green", "configured": "yellow"}
    for item in applied:
        kind, name = item.object["kind"].lower(), item.object["metadata"]["name"]
        style = styles.get(item.result, "dim")
        (console or out()).print(f"{kind}/{escape(name)} [{style}]{item.result}[/{style}]", soft_wrap=True)
