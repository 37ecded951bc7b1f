"""A job's way from acceptance to its end, with a cell that fails on the way."""

from typing import Any

import pytest

from helios.control import request_cancel, request_delete, request_rerun
from helios.control.job_machine import JobMachine
from helios.errors import ConflictError, NotFoundError
from helios.lifecycle import ALLOWED, JobState
from helios.ports import LaunchStatus, Phase
from helios.store import Record


def test_job_goes_through_its_states_and_each_has_an_event(fleet: Any) -> None:
    """Pending, Queued, Admitted, Starting, Running, Succeeded: in this order, each with its reason."""
    fleet.job()
    fleet.end("job", checkpoint="/bundle")
    assert fleet.state("job") == "Succeeded"
    assert fleet.status("job")["outputs"] == {"checkpoint": "/bundle"}
    assert fleet.reasons("job") == ["Accepted", "Queued", "Admitted", "Starting", "Running", "Completed"]


def test_intent_is_written_before_anything_starts(fleet: Any) -> None:
    """Placement and epoch are in the store after the tick, when the cell has heard nothing yet."""
    fleet.job()
    fleet.plane.tick()
    status = fleet.status("job")
    assert (status["state"], status["epoch"], status["placement"]["cell"]) == ("Admitted", 1, "local")
    assert not fleet.cell.launches
    (launch,) = fleet.plane.gateway.desired("local").launches
    assert (launch.kind, launch.name, launch.epoch, launch.workers, launch.nodes) == ("Job", "job", 1, 1, ("local-0",))


def test_progress_is_shown_while_it_runs(fleet: Any) -> None:
    """What the job reports is in its status."""
    fleet.job()
    key = fleet.running("job")
    fleet.cell.run(key, step=7)
    fleet.settle(1)
    assert fleet.status("job")["progress"] == {"step": 7}


def test_lost_engine_is_confirmed_then_the_job_goes_on_under_the_next_epoch(fleet: Any) -> None:
    """Absent once is not enough: the launch is stopped first, and only a second look lets it start again."""
    fleet.job()
    fleet.running("job")
    fleet.cell.lose_engine()
    fleet.cell.step(fleet.plane.gateway)
    fleet.plane.tick()
    status = fleet.status("job")
    assert (status["state"], status["reason"], status["epoch"]) == ("Recovering", "EngineLost", 1)
    assert status["placement"]["cell"] == "local"
    fleet.running("job")
    status = fleet.status("job")
    assert (status["state"], status["epoch"], status["restarts"]) == ("Running", 2, 1)


def test_start_that_was_lost_before_anybody_saw_it_is_made_again(fleet: Any) -> None:
    """The cell started it and lost it at once; it says absent for ever, and a new epoch gets the job going."""
    fleet.job()
    fleet.plane.tick()
    fleet.cell.step(fleet.plane.gateway, lost=True)
    fleet.cell.lose_engine()
    fleet.settle()
    assert (fleet.state("job"), fleet.cell.starts["job"]) == ("Admitted", 1)
    fleet.advance(61)
    fleet.settle()
    assert fleet.running("job")[1] == 2
    assert "StartLost" in fleet.reasons("job")
    assert (fleet.status("job")["restarts"], fleet.status("job")["failures"]) == (1, 0)


def test_exit_that_turns_up_while_recovering_wins(fleet: Any) -> None:
    """The engine forgot the job, but its exit was persisted: it is not run again."""
    fleet.job()
    key = fleet.running("job")
    fleet.cell.lose_engine()
    fleet.cell.step(fleet.plane.gateway)
    fleet.plane.tick()
    assert fleet.state("job") == "Recovering"
    fleet.cell.end(key, Phase.SUCCEEDED)
    fleet.settle()
    assert fleet.state("job") == "Succeeded"
    assert fleet.cell.starts["job"] == 1


@pytest.mark.parametrize("reason", ["InvalidConfig", "NoSpace", "RetriesSpent", "SecretUnreadable"])
def test_reasons_that_a_restart_cannot_cure_are_not_retried(fleet: Any, reason: str) -> None:
    """Exit 64, 28, 70 and a secret that cannot be read end the job at once, whatever retries are left."""
    fleet.job(retry={"maxRetries": 5})
    fleet.end("job", Phase.FAILED, reason)
    assert (fleet.state("job"), fleet.status("job")["reason"]) == ("Failed", reason)
    assert fleet.cell.starts["job"] == 1


def test_retries_are_counted_and_end(fleet: Any) -> None:
    """`maxRetries` restarts, each with a higher epoch, then Failed with the last reason and how often it was tried."""
    fleet.job(retry={"maxRetries": 2})
    for epoch in (1, 2, 3):
        assert fleet.running("job")[1] == epoch
        fleet.end("job", Phase.FAILED, "Error")
    status = fleet.status("job")
    assert (status["state"], status["reason"], status["restarts"]) == ("Failed", "Error", 2)
    assert "restarted 2 times; retry.maxRetries is 2" in status["message"]
    assert fleet.cell.starts["job"] == 3


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (Phase.FAILED, "EngineLost"),
        (Phase.STOPPED, "Preempted"),
        (Phase.STOPPED, "Stopped"),
        (Phase.STOPPED, "Error"),  # what a program without a handler makes of SIGTERM
    ],
)
def test_ends_that_are_not_the_programs_fault_take_no_retry(fleet: Any, phase: Phase, reason: str) -> None:
    """A job without a single retry outlives its engine and a stop of the cell; restarts are counted all the same."""
    fleet.job(retry={"maxRetries": 0})
    for _ in range(3):
        fleet.end("job", phase, reason)
    assert fleet.running("job")[1] == 4
    assert (fleet.status("job")["restarts"], fleet.status("job")["failures"]) == (3, 0)


