"""Fragmentation gradient descent: the node and device where the expected fragment grows least.

Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent",
USENIX ATC 2023; `FGDScore` of its artifact. The measure is `helios.scheduler.fragmentation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helios.scheduler.fragmentation import WHOLE, expected_fragment
from helios.simulator.packing.nodes import Bools, Floats, Ints, Nodes, Request
from helios.simulator.packing.workload import Typical


@dataclass(frozen=True, slots=True)
class Fgd:
    """The policy for one workload.

    Attributes:
        typical: what the fragment is measured against.
        usable: which of the cluster's GPU models will do for which typical class, `[models, M]`.
        whole: whether two devices of a node differ only where their scores differ by whole points, as published.
        random_ties: draw lots between equally good nodes; published runs took the first.
    """

    typical: Typical
    usable: Bools
    whole: bool = True
    random_ties: bool = False

    @classmethod
    def of(cls, typical: Typical, models: Sequence[str], *, whole: bool = True, random_ties: bool = False) -> "Fgd":
        return cls(typical, typical.usable(models), whole, random_ties)

    def scores(self, nodes: Nodes, request: Request) -> Floats:
        """From 0 to 100: the logistic function of the fragment, in devices, that the placement removes."""
        options = self._options(nodes, request)
        best: Floats = options.max(1)
        return best

    def devices(self, nodes: Nodes, request: Request) -> Floats:
        options = self._options(nodes, request)
        return np.floor(options) if self.whole else options

    def _options(self, nodes: Nodes, request: Request) -> Floats:
        """Score of each device of each node for a share, `[N, D]`, -inf where it does not fit; else `[N, 1]`."""
        after, fits = _share(nodes.free, request) if request.shares else _whole(nodes.free, request)
        count = after.shape[1]
        free = np.concatenate([nodes.free, after.reshape(-1, nodes.free.shape[1])])
        cpus = np.concatenate([nodes.millicpus, np.repeat(nodes.millicpus - request.millicpus, count)])
        model = np.concatenate([nodes.model, np.repeat(nodes.model, count)])
        lost = expected_fragment(free, cpus, self.typical.demand, self.usable[model]) / WHOLE
        removed = lost[: len(nodes.free), None] - lost[len(nodes.free) :].reshape(-1, count)
        # Sums differ in their last bits with the number of rows; what removes nothing is to score 50, not 49.9..
        return np.where(fits, 100 / (1 + np.exp(-removed.round(9))), -np.inf)


def _share(free: Ints, request: Request) -> tuple[Ints, Bools]:
    """Free thousandths with the request on one device or another, `[N, D, D]`, and whether it fits, `[N, D]`."""
    taken = request.thousandths * np.eye(free.shape[1], dtype=np.int64)
    return free[:, None, :] - taken, free >= request.thousandths


def _whole(free: Ints, request: Request) -> tuple[Ints, Bools]:
    """Free thousandths with the request on the first devices that are wholly free, `[N, 1, D]`; it fits."""
    idle = free == WHOLE
    taken = idle & (idle.cumsum(1) <= request.devices)
    return np.where(taken, 0, free)[:, None, :], np.ones((len(free), 1), np.bool_)
