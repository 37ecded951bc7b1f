"""Tables: ratios to the best baseline, two stages by two, what a part brings, and doubts about runs."""

from collections.abc import Callable
from typing import Any

from helios.simulator.metrics import Objectives
from helios.simulator.report import checks, compare
from helios.simulator.report.figures import MEAN_JCT
from helios.simulator.report.runs import Runs

MakeRuns = Callable[..., Runs]


def jct(mean: float) -> dict[str, Any]:
    return {"jobs": {"completion": {"mean": mean}}}


def test_policies_stand_beside_the_best_baseline(make_runs: MakeRuns) -> None:
    """Ours first; the best baseline is marked and has no ratio to itself."""
    runs = make_runs({"kueue": {0.85: [jct(7200)]}, "fifo": {0.85: [jct(14400)]}, "helios": {0.85: [jct(3600)]}})
    grid = compare.policies(runs, [MEAN_JCT])
    assert [row[0].text for row in grid.rows] == ["helios", "fifo", "kueue"]
    assert [(row[1].text, row[1].note, row[1].mark) for row in grid.rows] == [
        ("1.0 h", "0.50 x", ""),
        ("4.0 h", "2.00 x", ""),
        ("2.0 h", "", "best"),
    ]


def test_two_by_two_needs_all_four(make_runs: MakeRuns) -> None:
    """Ratios are to ours with both stages the control's."""
    means = {"helios": 60, "helios-cell-control": 75, "helios-global-control": 90, "helios-both-control": 100}
    runs = make_runs({name: {0.85: [jct(mean)] * 2} for name, mean in means.items()})
    grid = compare.two_by_two(runs)
    assert grid is not None
    ours, control = grid.rows[2], grid.rows[3]
    assert [cell.note.split(" (")[0] for cell in ours[1:]] == ["0.60 x", "0.75 x"]
    assert [cell.note.split(" (")[0] for cell in control[1:]] == ["0.90 x", ""]
    del means["helios-both-control"]
    assert compare.two_by_two(make_runs({name: {0.85: [jct(mean)]} for name, mean in means.items()})) is None


def test_a_part_that_helps_beyond_chance_is_marked(make_runs: MakeRuns) -> None:
    """Without it everything takes longer with each seed: it helps. Without the other one less: it harms."""
    runs = make_runs(
        {
            "helios": {0.85: [jct(100), jct(110), jct(120)]},
            "helios-no-backfill": {0.85: [jct(150), jct(160), jct(170)]},
            "helios-no-elastic": {0.85: [jct(90), jct(100), jct(110)]},
            "helios-no-topology": {0.85: [jct(90), jct(120), jct(120)]},
        }
    )
    grid = compare.ablations(runs)
    assert grid is not None
    column = list(grid.columns).index("mean JCT")
    assert {row[0].text: row[column].mark for row in grid.rows} == {
        "without backfill": "good",
        "without elasticity": "bad",
        "without topology": "",
    }


def test_unfinished_jobs_are_shown_both_ways(make_runs: MakeRuns) -> None:
    """How many, what they had, and completion times without and with them."""
    change = {"jobs": {"unfinished": 3, "unfinished_held": 7200.0, "completion_ended": {"mean": 3600.0}}}
    row = compare.unfinished(make_runs({"helios": {0.85: [change | {}]}})).rows[0]
    assert [cell.text for cell in row[:3]] == ["helios", "3.0", "2"]
    assert row[4].text == "1.0 h"


def test_highest_loads_say_where_they_are_censored(make_runs: MakeRuns) -> None:
    """A policy that meets everything at the highest load has at least that."""
    from helios.spec import QoS

    good = {"classes": {qos: {"attainment": 1.0} for qos in QoS}}
    runs = make_runs({"helios": {0.6: [good], 0.9: [good]}})
    grid = compare.capacities(runs, Objectives())
    assert grid is not None
    assert grid.rows[0][1].text == "at least 0.900"


def test_runs_that_break_a_bound_are_named(make_runs: MakeRuns) -> None:
    """Each doubt says which run and what is wrong."""
    bad = {"bounds": {"faster": 3, "completion_s": 1e9}, "rates": {"unaccounted": 0.2, "allocated": 1.2}}
    doubts = checks.doubts(make_runs({"helios": {0.85: [{}, bad]}}))
    assert len(doubts) == 4
    assert all(doubt.startswith("helios, load 0.85, seed 1: ") for doubt in doubts)


def test_generated_runs_are_beyond_doubt(written: Any) -> None:
    """All bounds hold in runs that are consistent in themselves, and their device time adds up."""
    from helios.simulator.report import Roles
    from helios.simulator.report.runs import tables

    assert [doubt for runs in tables(written.measured, Roles(), 0.85) for doubt in checks.doubts(runs)] == []


def test_more_work_than_was_offered_is_said_once(make_runs: MakeRuns) -> None:
    """In one sentence with the run in which it is most."""
    runs = make_runs({"helios": {0.85: [{"rates": {"productive": each}} for each in (0.9, 0.95, 0.86)]}})
    said = checks.above_load(runs)
    assert said.startswith("In 2 of 3 runs")
    assert "95.0% (helios, load 0.85, seed 1)" in said
