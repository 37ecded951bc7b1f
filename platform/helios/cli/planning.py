"""`helios plan`: what applying documents would change, and what the scheduler would do. Nothing is written."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from helios.cli.apply import FilesArgument, load, preview_all
from helios.cli.client import connect
from helios.cli.explain import verdicts
from helios.cli.output import Format, FormatOption, examples, show, table_of

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
    subject = f"{decision['subject']} " if decision.get("subject") else ""
    if decision["action"] == "admit":
        nodes = sorted(set(decision["nodes"]))
        where = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        workers = "1 worker" if decision["workers"] == 1 else f"{decision['workers']} workers"
        cell = (str(decision["cell"]), "green")
        return Text.assemble(f"  {subject}would start at once on cell ", cell, f": {workers} on {where}")
    said = f"{subject}would wait at place {decision['position']}: {decision['reason']}: {decision['message']}"
    return Text(f"  {said}", style="yellow")


def _value(change: Mapping[str, Any], side: str) -> str:
    """A value of a diff as YAML would have it on one line, shortened; `-` where there is none."""
    if change.get(side) is None:
        return "-"
    text = change[side] if isinstance(change[side], str) else json.dumps(change[side], ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 4]} ..."
