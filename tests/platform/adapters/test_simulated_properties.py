"""Whatever is asked of a simulated cell, and however often its agent dies meanwhile, some things never happen."""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helios.adapters.simulated import CutAnswers, KillNode, PreemptNode, RefuseCapacity, ReviveNode, SimulatedDriver
from helios.adapters.simulated.course import Start
from helios.errors import ConflictError, UnavailableError
from helios.ports import Launch, LaunchStatus, NodeObservation, Phase
from helios.spec import CellSpec

NODES = 4
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
OVER = {Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED}
SPEC = CellSpec.model_validate(
    {
        "provider": "simulated",
        "nodePools": [
            {"name": "p", "capacityType": "preemptible", "accelerators": "A100:8", "nodes": NODES},
        ],
        "simulation": {
            "seed": 3,
            "start": "3s",
            "faults": {
                "capacity": 0.1,
                "partialStart": 0.1,
                "lostResponse": 0.2,
                "slowStart": 0.2,
                "nodeDeath": 200,
                "nodeRepair": "100s",
                "preemption": 200,
                "jobFailure": 0.2,
            },
        },
    }
)
uids = st.sampled_from(["a", "b", "c"])
epochs = st.integers(1, 6)
nodes = st.integers(0, NODES - 1)


@dataclass
class FakeClock:
    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time


@dataclass
class Asked:
    """What the machine asked for, to compare with what the cell says."""

    final: dict[tuple[str, int], LaunchStatus] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    forbidden: set[tuple[str, int]] = field(default_factory=set)


class SimulatedCell(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(prefix="helios-", dir=MEMORY)
        self.clock = FakeClock()
        self.asked = Asked()
        self.opened: list[SimulatedDriver] = []
        self.reopen()

    @rule()
    def reopen(self) -> None:
        """The agent dies without a word; another one opens the same world."""
        path = Path(self.folder.name)
        self.driver = SimulatedDriver.open(name="c", spec=SPEC, folder=path, clock=self.clock)
        self.opened.append(self.driver)

    @rule(uid=uids, epoch=epochs, node=nodes, workers=st.integers(1, 2), gpus=st.integers(1, 8))
    def start(self, uid: str, epoch: int, node: int, workers: int, gpus: int) -> None:
        run = {"run": "200s", "checkpointEvery": "20s"}
        spec = {"entrypoint": "true", "resources": {"accelerators": f"A100:{gpus}"}, "config": {"simulation": run}}
        where = tuple(f"c-p-{(node + index) % NODES}" for index in range(workers))
        known = self.driver.status(uid, epoch).phase
        try:
            self.driver.start(Launch("Job", uid, uid, epoch, spec, workers, where))
        except UnavailableError:
            pass
        except ConflictError:
            assert epoch < self.asked.highest[uid]
            assert self.driver.status(uid, epoch).phase is known
            return
        if known is not Phase.UNKNOWN and self.driver.status(uid, epoch).phase is not Phase.ABSENT:
            assert epoch >= self.asked.highest[uid]
            self.asked.highest[uid] = epoch

    @rule(uid=uids, epoch=epochs, grace=st.sampled_from([0.0, 0.5, 30.0]))
    def stop(self, uid: str, epoch: int, grace: float) -> None:
        before = self.driver.status(uid, epoch).phase
        with suppress(UnavailableError):
            self.driver.stop(uid, epoch, grace_s=grace)
        if before is Phase.ABSENT:
            self.asked.forbidden.add((uid, epoch))
            self.asked.highest[uid] = max(self.asked.highest[uid], epoch)

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 60.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.clock.time += seconds

    @rule(node=nodes, drill=st.sampled_from([KillNode, PreemptNode, ReviveNode]))
    def touch_node(self, node: int, drill: type[KillNode | PreemptNode | ReviveNode]) -> None:
        self.driver.inject(drill(node=f"c-p-{node}"))

    @rule(drill=st.sampled_from([RefuseCapacity(lasts=20), CutAnswers(lasts=20)]))
    def disturb(self, drill: RefuseCapacity | CutAnswers) -> None:
        self.driver.inject(drill)

    @invariant()
    def epochs_take_turns(self) -> None:
        """Of one uid, one start at a time is alive, and later ones have higher epochs."""
        spans = defaultdict(list)
        for span in self.driver.history().spans:
            spans[span.uid].append(span)
        for some in spans.values():
            turns = sorted((span for span in some if span.until > span.since), key=lambda span: span.epoch)
            for earlier, later in pairwise(turns):
                assert earlier.until <= later.since

    @invariant()
    def nodes_hold_what_they_have(self) -> None:
        """At no moment of its history does a node hold more devices than it has, nor a lost one anything."""
        starts = [start for start in self.driver._database.starts() if start.over_at > start.started_at]
        for moment in {start.started_at for start in starts}:
            for node, used in _used(starts, moment):
                assert used <= 8, (node, moment)
        lost = {node.name for node in self._nodes() if node.lost}
        assert not [start for start in self.driver._world.live() if lost.intersection(start.nodes)]

    @invariant()
    def an_end_is_an_end(self) -> None:
        """What is over stays as it was, what was forbidden never ran, and no checkpoint is lost."""
        for uid in ("a", "b", "c"):
            for epoch in range(1, 7):
                status = self.driver.status(uid, epoch)
                if status.phase is Phase.UNKNOWN:
                    return
                if status.phase in OVER:
                    assert self.asked.final.setdefault((uid, epoch), status) == status
                if (uid, epoch) in self.asked.forbidden and status.phase is not Phase.ABSENT:
                    assert (status.phase, status.progress) == (Phase.STOPPED, {})
                step = int(status.progress.get("checkpoint_step", 0))
                assert int(status.progress.get("step", step)) >= step
                if status.phase in OVER:
                    assert self.driver._database.checkpoint(uid) >= step

    def _nodes(self) -> Iterator[NodeObservation]:
        with suppress(UnavailableError):
            yield from self.driver.nodes()

    def teardown(self) -> None:
        for driver in self.opened:
            driver.close()
        self.folder.cleanup()


def _used(starts: list[Start], moment: float) -> Iterator[tuple[str, int]]:
    used: dict[str, int] = defaultdict(int)
    for start in starts:
        if start.started_at <= moment < start.over_at:
            for node in start.nodes:
                used[node] += start.request.accelerators
    yield from used.items()


SimulatedCell.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSimulatedCell = SimulatedCell.TestCase
