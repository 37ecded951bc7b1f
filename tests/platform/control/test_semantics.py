"""What a job may ask of the platform: arrays, schedules, needs, retries by reason, grace; and what cells do to it."""

from collections.abc import Callable
from typing import Any

import pytest

from helios.control import (
    request_cancel,
    request_cordon,
    request_delete,
    request_drain,
    request_preempt,
    request_rerun,
    request_uncordon,
)
from helios.errors import ConflictError, NotFoundError, SpecError
from helios.ports import HealthAction, HealthFinding, NodeObservation, Phase
from helios.store import seconds


def finish(fleet: Any, *names: str) -> None:
    """Bring jobs to life together and let them succeed."""
    fleet.settle(2)
    for name in names:
        fleet.cell.run(fleet.cell.key(name))
    fleet.settle(1)
    for name in names:
        fleet.cell.end(fleet.cell.key(name), Phase.SUCCEEDED)
    fleet.settle(3)


# Needs ----------------------------------------------------------------------------------------------------------------


def test_job_waits_for_the_jobs_that_it_needs(fleet: Any) -> None:
    """It is Pending with the name of the one it waits for, and is queued by itself when that has succeeded."""
    fleet.job("data")
    fleet.job("train", needs=["data"])
    fleet.settle(2)
    assert (fleet.state("train"), fleet.status("train")["reason"]) == ("Pending", "WaitsForJob")
    assert fleet.plane.explain("train")["unblock"] == ["wait until job data, now Starting, succeeds"]
    fleet.end("data")
    assert fleet.state("train") in {"Admitted", "Starting"}


def test_failed_dependency_leaves_the_job_pending_with_the_reason(fleet: Any) -> None:
    """What needs a failed job stays Pending, says so, and goes on when that is run again and succeeds."""
    fleet.job("data", retry={"maxRetries": 0})
    fleet.job("train", needs=["data"])
    fleet.end("data", Phase.FAILED, "Error")
    assert (fleet.state("train"), fleet.status("train")["reason"]) == ("Pending", "DependencyFailed")
    request_rerun(fleet.store, "data", kind="Job")
    fleet.settle(1)
    assert fleet.status("train")["reason"] == "WaitsForJob"
    fleet.end("data")
    assert fleet.state("train") in {"Admitted", "Starting"}


def test_needs_must_be_there_and_may_not_go_in_circles(fleet: Any) -> None:
    """An unknown job, itself, and a circle through others are refused at their field; nothing is written."""
    fleet.job("data")
    for needs, said in ((["dat"], "did you mean 'data'"), (["train"], "cannot wait for itself")):
        with pytest.raises(SpecError, match=rf"spec.needs\[0\].*{said}"):
            fleet.job("train", needs=needs)
    assert fleet.store.find("Job", "train") is None
    fleet.job("train", needs=["data"])
    request_cancel(fleet.store, "Job", "data")
    fleet.settle(2)
    with pytest.raises(SpecError, match="waits for this one"):
        fleet.job("data", needs=["train"], priority=1)


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_array_makes_its_members_and_ends_as_they_do(make_fleet: Callable[..., Any]) -> None:
    """Three members, each told its number; the array succeeds when all have, and holds no resources itself."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("sweep", array={"size": 3})
    finish(fleet, "sweep-0", "sweep-1", "sweep-2")
    assert (fleet.state("sweep"), fleet.status("sweep")["array"]["states"]) == ("Succeeded", {"Succeeded": 3})
    contexts = [fleet.cell.launches[fleet.cell.key(f"sweep-{number}")].context for number in range(3)]
    assert [context["HELIOS_ARRAY_INDEX"] for context in contexts] == ["0", "1", "2"]
    assert {context["HELIOS_ARRAY_SIZE"] for context in contexts} == {"3"}
    assert "sweep" not in fleet.cell.starts


def test_array_keeps_to_its_parallelism(make_fleet: Callable[..., Any]) -> None:
    """No more members than that are in the queue or run at a time; the next is made when one ends."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("sweep", array={"size": 4, "parallelism": 2})
    fleet.settle(2)
    assert sorted(fleet.cell.starts) == ["sweep-0", "sweep-1"]
    fleet.cell.end(fleet.cell.key("sweep-0"), Phase.SUCCEEDED)
    fleet.settle(4)
    assert sorted(fleet.cell.starts) == ["sweep-0", "sweep-1", "sweep-2"]


