"""Stage one: which gang is next, and which cell takes it."""

from collections.abc import Iterable, Sequence

from helios.scheduler.cell_stage import Fit, place, wording
from helios.scheduler.decisions import CellVerdict, Wait, WaitReason
from helios.scheduler.free import Free
from helios.scheduler.snapshot import CellState, PendingGang
from helios.spec import QoS

QOS_ORDER = {QoS.GUARANTEED: 0, QoS.STANDARD: 1, QoS.PREEMPTIBLE: 2}

# What a gang is told when cells refuse for different reasons: the one that is nearest to being solved.
_NEAREST_FIRST = (
    WaitReason.WAITING_FOR_CAPACITY,
    WaitReason.CELL_HELD_OFF,
    WaitReason.NODES_CLOSED,
    WaitReason.CELL_UNKNOWN,
    WaitReason.CELL_NOT_READY,
    WaitReason.GANG_DOES_NOT_FIT,
    WaitReason.WORKER_DOES_NOT_FIT,
    WaitReason.NO_CELL_HAS_ACCELERATOR,
    WaitReason.CELL_NOT_ALLOWED,
)


def ordered(pending: Iterable[PendingGang]) -> list[PendingGang]:
    """The queue: QoS class, then priority, then age; the uid makes it total."""
    return sorted(pending, key=lambda gang: (QOS_ORDER[gang.qos], -gang.priority, gang.submitted_at, gang.uid))


def choose(gang: PendingGang, cells: Sequence[CellState], free: Free) -> Fit | Wait:
    """The feasible cell that gives the most workers, then the tightest fit, then the first by name; or why none."""
    results = [place(gang, cell, free) for cell in sorted(cells, key=lambda cell: cell.name)]
    fits = [result for result in results if isinstance(result, Fit)]
    if fits:
        return min(fits, key=lambda fit: (-len(fit.nodes), fit.spare, fit.cell))
    return _nowhere(gang, [result for result in results if isinstance(result, CellVerdict)])


def _nowhere(gang: PendingGang, verdicts: Sequence[CellVerdict]) -> Wait:
    if not verdicts:
        return Wait(gang.uid, WaitReason.NO_CELL, "there is no cell yet")
    nearest = min(verdicts, key=lambda verdict: _NEAREST_FIRST.index(verdict.reason))
    request = gang.request
    if nearest.reason is WaitReason.NO_CELL_HAS_ACCELERATOR:
        message = f"no cell that may take it has {request.accelerator} (each worker asks for {wording(request)})"
    elif nearest.reason is WaitReason.CELL_NOT_ALLOWED:
        message = f"none of the cells that it allows exists: {', '.join(gang.cells)}"
    else:
        message = f"{nearest.cell}: {nearest.message}"
    return Wait(gang.uid, nearest.reason, message, tuple(verdicts))
