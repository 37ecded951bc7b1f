"""Burstiness and demand are what can be counted by hand."""

import numpy as np
import pytest

from helios.simulator.workload.burstiness import HOUR_S, burstiness, hourly_demand


def test_demand_is_the_devices_in_use_in_the_mean_of_each_hour() -> None:
    """A job counts for the share of the hour that it runs, if it starts at once; before and after it does not."""
    edges = np.array([0.0, 1.0, 2.0, 3.0]) * HOUR_S
    submitted, lasts, devices = np.array([-HOUR_S, 1800.0]), np.array([1.5 * HOUR_S, HOUR_S]), np.array([4.0, 2.0])
    assert hourly_demand(submitted, lasts, devices, edges).tolist() == pytest.approx([2 + 1, 1, 0])


def test_a_poisson_process_is_not_bursty_and_clumps_are() -> None:
    """Coefficient of variation of gaps and index of dispersion are 1 for the one and much more for the other."""
    span = (0.0, 500 * HOUR_S)
    even = np.random.default_rng(0).random(50_000) * span[1]
    clumped = np.repeat(np.random.default_rng(0).random(500) * span[1], 100)
    one = np.ones(50_000)
    calm, bursty = (burstiness(moments, one, one, span) for moments in (even, clumped))
    assert calm.gaps_cv == pytest.approx(1, abs=0.05)
    assert calm.dispersion == pytest.approx(1, abs=0.2)
    assert bursty.gaps_cv > 5
    assert bursty.dispersion > 50
    assert bursty.demand_peak > calm.demand_peak


def test_only_what_is_submitted_within_the_span_counts_as_a_submission() -> None:
    """Earlier jobs are demand and no arrivals."""
    found = burstiness(np.array([-10.0, 0.0, 1800.0, 3600.0]), np.full(4, 7200.0), np.ones(4), (0.0, 2 * HOUR_S))
    assert found.hourly_cv == pytest.approx(1 / 3)
    assert np.isnan(burstiness(np.array([5.0]), np.array([0.0]), np.ones(1), (0.0, HOUR_S)).gaps_cv)
