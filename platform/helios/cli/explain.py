"""`helios explain`: why something waits, what happened to it, and what would move it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from helios.cli.client import connect
from helios.cli.completion import complete_anything
from helios.cli.events import clock
from helios.cli.output import Format, FormatOption, examples, show, state_text, table_of, until
from helios.cli.targets import find_work

LAST_EVENTS = 12


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Work",
        epilog=examples("helios explain tiny", "helios explain tiny/distill", "helios explain local -o json"),
    )(explain)


def explain(
    name: Annotated[
        str,
        typer.Argument(
            help="A job, curriculum, stage (NAME/STAGE), service or cell.",
            show_default=False,
            autocompletion=complete_anything,
        ),
    ],
    how: FormatOption = Format.TABLE,
) -> None:
    """Say why something waits, what happened to it, and what would unblock it."""
    with connect() as client:
        kind, found = find_work(client, name)
        explanation = client.explain(kind, found["metadata"]["name"])
    show(explanation, how, lambda: Group(*_parts(kind, found["metadata"]["name"], explanation)))


def _parts(kind: str, name: str, explanation: Mapping[str, Any]) -> Iterator[RenderableType]:
    head = Text.assemble(
        (f"{kind.lower()}/{name}", "bold"), "  ", state_text(str(explanation.get("state") or "Pending"))
    )
    if reason := explanation.get("reason"):
        head.append(f"  {reason}")
    yield head
    if message := explanation.get("message"):
        yield Text(f"  {message}")
    if position := explanation.get("position"):
        yield Text(f"  place {position} in the queue")
    yield from _reservation(explanation)
    if told := explanation.get("forecast") or (explanation.get("job") or {}).get("forecast"):
        yield from (Text(f"  {line}") for line in forecast_lines(told))
    yield from _restarts(explanation)
    job = explanation.get("job") or {}
    if job.get("message"):
        yield Text(f"  stage {explanation['stage']} is {job['state']}: {job['message']}")
    yield from _stages(explanation)
    for section in (_cells, _unblock):
        yield from section(job or explanation)
    yield from _events(explanation)


def _reservation(explanation: Mapping[str, Any]) -> Iterator[RenderableType]:
    kept = explanation.get("reservation") or (explanation.get("job") or {}).get("reservation")
    if kept:
        nodes = "1 node" if len(set(kept["nodes"])) == 1 else f"{len(set(kept['nodes']))} nodes"
        yield Text(
            f"  {nodes} kept for it on cell {kept['cell']} from in {until(kept['at'])} on, by the estimates there"
        )


def forecast_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """Say when it will start, and how far to trust that."""
    if told["at"]:
        yield f"expected to start in {until(told['at'])}, were nobody else to come"
    elif told["notBefore"]:
        yield f"not expected to start within {until(told['notBefore'])}"
    else:
        yield "nothing that is foreseen would let it start"
    if band := told["band"]:
        earliest = until(band["earliest"])
        when = f"in {earliest} to {until(band['latest'])}" if band["latest"] else f"in {earliest} at the earliest"
        yield f"{band['coverage']:.0%} chance: {when} (learned from {band['learned']} starts: {band['basis']})"
    elif seen := told["calibration"]:
        yield f"no error band yet: {seen['learned']} of {seen['needed']} starts were seen to learn it from"


def _restarts(explanation: Mapping[str, Any]) -> Iterator[RenderableType]:
    if count := explanation.get("restarts"):
        reasons = sorted((explanation.get("restartReasons") or {}).items(), key=lambda item: -item[1])
        why = ", ".join(f"{reason} {times}" for reason, times in reasons)
        yield Text(f"  restarted {count} times" + (f": {why}" if why else ""))


def verdicts(cells: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Build the table of why each cell did not take a gang."""
    rows = [[item["cell"], item["reason"], item["message"], _rejected(item)] for item in cells]
    return table_of(("CELL", "REASON", "MESSAGE", "NODES"), rows)


def _cells(explanation: Mapping[str, Any]) -> Iterator[RenderableType]:
    if explanation.get("cells"):
        yield Text("\nWhy no cell took it", style="bold")
        yield verdicts(explanation["cells"])


def _rejected(verdict: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {why}" for why, count in (verdict.get("rejected") or {}).items()) or "-"


def _stages(explanation: Mapping[str, Any]) -> Iterator[RenderableType]:
    if not explanation.get("stages"):
        return
    rows = [
        [
            item["name"],
            state_text(item.get("state") or "Pending"),
            item["job"] if item.get("created") else "-",
            item.get("reason") or "",
        ]
        for item in explanation["stages"]
    ]
    yield Text("\nStages", style="bold")
    yield table_of(("STAGE", "STATE", "JOB", "WHY"), rows)


def _unblock(explanation: Mapping[str, Any]) -> Iterator[RenderableType]:
    if explanation.get("unblock"):
        yield Text("\nWhat would unblock it", style="bold")
        yield from (Text(f"  - {sentence}") for sentence in explanation["unblock"])


def _events(explanation: Mapping[str, Any]) -> Iterator[RenderableType]:
    if events := explanation.get("events"):
        yield Text("\nWhat happened", style="bold")
        rows = [[clock(item["time"]), item["reason"], item["message"]] for item in events[-LAST_EVENTS:]]
        yield table_of(("TIME", "REASON", "MESSAGE"), rows)
