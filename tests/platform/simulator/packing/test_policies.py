"""Each policy prefers what its source says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import NotFoundError
from helios.scheduler.fragmentation import WHOLE, expected_fragment
from helios.simulator.packing import POLICIES, Nodes, Request, policy, typical
from helios.simulator.packing.policies import Policy

HALF, ONE, EIGHT, CPU = Request(4, 1, 1, 500), Request(4, 1, 1, WHOLE), Request(32, 1, 8, WHOLE), Request(4, 1)
NODES = Nodes.empty(np.array([2, 2, 8]), np.array([32, 32, 96]) * 1000, np.array([99, 99, 99]), ["T4", "T4", "G2"])


def made(name: str, *workload: Request) -> Policy:
    return policy(name, typical(workload or (HALF, ONE, EIGHT, CPU), 1.0), NODES.models)


def after(*placed: tuple[int, int, Request]) -> Nodes:
    """The nodes with requests on them: node, first device, request."""
    nodes = NODES.copy()
    for node, first, request in placed:
        nodes.take(node, np.arange(first, first + request.devices), request)
    return nodes


def best(name: str, request: Request, nodes: Nodes) -> set[int]:
    scores = made(name).scores(nodes, request)
    return set(np.flatnonzero(scores == scores.max()).tolist())


def test_best_and_worst_fit() -> None:
    """Best fit and dot product take the fullest node, worst fit the emptiest."""
    nodes = after((1, 0, HALF))
    assert best("best_fit", ONE, nodes) == {1}
    assert best("dot_product", ONE, nodes) == {1}
    assert best("worst_fit", ONE, nodes) == {2}


def test_no_preference() -> None:
    """Random and first fit see no difference between nodes that fit."""
    nodes = after((0, 0, ONE), (1, 0, HALF))
    assert best("random", ONE, nodes) == best("first_fit", ONE, nodes) == {0, 1, 2}
    assert made("random").random_ties
    assert not made("first_fit").random_ties


def test_packing() -> None:
    """GPU packing: a shared device, then a free device of a used node, then the smallest free node."""
    assert best("gpu_packing", HALF, after((0, 0, ONE), (2, 0, HALF))) == {2}
    assert best("gpu_packing", ONE, after((0, 0, ONE), (2, 0, HALF))) == {0, 2}
    assert best("gpu_packing", ONE, NODES) == {0, 1}
    assert made("gpu_packing").scores(after((0, 0, HALF)), HALF).tolist() == [95, 31, 25]
    assert made("gpu_packing").scores(after((0, 0, HALF)), ONE).tolist() == [49, 31, 25]


def test_clustering() -> None:
    """GPU clustering: its own sort alone, its own among others, idle nodes, others only."""
    nodes = after((0, 0, HALF), (1, 0, ONE), (2, 0, HALF), (2, 1, ONE))
    ranks = [made("gpu_clustering").scores(nodes, one) // 25 for one in (HALF, ONE, EIGHT)]
    assert [rank.tolist() for rank in ranks] == [[3, 0, 2], [0, 3, 2], [0, 0, 0]]
    assert (made("gpu_clustering").scores(NODES, HALF) // 25).tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["best_fit", "dot_product", "gpu_packing", "gpu_clustering", "first_fit", "fgd"])
def test_fullest_device(name: str) -> None:
    """A share goes to the fullest device that still holds it, for FGD as well where shares are what comes."""
    nodes = after((0, 0, Request(1, 1, 1, 700)), (0, 1, Request(1, 1, 1, 400)))
    scores = made(name, HALF, Request(1, 1, 1, 300)).devices(nodes, Request(1, 1, 1, 300))[0]
    assert scores.argmax() == 0
    assert made(name).devices(nodes, HALF)[0].argmax() == 1
    assert np.isneginf(made(name).devices(nodes, HALF)[0, 0])


def test_emptiest_device() -> None:
    """Worst fit takes the emptiest device."""
    assert made("worst_fit").devices(after((0, 0, HALF)), HALF)[0].argmax() == 1


def test_fgd_keeps_eight_free() -> None:
    """Where requests of 8 devices come too, FGD leaves a node of 8 whole."""
    assert best("fgd", ONE, NODES) == {0, 1}


@given(
    free=st.lists(st.lists(st.sampled_from([0, 300, 500, 1000]), min_size=8, max_size=8), min_size=3, max_size=3),
    cpus=st.lists(st.integers(4, 40), min_size=3, max_size=3),
    request=st.sampled_from([HALF, ONE, CPU, Request(4, 1, 1, 300), Request(4, 1, 2, WHOLE)]),
)
def test_fgd_is_steepest_descent(free: list[list[int]], cpus: list[int], request: Request) -> None:
    """FGD's score is the logistic function of the fragment that its best placement on a node removes."""
    nodes = Nodes(np.array(free), np.full(3, 8), np.array(cpus), np.full(3, 9), NODES.model, NODES.sorts, NODES.models)
    nodes = nodes.rows(nodes.fits(request))
    known = typical([HALF, ONE, ONE, EIGHT, CPU, Request(4, 1, 1, 300, frozenset({"T4"}))], 1.0)
    got = policy("fgd", known, NODES.models).scores(nodes, request)
    for place, score in enumerate(got):
        one = nodes.rows(np.array([place]))
        usable = known.usable(one.models)[one.model]
        before = expected_fragment(one.free, one.millicpus, known.demand, usable)[0]
        removed = []
        starts = np.flatnonzero(one.free[0] >= request.thousandths) if request.shares else [None]
        for start in starts:
            then = one.copy()
            then.take(0, then.whole_devices(0, request.devices) if start is None else np.array([start]), request)
            removed.append(before - expected_fragment(then.free, then.millicpus, known.demand, usable)[0])
        assert score == pytest.approx(100 / (1 + np.exp(-max(removed) / WHOLE)))


def test_names() -> None:
    """Every policy is made by its name; another name gets the nearest."""
    assert all(made(name) is not None for name in POLICIES)
    with pytest.raises(NotFoundError, match="did you mean 'best_fit'"):
        made("bestfit")
