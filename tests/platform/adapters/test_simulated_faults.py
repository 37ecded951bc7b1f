"""Faults of simulated cells: drawn by the seed, or injected by hand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helios.adapters.simulated import (
    CutAnswers,
    Drill,
    FailJob,
    KillNode,
    LoseAnswers,
    PreemptNode,
    RefuseCapacity,
    ReviveNode,
    SimulatedDriver,
)
from helios.errors import NotFoundError, UnavailableError
from helios.ports import Launch, LaunchStatus, Phase
from helios.spec import CellSpec

DAY = 86_400.0


@dataclass
class FakeClock:
    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time


Build = Callable[..., SimulatedDriver]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cell(tmp_path: Path, clock: FakeClock) -> Iterator[Build]:
    """Builds cells that differ in nothing but what is said; each has its own folder."""
    opened: list[SimulatedDriver] = []

    def build(*, capacity_type: str = "reserved", seed: int = 7, folder: str = "", **faults: Any) -> SimulatedDriver:
        pool = {"name": "p", "capacityType": capacity_type, "accelerators": "H100:8", "nodes": 200}
        simulation = {"seed": seed, "start": "0s", "run": "1000s", "faults": faults}
        spec = CellSpec.model_validate({"provider": "simulated", "nodePools": [pool], "simulation": simulation})
        path = tmp_path / (folder or str(len(opened)))
        opened.append(SimulatedDriver.open(name="west", spec=spec, folder=path, clock=clock))
        return opened[-1]

    yield build
    for driver in opened:
        driver.close()


def launch(uid: str, *, epoch: int = 1, node: int = 0, workers: int = 1) -> Launch:
    spec = {"entrypoint": "true", "resources": {"accelerators": "H100:8"}, "checkpoint": {"every": "100s"}}
    return Launch("Job", uid, uid, epoch, spec, workers, tuple(f"west-p-{node + index}" for index in range(workers)))


def word(status: LaunchStatus) -> tuple[Phase, str]:
    return status.phase, status.reason


def ends(driver: SimulatedDriver, *, workers: int = 1) -> list[tuple[Phase, str]]:
    """Start a gang on each of 100 sets of nodes, let all of them end, and say how."""
    for index in range(100):
        driver.start(launch(f"job-{index}", node=index * workers, workers=workers))
    clock = driver._real
    assert isinstance(clock, FakeClock)
    clock.time += 5000
    return [word(driver.status(f"job-{index}", 1)) for index in range(100)]


@pytest.mark.parametrize(
    ("fault", "workers", "reason"),
    [("capacity", 1, "CapacityError"), ("partialStart", 2, "PartialStart"), ("jobFailure", 1, "Error")],
)
def test_faults_come_in_their_share(cell: Build, fault: str, workers: int, reason: str) -> None:
    """About the share that was asked for ends with the fault's reason, and all others succeed."""
    found = ends(cell(**{fault: 0.3}), workers=workers)
    failed = found.count((Phase.FAILED, reason))
    assert 15 <= failed <= 45
    assert found.count((Phase.SUCCEEDED, "Completed")) == 100 - failed


