"""First fit: the first node of the cluster that can hold the request, and its fullest device that will do.

Source: the oldest of bin packing's rules (Johnson, "Near-optimal bin packing algorithms", 1973). FGD's paper does not
show it; it is here because every other policy falls back on it between equally good nodes.
"""

import numpy as np

from helios.simulator.packing.devices import fullest
from helios.simulator.packing.nodes import Floats, Nodes, Request


class FirstFit:
    random_ties = False

    def scores(self, nodes: Nodes, request: Request) -> Floats:
        return np.where(nodes.fits(request), 0.0, -np.inf)

    def devices(self, nodes: Nodes, request: Request) -> Floats:
        return fullest(nodes, request)
