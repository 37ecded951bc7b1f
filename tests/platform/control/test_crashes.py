"""Whatever fails, and whenever: nothing is lost, nothing runs twice at once, nothing finished runs again.

The cell's own memory is the witness (`FakeCell.violations`, `starts`, `finished`), not the control plane's opinion.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import Phase as Generation
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from helios.control import request_cancel
from helios.errors import ConflictError
from helios.ports import Phase

OVER = {"Succeeded", "Failed", "Cancelled"}
WRITES = frozenset({"create", "save", "remove", "request_delete", "apply", "add_events"})


class Killed(BaseException):
    """The process died here; no handler of ours may catch it."""


class DyingStore:
    """A store whose process dies just before its n-th write, which is just after the one before."""

    def __init__(self, store: Any, at: int) -> None:
        self._store = store
        self._left = at

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in WRITES:
            return method

        def write(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise Killed
            return method(*args, **kwargs)

        return write


def play(fleet: Any) -> None:
    """End every work that runs: stage one fails once, all else succeeds."""
    for key in fleet.cell.live():
        launch = fleet.cell.launches[key]
        if launch.kind == "Service" or fleet.cell.statuses[key].phase is Phase.STARTING:
            fleet.cell.run(key)
        elif launch.name.endswith("one") and launch.epoch == 1:
            fleet.cell.end(key, Phase.FAILED, "Error", "once")
        else:
            fleet.cell.end(key, Phase.SUCCEEDED, checkpoint=f"/{launch.name}")


def story(fleet: Any) -> None:
    """A curriculum of two stages beside a service, up to the end of both; safe to begin again at any point."""
    for _ in range(40):
        fleet.round()
        play(fleet)
        curriculum = fleet.store.find("Curriculum", "tiny")
        if curriculum is not None and curriculum.state in OVER and curriculum.status.get("trackerClosed"):
            return


def test_control_plane_may_die_at_any_write(make_fleet: Callable[..., Any]) -> None:
    """For every write of a whole curriculum: killed there and started again, the story ends the same."""
    at = 0
    while True:
        at += 1
        fleet = make_fleet()
        fleet.curriculum(stages=("one", "two"))
        fleet.service()
        fleet.plane = fleet.new_plane(DyingStore(fleet.store, at))
        try:
            story(fleet)
        except Killed:
            fleet.plane = fleet.new_plane()
            story(fleet)
        else:
            break  # the story has fewer writes than this: every one of them was tried
        assert fleet.state("tiny", "Curriculum") == "Succeeded", at
        assert fleet.state("avatar", "Service") == "Ready", at
        assert not fleet.cell.violations, at
        assert fleet.cell.starts == {"tiny-r1-one": 2, "tiny-r1-two": 1, "avatar": 1}, at
        assert {succeeded for _, succeeded in fleet.tracker.ended} == {True}, at
        fleet.store.close()
    assert at > 20


class Chaos(RuleBasedStateMachine):
    """Jobs on one cell, with reports lost, doubled and late, engines lost, and control planes that die."""

    make: Any = None  # what builds a fleet in a folder; given by the test

    @initialize()
    def begin(self) -> None:
        shared = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="helios-")
        self.fleet = type(self).make(Path(self.folder.name))
        self.names: list[str] = []
        self.cancelled: set[str] = set()

    @rule(workers=st.integers(1, 2), retries=st.integers(0, 2))
    def submit(self, workers: int, retries: int) -> None:
        if len(self.names) < 4:
            name = f"job-{len(self.names)}"
            self.fleet.job(name, workers=workers, retry={"maxRetries": retries})
            self.names.append(name)

    @rule()
    def tick(self) -> None:
        self.fleet.plane.tick()

    @rule(lost=st.booleans(), twice=st.booleans())
    def agent(self, lost: bool, twice: bool) -> None:
        self.fleet.cell.step(self.fleet.plane.gateway, lost=lost, twice=twice)

    @rule()
    def stale_intent(self) -> None:
        """The agent fetched what is desired, and acts on it only after the control plane has gone on."""
        desired = self.fleet.plane.gateway.desired("local")
        self.fleet.plane.tick()
        self.fleet.cell.obey(desired)

    @rule()
    def late_report(self) -> None:
        """What was said last is said again, without a new look."""
        if self.fleet.cell.last is not None:
            self.fleet.plane.gateway.report("local", *self.fleet.cell.last)

    @precondition(lambda self: self.fleet.cell.live())
    @rule(data=st.data(), how=st.sampled_from(["run", "succeed", "fail"]))
    def work(self, data: st.DataObject, how: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.fleet.cell.live())))
        if how == "run":
            self.fleet.cell.run(key, step=1)
        else:
            self.fleet.cell.end(key, Phase.SUCCEEDED if how == "succeed" else Phase.FAILED, "Error")

    @rule()
    def lose_engine(self) -> None:
        self.fleet.cell.lose_engine()

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.names))
        request_cancel(self.fleet.store, "Job", name)
        self.cancelled.add(name)

    @rule()
    def silence(self) -> None:
        self.fleet.advance(45)

    @rule()
    def restart(self) -> None:
        self.fleet.restart()

    @invariant()
    def witness_saw_nothing_wrong(self) -> None:
        if hasattr(self, "fleet"):
            assert not self.fleet.cell.violations

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        try:
            self._everything_ends()
        finally:
            self.fleet.store.close()
            self.folder.cleanup()

    def _everything_ends(self) -> None:
        """Left in peace, every accepted job comes to an end, and what the cell finished is a success."""
        for _ in range(40):
            self.fleet.advance(10)
            self.fleet.round()
            play(self.fleet)
            if all(self.fleet.state(name) in OVER for name in self.names) and not self.fleet.cell.live():
                break
        assert not self.fleet.cell.violations
        assert not self.fleet.cell.live()
        events = self.fleet.store.events(limit=100_000)
        assert not [event for event in events if event.reason == "ControllerError"]
        for name in self.names:
            record = self.fleet.store.get("Job", name)
            assert record.state in OVER
            assert (record.uid in self.fleet.cell.finished) == (record.state == "Succeeded")
            assert record.state != "Cancelled" or name in self.cancelled


def test_chaos_of_cells_reports_and_restarts(make_fleet: Callable[..., Any]) -> None:
    """No order of faults breaks a promise: accepted is run, finished is finished, one launch of a job at a time."""
    template = make_fleet()

    class Seeded(Chaos):
        make: Any = staticmethod(type(template))

    Seeded.TestCase.settings = settings(
        max_examples=30,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=[Generation.explicit, Generation.generate],  # shrinking a story takes longer than reading it
    )
    Seeded.TestCase("runTest").runTest()


class ContestedStore:
    """A store in which somebody else was faster at the first write of a job."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._conflicts = iter([True])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def save(self, record: Any, **more: Any) -> Any:
        if record.kind == "Job" and next(self._conflicts, False):
            raise ConflictError("somebody was faster")
        return self._store.save(record, **more)


def test_writer_that_lost_the_race_leaves_the_work_to_the_next_pass(fleet: Any) -> None:
    """A conflict in the middle of a pass is no error: the next pass sees what the other one wrote."""
    fleet.job()
    fleet.plane = fleet.new_plane(ContestedStore(fleet.store))
    fleet.end("job")
    assert fleet.state("job") == "Succeeded"
