"""All metrics of a run as one row."""

import math
from collections.abc import Callable

from helios.simulator.metrics import flat, measure
from helios.simulator.outcomes import JobOutcome, RunResult

MakeJob = Callable[..., JobOutcome]
MakeRun = Callable[..., RunResult]


def test_a_row_has_all_figures_by_name(make_job: MakeJob, make_run: MakeRun) -> None:
    """Each class, the rates, the bounds and fairness, as plain numbers."""
    row = flat(measure(make_run([make_job(wait=20, run=100)], cycles=4, scheduling_s=2.0)))
    assert row["standard.delay.p99"] == 20
    assert row["all.completion_ended.mean"] == 120
    assert row["rates.allocated"] == 0.5
    assert row["bounds.run_s"] == 100
    assert row["rho.mean"] > 1
    assert row["tenants.worse_off"] == 1
    assert row["cycle_s"] == 0.5
    assert math.isnan(row["guaranteed.delay.p99"])
    assert all(isinstance(value, int | float) for value in row.values())


def test_every_row_has_the_same_names(make_job: MakeJob, make_run: MakeRun) -> None:
    """Rows of runs with and without jobs of a class make one table."""
    assert flat(measure(make_run())).keys() == flat(measure(make_run([make_job()]))).keys()
