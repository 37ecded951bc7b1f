"""A live fleet's snapshot is played on from where it is."""

from dataclasses import replace
from typing import Any

import pytest

from helios.scheduler import (
    NO_END,
    CellState,
    Node,
    PendingGang,
    Policy,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    schedule,
)
from helios.simulator.engine import play
from helios.simulator.scene import Scene, from_snapshot
from helios.simulator.settings import Settings
from helios.spec import QoS

NOW = 1_800_000_000.0
CALM = Settings(failures=0.0, reclaims=0.0, start_failures=0.0, cycle_s=10.0, tail_s=100_000.0, stays=True)
GPU = Request(accelerator="GPU", accelerators=8)


def node(name: str) -> Node:
    return Node(name, "pool", 0, 0, {"GPU": 8})


RUNS = RunningGang(
    "runs",
    "team",
    "x",
    ("a", "b"),
    GPU,
    qos=QoS.STANDARD,
    started_at=NOW - 5000,
    checkpointed_at=NOW - 200,
    ends_at=NOW + 1000,
    restart_s=50.0,
)
WAITS = PendingGang(
    "waits", "waits", "team", QoS.STANDARD, 3, NOW - 700, GPU, 2, 2, cells=("x",), estimate=400.0, spread="s"
)
AMPLE = TenantState("team", {"GPU": 32})
"""With quota for both gangs, so that room is all that the one which waits lacks."""
FLEET = CellState("x", Readiness.READY, (node("a"), node("b"), node("c")))


def snapshot(**changed: Any) -> Snapshot:
    made = Snapshot(NOW, (FLEET,), (TenantState("team", {"GPU": 16}),), (WAITS,), (RUNS,))
    return replace(made, **changed)


def test_what_runs_ends_as_expected_and_what_waits_follows(fifo: Any) -> None:
    """Places are held from the first second; the queue sees gangs as the snapshot has them, their age among it."""
    result = play(from_snapshot(snapshot()), fifo, CALM)
    runs, waits = sorted(result.outcomes, key=lambda outcome: outcome.job_id)
    assert (runs.ended_s, runs.productive, runs.starting, runs.restarts) == (1000.0, 16 * 1000.0, 0.0, 0)
    assert (waits.started_s, waits.ended_s) == (1000.0, 1000 + 60 + 400.0)
    assert waits.completion_s == 700 + 1460.0
    shown = fifo.looks[0].pending[0]
    assert shown == replace(WAITS, submitted_at=-700.0)
    assert fifo.looks[0].running == (
        replace(RUNS, started_at=-5000.0, checkpointed_at=-200.0, ends_at=1000.0, min_workers=2, max_workers=2),
    )
    assert (result.quotas, result.trace) == ({"team": 16.0}, "snapshot")


def test_scheduler_decides_on_the_scene_as_on_the_snapshot(fifo: Any) -> None:
    """Nothing that it goes by is lost on the way, but for the origin of time."""
    high = replace(WAITS, qos=QoS.GUARANTEED, cells=())
    seen = snapshot(pending=(high,), tenants=(AMPLE,))
    live = schedule(seen, Policy())
    play(from_snapshot(seen), fifo, CALM)
    replayed = schedule(fifo.looks[0], Policy())
    assert replayed.admits == live.admits
    assert [(change.uid, change.reason) for change in replayed.changes] == [
        (change.uid, change.reason) for change in live.changes
    ]
    assert [change.uid for change in live.changes] == ["runs"]


def test_gang_that_runs_may_lose_what_it_did_since_its_checkpoint() -> None:
    """2000 s were unsaved as the run began; preempted at once, they are done again, and no time of the run is lost."""

    class Helios:
        name = "helios"

        def decide(self, snapshot: Snapshot) -> Any:
            return schedule(snapshot, Policy())

    high = replace(WAITS, qos=QoS.GUARANTEED, cells=())
    silent = replace(RUNS, checkpointed_at=None, started_at=NOW - 2000, ends_at=NOW + 50_000)
    result = play(from_snapshot(snapshot(pending=(high,), running=(silent,), tenants=(AMPLE,))), Helios(), CALM)
    runs = next(outcome for outcome in result.outcomes if outcome.job_id == "runs")
    assert (runs.preemptions, runs.recomputed) == (1, 0.0)
    assert runs.productive == 16 * 52_000.0
    held = sum(stay.gpus * (stay.until_s - stay.since_s) for stay in result.stays if stay.job_id == "runs")
    assert held == runs.productive + runs.idle + runs.starting


