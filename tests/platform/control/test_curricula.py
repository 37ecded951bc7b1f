"""Curricula: stages in their order, each with what the one before it made."""

from typing import Any

import pytest

from helios.control import request_cancel, request_delete, request_rerun
from helios.errors import ConflictError
from helios.ports import Phase


def stages(fleet: Any, name: str = "tiny") -> list[tuple[str, str]]:
    """Name and state of each stage."""
    return [(stage["name"], stage["state"]) for stage in fleet.status(name, "Curriculum")["stages"]]


def test_stages_follow_each_other_with_their_inputs(fleet: Any) -> None:
    """Each stage is told who it is and what the stage before it made; only the last one registers."""
    record = fleet.curriculum(stages=("one", "two"), registeredModel="avatar-tiny")
    fleet.settle(1)
    assert fleet.store.find("Job", "tiny-r1-two") is None
    fleet.end("tiny-r1-one", checkpoint="/bundles/one", run_id="r1")
    fleet.end("tiny-r1-two", checkpoint="/bundles/two", run_id="r2")
    first, second = (fleet.cell.launches[fleet.cell.key(f"tiny-r1-{name}")].context for name in ("one", "two"))
    common = {
        "HELIOS_CURRICULUM": "tiny",
        "HELIOS_CURRICULUM_UID": record.uid,
        "HELIOS_CURRICULUM_RUN": "1",
        "HELIOS_STAGE_COUNT": "2",
    }
    assert first == {**common, "HELIOS_STAGE": "one", "HELIOS_STAGE_INDEX": "0"}
    assert second == {
        **common,
        "HELIOS_STAGE": "two",
        "HELIOS_STAGE_INDEX": "1",
        "HELIOS_INPUT_CHECKPOINT": "/bundles/one",
        "HELIOS_INPUT_RUN_ID": "r1",
        "HELIOS_REGISTERED_MODEL": "avatar-tiny",
    }
    status = fleet.status("tiny", "Curriculum")
    assert (status["state"], status["outputs"]["checkpoint"]) == ("Succeeded", "/bundles/two")
    assert fleet.tracker.ended == [(record.uid, True)]


def test_stages_that_need_nothing_of_each_other_run_together(fleet: Any) -> None:
    """`needs` is a graph, not a line."""
    body = [{"name": "left"}, {"name": "right", "needs": []}, {"name": "join", "needs": ["left", "right"]}]
    fleet.curriculum(stages=body)
    fleet.settle(2)
    assert {key[0] for key in fleet.cell.live()} == {
        fleet.store.get("Job", f"tiny-r1-{name}").uid for name in ("left", "right")
    }
    fleet.end("tiny-r1-left")
    assert fleet.store.find("Job", "tiny-r1-join") is None
    fleet.end("tiny-r1-right")
    assert fleet.state("tiny-r1-join") == "Starting"


def test_failed_stage_leaves_the_rest_pending_with_the_reason(fleet: Any) -> None:
    """The curriculum says why, the stages after it which stage failed; the run in the tracker ends as failed."""
    record = fleet.curriculum(stages=("one", "two", "three"))
    fleet.end("tiny-r1-one")
    fleet.cell.end(fleet.running("tiny-r1-two"), Phase.FAILED, "InvalidConfig", "no preset is named 'tinny'")
    fleet.settle(3)
    status = fleet.status("tiny", "Curriculum")
    assert (status["state"], status["reason"]) == ("Failed", "StageFailed")
    assert status["message"] == "stage two failed: InvalidConfig: no preset is named 'tinny'"
    assert stages(fleet) == [("one", "Succeeded"), ("two", "Failed"), ("three", "Pending")]
    assert status["stages"][2]["reason"] == "StageFailed: two"
    assert fleet.tracker.ended == [(record.uid, False)]


def test_rerun_from_failed_runs_only_what_did_not_succeed(fleet: Any) -> None:
    """The same run goes on: stage one is not trained again, stage two is the same job under a new epoch."""
    record = fleet.curriculum(stages=("one", "two"))
    fleet.end("tiny-r1-one", checkpoint="/one")
    fleet.end("tiny-r1-two", Phase.FAILED, "InvalidConfig")
    request_rerun(fleet.store, "tiny")
    fleet.end("tiny-r1-two")
    assert fleet.state("tiny", "Curriculum") == "Succeeded"
    assert fleet.cell.starts == {"tiny-r1-one": 1, "tiny-r1-two": 2}
    assert fleet.tracker.ended == [(record.uid, False), (record.uid, True)]
    with pytest.raises(ConflictError, match="nothing in it failed"):
        request_rerun(fleet.store, "tiny")


