"""What people ask for at odd moments: of what waits for others, of what just ended, of what a dead cell holds."""

from collections.abc import Callable
from typing import Any

import pytest

from helios.control import request_cancel, request_delete, request_drain, request_preempt, request_rerun
from helios.ports import NodeObservation, Phase
from helios.store import Record
from helios.store.records import STOP_FINALIZER


def test_rerun_of_a_job_that_never_left_pending_waits_for_its_needs_again(fleet: Any) -> None:
    """Cancelled before what it needs had succeeded and run again, it waits for that, and holds up nobody."""
    fleet.job("data")
    fleet.job("train", needs=["data"])
    fleet.settle(1)
    request_cancel(fleet.store, "Job", "train")
    fleet.settle(1)
    assert fleet.state("train") == "Cancelled"
    request_rerun(fleet.store, "train", kind="Job")
    fleet.settle(2)
    assert (fleet.state("train"), fleet.status("train")["reason"]) == ("Pending", "WaitsForJob")
    fleet.end("data")
    fleet.end("train")
    assert fleet.state("train") == "Succeeded"


def test_record_that_the_scheduler_cannot_read_holds_up_nobody(make_fleet: Callable[..., Any]) -> None:
    """A job whose stored form lacks what the scheduler looks at is told of; all others go on, after a restart too."""
    fleet = make_fleet()
    broken = fleet.job("broken")
    spec = {key: value for key, value in broken.spec.items() if key != "qos"}
    fleet.store.save(Record("Job", "broken", broken.uid, resource_version=broken.resource_version, spec=spec,
                            status={"state": "Queued"}, finalizers=(STOP_FINALIZER,)))  # fmt: skip
    fleet.job("fine")
    fleet.end("fine")
    assert fleet.state("fine") == "Succeeded"
    assert fleet.reasons("broken").count("ControllerError") == 1
    fleet.restart()
    fleet.job("later")
    fleet.end("later")
    assert fleet.state("later") == "Succeeded"


def test_array_waits_for_the_jobs_that_it_needs(make_fleet: Callable[..., Any]) -> None:
    """No member is made before what the array needs has succeeded."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("data")
    fleet.job("sweep", array={"size": 2}, needs=["data"])
    fleet.settle(3)
    assert (fleet.state("sweep"), fleet.status("sweep")["reason"]) == ("Pending", "WaitsForJob")
    assert sorted(fleet.cell.starts) == ["data"]
    fleet.end("data")
    fleet.settle(3)
    assert sorted(fleet.cell.starts) == ["data", "sweep-0", "sweep-1"]


def test_job_that_needs_an_array_waits_for_all_of_it(make_fleet: Callable[..., Any]) -> None:
    """An array has succeeded when its members have, and only then goes on what needs it."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("sweep", array={"size": 2})
    fleet.job("after", needs=["sweep"])
    fleet.end("sweep-0")
    assert fleet.state("after") == "Pending"
    fleet.end("sweep-1")
    fleet.settle(3)
    assert fleet.state("after") == "Starting"


def test_array_with_another_spec_takes_the_place_of_the_old_one(make_fleet: Callable[..., Any]) -> None:
    """An array that is over and is applied with another spec makes new members; the old ones go first."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("sweep", array={"size": 3})
    for number in range(3):
        fleet.end(f"sweep-{number}")
    assert fleet.state("sweep") == "Succeeded"
    before = {job.uid for job in fleet.store.records("Job")}
    fleet.job("sweep", array={"size": 2}, priority=1)
    fleet.settle(6)
    now = fleet.store.records("Job")
    assert sorted(job.name for job in now) == ["sweep", "sweep-0", "sweep-1"]
    assert not before & {job.uid for job in now}
    for key in fleet.cell.live():
        fleet.cell.end(key, Phase.SUCCEEDED)
    fleet.settle(3)
    assert fleet.state("sweep") == "Succeeded"
    request_delete(fleet.store, "Job", "sweep")
    fleet.settle(6)
    assert fleet.store.records("Job") == ()


def test_member_that_somebody_deleted_is_not_made_again(make_fleet: Callable[..., Any]) -> None:
    """What a member finished is not run a second time because the member was deleted afterwards."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("sweep", array={"size": 2})
    fleet.end("sweep-0")
    request_delete(fleet.store, "Job", "sweep-0")
    fleet.settle(4)
    assert fleet.store.find("Job", "sweep-0") is None
    fleet.end("sweep-1")
    assert fleet.cell.starts == {"sweep-0": 1, "sweep-1": 1}
    assert fleet.state("sweep") == "Cancelled"
    assert "1 of 2 members had succeeded" in fleet.status("sweep")["message"]


