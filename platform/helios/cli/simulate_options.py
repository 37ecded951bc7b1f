"""The options of `helios simulate`, by what they are for."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from helios.cli.whatif import By

LOAD = "0.85"
"""Load that a public trace is drawn at where none is said."""
OF_TRACES = "Options for a trace"
OF_LIVE = "Options for the fleet and queue of now"


class Weeks(StrEnum):
    TUNING = "tuning"
    REPORT = "report"
    WHOLE = "whole"


Policies = Annotated[str, typer.Option(help="Policies to compare, separated by commas; `all`; or `list` to see them.")]
Report = Annotated[
    Path | None,
    typer.Option(help="Folder for the report: HTML with plots, JSON; of a trace raw tables, too.", show_default=False),
]
Cycle = Annotated[str, typer.Option(help="Time between two scheduling cycles at least.")]

Trace = Annotated[
    str,
    typer.Option(
        help="philly, or a CSV of one row a job (docs/reference/traces.md).",
        show_default=True,
        rich_help_panel=OF_TRACES,
    ),
]
Loads = Annotated[
    str,
    typer.Option(
        help=f"Loads to draw the trace at, separated by commas; {LOAD} of a public trace where none is said. "
        "A CSV is replayed as it was recorded where none is said.",
        rich_help_panel=OF_TRACES,
    ),
]
Seeds = Annotated[
    int, typer.Option(min=1, help="How many seeds: of what is drawn, and of faults.", rich_help_panel=OF_TRACES)
]
FleetFiles = Annotated[
    list[Path] | None,
    typer.Option(
        help="Cell documents of the fleet, files or folders; may be repeated.",
        show_default=False,
        rich_help_panel=OF_TRACES,
    ),
]
Gpus = Annotated[
    int,
    typer.Option(help="GPUs of the fleet of 16 unequal cells where --fleet is not given.", rich_help_panel=OF_TRACES),
]
Days = Annotated[
    float | None, typer.Option(help="Days that are measured: 7 where not said.", rich_help_panel=OF_TRACES)
]
WarmUp = Annotated[
    float | None, typer.Option(help="Days before, not measured: 2 where not said.", rich_help_panel=OF_TRACES)
]
Tail = Annotated[
    float | None,
    typer.Option(
        help="Days after, in which measured jobs may end: 3 where not said, 7 of a CSV as recorded.",
        rich_help_panel=OF_TRACES,
    ),
]
Phase = Annotated[
    Weeks | None,
    typer.Option(
        help="Weeks that may be drawn from: report where not said; tuning while anything is tuned; whole for both, as "
        "long runs need: no result of it is of weeks that nothing was tuned on.",
        rich_help_panel=OF_TRACES,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Runs at a time; as many as there are cores.", rich_help_panel=OF_TRACES),
]
Traces = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the public traces; HELIOS_TRACES says it too.", show_default=False, rich_help_panel=OF_TRACES
    ),
]

SnapshotFile = Annotated[
    Path | None,
    typer.Option(
        help="Go on from a live fleet as `helios admin snapshot` wrote it.", show_default=False, rich_help_panel=OF_LIVE
    ),
]
Changes = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        help="YAML documents that change the live fleet: Cell, Tenant, Policy, Fleet. May be repeated: each is one "
        "alternative beside the fleet as it is, which is asked of the control plane where --snapshot is not given.",
        show_default=False,
        rich_help_panel=OF_LIVE,
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND/NAME",
        help="A cell or tenant to do without: `Cell/east`. May be repeated: each is one alternative.",
        show_default=False,
        rich_help_panel=OF_LIVE,
    ),
]
Hours = Annotated[float, typer.Option(help="Hours that a live fleet is played on.", rich_help_panel=OF_LIVE)]
Breakdown = Annotated[
    By, typer.Option(help="What the figures of a live fleet are broken down by.", rich_help_panel=OF_LIVE)
]
