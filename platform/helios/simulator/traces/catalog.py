"""Traces by the name that a person gives: one of the public ones, or a file."""

from pathlib import Path

from helios.errors import InputError, NotFoundError
from helios.simulator.traces import earth, openb, philly, spot
from helios.simulator.traces.folder import trace_folder
from helios.simulator.traces.generic import load_csv
from helios.simulator.traces.table import SUFFIXES
from helios.simulator.traces.trace import Trace

NO_JOBS = {
    earth.NAME: "it has load series and no jobs: it says how uneven the load of cells is",
    openb.NAME: "it is a sample of pods for packing tests, and its times are no workload",
    spot.NAME: "only tables made from its jobs are published: draw_trace makes a synthetic one from them",
}
"""Traces that no simulation can replay, and why."""
KNOWN = (philly.NAME, *NO_JOBS)
SHORT = {"philly": philly.NAME}


def load_trace(name: str, folder: Path | None = None) -> Trace:
    """The trace of a name: `philly-2017`, or `philly` for short, or a path of a CSV of the generic form.

    Args:
        name: of the trace or file.
        folder: of all public traces; where it is None, `trace_folder` looks for it.

    Raises:
        NotFoundError: nothing has this name; with the nearest.
        InputError: the trace has no jobs, or its files are not there.
        SpecError: with the rows that are wrong.
    """
    if name.endswith(SUFFIXES) or "/" in name:
        return load_csv(Path(name))
    full = SHORT.get(name, name)
    if full == philly.NAME:
        return philly.load_philly(trace_folder(folder))
    if full in NO_JOBS:
        raise InputError(f"{full} cannot be replayed: {NO_JOBS[full]}")
    hint = f"known are {', '.join(KNOWN)}, and any file *{', *'.join(SUFFIXES)} of the generic form"
    raise NotFoundError("trace", name, known=(*KNOWN, *SHORT), hint=hint)
