"""The control plane as a whole: admission, explanations, cells, and the loop that wakes by itself."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from helios.control import request_cancel, request_delete, request_rerun
from helios.control.plane import CYCLE_SHARE
from helios.control.status import request_of
from helios.errors import ConflictError, NotFoundError, SpecError
from helios.ports import Phase
from helios.spec import Resources


def test_tenant_that_nobody_made_is_refused_before_anything_is_written(fleet: Any) -> None:
    """The error names the nearest tenant, and there is no job afterwards."""
    with pytest.raises(NotFoundError, match=r"no tenant is named 'defualt' \(did you mean 'default'\?\)"):
        fleet.job(tenant="defualt")
    assert fleet.store.find("Job", "job") is None


def test_cell_that_nobody_made_is_refused_with_its_field(fleet: Any) -> None:
    """A typo in placement.cells is a problem of that field."""
    with pytest.raises(SpecError) as caught:
        fleet.job(placement={"cells": ["locall"]})
    (problem,) = caught.value.problems
    assert (problem.field, problem.nearest) == ("spec.placement.cells[0]", "local")


def test_running_job_keeps_its_spec(fleet: Any) -> None:
    """Another spec under the name of a job that is not over is a conflict."""
    fleet.job()
    fleet.running("job")
    with pytest.raises(ConflictError, match="is Running with another spec"):
        fleet.job(priority=9)


def test_gpu_job_on_a_cpu_cell_says_why_it_waits(fleet: Any) -> None:
    """Typed reason, each cell's verdict with its nodes, what would unblock it, and the place in the queue."""
    fleet.job(resources={"accelerators": "H100:8"})
    fleet.settle(1)
    why = fleet.plane.explain("job")
    assert (why["state"], why["reason"]) == ("Queued", "NoCellHasAccelerator")
    assert (why["position"], why["ahead"]) == (1, 0)
    (verdict,) = why["cells"]
    assert verdict == {
        "cell": "local",
        "reason": "NoCellHasAccelerator",
        "message": "no node has H100",
        "nodes": 1,
        "rejected": {"NoAccelerator": 1},
        "fits": 0,
    }
    assert why["unblock"] == ["add a node pool with H100 to a cell, or submit without spec.resources.accelerators"]
    assert fleet.status("job")["message"].startswith("no cell that may take it has H100")


def test_curriculum_is_explained_by_the_stage_it_is_at(fleet: Any) -> None:
    """`explain` of a curriculum carries the explanation of the job that holds it up."""
    fleet.curriculum(defaults={"entrypoint": "true", "resources": {"cpus": 64}})
    fleet.settle(2)
    why = fleet.plane.explain("tiny", "Curriculum")
    assert (why["stage"], why["job"]["reason"]) == ("one", "WorkerDoesNotFit")


def test_quota_holds_a_tenant_back_with_clear_words(make_fleet: Callable[..., Any]) -> None:
    """A tenant with quotas waits for a type it was not granted, and for more than it was granted."""
    fleet = make_fleet({"accelerators": {"H100": 8, "A100": 8}})
    fleet.apply("{kind: Tenant, metadata: {name: small}, spec: {quotas: [{accelerator: H100, nominalQuota: 4}]}}")
    fleet.job("some", tenant="small", resources={"accelerators": "H100:4"})
    fleet.advance(1)
    fleet.job("more", tenant="small", resources={"accelerators": "H100:1"})
    fleet.job("other", tenant="small", resources={"accelerators": "A100:1"})
    fleet.settle(2)
    assert fleet.state("some") == "Starting"
    assert fleet.status("more")["message"] == "tenant 'small' may hold 4 H100 and holds 4; this needs 1 more"
    assert fleet.status("other")["message"] == "tenant 'small' was granted no A100"


def test_cell_in_use_goes_when_its_work_has_gone(fleet: Any) -> None:
    """A cell that is deleted takes nothing new and disappears after the last job on it."""
    fleet.job("first")
    fleet.running("first")
    request_delete(fleet.store, "Cell", "local")
    fleet.job("second")
    fleet.settle(1)
    assert fleet.status("second")["reason"] == "CellNotReady"
    fleet.cell.end(fleet.cell.key("first"), fleet.cell.statuses[fleet.cell.key("first")].phase.SUCCEEDED)
    fleet.cell.step(fleet.plane.gateway)
    fleet.plane.tick()
    fleet.plane.tick()
    assert fleet.store.find("Cell", "local") is None
    with pytest.raises(NotFoundError):
        fleet.plane.gateway.desired("local")


def test_broken_record_does_not_hold_up_the_others(make_fleet: Callable[..., Any]) -> None:
    """A record that cannot be reconciled is told once as an event, and the rest goes on."""
    fleet = make_fleet()
    broken = fleet.job("broken")
    fleet.store.save(broken.with_status(state="Nonsense"))
    fleet.job("fine")
    fleet.end("fine")
    assert fleet.state("fine") == "Succeeded"
    assert fleet.reasons("broken").count("ControllerError") == 1


