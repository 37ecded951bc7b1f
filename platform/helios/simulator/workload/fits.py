"""Whether a fleet has room for a trace's largest gangs."""

import numpy as np

from helios.errors import nearest
from helios.simulator.traces.table import Findings
from helios.simulator.traces.trace import Trace
from helios.simulator.workload.fleet import ANY, Fleet


def check_fits(trace: Trace, fleet: Fleet) -> None:
    """Look for rows whose gang no cell could hold even if it were empty.

    Raises:
        SpecError: with these rows.
    """
    findings = Findings(trace.file or trace.name)
    types = trace.given.get("accelerator", np.full(len(trace), ANY, object))
    known = fleet.types
    asked = {(kind, int(gpus)) for kind, gpus in zip(types.tolist(), trace.gpus.tolist(), strict=True)}
    room = {(kind, gpus): _room(fleet, kind, gpus) for kind, gpus in asked}
    for row, (kind, gpus, workers) in enumerate(
        zip(types.tolist(), trace.gpus.tolist(), trace.workers.tolist(), strict=True)
    ):
        line, most = int(trace.lines[row]), room[kind, gpus]
        if kind != ANY and kind not in known:
            message = f"no cell has {kind!r}; there are {', '.join(known)}"
            findings.add(line, "accelerator", message, near=nearest(kind, known))
        elif workers > most:
            message = (
                f"{workers} workers of {gpus or 'a part of one'} GPUs fit on no cell: the largest has room for {most}"
            )
            findings.add(line, "gpus", message)
    findings.stop()


def _room(fleet: Fleet, kind: str, gpus: int) -> int:
    """Workers of so many devices that the roomiest cell holds when it is empty."""
    return max(
        sum(
            sum(count // max(1, gpus) for type_, count in node.accelerators.items() if kind in {ANY, type_})
            for node in cell.nodes
            if not node.spare
        )
        for cell in fleet.cells
    )
