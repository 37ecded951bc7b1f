"""What arrives follows the published protocol, and typical classes are the commonest."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import InputError
from helios.simulator.packing import Request, arrivals, typical

requests = st.lists(
    st.one_of(
        st.builds(Request, st.integers(0, 4), st.just(1)),
        st.builds(Request, st.integers(0, 4), st.just(1), st.just(1), st.integers(1, 1000)),
        st.builds(Request, st.integers(0, 4), st.just(1), st.integers(1, 8), st.just(1000)),
    ),
    min_size=1,
    max_size=12,
).filter(lambda these: any(one.total for one in these))


@given(these=requests, wanted=st.integers(0, 60_000), seed=st.integers(0, 9))
def test_arrivals(these: list[Request], wanted: int, seed: int) -> None:
    """The trace once and then draws from it up to what is wanted, or the trace less what is too much."""
    order = arrivals(these, wanted, np.random.default_rng(seed))
    assert sum(one.total for one in order) <= wanted
    if sum(one.total for one in these) <= wanted:
        assert Counter(order[: len(these)]) == Counter(these)
        assert set(order) <= set(these)
        assert wanted - sum(one.total for one in order) < max(one.total for one in these)
    else:
        assert not Counter(order) - Counter(these)
    assert order == arrivals(these, wanted, np.random.default_rng(seed))


def test_endless() -> None:
    """Requests without GPUs would arrive for ever."""
    with pytest.raises(InputError, match="never be full"):
        arrivals([Request(1000, 10)], 1000, np.random.default_rng(0))


def test_typical() -> None:
    """The fewest commonest classes that cover enough, with shares that add up to 1; memory is not told apart."""
    share = Request(1000, 10, 1, 500)
    these = [share, Request(1000, 99, 1, 500)] * 45 + [Request(2000, 10)] * 8 + [Request(1, 1, 8, 1000)] * 2
    known = typical(these, 0.95)
    assert known.demand.share == pytest.approx([90 / 98, 8 / 98])
    assert known.demand.devices.tolist() == [1, 0]
    assert known.demand.thousandths.tolist() == [500, 0]
    assert typical(these, 1.0).demand.devices.tolist() == [1, 0, 8]


def test_usable() -> None:
    """A class that names models may use those only."""
    known = typical([Request(1, 1, 1, 500), Request(1, 1, 1, 600, frozenset({"T4"}))], 1.0)
    assert known.usable(["G2", "T4"]).tolist() == [[True, False], [True, True]]
