"""Two cells, several replicas, and people who change their minds: whatever comes together, the cells' memory is clean.

The witnesses are the cells' own memory and the rows of allocations, not what the control plane says of itself.
"""

import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import Phase as Generation
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from helios.control import (
    request_cancel,
    request_cordon,
    request_delete,
    request_drain,
    request_preempt,
    request_rerun,
    request_uncordon,
)
from helios.control.status import placement
from helios.errors import ConflictError, FencedError, NotFoundError
from helios.ports import Desired, Phase, Session
from helios.store import Fence, Record

OVER = {"Succeeded", "Failed", "Cancelled"}
HELD_BACK = {"DependencyFailed", "DependencyGone", "WaitsForJob"}
CELLS = ("east", "west")
NODES = (0, 1)
KINDS = ("job", "gang", "array", "needs")
MOST = 5
WHICH = st.integers(0, 59)
"""One of many; what there is to choose from depends on uids, which are another's choice."""
BOTH = st.sampled_from([[0], [1], [0, 1]])
EXAMPLES = int(os.environ.get("HELIOS_CHAOS_EXAMPLES", "30"))


@dataclass
class Agent:
    """One cell's agent: generations of it, each with reports in their order; every report is remembered."""

    cell: Any
    generation: int = 1
    sequence: int = 0
    said: list[tuple[Any, ...]] = field(default_factory=list)
    desired: Desired = field(default_factory=Desired)

    def pull(self, asked: Any) -> None:
        self.desired = asked.gateway.desired(self.cell.name)

    def step(self, asked: Any, told: Any, *, lost: bool = False) -> None:
        """Ask one replica what to do, do it, and tell another one; what is lost on the way is remembered as said."""
        self.pull(asked)
        self.report(self.cell.obey(self.desired), told, lost=lost)

    def look(self, told: Any) -> None:
        """Say what there is while starts and stops are still on their way: of a stop only once it was carried out."""
        cell = self.cell
        launches = [(launch.uid, launch.epoch) for launch in self.desired.launches]
        stops = [(stop.uid, stop.epoch) for stop in self.desired.stops if (stop.uid, stop.epoch) in cell.stopped]
        keys = dict.fromkeys(launches + stops + cell.live())
        self.report([replace(cell.status(key), stopping=key in stops) for key in keys], told, lost=False)

    def report(self, statuses: Any, told: Any, *, lost: bool) -> None:
        self.sequence += 1
        said = (list(self.cell.nodes), statuses, Session(self.generation, self.sequence))
        self.said.append(said)
        if not lost:
            self.say(said, told)

    def say(self, said: tuple[Any, ...], told: Any) -> None:
        nodes, statuses, session = said
        told.gateway.report(self.cell.name, nodes, statuses, session=session)


