"""GPU clustering: requests of a sort (a share, one GPU, two GPUs, ..) together, so that sorts do not mix on nodes.

Nodes with this sort only come first, then those with this among others, then idle ones, then those with others only;
within each, the one with the least GPU free. CPU pods go anywhere.
Source: "GPU Clustering" of Weng et al., "Beware of Fragmentation", USENIX ATC 2023; `GpuClusteringScore` of its
artifact.
"""

import numpy as np

from helios.simulator.packing.best_fit import MOST_THOUSANDTHS
from helios.simulator.packing.devices import fullest
from helios.simulator.packing.nodes import Floats, Nodes, Request, sort_of


class GpuClustering:
    random_ties = False

    def scores(self, nodes: Nodes, request: Request) -> Floats:
        if not request.devices:
            return np.zeros(len(nodes.devices))
        count = nodes.sorts.sum(1)
        same = nodes.sorts[:, sort_of(request)]
        rank = np.where(same, np.where(count == 1, 75, 50), np.where(count == 0, 25, 0))
        scores: Floats = rank + 25 * (1 - nodes.free.sum(1) / MOST_THOUSANDTHS)
        return scores

    def devices(self, nodes: Nodes, request: Request) -> Floats:
        return fullest(nodes, request)
