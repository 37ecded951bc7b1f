"""Following work until it ends: what a stage's row says, the live table, and the same as plain log lines."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from helios.cli.client import Client
from helios.cli.output import duration, seconds_of, state_text
from helios.cli.steady import steady
from helios.cli.tables import restarts_of
from helios.errors import NotFoundError

ENDED = frozenset({"Succeeded", "Failed", "Cancelled"})


@dataclass(frozen=True, slots=True)
class Row:
    """One stage or job as a follower shows it; None where nothing is known yet."""

    name: str
    state: str
    reason: str = ""
    message: str = ""
    phase: str = ""
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    elapsed: float | None = None
    restarts: int = 0

    @property
    def fraction(self) -> float:
        """Share of the work done, 0 to 1; a stage that succeeded is 1 whatever it last reported."""
        if self.state == "Succeeded":
            return 1.0
        return min(1.0, (self.step or 0) / self.total_steps) if self.total_steps else 0.0


@dataclass(frozen=True, slots=True)
class View:
    """A job or curriculum at one moment: its own state and a row for each part."""

    kind: str
    name: str
    state: str
    message: str
    rows: tuple[Row, ...]
    ended: bool

    @property
    def fraction(self) -> float:
        return sum(row.fraction for row in self.rows) / len(self.rows) if self.rows else 0.0


def view_of(client: Client, kind: str, name: str) -> View:
    """Fetch a job or curriculum with all its parts."""
    found = client.get(kind, name)
    status = found.get("status") or {}
    if kind == "Job":
        rows: tuple[Row, ...] = (row_of(name, status),)
    else:
        stages = status.get("stages") or [{"name": stage["name"]} for stage in found["spec"]["stages"]]
        rows = tuple(_stage_row(client, stage) for stage in stages)
    ended = status.get("state") in ENDED and settled(found)
    return View(kind, name, status.get("state", "Pending"), said_of(status), rows, ended)


def row_of(name: str, status: Mapping[str, Any]) -> Row:
    """Read a job's status as a row."""
    progress = status.get("progress") or _of_members(status)
    started, ended = seconds_of(status.get("startedAt")), seconds_of(status.get("finishedAt"))
    state = status.get("state", "Pending")
    return Row(
        name=name,
        state=state,
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        phase=progress.get("phase", "") if state == "Running" else "",
        step=progress.get("step"),
        total_steps=progress.get("total_steps"),
        loss=progress.get("loss"),
        tokens_per_second=progress.get("tokens_per_second"),
        eta_seconds=progress.get("eta_seconds") if state == "Running" else None,
        elapsed=None if started is None else (ended or time.time()) - started,
        restarts=restarts_of(status),
    )


