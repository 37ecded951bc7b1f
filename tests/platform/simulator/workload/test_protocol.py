"""A workload at a load is what the protocol says: exact, deterministic, unscaled, labelled, and told what was done."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helios.errors import InputError, SpecError
from helios.simulator.jobs import TraceJob, Workload
from helios.simulator.traces import Trace, load_csv
from helios.simulator.traces.trace import WEEK_S
from helios.simulator.workload import Fleet, Phase, Protocol, Synthesis, Window, as_recorded, protocol_fleet
from helios.simulator.workload.assembly import CARRIED, MADE_UP
from helios.spec import QoS


@pytest.fixture(scope="module")
def protocol(trace: Trace, fleet: Fleet) -> Protocol:
    return Protocol(trace, fleet)


@pytest.fixture(scope="module")
def workload(protocol: Protocol) -> Workload:
    return protocol.at_load(0.85, seed=1)


def carried(job: TraceJob) -> bool:
    return "@-" in job.job_id


def demand(jobs: tuple[TraceJob, ...], window: tuple[float, float]) -> float:
    low, high = window
    return sum(
        max(0.0, min(job.submitted_s + job.duration_s, high) - max(job.submitted_s, low)) * job.most * job.gpus
        for job in jobs
    )


@pytest.mark.parametrize("load", [0.3, 0.6, 0.85, 0.95, 1.2])
@pytest.mark.parametrize("phase", [Phase.TUNING, Phase.REPORT])
def test_the_load_is_reached_within_a_hundredth(protocol: Protocol, load: float, phase: Phase) -> None:
    """Counted again from the jobs themselves."""
    found = protocol.at_load(load, seed=2, window=Window(phase))
    assert found.window is not None
    seconds = found.window[1] - found.window[0]
    assert demand(found.jobs, found.window) / (protocol.fleet.capacity * seconds) == pytest.approx(load, rel=0.01)
    assert found.load == pytest.approx(load, rel=0.01)


def test_the_same_seed_gives_the_same(protocol: Protocol, workload: Workload) -> None:
    """Job by job, and another seed gives others."""
    assert protocol.at_load(0.85, seed=1) == workload
    assert protocol.at_load(0.85, seed=2).jobs != workload.jobs


def test_nothing_is_scaled(workload: Workload, trace: Trace) -> None:
    """Every job has the size and the duration of the job of the trace that its name says."""
    rows = {name: row for row, name in enumerate(trace.job_ids)}
    for job in workload.jobs:
        row = rows[job.job_id.partition("/")[2].partition("@-")[0]]
        assert job.most * job.gpus == trace.devices[row]
        if not carried(job):
            assert job.duration_s == trace.duration_s[row]
        assert job.tenant.rpartition("-")[0] == trace.tenants[trace.tenant[row]]
        assert trace.submitted_s[row] >= 3 * WEEK_S


def test_jobs_come_in_order_with_names_of_their_own(workload: Workload) -> None:
    """Submissions are sorted, lie within the horizon, and no two jobs have one name."""
    moments = [job.submitted_s for job in workload.jobs]
    assert moments == sorted(moments)
    assert moments[0] >= 0
    assert moments[-1] < workload.horizon_s
    assert len({job.job_id for job in workload.jobs}) == len(workload.jobs)


def test_what_is_made_up_is_labelled(workload: Workload) -> None:
    """Every field that the trace has not; and what is left of a job that began before the run says so."""
    for job in workload.jobs:
        assert job.synthetic == (MADE_UP | CARRIED if carried(job) else MADE_UP)
        assert job.group.startswith(f"{job.tenant}/")
        assert job.group.endswith("/carried") == carried(job)
    assert any(carried(job) for job in workload.jobs)


def test_what_began_before_is_never_measured(workload: Workload) -> None:
    """It is submitted at second 0, before the measured window."""
    assert workload.window is not None
    assert all(job.submitted_s == 0 < workload.window[0] for job in workload.jobs if carried(job))


def test_what_the_trace_says_is_not_made_up(trace: Trace, fleet: Fleet) -> None:
    """Columns of the trace go through as they are, and are not labelled."""
    classes = np.array([QoS.GUARANTEED] * len(trace), object)
    estimate = np.array([float(row + 1) for row in range(len(trace))], object)
    told = replace(trace, given={"qos": classes, "estimate_s": estimate})
    for job in Protocol(told, fleet).at_load(0.5, seed=0).jobs:
        assert job.qos is QoS.GUARANTEED
        assert not {"qos", "estimate_s"} & job.synthetic
        if not carried(job):
            assert job.estimate_s == int(job.job_id.partition("/")[2]) + 1


def test_sweeping_one_setting_changes_nothing_else(protocol: Protocol, workload: Workload) -> None:
    """More guaranteed jobs are the same jobs, with the same estimates, checkpoints and data."""
    other = replace(protocol, synthesis=Synthesis(guaranteed=0.4)).at_load(0.85, seed=1)
    assert [replace(job, qos=QoS.STANDARD) for job in other.jobs] == [
        replace(job, qos=QoS.STANDARD) for job in workload.jobs
    ]
    assert other.jobs != workload.jobs


def test_burstiness_and_long_jobs_are_reported(workload: Workload) -> None:
    """Before and after, as figures and as sentences."""
    facts, text = workload.facts, " ".join(workload.notes)
    for when in ("before", "after"):
        for figure in ("gaps_cv", "hourly_cv", "dispersion", "demand_peak"):
            assert math.isfinite(facts[f"{when}_{figure}"])
    assert "Burstiness before: gaps" in text
    assert "after: gaps" in text
    assert facts["after_demand_peak"] < facts["before_demand_peak"], "many tenants are steadier than few"
    assert facts["long_share_of_work"] > 0
    assert "They are not clipped" in text
    assert "synthetic" in workload.notes[-1]
    assert facts["carried_jobs"] == sum(carried(job) for job in workload.jobs)


def test_homes_and_quotas_follow_true_demand(workload: Workload, fleet: Fleet) -> None:
    """Each tenant has one home; quotas are all devices; the load of the fullest home is close to the fleet's."""
    homes = {(job.tenant, job.home) for job in workload.jobs}
    assert len(homes) == len({tenant for tenant, _ in homes})
    assert {home for _, home in homes} <= {cell.name for cell in fleet.cells}
    assert sum(workload.quotas.values()) == fleet.gpus
    assert {tenant for tenant, _ in homes} <= set(workload.quotas)
    assert workload.facts["homes_fullest"] < 1.15
    wide = {job.tenant for job in workload.jobs if workload.quotas[job.tenant] < job.most * job.gpus}
    assert len(wide) == workload.facts["quotas_below_gang"]


