"""Why a cell does not take a gang, and what the gang is told when all of them refuse."""

from collections.abc import Mapping, Sequence

from helios.scheduler.book import room, want_of
from helios.scheduler.cell_stage import access_of, wording
from helios.scheduler.decisions import CellVerdict, NodeReject, Wait, WaitReason
from helios.scheduler.layout import Access, layout_of
from helios.scheduler.lines import Shape
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import CellState, Readiness, Request

# What a gang is told when cells refuse for different reasons: the one that is nearest to being solved.
_NEAREST_FIRST = (
    WaitReason.MAKING_ROOM,
    WaitReason.RESERVED_FOR_OTHERS,
    WaitReason.WAITING_FOR_CAPACITY,
    WaitReason.CELL_HELD_OFF,
    WaitReason.NODES_CLOSED,
    WaitReason.CELL_UNKNOWN,
    WaitReason.CELL_NOT_READY,
    WaitReason.GANG_DOES_NOT_FIT,
    WaitReason.WORKER_DOES_NOT_FIT,
    WaitReason.CAPACITY_TYPE_NOT_ALLOWED,
    WaitReason.NO_CELL_HAS_ACCELERATOR,
    WaitReason.CELL_NOT_ALLOWED,
)


_CLOSED = {NodeReject.CORDONED: "cordoned", NodeReject.UNHEALTHY: "unhealthy", NodeReject.SPARE: "kept as spares"}


def closed(shape: Shape, cell: CellState) -> tuple[WaitReason, str] | None:
    """Why the cell is not asked at all, or None."""
    if shape.cells and cell.name not in shape.cells:
        return WaitReason.CELL_NOT_ALLOWED, f"placement.cells allows only {', '.join(shape.cells)}"
    if cell.readiness is Readiness.UNKNOWN:
        return WaitReason.CELL_UNKNOWN, cell.message or "the cell has not been heard from"
    if cell.readiness is not Readiness.READY:
        return WaitReason.CELL_NOT_READY, cell.message or "the cell is not ready"
    if cell.name in shape.held_off:
        message = "it refused the last start for want of capacity and is asked again in a while"
        return WaitReason.CELL_HELD_OFF, message
    return None


def nowhere(uid: str, shape: Shape, requests: Sequence[Request], scratch: Scratch) -> Wait:
    """The decision on a gang that no cell takes now: the verdict of each, and the one that is nearest to a solution.

    Args:
        requests: what its tenant's quota allows a worker to be given; at least one.
    """
    verdicts = [_verdict(shape, requests, cell, scratch) for cell in scratch.cells]
    if not verdicts:
        return Wait(uid, WaitReason.NO_CELL, "there is no cell yet")
    nearest = min(verdicts, key=lambda verdict: _NEAREST_FIRST.index(verdict.reason))
    request = requests[0]
    if nearest.reason is WaitReason.NO_CELL_HAS_ACCELERATOR:
        message = f"no cell that may take it has {request.accelerator} (each worker asks for {wording(request)})"
    elif nearest.reason is WaitReason.CELL_NOT_ALLOWED:
        message = f"none of the cells that it allows exists: {', '.join(shape.cells)}"
    else:
        message = f"{nearest.cell}: {nearest.message}"
    return Wait(uid, nearest.reason, message, tuple(verdicts))


def _verdict(shape: Shape, requests: Sequence[Request], cell: CellState, scratch: Scratch) -> CellVerdict:
    refusal = closed(shape, cell)
    if refusal is not None:
        return CellVerdict(cell.name, *refusal, len(cell.nodes))
    access = access_of(shape, scratch.policy)
    results = [_refused(shape, request, cell, scratch, access) for request in requests]
    return min(results, key=lambda result: (_NEAREST_FIRST.index(result.reason), -result.fits))


def _refused(shape: Shape, request: Request, cell: CellState, scratch: Scratch, access: Access) -> CellVerdict:
    rejected = scratch.book(cell.name).rejected(request, access)
    fits = scratch.fits(cell.name, want_of(request, access))
    reason, message = _why(shape.min_workers, request, cell, access, rejected=rejected, fits=fits)
    return CellVerdict(cell.name, reason, message, len(cell.nodes), dict(sorted(rejected.items())), fits)


def _why(
    fewest: int, request: Request, cell: CellState, access: Access, *, rejected: Mapping[NodeReject, int], fits: int
) -> tuple[WaitReason, str]:
    if request.accelerator and not _has(cell, request.accelerator):
        return WaitReason.NO_CELL_HAS_ACCELERATOR, f"no node has {request.accelerator}"
    if room(cell, want_of(request, access)) < fewest:
        return _never(request, cell, access, rejected, fewest)
    full = ", ".join(f"{count} {reject}" for reject, count in rejected.items())
    if fits >= fewest:
        message = f"{fits} workers fit now, but their place is kept for gangs ahead of it, or for a service"
        return WaitReason.RESERVED_FOR_OTHERS, message
    message = f"{fits} of at least {fewest} workers fit now" + (f"; nodes: {full}" if full else "")
    return WaitReason.WAITING_FOR_CAPACITY, message


def _never(
    request: Request, cell: CellState, access: Access, rejected: Mapping[NodeReject, int], fewest: int
) -> tuple[WaitReason, str]:
    """It would not fit, were nothing running."""
    anything = Access(spares=True)
    if room(cell, want_of(request, access), opened=True) >= fewest:
        counts = ", ".join(f"{count} {_CLOSED[why]}" for why, count in rejected.items() if why in _CLOSED)
        return WaitReason.NODES_CLOSED, f"it would fit if all nodes took work; of {len(cell.nodes)}: {counts}"
    if access.types and room(cell, want_of(request, anything), opened=True) >= fewest:
        allowed = ", ".join(sorted(access.types))
        return WaitReason.CAPACITY_TYPE_NOT_ALLOWED, f"it would fit on nodes of other capacity types than {allowed}"
    whole = room(cell, want_of(request, anything), opened=True)
    if not whole:
        return WaitReason.WORKER_DOES_NOT_FIT, f"no node could hold one worker ({wording(request)}), were it empty"
    return (
        WaitReason.GANG_DOES_NOT_FIT,
        f"the whole cell holds {whole} such workers, the gang needs {fewest}",
    )


def _has(cell: CellState, accelerator: str) -> bool:
    totals = layout_of(cell).totals.get(accelerator)
    return totals is not None and bool(totals.any())
