"""What a job goes through when it starts, works, is stopped, loses a node or fails, second by second."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from helios.lifecycle import JobState
from helios.scheduler import (
    Admit,
    CellState,
    Change,
    Node,
    Preempt,
    Readiness,
    Resize,
    Snapshot,
    StopReason,
    TenantState,
    Topology,
)
from helios.simulator.engine import simulate
from helios.simulator.jobs import TraceJob, Workload
from helios.simulator.life import Life
from helios.simulator.outcomes import JobOutcome
from helios.simulator.settings import Settings
from helios.spec import CapacityType, Retry

HOUR = 3600.0
CALM = Settings(failures=0.0, reclaims=0.0, start_failures=0.0, tail_s=100 * HOUR, cycle_s=10.0, stop_s=5.0)
JOB = TraceJob("job", 0.0, 2 * HOUR, 1, 8, restart_s=60.0)


@dataclass
class Decided:
    admits: Sequence[Admit]
    changes: Sequence[Change]
    next_look: float | None


@dataclass
class Script:
    """First fit by hand: admits to what `places` says in turn, and does what is written down for a moment."""

    places: Mapping[str, Sequence[tuple[str, tuple[str, ...]]]]
    deeds: Mapping[float, Change] = field(default_factory=dict)
    name: str = "script"
    seen: list[Snapshot] = field(default_factory=list)
    heard: list[tuple[object, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turns = dict.fromkeys(self.places, 0)

    def decide(self, snapshot: Snapshot) -> Decided:
        self.seen.append(snapshot)
        admits = [self._admit(gang.uid) for gang in snapshot.pending if self._may(gang.held_off, snapshot.now)]
        looks = [at for at in self.deeds if at > snapshot.now]
        looks += [until for gang in snapshot.pending for _, until in gang.held_off if until > snapshot.now]
        changes = [self.deeds[snapshot.now]] if snapshot.now in self.deeds else []
        return Decided(admits, changes, min(looks, default=None))

    def _may(self, held_off: Sequence[tuple[str, float]], now: float) -> bool:
        return all(until <= now for _, until in held_off)

    def _admit(self, uid: str) -> Admit:
        cell, nodes = self.places[uid][self.turns[uid]]
        self.turns[uid] += 1
        return Admit(uid, cell, nodes, len(nodes), "as written", borrowed=4.0)

    def started(self, job: TraceJob, now: float) -> None:
        self.heard.append(("started", job.job_id, now))

    def stopped(self, job: TraceJob, now: float, held: float, done: float) -> None:
        self.heard.append(("stopped", job.job_id, now, held, done))

    def ended(self, job: TraceJob, now: float) -> None:
        self.heard.append(("ended", job.job_id, now))

    def at(self, now: float) -> Snapshot:
        return next(snapshot for snapshot in self.seen if snapshot.now == now)


def fleet(*, spare: bool = False, kind: CapacityType = CapacityType.RESERVED) -> list[CellState]:
    """Two cells of four 8-GPU nodes, one a rack, two racks a block; with `spare` the last one of `x` is spare."""

    def node(name: str, index: int) -> Node:
        top = Topology(f"r{index}", f"b{index // 2}", "f")
        return Node(name, "pool", 0, 0, {"GPU": 8}, topology=top, capacity_type=kind, spare=spare and name == "x3")

    return [
        CellState(name, Readiness.READY, tuple(node(f"{name}{index}", index) for index in range(4)), ingress_rate=2.0)
        for name in ("x", "y")
    ]


def run(script: Script, *jobs: TraceJob, settings: Settings = CALM, **made: Any) -> list[JobOutcome]:
    result = simulate(Workload("w", jobs, HOUR), fleet(**made), [], script, settings)
    return list(result.outcomes)


def preempt(uid: str = "job", cell: str = "x") -> Preempt:
    return Preempt(uid, cell, StopReason.PREEMPTED, "", "other", 0.0)


def resize(*nodes: str, uid: str = "job", cell: str = "x") -> Resize:
    return Resize(uid, cell, nodes, len(nodes), StopReason.RESIZED, "", 0.0, 0.0)


@pytest.fixture
def fated(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the first event of each kind happen after so many seconds on one node, and none on any other."""

    def fate(node: str, **after: float) -> None:
        def drawn(mean: float, seed: int, *key: Any) -> float:
            kind, _, name, turn = key
            return after[kind] if (name, turn) == (node, 0) else 1e12

        monkeypatch.setattr("helios.simulator.outages.exponential", drawn)

    return fate


