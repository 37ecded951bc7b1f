"""Jobs put together from a trace's columns and what was made up for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from helios.simulator.jobs import TraceJob, Workload
from helios.simulator.traces.table import Bools, Floats, Ints
from helios.simulator.traces.trace import Trace
from helios.simulator.workload.copies import Copy
from helios.simulator.workload.fits import check_fits
from helios.simulator.workload.fleet import ANY, Fleet
from helios.simulator.workload.synthesis import Synthesis, estimates, failures, gangs, inputs, qos_of, times
from helios.simulator.workload.tenants import Tenants

MADE_UP = frozenset(
    {
        "qos", "workers", "max_workers", "estimate_s", "fails_at", "checkpoint_s", "checkpoint_cost_s", "restart_s",
        "data", "accelerator", "group", "home",
    }
)  # fmt: skip
CARRIED = frozenset({"submitted_s", "duration_s"})
"""Made up as well for jobs that began before the run: what is left of them is submitted at its first second."""


def as_recorded(trace: Trace, fleet: Fleet) -> Workload:
    """All jobs of a trace as it has them: nothing is drawn, and nothing made up but groups.

    Raises:
        SpecError: a job of the trace fits on no cell; with its row.
    """
    check_fits(trace, fleet)
    made_up = trace.synthetic | ({"group"} - set(trace.given))
    columns = {
        "job_id": trace.job_ids,
        "submitted_s": trace.submitted_s.tolist(),
        "duration_s": trace.duration_s.tolist(),
        "workers": trace.workers.tolist(),
        "gpus": trace.gpus.tolist(),
        "share": trace.share.tolist(),
        "tenant": [trace.tenants[place] for place in trace.tenant.tolist()],
        **{name: column.tolist() for name, column in trace.given.items()},
        "accelerator": _types(trace, np.arange(len(trace)), fleet.any_type),
        "group": trace.groups,
        "synthetic": repeat(made_up),
    }
    notes = (*trace.notes, *fleet.notes)
    return Workload(trace.name, _built(columns), float(trace.submitted_s[-1]), notes)


def assembled(copies: Sequence[Copy], trace: Trace, settings: Synthesis, tenants: Tenants) -> tuple[TraceJob, ...]:
    """All jobs in the order of their submission, with what the trace lacks made up."""
    rows = np.concatenate([copy.rows for copy in copies])
    submitted = np.concatenate([copy.submitted_s for copy in copies])
    order = np.argsort(submitted, kind="stable")
    counts = [len(copy) for copy in copies]
    owner = np.repeat(np.arange(len(copies)), counts)[order]
    habits = np.repeat([copy.habit for copy in copies], counts)[order]
    rows, submitted = rows[order], submitted[order]
    left, elapsed = (
        np.concatenate([getattr(copy, name) for copy in copies])[order] for name in ("duration_s", "elapsed_s")
    )
    even = np.concatenate([copy.even for copy in copies])[order]
    carried = elapsed > 0

    fewest, most, each = gangs(settings, even, trace.workers[rows], trace.gpus[rows])
    said = estimates(settings, even, habits, left + elapsed)
    made: dict[str, npt.NDArray[Any]] = {
        "qos": qos_of(settings, even),
        "max_workers": most,
        "estimate_s": said,
        "fails_at": failures(settings, even),
        **times(settings, even),
    }
    given = {name: column[rows] for name, column in trace.given.items() if name != "group"}
    fewest, each = (trace.workers[rows], trace.gpus[rows]) if "max_workers" in given else (fewest, each)
    columns: dict[str, npt.NDArray[Any]] = made | given
    columns["estimate_s"] = _still_to_run(columns["estimate_s"], elapsed)
    names = [tenants.names[place] for place in owner.tolist()]
    home = tenants.homes[owner]
    return _built(
        {
            "job_id": _job_ids(names, trace, rows, elapsed),
            "submitted_s": submitted.tolist(),
            "duration_s": left.tolist(),
            "workers": fewest.tolist(),
            "gpus": each.tolist(),
            "share": trace.share[rows].tolist(),
            "tenant": names,
            **{name: column.tolist() for name, column in columns.items()},
            "accelerator": _types(trace, rows, tenants.any_type),
            "data": inputs(settings, even, home, tenants.sizes, tenants.cells),
            "group": _groups(names, trace, rows, carried),
            "home": [tenants.cells[place] for place in home.tolist()],
            "synthetic": _labels(trace, carried),
        }
    )


def _job_ids(names: Sequence[str], trace: Trace, rows: Ints, elapsed: Floats) -> list[str]:
    """Copy and job of the trace, so that each can be found there; what began before the run says how long ago."""
    triples = zip(names, rows.tolist(), elapsed.tolist(), strict=True)
    return [
        f"{name}/{trace.job_ids[row]}" if not ran else f"{name}/{trace.job_ids[row]}@-{ran:.0f}s"
        for name, row, ran in triples
    ]


def _groups(names: Sequence[str], trace: Trace, rows: Ints, carried: Bools) -> list[str]:
    """The trace's group within the copy; what is left of a job teaches nothing about whole ones and has its own."""
    of_trace = [
        group.removeprefix(f"{trace.tenants[place]}/")
        for group, place in zip(trace.groups, trace.tenant.tolist(), strict=True)
    ]
    triples = zip(names, rows.tolist(), carried.tolist(), strict=True)
    return [f"{name}/{of_trace[row]}{'/carried' if began else ''}" for name, row, began in triples]


def _types(trace: Trace, rows: Ints, any_type: str) -> list[str]:
    """Device type of each job; one that may have any asks for what the fleet calls so."""
    if "accelerator" not in trace.given:
        return [any_type] * len(rows)
    return [any_type if kind == ANY else kind for kind in trace.given["accelerator"][rows].tolist()]


def _labels(trace: Trace, carried: Bools) -> list[frozenset[str]]:
    told = {*trace.given, "workers"} if "max_workers" in trace.given else set(trace.given)
    label = (MADE_UP - told) | trace.synthetic
    of_carried = label | CARRIED
    return [of_carried if began else label for began in carried.tolist()]


def _still_to_run(said: npt.NDArray[Any], elapsed: Floats) -> npt.NDArray[Any]:
    """Estimates less what has run already; None where that is used up, as nothing is known then."""
    for place in np.flatnonzero(elapsed > 0).tolist():
        if said[place] is not None:
            left = float(said[place] - elapsed[place])
            said[place] = left if left > 0 else None
    return said


def _built(columns: Mapping[str, Iterable[Any]]) -> tuple[TraceJob, ...]:
    """One job a row; fields without a column keep their defaults."""
    known = {each.name: each.default for each in fields(TraceJob)}
    every = [columns[name] if name in columns else repeat(default) for name, default in known.items()]
    return tuple(map(TraceJob, *every))
