"""Simulated cells: what they run, how it ends, and what survives the process that looks."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helios.adapters.simulated import FailJob, KillNode, SimulatedDriver
from helios.adapters.simulated.drills import FILE
from helios.errors import ConflictError, UnavailableError
from helios.ports import CellDriver, Launch, LaunchStatus, Phase
from helios.spec import CellSpec

BEGAN = 1_800_000_000.0


@dataclass
class FakeClock:
    time: float = BEGAN

    def now(self) -> float:
        return self.time


POOL = {"name": "h100", "capacityType": "reserved", "accelerators": "H100:8", "nodes": 40}
Open = Callable[..., SimulatedDriver]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cell(tmp_path: Path, clock: FakeClock) -> Iterator[Open]:
    """Opens the cell `east` in one folder, as often as a test wants."""
    opened: list[SimulatedDriver] = []

    def build(*, pools: list[dict[str, Any]] | None = None, **simulation: Any) -> SimulatedDriver:
        spec = {"provider": "simulated", "nodePools": pools or [POOL], "simulation": simulation}
        opened.append(
            SimulatedDriver.open(name="east", spec=CellSpec.model_validate(spec), folder=tmp_path, clock=clock)
        )
        return opened[-1]

    yield build
    for driver in opened:
        driver.close()


def launch(uid: str = "a", *, epoch: int = 1, kind: str = "Job", node: int = 0, workers: int = 1, **run: Any) -> Launch:
    work = {"application": "m:f"} if kind == "Service" else {"entrypoint": "true", "config": {"simulation": run}}
    spec = {**work, "resources": {"cpus": 8, "accelerators": "H100:8"}}
    nodes = tuple(f"east-h100-{node + index}" for index in range(workers))
    return Launch(kind, f"job-{uid}", uid, epoch, spec, workers, nodes)


def word(status: LaunchStatus) -> tuple[Phase, str]:
    return status.phase, status.reason


def test_it_is_a_cell_driver(cell: Open) -> None:
    """An agent can run it as any other driver."""
    driver: CellDriver = cell()
    assert driver.status("never", 1).phase is Phase.ABSENT


def test_nodes_follow_from_the_spec(cell: Open) -> None:
    """Every node that a pool may have is there, with its devices, size and place in the topology."""
    cpu = {"name": "cpu", "capacityType": "on_demand", "nodes": {"min": 0, "max": 2}}
    nodes = cell(pools=[POOL, cpu]).nodes()
    assert len(nodes) == 42
    gpu = nodes[33]
    assert (gpu.name, gpu.pool, gpu.cpus, gpu.memory) == ("east-h100-33", "h100", 96, 2**40)
    assert gpu.accelerators == {"H100": 8}
    assert gpu.labels == {"rack": "h100-r4", "block": "h100-b1", "fabric": "h100-f0"}
    assert (nodes[41].name, nodes[41].cpus, nodes[41].accelerators) == ("east-cpu-1", 64, {})
    assert all(node.healthy and not node.lost for node in nodes)


def test_job_starts_runs_and_succeeds(cell: Open, clock: FakeClock) -> None:
    """The phases, the progress and the exit follow from the job's own wish and the cell's clock."""
    driver = cell(start="2s")
    driver.start(launch(run="100s", steps=50, checkpointEvery="30s"))
    assert driver.status("a", 1).phase is Phase.STARTING
    clock.time += 2 + 65
    status = driver.status("a", 1)
    assert status.phase is Phase.RUNNING
    assert status.progress == {
        "phase": "training", "step": 32, "total_steps": 50, "checkpoint_step": 30, "eta_seconds": 36.0,
    }  # fmt: skip
    clock.time += 1000
    status = driver.status("a", 1)
    assert word(status) == (Phase.SUCCEEDED, "Completed")
    assert (status.progress["step"], status.progress["checkpoint_step"]) == (50, 50)
    assert status.outputs == {"checkpoint": "simulated://east/runs/a/step-50"}


def test_a_job_may_wish_to_fail(cell: Open, clock: FakeClock) -> None:
    """`exit` is the reason that it fails with, at the end of its run."""
    driver = cell()
    driver.start(launch(run="10s", exit="OutOfMemory"))
    clock.time += 11
    assert driver.status("a", 1).phase is Phase.RUNNING
    clock.time += 2
    assert word(driver.status("a", 1)) == (Phase.FAILED, "OutOfMemory")


def test_wishes_that_are_not_understood_fail_for_good(cell: Open) -> None:
    """A typo in `config.simulation` is an invalid configuration, and the message names the field."""
    driver = cell()
    driver.start(launch(runs="10s"))
    status = driver.status("a", 1)
    assert word(status) == (Phase.FAILED, "InvalidConfig")
    assert "runs" in status.message


def test_jobs_go_on_without_an_agent(cell: Open, clock: FakeClock) -> None:
    """A process that is killed takes nothing with it: the next one finds what runs, and what ended when."""
    cell().start(launch("a", run="10s"))
    cell().start(launch("b", run="1h", node=1))
    clock.time += 600
    after = cell()
    assert word(after.status("a", 1)) == (Phase.SUCCEEDED, "Completed")
    assert after.status("b", 1).phase is Phase.RUNNING
    spans = {span.uid: span for span in after.history().spans}
    assert spans["a"].until == pytest.approx(BEGAN + 12)
    assert spans["b"].alive


def test_processes_see_each_other(cell: Open, clock: FakeClock) -> None:
    """Two drivers over one world agree on what runs, and on what is fenced."""
    one, two = cell(), cell()
    one.start(launch(run="1h"))
    clock.time += 5
    assert two.status("a", 1).phase is Phase.RUNNING
    two.stop("a", 1, grace_s=30)
    clock.time += 5
    assert one.status("a", 1).phase is Phase.STOPPED
    two.start(launch(epoch=2, run="1h"))
    with pytest.raises(ConflictError, match="epoch 1 is fenced; the cell has seen 2"):
        one.start(launch(run="1h"))


def test_start_is_idempotent_and_fenced(cell: Open, clock: FakeClock) -> None:
    """The same epoch again changes nothing, while it runs and after it; a lower one is refused."""
    driver = cell()
    driver.start(launch(epoch=2, run="10s"))
    clock.time += 5
    driver.start(launch(epoch=2, run="10s"))
    clock.time += 8
    driver.start(launch(epoch=2, run="10s"))
    assert driver.status("a", 2).phase is Phase.SUCCEEDED
    with pytest.raises(ConflictError):
        driver.start(launch(epoch=1))
    assert driver.status("a", 1).phase is Phase.ABSENT
    assert len(driver.history().spans) == 1


def test_a_later_stop_fences_what_still_lives(cell: Open, clock: FakeClock) -> None:
    """Once a higher epoch was seen, be it only its stop, a lower one is refused though it is still alive."""
    driver = cell()
    driver.start(launch(epoch=5, run="10s"))
    driver.stop("a", 6, grace_s=0)
    with pytest.raises(ConflictError, match="epoch 5 is fenced; the cell has seen 6"):
        driver.start(launch(epoch=5, run="10s"))
    clock.time += 13
    assert driver.status("a", 5).phase is Phase.SUCCEEDED
    assert [span.epoch for span in driver.history().spans if span.until > span.since] == [5]


def test_stop_before_its_start_forbids_it(cell: Open, clock: FakeClock) -> None:
    """A start that comes after the stop of its epoch never runs; the next epoch does."""
    driver = cell()
    driver.stop("a", 1, grace_s=30)
    driver.start(launch(run="10s"))
    assert word(driver.status("a", 1)) == (Phase.STOPPED, "Stopped")
    driver.start(launch(epoch=2, run="10s"))
    clock.time += 20
    assert driver.status("a", 2).phase is Phase.SUCCEEDED


def test_stop_gives_time_for_a_checkpoint(cell: Open, clock: FakeClock) -> None:
    """Told to stop, a job says so, checkpoints, and leaves within a second; the next epoch goes on from there."""
    driver = cell(start="0s")
    driver.start(launch(run="100s", checkpointEvery="1h"))
    clock.time += 40
    driver.stop("a", 1, grace_s=30)
    assert word(driver.status("a", 1)) == (Phase.RUNNING, "Stopping")
    clock.time += 0.5
    driver.stop("a", 1, grace_s=30)
    clock.time += 0.5
    assert word(driver.status("a", 1)) == (Phase.STOPPED, "Stopped")
    driver.start(launch(epoch=2, run="100s", checkpointEvery="1h"))
    clock.time += 1
    assert driver.status("a", 2).progress["step"] == 42
    clock.time += 58
    assert driver.status("a", 2).phase is Phase.SUCCEEDED


def test_without_grace_a_stop_is_an_end(cell: Open, clock: FakeClock) -> None:
    """No grace, no checkpoint: the next epoch goes on from the last one that the job wrote by itself."""
    driver = cell(start="0s")
    driver.start(launch(run="100s", checkpointEvery="30s"))
    clock.time += 50
    driver.stop("a", 1, grace_s=0)
    assert driver.status("a", 1).phase is Phase.STOPPED
    driver.start(launch(epoch=2, run="100s", checkpointEvery="30s"))
    assert driver.status("a", 2).progress["step"] == 30


def _no_more_grace(driver: SimulatedDriver) -> None:
    driver.stop("a", 1, grace_s=0)


def _its_node_dies(driver: SimulatedDriver) -> None:
    driver.inject(KillNode(node="east-h100-0"))


def _it_fails(driver: SimulatedDriver) -> None:
    driver.inject(FailJob(job="job-a"))


@pytest.mark.parametrize("end", [_no_more_grace, _its_node_dies, _it_fails])
def test_what_ends_before_it_has_left_wrote_no_checkpoint(
    cell: Open, clock: FakeClock, end: Callable[[SimulatedDriver], None]
) -> None:
    """Told to stop, and then ended within the second that its checkpoint takes: the one before it counts."""
    driver = cell(start="0s")
    driver.start(launch(run="100s", checkpointEvery="30s"))
    clock.time += 49.5
    driver.stop("a", 1, grace_s=30)
    clock.time += 0.2
    end(driver)
    status = driver.status("a", 1)
    assert status.phase in {Phase.STOPPED, Phase.FAILED}
    assert (status.progress["step"], status.progress["checkpoint_step"]) == (49, 30)
    driver.start(launch(epoch=2, node=1, run="100s"))
    assert driver.status("a", 2).progress["step"] == 30


def test_an_end_of_its_own_comes_before_a_stop(cell: Open, clock: FakeClock) -> None:
    """A job that completes within the second that it has to leave has succeeded."""
    driver = cell(start="0s")
    driver.start(launch(run="10s"))
    clock.time += 9.5
    driver.stop("a", 1, grace_s=30)
    clock.time += 1
    assert driver.status("a", 1).phase is Phase.SUCCEEDED


def test_services_run_until_they_are_stopped(cell: Open, clock: FakeClock) -> None:
    """A service has a url while it runs, no progress, and no end of its own."""
    driver = cell()
    driver.start(launch("s", kind="Service", workers=3))
    clock.time += 1e6
    status = driver.status("s", 1)
    assert (status.phase, status.progress) == (Phase.RUNNING, {})
    assert status.outputs == {"url": "http://job-s.east.invalid/"}
    driver.start(launch("s", epoch=2, kind="Service", workers=3))
    assert word(driver.status("s", 1)) == (Phase.STOPPED, "Superseded")
    driver.stop("s", 2, grace_s=30)
    clock.time += 1
    assert driver.status("s", 2).phase is Phase.STOPPED
    assert driver.history().violations == ()


def test_what_nobody_may_ask_for_is_recorded(cell: Open, clock: FakeClock) -> None:
    """Overcommitted nodes, two epochs at once and a second run of what succeeded are violations, by name."""
    driver = cell()
    driver.start(launch("a", run="1h"))
    driver.start(launch("b", run="1h"))
    assert word(driver.status("b", 1)) == (Phase.FAILED, "CapacityError")
    assert "16 of 8 H100" in driver.status("b", 1).message
    driver.start(launch("a", epoch=2, run="1s"))
    clock.time += 5
    driver.start(launch("a", epoch=3, run="1s"))
    assert [violation.rule for violation in driver.history().violations] == [
        "Overcommitted", "TwoEpochs", "StartedAfterSuccess",
    ]  # fmt: skip


def test_a_gang_may_have_several_workers_on_a_node(cell: Open) -> None:
    """What the workers of one node need is added up."""
    driver = cell()
    spec = {"entrypoint": "true", "resources": {"cpus": 1, "memory": "400Gi"}}
    node = "east-h100-0"
    driver.start(Launch("Job", "three", "three", 1, spec, 3, (node, node, node)))
    assert driver.status("three", 1).phase is Phase.FAILED
    assert "bytes of memory" in driver.history().violations[0].message
    driver.start(Launch("Job", "two", "two", 1, spec, 2, (node, node)))
    assert driver.status("two", 1).phase is Phase.STARTING


def test_nodes_that_the_spec_no_longer_has_take_their_work_along(cell: Open, clock: FakeClock) -> None:
    """A cell that shrinks fails what ran on the nodes that went, and nothing else."""
    first = cell()
    first.start(launch("a", run="1h", node=3))
    first.start(launch("b", run="1h", node=30))
    clock.time += 10
    smaller = cell(pools=[{**POOL, "nodes": 20}])
    assert smaller.status("a", 1).phase is Phase.RUNNING
    assert word(smaller.status("b", 1)) == (Phase.FAILED, "NodeLost")


def test_the_clock_of_a_cell_may_be_faster(cell: Open, clock: FakeClock) -> None:
    """`speed` is how many of the cell's seconds pass in one of ours; the record is on our clock."""
    driver = cell(speed=60)
    driver.start(launch(run="10m"))
    clock.time += 10
    assert driver.status("a", 1).phase is Phase.RUNNING
    clock.time += 0.1
    assert driver.status("a", 1).phase is Phase.SUCCEEDED
    (span,) = driver.history().spans
    assert span.until - span.since == pytest.approx(602 / 60)
    slower = cell(speed=1)
    slower.start(launch("b", run="10m"))
    clock.time += 600
    assert slower.status("b", 1).phase is Phase.RUNNING
    assert {round(span.since - BEGAN, 2) for span in slower.history().spans} == {0.0, 10.1}


