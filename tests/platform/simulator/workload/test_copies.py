"""Copies are whole tenants moved in time: no job is cut, stretched or made up, and the demand is what was asked for."""

import itertools
from collections import Counter

import numpy as np
import pytest

from helios.errors import InputError
from helios.simulator.traces import Trace
from helios.simulator.traces.trace import DAY_S, WEEK_S
from helios.simulator.workload import Phase, Split, Window
from helios.simulator.workload.burstiness import hourly_demand
from helios.simulator.workload.copies import JITTER_S, Copy, Pool, draw_copies, superpose

WINDOW = Window()


@pytest.fixture(scope="module")
def pool(trace: Trace) -> Pool:
    return Pool.of(trace, Split().weeks(trace, Phase.REPORT))


def drawn(pool: Pool, count: int, *, seed: int = 0, window: Window = WINDOW) -> list[Copy]:
    return list(itertools.islice(draw_copies(pool, window, seed), count))


def test_a_copy_is_moved_by_whole_weeks(pool: Pool) -> None:
    """Hours and weekdays stay what they were, to half an hour; so do the seconds between two jobs."""
    for copy in drawn(pool, 20):
        new = copy.elapsed_s == 0
        moved = copy.submitted_s[new] - pool.trace.submitted_s[copy.rows[new]]
        offset = np.mod(moved + WEEK_S / 2, WEEK_S) - WEEK_S / 2
        assert np.abs(offset).max() <= JITTER_S
        assert np.ptp(offset) < 1e-3


def test_sizes_and_durations_are_those_of_the_trace(pool: Pool) -> None:
    """What runs from the start has what is left of its duration; the rest has all of it."""
    for copy in drawn(pool, 20):
        assert (copy.duration_s + copy.elapsed_s).tolist() == pytest.approx(pool.trace.duration_s[copy.rows].tolist())
        assert (copy.duration_s > 0).all()
        assert (copy.submitted_s[copy.elapsed_s > 0] == 0).all()


def test_a_copy_has_one_tenant_and_only_weeks_of_the_phase(pool: Pool) -> None:
    """Nothing of the tuning weeks is in what is reported."""
    for copy in drawn(pool, 20):
        assert len(set(pool.trace.tenant[copy.rows].tolist())) == 1
        assert copy.tenant.rpartition("-")[0] == pool.trace.tenants[pool.trace.tenant[copy.rows[0]]]
        assert pool.trace.submitted_s[copy.rows].min() >= 3 * WEEK_S


def test_weeks_come_again_only_when_all_have_been(pool: Pool) -> None:
    """The first seven copies of a tenant are moved by seven different numbers of weeks."""
    shifts: dict[str, list[int]] = {}
    for copy in drawn(pool, 60):
        new = np.flatnonzero(copy.elapsed_s == 0)[0]
        moved = copy.submitted_s[new] - pool.trace.submitted_s[copy.rows[new]]
        shifts.setdefault(copy.tenant.rpartition("-")[0], []).append(round(moved / WEEK_S) % pool.weeks)
    assert all(len(set(weeks[:7])) == len(weeks[:7]) for weeks in shifts.values())
    assert Counter(len(weeks) for weeks in shifts.values()) != Counter({12: 5}), "tenants are drawn with replacement"


def test_what_began_before_makes_the_demand_steady(pool: Pool) -> None:
    """All weeks of a tenant are one circle, so over all shifts the first hours demand what the later ones do."""
    window = Window(warm_up_s=0, measured_s=WEEK_S, tail_s=0)
    copies = [copy for copy in drawn(pool, 400, window=window) if copy.tenant.startswith("astro-")]
    copies = copies[: len(copies) // 7 * 7]
    edges = np.array([day * DAY_S for day in range(8)])
    each = [hourly_demand(one.submitted_s, one.duration_s, pool.trace.devices[one.rows], edges) for one in copies]
    days = np.sum(each, axis=0)
    mean = pool.trace.work[pool.rows[0]].sum() / pool.length_s * len(copies)
    assert float(np.mean(days)) == pytest.approx(mean, rel=1e-3)
    # Without what began before, day 1 would have less than half of the mean in this trace.
    assert float(days[0]) > 0.5 * mean


def test_demand_counts_what_lies_in_the_window(pool: Pool) -> None:
    """A job's demand is its devices for the seconds that it would run within the measured ones."""
    copy = drawn(pool, 1)[0]
    low, high = WINDOW.span
    for row, at, lasts, demand in zip(copy.rows, copy.submitted_s, copy.duration_s, copy.demand, strict=True):
        inside = max(0.0, min(at + lasts, high) - max(at, low))
        assert demand == pytest.approx(inside * pool.trace.devices[row])


@pytest.mark.parametrize("gpus", [20, 300, 3000])
def test_copies_add_up_to_what_was_asked_for(pool: Pool, gpus: int) -> None:
    """Within a hundredth; and all copies but the last few are whole."""
    wanted = gpus * WINDOW.measured_s
    taken = superpose(draw_copies(pool, WINDOW, 3), wanted)
    assert sum(float(copy.demand.sum()) for copy in taken) == pytest.approx(wanted, rel=0.01)
    whole = {copy.tenant: len(copy) for copy in drawn(pool, len(taken) + 20, seed=3)}
    thinned = [copy for copy in taken if len(copy) < whole[copy.tenant]]
    assert all(copy in taken[len(taken) - len(thinned) :] for copy in thinned)


def test_a_low_load_is_part_of_a_higher_one(pool: Pool) -> None:
    """Whole copies at a low load are there at a higher one as well, job by job."""
    low, high = (superpose(draw_copies(pool, WINDOW, 3), gpus * WINDOW.measured_s) for gpus in (200, 400))
    later = {copy.tenant: copy for copy in high}
    for copy in low[:-1]:
        assert copy.rows.tolist() == later[copy.tenant].rows.tolist()
        assert copy.even.tolist() == later[copy.tenant].even.tolist()
    assert set(low[-1].rows.tolist()) <= set(later[low[-1].tenant].rows.tolist())


def test_what_cannot_be_drawn_is_refused(pool: Pool) -> None:
    """A run longer than its weeks, no jobs at all, and a demand that no selection of jobs has."""
    with pytest.raises(InputError, match=r"the run lasts 8\.0 weeks, but there are 7 weeks for report"):
        drawn(pool, 1, window=Window(warm_up_s=0, measured_s=8 * WEEK_S, tail_s=0))
    with pytest.raises(InputError, match=r"made\.csv has no job in the weeks for report"):
        next(draw_copies(Pool(pool.trace, 0.0, pool.length_s, ()), WINDOW, 0))
    with pytest.raises(InputError, match="no selection of jobs has a demand of") as caught:
        superpose(draw_copies(pool, WINDOW, 0), 0.5)
    assert "too small" in caught.value.hint
