"""How much of a node's free accelerators the expected work could not use, and how a placement changes that.

The measure is that of fragmentation gradient descent (Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing
Workloads with Fragmentation Gradient Descent", USENIX ATC 2023). For one class of requests and one node:

- where the node cannot hold one such request, or the request wants no accelerator, all that is free is a fragment;
- where it can, the fragment is what is free on devices that have less free than the request wants of one device.

A node's expected fragment is the mean over classes, weighted by their share of the workload. The policy places work
where the sum of expected fragments over all nodes grows least. There are two forms: a table over counts of free whole
devices, for work that takes whole devices; and the full measure over thousandths of each device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from helios.errors import InputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
WHOLE = 1000
"""Thousandths of one device."""


def whole_device_table(most: int, demand: Mapping[int, float]) -> Floats:
    """Expected fragment, in devices, of a node with 0, 1, .. `most` whole devices free; `[most + 1]`.

    Args:
        most: the largest count of free devices asked for.
        demand: share of the workload by devices of one worker; 0 devices is work without accelerators.
    """
    for devices, share in demand.items():
        if devices < 0 or not share >= 0:
            raise InputError(f"demand for {devices} devices has the share {share}: neither may be below 0")
    free = np.arange(most + 1)
    lost = np.zeros(most + 1)
    for devices, share in demand.items():
        lost += share * np.where((free < devices) | (devices == 0), free, 0)
    return lost


def gradient(free: Ints, take: int, demand: Mapping[int, float]) -> Floats:
    """Change of the expected fragment, in devices, where a node gives `take` of its free whole devices; `[N]`.

    The lowest is the best node. Where fewer than `take` are free it is infinite.

    Args:
        free: free whole devices of each node, `[N]`.
        take: devices taken, of all workers together that go to one node.
        demand: share of the workload by devices of one worker.
    """
    if take < 0:
        raise InputError(f"{take} devices cannot be taken: a number from 0 on was expected")
    if not free.size:
        return np.zeros(0)
    table = whole_device_table(max(int(free.max()), 0), demand)
    change = np.full(len(table), np.inf)
    change[take:] = table[: max(len(table) - take, 0)] - table[take:]
    return change[np.maximum(free, 0)]


@dataclass(frozen=True)
class Demand:
    """Classes of requests and their shares of the workload, `[M]` each.

    Attributes:
        share: of the workload; 1 in all, where the figures are to be devices.
        devices: that one request wants; 0 for work without accelerators.
        thousandths: that it wants of each of these devices, up to 1000.
        millicpus: that it wants.
    """

    share: Floats
    devices: Ints
    thousandths: Ints
    millicpus: Ints

    @classmethod
    def of(cls, classes: Sequence[tuple[float, int, int, int]]) -> "Demand":
        """From rows of share, devices, thousandths, millicpus."""
        share, devices, thousandths, millicpus = zip(*classes, strict=True)
        return cls(np.asarray(share, float), *(np.asarray(column) for column in (devices, thousandths, millicpus)))

    @cached_property
    def levels(self) -> tuple[Ints, Ints]:
        """The distinct amounts that are asked of one device, `[L]`, and the place among them of each class, `[M]`."""
        values, places = np.unique(self.thousandths, return_inverse=True)
        return values, places


def expected_fragment(free: Ints, millicpus: Ints, demand: Demand, usable: Bools | None = None) -> Floats:
    """Expected fragment of nodes, in thousandths of a device; `[N]`.

    Args:
        free: free thousandths of each device, `[N, D]`; 0 for a device that a node has not.
        millicpus: free on each node, `[N]`.
        demand: what the workload asks for.
        usable: whether a node has the sort of accelerator that a class asks for, `[N, M]`; all have, where not given.
    """
    levels, place = demand.levels
    short = free[:, None, :] < levels[None, :, None]
    enough = (free.shape[1] - short.sum(2))[:, place] >= demand.devices
    held = enough & (millicpus[:, None] >= demand.millicpus) & (demand.devices > 0)
    if usable is not None:
        held &= usable
    on_short_devices = np.einsum("nd,nld->nl", free, short)[:, place]
    lost: Floats = np.where(held, on_short_devices, free.sum(1)[:, None]) @ demand.share
    return lost
