"""`helios apply`: documents in, objects out."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from helios.cli.client import KINDS, Applied, Client, Object, connect
from helios.cli.output import Format, FormatOption, err, examples, out, show
from helios.errors import InputError, NotFoundError, Problem, SpecError

if TYPE_CHECKING:
    from helios.spec import Loaded  # pydantic: only a command that reads documents pays for it

FilesArgument = Annotated[
    list[Path], typer.Argument(help="YAML files, folders of them, or - for standard input.", show_default=False)
]


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Objects", epilog=examples("helios apply cells/local.yaml", "helios apply jobs/ -o json")
    )(apply)


def apply(files: FilesArgument, how: FormatOption = Format.TABLE) -> None:
    """Create or change objects from YAML; nothing is sent where a document is not valid."""
    documents = load(files)
    with connect() as client:
        applied = apply_all(client, documents, console=out() if how is Format.TABLE else err())
    if how is not Format.TABLE:
        show([item.object for item in applied], how, lambda: "")


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


def apply_all(client: Client, documents: "list[Loaded]", *, console: Console) -> list[Applied]:
    """Apply documents one after the other, with a line for each that is done.

    Raises:
        SpecError: with file and line of everything that the control plane refused; nothing is applied then.
    """
    from helios.spec import to_json

    if len(documents) > 1:
        preview_all(client, documents)
    applied = []
    for loaded in documents:
        try:
            done = client.apply(to_json(loaded.document))
        except SpecError as error:
            raise SpecError([placed(item, loaded) for item in error.problems], hint=error.hint) from error
        applied.append(done)
        style = {"created": "green", "configured": "yellow"}.get(done.result, "dim")
        kind, name = loaded.document.kind.lower(), loaded.document.metadata.name
        with contextlib.suppress(SystemExit):  # the reader of a pipe went away; what was begun is finished
            console.print(f"{kind}/{escape(name)} [{style}]{done.result}[/{style}]", soft_wrap=True)
    return applied


def preview_all(client: Client, documents: "list[Loaded]") -> list[Object]:
    """Ask the control plane what it would do with each document as things are now.

    What a document needs may stand in another of them; its preview then says so in `waitsFor`, and nothing else.

    Raises:
        SpecError: with everything that the control plane would refuse, each with its file and line.
    """
    from helios.spec import to_json

    mine = {loaded.document.metadata.name for loaded in documents}
    previews: list[Object] = []
    problems: list[Problem] = []
    for loaded in documents:
        kind, name = loaded.document.kind, loaded.document.metadata.name
        try:
            preview = client.preview(to_json(loaded.document))
        except NotFoundError as error:
            if error.name not in mine - {name}:
                raise
            preview = {"result": "created", "waitsFor": error.name}
        except SpecError as error:
            if found := [placed(problem, loaded) for problem in error.problems if problem.value not in mine - {name}]:
                problems += found
                continue
            preview = {"result": "created", "waitsFor": error.problems[0].value}
        previews.append({"kind": kind, "name": name, **preview})
    if problems:
        raise SpecError(problems, hint="nothing was changed")
    return previews


def placed(problem: Problem, loaded: "Loaded") -> Problem:
    """Give a problem that the control plane found the file and line of its field."""
    line, column = loaded.positions.get(problem.field, (loaded.line, 0))
    return replace(problem, file=loaded.file, line=line, column=column)
