"""Which requests arrive, in which order, and which of them are typical."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helios.errors import InputError
from helios.scheduler.fragmentation import Demand
from helios.simulator.packing.nodes import Bools, Request

COVERED = 0.95
"""Share of the trace's pods that its typical classes make up, as in FGD's published runs."""


def arrivals(requests: Sequence[Request], wanted: int, rng: np.random.Generator) -> list[Request]:
    """Requests in order of arrival whose demand for GPUs adds up to just `wanted` thousandths of a device.

    The protocol of FGD's published runs: the whole trace comes once, shuffled; where it asks for less than `wanted`,
    pods drawn from it with replacement follow until the next would go beyond; where it asks for more, pods are dropped
    at random until it does not.
    """
    if not any(request.total for request in requests):
        raise InputError("no request asks for a GPU: the cluster would never be full")
    order = [requests[place] for place in rng.permutation(len(requests))]
    asked = sum(request.total for request in order)
    while asked > wanted:
        asked -= order.pop(int(rng.integers(len(order)))).total
    if len(order) < len(requests):
        return order
    while asked + (more := requests[int(rng.integers(len(requests)))]).total <= wanted:
        order.append(more)
        asked += more.total
    return order


@dataclass(frozen=True, slots=True)
class Typical:
    """The classes of requests that make up most of a workload, their shares adding up to 1.

    Attributes:
        models: GPU models that each class may run on, `[M]`; empty for any.
    """

    demand: Demand
    models: tuple[frozenset[str], ...]

    def usable(self, models: Sequence[str]) -> Bools:
        """Which GPU models will do for which class, `[len(models), M]`."""
        return np.array([[not wanted or name in wanted for wanted in self.models] for name in models])


def typical(requests: Sequence[Request], covered: float = COVERED) -> Typical:
    """The fewest classes, the commonest first, that make up a share of at least `covered` of all requests.

    A class is CPUs, devices, thousandths of a device and models; host memory is not told apart, as in the source.
    """
    classes = Counter((one.millicpus, one.devices, one.thousandths, one.models) for one in requests)
    chosen = []
    left = covered * len(requests)
    for (millicpus, devices, thousandths, models), count in classes.most_common():
        if left <= 0:
            break
        chosen.append((count, devices, thousandths, millicpus, models))
        left -= count
    total = sum(count for count, *_ in chosen)
    rows = [(count / total, devices, thousandths, millicpus) for count, devices, thousandths, millicpus, _ in chosen]
    return Typical(Demand.of(rows), tuple(models for *_, models in chosen))