def test_restarts_of_whatever_kind_end_some_day(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that takes its engine down with it each time is given up, and says so."""
    monkeypatch.setattr("helios.lifecycle.MAX_RESTARTS", 2)
    fleet.job(retry={"maxRetries": 0})
    for _ in range(3):
        fleet.end("job", Phase.FAILED, "EngineLost")
    assert fleet.state("job") == "Failed"
    assert "the most there is" in fleet.status("job")["message"]


@pytest.mark.parametrize("reason", ["Preempted", "Reclaimed", "Resized", "Defragmented"])
def test_stops_of_the_scheduler_end_no_job(fleet: Any, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """They are counted and shown, and do not bring the job nearer to being given up."""
    monkeypatch.setattr("helios.lifecycle.MAX_RESTARTS", 1)
    fleet.job(retry={"maxRetries": 0})
    for _ in range(3):
        fleet.end("job", Phase.STOPPED, reason)
    fleet.end("job", Phase.FAILED, "EngineLost")
    assert fleet.running("job")[1] == 5
    assert fleet.status("job")["restartReasons"] == {reason: 3, "EngineLost": 1}
    fleet.end("job", Phase.FAILED, "EngineLost")
    assert fleet.state("job") == "Failed"


def test_report_that_comes_twice_counts_once(fleet: Any) -> None:
    """A duplicated report of a failure takes one retry, not two."""
    fleet.job()
    fleet.cell.end(fleet.running("job"), Phase.FAILED, "Error")
    fleet.cell.step(fleet.plane.gateway, twice=True)
    fleet.plane.tick()
    assert fleet.status("job")["restarts"] == 1


def test_late_report_of_an_old_epoch_is_ignored(fleet: Any) -> None:
    """What is said of epoch 1 moves nothing once epoch 2 is admitted."""
    fleet.job()
    uid, _ = fleet.running("job")
    fleet.end("job", Phase.FAILED, "Error")
    fleet.running("job")
    for phase in (Phase.FAILED, Phase.ABSENT, Phase.STOPPED, Phase.SUCCEEDED):
        fleet.plane.gateway.report("local", fleet.cell.nodes, [LaunchStatus(uid, 1, phase)])
        fleet.plane.tick()
    assert (fleet.state("job"), fleet.status("job")["epoch"]) == ("Running", 2)


def test_launch_that_was_replaced_is_stopped_where_it_still_lives(fleet: Any) -> None:
    """A cell that tells of a live launch that nobody wants is told to stop it."""
    uid, _ = ("00000000-0000-0000-0000-000000000000", 4)
    fleet.plane.gateway.report("local", fleet.cell.nodes, [LaunchStatus(uid, 4, Phase.RUNNING)])
    (stop,) = fleet.plane.gateway.desired("local").stops
    assert (stop.uid, stop.epoch, stop.reason) == (uid, 4, "Superseded")


def test_silence_is_a_condition_and_touches_nothing(fleet: Any) -> None:
    """A cell that is silent for ten minutes is Unknown; its job stays Running and is told to nobody else."""
    fleet.job()
    fleet.running("job")
    fleet.advance(31)
    fleet.plane.tick()
    assert fleet.status("local", "Cell")["state"] == "Unknown"
    fleet.advance(600)
    fleet.plane.tick()
    assert (fleet.state("job"), fleet.status("job")["epoch"]) == ("Running", 1)
    fleet.settle(2)
    assert fleet.status("local", "Cell")["state"] == "Ready"
    assert fleet.cell.starts["job"] == 1


def test_engine_that_cannot_be_seen_is_a_condition_too(fleet: Any) -> None:
    """Phase Unknown from the cell leaves the state alone and shows as condition Reachable=Unknown."""
    fleet.job()
    uid, epoch = fleet.running("job")
    fleet.plane.gateway.report("local", None, [LaunchStatus(uid, epoch, Phase.UNKNOWN)])
    fleet.plane.tick()
    assert fleet.state("job") == "Running"
    (condition,) = fleet.status("job")["conditions"]
    assert (condition["type"], condition["status"]) == ("Reachable", "Unknown")
    assert fleet.status("local", "Cell")["state"] == "NotReady"
    fleet.settle(2)
    assert fleet.status("job")["conditions"][0]["status"] == "True"


def test_cancel_frees_the_gang_only_when_the_cell_says_it_is_over(fleet: Any) -> None:
    """While the job uses its grace, its resources are held and the next job waits."""
    fleet.job("first", resources={"cpus": 2})
    fleet.running("first")
    fleet.job("second", resources={"cpus": 2})
    fleet.cell.slow_stop = True
    request_cancel(fleet.store, "Job", "first")
    fleet.settle()
    assert (fleet.state("first"), fleet.state("second")) == ("Running", "Queued")
    desired = fleet.plane.gateway.desired("local")
    assert (desired.launches, [stop.grace_s for stop in desired.stops]) == ((), [30])
    fleet.cell.slow_stop = False
    fleet.running("second")
    assert (fleet.state("first"), fleet.state("second")) == ("Cancelled", "Running")


def test_cancel_in_the_queue_is_immediate(fleet: Any) -> None:
    """What never started is cancelled without asking a cell."""
    fleet.job(resources={"accelerators": "H100:8"})
    fleet.settle(1)
    request_cancel(fleet.store, "Job", "job")
    fleet.plane.tick()
    assert fleet.state("job") == "Cancelled"


def test_success_during_a_cancel_is_success(fleet: Any) -> None:
    """The work was done before the stop came through."""
    fleet.job()
    key = fleet.running("job")
    request_cancel(fleet.store, "Job", "job")
    fleet.plane.tick()
    fleet.cell.end(key, Phase.SUCCEEDED)
    fleet.settle(2)
    assert fleet.state("job") == "Succeeded"


def test_delete_cancels_then_removes(fleet: Any) -> None:
    """The record goes when the cell has let go of the work, not before."""
    fleet.job()
    fleet.running("job")
    fleet.cell.slow_stop = True
    request_delete(fleet.store, "Job", "job")
    fleet.settle(2)
    assert fleet.store.get("Job", "job").deleting
    fleet.cell.slow_stop = False
    fleet.settle(3)
    assert fleet.store.find("Job", "job") is None
    assert not fleet.cell.live()


def test_rerun_goes_on_with_the_same_object(fleet: Any) -> None:
    """A failed job that is asked for again keeps its uid, so that it finds its checkpoints; its retries start anew."""
    fleet.job(retry={"maxRetries": 0})
    fleet.end("job", Phase.FAILED, "Error")
    uid = fleet.store.get("Job", "job").uid
    request_rerun(fleet.store, "job", kind="Job")
    fleet.end("job")
    record = fleet.store.get("Job", "job")
    assert (record.state, record.uid, record.status["epoch"], record.status["restarts"]) == ("Succeeded", uid, 2, 0)


def test_finished_job_is_not_run_again_on_request(fleet: Any) -> None:
    """Asking for a rerun of what succeeded is refused, and so is one of what still runs."""
    fleet.job()
    with pytest.raises(ConflictError, match="is Queued"):
        request_rerun(fleet.store, "job", kind="Job")
    fleet.end("job")
    with pytest.raises(ConflictError, match="has succeeded"):
        request_rerun(fleet.store, "job", kind="Job")


def test_same_job_again_changes_nothing_and_another_spec_begins_a_new_object(fleet: Any) -> None:
    """A finished job stays finished; only a changed spec is new work, with a new uid."""
    first = fleet.job()
    fleet.end("job")
    assert fleet.job().uid == first.uid
    fleet.settle()
    assert fleet.cell.starts["job"] == 1
    second = fleet.job(priority=5)
    assert second.uid != first.uid
    fleet.settle()
    assert fleet.cell.starts["job"] == 2


def test_timeouts_end_the_wait_and_the_run(fleet: Any) -> None:
    """`timeout.queue` and `timeout.run` fail the job with their own reasons; the second stops it with grace first."""
    fleet.job("waits", resources={"accelerators": "H100:8"}, timeout={"queue": "1m"})
    fleet.job("runs", timeout={"run": "1m"})
    fleet.running("runs")
    fleet.advance(61)
    fleet.settle(3)
    assert fleet.status("waits")["reason"] == "QueueTimeout"
    assert (fleet.state("runs"), fleet.status("runs")["reason"]) == ("Failed", "RunTimeout")


def test_request_for_what_is_not_there_names_the_nearest(fleet: Any) -> None:
    """A typo in a name is answered with the name that was probably meant."""
    fleet.job("training")
    with pytest.raises(NotFoundError, match="did you mean 'training'"):
        request_cancel(fleet.store, "Job", "trainin")
    with pytest.raises(ConflictError, match="cannot be cancelled"):
        request_cancel(fleet.store, "Service", "avatar")


def test_states_that_are_over_are_left_only_by_a_rerun() -> None:
    """Succeeded has no way out at all; what only made other jobs begins again by making them."""
    assert not ALLOWED[JobState.SUCCEEDED]
    assert (
        ALLOWED[JobState.FAILED]
        == ALLOWED[JobState.CANCELLED]
        == {
            JobState.PENDING,
            JobState.QUEUED,
            JobState.RUNNING,
        }
    )
    machine = JobMachine(Record("Job", "job", status={"state": "Succeeded"}), 0.0)
    with pytest.raises(AssertionError, match="no transition Succeeded -> Failed"):
        machine.fail("Error", "")