def test_a_fleet_of_two_generations_is_loaded_by_its_speed(trace: Trace) -> None:
    """The same load is less work where devices are slower, and jobs ask for any type."""
    fast, mixed = (
        Protocol(trace, protocol_fleet(gpus=1000, generations=count)).at_load(0.8, seed=0) for count in (1, 2)
    )
    assert fast.window is not None
    assert demand(mixed.jobs, fast.window) < 0.85 * demand(fast.jobs, fast.window)
    assert {job.accelerator for job in mixed.jobs} == {"GPU"}


@pytest.mark.parametrize("load", [0.0, -1.0, float("nan"), float("inf"), 11.0])
def test_a_load_that_cannot_be_is_refused(protocol: Protocol, load: float) -> None:
    """Loads are above 0 and finite."""
    with pytest.raises(InputError, match="expected a load above 0"):
        protocol.at_load(load, seed=0)
    with pytest.raises(InputError, match="expected a seed of 0 or more"):
        protocol.at_load(0.5, seed=-1)


def test_a_gang_larger_than_every_cell_is_refused_at_its_row(tmp_path: Path, fleet: Fleet) -> None:
    """The row of the file, what it asks for and what there is; and a type that no cell has, with the nearest."""
    path = tmp_path / "jobs.csv"
    path.write_text("job_id,submit_s,duration_s,gpus,accelerator\na,9,1,4096,\nb,0,1,1,GPX\nc,0,1,8,GPU\n")
    with pytest.raises(SpecError) as caught:
        as_recorded(load_csv(path), fleet)
    text = str(caught.value)
    assert f"{path}:2: gpus: 512 workers of 8 GPUs fit on no cell: the largest has room for" in text
    assert f"{path}:3: accelerator: no cell has 'GPX'; there are GPU (did you mean 'GPU'?)" in text
    assert ":4:" not in text


def test_a_trace_can_be_replayed_as_it_was_recorded(trace: Trace, fleet: Fleet) -> None:
    """All jobs at their moments; only groups are made up."""
    found = as_recorded(trace, fleet)
    assert len(found.jobs) == len(trace)
    assert [job.submitted_s for job in found.jobs] == trace.submitted_s.tolist()
    assert {job.synthetic for job in found.jobs} == {frozenset({"group"})}
    assert sum(job.work for job in found.jobs) == pytest.approx(trace.work.sum())
    assert found.window is None


def test_failed_jobs_of_a_trace_fail_at_their_end(tmp_path: Path, fleet: Fleet) -> None:
    """What the trace recorded is done first."""
    path = tmp_path / "jobs.csv"
    path.write_text("job_id,submit_s,duration_s,gpus,status,qos\na,0,5,1,failed,preemptible\nb,0,5,1,cancelled,\n")
    one, two = as_recorded(load_csv(path), fleet).jobs
    assert (one.fails_at, one.qos, two.fails_at, two.qos) == (1.0, QoS.PREEMPTIBLE, None, QoS.STANDARD)


def test_a_long_run_is_drawn_from_all_weeks(make_trace: Callable[..., Trace]) -> None:
    """Ten weeks at once, for timings; they mix what is tuned on with what is reported, and say so."""
    window = Window(Phase.WHOLE, warm_up_s=WEEK_S, measured_s=8 * WEEK_S, tail_s=WEEK_S)
    found = Protocol(make_trace(3000), protocol_fleet(gpus=504)).at_load(0.85, 0, window)
    assert found.horizon_s == 10 * WEEK_S
    assert any("Drawn for whole from weeks 1 to 10" in note for note in found.notes)
