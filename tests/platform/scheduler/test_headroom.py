"""The forecast that headroom follows from: what is remembered, what is expected, and how often that is enough."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.scheduler.headroom import DAY, KEPT, STEP_S, Basis, Demand, Forecast, forecast, replicas_to_hold

MIDNIGHT = 20_000 * 86_400.0


def fed(*loads: float, step_s: float = STEP_S) -> tuple[Demand, float]:
    """A demand that was sampled at these loads, one a step from midnight on, and the time of the last one."""
    demand = Demand.begin(MIDNIGHT, loads[0])
    for index, load in enumerate(loads):
        demand = demand.sampled(MIDNIGHT + index * step_s, load)
    return demand, MIDNIGHT + (len(loads) - 1) * step_s


def expected(demand: Demand, now: float, *, lead_s: float = STEP_S, quantile: float = 0.95) -> Forecast:
    return forecast(demand, now, lead_s=lead_s, quantile=quantile)


def test_hours_open_with_the_load_before_and_remember_their_highest() -> None:
    """Between two samples the load is as it was; an hour without any is remembered too."""
    demand, now = fed(1, 5, 2, 3, step_s=STEP_S / 2)
    assert (demand.opens, demand.peaks, demand.load) == ((1, 5), (5, 5), 3)
    demand = demand.sampled(now + 3 * STEP_S, 4)
    assert (demand.opens, demand.peaks) == ((1, 5, 3, 3, 3), (5, 5, 3, 3, 4))


def test_a_clock_that_goes_back_stands_still() -> None:
    """No hour is counted twice, and none is lost."""
    demand, now = fed(1, 2, 3)
    back = demand.sampled(now - 5 * STEP_S, 7)
    assert (back.hour, back.opens, back.peaks, back.load) == (demand.hour, demand.opens, (1, 2, 7), 7)


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e4)), max_size=60))
def test_memory_is_bounded_and_whole(samples: list[tuple[float, float]]) -> None:
    """Whatever comes when: one open and one peak an hour, no peak below what it opened with, two weeks at the most."""
    demand = Demand.begin(MIDNIGHT, 0.0)
    for ahead, load in samples:
        demand = demand.sampled(MIDNIGHT + ahead, load)
        assert 0 < len(demand.opens) == len(demand.peaks) <= KEPT + 1
        assert all(low <= high for low, high in zip(demand.opens, demand.peaks, strict=True))
        assert demand.peaks[-1] >= demand.load == load
        found = expected(demand, MIDNIGHT + ahead)
        assert math.isfinite(found.load)
        assert found.load >= load


def test_a_steady_load_is_expected_to_stay() -> None:
    """What never rose holds nothing."""
    assert expected(*fed(*[3.0] * 100)).load == 3.0


def test_a_load_that_begins_to_grow_is_expected_to_grow_as_much_again() -> None:
    """With few hours known the largest rise among them stands for the quantile, that of the present hour included."""
    demand, now = fed(4, 4, 9, step_s=1200)
    found = expected(demand, now)
    assert (found.load, found.basis, found.rises) == (14.0, Basis.RECENT, 1)


def test_the_hour_of_the_day_counts_after_two_days() -> None:
    """A rise at nine each morning is expected then and not at night, and not for longer than it was."""
    day = [2.0] * 9 + [10.0] * 15
    demand, _ = fed(*day * 3)
    night = expected(demand, MIDNIGHT + 3 * 86_400 + 1 * STEP_S)
    quiet = demand.sampled(MIDNIGHT + 3 * 86_400, 2.0)
    morning = expected(quiet, MIDNIGHT + 3 * 86_400 + 8 * STEP_S)
    assert (night.load - demand.load, night.basis) == (0.0, Basis.HOUR_OF_DAY)
    assert morning.load == 10.0
    assert expected(quiet, MIDNIGHT + 3 * 86_400 + 2 * STEP_S).load == 2.0


def test_rises_grow_with_the_root_of_the_load_and_not_beyond_the_largest() -> None:
    """At a quarter of the load half of the rise; at four times the load not more than there ever was."""
    demand, now = fed(*[16.0, 20.0] * 40)
    assert expected(demand.sampled(now, 4.0), now).load == pytest.approx(4.0 + 2.0)
    assert expected(demand.sampled(now, 64.0), now).load == pytest.approx(64.0 + 4.0)


def test_a_longer_lead_sees_farther() -> None:
    """Within three hours a load rises as often as in any of them, and by as much together."""
    demand, now = fed(*[0, 1, 2, 3, 0, 0] * 6)
    assert expected(demand, now, lead_s=600).load == expected(demand, now).load == 1.0
    assert expected(demand, now, lead_s=3 * STEP_S).load == 3.0


def test_a_lead_longer_than_what_is_known_asks_for_the_largest_rise_of_all() -> None:
    """There is always an answer."""
    assert expected(*fed(1, 4), lead_s=86_400).load == pytest.approx(4 + 3)


@pytest.mark.parametrize("quantile", [0.7, 0.8, 0.95])
def test_it_is_enough_as_often_as_it_says(quantile: float) -> None:
    """Of random days that are alike, the share that outgrows the forecast is what was stated, within its error."""
    rng = np.random.default_rng(3)
    hours = np.arange(60 * DAY)
    mean = 40 + 20 * np.sin(2 * np.pi * hours / DAY)
    loads = rng.poisson(mean).astype(float)
    demand, outgrown = Demand.begin(MIDNIGHT, loads[0]), []
    for hour, load in enumerate(loads):
        now = MIDNIGHT + hour * STEP_S
        if hour > KEPT:
            outgrown.append(load > expected(demand, now, quantile=quantile).load)
        demand = demand.sampled(now, load)
    assert np.mean(outgrown) == pytest.approx(1 - quantile, abs=0.035)


@pytest.mark.parametrize(
    ("load", "replicas", "most", "held"),
    [(2.0, 2, 5, 0), (2.01, 2, 5, 1), (0.3, 1, 5, 0), (9.0, 2, 5, 5), (1.0, 4, 5, 0), (3 + 1e-9, 3, 5, 0)],
)
def test_whole_replicas_are_held_up_to_the_most(load: float, replicas: int, most: int, held: int) -> None:
    """A part of one is a whole one; never less than none."""
    assert replicas_to_hold(Forecast(load, Basis.RECENT, 1), replicas=replicas, most=most) == held
