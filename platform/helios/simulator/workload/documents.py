"""Fleets from `Cell` documents."""

from collections.abc import Sequence
from pathlib import Path

from helios.errors import InputError, Problem, SpecError
from helios.scheduler.snapshot import CellState, Node, Readiness, Topology
from helios.simulator.workload.fleet import NODE_MEMORY, NODE_MILLICPUS, Fleet
from helios.spec import CapacityType, Cell, CellSpec, Loaded, NodePool, load_documents

CPU_MILLICPUS, CPU_MEMORY = 64_000, 256 * 2**30
"""Cores and memory of a node without GPUs; no cell document says them. The simulated provider has the same."""
SIMULATED = (8, 4, 8)
"""Nodes to a rack, racks to a block and blocks to a fabric in cells of the simulated provider that do not say it."""


def load_fleet(paths: Sequence[Path]) -> Fleet:
    """Cells from files and folders of `Cell` documents; each pool has all the nodes that it may grow to.

    A cell of `provider: local` says nothing of its devices in its document and is left out, with a note.

    Raises:
        SpecError: a document is wrong, of another kind, or a cell has no GPUs.
        InputError: no cell is left.
    """
    loaded = load_documents(list(paths))
    problems = [_other_kind(one) for one in loaded if not isinstance(one.document, Cell)]
    cells, notes = [], []
    for one in loaded:
        if not isinstance(one.document, Cell):
            continue
        name, spec = one.document.metadata.name, one.document.spec
        cell = cell_of(name, spec)
        if any(node.accelerators and not node.spare for node in cell.nodes):
            cells.append(cell)
        elif spec.provider == "local":
            notes.append(f"{one.file}: cell {name} is a local machine, whose devices no document says; left out.")
        else:
            problems.append(_no_gpus(one))
    if problems:
        raise SpecError(problems, hint="a fleet to simulate is made of Cell documents whose pools have accelerators")
    if not cells:
        raise InputError("no cell with GPUs is left to simulate", hint=" ".join(notes))
    return Fleet(tuple(cells), notes=tuple(notes))


def cell_of(name: str, spec: CellSpec) -> CellState:
    """The cell with nothing on it: each pool has all the nodes that it may grow to."""
    return CellState(name, Readiness.READY, _nodes(name, spec), prices=_prices(spec), egress=spec.egress)


def _nodes(cell: str, spec: CellSpec) -> tuple[Node, ...]:
    nodes = []
    for pool in spec.node_pools:
        devices = {pool.accelerators.type: pool.accelerators.count} if pool.accelerators else {}
        cpus, memory = (NODE_MILLICPUS, NODE_MEMORY) if devices else (CPU_MILLICPUS, CPU_MEMORY)
        nodes += [
            Node(
                f"{cell}-{pool.name}-{index}",
                pool.name,
                cpus,
                memory,
                devices,
                capacity_type=pool.capacity_type,
                topology=_topology(pool, index, simulated=spec.provider == "simulated"),
                spare=index >= pool.nodes.max - pool.spares,
            )
            for index in range(pool.nodes.max)
        ]
    return tuple(nodes)


def _topology(pool: NodePool, index: int, *, simulated: bool) -> Topology:
    """Where a node hangs, as the live fleet takes it; nowhere, where neither document nor provider says."""
    said = pool.topology
    if said is None and not simulated:
        return Topology()
    nodes, racks, blocks = (said.nodes_per_rack, said.racks_per_block, said.blocks_per_fabric) if said else SIMULATED
    rack = index // nodes
    block = rack // racks
    return Topology(f"{pool.name}-r{rack}", f"{pool.name}-b{block}", f"{pool.name}-f{block // blocks}")


def _prices(spec: CellSpec) -> dict[tuple[str, CapacityType], float]:
    """USD a device and hour; of pools that are alike at different prices, the lowest."""
    prices: dict[tuple[str, CapacityType], float] = {}
    for pool in spec.node_pools:
        if pool.accelerators and pool.price is not None:
            key = (pool.accelerators.type, pool.capacity_type)
            prices[key] = min(pool.price, prices.get(key, pool.price))
    return prices


def _other_kind(one: Loaded) -> Problem:
    kind = one.document.kind
    return Problem(f"expected kind Cell, got {kind}", one.file, *one.positions.get("kind", (one.line, 1)), "kind", kind)


def _no_gpus(one: Loaded) -> Problem:
    place = one.positions.get("spec.nodePools", (one.line, 1))
    message = f"cell {one.document.metadata.name} has no GPUs: expected a pool with accelerators and at least one node"
    return Problem(message, one.file, *place, "spec.nodePools")
