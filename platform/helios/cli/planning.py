"""`helios plan`: what applying documents would change, and what the scheduler would do. Nothing is written."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from helios.cli.apply import FilesArgument, load, placed
from helios.cli.client import Client, Object, connect
from helios.cli.explain import verdicts
from helios.cli.output import Format, FormatOption, examples, show, table_of
from helios.errors import NotFoundError, Problem, SpecError

if TYPE_CHECKING:
    from helios.spec import Loaded

RESULT_STYLES = {"created": "green", "configured": "yellow"}
_LONGEST_VALUE = 60


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Objects",
        epilog=examples("helios plan my-job.yaml", "helios plan cells/ jobs/ -o json"),
    )(plan)


def plan(files: FilesArgument, how: FormatOption = Format.TABLE) -> None:
    """Show what `helios apply` would change, and where the scheduler would start it or why not. Nothing is changed."""
    documents = load(files)
    with connect() as client:
        previews = preview_all(client, documents)
    show(previews, how, lambda: Group(*(part for item in previews for part in _parts(item))))


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


def _parts(preview: Mapping[str, Any]) -> Iterator[RenderableType]:
    result = str(preview["result"])
    head = f"{preview['kind'].lower()}/{preview['name']}"
    yield Text.assemble((head, "bold"), "  ", (f"would be {result}", RESULT_STYLES.get(result, "dim")))
    if waits_for := preview.get("waitsFor"):
        yield Text(f"  needs {waits_for} from these documents; what would become of it is known once that is applied")
    if preview.get("diff") and result == "configured":
        rows = [[change["field"], _value(change, "before"), _value(change, "after")] for change in preview["diff"]]
        yield table_of(("FIELD", "BEFORE", "AFTER"), rows)
    if decision := preview.get("decision"):
        yield _decided(decision)
    if preview.get("cells"):
        yield verdicts(preview["cells"])
    yield from (Text(f"  - {sentence}") for sentence in preview.get("unblock") or ())
    yield Text()


def _decided(decision: Mapping[str, Any]) -> Text:
    if decision["action"] == "admit":
        nodes = sorted(set(decision["nodes"]))
        where = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        workers = "1 worker" if decision["workers"] == 1 else f"{decision['workers']} workers"
        cell = (str(decision["cell"]), "green")
        return Text.assemble("  would start at once on cell ", cell, f": {workers} on {where}")
    said = f"would wait at place {decision['position']}: {decision['reason']}: {decision['message']}"
    return Text(f"  {said}", style="yellow")


def _value(change: Mapping[str, Any], side: str) -> str:
    """A value of a diff as YAML would have it on one line, shortened; `-` where there is none."""
    if change.get(side) is None:
        return "-"
    text = change[side] if isinstance(change[side], str) else json.dumps(change[side], ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 4]} ..."