def test_the_seed_decides(cell: Build) -> None:
    """The same seed draws the same in another world, another seed draws otherwise."""
    first, again, other = (ends(cell(seed=seed, jobFailure=0.5)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_start_in_part_holds_its_nodes_for_a_while(cell: Build, clock: FakeClock) -> None:
    """A gang of which some workers do not come up is Starting, then fails whole, and its nodes are free."""
    driver = cell(partialStart=1)
    driver.start(launch("a", workers=4))
    clock.time += 29
    assert driver.status("a", 1).phase is Phase.STARTING
    clock.time += 2
    status = driver.status("a", 1)
    assert word(status) == (Phase.FAILED, "PartialStart")
    assert " of 4 workers came up" in status.message
    driver.start(launch("b"))
    assert driver.history().violations == ()


def test_one_worker_cannot_start_in_part(cell: Build) -> None:
    """A gang of one is there or not."""
    assert set(ends(cell(partialStart=1))) == {(Phase.SUCCEEDED, "Completed")}


def test_slow_starts_are_late(cell: Build, clock: FakeClock) -> None:
    """A slow start takes `slowStartBy` longer, and the job runs as long as ever."""
    driver = cell(slowStart=1, slowStartBy="90s")
    driver.start(launch("a"))
    clock.time += 89
    assert driver.status("a", 1).phase is Phase.STARTING
    clock.time += 1000
    assert driver.status("a", 1).phase is Phase.RUNNING
    clock.time += 1
    assert driver.status("a", 1).phase is Phase.SUCCEEDED


def test_a_lost_answer_is_not_a_lost_call(cell: Build, clock: FakeClock) -> None:
    """The call fails as unavailable and was carried out all the same."""
    driver = cell(lostResponse=1)
    with pytest.raises(UnavailableError, match="was lost"):
        driver.start(launch("a"))
    assert driver.status("a", 1).phase is Phase.RUNNING
    with pytest.raises(UnavailableError, match="was lost"):
        driver.stop("a", 1, grace_s=0)
    assert driver.status("a", 1).phase is Phase.STOPPED


def test_nodes_die_and_come_back(cell: Build, clock: FakeClock) -> None:
    """At two deaths a node and day, 200 nodes see about 400 a day; each is back after its repair."""
    driver = cell(nodeDeath=2, nodeRepair="1h")
    clock.time += DAY
    lost = [node for node in driver.nodes() if node.lost]
    assert 4 <= len(lost) <= 35
    assert not any(node.healthy for node in lost)
    assert 300 <= driver.history().incidents <= 480


def test_a_gang_dies_with_its_node(cell: Build, clock: FakeClock) -> None:
    """The whole gang ends at the moment of the loss, and the next start goes on from the last checkpoint."""
    driver = cell()
    driver.start(launch("a", workers=3))
    clock.time += 250
    driver.inject(KillNode(node="west-p-1"))
    status = driver.status("a", 1)
    assert word(status) == (Phase.FAILED, "NodeLost")
    assert status.message == "node west-p-1 was lost"
    driver.start(launch("a", epoch=2, workers=3))
    assert word(driver.status("a", 2)) == (Phase.FAILED, "NodeLost")
    driver.start(launch("a", epoch=3, node=4, workers=3))
    assert driver.status("a", 3).progress["step"] == 200
    driver.inject(ReviveNode(node="west-p-1"))
    driver.start(launch("b", node=1))
    assert driver.status("b", 1).phase is Phase.RUNNING


def test_preemption_gives_notice(cell: Build, clock: FakeClock) -> None:
    """The node says that it will go, its work writes a checkpoint, then the node is lost, and comes back."""
    driver = cell()
    driver.start(launch("a"))
    clock.time += 310
    driver.inject(PreemptNode(node="west-p-0", notice=60, back_after=60))
    node = driver.nodes()[0]
    assert (node.healthy, node.lost) == (False, False)
    assert [(finding.rule, finding.action.value) for finding in node.findings] == [("PreemptionNotice", "drain")]
    clock.time += 59
    assert driver.status("a", 1).phase is Phase.RUNNING
    clock.time += 1
    assert word(driver.status("a", 1)) == (Phase.FAILED, "NodeLost")
    assert driver.nodes()[0].lost
    driver.start(launch("a", epoch=2, node=1))
    assert driver.status("a", 2).progress["step"] == 311
    clock.time += 60
    assert driver.nodes()[0].healthy


def test_only_preemptible_pools_are_preempted(cell: Build, clock: FakeClock) -> None:
    """Preemptions come to pools of preemptible capacity alone."""
    spot, bought = cell(capacity_type="preemptible", preemption=2), cell(preemption=2)
    clock.time += DAY
    assert spot.history().incidents > 200
    assert bought.history().incidents == 0


def test_a_preemption_can_be_called_off(cell: Build, clock: FakeClock) -> None:
    """A node that is revived while it is announced to go stays."""
    driver = cell()
    driver.start(launch("a"))
    driver.inject(PreemptNode(node="west-p-0", notice=60))
    clock.time += 30
    driver.inject(ReviveNode(node="west-p-0"))
    clock.time += 60
    assert driver.nodes()[0].healthy
    assert driver.status("a", 1).phase is Phase.RUNNING


@pytest.mark.parametrize("drill", [RefuseCapacity(lasts=60)])
def test_capacity_can_be_refused_for_a_while(cell: Build, clock: FakeClock, drill: Drill) -> None:
    """While it lasts every start is refused; what runs goes on."""
    driver = cell()
    driver.start(launch("a"))
    driver.inject(drill)
    driver.start(launch("b", node=1))
    assert word(driver.status("b", 1)) == (Phase.FAILED, "CapacityError")
    assert driver.status("a", 1).phase is Phase.RUNNING
    clock.time += 60
    driver.start(launch("b", epoch=2, node=1))
    assert driver.status("b", 2).phase is Phase.RUNNING


def test_a_cell_can_be_cut_off_from_its_agent(cell: Build, clock: FakeClock) -> None:
    """While it lasts nothing can be seen or done, and nothing is said to have failed; what runs goes on."""
    driver = cell()
    driver.start(launch("a"))
    driver.inject(CutAnswers(lasts=60))
    with pytest.raises(UnavailableError, match="does not answer"):
        driver.nodes()
    with pytest.raises(UnavailableError):
        driver.start(launch("b", node=1))
    with pytest.raises(UnavailableError):
        driver.stop("a", 1, grace_s=0)
    assert word(driver.status("a", 1)) == (Phase.UNKNOWN, "Unreachable")
    clock.time += 60
    assert driver.status("a", 1).phase is Phase.RUNNING
    assert driver.status("b", 1).phase is Phase.ABSENT


def test_answers_can_be_lost_for_a_while(cell: Build, clock: FakeClock) -> None:
    """While it lasts calls are carried out and fail."""
    driver = cell()
    driver.inject(LoseAnswers(lasts=60))
    with pytest.raises(UnavailableError):
        driver.start(launch("a"))
    assert driver.status("a", 1).phase is Phase.RUNNING
    clock.time += 60
    driver.stop("a", 1, grace_s=0)


def test_a_job_can_be_failed_by_name(cell: Build) -> None:
    """What runs under the name ends with the reason that was given."""
    driver = cell()
    driver.start(launch("a"))
    driver.inject(FailJob(job="a", reason="OutOfMemory"))
    assert word(driver.status("a", 1)) == (Phase.FAILED, "OutOfMemory")


@pytest.mark.parametrize(
    ("drill", "near"), [(KillNode(node="west-p-1000"), "west-p-100"), (FailJob(job="train-x"), "train-a")]
)
def test_drills_name_what_is_there(cell: Build, drill: Drill, near: str) -> None:
    """A name that nothing has is refused with the nearest one, and changes nothing."""
    driver = cell()
    driver.start(launch("train-a"))
    with pytest.raises(NotFoundError, match=f"did you mean '{near}'"):
        driver.inject(drill)
    assert driver.status("train-a", 1).phase is Phase.RUNNING
    assert not [node for node in driver.nodes() if node.lost]


def test_looking_changes_nothing(cell: Build, clock: FakeClock) -> None:
    """A world that is watched every minute and one that is looked at once, at the end, have the same history."""
    faults = {"nodeDeath": 20, "preemption": 20, "jobFailure": 0.3, "partialStart": 0.2, "slowStart": 0.3}
    watched, left_alone = (cell(capacity_type="preemptible", **faults) for _ in range(2))
    for index in range(60):
        for driver in (watched, left_alone):
            driver.start(launch(f"job-{index}", node=index * 3, workers=3))
    for _ in range(40):
        clock.time += 60
        watched.nodes()
        watched.status("job-0", 1)
    assert watched.history() == left_alone.history()
    assert watched.nodes() == left_alone.nodes()
    reasons = {span.reason for span in watched.history().spans}
    assert reasons >= {"Completed", "Error", "PartialStart", "NodeLost"}
