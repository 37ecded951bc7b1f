"""Finish-time fairness and Jain's index, by hand, and tenants against their own quota alone."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.simulator.metrics import against, finish_alone, jain, jobs_of, measure
from helios.simulator.outcomes import JobOutcome, RunResult

MakeJob = Callable[..., JobOutcome]
MakeRun = Callable[..., RunResult]


def alone(jobs: Sequence[tuple[float, float, float]], quota: float) -> list[float]:
    """Finish times of jobs (submitted, run, devices)."""
    submitted, run, gpus = (np.array(column, dtype=np.float64) for column in zip(*jobs, strict=True))
    return list(finish_alone(submitted, run, gpus, quota))


def test_a_tenant_alone_serves_in_order_and_divides_devices() -> None:
    """The second job has what the first leaves, and all it wants once that is done."""
    # Two of four devices for 10 s; then the second job, with two of its four for 10 s, has 20 of 80 device-seconds.
    assert alone([(0, 10, 2), (0, 20, 4)], 4) == pytest.approx([10, 10 + 60 / 4])


def test_a_third_job_waits_for_what_the_second_leaves() -> None:
    """Devices that come free go to the one that has too few before the next begins."""
    # Job 0: 3 of 4 until 10. Job 1 wants 4: 1 until 10, then 4. Job 2 starts when job 1 is done.
    assert alone([(0, 10, 3), (0, 10, 4), (1, 5, 4)], 4) == pytest.approx([10, 17.5, 22.5])


def test_a_gang_wider_than_the_quota_is_slower_in_proportion() -> None:
    """Eight devices' work of 10 s takes 40 s on two."""
    assert alone([(5, 10, 8)], 2) == [45]


def test_a_job_without_work_ends_at_once() -> None:
    """Also where all devices are held."""
    assert alone([(0, 10, 1), (0, 0, 1)], 1) == [10, 0]


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 50), st.integers(1, 9)),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 12),
)
def test_alone_keeps_to_the_quota(jobs: list[tuple[float, float, int]], quota: int) -> None:
    """No job is faster than its run time, and all work is done within the quota."""
    jobs = sorted(jobs)
    finish = alone(jobs, quota)
    for (submitted, run, _), end in zip(jobs, finish, strict=True):
        assert end >= submitted + run - 1e-6
    work, first = sum(run * gpus for _, run, gpus in jobs), jobs[0][0]
    assert max(finish) - first >= work / quota - 1e-6


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 50), st.integers(1, 9)), min_size=1, max_size=20))
def test_on_one_device_all_stand_in_a_queue(jobs: list[tuple[float, float, int]]) -> None:
    """Each job begins when the one before it is done."""
    jobs, end = sorted(jobs), 0.0
    for (submitted, run, gpus), found in zip(jobs, alone(jobs, 1), strict=True):
        end = max(end, submitted) + run * gpus
        assert found == pytest.approx(end)


@pytest.mark.parametrize(
    ("values", "index"),
    [([1, 1, 1, 1], 1.0), ([1, 0, 0, 0], 0.25), ([1, 2, 3], 36 / 42)],
)
def test_jains_index(values: list[float], index: float) -> None:
    """1 for equals, 1/n where one has all."""
    assert jain(values) == pytest.approx(index)


def test_rho_and_worse_off(make_job: MakeJob, make_run: MakeRun) -> None:
    """A job that takes twice as long as on its tenant's quota has a rho of 2, and its tenant is worse off."""
    run = make_run(
        [
            make_job(tenant="slow", wait=100, run=100),
            make_job(tenant="quick", wait=0, run=100),
            make_job(tenant="poor", wait=0, run=100),
        ],
        quotas={"slow": 1.0, "quick": 1.0},
    )
    fairness = measure(run).fairness
    assert fairness.tenants["slow"].rho == 2
    assert fairness.tenants["quick"].rho == 1
    assert fairness.rho.mean == 1.5
    assert fairness.jain == pytest.approx(1.5**2 / (2 * (0.5**2 + 1)))
    assert fairness.worse_off == ("slow",)
    assert fairness.without_quota == ("poor",)


def test_a_tenant_that_would_queue_alone_gains_by_sharing(make_job: MakeJob, make_run: MakeRun) -> None:
    """Two jobs at once on a quota of one device: alone the second waits for the first."""
    run = make_run([make_job(wait=0, run=100), make_job(wait=0, run=100)], quotas={"a": 1.0})
    tenant = measure(run).fairness.tenants["a"]
    assert tenant.alone_s == 150
    assert tenant.ratio == pytest.approx(100 / 150)
    assert not tenant.worse_off


def test_an_elastic_gang_has_no_smaller_size_at_full_speed_alone(make_job: MakeJob, make_run: MakeRun) -> None:
    """Two that take 100 s on two devices each: on a quota of two the second waits for the first."""
    run = make_run([make_job(wait=0, run=100, gpus=1.0, most_gpus=2.0) for _ in range(2)], quotas={"a": 2.0})
    assert measure(run).fairness.tenants["a"].alone_s == 150


def test_a_restart_is_not_paid_alone(make_job: MakeJob, make_run: MakeRun) -> None:
    """One start is part of the run time; what a second costs is what sharing took."""
    once = make_job(wait=0, run=150, starting=50.0, productive=100.0)
    twice = make_job(tenant="b", wait=0, run=150, ended_s=200.0, starting=100.0, productive=100.0, restarts=1)
    tenants = measure(make_run([once, twice], quotas={"a": 1.0, "b": 1.0})).fairness.tenants
    assert tenants["a"].rho == pytest.approx(1)
    assert tenants["b"].rho == pytest.approx(200 / 150)


def test_without_quotas_each_tenant_has_its_part_of_the_fleet(make_job: MakeJob, make_run: MakeRun) -> None:
    """1/N of the healthy devices, as Themis has it."""
    fairness = measure(make_run([make_job(tenant="a"), make_job(tenant="b")])).fairness
    assert fairness.tenants["a"].quota == 5


def test_unfinished_jobs_make_a_tenant_no_better(make_job: MakeJob, make_run: MakeRun) -> None:
    """A job that never ran counts with the whole run's wait."""
    never = make_job(started_s=None, ended_s=None, wait=0, run=100, productive=0.0)
    assert measure(make_run([never], quotas={"a": 1.0})).fairness.tenants["a"].rho == 10


def test_against_a_simulated_run_on_quotas_alone(make_job: MakeJob, make_run: MakeRun) -> None:
    """Jobs are matched by name, and what the other run lacks is left out."""
    shared = [make_job(job_id="1", wait=0), make_job(job_id="2", wait=300, tenant="b"), make_job(job_id="3")]
    separate = [make_job(job_id="2", wait=0, tenant="b"), make_job(job_id="1", wait=100)]
    fairness = against(jobs_of(make_run(shared)), jobs_of(make_run(separate)), {"a": 1.0, "b": 2.0})
    assert fairness.tenants["a"].ratio == 0.5
    assert fairness.tenants["a"].jobs == 1
    assert fairness.tenants["b"].ratio == 4
    assert fairness.worse_off == ("b",)
    assert fairness.simulated
    assert measure(make_run(shared), alone=jobs_of(make_run(separate))).fairness.tenants["b"].ratio == 4


def test_a_small_loss_is_tolerated(make_job: MakeJob, make_run: MakeRun) -> None:
    """Up to the tolerance a tenant is not worse off; it is a parameter."""
    run = make_run([make_job(wait=4, run=100)], quotas={"a": 1.0})
    assert measure(run).fairness.worse_off == ()
    assert measure(run, tolerance=0.01).fairness.worse_off == ("a",)
