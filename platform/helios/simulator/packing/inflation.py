"""One run: requests arrive one after the other and stay; one that fits nowhere is turned away and not tried again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helios.simulator.packing.nodes import Bools, Floats, Ints, Nodes, Request
from helios.simulator.packing.policies import Policy


@dataclass(frozen=True, slots=True)
class Inflation:
    """What a run came to.

    Attributes:
        arrived: demand for GPUs that had arrived with each request, as a share of capacity, `[P]`.
        allocated: share of capacity that was allocated by then, `[P]`.
        placed: whether each request was placed, `[P]`.
        gpus: the cluster's capacity in GPUs.
    """

    arrived: Floats
    allocated: Floats
    placed: Bools
    gpus: float

    def allocated_at(self, arrived: float) -> float:
        """Share allocated once the arrived demand has come to `arrived` of capacity, or at the end if it never did."""
        place = int(np.searchsorted(self.arrived, arrived - 1e-9))
        return float(self.allocated[min(place, len(self.allocated) - 1)])

    def unallocated_at(self, arrived: float) -> float:
        """GPUs that are not allocated then."""
        return self.gpus * (1 - self.allocated_at(arrived))


def inflate(
    nodes: Nodes, requests: Sequence[Request], policy: Policy, rng: np.random.Generator, *, whole: bool = True
) -> Inflation:
    """Place requests in their order on nodes, which are left as they are.

    Args:
        nodes: the cluster before. Of equally good nodes the first gets the request.
        requests: in order of arrival.
        policy: scores the nodes.
        rng: for policies that draw lots.
        whole: compare scores by their whole points, as Kubernetes' scheduler does and FGD's published runs did.
    """
    kinds = {request: kind for kind, request in enumerate(dict.fromkeys(requests))}
    cluster = _Cluster(nodes.copy(), list(kinds), policy, whole=whole)
    placed = np.array([cluster.place(kinds[request], rng) for request in requests], np.bool_)
    wanted = np.array([request.total for request in requests])
    before = nodes.capacity - int(nodes.free.sum())
    allocated = (before + np.cumsum(wanted * placed)) / nodes.capacity
    return Inflation(np.cumsum(wanted) / nodes.capacity, allocated, placed, nodes.capacity / 1000)


class _Cluster:
    """Nodes with the score of each for each kind of request, looked at again only where a node has changed.

    Nodes in the same state have the same score, so of those to be looked at one of each state is.
    """

    def __init__(self, nodes: Nodes, kinds: Sequence[Request], policy: Policy, *, whole: bool) -> None:
        self.nodes = nodes
        self._kinds = kinds
        self._policy = policy
        self._whole = whole
        shape = (len(kinds), len(nodes.devices))
        self._scores = np.full(shape, -np.inf)
        self._stale = np.ones(shape, np.bool_)
        self._known: dict[bytes, int] = {}
        self._states = np.array([self._state(node) for node in range(shape[1])])

    def place(self, kind: int, rng: np.random.Generator) -> bool:
        """Place a request of this kind on the best node, if there is one that it fits."""
        stale = np.flatnonzero(self._stale[kind])
        if stale.size:
            self._scores[kind, stale] = self._look(stale, self._kinds[kind])
            self._stale[kind, stale] = False
        scores = self._scores[kind]
        if scores.max() == -np.inf:
            return False
        self._take(self._best(scores, rng), self._kinds[kind], rng)
        return True

    def _best(self, scores: Floats, rng: np.random.Generator) -> int:
        if not self._policy.random_ties:
            return int(scores.argmax())
        return int(rng.choice(np.flatnonzero(scores == scores.max())))

    def _look(self, which: Ints, request: Request) -> Floats:
        _, first, place = np.unique(self._states[which], return_index=True, return_inverse=True)
        nodes = self.nodes.rows(which[first])
        fits = nodes.fits(request)
        scores = np.full(len(first), -np.inf)
        if fits.any():
            seen = self._policy.scores(nodes.rows(fits), request)
            scores[fits] = np.floor(seen) if self._whole else seen
        return scores[place]

    def _take(self, node: int, request: Request, rng: np.random.Generator) -> None:
        if request.shares:
            scores = self._policy.devices(self.nodes.rows(np.array([node])), request)[0]
            devices = np.array([self._best(scores, rng)])
        else:
            devices = self.nodes.whole_devices(node, request.devices)
        self.nodes.take(node, devices, request)
        self._stale[:, node] = True
        self._states[node] = self._state(node)

    def _state(self, node: int) -> int:
        return self._known.setdefault(self.nodes.state(node), len(self._known))