def test_failed_members_run_again_on_rerun_and_the_others_do_not(make_fleet: Callable[..., Any]) -> None:
    """The array fails with the number of its failed members; a rerun tries those alone."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("sweep", array={"size": 2}, retry={"maxRetries": 0})
    fleet.settle(2)
    fleet.cell.end(fleet.cell.key("sweep-0"), Phase.SUCCEEDED)
    fleet.cell.end(fleet.cell.key("sweep-1"), Phase.FAILED, "Error", "no data")
    fleet.settle(4)
    assert (fleet.state("sweep"), fleet.status("sweep")["reason"]) == ("Failed", "MembersFailed")
    assert "1 of 2 members failed: sweep-1: no data" in fleet.status("sweep")["message"]
    request_rerun(fleet.store, "sweep", kind="Job")
    fleet.settle(4)
    finish(fleet, "sweep-1")
    assert fleet.state("sweep") == "Succeeded"
    assert fleet.cell.starts["sweep-0"] == 1


def test_cancelled_array_takes_its_members_along_and_deletion_removes_them(make_fleet: Callable[..., Any]) -> None:
    """Cancel stops every member first; delete then leaves nothing of it."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("sweep", array={"size": 2})
    fleet.settle(3)
    request_cancel(fleet.store, "Job", "sweep")
    fleet.settle(6)
    assert [fleet.state(name) for name in ("sweep", "sweep-0", "sweep-1")] == ["Cancelled"] * 3
    request_delete(fleet.store, "Job", "sweep")
    fleet.settle(6)
    assert fleet.store.records("Job") == ()


def test_member_whose_name_is_taken_fails_the_array(make_fleet: Callable[..., Any]) -> None:
    """A job of another's is never taken for a member, nor touched."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("sweep-1", priority=7)
    fleet.job("sweep", array={"size": 2})
    fleet.settle(3)
    assert (fleet.state("sweep"), fleet.status("sweep")["reason"]) == ("Failed", "JobNameTaken")
    assert fleet.store.get("Job", "sweep-1").spec["priority"] == 7


# Schedules ------------------------------------------------------------------------------------------------------------


def test_schedule_makes_a_job_at_each_of_its_times(make_fleet: Callable[..., Any]) -> None:
    """Each run is a job of its own, named by when it was due; ended ones beyond `keep` go."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("nightly", schedule={"cron": "*/10 * * * *", "keep": 2})
    fleet.settle(1)
    assert fleet.state("nightly") == "Running"
    assert not fleet.store.records("Job", labels={"helios/schedule": "nightly"})
    for _ in range(4):
        fleet.advance(600)
        fleet.settle(2)
        (live,) = [name for name in fleet.cell.starts if fleet.state(name) != "Succeeded"]
        finish(fleet, live)
        gone = [name for name in fleet.cell.starts if fleet.store.find("Job", name) is None]
        for name in gone:
            del fleet.cell.starts[name]
    runs = fleet.store.records("Job", labels={"helios/schedule": "nightly"})
    assert [run.state for run in runs] == ["Succeeded", "Succeeded"]
    assert all(seconds(run.status["context"]["HELIOS_SCHEDULED_AT"]) % 600 == 0 for run in runs)