class Fleets(RuleBasedStateMachine):
    """Jobs, arrays and needs on two cells, while everything around them fails, is drained, or changes its mind."""

    make: Any = None  # what builds a fleet in a folder, and a cell; given by the test
    make_cell: Any = None

    @initialize(first=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    def begin(self, first: list[str]) -> None:
        shared = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="helios-")
        cells = [type(self).make_cell(name, nodes=len(NODES)) for name in CELLS]
        self.fleet = type(self).make(Path(self.folder.name), *cells)
        self.agents = [Agent(cell) for cell in self.fleet.cells.values()]
        self.names: list[str] = []
        self.uids: dict[str, str] = {}
        self.planes: list[Any] = []
        self.elect()
        for kind in first:
            self._submit(kind, retries=1, parallelism=3, need=0)

    # Who leads --------------------------------------------------------------------------------------------------------

    @rule()
    def elect(self) -> None:
        """Another replica leads; the one before was paused, and does not know."""
        store = self.fleet.store
        lease = store.take_lease("control", f"replica-{len(self.planes)}", term_s=5.0, seen=store.lease("control"))
        plane = self.fleet.new_plane()
        plane._begin(store.acting(fence=Fence(lease.name, lease.token)))
        self.planes = [*self.planes[-1:], plane]

    @rule()
    def tick(self) -> None:
        self.planes[-1].tick()

    @rule()
    def paused_leader_goes_on(self) -> None:
        """What it decided on is of another time; the store takes none of it."""
        if len(self.planes) > 1:
            with suppress(FencedError):
                self.planes[0].tick()

    # What agents do ---------------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 1), lost=st.booleans(), asked=st.integers(-2, -1), told=st.integers(-2, -1))
    def agent(self, number: int, lost: bool, asked: int, told: int) -> None:
        planes = [self.planes[0], self.planes[-1]]
        self.agents[number].step(planes[asked], planes[told], lost=lost)

    @rule()
    def round(self) -> None:
        """All goes as it should for once."""
        self.planes[-1].tick()
        for agent in self.agents:
            agent.step(self.planes[-1], self.planes[-1])

    @rule(numbers=BOTH, ticks=st.booleans())
    def told_what_to_do(self, numbers: list[int], ticks: bool) -> None:
        """They hear what is desired, and do nothing about it yet."""
        if ticks:
            self.planes[-1].tick()
        for number in numbers:
            self.agents[number].pull(self.planes[-1])

    @rule(numbers=BOTH, ticks=st.booleans())
    def looks_before_it_acts(self, numbers: list[int], ticks: bool) -> None:
        for number in numbers:
            self.agents[number].look(self.planes[-1])
        if ticks:
            self.planes[-1].tick()

    @rule(numbers=BOTH)
    def acts_on_what_it_was_told(self, numbers: list[int]) -> None:
        """The control plane may have gone on since."""
        for number in numbers:
            agent = self.agents[number]
            agent.report(agent.cell.obey(agent.desired), self.planes[-1], lost=False)

    @rule(which=WHICH, what=st.sampled_from(["cancel", "preempt", "delete"]), acts=BOTH)
    def stop_crosses_a_start(self, which: int, what: str, acts: list[int]) -> None:
        """Both cells have been told of their launches, and look again before they have begun any; a stop comes then."""
        if len(self.names) < MOST:
            self._submit("gang", retries=1, parallelism=1, need=0)
        self.told_what_to_do([0, 1], ticks=True)
        self.person(which, what)
        self.tick()
        self.looks_before_it_acts([0, 1], ticks=True)
        self.acts_on_what_it_was_told(acts)

    @rule(number=st.integers(0, 1), which=WHICH)
    def old_report(self, number: int, which: int) -> None:
        """Any report that was ever made comes (again)."""
        agent = self.agents[number]
        if agent.said:
            with suppress(FencedError):
                agent.say(agent.said[which % len(agent.said)], self.planes[-1])

    @rule(number=st.integers(0, 1))
    def agent_starts_again(self, number: int) -> None:
        self.agents[number].generation += 1
        self.agents[number].sequence = 0
        self.agents[number].desired = Desired()

    @rule(number=st.integers(0, 1), which=WHICH, how=st.sampled_from(["run", "succeed", "fail", "full"]))
    def work(self, number: int, which: int, how: str) -> None:
        cell = self.agents[number].cell
        if not cell.live():
            return
        live = sorted(cell.live(), key=lambda key: cell.launches[key].name)
        key = live[which % len(live)]
        if how == "run":
            cell.run(key, step=1)
        elif how == "succeed":
            cell.end(key, Phase.SUCCEEDED)
        else:
            cell.end(key, Phase.FAILED, "Error" if how == "fail" else "CapacityError")

    # What breaks ------------------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 1), node=st.sampled_from(NODES))
    def lose_node(self, number: int, node: int) -> None:
        cell = self.agents[number].cell
        cell.lose_node(f"{cell.name}-{node}")

    @rule(number=st.integers(0, 1))
    def lose_engine(self, number: int) -> None:
        self.agents[number].cell.lose_engine()

    @rule(number=st.integers(0, 1))
    def heal(self, number: int) -> None:
        self.agents[number].cell.heal()

    @rule(slow=st.booleans(), number=st.integers(0, 1))
    def grace(self, slow: bool, number: int) -> None:
        self.agents[number].cell.slow_stop = slow

    @rule(seconds=st.sampled_from([1, 15, 45, 400]))
    def time_passes(self, seconds: int) -> None:
        self.fleet.advance(seconds)

    @rule()
    def restart(self) -> None:
        self.fleet.restart()
        self.planes = []
        self.elect()

    # What people ask for ----------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.names) < MOST)
    @rule(
        kind=st.sampled_from(KINDS),
        retries=st.integers(0, 1),
        parallelism=st.sampled_from([1, 3]),
        need=st.integers(0, MOST),
    )
    def submit(self, kind: str, retries: int, parallelism: int, need: int) -> None:
        self._submit(kind, retries=retries, parallelism=parallelism, need=need)

    def _submit(self, kind: str, *, retries: int, parallelism: int, need: int) -> None:
        name = f"{kind}-{len(self.names)}"
        spec: dict[str, Any] = {"retry": {"maxRetries": retries}}
        if kind == "gang":
            spec["workers"] = {"min": 2, "max": 3}
        elif kind == "array":
            spec["array"] = {"size": 3, "parallelism": parallelism}
        there = [other for other in self.names if self.fleet.store.find("Job", other) is not None]
        if kind == "needs" and there:
            spec["needs"] = [there[need % len(there)]]
        self.uids[name] = self.fleet.job(name, **spec).uid
        self.names.append(name)

    @rule(which=WHICH, what=st.sampled_from(["cancel", "preempt", "preempt", "rerun", "delete"]))
    def person(self, which: int, what: str) -> None:
        store = self.fleet.store
        jobs = store.records("Job")
        # Most is to be seen of what holds something; what only waits is asked for where nothing does.
        held = [job.name for job in jobs if placement(job) is not None] if what in {"preempt", "cancel"} else []
        names = sorted(held or [job.name for job in jobs] or self.names)
        name = names[which % len(names)]
        with suppress(ConflictError, NotFoundError):
            if what == "cancel":
                request_cancel(store, "Job", name)
            elif what == "preempt":
                request_preempt(store, name)
            elif what == "rerun":
                request_rerun(store, name, kind="Job")
            else:
                request_delete(store, "Job", name)

    @rule(
        cell=st.sampled_from(CELLS), node=st.sampled_from([*NODES, None]), how=st.sampled_from(["cordon", "drain", ""])
    )
    def close(self, cell: str, node: int | None, how: str) -> None:
        act = {"cordon": request_cordon, "drain": request_drain, "": request_uncordon}[how]
        with suppress(ConflictError, NotFoundError):
            act(self.fleet.store, cell, "" if node is None else f"{cell}-{node}")

    # What holds all the time ------------------------------------------------------------------------------------------

    @invariant()
    def one_launch_of_a_job_lives_and_none_of_a_finished_one(self) -> None:
        if not hasattr(self, "fleet"):
            return
        cells = self.fleet.cells.values()
        assert not [violation for cell in cells for violation in cell.violations]
        live = Counter(uid for cell in cells for uid, _ in cell.live())
        assert not [uid for uid, count in live.items() if count > 1]
        finished = {uid for cell in cells for uid in cell.finished}
        assert not finished & live.keys()

    @invariant()
    def no_node_holds_more_than_it_has(self) -> None:
        if not hasattr(self, "fleet"):
            return
        for cell in self.fleet.cells.values():
            workers = Counter(node for key in cell.live() for node in cell.launches[key].nodes)
            assert all(workers[node.name] <= node.cpus for node in cell.nodes)

    @invariant()
    def what_is_over_holds_nothing(self) -> None:
        if not hasattr(self, "fleet"):
            return
        jobs = {job.uid: job for job in self.fleet.store.records("Job")}
        assert not [job.name for job in jobs.values() if job.state in OVER and placement(job) is not None]
        for row in self.fleet.store.allocations(open_only=True):
            assert placement(jobs[row.uid]) is not None, row.name

    # What holds in the end --------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        try:
            self._calm_down()
            self._everything_came_to_an_end()
            self._every_second_was_counted()
        finally:
            self.fleet.store.close()
            self.folder.cleanup()

    def _calm_down(self) -> None:
        for cell in self.fleet.cells.values():
            cell.heal()
            cell.slow_stop = False
            request_uncordon(self.fleet.store, cell.name)
        calm = 0
        for _ in range(120):
            self.fleet.advance(10)
            self.round()
            for cell in self.fleet.cells.values():
                for key in cell.live():
                    if cell.statuses[key].phase is Phase.STARTING:
                        cell.run(key)
                    else:
                        cell.end(key, Phase.SUCCEEDED)
            self.one_launch_of_a_job_lives_and_none_of_a_finished_one()
            self.what_is_over_holds_nothing()
            calm = calm + 1 if all(map(_rests, self.fleet.store.records("Job"))) else 0
            if calm > 5:
                break

    def _everything_came_to_an_end(self) -> None:
        jobs = self.fleet.store.records("Job")
        assert {job.name: job.status for job in jobs if not _rests(job)} == {}
        finished = {uid for cell in self.fleet.cells.values() for uid in cell.finished}
        made = {job.uid for job in jobs if job.spec.get("array")}
        assert {job.uid for job in jobs if job.state == "Succeeded"} - made == finished & {job.uid for job in jobs}
        assert not [key for cell in self.fleet.cells.values() for key in cell.live()]
        events = self.fleet.store.events(limit=100_000)
        assert not [event for event in events if event.reason == "ControllerError"]
        asked = {(event.uid, event.reason) for event in events}
        there = {job.name for job in jobs}
        assert not [name for name in self.names if name not in there and (self.uids[name], "Deleted") not in asked]
        plane = self.planes[-1]
        assert not plane._index.has_dirty()
        assert plane._watcher.next_due() > self.fleet.clock.now()

    def _every_second_was_counted(self) -> None:
        for row in self.fleet.store.allocations():
            assert row.closed_at is not None, row.name
            assert math.isclose(sum(row.seconds.values()), row.closed_at - row.opened_at, abs_tol=1e-6), row


def _rests(job: Record) -> bool:
    """Whether it is over, or says which job it waits for."""
    waits = job.state == "Pending" and job.status.get("reason") in HELD_BACK
    return not job.deleting and (job.state in OVER or waits) and not job.status.get("rerunRequested")


def test_chaos_of_two_cells_replicas_and_people(make_fleet: Callable[..., Any]) -> None:
    """No order of faults and requests breaks a promise: nothing is lost, doubled, run again, or held for ever."""
    template = make_fleet()

    class Seeded(Fleets):
        make: Any = staticmethod(type(template))
        make_cell: Any = staticmethod(type(template.cell))

    Seeded.TestCase.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize="HELIOS_CHAOS_EXAMPLES" not in os.environ,
        phases=[Generation.explicit, Generation.generate],  # shrinking a story takes longer than reading it
    )
    Seeded.TestCase("runTest").runTest()
