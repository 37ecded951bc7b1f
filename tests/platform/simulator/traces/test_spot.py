"""The spot trace is tables only: what is drawn from them follows them, and says that nothing of it was recorded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helios.errors import InputError, SpecError
from helios.simulator.traces.spot import NAME, SYNTHETIC, compare, draw_trace, load_spot
from helios.simulator.traces.trace import DAY_S, WEEK_S


def test_a_drawn_trace_follows_the_tables(folder: Path) -> None:
    """Shares of sizes and classes, and quantiles of the duration, come out as published."""
    tables = load_spot(folder)
    drawn = draw_trace(tables, 40_000, 4, seed=3)
    assert len(drawn) == 40_000
    rows = {row.name: row for row in compare(drawn, tables)}
    for name in ("duration_s at 50%", "duration_s at 90%"):
        assert rows[name].found == pytest.approx(rows[name].published, rel=0.15)
    assert rows["share of jobs, preemptible"].found == pytest.approx(0.1, abs=0.01)
    whole = 1 - tables.demand_shares["0"]
    assert rows["share of jobs, 5 to 8 GPUs"].found == pytest.approx(0.1 / whole, abs=0.01)
    assert rows["share of jobs, 129 plus GPUs"].found == pytest.approx(0.01 / whole, abs=0.005)


def test_hour_0_is_not_as_busy_as_its_table(folder: Path) -> None:
    """Jobs that ran before the record began are counted in its hour 0, and are no submissions of it."""
    drawn = draw_trace(load_spot(folder), 40_000, 4, seed=3)
    hours = np.bincount((np.mod(drawn.submitted_s, DAY_S) // 3600).astype(int), minlength=24) / len(drawn)
    assert hours[0] == pytest.approx((101 + 123) / 2 / (sum(range(101, 124)) + 112), abs=0.005)
    assert (drawn.submitted_s < 4 * WEEK_S).all()


def test_everything_drawn_is_labelled_and_deterministic(folder: Path) -> None:
    """The same seed gives the same, another one does not, and every column is said to be synthetic."""
    tables = load_spot(folder)
    one, same, other = (draw_trace(tables, 500, 2, seed=seed) for seed in (1, 1, 2))
    assert one.synthetic == SYNTHETIC
    assert "nothing of it was recorded" in one.notes[0]
    assert one.duration_s.tolist() == same.duration_s.tolist()
    assert one.duration_s.tolist() != other.duration_s.tolist()
    with pytest.raises(InputError, match="at least one job"):
        draw_trace(tables, 0, 2, seed=1)


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        (
            "agg_job_type_shares",
            "Spot",
            "Sport",
            ":3: type: expected one of HP, Spot, got 'Sport' (did you mean 'Spot'?)",
        ),
        ("agg_bucket_duration", "over 3 days", "beyond", "expected one of 0 to 1 min"),
        ("agg_bucket_duration", "0.35", "0.36", "expected shares that add up to 1"),
        ("agg_hour_of_day_patterns", "23,123", "22,123", "expected the hours 0 to 23 in their order"),
        ("agg_duration_quantiles", "1200.0", "-1", ":2: duration_seconds: expected seconds, got '-1'"),
    ],
)
def test_wrong_tables_are_refused(folder: Path, file: str, old: str, new: str, problem: str) -> None:
    """Row and column, or the table that does not add up."""
    path = folder / NAME / f"{file}.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises((SpecError, InputError)) as caught:
        load_spot(folder)
    assert problem in str(caught.value)


def test_the_real_tables_are_read(real_traces: Path) -> None:
    """Nine in ten jobs are HP; their durations go from seconds to half a year."""
    tables = load_spot(real_traces)
    assert tables.types["Spot"] == pytest.approx((0.1096, 0.0243), abs=1e-4)
    shares, seconds = tables.duration_curve
    assert (np.diff(shares) > 0).all()
    assert (np.diff(seconds) > 0).all()
    assert replace(tables).workers[1].sum() == pytest.approx(466_867, rel=1e-3)
