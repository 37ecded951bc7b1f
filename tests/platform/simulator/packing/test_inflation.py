"""A run places what fits, where its policy says, and nothing else."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helios.scheduler.fragmentation import WHOLE
from helios.simulator.packing import POLICIES, Inflation, Nodes, Request, inflate, policy, typical
from helios.simulator.packing.policies import Policy

T4 = frozenset({"T4"})
KINDS = (
    Request(4, 8),
    Request(2, 4, 1, 250),
    Request(2, 4, 1, 460),
    Request(2, 4, 1, 460, T4),
    Request(6, 16, 1, WHOLE),
    Request(6, 64, 1, WHOLE),
    Request(8, 16, 2, WHOLE, T4),
    Request(16, 16, 4, WHOLE),
)
SETS = st.lists(st.sampled_from([("T4", 2, 16), ("G2", 4, 24), ("T4", 4, 8), ("G2", 1, 2)]), min_size=1, max_size=5)
clusters = SETS.map(
    lambda rows: Nodes.empty(
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
        np.full(len(rows), 96),
        [row[0] for row in rows],
    )
)
workloads = st.lists(st.sampled_from(KINDS), min_size=1, max_size=40)


def run(name: str, nodes: Nodes, requests: Sequence[Request], *, whole: bool = True) -> Inflation:
    return inflate(nodes, requests, made(name, nodes), np.random.default_rng(0), whole=whole)


def made(name: str, nodes: Nodes) -> Policy:
    return policy(name, typical(KINDS, 1.0), nodes.models)


def by_hand(policy: Policy, nodes: Nodes, requests: Sequence[Request], *, whole: bool) -> list[bool]:
    """The same rule without anything remembered between requests: every node is looked at each time."""
    nodes, placed = nodes.copy(), []
    for request in requests:
        fits = np.flatnonzero(nodes.fits(request))
        placed.append(bool(fits.size))
        if not fits.size:
            continue
        scores = policy.scores(nodes.rows(fits), request)
        node = int(fits[(np.floor(scores) if whole else scores).argmax()])
        row = nodes.rows(np.array([node]))
        whole_ones = nodes.whole_devices(node, request.devices)
        devices = np.array([policy.devices(row, request)[0].argmax()]) if request.shares else whole_ones
        nodes.take(node, devices, request)
        for column in (nodes.free, nodes.millicpus, nodes.memory_mib):
            assert (column >= 0).all()
        assert len(devices) == request.devices
    return placed


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "random"])
@settings(max_examples=40)
@given(nodes=clusters, requests=workloads, whole=st.booleans())
def test_memory_changes_nothing(name: str, nodes: Nodes, requests: list[Request], whole: bool) -> None:
    """Scores kept between requests lead where scores made anew lead; no device, CPU or memory is given twice."""
    done = run(name, nodes, requests, whole=whole)
    assert done.placed.tolist() == by_hand(made(name, nodes), nodes, requests, whole=whole)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=40)
@given(nodes=clusters, requests=workloads)
def test_accounts(name: str, nodes: Nodes, requests: list[Request]) -> None:
    """Allocated is what was placed, never more than arrived nor than there is; the nodes given stay as they are."""
    before = nodes.free.copy()
    done = run(name, nodes, requests)
    total = sum(request.total for request, placed in zip(requests, done.placed, strict=True) if placed)
    assert done.allocated[-1] * nodes.capacity == pytest.approx(total)
    assert (done.allocated <= done.arrived + 1e-12).all()
    assert done.allocated[-1] <= 1
    assert done.gpus == nodes.devices.sum()
    assert (nodes.free == before).all()
    assert run(name, nodes, requests).placed.tolist() == done.placed.tolist()


def test_turned_away_only_where_nothing_fits() -> None:
    """A request of a model waits for no other; a smaller one that comes later is still placed."""
    nodes = Nodes.empty(np.array([1, 2]), np.array([8, 8]), np.array([96, 96]), ["G2", "T4"])
    requests = [KINDS[6], KINDS[6], KINDS[3], KINDS[2], KINDS[2], KINDS[2]]
    done = run("fgd", nodes, requests)
    assert done.placed.tolist() == [True, False, False, True, True, False]
    assert done.allocated[-1] == pytest.approx(2.92 / 3)


def test_moments() -> None:
    """Shares are read at the first request that brings arrived demand to a point, or at the end."""
    done = Inflation(np.array([0.5, 0.99, 1.2]), np.array([0.5, 0.7, 0.8]), np.array([True] * 3), 10)
    assert [done.allocated_at(point) for point in (0.2, 0.5, 1.0, 2.0)] == [0.5, 0.5, 0.8, 0.8]
    assert done.unallocated_at(1.0) == pytest.approx(2)


def test_first_of_equals() -> None:
    """Of equally good nodes the first is taken; random fit draws lots."""
    nodes = Nodes.empty(np.full(20, 1), np.full(20, 8), np.full(20, 96), ["T4"] * 20)
    small = dataclasses.replace(KINDS[1], thousandths=WHOLE)
    last = dataclasses.replace(nodes, millicpus=np.array([2] + [0] * 19))
    assert run("first_fit", last, [small, small]).placed.tolist() == [True, False]
    first_of_many = [run("first_fit", nodes, [small] * count).placed.sum() for count in (1, 20, 21)]
    assert first_of_many == [1, 20, 20]
    shared = inflate(nodes, [KINDS[1]] * 4 + [small] * 20, made("first_fit", nodes), np.random.default_rng(0))
    spread = inflate(nodes, [KINDS[1]] * 4 + [small] * 20, made("random", nodes), np.random.default_rng(0))
    assert shared.placed.sum() == 23
    assert spread.placed.sum() < 23
