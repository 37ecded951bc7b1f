"""What holds of every simulated run, whatever the policy does."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helios.scheduler import CellState, Node, Policy, Readiness, Snapshot, Topology, schedule
from helios.simulator.engine import simulate
from helios.simulator.jobs import TraceJob, Workload
from helios.simulator.outcomes import JobOutcome, RunResult
from helios.simulator.settings import Settings
from helios.spec import CapacityType, QoS, Retry

DAY = 86_400.0
STORMY = Settings(
    seed=3,
    failures=2.0,
    repair_s=3600.0,
    reclaims=3.0,
    absence_s=1800.0,
    start_failures=0.1,
    retry=Retry(max_retries=1),
    stays=True,
    sample_s=1800.0,
    tail_s=3 * DAY,
)
CALM = Settings(failures=0.0, reclaims=0.0, start_failures=0.0, stays=True, tail_s=30 * DAY)


class Helios:
    """The scheduler itself."""

    name = "helios"

    def decide(self, snapshot: Snapshot) -> Any:
        return schedule(snapshot, Policy())


def cell(name: str, nodes: int, *, gpus: int = 8, every_other: CapacityType = CapacityType.RESERVED) -> CellState:
    """A cell of such nodes, two in a rack; every other one of that capacity type."""
    made = tuple(
        Node(
            f"{name}-{index}",
            "pool",
            64_000,
            2**40,
            {"GPU": gpus},
            topology=Topology(f"r{index // 2}", f"b{index // 4}", "f"),
            capacity_type=every_other if index % 2 else CapacityType.RESERVED,
        )
        for index in range(nodes)
    )
    return CellState(name, Readiness.READY, made, ingress_rate=1.0)


@st.composite
def jobs(draw: st.DrawFn) -> TraceJob:
    """Any job that some cell of `FLEET` could hold, in a trace of a day."""
    shared = draw(st.integers(0, 4)) == 0
    workers = draw(st.integers(1, 3))
    return TraceJob(
        job_id="",
        submitted_s=draw(st.floats(0, DAY)),
        duration_s=draw(st.one_of(st.just(0.0), st.floats(1, 40_000))),
        workers=workers,
        gpus=0 if shared else draw(st.sampled_from([1, 2, 4, 8])),
        share=draw(st.sampled_from([250, 500])) if shared else 0,
        tenant=draw(st.sampled_from(["a", "b"])),
        qos=draw(st.sampled_from(list(QoS))),
        max_workers=draw(st.sampled_from([0, workers + 2])) if not shared else 0,
        estimate_s=draw(st.one_of(st.none(), st.floats(1, 40_000))),
        fails_at=draw(st.one_of(st.none(), st.none(), st.floats(0, 1))),
        checkpoint_s=draw(st.one_of(st.none(), st.floats(60, 7200))),
        checkpoint_cost_s=draw(st.floats(0, 200)),
        restart_s=draw(st.floats(0, 300)),
        data=draw(st.sampled_from([(), (("x", 100.0),)])),
        group=draw(st.sampled_from(["", "g"])),
    )


FLEET = (
    cell("x", 4, every_other=CapacityType.PREEMPTIBLE),
    cell("y", 6, every_other=CapacityType.PREEMPTIBLE),
)


def workload(rows: Sequence[TraceJob], horizon_s: float = DAY) -> Workload:
    return Workload("drawn", tuple(replace(job, job_id=f"j{index}") for index, job in enumerate(rows)), horizon_s)


WORKLOADS = st.lists(jobs(), min_size=1, max_size=40).map(workload)


def held(outcome: JobOutcome) -> float:
    return outcome.productive + outcome.starting + outcome.recomputed + outcome.idle + outcome.failed


def check(result: RunResult, load: Workload, fleet: Sequence[CellState]) -> None:
    """What must be true of any run."""
    stays: defaultdict[str, float] = defaultdict(float)
    for stay in result.stays:
        assert stay.until_s > stay.since_s
        stays[stay.job_id] += stay.gpus * (stay.until_s - stay.since_s)
    by_id = {job.job_id: job for job in load.jobs}
    for outcome in result.outcomes:
        assert math.isclose(held(outcome), stays[outcome.job_id], rel_tol=1e-9, abs_tol=1e-3)
        assert min(outcome.productive, outcome.starting, outcome.recomputed, outcome.idle, outcome.failed) >= 0
        job = by_id[outcome.job_id]
        if outcome.completion_s is not None and outcome.succeeded:
            assert outcome.completion_s >= outcome.run_s * (1 - 1e-9) - 1e-6
        if outcome.succeeded:
            assert job.fails_at is None
            assert outcome.failed == 0
            # At its largest number of workers nothing is lost to the speed-up curve, so this is the least it holds.
            least = job.work / job.most * min(job.workers, job.most)
            assert outcome.productive >= least * (1 - 1e-9) - 1e-3
    total = sum(sum(node.accelerators.values()) for one in fleet for node in one.nodes)
    for sample in result.samples:
        for one in fleet:
            devices = sum(sum(node.accelerators.values()) for node in one.nodes)
            assert -1e-9 <= sample.productive[one.name] <= sample.allocated[one.name] + 1e-9
            assert sample.allocated[one.name] <= devices + 1e-9
            assert sample.stranded[one.name] <= devices - sample.allocated[one.name] + 1e-9
    ends = [stay.until_s for stay in result.stays] or [0.0]
    assert sum(held(outcome) for outcome in result.outcomes) <= total * max(ends) + 1e-3


@given(load=WORKLOADS, seed=st.integers(0, 100))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_books_hold_whatever_a_policy_does(chaotic: Any, load: Workload, seed: int) -> None:
    """Every device-second is in one bucket, nothing holds more than there is, and nothing is faster than alone."""
    check(simulate(load, FLEET, [], chaotic(seed), replace(STORMY, seed=seed)), load, FLEET)


@given(load=WORKLOADS, seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_books_hold_for_the_scheduler_itself(load: Workload, seed: int) -> None:
    """The same of the policy that the live control plane runs, through storms of dying and taken nodes."""
    check(simulate(load, FLEET, [], Helios(), replace(STORMY, seed=seed)), load, FLEET)


@given(load=WORKLOADS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_completion_is_never_shorter_than_the_run_alone(chaotic: Any, load: Workload) -> None:
    """Preempted, resized or not: what a job takes alone is the least that it takes."""
    result = simulate(load, FLEET, [], chaotic(1), replace(CALM, tail_s=4 * DAY))
    for outcome in result.outcomes:
        if outcome.completion_s is not None:
            assert outcome.completion_s >= outcome.run_s * (1 - 1e-9) - 1e-6


@given(load=WORKLOADS, seed=st.integers(0, 3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_same_arguments_give_the_same_run(chaotic: Any, load: Workload, seed: int) -> None:
    """A run is a function of workload, fleet, policy and seed."""
    first, second = (simulate(load, FLEET, [], chaotic(seed), replace(STORMY, seed=seed)) for _ in range(2))
    assert replace(first, scheduling_s=0.0) == replace(second, scheduling_s=0.0)


@given(load=WORKLOADS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_everything_ends_on_a_calm_fleet(fifo: Any, load: Workload) -> None:
    """Without faults first come, first served runs each job once, loses nothing and ends as the trace says."""
    result = simulate(load, FLEET, [], type(fifo)(), CALM)
    by_id = {job.job_id: job for job in load.jobs}
    for outcome in result.outcomes:
        assert outcome.succeeded == (by_id[outcome.job_id].fails_at is None)
        assert (outcome.restarts, outcome.recomputed, outcome.ended_s is None) == (0, 0.0, False)


def test_failures_do_not_depend_on_the_policy(fifo: Any, chaotic: Any) -> None:
    """The same nodes are down at the same moments under two policies."""
    rows = [TraceJob("", 3600.0 * hour, 90_000.0, 2, 8, checkpoint_s=600.0) for hour in range(20)]
    runs = [simulate(workload(rows), FLEET, [], policy, STORMY) for policy in (fifo, chaotic(5))]
    healthy = [{sample.at_s: sample.healthy for sample in run.samples} for run in runs]
    common = healthy[0].keys() & healthy[1].keys()
    assert len(common) > 20
    assert all(healthy[0][at] == healthy[1][at] for at in common)
    assert len({tuple(healthy[0][at].values()) for at in common}) > 3


def test_utilization_is_bounded_by_load_and_by_one(fifo: Any) -> None:
    """Under too little work the productive share is the load; under too much it is at most 1."""
    few = [TraceJob("", 600.0 * index, 3000.0, 1, 8, restart_s=0.0) for index in range(100)]
    many = [replace(job, duration_s=60_000.0) for job in few]
    for rows in (few, many):
        result = simulate(workload(rows, 60_000.0), FLEET, [], type(fifo)(), replace(CALM, tail_s=0.0))
        total = 80 * 60_000.0
        productive = sum(outcome.productive for outcome in result.outcomes) / total
        assert productive <= min(1.0, result.load) + 1e-9
    assert result.load > 1


def test_cycles_are_batched_and_only_run_when_something_changed(fifo: Any) -> None:
    """Cycles begin at multiples of their length, and an idle queue costs none."""
    rows = [TraceJob("", at, 1000.0, 1, 8) for at in (1.0, 2.0, 3.0, 50_000.0)]
    simulate(workload(rows), FLEET, [], fifo, replace(CALM, cycle_s=30.0))
    assert [look.now for look in fifo.looks] == [30.0, 50_010.0]
    assert len(fifo.looks[0].pending) == 3


def test_progress_is_told_until_the_end(fifo: Any) -> None:
    """Fractions rise from 0 to 1."""
    told: list[float] = []
    simulate(workload([TraceJob("", 0.0, 50_000.0, 1, 8)]), FLEET, [], fifo, CALM, on_progress=told.append)
    assert told == sorted(told)
    assert (told[0] < 0.5, told[-1]) == (True, 1.0)


def test_jobs_that_are_not_over_when_the_time_is_are_reported(fifo: Any) -> None:
    """A run ends `tail_s` after the last submission; who still runs or waits has no end."""
    rows = [TraceJob("", 0.0, 9e6, 4, 8), TraceJob("", 10.0, 9e6, 6, 8), TraceJob("", 20.0, 5.0, 6, 8)]
    result = simulate(workload(rows), FLEET, [], fifo, replace(CALM, tail_s=DAY))
    assert [outcome.ended_s for outcome in result.outcomes] == [None, None, None]
    assert result.outcomes[0].productive == pytest.approx(32 * (2 * DAY - 90.0), rel=1e-3)
    assert result.outcomes[2].queued_s == pytest.approx(2 * DAY - 20.0, rel=0.03)


def test_samples_say_who_waits_and_what_is_stranded(fifo: Any) -> None:
    """Free devices are stranded while no worker of any waiting gang fits beside what runs; they are not without one."""
    rows = [TraceJob("", 0.0, 5000.0, 1, 5) for _ in range(10)]
    rows += [TraceJob("", 100.0, 1000.0, 2, 8), TraceJob("", 2000.0, 60.0, 1, 3, qos=QoS.PREEMPTIBLE)]
    result = simulate(workload(rows), FLEET, [], fifo, replace(CALM, sample_s=1800.0))
    first, large, both, none = result.samples[:4]
    assert first.pending == {QoS.STANDARD: 10}
    assert (large.pending, large.pending_gpus) == ({QoS.STANDARD: 1}, {QoS.STANDARD: 16.0})
    assert (large.allocated, large.stranded) == ({"x": 20.0, "y": 30.0}, {"x": 12.0, "y": 18.0})
    assert both.pending_gpus == {QoS.STANDARD: 16.0, QoS.PREEMPTIBLE: 3.0}
    assert both.stranded == {"x": 0.0, "y": 0.0}
    assert (none.pending, none.stranded) == ({}, {"x": 0.0, "y": 0.0})
    assert large.productive == large.allocated
