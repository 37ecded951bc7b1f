"""Random: any node and any device that can hold the request.

Source: "Random-fit" of Weng et al., "Beware of Fragmentation", USENIX ATC 2023; `RandomScore` of its artifact.
"""

import numpy as np

from helios.simulator.packing.devices import alike
from helios.simulator.packing.nodes import Floats, Nodes, Request


class RandomFit:
    random_ties = True

    def scores(self, nodes: Nodes, request: Request) -> Floats:
        return np.where(nodes.fits(request), 0.0, -np.inf)

    def devices(self, nodes: Nodes, request: Request) -> Floats:
        return alike(nodes, request)
