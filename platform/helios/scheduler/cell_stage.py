"""Stage two: the workers of one gang on the nodes of one cell, all of them (at least the minimum) or none."""

from collections.abc import Mapping
from dataclasses import dataclass

from helios.scheduler.decisions import CellVerdict, NodeReject, WaitReason
from helios.scheduler.free import Free, room
from helios.scheduler.snapshot import CellState, PendingGang, Readiness, Request


@dataclass(frozen=True, slots=True)
class Fit:
    """A place for a gang.

    Attributes:
        nodes: the node of each worker.
        spare: workers of the same request that the nodes used could still hold; small is a tight fit.
    """

    cell: str
    nodes: tuple[str, ...]
    spare: int


def place(gang: PendingGang, cell: CellState, free: Free) -> Fit | CellVerdict:
    """Find nodes for as many workers as there may be, or say why not even the fewest fit."""
    refusal = _closed(gang, cell)
    if refusal is not None:
        return refusal
    look = free.look(cell.name, gang.request)
    total = sum(look.capacities.values())
    if total < gang.min_workers:
        reason, message = _why(gang, cell, total, look.rejected)
        return CellVerdict(cell.name, reason, message, len(cell.nodes), look.rejected, total)
    chosen, spare = _best_fit(look.capacities, min(total, gang.max_workers))
    return Fit(cell.name, chosen, spare)


def _best_fit(capacities: Mapping[str, int], workers: int) -> tuple[tuple[str, ...], int]:
    """Fill the roomiest nodes while a node cannot hold the rest; put the rest where it leaves the least room.

    Few nodes keep a gang's traffic on fast links; a tight last node keeps roomy ones whole for others.
    """
    chosen: list[str] = []
    spare = 0
    left = workers
    open_nodes = dict(sorted(capacities.items()))
    while left:
        holders = [name for name, capacity in open_nodes.items() if capacity >= left]
        name = min(holders, key=open_nodes.__getitem__) if holders else max(open_nodes, key=open_nodes.__getitem__)
        taken = min(left, open_nodes[name])
        spare += open_nodes.pop(name) - taken
        chosen += [name] * taken
        left -= taken
    return tuple(chosen), spare


def _closed(gang: PendingGang, cell: CellState) -> CellVerdict | None:
    nodes = len(cell.nodes)
    if gang.cells and cell.name not in gang.cells:
        allowed = ", ".join(gang.cells)
        message = f"placement.cells allows only {allowed}"
        return CellVerdict(cell.name, WaitReason.CELL_NOT_ALLOWED, message, nodes)
    if cell.readiness is Readiness.UNKNOWN:
        message = cell.message or "the cell has not been heard from"
        return CellVerdict(cell.name, WaitReason.CELL_UNKNOWN, message, nodes)
    if cell.readiness is not Readiness.READY:
        return CellVerdict(cell.name, WaitReason.CELL_NOT_READY, cell.message or "the cell is not ready", nodes)
    if cell.name in dict(gang.held_off):
        message = "it refused the last start for want of capacity and is asked again in a while"
        return CellVerdict(cell.name, WaitReason.CELL_HELD_OFF, message, nodes)
    return None


def _why(gang: PendingGang, cell: CellState, fits: int, rejected: Mapping[NodeReject, int]) -> tuple[WaitReason, str]:
    request = gang.request
    if request.accelerators and not any(node.accelerators.get(request.accelerator) for node, _ in cell.sorts):
        return WaitReason.NO_CELL_HAS_ACCELERATOR, f"no node has {request.accelerator}"
    whole = room(cell, request, opened=True)
    if whole >= gang.min_workers > room(cell, request):
        closed = {NodeReject.CORDONED: "cordoned", NodeReject.UNHEALTHY: "unhealthy"}
        counts = ", ".join(f"{rejected[why]} {word}" for why, word in closed.items() if why in rejected)
        return WaitReason.NODES_CLOSED, f"it would fit if all nodes took work; of {len(cell.nodes)}: {counts}"
    if not whole:
        return WaitReason.WORKER_DOES_NOT_FIT, f"no node could hold one worker ({wording(request)}), were it empty"
    if whole < gang.min_workers:
        message = f"the whole cell holds {whole} such workers, the gang needs {gang.min_workers}"
        return WaitReason.GANG_DOES_NOT_FIT, message
    full = ", ".join(f"{count} {reject}" for reject, count in rejected.items())
    message = f"{fits} of at least {gang.min_workers} workers fit now" + (f"; nodes: {full}" if full else "")
    return WaitReason.WAITING_FOR_CAPACITY, message


def wording(request: Request) -> str:
    """`8 x H100, 16 cpus, 64.0 GiB`."""
    parts = [f"{request.accelerators} x {request.accelerator}"] if request.accelerators else []
    parts.append(f"{request.millicpus / 1000:g} cpus")
    if request.memory:
        parts.append(f"{request.memory / 2**30:.3g} GiB")
    return ", ".join(parts)
