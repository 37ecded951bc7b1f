"""A control plane with nothing to do does nothing: what is past is not due again and again."""

from collections.abc import Callable
from typing import Any

import pytest

from helios.control import request_cancel, request_delete
from helios.control.index import Index
from helios.control.reconciling import Reconciler
from helios.errors import ConflictError
from helios.ports import Phase
from helios.store import Mirror


def at_rest(fleet: Any, rounds: int = 8) -> None:
    """Nothing is dirty, and the next thing that is due lies ahead."""
    for _ in range(rounds):
        fleet.plane.tick()
    assert not fleet.plane._index.has_dirty()
    assert fleet.plane._watcher.next_due() > fleet.clock.now()
    assert fleet.plane._pause() > 0


def test_cell_that_was_held_off_is_not_due_again_when_it_still_has_no_room(fleet: Any) -> None:
    """A gang whose cell may be asked again, and is full, waits for room without being looked at all the time."""
    fleet.job("first")
    fleet.end("first", Phase.FAILED, "CapacityError")
    fleet.job("other", workers=2, priority=9)
    fleet.settle(2)
    fleet.advance(600)
    fleet.settle(2)
    assert (fleet.state("first"), fleet.status("first")["reason"]) == ("Recovering", "WaitingForCapacity")
    at_rest(fleet)


def test_run_timeout_is_not_due_again_while_the_cell_takes_its_time_to_stop(fleet: Any) -> None:
    """A job that is being stopped for its timeout is looked at when its cell says something, not before."""
    fleet.job("long", timeout={"run": "60s"})
    fleet.running("long")
    fleet.cell.slow_stop = True
    fleet.advance(61)
    fleet.settle(2)
    assert fleet.status("long")["stop"]["reason"] == "RunTimeout"
    at_rest(fleet)


@pytest.mark.parametrize("late", [0.0, 1e-7, 0.5])
def test_timeouts_are_kept_at_the_very_moment_at_which_they_are_due(fleet: Any, late: float) -> None:
    """What is looked at when it is due is found to be due; it does not wait for another look."""
    fleet.clock.time += 0.123
    fleet.job("waits", workers=3, timeout={"queue": "60s"})
    fleet.settle(1)
    fleet.clock.time += 0.4567
    fleet.job("runs", timeout={"run": "60s"})
    fleet.running("runs")
    due = fleet.plane._watcher._due["Job", "runs"]
    fleet.clock.time = fleet.plane._watcher._due["Job", "waits"] + late
    fleet.plane.tick()
    assert fleet.status("waits")["reason"] == "QueueTimeout"
    fleet.clock.time = max(fleet.clock.time, due + late)
    fleet.plane.tick()
    assert fleet.status("runs")["stop"]["reason"] == "RunTimeout"


def test_array_whose_members_have_a_timeout_is_not_due_itself(make_fleet: Callable[..., Any]) -> None:
    """The run timeout is that of each member; an array that takes longer in all is left to go on."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("sweep", array={"size": 2, "parallelism": 1}, timeout={"run": "60s"})
    fleet.end("sweep-0")
    fleet.advance(120)
    fleet.settle(4)
    assert fleet.state("sweep") == "Running"
    at_rest(fleet)


def test_schedule_that_was_cancelled_has_no_next_time(make_fleet: Callable[..., Any]) -> None:
    """A cancelled schedule is over, at each of its times too."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("nightly", schedule={"cron": "*/10 * * * *"})
    fleet.settle(2)
    request_cancel(fleet.store, "Job", "nightly")
    fleet.settle(2)
    assert fleet.state("nightly") == "Cancelled"
    fleet.advance(1200)
    at_rest(fleet)


def test_failed_service_that_is_being_stopped_is_not_due_for_its_retry(fleet: Any) -> None:
    """A retry that is due while its cell takes the service down is none."""
    fleet.service()
    fleet.settle(2)
    fleet.cell.end(fleet.cell.key("avatar"), Phase.FAILED, "DeployFailed")
    fleet.settle(2)
    request_delete(fleet.store, "Service", "avatar")
    fleet.plane.tick()
    assert fleet.status("avatar", "Service")["stop"]["reason"] == "Deleted"
    fleet.advance(600)
    at_rest(fleet)


def test_record_that_everybody_writes_is_tried_again_after_a_while(
    make_fleet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that loses its race every time is told of, and does not keep the loop from resting."""
    fleet = make_fleet()

    def lost(_self: Any, _machine: Any, _spec: Any) -> None:
        raise ConflictError("somebody is always faster")

    fleet.job("other")
    with monkeypatch.context() as patched:
        patched.setattr(Reconciler, "_maker", lost)
        fleet.job("sweep", array={"size": 1})
        fleet.settle(20)
        at_rest(fleet)
    assert fleet.reasons("sweep").count("ControllerError") == 1
    assert fleet.state("other") == "Starting"
    fleet.advance(6)
    fleet.settle(3)
    assert fleet.state("sweep") == "Running"


def test_what_is_remembered_of_work_goes_when_it_is_over(fleet: Any) -> None:
    """A thousand finished jobs do not slow down what is written of the one that runs, nor stay in memory."""
    observer = fleet.plane._observer
    for number in range(3):
        fleet.job(f"job-{number}")
        key = fleet.running(f"job-{number}")
        fleet.cell.run(key, step=1)
        fleet.settle(2)
        fleet.cell.end(key, Phase.SUCCEEDED)
        fleet.settle(2)
    assert not observer._settled
    assert not observer._progress_at


def test_what_is_remembered_of_objects_that_were_replaced_goes_too(fleet: Any) -> None:
    """A job that took the place of another one of its name leaves nothing of the other behind."""
    old = fleet.job("job")
    fleet.end("job")
    fleet.job("job", priority=1)
    fleet.settle(2)
    fleet.advance(301)
    fleet.settle(2)
    assert old.uid not in fleet.plane._specs._parsed
    assert old.uid not in fleet.plane._writes._told


def test_deadlines_that_moved_leave_nothing_behind(fleet: Any) -> None:
    """A deadline that is set ten thousand times is one deadline."""
    watcher = fleet.plane._watcher
    for number in range(10_000):
        watcher.look_at("Job", "job", fleet.clock.now() + 1000 + number)
        watcher.schedule_at(fleet.clock.now() + 1000)
    assert len(watcher._heap) < 2_000
    assert len(watcher._scheduling) == 1


def test_names_that_nobody_needs_any_more_are_forgotten(fleet: Any) -> None:
    """The index keeps no trace of relations whose ends are gone."""
    index = fleet.plane._index
    fleet.job("data")
    fleet.end("data")
    fleet.job("train", needs=["data"])
    fleet.end("train")
    for name in ("train", "data"):
        request_delete(fleet.store, "Job", name)
    fleet.settle(4)
    assert fleet.store.records("Job") == ()
    assert not index._needed_by
    assert not index._owned


def test_index_follows_a_store_that_went_back_to_a_backup(fleet: Any) -> None:
    """Versions that are lower than those known are the truth after a restore, and are taken in as such."""
    mirror = Mirror(fleet.store)
    mirror.sync()
    index = Index(mirror)
    record = fleet.store.save(fleet.job("job").with_status(state="Pending"))
    mirror.sync()
    older = fleet.store.save(record.with_status(state="Queued", submittedAt="2030-01-01T00:00:00.000Z"))
    mirror.sync()
    index._take_in([record])
    index._take_in([older])
    index._take_in([record])
    assert index._known["Job", "job"] == record
    assert not index.snapshot(0.0).pending