def test_start_takes_its_time_and_fetches_what_lies_elsewhere() -> None:
    """120 GiB at 2 GiB/s add a minute to the start where they lie in another cell, and nothing at home."""
    job = replace(JOB, data=(("y", 120.0),))
    for cell, seconds in (("x", 120.0), ("y", 60.0)):
        (outcome,) = run(Script({"job": [(cell, (f"{cell}0",))]}), job)
        assert (outcome.started_s, outcome.ended_s) == (0.0, seconds + 2 * HOUR)
        assert (outcome.starting, outcome.productive) == (8 * seconds, 8 * 2 * HOUR)


def test_checkpoints_cost_time_and_none_is_written_at_the_end() -> None:
    """Two hours of work with a checkpoint of 30 s after each ten minutes but the last."""
    (outcome,) = run(Script({"job": [("x", ("x0",))]}), replace(JOB, checkpoint_s=600.0, checkpoint_cost_s=30.0))
    assert outcome.ended_s == 60 + 2 * HOUR + 11 * 30
    assert outcome.ended_s == outcome.run_s
    assert (outcome.productive, outcome.idle) == (8 * 2 * HOUR, 8 * 11 * 30)


def test_preempted_gang_writes_a_checkpoint_within_its_grace_and_loses_nothing() -> None:
    """It holds its place until the checkpoint is written and its processes are gone, then goes on where it was."""
    script = Script({"job": [("x", ("x0",)), ("x", ("x1",))], "look": [("y", ("y0",))]}, {1000.0: preempt()})
    job, look = (
        replace(JOB, checkpoint_s=600.0, checkpoint_cost_s=30.0),
        replace(JOB, job_id="look", submitted_s=1005.0),
    )
    outcome, _ = run(script, job, look)
    gone, again = 1035.0, 1040.0
    assert ("stopped", "job", gone, 8 * gone, 910.0) in script.heard
    assert (outcome.preemptions, outcome.restarts, outcome.recomputed) == (1, 1, 0.0)
    assert outcome.queued_s == again - gone
    assert outcome.idle == 8 * (30 + 35 + 10 * 30)
    assert outcome.ended_s == again + 60 + (2 * HOUR - 910) + 10 * 30
    # The scheduler is called when somebody comes, and when the place is free.
    assert [snapshot.now for snapshot in script.seen] == [0.0, 1000.0, 1010.0, 1040.0]
    assert script.seen[2].running[0].leaving_at == 1000.0 + CALM.grace_s


@pytest.mark.parametrize(
    ("job", "kept", "gone"),
    [
        (replace(JOB, checkpoint_s=600.0, checkpoint_cost_s=200.0), 600.0, 1120.0),
        (JOB, 0.0, 1005.0),
    ],
)
def test_checkpoint_that_takes_longer_than_the_grace_is_lost(job: TraceJob, kept: float, gone: float) -> None:
    """So is all the work of a job that writes none; it does not wait for the grace to pass then."""
    script = Script({"job": [("x", ("x0",)), ("x", ("x0",))]}, {1000.0: preempt()})
    (outcome,) = run(script, job)
    assert script.heard[1] == ("stopped", "job", gone, 8 * gone, kept)
    assert outcome.recomputed == 8 * ((1000 - 60) - kept - job.checkpoint_cost_s * bool(kept))
    assert outcome.productive == 8 * 2 * HOUR