def _of_members(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The progress of an array, told in members that succeeded; empty for every other job."""
    if not (array := status.get("array")):
        return {}
    states = array.get("states") or {}
    now = ", ".join(f"{count} {state}" for state, count in states.items() if state not in ENDED)
    return {"step": states.get("Succeeded", 0), "total_steps": array["size"], "phase": now}


def said_of(status: Mapping[str, Any]) -> str:
    """Join a status' reason and message as a person reads them."""
    return ": ".join(part for part in (status.get("reason"), status.get("message")) if part)


def settled(found: Mapping[str, Any]) -> bool:
    """Whether the status speaks of what was asked for last, and not of the time before."""
    status = found.get("status") or {}
    if status.get("rerunRequested") or status.get("redeployRequested"):
        return False
    observed = status.get("observedGeneration") or status.get("deployedGeneration")
    return observed is None or observed == found["metadata"].get("generation")


def follow(kind: str, name: str, console: Console) -> View:
    """Show a job or curriculum until it ends; a live table on a terminal, a line for each change elsewhere."""

    def fetch(client: Client) -> View:
        return view_of(client, kind, name)

    if console.is_terminal:
        return _follow_live(fetch, console)
    return _follow_lines(fetch, console)


def render(view: View) -> RenderableType:
    """Draw the live table of a view; it fits 100 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("STAGE" if view.kind == "Curriculum" else "JOB", no_wrap=True, max_width=22)
    table.add_column("STATE", no_wrap=True, min_width=10)
    table.add_column("PROGRESS", no_wrap=True)
    for column in ("STEP", "LOSS", "TOK/S", "ETA", "ELAPSED", "RESTARTS"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in view.rows:
        bar = ProgressBar(total=1.0, completed=row.fraction, width=14)
        table.add_row(row.name, state_text(row.state), bar, *_figures(row))
    done = sum(row.state == "Succeeded" for row in view.rows)
    total = Table.grid(padding=(0, 2, 0, 0))
    total.add_row(
        Text(view.name, style="bold"),
        state_text(view.state),
        ProgressBar(total=1.0, completed=view.fraction, width=30),
        f"{view.fraction:.0%}",
        f"{done}/{len(view.rows)} done",
    )
    return Group(table, Text(), total, *(Text(line, style="dim") for line in _remarks(view)))


def changes(before: View | None, now: View) -> Iterator[str]:
    """One line for each change that a reader of a log wants: states, phases, restarts, each tenth of a stage."""
    earlier = {row.name: row for row in before.rows} if before else {}
    for row in now.rows:
        was = earlier.get(row.name, Row(row.name, "Pending"))
        if _marks(was) != _marks(row):
            yield _line(row)
    if now.kind == "Curriculum" and (before is None or before.state != now.state):
        said = f" ({now.message})" if now.message else ""
        yield f"{now.kind.lower()} {now.name}: {now.state}{said}"


def _stage_row(client: Client, stage: Mapping[str, Any]) -> Row:
    if not stage.get("created"):
        return Row(stage["name"], stage.get("state") or "Pending", stage.get("reason") or "")
    try:
        job = client.get("Job", stage["job"])
    except NotFoundError:  # deleted since; the curriculum still knows how it ended
        return Row(stage["name"], stage.get("state") or "Pending", stage.get("reason") or "")
    return row_of(stage["name"], job.get("status") or {})


def _follow_live(fetch: Callable[[Client], View], console: Console) -> View:
    with Live(console=console, auto_refresh=False, transient=False) as live:
        for view in steady(fetch, notice=lambda said: live.console.print(f"[yellow]{escape(said)}[/yellow]")):
            live.update(render(view), refresh=True)
            if view.ended:
                return view
    raise AssertionError("steady() yields or raises")


def _follow_lines(fetch: Callable[[Client], View], console: Console) -> View:
    def say(line: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {line}", soft_wrap=True, markup=False)

    before: View | None = None
    for view in steady(fetch, notice=say):
        for line in changes(before, view):
            say(line)
        before = view
        if view.ended:
            return view
    raise AssertionError("steady() yields or raises")


def _figures(row: Row) -> Sequence[str]:
    return (
        f"{row.step}/{row.total_steps}" if row.total_steps and row.step is not None else "-",
        "-" if row.loss is None else "nan" if math.isnan(row.loss) else f"{row.loss:.4g}",
        "-" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}",
        duration(row.eta_seconds),
        duration(row.elapsed),
        str(row.restarts or "-"),
    )


def _remarks(view: View) -> Iterator[str]:
    for row in view.rows:
        said = row.message or row.reason
        if row.state not in {"Running", "Succeeded", "Pending"} and said:
            yield f"{row.name}: {said}"
        elif row.state == "Running" and row.phase not in {"", "training"}:
            yield f"{row.name}: {row.phase}"


def _marks(row: Row) -> tuple[object, ...]:
    return row.state, row.phase, row.restarts, int(row.fraction * 10)


def _line(row: Row) -> str:
    parts = [f"{row.name}: {row.state}"]
    if row.phase:
        parts.append(row.phase)
    if row.total_steps and row.step is not None:
        parts.append(f"step {row.step}/{row.total_steps}")
    if row.loss is not None:
        parts.append(f"loss {row.loss:.4g}")
    if row.tokens_per_second is not None and row.state == "Running":
        parts.append(f"{row.tokens_per_second:,.0f} tokens/s")
    if row.eta_seconds is not None:
        parts.append(f"ETA {duration(row.eta_seconds)}")
    if row.restarts:
        parts.append(f"restarts {row.restarts}")
    said = row.message or row.reason
    if said and row.state not in {"Running", "Succeeded"}:
        parts.append(said)
    return " | ".join(parts)
