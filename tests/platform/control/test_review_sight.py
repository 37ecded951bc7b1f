"""A replica that begins to lead finds reports of another time: they say how things ended, and nothing about now."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from helios.ports import LaunchStatus, Phase


def test_cell_that_is_silent_stays_unknown_for_the_next_leader(fleet: Any) -> None:
    """An old report that lies in the store is no sign of life: nothing is placed on a cell that cannot be seen."""
    fleet.job("runs")
    fleet.running("runs")
    fleet.advance(120)
    fleet.plane.tick()
    assert fleet.state("local", "Cell") == "Unknown"
    fleet.job("waits")
    for _ in range(2):
        fleet.plane = fleet.new_plane()
        fleet.plane.tick()
        fleet.plane.tick()
        assert fleet.state("local", "Cell") == "Unknown"
        assert (fleet.state("waits"), fleet.status("waits")["reason"]) == ("Queued", "CellUnknown")
    fleet.settle(2)
    assert fleet.state("local", "Cell") == "Ready"
    assert fleet.state("waits") == "Starting"
    assert fleet.state("runs") == "Running"


def test_absence_of_another_time_is_no_lost_start(fleet: Any) -> None:
    """A cell that had not begun the launch when it last spoke may have begun it since: it is not stopped for that."""
    fleet.job("job")
    fleet.plane.tick()
    (launch,) = fleet.plane.gateway.desired("local").launches
    fleet.plane.gateway.report("local", fleet.cell.nodes, [LaunchStatus(launch.uid, launch.epoch, Phase.ABSENT)])
    fleet.plane.tick()
    fleet.cell.start(launch)
    fleet.advance(300)
    fleet.plane = fleet.new_plane()
    fleet.plane.tick()
    assert fleet.state("job") == "Admitted"
    fleet.settle(3)
    assert (fleet.state("job"), fleet.status("job")["epoch"]) == ("Starting", 1)


@pytest.mark.parametrize(("phase", "state"), [(Phase.SUCCEEDED, "Succeeded"), (Phase.FAILED, "Failed")])
def test_end_that_was_said_before_the_leader_died_counts(fleet: Any, phase: Phase, state: str) -> None:
    """A persisted exit is true whenever it was said: the cell need not live to say it again."""
    fleet.job("job", retry={"maxRetries": 0})
    fleet.cell.end(fleet.running("job"), phase, "Error" if phase is Phase.FAILED else "")
    fleet.cell.step(fleet.plane.gateway)
    fleet.advance(3600)
    fleet.plane = fleet.new_plane()
    fleet.plane.tick()
    assert fleet.state("job") == state


def test_start_that_a_cell_refuses_for_its_epoch_takes_no_retry(fleet: Any) -> None:
    """After a restore, epochs are behind what the cell has seen: the job catches up, whatever its retries are."""
    fleet.job("job", retry={"maxRetries": 0})
    fleet.end("job", Phase.FAILED, "Fenced")
    assert fleet.state("job") in {"Admitted", "Starting"}
    assert fleet.status("job")["failures"] == 0


def test_exit_that_the_cell_has_of_an_epoch_ahead_is_the_end_of_the_job(make_fleet: Callable[..., Any]) -> None:
    """A backup that is older than a job's success: the job comes to that epoch, and its exit is found there."""
    fleet = make_fleet()
    record = fleet.job("job")
    for epoch in (1, 2, 3):
        fleet.cell.statuses[record.uid, epoch] = LaunchStatus(record.uid, epoch, Phase.FAILED, "Fenced")
    fleet.cell.statuses[record.uid, 3] = LaunchStatus(record.uid, 3, Phase.SUCCEEDED, outputs={"checkpoint": "/c"})
    fleet.cell.highest[record.uid] = 9
    fleet.settle(12)
    assert (fleet.state("job"), fleet.status("job")["outputs"]) == ("Succeeded", {"checkpoint": "/c"})
    assert not fleet.cell.starts


def restored(fleet: Any, name: str) -> None:
    """Make the store forget what became of a job since it was queued, as a backup from before does."""
    record = fleet.store.get("Job", name)
    kept = {"state": "Queued", "reason": "Queued", "message": ""}
    kept |= {key: record.status[key] for key in ("submittedAt", "queuedAt")}
    fleet.store.save(replace(record, status=kept))
    fleet.advance(3600)
    fleet.plane = fleet.new_plane()


def test_job_that_lives_on_after_a_restore_starts_nowhere_else_meanwhile(make_fleet: Callable[..., Any]) -> None:
    """A backup that does not know of a launch: no place before cells have reported, nor until it is over."""
    fleet = make_fleet({"name": "east"}, {"name": "west"})
    fleet.job("job")
    fleet.running("job")
    east, west = fleet.cells["east"], fleet.cells["west"]
    east.slow_stop = True
    restored(fleet, "job")
    fleet.plane.tick()
    west.step(fleet.plane.gateway)
    fleet.plane.tick()
    assert fleet.state("job") == "Queued"
    key = east.key("job")
    for _ in range(3):
        fleet.plane.gateway.report("east", east.nodes, [east.status(key)])
        fleet.plane.tick()
        west.step(fleet.plane.gateway)
    assert (fleet.state("job"), fleet.status("job")["reason"]) == ("Queued", "StillAlive")
    assert fleet.plane.explain("job")["message"] == "an earlier launch of it is being stopped on cell east"
    assert [stop.uid for stop in fleet.plane.gateway.desired("east").stops] == [key[0]]
    east.slow_stop = False
    fleet.settle(4)
    assert fleet.state("job") in {"Admitted", "Starting"}
    assert not east.violations
    assert not west.violations


def test_cell_that_never_reports_again_holds_up_the_others_for_a_moment_only(make_fleet: Callable[..., Any]) -> None:
    """After a long absence of all leaders, a cell that died meanwhile is given the time after which it is silent."""
    fleet = make_fleet({"name": "east"}, {"name": "west"})
    del fleet.cells["east"]
    fleet.advance(3600)
    fleet.plane = fleet.new_plane()
    fleet.job("job")
    fleet.settle(3)
    assert fleet.state("job") == "Queued"
    fleet.advance(21)
    fleet.settle(3)
    assert (fleet.state("job"), fleet.state("east", "Cell")) == ("Starting", "Unknown")