def test_dead_node_is_known_late_and_its_gang_falls_back_to_its_checkpoint(fated: Callable[..., None]) -> None:
    """The whole gang is held until the death is known; then it may take a spare node, and nobody else may."""
    fated("x1", failure=2000.0, repair=500.0)
    job = replace(JOB, workers=2, checkpoint_s=600.0)
    script = Script({"job": [("x", ("x0", "x1")), ("x", ("x0", "x3"))]})
    (outcome,) = run(script, job, settings=replace(CALM, failures=1.0, detection_s=30.0), spare=True)
    slow = 0.97  # of two racks
    assert outcome.recomputed == pytest.approx(16 * (2000 - 60 - 1800 / slow))
    assert outcome.idle == 16 * 30
    assert (outcome.restarts, outcome.preemptions, outcome.racks) == (1, 0, 2)
    again = script.at(2030.0)
    assert again.pending[0].recovering
    assert [node.healthy for node in again.cells[0].nodes] == [True, False, True, True]
    work = 1800 / slow + (2 * HOUR - 1800) / slow**2  # first of one block, then of two
    assert outcome.productive == pytest.approx(16 * work)
    assert outcome.ended_s == pytest.approx(2030 + 60 + (2 * HOUR - 1800) / slow**2)


def test_spare_node_is_refused_to_who_lost_none() -> None:
    """A policy that places a new gang on a spare node is broken, and is told so."""
    with pytest.raises(AssertionError, match="node x3 of cell x, which is spare"):
        run(Script({"job": [("x", ("x3",))]}), JOB, spare=True)


def test_notice_of_a_provider_lets_a_gang_save_its_work(fated: Callable[..., None]) -> None:
    """From the notice on nothing new may be placed there; the node is back after its absence."""
    fated("x0", reclaim=1000.0, absence=5000.0)
    job = replace(JOB, checkpoint_s=3000.0, checkpoint_cost_s=20.0)
    script = Script({"job": [("x", ("x0",)), ("x", ("x1",))], "late": [("x", ("x0",))]})
    storm = replace(CALM, reclaims=1.0, notice_s=60.0)
    late = replace(JOB, job_id="late", submitted_s=6100.0)
    outcome, after = run(script, job, late, settings=storm, kind=CapacityType.PREEMPTIBLE)
    assert (outcome.recomputed, outcome.preemptions, outcome.restarts) == (0.0, 0, 1)
    assert script.at(1030.0).cells[0].nodes[0].cordoned
    assert after.succeeded
    script = Script({"job": [("x", ("x0",)), ("x", ("x0",))]})
    with pytest.raises(AssertionError, match="node x0 of cell x, which is cordoned"):
        run(script, job, settings=storm, kind=CapacityType.PREEMPTIBLE)


def test_work_without_checkpoint_is_lost_with_a_node_that_is_taken(fated: Callable[..., None]) -> None:
    """Who cannot save leaves as soon as it can, and starts anew elsewhere."""
    fated("x0", reclaim=1000.0, absence=5000.0)
    storm = replace(CALM, reclaims=1.0, notice_s=60.0)
    script = Script({"job": [("x", ("x0",)), ("y", ("y1",))]})
    (outcome,) = run(script, JOB, settings=storm, kind=CapacityType.PREEMPTIBLE)
    assert (outcome.recomputed, outcome.idle, outcome.cells) == (8 * 940.0, 8 * 5.0, ("x", "y"))


