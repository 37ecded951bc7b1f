"""A control plane on a clock that tests turn, and a scripted cell that fails as real ones do."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from helios.control import CellGateway, ControlPlane, Desired, apply
from helios.errors import EngineError
from helios.ports import Launch, LaunchStatus, NodeObservation, Phase
from helios.spec import parse_documents
from helios.store import Record, Store, open_store

Key = tuple[str, int]
LIVE = {Phase.STARTING, Phase.RUNNING}
OVER = {"Succeeded", "Failed", "Cancelled"}


@dataclass
class FakeClock:
    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time


class InlineExecutor(Executor):
    """Calls at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed to whoever asks the future
            future.set_exception(error)
        return future


@dataclass
class FakeTracker:
    """Remembers which curricula were ended; fails as often as it is told to."""

    ended: list[tuple[str, bool]] = field(default_factory=list)
    failures: int = 0

    def end_curriculum(self, curriculum_uid: str, *, succeeded: bool) -> None:
        if self.failures:
            self.failures -= 1
            raise EngineError("the tracker does not answer")
        self.ended.append((curriculum_uid, succeeded))


class FakeCell:
    """A cell with its own memory, which outlives control planes: what really ran, when, and how it ended.

    `start` and `stop` are idempotent and fenced by epoch; what was stopped before it was started never starts. A work
    runs until the test ends it. An engine or a node that is lost takes all running work with it, and no exit is left
    behind; an exit that was written stays.
    """

    def __init__(
        self, name: str = "local", nodes: int = 1, cpus: float = 2, accelerators: dict[str, int] | None = None
    ) -> None:
        self.name = name
        self.nodes = [NodeObservation(f"{name}-{i}", "pool", cpus, 8 << 30, accelerators or {}) for i in range(nodes)]
        self.statuses: dict[Key, LaunchStatus] = {}
        self.launches: dict[Key, Launch] = {}
        self.highest: dict[str, int] = {}
        self.starts: Counter[str] = Counter()
        self.finished: set[str] = set()
        self.violations: list[str] = []
        self.stopped: set[Key] = set()
        self.slow_stop = False
        self.last: tuple[list[NodeObservation], list[LaunchStatus]] | None = None

    def live(self) -> list[Key]:
        return [key for key, status in self.statuses.items() if status.phase in LIVE]

    def key(self, name: str) -> Key:
        """The last launch of that name."""
        return max((key for key, launch in self.launches.items() if launch.name == name), key=lambda key: key[1])

    def start(self, launch: Launch) -> None:
        key = (launch.uid, launch.epoch)
        if launch.epoch < self.highest.get(launch.uid, 0) or key in self.launches or key in self.stopped:
            return
        if launch.uid in self.finished:
            self.violations.append(f"{launch.name} started again after it had finished")
        for other in [key for key in self.live() if key[0] == launch.uid]:
            if launch.kind == "Job":
                self.violations.append(f"{launch.name} runs twice: epochs {other[1]} and {launch.epoch}")
            self.end(other, Phase.STOPPED)
        self.highest[launch.uid] = launch.epoch
        self.launches[key] = launch
        self.starts[launch.name] += 1
        self.statuses[key] = LaunchStatus(launch.uid, launch.epoch, Phase.STARTING)
        self._check_room()

    def run(self, key: Key, **progress: Any) -> None:
        outputs = {"url": "http://127.0.0.1:9"} if self.launches[key].kind == "Service" else {}
        self.statuses[key] = LaunchStatus(*key, Phase.RUNNING, progress=progress, outputs=outputs)

    def end(self, key: Key, phase: Phase, reason: str = "", message: str = "", **outputs: str) -> None:
        self.statuses[key] = LaunchStatus(*key, phase, reason, message, outputs=outputs)
        if phase is Phase.SUCCEEDED:
            self.finished.add(key[0])

    def lose_engine(self) -> None:
        """All that runs is gone, and the engine remembers nothing of it."""
        for key in self.live():
            del self.statuses[key]

    def lose_node(self, name: str) -> None:
        """The node is gone, says the engine, and with it every gang that had a worker there."""
        self.nodes = [replace(node, lost=True, healthy=False) if node.name == name else node for node in self.nodes]
        for key in [key for key in self.live() if name in self.launches[key].nodes]:
            del self.statuses[key]

    def heal(self) -> None:
        """All nodes are back, with nothing on those that were lost."""
        self.nodes = [replace(node, lost=False, healthy=True) for node in self.nodes]

    def status(self, key: Key) -> LaunchStatus:
        return self.statuses.get(key, LaunchStatus(*key, Phase.ABSENT))

    def obey(self, desired: Desired) -> list[LaunchStatus]:
        """Start and stop what is asked, and look at all of it."""
        for launch in desired.launches:
            self.start(launch)
        for stop in desired.stops:
            key = (stop.uid, stop.epoch)
            self.highest[stop.uid] = max(self.highest.get(stop.uid, 0), stop.epoch)
            self.stopped.add(key)
            if self.status(key).phase in LIVE and not self.slow_stop:
                self.end(key, Phase.STOPPED)
        asked = [(launch.uid, launch.epoch) for launch in desired.launches]
        stops = [(stop.uid, stop.epoch) for stop in desired.stops]
        # It also tells of what it runs unasked: that is how orphans are found.
        keys = dict.fromkeys(asked + stops + self.live())
        return [replace(self.status(key), stopping=key in stops) for key in keys]

    def step(self, gateway: CellGateway, *, lost: bool = False, twice: bool = False) -> None:
        """One round of the agent; its report may be lost, or sent twice."""
        statuses = self.obey(gateway.desired(self.name))
        self.last = (self.nodes, statuses)
        if not lost:
            gateway.report(self.name, self.nodes, statuses)
        if twice:
            gateway.report(self.name, self.nodes, statuses)

    def _check_room(self) -> None:
        used = sum(
            _cpus(self.launches[key]) * self.launches[key].workers for key in self.live() if key in self.launches
        )
        room = sum(node.cpus for node in self.nodes)
        if used > room + 1e-9:
            self.violations.append(f"{used} of {room} cpus in use")