@pytest.mark.parametrize("body", [{"array": {"size": 1}}, {"schedule": {"cron": "*/10 * * * *"}}])
def test_label_alone_makes_nobody_a_part_of_what_is_deleted(make_fleet: Callable[..., Any], body: Any) -> None:
    """A job that carries the label of an array or schedule neither goes with it nor holds it up."""
    fleet = make_fleet({"cpus": 8})
    kind = next(iter(body))
    fleet.apply(
        f"{{kind: Job, metadata: {{name: mine, labels: {{helios/{kind}: maker}}}}, spec: {{entrypoint: 'true'}}}}"
    )
    fleet.job("maker", **body)
    fleet.settle(3)
    request_delete(fleet.store, "Job", "maker")
    fleet.settle(8)
    assert [job.name for job in fleet.store.records("Job")] == ["mine"]
    assert not fleet.store.get("Job", "mine").deleting


def test_curriculum_that_is_deleted_takes_only_its_own_jobs_along(make_fleet: Callable[..., Any]) -> None:
    """A job of somebody else that carries its label stays."""
    fleet = make_fleet({"cpus": 8})
    fleet.apply("{kind: Job, metadata: {name: mine, labels: {helios/curriculum: tiny}}, spec: {entrypoint: 'true'}}")
    fleet.curriculum(stages=("one",))
    fleet.settle(3)
    request_delete(fleet.store, "Curriculum", "tiny")
    fleet.settle(8)
    assert fleet.store.find("Curriculum", "tiny") is None
    assert [job.name for job in fleet.store.records("Job")] == ["mine"]
    assert not fleet.store.get("Job", "mine").deleting


def test_array_that_carries_the_label_of_a_curriculum_still_has_its_members(make_fleet: Callable[..., Any]) -> None:
    """Members inherit its labels, and are its members all the same."""
    fleet = make_fleet({"cpus": 8})
    fleet.apply("{kind: Job, metadata: {name: sweep, labels: {helios/curriculum: other, helios/schedule: another}}, "
                "spec: {entrypoint: 'true', array: {size: 2}}}")  # fmt: skip
    fleet.settle(4)
    assert fleet.state("sweep") == "Running"
    assert sorted(fleet.cell.starts) == ["sweep-0", "sweep-1"]


def test_request_to_preempt_what_just_ended_takes_nothing_from_its_next_start(fleet: Any) -> None:
    """The launch that was meant is over: the next one runs on."""
    fleet.job("job")
    key = fleet.running("job")
    fleet.cell.end(key, Phase.FAILED, "Error")
    fleet.cell.step(fleet.plane.gateway)
    request_preempt(fleet.store, "job")
    fleet.settle(4)
    assert (fleet.state("job"), fleet.status("job")["epoch"]) == ("Starting", 2)
    assert not fleet.status("job").get("preemptRequested")


