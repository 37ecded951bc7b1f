"""The raw tables: a row for each job of each run, each run, and each tenant of each run."""

import csv
import lzma
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from helios.simulator.metrics import RunMetrics, flat, flat_group
from helios.simulator.outcomes import JobOutcome, RunResult

_RUN = ("trace", "policy", "load", "seed")
_JOB = tuple(each.name for each in fields(JobOutcome))
_VALUES = attrgetter(*_JOB)
_FLOATS = [at for at, each in enumerate(fields(JobOutcome)) if each.type in {float, float | None}]
_CELLS = _JOB.index("cells")
_PRESET = 1  # a million rows in seconds; higher ones take minutes to save a fifth


@contextmanager
def jobs_table(path: Path) -> Iterator[Callable[[RunResult], None]]:
    """Open `jobs.csv.xz`; calling what it gives appends a run. The file has its name once it is whole."""
    unfinished = path.with_name(f"{path.name}.part")
    try:
        with lzma.open(unfinished, "wt", preset=_PRESET, encoding="utf-8", newline="") as text:
            rows = csv.writer(text)
            rows.writerow((*_RUN, *_JOB))

            def write(result: RunResult) -> None:
                run = (result.trace, result.policy, result.load, result.seed)
                rows.writerows((*run, *_cells(outcome)) for outcome in result.outcomes)

            yield write
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _cells(outcome: JobOutcome) -> list[object]:
    values: list[Any] = list(_VALUES(outcome))
    for at in _FLOATS:
        if values[at] is not None:
            values[at] = round(values[at], 3)
    values[_CELLS] = ";".join(values[_CELLS])
    return values


def write_runs(path: Path, runs: Sequence[RunMetrics]) -> None:
    """A row a run with all its figures; what there is none of is left empty."""
    _write(path, ({**_names(run), **flat(run)} for run in runs))


def write_tenants(path: Path, runs: Sequence[RunMetrics]) -> None:
    """A row a tenant and run: its jobs, and how it fared against its own quota alone."""
    _write(path, (row for run in runs for row in _tenants(run)))


def _tenants(run: RunMetrics) -> Iterator[Mapping[str, object]]:
    for name, group in run.tenants.items():
        fair = run.fairness.tenants.get(name)
        yield {
            **_names(run),
            "tenant": name,
            **flat_group(group),
            "quota": fair.quota if fair else math.nan,
            "alone.mean": fair.alone_s if fair else math.nan,
            "rho.mean": fair.rho if fair else math.nan,
            "worse_off": int(fair.worse_off) if fair else math.nan,
        }


def _names(run: RunMetrics) -> dict[str, object]:
    return {"trace": run.trace, "policy": run.policy, "load": run.load, "seed": run.seed}


def _write(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    listed = [{name: "" if _is_nan(value) else value for name, value in row.items()} for row in rows]
    with path.open("w", encoding="utf-8", newline="") as text:
        table = csv.DictWriter(text, fieldnames=list(listed[0]) if listed else list(_RUN))
        table.writeheader()
        table.writerows(listed)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
