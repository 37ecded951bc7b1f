"""Intervals over seeds: they cover, they are paired, and they say when there is nothing to resample."""

import math

import numpy as np
import pytest

from helios.errors import InputError
from helios.simulator.metrics import interval, paired


@pytest.mark.parametrize("seeds", [5, 10, 20])
def test_intervals_cover_the_truth(seeds: int) -> None:
    """Of 600 experiments with the given number of seeds, about 95% of the intervals hold the true mean."""
    rng = np.random.default_rng(1)
    found = [interval(rng.normal(3.0, 1.0, seeds).tolist(), resamples=1000) for _ in range(600)]
    covered = np.mean([each.low <= 3.0 <= each.high for each in found])
    assert 0.925 <= covered <= 0.98


def test_ratios_cover_the_truth() -> None:
    """Also of a ratio of means whose sides share what a seed brings."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        common = rng.lognormal(0.0, 0.5, 10)
        ratio = paired(
            (common * rng.normal(0.6, 0.05, 10)).tolist(), (common * rng.normal(1.0, 0.05, 10)).tolist(), resamples=1000
        ).ratio
        covered += ratio.low <= 0.6 <= ratio.high
    assert 0.91 <= covered / 400 <= 0.985


def test_pairing_takes_out_what_both_share() -> None:
    """Seeds that differ by far more than the policies do leave a narrow interval around the difference."""
    common = np.linspace(100.0, 10_000.0, 10)
    found = paired((common - 5).tolist(), common.tolist())
    assert found.difference.low == pytest.approx(-5)
    assert found.difference.high == pytest.approx(-5)
    assert found.ratio.high - found.ratio.low < 0.05


def test_ratio_is_of_means() -> None:
    """Ours over theirs, of the means over seeds."""
    found = paired([1.0, 2.0, 3.0], [2.0, 4.0, 18.0])
    assert found.ratio.value == 6 / 24
    assert found.difference.value == 2 - 8
    assert found.ratio.n == 3


def test_intervals_are_the_same_each_time() -> None:
    """A report made again has the same figures."""
    assert interval([1.0, 5.0, 2.0]) == interval([1.0, 5.0, 2.0])


def test_one_seed_has_no_interval() -> None:
    """One run shows its figure, and nothing about how sure it is."""
    found = interval([4.0])
    assert found.value == 4
    assert math.isnan(found.low)
    assert interval([]).n == 0


def test_unequal_sides_are_refused() -> None:
    """Pairs need both sides."""
    with pytest.raises(InputError, match="3 of one policy, 2 of the other"):
        paired([1.0, 2.0, 3.0], [1.0, 2.0])


def test_nothing_over_nothing_is_no_number() -> None:
    """A baseline that is 0 has no ratio, and the difference still stands."""
    found = paired([1.0, 2.0], [0.0, 0.0])
    assert math.isnan(found.ratio.low)
    assert found.difference.value == 1.5