def test_logs_tell_the_steps(cell: Open, clock: FakeClock) -> None:
    """The log has a line for every step that is done, can be read in pieces, and ends with how the job ended."""
    driver = cell(start="0s")
    assert driver.logs("a", 1, offset=7) == (b"", 7)
    driver.start(launch(run="30s", steps=30))
    clock.time += 10
    text, offset = driver.logs("a", 1, offset=0)
    assert text.splitlines()[0] == b"simulated: job-a epoch 1, 1 workers"
    assert len(text.splitlines()) == 11
    clock.time += 60
    rest, end = driver.logs("a", 1, offset=offset)
    whole, _ = driver.logs("a", 1, offset=0)
    assert text + rest == whole
    assert len(whole) == end
    assert whole.splitlines()[-1] == b"ended: Completed completed"
    pieces = [driver.logs("a", 1, offset=at)[0] for at in range(len(whole))]
    assert all(piece == whole[at:] for at, piece in enumerate(pieces))
    assert driver.logs("a", 1, offset=end) == (b"", end)


def test_threads_share_a_driver(cell: Open, clock: FakeClock) -> None:
    """Calls of many threads at once are all carried out, each once."""
    driver = cell()
    threads = [
        threading.Thread(target=driver.start, args=(launch(str(index), run="1h", node=index),)) for index in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.time += 10
    assert {driver.status(str(index), 1).phase for index in range(40)} == {Phase.RUNNING}
    assert len(driver.history().spans) == 40


def test_a_newer_world_is_refused(cell: Open, tmp_path: Path) -> None:
    """A file of a later format is not touched."""
    driver = cell()
    with driver._database.transaction():
        driver._database.set_meta("format", 99)
    with pytest.raises(ConflictError, match="format 99"):
        cell()


def test_a_world_in_other_hands_is_unavailable(cell: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that hangs makes the cell unavailable, not broken; afterwards all is as before."""
    monkeypatch.setattr("helios.adapters.simulated.database.BUSY_S", 0.05)
    driver, other = cell(), cell()
    with other._database.transaction(), pytest.raises(UnavailableError, match="another process"):
        driver.start(launch(run="1h"))
    driver.start(launch(run="1h"))
    assert driver.status("a", 1).phase is Phase.STARTING


def test_a_closed_driver_is_unavailable(cell: Open) -> None:
    """Who still asks it, as an agent that ends may, is told so."""
    driver = cell()
    driver.close()
    with pytest.raises(UnavailableError, match="was closed"):
        driver.status("a", 1)


def test_drills_come_from_outside_the_process(cell: Open, clock: FakeClock, tmp_path: Path) -> None:
    """Lines of `faults.jsonl` take effect once each; one that says nothing known is passed over."""
    driver = cell()
    driver.start(launch("a", run="1h"))
    lines = ["no json", json.dumps({"fault": "Flood"}), json.dumps({"fault": "KillNode", "node": "east-h100-999"})]
    lines += [json.dumps({"fault": "KillNode", "node": "east-h100-0", "backAfter": "60s"}), '{"fault": "KillNode"']
    (tmp_path / FILE).write_text("\n".join(lines))
    assert [node.name for node in driver.nodes() if node.lost] == ["east-h100-0"]
    assert word(driver.status("a", 1)) == (Phase.FAILED, "NodeLost")
    clock.time += 61
    assert not [node for node in driver.nodes() if node.lost]
    with (tmp_path / FILE).open("a") as file:
        file.write(', "node": "east-h100-1*"}\n')
    assert len([node for node in cell().nodes() if node.lost]) == 11
