"""The agent converges its cell to what is wanted, and says what it sees, launch by launch."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helios.agent.cell import CellAgent
from helios.agent.findings import write_findings
from helios.agent.logs import LogPusher
from helios.agent.outbox import HEARTBEAT_S
from helios.errors import ConflictError, FencedError, InputError, UnavailableError
from helios.ports import (
    Desired,
    HealthAction,
    HealthFinding,
    Launch,
    LaunchStatus,
    LogWant,
    NodeObservation,
    Phase,
    Session,
    Stop,
)

NODE = NodeObservation(name="n0", pool="p", cpus=2.0, memory=1)


class FakeChannel:
    """Wants what the test says, keeps the last report, and refuses what is older than what it has heard."""

    def __init__(self) -> None:
        self.wanted = Desired()
        self.nodes: Sequence[NodeObservation] | None = None
        self.statuses: dict[tuple[str, int], LaunchStatus] = {}
        self.sessions: list[Session] = []
        self.logs: dict[tuple[str, int], bytes] = {}
        self.ended: set[tuple[str, int]] = set()
        self.away = False
        self.moved = threading.Condition()

    def want(self, *launches: Launch, stops: tuple[Stop, ...] = (), logs: tuple[LogWant, ...] = ()) -> None:
        with self.moved:
            self.wanted = Desired(launches, stops, logs)
            self.moved.notify_all()

    def desired(self, cell: str) -> Desired:
        assert cell == "c"
        self._answer()
        return self.wanted

    def wait(self, cell: str, known: Desired, timeout: float) -> Desired:
        assert timeout > 0
        with self.moved:
            self.moved.wait_for(lambda: self.wanted != known or self.away, timeout=min(timeout, 0.5))
        return self.desired(cell)

    def report(
        self,
        cell: str,
        nodes: Sequence[NodeObservation] | None,
        statuses: Sequence[LaunchStatus] = (),
        *,
        session: Session = Session(),  # noqa: B008  # frozen
    ) -> None:
        self._answer()
        if self.sessions and session.generation < self.sessions[-1].generation:
            raise FencedError(f"generation {session.generation} of cell {cell} was replaced")
        with self.moved:
            self.sessions.append(session)
            self.nodes = nodes
            self.statuses = {(status.uid, status.epoch): status for status in statuses}
            self.moved.notify_all()

    def push_log(self, cell: str, uid: str, epoch: int, *, offset: int, data: bytes, ended: bool) -> None:
        self._answer()
        with self.moved:
            here = self.logs.get((uid, epoch), b"")
            assert offset <= len(here), "a hole in the log"
            assert len(data) <= 256 * 1024
            self.logs[uid, epoch] = here[:offset] + data
            if ended:
                self.ended.add((uid, epoch))
            self.moved.notify_all()

    def until(self, found: Callable[[], bool], *, timeout: float = 20.0) -> None:
        with self.moved:
            assert self.moved.wait_for(found, timeout=timeout), "it did not come"

    def _answer(self) -> None:
        if self.away:
            raise UnavailableError("the control plane is away")


class FakeDriver:
    """Runs nothing; starts and stops change what `status` says, and a test may make any call go wrong."""

    def __init__(self) -> None:
        self.phases: dict[tuple[str, int], Phase] = {}
        self.starts: list[tuple[str, int]] = []
        self.before_start: dict[str, Callable[[], None]] = {}
        self.down = False
        self.printed: dict[tuple[str, int], bytes] = {}
        self.looks: Counter[tuple[str, int]] = Counter()

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
        self.looks[uid, epoch] += 1
        return LaunchStatus(uid=uid, epoch=epoch, phase=self.phases.get((uid, epoch), Phase.ABSENT))

    def logs(self, uid: str, epoch: int, *, offset: int) -> tuple[bytes, int]:
        data = self.printed.get((uid, epoch), b"")[offset : offset + 2**20]
        return data, offset + len(data)


def launch(uid: str, epoch: int = 1) -> Launch:
    return Launch(kind="Job", name=uid, uid=uid, epoch=epoch, spec={}, workers=1, nodes=("n0",))


@pytest.fixture
def channel() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def agent(channel: FakeChannel, driver: FakeDriver, tmp_path: Path) -> CellAgent:
    return CellAgent(channel, driver, cell="c", state_dir=tmp_path, patience_s=2.0)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that a hanging call waits for; opened at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def test_starts_once_and_reports_every_time(agent: CellAgent, channel: FakeChannel, driver: FakeDriver) -> None:
    """A wanted launch is started once, and its status and the nodes are in every report."""
    channel.wanted = Desired(launches=(launch("a"),))
    for _ in range(3):
        agent.tick()
        assert channel.statuses["a", 1].phase is Phase.RUNNING
        assert channel.nodes == (NODE,)
    assert driver.starts == [("a", 1)]


def test_stops_what_is_to_stop(agent: CellAgent, channel: FakeChannel) -> None:
    """A stop is carried out with its grace, and reported until nobody asks any more."""
    channel.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    channel.wanted = Desired(stops=(Stop("a", 1, 30.0, "Cancelled"),))
    agent.tick()
    assert channel.statuses["a", 1].phase is Phase.STOPPED
    channel.wanted = Desired()
    agent.tick()
    assert channel.statuses == {}


def test_broken_launch_holds_up_no_other(agent: CellAgent, channel: FakeChannel, driver: FakeDriver) -> None:
    """An error of one launch is said of that one as Unknown; the others go on."""

    def broken() -> None:
        raise RuntimeError("disk on fire")

    driver.before_start["bad"] = broken
    channel.wanted = Desired(launches=(launch("bad"), launch("good")))
    agent.tick()
    assert channel.statuses["bad", 1].phase is Phase.UNKNOWN
    assert "disk on fire" in channel.statuses["bad", 1].message
    assert channel.statuses["good", 1].phase is Phase.RUNNING


def test_hanging_launch_holds_up_no_other(
    channel: FakeChannel, driver: FakeDriver, tmp_path: Path, gate: threading.Event
) -> None:
    """A call that hangs is left alone and not made twice; the others are reported meanwhile."""
    agent = CellAgent(channel, driver, cell="c", state_dir=tmp_path, patience_s=0.2)
    driver.before_start["slow"] = lambda: (gate.wait(), None)[1]
    channel.wanted = Desired(launches=(launch("slow"), launch("good")))
    agent.tick()
    agent.tick()
    assert channel.statuses.keys() == {("good", 1)}
    gate.set()
    agent.tick()
    assert channel.statuses["slow", 1].phase is Phase.RUNNING
    assert sorted(driver.starts) == [("good", 1), ("slow", 1)]


def test_what_was_seen_before_a_stop_confirms_nothing(
    channel: FakeChannel, driver: FakeDriver, tmp_path: Path, gate: threading.Event
) -> None:
    """A look that began before the stop was asked for is not taken as the answer to it."""
    agent = CellAgent(channel, driver, cell="c", state_dir=tmp_path, patience_s=0.2)
    driver.before_start["slow"] = lambda: (gate.wait(), None)[1]
    channel.wanted = Desired(launches=(launch("slow"),))
    agent.tick()
    channel.wanted = Desired(stops=(Stop("slow", 1, 30.0, "EngineLost"),))
    agent.tick()
    gate.set()
    agent.tick()
    assert channel.statuses == {}
    agent.tick()
    assert channel.statuses["slow", 1].phase is Phase.STOPPED


def test_engine_away_is_said_and_nothing_is_failed(
    agent: CellAgent, channel: FakeChannel, driver: FakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    """Without an engine the agent reports no nodes, and a launch that cannot start yet is absent, not failed."""

    def away() -> None:
        raise UnavailableError("no engine")

    caplog.set_level("INFO")
    driver.down = True
    driver.before_start["a"] = away
    channel.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    agent.tick()
    assert channel.nodes is None
    assert channel.statuses["a", 1].phase is Phase.ABSENT
    assert caplog.text.count("a epoch 1: no engine") == 1, "told once, not with every look"


def test_agent_outlives_what_a_tick_meets(agent: CellAgent, channel: FakeChannel, driver: FakeDriver) -> None:
    """A disk that is full for a moment, or a driver that breaks over its nodes, does not silence the cell for ever."""
    stop, reported = threading.Event(), threading.Event()
    report, observe = channel.report, driver.nodes
    failures = iter([OSError(28, "No space left on device"), ValueError("no such device")])

    def once(error: Exception | None) -> None:
        if error is not None:
            raise error

    def report_or_fail(cell: str, nodes: Any, statuses: Any, *, session: Session) -> None:
        once(next(failures, None))
        report(cell, nodes, statuses, session=session)
        if nodes is not None:
            reported.set()

    def nodes_or_fail() -> Sequence[NodeObservation]:
        once(next(failures, None))
        return observe()

    channel.report, driver.nodes = report_or_fail, nodes_or_fail  # type: ignore[method-assign, assignment]  # breaks them
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    seen = reported.wait(timeout=20)
    stop.set()
    thread.join(timeout=20)
    assert seen
    assert channel.nodes == (NODE,)


def test_fenced_epoch_is_reported(agent: CellAgent, channel: FakeChannel, driver: FakeDriver) -> None:
    """An epoch that the cell refuses comes back as Failed, reason Fenced."""

    def fenced() -> None:
        raise ConflictError("epoch 1 is fenced")

    driver.before_start["a"] = fenced
    channel.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    assert (channel.statuses["a", 1].phase, channel.statuses["a", 1].reason) == (Phase.FAILED, "Fenced")


def test_strays_are_reported_also_after_a_restart(
    agent: CellAgent, channel: FakeChannel, driver: FakeDriver, tmp_path: Path
) -> None:
    """A launch that lives here and that nobody wants is still reported by the next agent process."""
    channel.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    channel.wanted = Desired()
    restarted = CellAgent(channel, driver, cell="c", state_dir=tmp_path)
    restarted.tick()
    assert channel.statuses["a", 1].phase is Phase.RUNNING
    driver.phases["a", 1] = Phase.SUCCEEDED
    restarted.tick()
    restarted.tick()
    assert channel.statuses == {}


def test_what_was_seen_after_a_stop_says_so(agent: CellAgent, channel: FakeChannel) -> None:
    """Only a look that followed the order to stop is marked as one: `Absent` then says that it is over."""
    channel.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    assert [status.stopping for status in channel.statuses.values()] == [False]
    channel.wanted = Desired(stops=(Stop("a", 1, 30.0, "Cancelled"), Stop("never-started", 1, 30.0, "Cancelled")))
    agent.tick()
    assert [status.stopping for status in channel.statuses.values()] == [True, True]


def test_ended_jobs_are_not_looked_at_again(agent: CellAgent, channel: FakeChannel, driver: FakeDriver) -> None:
    """A job that is over is reported for as long as it is asked for, and its engine is not asked again."""
    channel.wanted = Desired(launches=(launch("a"),))
    driver.phases["a", 1] = Phase.SUCCEEDED
    for _ in range(3):
        agent.tick()
        assert channel.statuses["a", 1].phase is Phase.SUCCEEDED
    assert driver.looks["a", 1] == 1


def test_lower_epoch_than_what_lives_is_refused(agent: CellAgent, channel: FakeChannel, driver: FakeDriver) -> None:
    """While a later start of the same job lives here, an earlier one is not begun."""
    channel.wanted = Desired(launches=(launch("a", epoch=3),))
    agent.tick()
    channel.wanted = Desired(launches=(launch("a", epoch=2),))
    agent.tick()
    assert channel.statuses["a", 2].reason == "Fenced"
    assert driver.starts == [("a", 3)]


def test_every_start_has_a_higher_generation(channel: FakeChannel, driver: FakeDriver, tmp_path: Path) -> None:
    """The generation rises with every start, is on disk before anything is said, and reports count up from 1."""
    clock = SimpleNamespace(now=lambda: 1000.0)
    for expected in (1000, 1001, 1002):
        agent = CellAgent(channel, driver, cell="c", state_dir=tmp_path, clock=clock)
        assert json.loads((tmp_path / "agent.json").read_text())["generation"] == expected
        agent.tick()
        agent.tick()
        assert [(item.generation, item.sequence) for item in channel.sessions[-2:]] == [(expected, 1), (expected, 2)]
        assert channel.sessions[-1].sent_at == 1000.0
        assert channel.sessions[-1].version


def test_agent_whose_state_was_lost_is_no_less_new(channel: FakeChannel, driver: FakeDriver, tmp_path: Path) -> None:
    """An agent on another machine, or with an empty disk, is not taken for an older one."""
    CellAgent(channel, driver, cell="c", state_dir=tmp_path / "a", clock=SimpleNamespace(now=lambda: 1000.0)).tick()
    CellAgent(channel, driver, cell="c", state_dir=tmp_path / "b", clock=SimpleNamespace(now=lambda: 1060.0)).tick()
    assert channel.sessions[-1].generation == 1060


def test_state_that_cannot_be_kept_keeps_an_agent_from_starting(
    channel: FakeChannel, driver: FakeDriver, tmp_path: Path
) -> None:
    """Without a place for its generation an agent says so instead of beginning."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"agent\.json cannot be written"):
        CellAgent(channel, driver, cell="c", state_dir=tmp_path / "file")


