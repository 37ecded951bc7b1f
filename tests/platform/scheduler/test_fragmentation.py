"""The measure of fragmentation is the published one, however it is computed."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import InputError
from helios.scheduler.fragmentation import WHOLE, Demand, expected_fragment, gradient, whole_device_table

approx = pytest.approx
Class = tuple[float, int, int, int]
shares = st.floats(0, 1)
demands = st.dictionaries(st.integers(0, 16), shares, max_size=5)
frees = st.lists(st.integers(0, 16), min_size=1, max_size=20)
devices = st.lists(st.sampled_from([0, 100, 250, 460, 500, 999, WHOLE]), min_size=3, max_size=3)
classes: st.SearchStrategy[Class] = st.one_of(
    st.tuples(shares, st.just(0), st.just(0), st.integers(0, 8)),
    st.tuples(shares, st.just(1), st.sampled_from([100, 250, 460, 500, 999]), st.integers(0, 8)),
    st.tuples(shares, st.integers(1, 4), st.just(WHOLE), st.integers(0, 8)),
)


def by_definition(free: Sequence[int], cpus: int, demand: Sequence[Class], usable: Sequence[bool]) -> float:
    """FGD's definition, read out class by class and device by device."""
    lost = 0.0
    for (share, count, each, wanted_cpus), may in zip(demand, usable, strict=True):
        holds = may and count > 0 and cpus >= wanted_cpus and sum(one >= each for one in free) >= count
        lost += share * (sum(one for one in free if one < each) if holds else sum(free))
    return lost


def lost_of_whole(free: int, demand: Mapping[int, float]) -> float:
    rows = [(share, count, WHOLE, 0) for count, share in demand.items()]
    return by_definition([WHOLE] * free, 0, rows, [True] * len(rows)) / WHOLE


@given(free=frees, demand=demands)
def test_table_is_definition(free: list[int], demand: dict[int, float]) -> None:
    """The table over counts of free devices says what the definition says for devices that are wholly free."""
    table = whole_device_table(16, demand)
    assert table[free] == approx([lost_of_whole(count, demand) for count in free])


@given(free=frees, take=st.integers(0, 17), demand=demands)
def test_gradient_is_difference(free: list[int], take: int, demand: dict[int, float]) -> None:
    """The gradient is the fragment after less the fragment before, and infinite where the devices are not there."""
    change = gradient(np.array(free), take, demand)
    for count, got in zip(free, change, strict=True):
        if count < take:
            assert got == np.inf
        else:
            assert got == approx(lost_of_whole(count - take, demand) - lost_of_whole(count, demand), abs=1e-9)


@given(free=frees, demand=demands)
def test_table_bounds(free: list[int], demand: dict[int, float]) -> None:
    """A fragment is never below nothing and never more than what is free, weighted by all shares."""
    table = whole_device_table(16, demand)
    assert (table >= 0).all()
    assert (table <= np.arange(17) * sum(demand.values()) + 1e-9).all()


@given(
    nodes=st.lists(st.tuples(devices, st.integers(0, 8)), min_size=1, max_size=6),
    demand=st.lists(st.tuples(classes, st.booleans()), min_size=1, max_size=6),
)
def test_shares_are_definition(nodes: list[tuple[list[int], int]], demand: list[tuple[Class, bool]]) -> None:
    """With shares of devices, CPUs and models the expected fragment is the definition's, and within what is free."""
    rows, usable = [row for row, _ in demand], [may for _, may in demand]
    free, cpus = np.array([row for row, _ in nodes]), np.array([row for _, row in nodes])
    got = expected_fragment(free, cpus, Demand.of(rows), np.array([usable] * len(nodes)))
    assert got == approx([by_definition(row, has, rows, usable) for row, has in nodes], abs=1e-6)
    assert (got >= 0).all()
    assert (got <= free.sum(1) * sum(row[0] for row in rows) + 1e-6).all()


@given(free=frees, demand=demands.filter(bool))
def test_both_forms_agree(free: list[int], demand: dict[int, float]) -> None:
    """For whole devices and CPUs enough, the table and the measure over thousandths say the same."""
    whole = Demand.of([(share, count, WHOLE if count else 0, 0) for count, share in demand.items()])
    thousandths = np.where(np.arange(16) < np.array(free)[:, None], WHOLE, 0)
    full = expected_fragment(thousandths, np.zeros(len(free), np.int64), whole)
    assert whole_device_table(16, demand)[free] * WHOLE == approx(full)


@given(
    free=devices,
    cpus=st.integers(0, 8),
    demand=st.lists(classes, min_size=1, max_size=4),
    order=st.permutations(range(3)),
)
def test_order_of_devices(free: list[int], cpus: int, demand: list[Class], order: list[int]) -> None:
    """Devices have no order."""
    one, other = np.array([free]), np.array([[free[place] for place in order]])
    has, wanted = np.array([cpus]), Demand.of(demand)
    assert expected_fragment(one, has, wanted) == approx(expected_fragment(other, has, wanted))


def test_gradient_keeps_room_for_what_comes() -> None:
    """Where work of 8 devices is expected, one device is taken from the node that 8 do not fit on anyway."""
    change = gradient(np.array([8, 5, 1, 0]), 1, {1: 0.5, 8: 0.5})
    assert change.argmin() in (1, 2)
    assert change[0] == approx(3.5)
    assert change[3] == np.inf
    assert gradient(np.array([], np.int64), 1, {1: 1.0}).size == 0


def test_what_is_wrong_is_said() -> None:
    """Demand and counts below nothing are refused with the number."""
    with pytest.raises(InputError, match="share -1"):
        whole_device_table(8, {1: -1.0})
    with pytest.raises(InputError, match="share nan"):
        whole_device_table(8, {1: float("nan")})
    with pytest.raises(InputError, match="-2 devices"):
        gradient(np.array([1]), -2, {1: 1.0})
