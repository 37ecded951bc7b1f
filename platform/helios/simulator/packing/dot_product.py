"""Dot product: the node whose free CPUs and GPUs are least like, and least above, what the request asks for.

Both are shares of the largest node there may be. The smallest product wins, which packs: a node with much free has a
large one.
Source: "Dot-product" of Weng et al., "Beware of Fragmentation", USENIX ATC 2023, after Tetris (Grandl et al., SIGCOMM
2014); `DotProductScore` of its artifact with merged GPU dimensions.
"""

from helios.simulator.packing.best_fit import MOST_MILLICPUS, MOST_THOUSANDTHS
from helios.simulator.packing.devices import fullest
from helios.simulator.packing.nodes import Floats, Nodes, Request


class DotProduct:
    random_ties = False

    def scores(self, nodes: Nodes, request: Request) -> Floats:
        cpus = nodes.millicpus / MOST_MILLICPUS * (request.millicpus / MOST_MILLICPUS)
        gpus = nodes.free.sum(1) / MOST_THOUSANDTHS * (request.total / MOST_THOUSANDTHS)
        scores: Floats = 100 * (1 - (cpus + gpus) / 2)
        return scores

    def devices(self, nodes: Nodes, request: Request) -> Floats:
        return fullest(nodes, request)