@contextmanager
def running(agent: CellAgent) -> Iterator[list[BaseException]]:
    """The agent at work in a thread; yields what it raised, once it has."""
    stop, raised = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            agent.run(stop)
        except FencedError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_news_and_ends_are_told_at_once(agent: CellAgent, channel: FakeChannel, driver: FakeDriver) -> None:
    """What is wanted is started without waiting for the next look, and an end is reported without being asked for."""
    with running(agent):
        channel.until(lambda: channel.nodes == (NODE,))
        channel.want(launch("a"))
        channel.until(lambda: ("a", 1) in channel.statuses and channel.statuses["a", 1].phase is Phase.RUNNING)
        driver.phases["a", 1] = Phase.SUCCEEDED
        channel.until(lambda: channel.statuses["a", 1].phase is Phase.SUCCEEDED)


def test_first_report_knows_the_nodes(agent: CellAgent, channel: FakeChannel) -> None:
    """A fresh agent does not say that the engine is away before it has asked it."""
    with running(agent):
        channel.until(lambda: bool(channel.sessions))
        assert channel.nodes == (NODE,)


def test_silence_is_never_longer_than_a_few_seconds(agent: CellAgent, channel: FakeChannel) -> None:
    """Where nothing changes there is a report every few seconds all the same, and not many more."""
    with running(agent):
        channel.until(lambda: len(channel.sessions) >= 3)
        sent = [item.sent_at for item in channel.sessions]
    assert sent[2] - sent[1] == pytest.approx(HEARTBEAT_S, abs=1.5)


