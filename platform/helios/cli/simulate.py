"""`helios simulate`: what schedulers would make of a trace, or of the fleet and queue of now, on a virtual clock."""

import contextlib
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from helios.cli import simulate_options as options
from helios.cli.output import Format, FormatOption, examples, show, table_of, useful
from helios.cli.simulating import cycle_of, look_for, progress, taking_the_place_of
from helios.cli.whatif import Ask, By, play_on
from helios.errors import InputError

if TYPE_CHECKING:
    from helios.simulator.metrics import RunMetrics  # numpy: only this command pays for it
    from helios.simulator.outcomes import RunResult
    from helios.simulator.study import Case, Done, Study

DAY_S = 86_400.0
MOST_LOAD = 10.0
POLICIES = {
    "helios": "ours: both stages, preemption, backfill, elastic gangs, topology",
    "helios-global-control": "ours, but the least-loaded feasible cell",
    "helios-cell-control": "ours, but best fit within the cell",
    "helios-both-control": "ours, but both choices the control's",
    "helios-no-preemption": "ours without preemption",
    "helios-no-backfill": "ours without backfill",
    "helios-no-elastic": "ours with gangs of fixed size",
    "helios-no-topology": "ours without racks, blocks and fabrics",
    "helios-no-defragmentation": "ours without moving gangs together",
    "helios-fgd": "ours, but nodes by the fragmentation gradient alone",
    "fifo": "first in, first out: the head of the queue holds up the rest",
    "fifo-easy": "first in, first out with EASY backfilling",
    "sjf-oracle": "shortest job first, knowing true run times",
    "srtf-oracle": "shortest remaining time first with preemption, knowing true run times",
    "qssf": "least predicted GPU time first",
    "tiresias": "least attained service first, with preemption (Tiresias 2D-LAS)",
    "home": "each tenant in its home cell alone, best fit there",
    "control": "by age, least-loaded feasible cell, best fit there: the fair control",
    "kueue": "quota with borrowing, reclaim and preemption by priority, as Kueue has it",
}
"""What there is to compare."""


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Fleet",
        epilog=examples(
            "helios simulate --trace philly --policy helios,control --load 0.85 --days 1 --warm-up 0.5 --tail 0.5",
            "helios simulate --trace philly --policy helios,qssf --load 0.6,0.8,0.95 --seeds 3 --report out/",
            "helios simulate --trace jobs.csv --fleet cells/ --policy all -o json",
            "helios simulate --policy list",
            "helios simulate --with more-quota.yaml --report out/",
            "helios simulate --snapshot fleet.json --with more-quota.yaml --without Cell/east --hours 48",
        ),
    )(simulate)


def simulate(
    context: typer.Context,
    *,
    trace: options.Trace = "philly",
    policy: options.Policies = "helios,control",
    load: options.Loads = "",
    seeds: options.Seeds = 1,
    report: options.Report = None,
    fleet: options.FleetFiles = None,
    gpus: options.Gpus = 5000,
    days: options.Days = None,
    warm_up: options.WarmUp = None,
    tail: options.Tail = None,
    phase: options.Phase = None,
    jobs: options.Processes = None,
    cycle: options.Cycle = "30s",
    traces: options.Traces = None,
    snapshot: options.SnapshotFile = None,
    change: options.Changes = None,
    without: options.Without = None,
    hours: options.Hours = 24.0,
    by: options.Breakdown = By.CLASS,
    how: FormatOption = Format.TABLE,
) -> None:
    """Compare schedulers on a trace, or changes of the live fleet, on a virtual clock. Nothing is started."""
    if policy == "list":
        rows = [{"policy": name, "about": about} for name, about in POLICIES.items()]
        show(rows, how, lambda: table_of(("POLICY", "WHAT IT DOES"), [list(row.values()) for row in rows]))
        return
    live = bool(snapshot or change or without)
    _refuse_mixed(context, live=live)
    if live:
        names = _listed(policy) if _given(context, "policy") else []
        names = list(POLICIES) if names == ["all"] else names
        play_on(Ask(snapshot, change or [], without or [], names, hours, cycle_of(cycle), by, report), how)
        return
    look_for("numpy", *(("matplotlib", "jinja2") if report else ()))
    from helios.simulator.study import Study, cases

    loads = _loads(load, trace, {"--days": days, "--warm-up": warm_up, "--phase": phase})
    study = Study(
        trace=trace,
        traces=traces,
        cells=tuple(fleet or ()),
        gpus=gpus,
        window=_window(phase, days=days, warm_up=warm_up, tail=tail),
        cycle_s=cycle_of(cycle),
        tail_s=(7 if tail is None else tail) * DAY_S,
    )
    names = list(POLICIES) if policy == "all" else _listed(policy)
    asked = list(cases(names, loads, range(seeds)))
    _run(study, asked, report, min(jobs or os.cpu_count() or 1, len(asked)), how)