def test_gang_that_was_told_to_leave_leaves_and_waits(fifo: Any) -> None:
    """It is gone by when the snapshot says, and comes back to the queue."""
    leaving = replace(RUNS, leaving_at=NOW + 30)
    result = play(from_snapshot(snapshot(pending=(), running=(leaving,))), fifo, CALM)
    (runs,) = result.outcomes
    assert runs.restarts == 1
    assert runs.queued_s == pytest.approx(5.0, abs=10.0)
    assert runs.succeeded


def test_gang_whose_nodes_are_gone_waits(fifo: Any) -> None:
    """A node that no cell shows any more holds nothing."""
    result = play(from_snapshot(snapshot(pending=(), running=(replace(RUNS, nodes=("a", "z")),))), fifo, CALM)
    assert [look.pending[0].uid for look in fifo.looks[:1]] == ["runs"]
    assert result.outcomes[0].succeeded


def test_services_never_end(fifo: Any) -> None:
    """They hold their places to the end of the run, and count for no load."""
    serves = replace(RUNS, uid="serves", qos=QoS.GUARANTEED, ends_at=None, nodes=("c",))
    waits = replace(WAITS, uid="serves too", estimate=NO_END, min_workers=1, max_workers=1)
    seen = snapshot(pending=(waits,), running=(serves,))
    result = play(from_snapshot(seen), fifo, replace(CALM, tail_s=5000.0))
    assert [outcome.ended_s for outcome in result.outcomes] == [None, None]
    assert [outcome.productive for outcome in result.outcomes] == [8 * (5000.0 - 60.0), 8 * 5000.0]
    assert result.load == 0.0


def test_gang_that_fits_nowhere_waits_as_it_does_on_the_fleet(fifo: Any) -> None:
    """A live queue may hold what no cell could run; that is no reason not to play it on."""
    scene = from_snapshot(snapshot(pending=(replace(WAITS, min_workers=9, max_workers=9),)))
    assert isinstance(scene, Scene)
    waits = next(outcome for outcome in play(scene, fifo, CALM).outcomes if outcome.job_id == "waits")
    assert waits.started_s is None


def test_training_of_class_guaranteed_is_no_service_where_the_snapshot_says_so(fifo: Any) -> None:
    """Without an estimate it runs as long as what is unknown; where nobody says, it is taken for a service."""
    ends = []
    for serves in (False, None, True):
        trains = replace(RUNS, qos=QoS.GUARANTEED, ends_at=None, serves=serves)
        scene = from_snapshot(snapshot(pending=(), running=(trains,)), unknown_s=5000.0)
        ends.append(play(scene, fifo, CALM).outcomes[0].ended_s)
    assert ends == [5000.0, None, None]


def test_service_with_an_expected_end_is_a_service(fifo: Any) -> None:
    """What is said counts more than what is guessed."""
    scene = from_snapshot(snapshot(pending=(), running=(replace(RUNS, serves=True),)))
    assert play(scene, fifo, CALM).outcomes[0].ended_s is None


def test_what_a_shrinking_gang_gives_up_is_no_job_of_its_own(fifo: Any) -> None:
    """It is shown beside the gang until it has left; in the queue there would be a job that nobody submitted."""
    given_up = replace(RUNS, uid="runs:leaving", nodes=("c",), leaving_at=NOW + 30)
    result = play(from_snapshot(snapshot(pending=(), running=(RUNS, given_up))), fifo, CALM)
    assert [outcome.job_id for outcome in result.outcomes] == ["runs"]


def test_gang_that_runs_is_known_by_its_name() -> None:
    """An older snapshot has none, and then it is its uid."""
    named = replace(RUNS, name="train")
    assert from_snapshot(snapshot(running=(named,))).gangs["runs"].name == "train"
    assert from_snapshot(snapshot()).gangs["runs"].name == "runs"