def test_cell_goes_on_without_the_control_plane(
    agent: CellAgent, channel: FakeChannel, driver: FakeDriver, tmp_path: Path
) -> None:
    """While nobody can be asked nothing is stopped, an end is kept, and it is told when somebody hears again."""
    with running(agent):
        channel.want(launch("a"), launch("b"))
        channel.until(lambda: {("a", 1), ("b", 1)} <= channel.statuses.keys())
        heard = len(channel.sessions)
        channel.away = True
        driver.phases["a", 1] = Phase.SUCCEEDED
        looked = driver.looks["a", 1]
        deadline = time.monotonic() + 20
        while driver.looks["a", 1] < looked + 1:
            assert time.monotonic() < deadline
            threading.Event().wait(0.05)
        assert driver.phases["b", 1] is Phase.RUNNING
        assert len(channel.sessions) == heard
        assert ["a", 1] in json.loads((tmp_path / "agent.json").read_text())["live"], "not forgotten before it is heard"
        channel.away = False
        channel.until(lambda: channel.statuses["a", 1].phase is Phase.SUCCEEDED)
        assert channel.statuses["b", 1].phase is Phase.RUNNING


def test_replaced_agent_leaves_and_touches_nothing(
    channel: FakeChannel, driver: FakeDriver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two agents of a cell the earlier one stops by itself, and what runs goes on under the later one."""
    early = CellAgent(channel, driver, cell="c", state_dir=tmp_path)
    with running(early) as raised:
        channel.want(launch("a"))
        channel.until(lambda: ("a", 1) in channel.statuses)
        late = CellAgent(channel, driver, cell="c", state_dir=tmp_path)
        late.tick()
        deadline = time.monotonic() + 20
        while not raised:
            assert time.monotonic() < deadline, "the earlier agent goes on"
            threading.Event().wait(0.05)
    assert "another agent" in str(raised[0])
    assert "another agent has taken over" in caplog.text
    assert driver.phases == {("a", 1): Phase.RUNNING}
    late.tick()
    assert channel.statuses["a", 1].phase is Phase.RUNNING


def test_paused_agent_asks_before_it_acts(channel: FakeChannel, driver: FakeDriver, tmp_path: Path) -> None:
    """An agent that stood still starts nothing of what it was told before."""
    agent = CellAgent(channel, driver, cell="c", state_dir=tmp_path)
    agent._desired = Desired(launches=(launch("stale"),))
    agent._passed_at -= 3600.0
    agent._pass()
    assert driver.starts == []
    agent._desired = Desired(launches=(launch("fresh"),))
    agent._pass()
    assert driver.starts == [("fresh", 1)]


def test_log_is_handed_in_as_it_is_written(agent: CellAgent, channel: FakeChannel, driver: FakeDriver) -> None:
    """A wanted log comes whole, in pieces of limited size, goes on as the job prints, and its end is told once."""
    printed = b"0123456789abcdef" * 40_000
    driver.printed["a", 1] = printed
    with running(agent):
        channel.want(launch("a"), logs=(LogWant("a", 1, 0),))
        channel.until(lambda: channel.logs.get(("a", 1)) == printed)
        assert not channel.ended
        driver.printed["a", 1] = printed + b"the end\n"
        channel.until(lambda: channel.logs["a", 1].endswith(b"the end\n"))
        driver.phases["a", 1] = Phase.SUCCEEDED
        channel.until(lambda: ("a", 1) in channel.ended)
    assert channel.logs["a", 1] == printed + b"the end\n"


def test_log_is_handed_in_from_where_it_is_wanted(channel: FakeChannel, driver: FakeDriver) -> None:
    """What the other side has is not sent again; what it lost is."""
    driver.printed["a", 1] = b"0123456789"
    channel.logs["a", 1] = b"01234"
    pusher = LogPusher(channel, driver, cell="c")
    assert pusher.push((LogWant("a", 1, 5),))
    assert channel.logs["a", 1] == b"0123456789"
    assert not pusher.push((LogWant("a", 1, 5),)), "the order is older than what was pushed"
    channel.logs["a", 1] = b""
    pusher._positions["a", 1].at -= 3600.0
    assert pusher.push((LogWant("a", 1, 0),))
    assert channel.logs["a", 1] == b"0123456789"


def test_findings_of_a_node_agent_are_reported(agent: CellAgent, channel: FakeChannel, tmp_path: Path) -> None:
    """What a node's agent found goes with the node, and one that must not be used is not healthy."""
    finding = HealthFinding("RowRemapPending", HealthAction.CORDON, "warning", "a row", "GPU-1")
    write_findings(tmp_path / "nodes", "n0", [finding], at=time.time(), facts={})
    agent.tick()
    assert channel.nodes is not None
    assert channel.nodes[0].findings == (finding,)
    assert not channel.nodes[0].healthy


def test_start_is_written_down_before_it_is_begun(
    agent: CellAgent, channel: FakeChannel, driver: FakeDriver, tmp_path: Path
) -> None:
    """An agent that dies in the middle of a start leaves word of it, so that the next one looks for it."""
    written = []
    driver.before_start["a"] = lambda: written.append(json.loads((tmp_path / "agent.json").read_text())["live"])
    channel.wanted = Desired(launches=(launch("a"),))
    agent.tick()
    assert written == [[["a", 1]]]
    channel.wanted = Desired()
    restarted = CellAgent(channel, driver, cell="c", state_dir=tmp_path)
    restarted.tick()
    assert channel.statuses["a", 1].phase is Phase.RUNNING


def test_nothing_is_begun_that_cannot_be_written_down(
    agent: CellAgent, channel: FakeChannel, driver: FakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk what runs is looked after and reported, and new work waits."""
    channel.wanted = Desired(launches=(launch("a"),))
    agent.tick()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("helios.agent.cell.write_json", full)
        channel.wanted = Desired(launches=(launch("a"), launch("b")))
        agent.tick()
    assert [channel.statuses[uid, 1].phase for uid in "ab"] == [Phase.RUNNING, Phase.ABSENT]
    assert driver.starts == [("a", 1)]
    agent.tick()
    assert driver.starts == [("a", 1), ("b", 1)]


def test_slow_start_that_nobody_wants_any_more_is_reported(
    channel: FakeChannel, driver: FakeDriver, tmp_path: Path, gate: threading.Event
) -> None:
    """A start that takes effect after it was forgotten elsewhere is told of, so that it can be stopped."""
    agent = CellAgent(channel, driver, cell="c", state_dir=tmp_path, patience_s=0.2)
    driver.before_start["slow"] = lambda: (gate.wait(), None)[1]
    channel.wanted = Desired(launches=(launch("slow"),))
    agent.tick()
    channel.wanted = Desired()
    agent.tick()
    gate.set()
    agent.tick()
    assert channel.statuses["slow", 1].phase is Phase.RUNNING