def _refuse_mixed(context: typer.Context, *, live: bool) -> None:
    """Raise InputError for an option that belongs to the other way to simulate."""
    strange, theirs = (
        (options.OF_TRACES, "a trace")
        if live
        else (options.OF_LIVE, "the fleet and queue of now (--snapshot, --with, --without)")
    )
    for option in context.command.params:
        if getattr(option, "rich_help_panel", None) == strange and _given(context, str(option.name)):
            raise InputError(f"{option.opts[0]} is for {theirs}")


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _run(study: "Study", asked: "Sequence[Case]", folder: Path | None, processes: int, how: Format) -> None:
    """Run everything, write the report, print the table."""
    from helios.simulator.metrics import measure
    from helios.simulator.report import summary, summary_table, write_report
    from helios.simulator.study import Lab

    lab = Lab(study)
    # The highest load is the hardest to draw: what is wrong with the input is said before anything runs.
    workload = lab.workload(max((case.load for case in asked), key=lambda load: load or 0.0), asked[0].seed)
    synthetic = frozenset().union(*{job.synthetic for job in workload.jobs})
    notes = workload.notes
    del lab, workload
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(taking_the_place_of(folder)) if folder else None
        results = stack.enter_context(contextlib.closing(_results(study, asked, processes)))
        measured: Sequence[RunMetrics]
        if place is None:
            measured = [measure(result) for result in results]
        else:
            measured = write_report(results, place, synthetic=synthetic, notes=notes)
    data = {"runs": len(measured), "report": str(folder) if folder else None, "traces": summary(measured)}
    show(data, how, lambda: summary_table(measured))
    if how is Format.TABLE:
        _next_steps(folder)


def _next_steps(folder: Path | None) -> None:
    if folder is None:
        useful(("helios simulate ... --report out/", "the same with plots, load curves and raw tables"))
        return
    useful(
        (str(folder / "report.html"), "plots, tables and goals on one page; open it in a browser"),
        (str(folder / "runs.csv"), "every figure of every run"),
        ("helios simulate --policy list", "what else there is to compare"),
    )


def _results(study: "Study", asked: "Sequence[Case]", processes: int) -> "Generator[RunResult, None, None]":
    from helios.simulator.workers import run_all

    with progress(len(asked)) as (advance, tell):
        for done in run_all(study, asked, processes=processes, finish=_whole, on_progress=advance):
            tell(str(done.case), done.wall_s, done.cpu_s)
            yield done.result


def _whole(done: "Done") -> "Done":
    return done


def _loads(text: str, trace: str, of_loads: dict[str, Any]) -> list[float | None]:
    """The loads, or that the trace is replayed as it was recorded."""
    from helios.simulator.traces.table import SUFFIXES

    if not text and ("/" in trace or trace.endswith(SUFFIXES)):
        given = next((name for name, value in of_loads.items() if value is not None), None)
        if given is not None:
            raise InputError(f"{given} is for a trace that is drawn at a load", hint="add --load 0.85, say")
        return [None]
    return [_number(word) for word in _listed(text or options.LOAD)]


def _number(word: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (found := float(word)) <= MOST_LOAD:
            return found
    expected = f"loads above 0 and up to {MOST_LOAD:g}, separated by commas, like 0.6,0.85"
    raise InputError(f"--load: expected {expected}; got {word!r}")


def _listed(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise InputError(f"expected names or numbers separated by commas, got {text!r}")
    return list(dict.fromkeys(words))


def _window(phase: options.Weeks | None, *, days: float | None, warm_up: float | None, tail: float | None) -> Any:
    from helios.simulator.workload import Phase, Window

    for name, value in (("--days", days), ("--warm-up", warm_up), ("--tail", tail)):
        if value is not None and not 0 <= value < 10_000:
            raise InputError(f"{name}: expected days of 0 or more, got {value:g}")
    plain = Window(Phase(phase or options.Weeks.REPORT))
    return Window(
        plain.phase,
        warm_up_s=plain.warm_up_s if warm_up is None else warm_up * DAY_S,
        measured_s=plain.measured_s if days is None else days * DAY_S,
        tail_s=plain.tail_s if tail is None else tail * DAY_S,
    )
