"""GPU packing: devices already shared before free devices of nodes in use before nodes with all devices free.

Scores are 100 less a point for each tenth of the chosen device that is free; 50 less a point for each free device that
is needed; 33 less a point for each device of a node with all of them free. CPU pods go anywhere.
Source: "GPU Packing" of Weng et al., "Beware of Fragmentation", USENIX ATC 2023; `GpuPackingScore` of its artifact.
"""

import numpy as np

from helios.scheduler.fragmentation import WHOLE
from helios.simulator.packing.devices import fullest
from helios.simulator.packing.nodes import Floats, Nodes, Request

SHARED, USED_NODE, FREE_NODE = 100, 50, 33


class GpuPacking:
    random_ties = False

    def scores(self, nodes: Nodes, request: Request) -> Floats:
        if not request.devices:
            return np.zeros(len(nodes.devices))
        free_devices = (nodes.free == WHOLE).sum(1)
        on_free_node = np.maximum(FREE_NODE - nodes.devices, nodes.devices)
        # A request takes the fullest devices that will do: whole ones only where it needs them whole, or no other is.
        enough = np.where(nodes.free >= request.thousandths, nodes.free, WHOLE + 1).min(1)
        on_used_node = max(USED_NODE - request.devices, FREE_NODE)
        scores = np.where(enough < WHOLE, SHARED - enough // (WHOLE // 10), on_used_node)
        return np.where(free_devices == nodes.devices, on_free_node, scores).astype(float)

    def devices(self, nodes: Nodes, request: Request) -> Floats:
        return fullest(nodes, request)