def test_failed_start_holds_its_cell_off_and_takes_no_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn per job and attempt; the cell is asked again after the live rules' while."""
    draws = {("job", 1): 0.0, ("job", 2): 0.0}
    monkeypatch.setattr("helios.simulator.course.uniform", lambda seed, kind, *key: draws.get(key, 1.0))
    script = Script({"job": [("x", ("x0",))] * 3})
    (outcome,) = run(script, JOB, settings=replace(CALM, start_failures=0.5, retry=Retry(max_retries=0)))
    assert (outcome.succeeded, outcome.restarts, outcome.starting) == (True, 2, 8 * 3 * 60.0)
    held_off = [(snapshot.now, snapshot.pending[0].held_off) for snapshot in script.seen]
    assert held_off == [
        (0.0, ()),
        (60.0, (("x", 65.0),)),
        (70.0, (("x", 65.0),)),
        (130.0, (("x", 140.0),)),
        (140.0, (("x", 140.0),)),
    ]


def test_program_that_fails_is_tried_again_as_often_as_the_rules_say() -> None:
    """Each try fails at the same share of its work; the last one makes all its work that of a failure."""
    job = replace(JOB, fails_at=0.5, checkpoint_s=1000.0)
    script = Script({"job": [("x", ("x0",))] * 3})
    (outcome,) = run(script, job, settings=replace(CALM, retry=Retry(max_retries=2)))
    assert (outcome.succeeded, outcome.restarts) == (False, 2)
    assert (outcome.productive, outcome.failed) == (0.0, 8 * HOUR)
    assert outcome.recomputed == 8 * 2 * 600.0
    assert outcome.starting == 8 * 3 * 60.0


def test_grown_gang_goes_on_faster_after_a_checkpoint_and_a_restart() -> None:
    """It holds the new nodes from the decision on; what it works then follows the speed-up curve."""
    settings = replace(CALM, speedups=(0.5,), domain_penalty=0.0)
    job = replace(JOB, max_workers=4, checkpoint_s=HOUR, checkpoint_cost_s=15.0)
    script = Script({"job": [("x", ("x0",))]}, {1060.0: resize("x0", "x1", "x2", "x3")})
    (outcome,) = run(script, job, settings=settings)
    done = 1000 * (1 / 4) ** 0.5
    assert outcome.ended_s == pytest.approx(1060 + 20 + 60 + (2 * HOUR - done) + 15.0)
    assert outcome.starting == 60 * 8 + 60 * 32
    assert outcome.idle == pytest.approx(20 * 32 + 15 * 32)
    assert (outcome.restarts, outcome.preemptions, outcome.queued_s) == (1, 0, 0.0)
    shown = script.at(1070.0).running[0]
    assert (shown.nodes, shown.started_at, shown.leaving_at) == (("x0", "x1", "x2", "x3"), 1060.0, None)


def test_shrunk_gang_shows_what_it_is_about_to_give_up() -> None:
    """Until it has left, the rest of its old place is held, and said to be free by the end of its grace."""
    job = replace(JOB, workers=1, max_workers=2, checkpoint_s=HOUR, checkpoint_cost_s=15.0)
    script = Script({"job": [("x", ("x0", "x1"))]}, {1060.0: resize("x1")})
    (outcome,) = run(script, job, settings=replace(CALM, domain_penalty=0.0, speedups=(1.0,)))
    held = {gang.uid: (gang.nodes, gang.leaving_at) for gang in script.at(1070.0).running}
    assert held == {"job": (("x1",), None), "job~": (("x0",), 1060 + CALM.grace_s)}
    assert outcome.starting == 60 * 16 + 60 * 8
    assert outcome.ended_s == pytest.approx(1060 + 20 + 60 + 2 * (2 * HOUR - 1000) + 15.0)


def test_gang_that_is_being_resized_may_still_be_told_to_leave_or_to_be_otherwise() -> None:
    """Nothing stays held of the place that it does not go to."""
    job = replace(JOB, max_workers=4, checkpoint_s=HOUR, checkpoint_cost_s=50.0)
    grown = resize("x0", "x1", "x2", "x3")
    places = {"job": [("x", ("x0",)), ("x", ("x1", "x2"))]}
    script = Script(places, {1060.0: grown, 1070.0: preempt()})
    (outcome,) = run(script, job)
    assert (outcome.succeeded, outcome.preemptions, outcome.restarts) == (True, 1, 1)
    assert [gang.nodes for gang in script.at(1080.0).running] == [("x0",)]
    script = Script(places, {1060.0: grown, 1070.0: resize("x1")})
    (outcome,) = run(script, job)
    assert (outcome.succeeded, outcome.preemptions, outcome.restarts) == (True, 0, 1)
    assert outcome.starting == 60 * 8 + 60 * 8


