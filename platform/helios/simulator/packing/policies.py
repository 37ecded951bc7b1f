"""The policies by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from helios.errors import NotFoundError
from helios.simulator.packing.best_fit import BestFit
from helios.simulator.packing.dot_product import DotProduct
from helios.simulator.packing.fgd import Fgd
from helios.simulator.packing.first_fit import FirstFit
from helios.simulator.packing.gpu_clustering import GpuClustering
from helios.simulator.packing.gpu_packing import GpuPacking
from helios.simulator.packing.nodes import Floats, Nodes, Request
from helios.simulator.packing.random_fit import RandomFit
from helios.simulator.packing.workload import Typical
from helios.simulator.packing.worst_fit import WorstFit


class Policy(Protocol):
    """How good places are for a request, from the state of the nodes given and nothing else. The best is the highest.

    Attributes:
        random_ties: whether lots are drawn between equally good places; where not, the first of them is taken.
    """

    @property
    def random_ties(self) -> bool: ...

    def scores(self, nodes: Nodes, request: Request) -> Floats:
        """Of nodes that all fit, from 0 to 100; `[N]`."""

    def devices(self, nodes: Nodes, request: Request) -> Floats:
        """Of the devices of nodes, for a request for a part of one; -inf where it does not fit; `[N, D]`."""


_MAKERS: Mapping[str, Callable[[], Policy]] = {
    "random": RandomFit,
    "worst_fit": WorstFit,
    "dot_product": DotProduct,
    "gpu_clustering": GpuClustering,
    "gpu_packing": GpuPacking,
    "best_fit": BestFit,
    "first_fit": FirstFit,
}
POLICIES = (*_MAKERS, "fgd")


def policy(name: str, typical: Typical, models: Sequence[str], *, whole: bool = True) -> Policy:
    """A policy for a workload and a cluster with these GPU models; only FGD looks at either."""
    if name == "fgd":
        return Fgd.of(typical, models, whole=whole)
    if name not in _MAKERS:
        raise NotFoundError("packing policy", name, known=POLICIES)
    return _MAKERS[name]()
