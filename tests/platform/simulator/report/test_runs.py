"""Loads that were meant to be the same are one, and comparisons are made of seeds that both sides have."""

from collections.abc import Callable

import pytest

from helios.errors import InputError
from helios.simulator.report.figures import MEAN_JCT, Unit, written
from helios.simulator.report.runs import Runs

MakeRuns = Callable[..., Runs]


def test_nearly_equal_loads_have_one_name(make_runs: MakeRuns) -> None:
    """A drawn workload has 0.8496 where 0.85 was asked for, and 0.8507 with another seed."""
    runs = make_runs({"a": {0.8496: [{}], 0.6003: [{}]}, "b": {0.8507: [{}], 0.5999: [{}]}})
    assert runs.loads == [0.6, 0.85]
    assert runs.reference == 0.85


def test_loads_of_one_policy_and_seed_are_never_one(make_runs: MakeRuns) -> None:
    """Curves with points close together keep them."""
    assert make_runs({"a": {0.84: [{}], 0.85: [{}], 0.86: [{}]}}).loads == [0.84, 0.85, 0.86]


def test_the_reference_is_the_nearest_load(make_runs: MakeRuns) -> None:
    """Where 0.85 was not run, 0.8 stands for it."""
    assert make_runs({"a": {0.6: [{}], 0.8: [{}], 0.95: [{}]}}).reference == 0.8


def test_pairs_are_of_seeds_that_both_have(make_runs: MakeRuns) -> None:
    """The third seed of one side is left out of the comparison, not of its own mean."""
    mean = [{"jobs": {"completion": {"mean": value}}} for value in (10.0, 20.0, 90.0)]
    runs = make_runs({"a": {0.85: mean}, "b": {0.85: mean[:2]}})
    assert runs.compare("a", "b", MEAN_JCT).ratio.value == 1
    assert runs.compare("a", "b", MEAN_JCT).ratio.n == 2
    assert runs.estimate("a", MEAN_JCT).value == 40


def test_who_has_fewer_seeds_says_so_and_shares_only_those(make_runs: MakeRuns) -> None:
    """Means of other seeds are not put beside each other."""
    mean = [{"jobs": {"completion": {"mean": value}}} for value in (10.0, 20.0, 90.0)]
    runs = make_runs({"a": {0.85: mean}, "b": {0.85: mean[:1]}, "c": {0.85: mean}})
    assert [runs.short_of_seeds(policy) for policy in "abc"] == ["", "1 seed", ""]
    shared = runs.common(["a", "b"])
    assert (shared.policies, len(shared.seeds)) == (["a", "b"], 1)
    assert shared.estimate("a", MEAN_JCT).value == 10


def test_what_a_run_has_not_is_left_out(make_runs: MakeRuns) -> None:
    """A seed without any job of a kind has no mean, and takes none from the others."""
    mean = [{"jobs": {"completion": {"mean": value}}} for value in (10.0, float("nan"))]
    assert make_runs({"a": {0.85: mean}}).estimate("a", MEAN_JCT).value == 10


def test_a_run_given_twice_is_an_error(make_runs: MakeRuns) -> None:
    """It would count twice."""
    from helios.simulator.report.runs import load_names

    runs = make_runs({"a": {0.85: [{}]}}).runs
    with pytest.raises(InputError, match="was run 2 times"):
        load_names([*runs, *runs])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, Unit.SECONDS, "0 s"),
        (59.0, Unit.SECONDS, "59 s"),
        (5400.0, Unit.SECONDS, "1.5 h"),
        (200 * 86_400.0, Unit.SECONDS, "200 d"),
        (0.9994, Unit.SHARE, "99.94%"),
        (0.5, Unit.SHARE, "50.0%"),
        (1.234, Unit.RATIO, "1.23 x"),
        (12_345.0, Unit.COUNT, "12,345"),
        (0.25, Unit.COUNT, "0.25"),
        (float("nan"), Unit.SHARE, "-"),
    ],
)
def test_figures_are_written_for_people(value: float, unit: Unit, text: str) -> None:
    """In the unit that reads best."""
    assert written(value, unit) == text
