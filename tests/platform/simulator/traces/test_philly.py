"""The Philly loader keeps to the weeks that are whole, changes no number, and repeats what its source warns of."""

import lzma
from pathlib import Path

import numpy as np
import pytest

from helios.errors import SpecError
from helios.simulator.traces import load_philly, load_trace
from helios.simulator.traces.statistics import by_size, share_beyond
from helios.simulator.traces.trace import DAY_S, WEEK_S

FILE = Path("philly-2017") / "philly.csv.xz"


def test_rows_outside_the_weeks_and_repeated_ones_are_left_out_and_counted(folder: Path) -> None:
    """Jobs of the ten weeks come in order, with their line as name; what is left out is said."""
    trace = load_philly(folder)
    assert trace.job_ids == ("3", "9", "2", "6")
    assert trace.submitted_s.tolist() == [0.0, DAY_S + 36_000, WEEK_S + 25_315, 10 * WEEK_S - 1]
    assert trace.duration_s.tolist() == [2951.0, 500.0, 66.0, 100.0]
    assert trace.weeks == 10
    assert "4 of 7 rows" in trace.notes[0]
    assert "2 lie outside, and 1 repeat another row" in trace.notes[0]
    assert "nothing of users, failures, queueing or attempts" in trace.notes[1]
    assert trace.given == {}


def test_gangs_are_cut_to_nodes_of_eight(folder: Path) -> None:
    """A size becomes the fewest equal workers that fit on nodes, and stays the size."""
    trace = load_philly(folder)
    assert list(zip(trace.workers.tolist(), trace.gpus.tolist(), strict=True)) == [(1, 8), (3, 8), (1, 1), (2, 6)]
    assert trace.groups == ("6214e9/8", "11cb48/24", "11cb48/1", "6214e9/12")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("66.0,1,66.0", "66.0,1,67.0", ":2: gpu_time: expected duration times num_gpus, got '67.0'"),
        ("2017-10-09 07", "9 October 07", ":2: timestamp: expected a moment like 2017-10-09 07:01:55, got '9 October"),
        ("2951.0", "-2951.0", ":3: duration: expected seconds, above 0, got '-2951.0'"),
        (
            ",cluster",
            ",clusters",
            ":1: has no column 'cluster'; it has timestamp, duration, num_gpus, gpu_time, clusters",
        ),
    ],
)
def test_wrong_rows_are_named(folder: Path, old: str, new: str, problem: str) -> None:
    """Row, column, what was expected, as for any other file."""
    text = lzma.decompress((folder / FILE).read_bytes()).decode()
    (folder / FILE).write_bytes(lzma.compress(text.replace(old, new, 1).encode()))
    with pytest.raises(SpecError) as caught:
        load_philly(folder)
    assert problem in str(caught.value)


def test_the_real_trace_is_what_its_source_says(real_traces: Path) -> None:
    """82,247 rows of which 65 repeat another; the ten weeks have nine in ten of them."""
    trace = load_trace("philly", real_traces)
    assert "74116 of 82247 rows" in trace.notes[0]
    assert len(trace.tenants) == 15
    assert (np.diff(trace.submitted_s) >= 0).all()
    assert trace.work.sum() == pytest.approx(2.7058e9, rel=1e-4)
    shares = {row.devices: (row.jobs, row.work) for row in by_size(trace)}
    assert shares[1.0] == pytest.approx((0.934, 0.193), abs=1e-3)
    assert shares[8.0] == pytest.approx((0.019, 0.454), abs=1e-3)
    assert share_beyond(trace, 7 * DAY_S) == pytest.approx((144, 0.202), abs=1e-3)
