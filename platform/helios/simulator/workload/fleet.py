"""A fleet to simulate, and the protocol's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from helios.errors import InputError
from helios.scheduler.snapshot import CellState, Node, Readiness, Topology
from helios.simulator.traces.earth import SIZES
from helios.spec import CapacityType

NODE_GPUS = 8
NODE_MILLICPUS, NODE_MEMORY = 96_000, 2**40
"""Cores and memory of a node with GPUs; no cell document says them. The simulated provider has the same."""
DRAWN = (4, 16, 256)
"""Neighbouring nodes of a cell to a rack, a block and a fabric."""
MIX = {CapacityType.ON_DEMAND: 0.15, CapacityType.PREEMPTIBLE: 0.15}
"""Shares of a cell's nodes in the mean; each cell draws its own from none to twice as many. The rest is reserved."""
DEVICE_HOUR = {CapacityType.RESERVED: 2.0, CapacityType.ON_DEMAND: 3.0, CapacityType.PREEMPTIBLE: 1.0}
"""USD; each cell's are up to a tenth more or less."""
EGRESS = 0.02
INGRESS_RATE = (1.0, 5.0)
"""GiB a second, drawn for each cell."""
ANY = "GPU"
"""Device type of a job that may have any."""
GENERATIONS: tuple[Mapping[str, float], ...] = ({ANY: 1.0}, {"H100": 1.0, "A100": 0.5})
"""Device types with their speeds, where a fleet has one generation or two; 0.5 is made up."""
OLDER = 0.4
"""Share of the GPUs that is of the older of two generations, at least."""


@dataclass(frozen=True)
class Fleet:
    """Cells that are all ready, with nothing on them.

    Attributes:
        speeds: relative speed by accelerator type; 1 where it is missing.
        notes: what is made up, a sentence each.
    """

    cells: tuple[CellState, ...]
    speeds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """Devices that work can be placed on; spares are not counted."""
        return sum(sum(node.accelerators.values()) for node in self.usable)

    @property
    def usable(self) -> tuple[Node, ...]:
        """Nodes of all cells but spare ones."""
        return tuple(node for cell in self.cells for node in cell.nodes if not node.spare)

    @property
    def types(self) -> tuple[str, ...]:
        """Accelerator types, the fastest first."""
        found = {kind for node in self.usable for kind in node.accelerators}
        return tuple(sorted(found, key=lambda kind: (-self.speeds.get(kind, 1.0), kind)))

    @property
    def any_type(self) -> str:
        """What a job asks for whose trace names no type: the only one, or `GPU` where there are several."""
        return self.types[0] if len(self.types) == 1 else ANY

    @property
    def alternatives(self) -> dict[str, tuple[str, ...]]:
        """Types that do as well as `GPU` where there are several."""
        return {ANY: tuple(kind for kind in self.types if kind != ANY)} if len(self.types) > 1 else {}

    @property
    def capacity(self) -> float:
        """Devices, each counted by its speed."""
        devices = (item for node in self.usable for item in node.accelerators.items())
        return sum(count * self.speeds.get(kind, 1.0) for kind, count in devices)


def protocol_fleet(seed: int = 0, gpus: int = 5000, generations: int = 1) -> Fleet:
    """Sixteen cells of unequal size on nodes of eight GPUs; the largest has about 25 times the GPUs of the smallest.

    Their sizes are to each other as those of the virtual clusters of Helios Earth in May 2020. Capacity types, prices
    and bandwidth are made up and drawn by the seed; so is which cells are of the older generation, where there are two.
    """
    if gpus % NODE_GPUS or gpus < NODE_GPUS * len(SIZES):
        expected = f"a multiple of {NODE_GPUS}, at least {NODE_GPUS * len(SIZES)}"
        raise InputError(f"a fleet of {len(SIZES)} cells has {expected} GPUs, got {gpus}")
    if seed < 0:
        raise InputError(f"expected a seed of 0 or more, got {seed}")
    if not 1 <= generations <= len(GENERATIONS):
        raise InputError(f"expected 1 or {len(GENERATIONS)} generations of devices, got {generations}")
    speeds = GENERATIONS[generations - 1]
    counts = _node_counts(gpus // NODE_GPUS)
    kinds = _kinds(counts, list(speeds), np.random.default_rng([seed, len(counts)]))
    cells = tuple(
        _drawn_cell(place, count, kind, seed) for place, (count, kind) in enumerate(zip(counts, kinds, strict=True))
    )
    note = "The fleet is synthetic but for the proportions of its cells (Helios Earth, May 2020)."
    return Fleet(cells, speeds, (note,))


def _topology(prefix: str, index: int) -> Topology:
    rack, block, fabric = DRAWN
    return Topology(f"{prefix}-r{index // rack}", f"{prefix}-b{index // block}", f"{prefix}-f{index // fabric}")


def _node_counts(nodes: int) -> list[int]:
    """Nodes of each cell, the largest first: in proportion to Earth's, by largest remainders, at least one."""
    sizes = np.array(sorted(SIZES.values(), reverse=True), np.float64)
    exact = 1 + sizes / sizes.sum() * (nodes - len(sizes)) if nodes < 4 * len(sizes) else sizes / sizes.sum() * nodes
    counts = np.floor(exact).astype(np.int64)
    rest = np.argsort(counts - exact, kind="stable")[: nodes - int(counts.sum())]
    counts[rest] += 1
    return [int(count) for count in counts]


def _kinds(counts: Sequence[int], types: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Device type of each cell: cells drawn at random are of the last type until it has its share."""
    kinds = [types[0]] * len(counts)
    left = OLDER * sum(counts) if len(types) > 1 else 0
    for place in np.argsort(rng.random(len(counts))):
        if left <= 0:
            break
        if counts[place] <= 2 * left:
            kinds[place] = types[-1]
            left -= counts[place]
    return kinds


def _drawn_cell(place: int, count: int, kind: str, seed: int) -> CellState:
    name = f"cell-{place:02d}"
    even = np.random.default_rng([seed, place]).random(len(MIX) + 2).tolist()
    parts = {type_: round(2 * mean * share * count) for (type_, mean), share in zip(MIX.items(), even, strict=False)}
    types = [type_ for type_, part in parts.items() for _ in range(part)]
    types = [CapacityType.RESERVED] * (count - len(types)) + types
    nodes = tuple(
        Node(
            f"{name}-{index}",
            type_.value.replace("_", "-"),
            NODE_MILLICPUS,
            NODE_MEMORY,
            {kind: NODE_GPUS},
            capacity_type=type_,
            topology=_topology(name, index),
        )
        for index, type_ in enumerate(types)
    )
    dear = 0.9 + 0.2 * even[-2]
    prices = {(kind, type_): price * dear for type_, price in DEVICE_HOUR.items()}
    low, high = INGRESS_RATE
    return CellState(
        name, Readiness.READY, nodes, prices=prices, egress=EGRESS, ingress_rate=low + (high - low) * even[-1]
    )
