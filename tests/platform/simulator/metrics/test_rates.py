"""Four rates kept apart, as shares of healthy device-seconds in the window."""

import math
from collections.abc import Callable

import pytest

from helios.errors import InputError
from helios.simulator.metrics import measure
from helios.simulator.outcomes import JobOutcome, RunResult, Sample, Stay
from helios.spec import QoS

MakeJob = Callable[..., JobOutcome]
MakeRun = Callable[..., RunResult]


def sample(at: float, allocated: float, *, healthy: float = 10.0, stranded: float = 0.0, waiting: int = 0) -> Sample:
    return Sample(at, {"x": allocated}, {"x": allocated}, {"x": healthy}, {"x": stranded}, {QoS.STANDARD: waiting}, {})


def test_samples_hold_until_the_next_and_end_with_the_window(make_run: MakeRun) -> None:
    """Samples weigh by the seconds of the window for which they stand; those before it reach into it."""
    run = make_run(samples=(sample(0, 2), sample(300, 6), sample(900, 10), sample(1500, 0)), window=(200.0, 1000.0))
    assert measure(run).rates.allocated == pytest.approx((100 * 2 + 600 * 6 + 100 * 10) / (800 * 10))


def test_shares_are_of_healthy_devices(make_run: MakeRun) -> None:
    """A cell that lost half its devices and works with the rest is used in full."""
    run = make_run(samples=(sample(0, 10), sample(500, 5, healthy=5)))
    assert measure(run).rates.allocated == 1
    assert measure(run).devices == 7.5


def test_lost_is_split_and_what_is_left_is_productive(make_job: MakeJob, make_run: MakeRun) -> None:
    """Each kind is a share of 10 devices over 1000 s, and productive and lost add up to allocated."""
    job = make_job(wait=0, run=1000, productive=3000.0, starting=100.0, recomputed=200.0, idle=300.0, failed=400.0)
    rates = measure(make_run([job], samples=(sample(0, 4),))).rates
    assert (rates.productive, rates.restart, rates.rollback, rates.idle, rates.failed) == (0.3, 0.01, 0.02, 0.03, 0.04)
    assert rates.lost == pytest.approx(0.1)
    assert rates.allocated == pytest.approx(0.4)
    assert rates.unaccounted == pytest.approx(0)


def test_time_that_nobody_accounts_for_is_shown(make_job: MakeJob, make_run: MakeRun) -> None:
    """Devices that were held by no known job are said to be so."""
    assert measure(make_run([make_job(wait=0, run=100)])).rates.unaccounted == pytest.approx(0.5 - 0.01)


def test_only_what_lies_in_the_window_counts(make_job: MakeJob, make_run: MakeRun) -> None:
    """Of a job that is half inside, half of what it lost counts, and jobs of the warm-up count as well."""
    early = make_job(submitted=0, wait=0, run=400, productive=300.0, idle=100.0, warm_up=True)
    rates = measure(make_run([early], window=(200.0, 1000.0))).rates
    assert rates.idle == pytest.approx(50 / 8000)
    assert rates.productive == pytest.approx(150 / 8000)


def test_stays_say_when_a_job_held_devices(make_job: MakeJob, make_run: MakeRun) -> None:
    """A job that was preempted over the window's whole begin held nothing then."""
    job = make_job(job_id="j", submitted=0, wait=0, run=800, ended_s=1000.0, productive=400.0, idle=0.0)
    stays = (Stay("j", "x", 1.0, 0.0, 100.0), Stay("j", "x", 1.0, 700.0, 1000.0))
    run = make_run([job], stays=stays, window=(200.0, 1000.0))
    assert measure(run).rates.productive == pytest.approx(400 * 300 / 400 / 8000)


def test_an_unfinished_job_holds_until_the_run_is_over(make_job: MakeJob, make_run: MakeRun) -> None:
    """It counts up to the end of the run, and its part within the window is cut there."""
    job = make_job(wait=0, run=9000, ended_s=None, productive=2000.0)
    run = make_run([job], samples=(sample(0, 1), sample(2000, 1)))
    assert measure(run).rates.productive == pytest.approx(1000 / 10_000)


def test_stranded_and_fragmentation(make_run: MakeRun) -> None:
    """Stranded is a share of all devices; fragmentation is its share of those free while a gang waits."""
    run = make_run(samples=(sample(0, 4, stranded=3, waiting=1), sample(500, 4)))
    rates = measure(run).rates
    assert rates.stranded == pytest.approx(3 * 500 / 10_000)
    assert rates.fragmentation == pytest.approx(3 / 6)


def test_nothing_is_fragmented_where_nothing_waits(make_run: MakeRun) -> None:
    """A fleet whose queue is empty has no fragmentation to speak of, rather than none."""
    assert math.isnan(measure(make_run()).rates.fragmentation)


def test_rates_by_cell(make_run: MakeRun) -> None:
    """Each cell's shares are of its own devices."""
    both = Sample(0.0, {"x": 5.0, "y": 4.0}, {"x": 3.0, "y": 4.0}, {"x": 10.0, "y": 4.0}, {"x": 1.0, "y": 0.0}, {}, {})
    cells = measure(make_run(samples=(both,))).cells
    assert cells["x"].allocated == 0.5
    assert cells["x"].productive == 0.3
    assert cells["x"].stranded == 0.1
    assert cells["y"].allocated == 1
    assert cells["y"].devices == 4


def test_a_window_without_samples_is_refused(make_run: MakeRun) -> None:
    """There is nothing to take shares of, and the message says which run it is."""
    with pytest.raises(InputError, match=r"'ours' at load 0.5, seed 0, has no sample of a healthy device"):
        measure(make_run(samples=(sample(2000, 1),)))
    with pytest.raises(InputError, match="no sample of a healthy device"):
        measure(make_run(samples=()))
