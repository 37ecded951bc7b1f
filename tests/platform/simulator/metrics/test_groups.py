"""JCT, delay, unfinished jobs, attainment and shares of a group, by hand."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from helios.errors import InputError
from helios.simulator.metrics import Distribution, Measure, Objective, Objectives, jobs_of, measure
from helios.simulator.outcomes import JobOutcome, RunResult
from helios.spec import QoS

MakeJob = Callable[..., JobOutcome]
MakeRun = Callable[..., RunResult]


def test_times_by_class_and_tenant(make_job: MakeJob, make_run: MakeRun) -> None:
    """Delay is the wait and completion the wait and the run, apart for each class and tenant."""
    run = make_run(
        [
            make_job(wait=10, run=100, tenant="a"),
            make_job(wait=30, run=200, tenant="b"),
            make_job(wait=0, run=50, tenant="b", qos=QoS.GUARANTEED),
        ]
    )
    metrics = measure(run)
    assert metrics.jobs.jobs == 3
    assert metrics.jobs.completion.mean == pytest.approx((110 + 230 + 50) / 3)
    assert metrics.classes[QoS.STANDARD].delay.mean == 20
    assert metrics.classes[QoS.STANDARD].delay.p50 == 20
    assert metrics.classes[QoS.STANDARD].delay.p99 == pytest.approx(10 + 0.99 * 20)
    assert metrics.classes[QoS.GUARANTEED].delay.longest == 0
    assert metrics.tenants["b"].completion.mean == 140
    assert metrics.classes[QoS.PREEMPTIBLE].jobs == 0
    assert math.isnan(metrics.classes[QoS.PREEMPTIBLE].delay.p99)


def test_quantiles_of_a_hundred_and_one_values() -> None:
    """The quantiles of 0 to 100 are their own names."""
    import numpy as np

    assert Distribution.of(np.arange(101.0)) == Distribution(101, 50.0, 50.0, 90.0, 99.0, 100.0)


def test_warm_up_and_tail_are_not_measured(make_job: MakeJob, make_run: MakeRun) -> None:
    """Jobs submitted before the window, marked as warm-up or submitted after it are in no class."""
    run = make_run(
        [
            make_job(submitted=100),
            make_job(submitted=300, warm_up=True),
            make_job(submitted=200),
            make_job(submitted=400),
        ],
        window=(200.0, 400.0),
    )
    assert measure(run).jobs.jobs == 1


def test_unfinished_jobs_are_counted_and_bound_from_below(make_job: MakeJob, make_run: MakeRun) -> None:
    """A job without an end counts with what it waited and must still take, and is left out only of `_ended`."""
    never = make_job(submitted=100, wait=0, run=5000, gpus=4.0, productive=0.0, started_s=None, ended_s=None)
    half = make_job(submitted=0, wait=40, run=2000, gpus=2.0, productive=1200.0, idle=100.0, ended_s=None)
    group = measure(make_run([never, half, make_job(wait=10, run=100)])).jobs
    assert group.unfinished == 2
    assert group.unfinished_held == 1300
    assert group.unfinished_left == 5000 * 4 + (2000 * 2 - 1200)
    assert group.completion_ended == Distribution.of(jobs_of(make_run([make_job(wait=10, run=100)])).completion_s)
    assert group.completion.n == 3
    assert group.completion.longest == 0 + 5000  # the run was over at 1000 s, and it would still take 5000 s
    assert group.completion.mean == pytest.approx((5000 + 2040 + 110) / 3)
    assert group.delay.longest == 900
    assert group.delay_ended.longest == 10


def test_a_run_is_over_with_its_last_event(make_job: MakeJob, make_run: MakeRun) -> None:
    """What never started has waited until the last job ended, also where that was after the window."""
    never = make_job(submitted=100, wait=0, started_s=None, ended_s=None, productive=0.0)
    assert measure(make_run([never, make_job(submitted=900, run=3000)])).jobs.delay.longest == 3910 - 100


def test_attainment_by_delay_and_by_slowdown(make_job: MakeJob, make_run: MakeRun) -> None:
    """`guaranteed` is held to 5 minutes, `standard` to an hour and `preemptible` to its stretch."""
    run = make_run(
        [
            make_job(qos=QoS.GUARANTEED, wait=300),
            make_job(qos=QoS.GUARANTEED, wait=301),
            make_job(qos=QoS.STANDARD, wait=3600),
            make_job(qos=QoS.PREEMPTIBLE, wait=5000, run=1000),
            make_job(qos=QoS.PREEMPTIBLE, wait=9001, run=1000),
            make_job(qos=QoS.PREEMPTIBLE, wait=5000, run=1),  # counts as 600 s long
        ]
    )
    metrics = measure(run)
    assert metrics.classes[QoS.GUARANTEED].attainment == 0.5
    assert metrics.classes[QoS.STANDARD].attainment == 1
    assert metrics.classes[QoS.PREEMPTIBLE].attainment == pytest.approx(2 / 3)
    assert metrics.jobs.attainment == pytest.approx(4 / 6)


def test_objectives_are_parameters(make_job: MakeJob, make_run: MakeRun) -> None:
    """Another bound gives another verdict."""
    strict = replace(Objectives(), standard=Objective(Measure.DELAY, 5.0, 0.9))
    assert measure(make_run([make_job(wait=10)]), strict).classes[QoS.STANDARD].attainment == 0


def test_a_waiting_job_that_may_still_make_it_is_undecided(make_job: MakeJob, make_run: MakeRun) -> None:
    """It is not counted as kept, and it is counted."""
    young = make_job(submitted=900, started_s=None, ended_s=None, queued_s=0.0, productive=0.0)
    old = make_job(submitted=0, started_s=None, ended_s=None, productive=0.0, qos=QoS.GUARANTEED)
    metrics = measure(make_run([young, old]))
    assert metrics.classes[QoS.STANDARD].attainment == 0
    assert metrics.classes[QoS.STANDARD].undecided == 1
    assert metrics.classes[QoS.GUARANTEED].undecided == 0


@pytest.mark.parametrize(("bound", "share"), [(0.0, 0.9), (-1.0, 0.9), (10.0, 0.0), (10.0, 1.1)])
def test_impossible_objectives_are_refused(bound: float, share: float) -> None:
    """An objective that none or all meet is a mistake."""
    with pytest.raises(InputError, match="expected more than 0"):
        Objective(Measure.DELAY, bound, share)


def test_preemptions_and_racks(make_job: MakeJob, make_run: MakeRun) -> None:
    """Preemptions are a job; only started gangs of several devices can cross racks."""
    run = make_run(
        [
            make_job(gpus=8.0, racks=2, preemptions=3, restarts=4),
            make_job(gpus=8.0, racks=1),
            make_job(gpus=1.0, racks=1),
            make_job(gpus=8.0, racks=0, started_s=None, ended_s=None, productive=0.0),
        ]
    )
    group = measure(run).jobs
    assert group.preemptions == 3 / 4
    assert group.restarts == 1
    assert group.cross_rack == 0.5


def test_lost_time_of_a_group(make_job: MakeJob, make_run: MakeRun) -> None:
    """Its four kinds are kept apart and add up."""
    job = make_job(starting=1.0, recomputed=2.0, idle=4.0, failed=8.0)
    group = measure(make_run([job])).jobs
    assert (group.restart, group.rollback, group.idle, group.failed) == (1, 2, 4, 8)
    assert group.lost == 15


def test_a_service_has_a_wait_and_no_completion_time(make_job: MakeJob, make_run: MakeRun) -> None:
    """What never ends is not unfinished, and leaves completion times and bounds of the others alone."""
    service = make_job(qos=QoS.GUARANTEED, wait=20, run=math.inf, ended_s=None, productive=900.0)
    metrics = measure(make_run([service, make_job(wait=10, run=100)], quotas={"a": 1.0}))
    assert metrics.jobs.completion.mean == 110
    assert metrics.jobs.unfinished == 0
    assert metrics.classes[QoS.GUARANTEED].delay.mean == 20
    assert metrics.classes[QoS.GUARANTEED].attainment == 1
    assert metrics.bounds.run_s == 100
    assert metrics.fairness.rho.n == 1


def test_a_run_without_jobs_has_no_figures(make_run: MakeRun) -> None:
    """Nothing submitted is no zero delay."""
    assert math.isnan(measure(make_run()).jobs.completion.mean)