def test_loop_wakes_for_a_submit_and_for_a_report(fleet: Any) -> None:
    """A job is admitted, and its end is seen, in far less than the idle tick's second."""
    stop = threading.Event()
    loop = threading.Thread(target=fleet.plane.run, args=(stop,))
    loop.start()
    try:
        known = fleet.plane.gateway.desired("local")
        took = []
        for name in ("a", "b"):
            began = time.perf_counter()
            fleet.job(name)
            known = fleet.plane.gateway.wait("local", known, 5.0)
            took.append(time.perf_counter() - began)
            fleet.cell.step(fleet.plane.gateway)
        assert len(known.launches) == 2
        assert min(took) < 0.5
    finally:
        stop.set()
        loop.join(10)
    assert not loop.is_alive()


def test_scheduler_rests_after_all_that_its_cycle_computed(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand verdicts that are compared with what was told before are work, too, and requests wait for it."""
    computes_s = 0.02

    def compare(*_: object) -> None:
        ends = time.thread_time() + computes_s
        while time.thread_time() < ends:
            pass

    monkeypatch.setattr(fleet.plane._enactor, "carry_out", compare)
    fleet.job()
    with ThreadPoolExecutor(1) as pool:
        fleet.plane.tick(pool)
    assert fleet.plane._not_before - time.monotonic() > 0.9 * CYCLE_SHARE * computes_s


def test_scheduler_that_is_asked_again_while_it_rests_is_waited_for(fleet: Any) -> None:
    """The loop sleeps until the next cycle may begin; looking whether it may, over and over, would be all it does."""
    fleet.settle(2)
    fleet.plane._not_before = time.monotonic() + 0.8
    fleet.plane._watcher.schedule_at(fleet.clock.now())
    assert 0.5 < fleet.plane._pause() <= 0.8
    fleet.plane._not_before = 0.0
    assert fleet.plane._pause() == 0.0


def test_quantities_become_what_the_scheduler_counts() -> None:
    """Cores in thousandths, so that tenths of cores add up exactly."""
    request = request_of(Resources.model_validate({"cpus": 0.1, "memory": "1Gi", "accelerators": "H100:2"}))
    assert (request.millicpus, request.memory, request.accelerator, request.accelerators) == (100, 1 << 30, "H100", 2)


def test_tenant_goes_only_when_nothing_of_it_is_left_to_do(fleet: Any) -> None:
    """Deletion is refused with the names of what is not over, at once and whole; afterwards the tenant is gone."""
    fleet.apply("{kind: Tenant, metadata: {name: team}}")
    fleet.job("work", tenant="team")
    fleet.service("avatar", tenant="team")
    fleet.curriculum("tiny", tenant="team")
    with pytest.raises(ConflictError, match=r"'team' is in use by job/work, service/avatar, curriculum/tiny"):
        request_delete(fleet.store, "Tenant", "team")
    assert not fleet.store.get("Tenant", "team").deleting
    request_delete(fleet.store, "Service", "avatar")
    request_cancel(fleet.store, "Curriculum", "tiny")
    fleet.end("work", Phase.FAILED, "InvalidConfig")
    request_delete(fleet.store, "Tenant", "team")
    with pytest.raises(ConflictError, match="'team' is being deleted"):
        fleet.job("late", tenant="team")
    fleet.settle(1)
    assert fleet.store.find("Tenant", "team") is None
    with pytest.raises(NotFoundError, match="no tenant is named 'team'"):
        request_rerun(fleet.store, "work", kind="Job")


def test_default_tenant_stays(fleet: Any) -> None:
    """What names no tenant belongs to `default`, so that one cannot be deleted, and jobs go on being taken."""
    with pytest.raises(ConflictError, match="'default' cannot be deleted"):
        request_delete(fleet.store, "Tenant", "default")
    fleet.settle(1)
    fleet.job()


def test_document_stored_by_an_older_release_is_unchanged(fleet: Any) -> None:
    """Fields that came into the notation since, with their defaults, make no new run and no conflict."""
    fleet.curriculum()
    fleet.job()
    fleet.settle(2)
    for kind, name in (("Curriculum", "tiny"), ("Job", "job")):
        record = fleet.store.get(kind, name)
        older = {key: value for key, value in record.spec.items() if key not in {"needs", "array", "schedule"}}
        older = {**older, "checkpoint": {"every": "10m", "keep": 2}} if kind == "Job" else older
        fleet.store.save(replace(record, spec=older))
    before = fleet.store.get("Job", "job")
    fleet.job()
    fleet.curriculum()
    assert fleet.store.get("Job", "job") == before
    with pytest.raises(ConflictError):
        fleet.job(priority=1)
