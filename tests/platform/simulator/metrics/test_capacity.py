"""The highest load that meets all objectives, between the loads that were run."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from helios.simulator.metrics import Censored, Objectives, RunMetrics, capacity_ratio, highest_load, measure
from helios.simulator.outcomes import JobOutcome, RunResult
from helios.spec import QoS

MakeJob = Callable[..., JobOutcome]
MakeRun = Callable[..., RunResult]
Curve = Callable[[Mapping[float, Mapping[QoS, float]], int], list[RunMetrics]]


@pytest.fixture
def curve(make_job: MakeJob, make_run: MakeRun) -> Curve:
    """Metrics with a given attainment by load and class, 1 where none is given."""
    plain = measure(make_run([make_job()]))

    def make(attainment: Mapping[float, Mapping[QoS, float]], seed: int = 0) -> list[RunMetrics]:
        return [
            replace(
                plain,
                load=load,
                seed=seed,
                classes={qos: replace(plain.classes[qos], attainment=by_class.get(qos, 1.0)) for qos in plain.classes},
            )
            for load, by_class in attainment.items()
        ]

    return make


def test_the_load_is_interpolated_where_the_first_class_misses(curve: Curve) -> None:
    """0.95 lies two thirds of the way from 0.97 to 0.94, and `preemptible` misses later."""
    runs = curve(
        {
            0.6: {},
            0.8: {QoS.STANDARD: 0.97, QoS.PREEMPTIBLE: 0.99},
            0.9: {QoS.STANDARD: 0.94, QoS.PREEMPTIBLE: 0.80},
        },
        0,
    )
    found = highest_load(runs, Objectives())
    assert found.load.value == pytest.approx(0.8 + 0.1 * min(2 / 3, 9 / 19))
    assert found.first_missed is QoS.PREEMPTIBLE
    assert found.censored is Censored.NO


def test_a_class_that_is_met_again_was_missed_all_the_same(curve: Curve) -> None:
    """What counts is the first load at which an objective is missed."""
    runs = curve({0.6: {}, 0.7: {QoS.STANDARD: 0.90}, 0.8: {}, 0.9: {}}, 0)
    assert 0.6 < highest_load(runs, Objectives()).load.value < 0.7


def test_loads_that_hold_no_crossing_say_so(curve: Curve) -> None:
    """All met: at least the highest load. None met: below the lowest."""
    above = highest_load(curve({0.6: {}, 0.9: {}}, 0), Objectives())
    assert (above.load.value, above.censored, above.first_missed) == (0.9, Censored.ABOVE, None)
    below = highest_load(curve({0.6: {QoS.GUARANTEED: 0.9}, 0.9: {}}, 0), Objectives())
    assert (below.load.value, below.censored, below.first_missed) == (0.6, Censored.BELOW, QoS.GUARANTEED)


def test_exactly_the_share_is_met(curve: Curve) -> None:
    """An objective of 95% is met by 95%."""
    runs = curve({0.6: {QoS.STANDARD: 0.95}, 0.9: {QoS.STANDARD: 0.85}}, 0)
    assert highest_load(runs, Objectives()).load.value == pytest.approx(0.6)


def test_the_interval_is_over_seeds(curve: Curve) -> None:
    """It holds the figure, and seeds that were not run at all loads are left out."""
    runs = [
        run
        for seed, miss in enumerate((0.93, 0.90, 0.88, 0.92))
        for run in curve({0.7: {QoS.STANDARD: 0.99}, 0.9: {QoS.STANDARD: miss}}, seed)
    ]
    partial = curve({0.7: {QoS.STANDARD: 0.1}}, 9)
    found = highest_load(runs + partial, Objectives()).load
    assert found.n == 4
    assert found.low < found.value < found.high


def test_ratio_of_two_policies_by_seed(curve: Curve) -> None:
    """Ours at 0.9 against theirs at 0.6."""
    ours = [run for seed in (0, 1, 2) for run in curve({0.6: {}, 0.9: {}}, seed)]
    theirs = [run for seed in (0, 1, 2) for run in curve({0.6: {}, 0.9: {QoS.STANDARD: 0.90}}, seed)]
    found = capacity_ratio(ours, theirs, Objectives())
    assert found.value == pytest.approx(0.9 / 0.75)
    assert found.low == pytest.approx(found.high)


def test_nothing_run_is_no_load() -> None:
    """No figure is made of no run."""
    assert math.isnan(highest_load([], Objectives()).load.value)
