"""`helios validate` and `helios schema`: is this YAML right, and what may it say. Neither needs a control plane."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text

from helios.cli.output import Format, FormatOption, err, examples, printable, show, table_of
from helios.errors import NotFoundError, Problem, SpecError

if TYPE_CHECKING:
    from helios.spec import Loaded  # pydantic: only a command that reads documents pays for it

SNIPPET_WIDTH = 90
_LINE_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Documents", epilog=examples("helios validate cells/ jobs/", "helios validate job.yaml -o json")
    )(validate)
    app.command(rich_help_panel="Documents", epilog=examples("helios schema job > job.schema.json"))(schema)


def validate(
    paths: Annotated[list[Path], typer.Argument(help="YAML files, folders of them, or - for standard input.")],
    how: FormatOption = Format.TABLE,
) -> None:
    """Check documents without a control plane; says every problem with its line. Exits 2 where there is one."""
    from helios.spec import load_documents

    try:
        loaded = load_documents(paths)
    except SpecError as error:
        data = {"valid": False, "documents": [], "problems": [asdict(one) for one in error.problems], "notes": []}
        if how is Format.TABLE:
            err().print(problems_view(error.problems), soft_wrap=True)
        else:
            show(data, how, lambda: "")
        raise typer.Exit(error.exit_code) from error
    show(_summary(loaded), how, lambda: _table(loaded))
    if how is Format.TABLE:
        for note in dict.fromkeys(note for one in loaded for note in one.notes):
            err().print(Text(f"Note: {printable(note)}", style="yellow"), soft_wrap=True)


def schema(
    kind: Annotated[str, typer.Argument(help="cell, tenant, job, curriculum or service.", show_default=False)],
) -> None:
    """Print the JSON Schema (draft 2020-12) of a kind, for editors."""
    from helios.spec import KINDS, PLURALS, json_schema

    by_name = {**{name.lower(): name for name in KINDS}, **{plural: name for name, plural in PLURALS.items()}}
    if kind.lower() not in by_name:
        raise NotFoundError("kind", kind, known=KINDS, hint=f"the kinds are {', '.join(KINDS)}")
    typer.echo(json.dumps(json_schema(by_name[kind.lower()]), indent=2, ensure_ascii=False))


def problems_view(problems: Sequence[Problem]) -> RenderableType:
    """Each problem with its source line and a caret under the value, then how many there are."""
    lines: dict[str, list[str]] = {}
    parts: list[Text] = []
    for problem in problems:
        if problem.file not in lines:
            lines[problem.file] = _lines_of(problem.file)
        parts.append(_problem_view(problem, lines[problem.file]))
    if files := len({problem.file for problem in problems if problem.file}):
        parts.append(Text(f"{_count(len(problems), 'problem')} in {_count(files, 'file')}", style="bold red"))
    return Group(*parts)


def _problem_view(problem: Problem, lines: Sequence[str]) -> Text:
    view = Text.assemble(
        ("error", "bold red"),
        (f": {printable(problem.field)}: " if problem.field else ": ", "bold"),
        printable(problem.message),
    )
    where = ":".join(str(part) for part in (problem.file, problem.line, problem.column) if part)
    gutter = " " * len(str(problem.line)) if problem.line else ""
    view.append("\n")
    if where:
        view.append(f"{gutter}--> {printable(where)}\n", style="cyan")
    near = f"did you mean {printable(problem.nearest)!r}?" if problem.nearest else ""
    hidden = ".secrets." in problem.field  # what stands there may be a secret in the wrong place
    if 0 < problem.line <= len(lines) and not hidden:
        line, indent, width = _window(lines[problem.line - 1], problem.column - 1, problem.value)
        view.append(f"{gutter} |\n{problem.line} | ", style="cyan").append(f"{line}\n")
        view.append(f"{gutter} | ", style="cyan").append(f"{' ' * indent}{'^' * width} {near}".rstrip(), style="red")
        view.append("\n")
    elif near:
        view.append(f"{gutter}  = {near}\n", style="red")
    return view


def _window(line: str, start: int, value: str) -> tuple[str, int, int]:
    """The part of a long line that is around `start`, and where in it, in terminal cells, the caret goes."""
    first = max(0, start - SNIPPET_WIDTH // 2) if len(line) > SNIPPET_WIDTH else 0
    shown = printable(line[first : first + SNIPPET_WIDTH])
    at = start - first
    length = len(value) if value and line.startswith(value, start) else 1
    return shown, cell_len(shown[:at]), max(1, cell_len(shown[at : at + length]))


def _lines_of(file: str) -> list[str]:
    from helios.spec.source import MAX_BYTES

    try:
        with Path(file).open("rb") as stream:
            text = stream.read(MAX_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return []  # the problem may well be that there is no such file; it is shown without its line
    return _LINE_BREAKS.split(text)


def _summary(loaded: Iterable["Loaded"]) -> dict[str, Any]:
    documents = list(loaded)
    return {
        "valid": True,
        "documents": [
            {"kind": one.document.kind, "name": one.document.metadata.name, "file": one.file, "line": one.line}
            for one in documents
        ],
        "problems": [],
        "notes": list(dict.fromkeys(note for one in documents for note in one.notes)),
    }


def _table(loaded: Sequence["Loaded"]) -> RenderableType:
    rows = [(one.document.kind, one.document.metadata.name, f"{one.file}:{one.line}") for one in loaded]
    return Group(
        table_of(("KIND", "NAME", "FILE"), rows), Text(f"{_count(len(rows), 'document')}, all valid", style="green")
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
