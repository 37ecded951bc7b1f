"""Homes and quotas follow the true demand: static cells are no straw man."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.scheduler.snapshot import QuotaState
from helios.simulator.workload import protocol_fleet, tenant_states
from helios.simulator.workload.tenants import assign_homes, cell_sizes, nominal_quotas


def test_homes_are_as_even_as_whole_tenants_allow() -> None:
    """No assignment of few tenants to few cells has a lower highest load by more than a little."""
    dice = np.random.default_rng(4)
    sizes = np.array([4.0, 2.0, 1.0])
    for _ in range(30):
        demand = dice.random(7)
        homes = assign_homes(demand, np.ones(7, np.int64), sizes, np.full(3, 8))
        found = (np.bincount(homes, demand, 3) / sizes).max()
        best = min(
            (np.bincount(np.array(every), demand, 3) / sizes).max() for every in itertools.product(range(3), repeat=7)
        )
        assert found <= 1.25 * best


def test_a_home_has_room_for_the_largest_gang() -> None:
    """A wide gang's tenant lives where that many devices are never taken away, however full the cell is."""
    homes = assign_homes(np.ones(4), np.array([64, 64, 1, 1]), np.array([100.0, 80.0]), np.array([50, 70]))
    assert homes[:2].tolist() == [1, 1]
    assert assign_homes(np.ones(1), np.array([999]), np.array([100.0, 80.0]), np.array([50, 70])).tolist() == [1]


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 40)), min_size=1, max_size=20), st.integers(1, 2000))
def test_quotas_add_up_and_hold_each_tenants_largest_gang(tenants: list[tuple[int, int]], gpus: int) -> None:
    """All devices are granted, none twice; and a tenant can run its largest gang on its own where that is possible."""
    demand, widest = (np.array(column) for column in zip(*tenants, strict=True))
    quotas = nominal_quotas(demand.astype(np.float64), widest, gpus)
    assert quotas.sum() == gpus
    assert (quotas >= 0).all()
    if widest.sum() <= gpus:
        assert (quotas >= widest).all()


def test_quotas_are_in_proportion_to_demand() -> None:
    """Where no gang is wide, a tenant with twice the demand has twice the quota."""
    assert nominal_quotas(np.array([1.0, 2.0, 5.0]), np.ones(3, np.int64), 80).tolist() == [10, 20, 50]


def test_cells_count_by_speed_and_by_what_lasts() -> None:
    """Two devices of half the speed are one; preemptible ones are not counted on."""
    fleet = protocol_fleet(gpus=1000, generations=2)
    sizes, lasting = cell_sizes(fleet.cells, fleet.speeds)
    assert sizes.sum() == pytest.approx(fleet.capacity)
    assert fleet.capacity < fleet.gpus
    assert 0.6 * fleet.gpus < lasting.sum() < fleet.gpus


def test_tenants_borrow_and_lend_within_one_cohort() -> None:
    """Quotas by type add up to the tenant's, whatever types the fleet has."""
    for generations in (1, 2):
        states = tenant_states({"a-1": 10, "b-1": 7}, protocol_fleet(gpus=1000, generations=generations))
        assert [state.name for state in states] == ["a-1", "b-1"]
        assert {state.cohort for state in states} == {"fleet"}
        for state, nominal in zip(states, (10, 7), strict=True):
            quotas = [one for one in (state.quotas or {}).values() if isinstance(one, QuotaState)]
            assert len(quotas) == generations
            assert sum(one.nominal for one in quotas) == nominal
            assert all(one.borrowing is None and one.lending is None for one in quotas)
