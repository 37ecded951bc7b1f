"""The agent converges its cell to what is wanted, and says what it sees, launch by launch."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from helios.agent.cell import CellAgent
from helios.control import CellGateway, Desired, Stop
from helios.errors import ConflictError, UnavailableError
from helios.ports import Launch, LaunchStatus, NodeObservation, Phase

NODE = NodeObservation(name="n0", pool="p", cpus=2.0, memory=1)


class FakeGateway(CellGateway):
    """Wants what the test says, and keeps the last report."""

    def __init__(self) -> None:
        self.wanted = Desired()
        self.nodes: Sequence[NodeObservation] | None = None
        self.statuses: dict[tuple[str, int], LaunchStatus] = {}

    def desired(self, cell: str) -> Desired:
        assert cell == "c"
        return self.wanted

    def wait(self, cell: str, known: Desired, timeout: float) -> Desired:
        assert timeout > 0
        return self.desired(cell)

    def report(self, cell: str, nodes: Sequence[NodeObservation] | None, statuses: Sequence[LaunchStatus] = ()) -> None:
        self.nodes = nodes
        self.statuses = {(status.uid, status.epoch): status for status in statuses}


class FakeDriver:
    """Runs nothing; starts and stops change what `status` says, and a test may make any call go wrong."""

    def __init__(self) -> None:
        self.phases: dict[tuple[str, int], Phase] = {}
        self.starts: list[tuple[str, int]] = []
        self.before_start: dict[str, Callable[[], None]] = {}
        self.down = False

    def nodes(self) -> Sequence[NodeObservation]:
        if self.down:
            raise UnavailableError("no engine")
        return (NODE,)

    def start(self, launch: Launch) -> None:
        self.before_start.get(launch.uid, lambda: None)()
        if (launch.uid, launch.epoch) not in self.phases:
            self.starts.append((launch.uid, launch.epoch))
            self.phases[launch.uid, launch.epoch] = Phase.RUNNING

    def stop(self, uid: str, epoch: int, *, grace_s: float) -> None:
        assert grace_s == 30.0
        self.phases[uid, epoch] = Phase.STOPPED

    def status(self, uid: str, epoch: int) -> LaunchStatus:
        return LaunchStatus(uid=uid, epoch=epoch, phase=self.phases.get((uid, epoch), Phase.ABSENT))

    def logs(self, uid: str, epoch: int, *, offset: int) -> tuple[bytes, int]:
        raise NotImplementedError


def launch(uid: str, epoch: int = 1) -> Launch:
    return Launch(kind="Job", name=uid, uid=uid, epoch=epoch, spec={}, workers=1, nodes=("n0",))


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def agent(gateway: FakeGateway, driver: FakeDriver, tmp_path: Path) -> CellAgent:
    return CellAgent(gateway, driver, cell="c", state_dir=tmp_path, patience_s=2.0)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that a hanging call waits for; opened at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def test_starts_once_and_reports_every_time(agent: CellAgent, gateway: FakeGateway, driver: FakeDriver) -> None:
    """A wanted launch is started once, and its status and the nodes are in every report."""
    gateway.wanted = Desired(launches=(launch("a"),))
    for _ in range(3):
        agent.tick()
        assert gateway.statuses["a", 1].phase is Phase.RUNNING
        assert gateway.nodes == (NODE,)
    assert driver.starts == [("a", 1)]


def test_stops_what_is_to_stop(agent: CellAgent, gateway: FakeGateway) -> None:
    """A stop is carried out with its grace, and reported until nobody asks any more."""
    gateway.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    gateway.wanted = Desired(stops=(Stop("a", 1, 30.0, "Cancelled"),))
    agent.tick()
    assert gateway.statuses["a", 1].phase is Phase.STOPPED
    gateway.wanted = Desired()
    agent.tick()
    assert gateway.statuses == {}


def test_broken_launch_holds_up_no_other(agent: CellAgent, gateway: FakeGateway, driver: FakeDriver) -> None:
    """An error of one launch is said of that one as Unknown; the others go on."""

    def broken() -> None:
        raise RuntimeError("disk on fire")

    driver.before_start["bad"] = broken
    gateway.wanted = Desired(launches=(launch("bad"), launch("good")))
    agent.tick()
    assert gateway.statuses["bad", 1].phase is Phase.UNKNOWN
    assert "disk on fire" in gateway.statuses["bad", 1].message
    assert gateway.statuses["good", 1].phase is Phase.RUNNING


def test_hanging_launch_holds_up_no_other(
    gateway: FakeGateway, driver: FakeDriver, tmp_path: Path, gate: threading.Event
) -> None:
    """A call that hangs is left alone and not made twice; the others are reported meanwhile."""
    agent = CellAgent(gateway, driver, cell="c", state_dir=tmp_path, patience_s=0.2)
    driver.before_start["slow"] = lambda: (gate.wait(), None)[1]
    gateway.wanted = Desired(launches=(launch("slow"), launch("good")))
    agent.tick()
    agent.tick()
    assert gateway.statuses.keys() == {("good", 1)}
    gate.set()
    agent.tick()
    assert gateway.statuses["slow", 1].phase is Phase.RUNNING
    assert sorted(driver.starts) == [("good", 1), ("slow", 1)]


def test_what_was_seen_before_a_stop_confirms_nothing(
    gateway: FakeGateway, driver: FakeDriver, tmp_path: Path, gate: threading.Event
) -> None:
    """A look that began before the stop was asked for is not taken as the answer to it."""
    agent = CellAgent(gateway, driver, cell="c", state_dir=tmp_path, patience_s=0.2)
    driver.before_start["slow"] = lambda: (gate.wait(), None)[1]
    gateway.wanted = Desired(launches=(launch("slow"),))
    agent.tick()
    gateway.wanted = Desired(stops=(Stop("slow", 1, 30.0, "EngineLost"),))
    agent.tick()
    gate.set()
    agent.tick()
    assert gateway.statuses == {}
    agent.tick()
    assert gateway.statuses["slow", 1].phase is Phase.STOPPED


def test_engine_away_is_said_and_nothing_is_failed(agent: CellAgent, gateway: FakeGateway, driver: FakeDriver) -> None:
    """Without an engine the agent reports no nodes, and a launch that cannot start yet is absent, not failed."""

    def away() -> None:
        raise UnavailableError("no engine")

    driver.down = True
    driver.before_start["a"] = away
    gateway.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    assert gateway.nodes is None
    assert gateway.statuses["a", 1].phase is Phase.ABSENT


def test_agent_outlives_what_a_tick_meets(agent: CellAgent, gateway: FakeGateway, driver: FakeDriver) -> None:
    """A disk that is full for a moment, or a driver that breaks over its nodes, does not silence the cell for ever."""
    stop, reported = threading.Event(), threading.Event()
    report, observe = gateway.report, driver.nodes
    failures = iter([OSError(28, "No space left on device"), ValueError("no such device")])

    def once(error: Exception | None) -> None:
        if error is not None:
            raise error

    def report_or_fail(cell: str, nodes: Sequence[NodeObservation] | None, statuses: Sequence[LaunchStatus]) -> None:
        once(next(failures, None))
        report(cell, nodes, statuses)
        if nodes is not None:
            reported.set()

    def nodes_or_fail() -> Sequence[NodeObservation]:
        once(next(failures, None))
        return observe()

    gateway.report, driver.nodes = report_or_fail, nodes_or_fail  # type: ignore[method-assign, assignment]  # breaks them
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    seen = reported.wait(timeout=20)
    stop.set()
    thread.join(timeout=20)
    assert seen
    assert gateway.nodes == (NODE,)


def test_fenced_epoch_is_reported(agent: CellAgent, gateway: FakeGateway, driver: FakeDriver) -> None:
    """An epoch that the cell refuses comes back as Failed, reason Fenced."""

    def fenced() -> None:
        raise ConflictError("epoch 1 is fenced")

    driver.before_start["a"] = fenced
    gateway.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    assert (gateway.statuses["a", 1].phase, gateway.statuses["a", 1].reason) == (Phase.FAILED, "Fenced")


def test_strays_are_reported_also_after_a_restart(
    agent: CellAgent, gateway: FakeGateway, driver: FakeDriver, tmp_path: Path
) -> None:
    """A launch that lives here and that nobody wants is still reported by the next agent process."""
    gateway.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    gateway.wanted = Desired()
    restarted = CellAgent(gateway, driver, cell="c", state_dir=tmp_path)
    restarted.tick()
    assert gateway.statuses["a", 1].phase is Phase.RUNNING
    driver.phases["a", 1] = Phase.SUCCEEDED
    restarted.tick()
    restarted.tick()
    assert gateway.statuses == {}