def _cpus(launch: Launch) -> float:
    return float(launch.spec["resources"]["cpus"])


class Fleet:
    """Store, clock, control plane and cells of one test."""

    def __init__(self, folder: Path, *cells: FakeCell) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.tracker = FakeTracker()
        self.store: Store = open_store(folder / "helios.db", clock=self.clock)
        self.plane = self.new_plane()
        self.cells = {cell.name: cell for cell in cells or (FakeCell(),)}
        for name in self.cells:
            self.apply(f"{{kind: Cell, metadata: {{name: {name}}}, spec: {{provider: simulated, nodePools: "
                       "[{name: pool, capacityType: reserved, nodes: 1}]}}")  # fmt: skip
        self.settle(1)

    @property
    def cell(self) -> FakeCell:
        return next(iter(self.cells.values()))

    def new_plane(self, store: Store | None = None) -> ControlPlane:
        return ControlPlane(store or self.store, self.clock, self.tracker, executor=InlineExecutor())

    def restart(self) -> None:
        """The control plane dies and another one starts over what it left on disk."""
        self.store.close()
        self.store = open_store(self.folder / "helios.db", clock=self.clock)
        self.plane = self.new_plane()

    def apply(self, text: str) -> Record:
        (loaded,) = parse_documents("apiVersion: helios/v1\n" + _block(text))
        return apply(self.store, loaded.document).record

    def job(self, name: str = "job", **spec: Any) -> Record:
        return self.apply(_json({"kind": "Job", "metadata": {"name": name}, "spec": {"entrypoint": "true", **spec}}))

    def curriculum(
        self, name: str = "tiny", stages: Sequence[str | dict[str, Any]] = ("one", "two"), **spec: Any
    ) -> Record:
        body: dict[str, Any] = {"defaults": {"entrypoint": "true"}, **spec}
        body["stages"] = [{"name": stage} if isinstance(stage, str) else stage for stage in stages]
        return self.apply(_json({"kind": "Curriculum", "metadata": {"name": name}, "spec": body}))

    def service(self, name: str = "avatar", **spec: Any) -> Record:
        body = {"application": "package.module:build", **spec}
        return self.apply(_json({"kind": "Service", "metadata": {"name": name}, "spec": body}))

    def round(self) -> None:
        """The control plane looks once, then every cell does."""
        self.plane.tick()
        for cell in self.cells.values():
            cell.step(self.plane.gateway)

    def settle(self, rounds: int = 6) -> None:
        for _ in range(rounds):
            self.round()
        self.plane.tick()

    def running(self, name: str) -> Key:
        """Bring the job or service of that name to life; its launch."""
        self.settle(2)
        key = self.cell.key(name)
        self.cell.run(key)
        self.settle(2)
        return key

    def end(self, name: str, phase: Phase = Phase.SUCCEEDED, reason: str = "", **outputs: str) -> None:
        """Bring the job to life and end it."""
        self.cell.end(self.running(name), phase, reason, **outputs)
        self.settle(3)

    def state(self, name: str, kind: str = "Job") -> str:
        return self.store.get(kind, name).state

    def status(self, name: str, kind: str = "Job") -> dict[str, Any]:
        return dict(self.store.get(kind, name).status)

    def reasons(self, name: str, kind: str = "Job") -> list[str]:
        """Typed reasons of all events of the object, in order."""
        return [event.reason for event in self.store.events(kind=kind, name=name)]

    def advance(self, seconds: float) -> None:
        self.clock.time += seconds


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document)


def _block(text: str) -> str:
    return yaml.safe_dump(yaml.safe_load(text))


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: these tests write thousands of times and none of them cuts the power."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared, prefix="helios-") as folder:
        yield Path(folder)


@pytest.fixture
def make_fleet(memory_folder: Path) -> Iterator[Callable[..., Fleet]]:
    """Builds a `Fleet`; cells are described by keyword arguments of `FakeCell`."""
    fleets: list[Fleet] = []

    def build(*cells: dict[str, Any]) -> Fleet:
        folder = memory_folder / str(len(fleets))
        folder.mkdir()
        fleets.append(Fleet(folder, *(FakeCell(**cell) for cell in cells)))
        return fleets[-1]

    yield build
    for fleet in fleets:
        fleet.store.close()


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Iterator[Fleet]:
    """One cell with one node of two cores. No test may leave a failure of a controller behind."""
    built = make_fleet()
    yield built
    errors = [event for event in built.store.events(limit=100_000) if event.reason == "ControllerError"]
    assert not errors
    assert not built.cell.violations
