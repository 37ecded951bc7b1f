"""Microsoft's Philly cluster (2017): jobs with their virtual clusters, as Pollux's simulator filtered them.

Source: Jeon et al., "Analysis of Large-Scale Multi-Tenant GPU Clusters for DNN Training Workloads", USENIX ATC 2019;
data msr-fiddle/philly-traces (CC BY 4.0) by way of pkusys/ElasticFlow, `pollux_simulator/traces/philly.csv`. It has no
user, status, queueing or attempts, and about 73% of the published jobs with 51% of their GPU time, filtered nobody says
how: no figure of failures or cancellations can come from it.
"""

from pathlib import Path

import numpy as np

from helios.simulator.traces.folder import trace_file
from helios.simulator.traces.table import Bools, Floats, Table, read_table
from helios.simulator.traces.trace import DAY_S, WEEK_S, Trace, cut_to_nodes, numbered

NAME = "philly-2017"
FILE = "philly.csv.xz"
START = "2017-10-02T00:00:00"
"""A Monday. In the weeks before it few but long jobs are left, which ran when the record began."""
WEEKS = 10
"""Whole weeks from `START` until the record thins out on 12 December 2017."""
COLUMNS = ("timestamp", "duration", "num_gpus", "gpu_time", "cluster")
MAX_DURATION_S = 366 * DAY_S
MAX_GPUS = 10_000


def load_philly(folder: Path) -> Trace:
    """The ten weeks from `START` in which jobs were submitted as usual.

    Args:
        folder: of all traces.

    Raises:
        InputError: where the file is missing.
        SpecError: with the rows that are wrong.
    """
    table = read_table(trace_file(folder, NAME, FILE), COLUMNS)
    moments = _moments(table)
    durations = table.numbers("duration", "seconds, above 0", least=0, most=MAX_DURATION_S, above=True)
    gpus = table.whole("num_gpus", "a whole number of GPUs, 1 or more", least=1, most=MAX_GPUS)
    worked = table.numbers("gpu_time", "GPU-seconds", least=0, most=MAX_DURATION_S * MAX_GPUS)
    table.wrong("gpu_time", ~np.isclose(worked, durations * gpus), "duration times num_gpus")
    clusters = table.texts("cluster", lambda cell: bool(cell) and cell.isprintable(), "a virtual cluster")
    table.findings.stop()

    places, names = numbered(clusters)
    inside = (moments >= 0) & (moments < WEEKS * WEEK_S)
    repeated = _repeated(np.stack([moments, durations, gpus, places], 1))
    keep = np.flatnonzero(inside & ~repeated)
    keep = keep[np.argsort(moments[keep], kind="stable")]
    workers, each = cut_to_nodes(gpus)
    lines = table.lines[keep]
    return Trace(
        name=NAME,
        file=table.file,
        weeks=WEEKS,
        job_ids=tuple(map(str, lines.tolist())),
        lines=lines,
        submitted_s=moments[keep],
        duration_s=durations[keep],
        workers=workers[keep],
        gpus=each[keep],
        share=np.zeros(len(keep), np.int64),
        tenant=places[keep],
        tenants=names,
        notes=_notes(len(table), len(keep), outside=int((~inside).sum()), repeated=int((inside & repeated).sum())),
    )


def _moments(table: Table) -> Floats:
    """Seconds since `START` on the trace's own clock, `[N]`."""
    start = np.datetime64(START, "s")
    found = np.zeros(len(table), np.float64)
    bad = np.zeros(len(table), np.bool_)
    for row, cell in enumerate(table.columns["timestamp"]):
        try:
            found[row] = (np.datetime64(cell, "s") - start).astype(np.int64)
        except ValueError:
            bad[row] = True
    bad |= np.abs(found) > 10 * 366 * DAY_S
    table.wrong("timestamp", bad, "a moment like 2017-10-09 07:01:55")
    return found


def _repeated(rows: Floats) -> Bools:
    """Rows that say again what an earlier one said, `[N]`."""
    _, first = np.unique(rows, axis=0, return_index=True)
    again = np.ones(len(rows), np.bool_)
    again[first] = False
    return again


def _notes(rows: int, kept: int, *, outside: int, repeated: int) -> tuple[str, ...]:
    return (
        (
            f"{NAME}: {kept} of {rows} rows, those of the {WEEKS} weeks from {START[:10]}; {outside} lie outside, and "
            f"{repeated} repeat another row in everything and count once."
        ),
        (
            f"{NAME} says nothing of users, failures, queueing or attempts, and holds about 73% of the published jobs "
            "with 51% of their GPU time, filtered nobody says how."
        ),
    )