def test_rerun_from_the_start_is_the_next_run(fleet: Any) -> None:
    """All stages again, as new jobs."""
    fleet.curriculum(stages=("one",))
    fleet.end("tiny-r1-one")
    request_rerun(fleet.store, "tiny", from_failed=False)
    fleet.end("tiny-r2-one")
    assert (fleet.state("tiny", "Curriculum"), fleet.status("tiny", "Curriculum")["run"]) == ("Succeeded", 2)


def test_same_curriculum_again_is_a_no_op_and_another_spec_is_the_next_run(fleet: Any) -> None:
    """Submitting what succeeded trains nothing; a changed spec trains anew."""
    fleet.curriculum(stages=("one",))
    fleet.end("tiny-r1-one")
    revision = fleet.store.revision()
    fleet.curriculum(stages=("one",))
    fleet.settle()
    assert fleet.store.revision() == revision
    fleet.curriculum(stages=("one", "two"))
    fleet.end("tiny-r2-one")
    fleet.end("tiny-r2-two")
    assert (fleet.state("tiny", "Curriculum"), fleet.status("tiny", "Curriculum")["run"]) == ("Succeeded", 2)


def test_another_spec_is_refused_while_it_runs(fleet: Any) -> None:
    """A submit never silently ends a training."""
    fleet.curriculum(stages=("one",))
    fleet.running("tiny-r1-one")
    with pytest.raises(ConflictError, match="is Running with another spec"):
        fleet.curriculum(stages=("one", "two"))


def test_cancel_stops_the_stage_that_runs(fleet: Any) -> None:
    """The run is over when its stage is, and nothing after it starts."""
    fleet.curriculum(stages=("one", "two"))
    fleet.running("tiny-r1-one")
    request_cancel(fleet.store, "Curriculum", "tiny")
    fleet.settle()
    assert (fleet.state("tiny", "Curriculum"), fleet.state("tiny-r1-one")) == ("Cancelled", "Cancelled")
    assert fleet.store.find("Job", "tiny-r1-two") is None
    request_rerun(fleet.store, "tiny")
    fleet.end("tiny-r1-one")
    fleet.end("tiny-r1-two")
    assert fleet.state("tiny", "Curriculum") == "Succeeded"


def test_delete_stops_everything_and_leaves_nothing(fleet: Any) -> None:
    """Its jobs go first, then it."""
    fleet.curriculum(stages=("one", "two"))
    fleet.end("tiny-r1-one")
    fleet.running("tiny-r1-two")
    request_delete(fleet.store, "Curriculum", "tiny")
    fleet.settle(8)
    assert fleet.store.find("Curriculum", "tiny") is None
    assert not fleet.store.records("Job")
    assert not fleet.cell.live()


def test_job_that_is_deleted_after_its_success_is_not_run_again(fleet: Any) -> None:
    """What a stage came to is the curriculum's own memory."""
    fleet.curriculum(stages=("one", "two"))
    fleet.end("tiny-r1-one", checkpoint="/one")
    request_delete(fleet.store, "Job", "tiny-r1-one")
    fleet.settle()
    assert fleet.store.find("Job", "tiny-r1-one") is None
    fleet.end("tiny-r1-two")
    assert fleet.state("tiny", "Curriculum") == "Succeeded"
    assert fleet.cell.starts["tiny-r1-one"] == 1


def test_tracker_that_fails_is_told_and_asked_again(fleet: Any) -> None:
    """Closing the run is retried until it worked; each failure is an event."""
    fleet.tracker.failures = 2
    record = fleet.curriculum(stages=("one",))
    fleet.end("tiny-r1-one")
    for _ in range(3):
        fleet.advance(11)
        fleet.settle(1)
    assert fleet.tracker.ended == [(record.uid, True)]
    assert fleet.reasons("tiny", "Curriculum").count("TrackerFailed") == 2


def test_job_of_somebody_else_with_a_stages_name_is_not_taken_over(fleet: Any) -> None:
    """The run fails and says why, and the other job goes on."""
    fleet.job("tiny-r1-one")
    fleet.curriculum(stages=("one",))
    fleet.settle(3)
    assert fleet.state("tiny", "Curriculum") == "Failed"
    assert fleet.status("tiny", "Curriculum")["stages"][0]["reason"] == "JobNameTaken"
    assert fleet.state("tiny-r1-one") == "Starting"
