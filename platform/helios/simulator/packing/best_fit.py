"""Best fit: the node that has least left afterwards, CPUs and GPUs weighing the same.

What is left is measured against the largest node there may be (128 CPUs, 8 GPUs).
Source: "Best-fit" of Weng et al., "Beware of Fragmentation", USENIX ATC 2023; `BestFitScore` of its artifact.
"""

from helios.simulator.packing.devices import fullest
from helios.simulator.packing.nodes import Floats, Nodes, Request

MOST_MILLICPUS = 128_000
MOST_THOUSANDTHS = 8_000


def left_over(nodes: Nodes, request: Request) -> Floats:
    """Mean share of the largest node's CPUs and GPUs that is left with the request placed, `[N]`."""
    cpus = (nodes.millicpus - request.millicpus) / MOST_MILLICPUS
    gpus = (nodes.free.sum(1) - request.total) / MOST_THOUSANDTHS
    left: Floats = (cpus + gpus) / 2
    return left


class BestFit:
    random_ties = False

    def scores(self, nodes: Nodes, request: Request) -> Floats:
        return 100 * (1 - left_over(nodes, request))

    def devices(self, nodes: Nodes, request: Request) -> Floats:
        return fullest(nodes, request)