@pytest.mark.parametrize("limit", [None, 1])
def test_stops_of_the_scheduler_end_a_job_only_where_it_says_so(
    monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    """As on the fleet: they count for nothing but a limit that the job sets for that reason."""
    monkeypatch.setattr("helios.lifecycle.MAX_RESTARTS", 1)
    retry = Retry(max_retries=0, by_reason={} if limit is None else {"Resized": limit})
    deeds: dict[float, Change] = {1060.0: resize("x1"), 2060.0: resize("x0"), 3060.0: preempt(), 5060.0: resize("x1")}
    script = Script({"job": [("x", ("x0",)), ("x", ("x0",))]}, deeds)
    (outcome,) = run(script, replace(JOB, checkpoint_s=HOUR), settings=replace(CALM, retry=retry))
    assert outcome.succeeded is (limit is None)
    assert outcome.restarts == (4 if limit is None else 1)


def test_speed_follows_device_workers_and_domains() -> None:
    """Half the devices' speed doubles the time; two racks of two blocks cost two penalties."""
    settings = replace(CALM, domain_penalty=0.1, speeds={"GPU": 0.5})
    near, far = (
        run(Script({"job": [("x", nodes)]}), replace(JOB, workers=2), settings=settings)[0]
        for nodes in (("x0", "x1"), ("x0", "x2"))
    )
    assert near.ended_s == pytest.approx(60 + 2 * 2 * HOUR / 0.9)
    assert far.ended_s == pytest.approx(60 + 2 * 2 * HOUR / 0.81)
    assert near.run_s == 60 + 2 * 2 * HOUR
    assert near.racks == 2


def test_scheduler_is_shown_checkpoints_and_ends_that_move() -> None:
    """Checkpoints are reported at intervals; an end that did not come is foreseen later."""
    job = replace(JOB, checkpoint_s=1000.0, estimate_s=1500.0)
    looks = [TraceJob(f"t{at}", at, 1.0, 1, 1) for at in (500.0, 3300.0)]
    script = Script({"job": [("x", ("x0",))], **{each.job_id: [("y", ("y0",))] for each in looks}})
    run(script, job, *looks)
    early, late = script.at(500.0).running[0], script.at(3300.0).running[0]
    assert (early.started_at, early.checkpointed_at, early.ends_at) == (0.0, None, 1560.0)
    assert late.checkpointed_at == 3060.0
    assert late.ends_at is not None
    assert late.ends_at > 3300.0


def test_restarted_gang_has_nothing_to_lose_from_before_its_restart() -> None:
    """What it goes on from is safe: its last checkpoint counts as written when it was admitted."""
    looks = TraceJob("look", 2000.0, 1.0, 1, 1)
    script = Script({"job": [("x", ("x0",)), ("x", ("x1",))], "look": [("y", ("y0",))]}, {1000.0: preempt()})
    run(script, replace(JOB, checkpoint_s=2 * HOUR, estimate_s=HOUR), looks)
    again = script.at(1010.0).pending[0]
    assert (again.preemptions, again.home, again.checkpointed) == (1, "x", 16.0)
    assert again.estimate == HOUR - 940
    shown = script.at(2000.0).running[0]
    assert (shown.started_at, shown.checkpointed_at, shown.preemptions) == (1010.0, 1010.0, 1)


def test_checkpoint_follows_its_gang_to_another_cell() -> None:
    """2 GiB a device at 2 GiB/s: 8 s more for the restart."""
    script = Script({"job": [("x", ("x0",)), ("y", ("y0",))]}, {1000.0: preempt()})
    (outcome,) = run(script, replace(JOB, checkpoint_s=2 * HOUR))
    assert outcome.starting == 8 * (60 + 60 + 8)


def test_tenants_use_decays_and_their_preemptions_are_counted() -> None:
    """The state of a tenant is what a policy with that half-life would remember."""
    looks = TraceJob("look", 2 * HOUR, 1.0, 1, 1, tenant="other")
    places = {"job": [("x", ("x0",)), ("x", ("x0",))], "look": [("y", ("y0",))]}
    script = Script(places, {600.0: preempt()})
    run(script, replace(JOB, tenant="team"), looks, settings=replace(CALM, half_life=HOUR))
    assert script.at(610.0).tenants[0].preemptions == 1
    team = script.at(2 * HOUR).tenants[0]
    held = 8 * HOUR / 0.6931 * (1 - 0.5**2)
    assert team.usage == pytest.approx(held, rel=0.02)


def test_share_of_what_was_borrowed_is_kept() -> None:
    """4 of 8 devices were beyond the quota from admission to end."""
    (outcome,) = run(Script({"job": [("x", ("x0",))]}), JOB)
    assert outcome.borrowed == 0.5


def test_policies_hear_of_starts_stops_and_ends() -> None:
    """What predictors and attained-service policies need, without the truth."""
    script = Script({"job": [("x", ("x0",)), ("x", ("x1",))]}, {1000.0: preempt()})
    run(script, JOB)
    assert script.heard == [
        ("started", "job", 0.0),
        ("stopped", "job", 1005.0, 8 * 1005.0, 0.0),
        ("started", "job", 1010.0),
        ("ended", "job", 1010 + 60 + 2 * HOUR),
    ]


@pytest.mark.parametrize(
    ("places", "deeds", "words"),
    [
        ([("x", ("x0", "x0"))], {}, "2 nodes for 2 workers of 1..1"),
        ([("x", ("x9",))], {}, "node x9 of cell x, which is not there"),
        ([("z", ("x0",))], {}, "cell z, which takes no work"),
        ([("x", ("x0",))], {100.0: preempt("else")}, "else was told to leave"),
        ([("x", ("x0",))], {100.0: resize("x0")}, "resized to what it has"),
        ([("x", ("x0",))], {100.0: resize("y0", cell="y")}, "cannot be resized in y"),
    ],
)
def test_broken_policy_is_an_error(places: Any, deeds: Any, words: str) -> None:
    """Nothing that cannot be is simulated."""
    with pytest.raises(AssertionError, match=words):
        run(Script({"job": places}, deeds), JOB)


def test_what_does_not_fit_is_an_error() -> None:
    """Two gangs cannot have one node, whatever a policy says."""
    script = Script({"job": [("x", ("x0",))], "other": [("x", ("x0",))]})
    with pytest.raises(AssertionError, match="where a worker does not fit"):
        run(script, JOB, replace(JOB, job_id="other"))


def test_illegal_transition_is_an_error() -> None:
    """A simulated job moves as a live one may, or not at all."""
    life = Life.__new__(Life)
    life.state, life.job, life.version = JobState.SUCCEEDED, JOB, 0
    with pytest.raises(AssertionError, match="job job: no transition Succeeded -> Recovering"):
        life.lose()


def test_tenants_with_quotas_are_shown_as_they_were_given(fifo: Any) -> None:
    """Quota, cohort and weight are the caller's; the run adds use alone, and says what was nominal."""
    team = TenantState("team", {"GPU": 16}, cohort="all", weight=2.0)
    result = simulate(Workload("w", (replace(JOB, tenant="team"),), HOUR), fleet(), [team], fifo, CALM)
    assert result.quotas == {"team": 16.0}
    assert fifo.looks[0].tenants == (team,)
