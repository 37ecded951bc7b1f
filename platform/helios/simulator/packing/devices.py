"""How good each device of a node is for a request for a part of one, `[N, D]`; -inf where it does not fit."""

import numpy as np

from helios.simulator.packing.nodes import Floats, Nodes, Request


def fullest(nodes: Nodes, request: Request) -> Floats:
    """The device with the least free that is still enough is the best."""
    return np.where(nodes.free >= request.thousandths, -nodes.free, -np.inf)


def emptiest(nodes: Nodes, request: Request) -> Floats:
    """The device with the most free is the best."""
    return np.where(nodes.free >= request.thousandths, nodes.free, -np.inf)


def alike(nodes: Nodes, request: Request) -> Floats:
    """All that fit are as good as each other."""
    return np.where(nodes.free >= request.thousandths, 0.0, -np.inf)