def test_run_is_left_out_while_the_one_before_goes_on(make_fleet: Callable[..., Any]) -> None:
    """With `Forbid` a due time is skipped and said; with `Replace` the old run is cancelled for the new one."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("strict", schedule={"cron": "*/10 * * * *"})
    fleet.job("fresh", schedule={"cron": "*/10 * * * *", "concurrency": "Replace"})
    fleet.settle(1)
    for _ in range(2):
        fleet.advance(600)
        fleet.settle(6)
    strict = fleet.store.records("Job", labels={"helios/schedule": "strict"})
    fresh = fleet.store.records("Job", labels={"helios/schedule": "fresh"})
    assert (len(strict), fleet.status("strict")["reason"]) == (1, "RunSkipped")
    assert [run.state for run in fresh] == ["Cancelled", "Starting"]


def test_times_missed_while_nobody_looked_are_made_up_for_once(make_fleet: Callable[..., Any]) -> None:
    """After a day of silence there is one run, of the last time that passed, and not a hundred."""
    fleet = make_fleet({"cpus": 8})
    fleet.job("nightly", schedule={"cron": "*/10 * * * *"})
    fleet.settle(1)
    fleet.advance(86_400)
    fleet.restart()
    fleet.settle(3)
    assert len(fleet.store.records("Job", labels={"helios/schedule": "nightly"})) == 1


def test_crontab_that_cannot_be_read_is_refused_at_its_field(fleet: Any) -> None:
    """Five fields that mean nothing are an error of spec.schedule.cron."""
    with pytest.raises(SpecError, match=r"spec.schedule.cron: cannot be read as crontab"):
        fleet.job("nightly", schedule={"cron": "99 3 * * *"})


# Retries --------------------------------------------------------------------------------------------------------------


def test_retries_are_counted_by_reason(fleet: Any) -> None:
    """A reason with a limit of its own leaves `maxRetries` alone, and the other way round."""
    fleet.job(retry={"maxRetries": 1, "byReason": {"WorkerLost": 2, "Killed": 0}})
    for reason in ("WorkerLost", "WorkerLost", "Error"):
        fleet.end("job", Phase.FAILED, reason)
        assert fleet.state("job") in {"Recovering", "Admitted", "Starting"}
    assert fleet.status("job")["restartReasons"] == {"WorkerLost": 2, "Error": 1}
    fleet.end("job", Phase.FAILED, "WorkerLost")
    assert fleet.state("job") == "Failed"
    assert "retry.byReason allows 2" in fleet.status("job")["message"]


def test_reason_with_limit_zero_is_the_end_at_once(fleet: Any) -> None:
    """`byReason: {Killed: 0}` gives up at the first kill, whatever maxRetries says."""
    fleet.job(retry={"maxRetries": 5, "byReason": {"Killed": 0}})
    fleet.end("job", Phase.FAILED, "Killed")
    assert fleet.state("job") == "Failed"


def test_cell_without_room_is_held_off_for_a_while(fleet: Any) -> None:
    """A capacity error costs no retry, and the job keeps its place; the cell is asked again seconds later."""
    fleet.job(retry={"maxRetries": 0})
    fleet.end("job", Phase.FAILED, "CapacityError")
    assert (fleet.state("job"), fleet.status("job")["reason"]) == ("Recovering", "CellHeldOff")
    assert fleet.status("job")["failures"] == 0
    assert fleet.plane.explain("job")["unblock"] == ["wait until cell local is asked again for capacity"]
    fleet.advance(6)
    fleet.settle(2)
    assert fleet.state("job") in {"Admitted", "Starting"}


def test_job_goes_to_another_cell_while_one_is_held_off(make_fleet: Callable[..., Any]) -> None:
    """What one cell has no room for starts on the other, at once."""
    fleet = make_fleet({"name": "one"}, {"name": "two"})
    fleet.job()
    fleet.settle(2)
    first = fleet.status("job")["placement"]["cell"]
    key = fleet.cells[first].key("job")
    fleet.cells[first].end(key, Phase.FAILED, "CapacityError")
    fleet.settle(3)
    assert fleet.status("job")["placement"]["cell"] != first


# Preemption, drains, lost nodes ---------------------------------------------------------------------------------------


def test_preempted_job_gets_its_grace_and_goes_back_to_the_queue(fleet: Any) -> None:
    """Notice with the grace that it asked for; then the gang is freed at once and the next epoch is given a place."""
    fleet.job(checkpoint={"grace": "2m"})
    key = fleet.running("job")
    request_preempt(fleet.store, "job")
    fleet.plane.tick()
    assert (fleet.state("job"), fleet.status("job")["reason"]) == ("Preempting", "Preempted")
    (stop,) = fleet.plane.gateway.desired("local").stops
    assert (stop.uid, stop.epoch, stop.grace_s) == (*key, 120.0)
    fleet.settle(3)
    assert fleet.status("job")["epoch"] == 2
    assert fleet.status("job")["restartReasons"] == {"Preempted": 1}
    assert fleet.status("job")["failures"] == 0


def test_preempting_what_holds_nothing_is_refused(fleet: Any) -> None:
    """A queued, an ended and an unknown job: each with its own sentence."""
    fleet.job("waits", resources={"cpus": 64})
    fleet.settle(1)
    with pytest.raises(ConflictError, match="is Queued and holds no resources"):
        request_preempt(fleet.store, "waits")
    with pytest.raises(NotFoundError):
        request_preempt(fleet.store, "nobody")


def test_cordoned_node_keeps_its_work_and_takes_no_more(make_fleet: Callable[..., Any]) -> None:
    """What runs stays; what is new waits, and says how many nodes are closed; uncordon opens it again."""
    fleet = make_fleet({"cpus": 4})
    fleet.job("first")
    key = fleet.running("first")
    request_cordon(fleet.store, "local", "local-0", "new driver")
    fleet.job("second")
    fleet.settle(3)
    assert key in fleet.cell.live()
    (verdict,) = fleet.plane.explain("second")["cells"]
    assert (verdict["reason"], verdict["rejected"]) == ("NodesClosed", {"Cordoned": 1})
    assert verdict["message"] == "it would fit if all nodes took work; of 1: 1 cordoned"
    assert fleet.plane.explain("second")["unblock"] == [
        "open cordoned nodes of cell local (helios cell uncordon local), or have unhealthy ones repaired"
    ]
    request_uncordon(fleet.store, "local", "local-0")
    fleet.settle(3)
    assert fleet.state("second") in {"Admitted", "Starting"}
    with pytest.raises(NotFoundError, match="did you mean 'local-0'"):
        request_cordon(fleet.store, "local", "local-9")


def test_drain_moves_the_work_to_another_node(make_fleet: Callable[..., Any]) -> None:
    """The job gets notice, leaves, and its next epoch is on the node that is not drained."""
    fleet = make_fleet({"nodes": 2})
    fleet.job()
    fleet.running("job")
    (before,) = fleet.status("job")["placement"]["nodes"]
    request_drain(fleet.store, "local", before, "maintenance")
    fleet.settle(4)
    (after,) = fleet.status("job")["placement"]["nodes"]
    assert after != before
    assert fleet.status("job")["restartReasons"] == {"Drained": 1}


def test_finding_that_asks_for_a_drain_moves_the_work_away(make_fleet: Callable[..., Any]) -> None:
    """A node whose agent found a fatal error is treated as a person would: nothing new, and its work moves."""
    fleet = make_fleet({"nodes": 2})
    fleet.job()
    fleet.running("job")
    (before,) = fleet.status("job")["placement"]["nodes"]
    finding = HealthFinding("XidFatal", HealthAction.DRAIN, "critical", "the GPU fell off the bus", "GPU-0")
    fleet.cell.nodes = [
        NodeObservation(node.name, node.pool, node.cpus, node.memory, healthy=node.name != before,
                        findings=(finding,) if node.name == before else ())
        for node in fleet.cell.nodes
    ]  # fmt: skip
    fleet.settle(4)
    assert fleet.status("job")["placement"]["nodes"] != [before]


def test_gang_of_a_lost_node_goes_on_elsewhere_under_the_next_epoch(make_fleet: Callable[..., Any]) -> None:
    """The node is known lost, the rest of the gang is ended without grace, and no retry is charged."""
    fleet = make_fleet({"nodes": 2})
    fleet.job(retry={"maxRetries": 0})
    fleet.running("job")
    (before,) = fleet.status("job")["placement"]["nodes"]
    fleet.cell.nodes = [
        NodeObservation(node.name, node.pool, node.cpus, node.memory, healthy=node.name != before,
                        lost=node.name == before)
        for node in fleet.cell.nodes
    ]  # fmt: skip
    fleet.settle(5)
    assert fleet.status("job")["placement"]["nodes"] != [before]
    assert fleet.status("job")["restartReasons"] == {"NodeLost": 1}


# Confirmed ends -------------------------------------------------------------------------------------------------------


def test_absent_confirms_a_stop_only_when_the_cell_knew_of_it(fleet: Any) -> None:
    """A report that was on its way when the stop was asked for frees nothing: the start may still come."""
    fleet.job()
    fleet.plane.tick()
    old = [fleet.cell.status((fleet.store.get("Job", "job").uid, 1))]
    assert old[0].phase is Phase.ABSENT
    request_cancel(fleet.store, "Job", "job")
    fleet.plane.tick()
    fleet.plane.gateway.report("local", fleet.cell.nodes, old)
    fleet.plane.tick()
    assert fleet.state("job") == "Admitted"
    fleet.settle(2)
    assert fleet.state("job") == "Cancelled"


def test_clock_that_is_off_is_a_condition_that_says_what_to_do(fleet: Any) -> None:
    """Five minutes between agent and server are told on the cell, and its jobs are left alone."""
    from helios.ports import Session

    fleet.job()
    fleet.running("job")
    session = Session(generation=1, sequence=1, sent_at=fleet.clock.now() + 300)
    fleet.plane.gateway.report("local", fleet.cell.nodes, fleet.cell.obey(fleet.plane.gateway.desired("local")),
                               session=session)  # fmt: skip
    fleet.plane.tick()
    (clock,) = [item for item in fleet.status("local", "Cell")["conditions"] if item["type"] == "ClockInSync"]
    assert (clock["status"], clock["reason"]) == ("False", "ClockSkew")
    assert "about 5 min ahead of the server's; set the time (NTP)" in clock["message"]
    assert fleet.state("job") == "Running"


# Questions ------------------------------------------------------------------------------------------------------------


def test_plan_shows_the_difference_and_what_the_scheduler_would_do(fleet: Any) -> None:
    """A dry run of a new job, of a changed one and of one that fits nowhere; nothing is written."""
    from helios.spec import from_json

    def plan(**spec: Any) -> dict[str, Any]:
        body = {"entrypoint": "true", **spec}
        document = {"apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": body}
        found: dict[str, Any] = fleet.plane.preview(from_json(document))
        return found

    revision = fleet.store.revision()
    new = plan()
    assert (new["result"], new["decision"]["action"], new["decision"]["cell"]) == ("created", "admit", "local")
    big = plan(resources={"accelerators": "H100:8"}, workers=64)
    assert (big["decision"]["action"], big["decision"]["reason"]) == ("wait", "NoCellHasAccelerator")
    assert fleet.store.revision() == revision
    fleet.job(retry={"maxRetries": 0})
    fleet.end("job", Phase.FAILED, "Error")
    changed = plan(priority=5, retry={"maxRetries": 0})
    assert changed["result"] == "configured"
    assert changed["diff"] == [{"field": "spec.priority", "before": 0, "after": 5}]
    many = plan(array={"size": 9}, schedule={"cron": "0 3 * * *"})
    assert many["decision"]["subject"] == "the first of 9 members, due at 0 3 * * * (UTC),"


def test_queue_is_told_in_its_order(fleet: Any) -> None:
    """Position, class, what is asked for, and why it waits."""
    for name, qos in (("low", "preemptible"), ("high", "guaranteed")):
        fleet.job(name, qos=qos, resources={"cpus": 64})
    fleet.settle(1)
    rows = fleet.plane.queue()
    assert [(row["position"], row["name"], row["reason"]) for row in rows] == [
        (1, "high", "WorkerDoesNotFit"),
        (2, "low", "WorkerDoesNotFit"),
    ]
    assert rows[0]["request"]["millicpus"] == 64_000
