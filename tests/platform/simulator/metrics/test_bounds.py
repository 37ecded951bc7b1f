"""Limits that nothing beats: of utilization and of completion time."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.simulator.metrics import finish_alone, measure, pooled_completion
from helios.simulator.outcomes import JobOutcome, RunResult

MakeJob = Callable[..., JobOutcome]
MakeRun = Callable[..., RunResult]


def test_the_pool_serves_the_shortest_remaining_work_first() -> None:
    """Three jobs on two devices, worked out by hand."""
    # Work 20 at 0; work 4 at 1 (18 left) takes until 3; the 20 are done at 12; work 40 at 2 ends at 32.
    submitted, run, gpus = np.array([0.0, 1.0, 2.0]), np.array([10.0, 2.0, 10.0]), np.array([2.0, 2.0, 4.0])
    assert pooled_completion(submitted, run, gpus, 2.0) == pytest.approx((12 + 2 + 30) / 3)


def test_an_empty_pool_waits_for_the_next_job() -> None:
    """Nothing is served before it is submitted."""
    assert pooled_completion(np.array([0.0, 100.0]), np.array([1.0, 1.0]), np.array([1.0, 1.0]), 1.0) == 1


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 20), st.integers(1, 4)), min_size=1, max_size=15),
    st.integers(4, 10),
)
def test_no_schedule_beats_the_pool(jobs: list[tuple[float, float, int]], devices: int) -> None:
    """A schedule in order of submission on divisible devices has no shorter mean, for any jobs."""
    submitted, run, gpus = (np.array(column, dtype=np.float64) for column in zip(*sorted(jobs), strict=True))
    served = finish_alone(submitted, run, gpus, float(devices)) - submitted
    assert pooled_completion(submitted, run, gpus, float(devices)) <= served.mean() + 1e-6


def test_completion_is_bounded_by_run_time_and_by_the_pool(make_job: MakeJob, make_run: MakeRun) -> None:
    """With room for all it is the run time; with too much work at once it is the pool that limits."""
    light = measure(make_run([make_job(run=100)])).bounds
    assert light.completion_s == light.run_s == 100
    assert light.delay_s == 0
    heavy = measure(make_run([make_job(run=100, gpus=10.0), make_job(run=100, gpus=10.0)])).bounds
    assert heavy.completion_s == 150
    assert heavy.delay_s == 50


def test_productive_share_is_bounded_by_load(make_run: MakeRun) -> None:
    """No fleet works more than is asked of it, or than all the time."""
    assert measure(make_run(load=0.6)).bounds.productive == 0.6
    assert measure(make_run(load=1.3)).bounds.productive == 1


def test_a_job_faster_than_it_can_be_is_found(make_job: MakeJob, make_run: MakeRun) -> None:
    """A run whose jobs beat their run time is not to be believed."""
    run = make_run([make_job(wait=0, run=100, ended_s=90.0), make_job(wait=0, run=100)])
    assert measure(run).bounds.faster == 1


def test_a_job_that_failed_early_is_no_faster(make_job: MakeJob, make_run: MakeRun) -> None:
    """It took what it took, and that is what bounds it."""
    bounds = measure(make_run([make_job(wait=0, run=100, ended_s=30.0, succeeded=False)])).bounds
    assert bounds.faster == 0
    assert bounds.run_s == 30
