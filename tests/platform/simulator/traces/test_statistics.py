"""What is said of a trace is what can be counted by hand."""

from pathlib import Path

import pytest

from helios.simulator.traces import Trace, load_csv
from helios.simulator.traces.statistics import by_size, duration_quantiles, predictability, share_beyond


def trace_of(tmp_path: Path, *rows: str) -> Trace:
    path = tmp_path / "jobs.csv"
    path.write_text("\n".join(["job_id,submit_s,duration_s,gpus,tenant", *rows]))
    return load_csv(path)


def test_sizes_and_long_jobs(tmp_path: Path) -> None:
    """Shares of jobs and of GPU time by size, and of what is longer than a time."""
    trace = trace_of(tmp_path, "a,0,100,1,x", "b,1,300,1,x", "c,2,100,8,x")
    one, eight = by_size(trace)
    assert (one.devices, one.count, one.median_s) == (1.0, 2, 200.0)
    assert (one.jobs, one.work, eight.work) == pytest.approx((2 / 3, 400 / 1200, 800 / 1200))
    assert share_beyond(trace, 200) == pytest.approx((1, 0.25))
    assert duration_quantiles(trace)[1.0] == 300.0


def test_a_predictor_knows_only_what_has_ended(tmp_path: Path) -> None:
    """A job that still runs when the next is submitted teaches nothing, and other groups never do."""
    trace = trace_of(tmp_path, "a,0,100,1,x", "b,50,100,1,x", "c,200,1000,1,x", "d,300,5,1,y")
    found = predictability(trace)
    assert found.groups == 2
    assert found.unknown == 0.75
    assert found.half == pytest.approx(10.0)
    assert found.far_jobs == 0.0


def test_groups_that_are_all_alike_explain_everything(tmp_path: Path) -> None:
    """The share of variance between groups is 1 where each has one duration, and 0 where there is one group."""
    assert predictability(trace_of(tmp_path, "a,0,10,1,x", "b,1,10,1,x", "c,9,90,1,y")).explained == pytest.approx(1)
    assert predictability(trace_of(tmp_path, "a,0,10,1,x", "b,20,90,1,x")).explained == pytest.approx(0)