def test_lost_node_cuts_the_grace_of_its_gang_short(make_fleet: Callable[..., Any]) -> None:
    """A gang that has lost a node writes no checkpoint any more: what is left of it is ended at once."""
    fleet = make_fleet({"nodes": 3})
    fleet.job("gang", workers=4, checkpoint={"grace": "1h"})
    fleet.running("gang")
    fleet.cell.slow_stop = True
    request_preempt(fleet.store, "gang")
    fleet.settle(2)
    assert fleet.status("gang")["stop"]["grace"] == 3600
    held = fleet.status("gang")["placement"]["nodes"][0]
    fleet.cell.nodes = [
        NodeObservation(node.name, node.pool, node.cpus, node.memory, healthy=node.name != held, lost=node.name == held)
        for node in fleet.cell.nodes
    ]
    fleet.settle(2)
    stop = fleet.status("gang")["stop"]
    assert (stop["grace"], stop["reason"]) == (0.0, "Preempted")
    assert fleet.plane.gateway.desired("local").stops[0].grace_s == 0.0


def test_jobs_of_a_cell_that_is_deleted_while_it_is_silent_end_and_may_be_run_again(
    make_fleet: Callable[..., Any],
) -> None:
    """Nobody will ever say that they are over: a person's word that the cell is gone ends them, and restarts none."""
    fleet = make_fleet({"name": "near"}, {"name": "far", "cpus": 8})
    fleet.job("job", placement={"cells": ["far"]})
    fleet.job("stopped", placement={"cells": ["far"]})
    fleet.service("avatar", placement={"cells": ["far"]})
    fleet.settle(3)
    far = fleet.cells.pop("far")
    request_cancel(fleet.store, "Job", "stopped")
    fleet.settle(2)
    fleet.advance(30)
    fleet.settle(2)
    assert fleet.state("far", "Cell") == "Unknown"
    assert {name: fleet.state(name) for name in ("job", "stopped")} == {"job": "Starting", "stopped": "Starting"}
    request_delete(fleet.store, "Cell", "far")
    fleet.settle(4)
    assert fleet.store.find("Cell", "far") is None
    assert (fleet.state("job"), fleet.status("job")["reason"]) == ("Failed", "CellDeleted")
    assert fleet.state("stopped") == "Cancelled"
    assert fleet.state("avatar", "Service") == "Pending"
    assert not list(fleet.store.allocations(open_only=True))
    assert far.starts["job"] == 1
    assert fleet.cells["near"].starts == {}


def test_cell_that_falls_silent_while_it_is_emptied_loses_nothing(fleet: Any) -> None:
    """A cell that was deleted and takes its time, and cannot be seen for a while, is only silent."""
    fleet.job("job")
    key = fleet.running("job")
    request_delete(fleet.store, "Cell", "local")
    fleet.plane.tick()
    fleet.advance(600)
    fleet.plane.tick()
    fleet.plane.tick()
    assert (fleet.state("local", "Cell"), fleet.state("job")) == ("Unknown", "Running")
    fleet.cell.end(key, Phase.SUCCEEDED)
    fleet.cell.step(fleet.plane.gateway)
    fleet.plane.tick()
    fleet.plane.tick()
    assert fleet.state("job") == "Succeeded"
    assert fleet.store.find("Cell", "local") is None


def test_cell_that_never_comes_back_from_being_emptied_is_let_go_of(fleet: Any) -> None:
    """Deleted, then silent for an hour: what it held ends, so that it can go."""
    fleet.job("job")
    fleet.running("job")
    request_delete(fleet.store, "Cell", "local")
    fleet.plane.tick()
    for _ in range(15):
        fleet.advance(301)
        fleet.plane.tick()
        fleet.plane.tick()
    assert (fleet.state("job"), fleet.status("job")["reason"]) == ("Failed", "CellDeleted")
    assert fleet.store.find("Cell", "local") is None


def test_service_on_the_only_node_waits_while_that_is_drained(fleet: Any) -> None:
    """It is taken down once, says why it waits, and comes back when the node is open again."""
    fleet.service()
    fleet.running("avatar")
    request_drain(fleet.store, "local")
    fleet.settle(10)
    assert (fleet.state("avatar", "Service"), fleet.status("avatar", "Service")["reason"]) == ("Pending", "NodesClosed")
    assert fleet.cell.starts["avatar"] == 1
