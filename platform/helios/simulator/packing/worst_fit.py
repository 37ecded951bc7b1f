"""Worst fit: the node that has most left afterwards, and its emptiest device.

Source: Kubernetes' own default, `NodeResourcesFit` with `LeastAllocated`, which spreads. FGD's paper does not show it.
"""

from helios.simulator.packing.best_fit import left_over
from helios.simulator.packing.devices import emptiest
from helios.simulator.packing.nodes import Floats, Nodes, Request


class WorstFit:
    random_ties = False

    def scores(self, nodes: Nodes, request: Request) -> Floats:
        return 100 * left_over(nodes, request)

    def devices(self, nodes: Nodes, request: Request) -> Floats:
        return emptiest(nodes, request)
