"""Everything that a report consists of, written into one folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from helios.errors import InputError, UnavailableError
from helios.simulator.metrics import Objectives, RunMetrics
from helios.simulator.outcomes import RunResult
from helios.simulator.report import benchmark
from helios.simulator.report.collect import collect
from helios.simulator.report.goals import goals
from helios.simulator.report.roles import Roles
from helios.simulator.report.runs import tables
from helios.simulator.report.tables import write_runs, write_tenants

REFERENCE_LOAD = 0.85


def write_report(
    results: Iterable[RunResult],
    folder: Path,
    *,
    roles: Roles | None = None,
    objectives: Objectives | None = None,
    reference: float = REFERENCE_LOAD,
    alone: Iterable[RunResult] = (),
    synthetic: Iterable[str] = (),
    notes: Sequence[str] = (),
    command: str = "",
) -> Sequence[RunMetrics]:
    """Write `report.html`, `report.json`, `runs.csv`, `tenants.csv` and `jobs.csv.xz` into a folder.

    Runs are taken one at a time and not kept, so that a generator of many runs needs the memory of one.

    Args:
        reference: load at which policies are compared; the nearest that was run is taken.
        alone: runs of the same traces, loads and seeds in which each tenant has nothing but its own quota; where they
            are missing, what a tenant has alone is computed.
        synthetic: fields of jobs that no trace gave (`TraceJob.synthetic`), or sentences that say so.
        notes: what else a reader has to know, a sentence each (`Workload.notes`).
        command: that makes the report again; the one that runs now, if empty.

    Returns:
        The metrics of the runs, for `summary` and `summary_table`.

    Raises:
        InputError: there is no run, or one has no sample in its window.
        UnavailableError: what draws the report is not installed.
    """
    try:
        from helios.simulator.report import page
    except ModuleNotFoundError as missing:
        raise UnavailableError(
            f"a report is drawn with {missing.name}, which is not installed",
            hint="pip install 'helios-platform[simulate]'",
        ) from missing
    roles, objectives = roles or Roles(), objectives or Objectives()
    folder.mkdir(parents=True, exist_ok=True)
    kept = collect(results, folder / "jobs.csv.xz", objectives=objectives, reference=reference, alone=alone)
    if not kept.runs:
        raise InputError("there is no run to report on")
    write_runs(folder / "runs.csv", kept.runs)
    write_tenants(folder / "tenants.csv", kept.runs)
    listed = [(runs, goals(runs, objectives)) for runs in tables(kept.runs, roles, reference)]
    source = benchmark.origin(command)
    benchmark.write(folder / "report.json", source, listed)
    html = page.render(listed, kept, source, objectives=objectives, synthetic=sorted(set(synthetic)), notes=notes)
    (folder / "report.html").write_text(html, encoding="utf-8")
    return tuple(kept.runs)
