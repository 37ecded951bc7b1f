"""Forecasts of starts: the scheduler played forward by what is known, bounded, and never made up."""

import math
import sys
from dataclasses import replace
from typing import Any

import pytest

from helios.scheduler import (
    CellState,
    Effort,
    Node,
    PendingGang,
    Policy,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    forecast,
    range_of,
    schedule,
)
from helios.spec import QoS

NODE = Request(millicpus=1000, accelerator="H100", accelerators=8)
NOW, HOUR = 1_000_000.0, 3600.0
CALM = Policy(preemption=False, elastic=False)


def cell(nodes: int = 1) -> CellState:
    return CellState(
        "a", Readiness.READY, tuple(Node(f"n{i}", "p", 64_000, 1 << 40, {"H100": 8}) for i in range(nodes))
    )


def waits(uid: str, *, age: float = 0.0, estimate: float | None = HOUR, workers: int = 1, **rest: Any) -> PendingGang:
    facts = {"tenant": "t", "qos": QoS.STANDARD, "priority": 0, "max_workers": workers, **rest}
    return PendingGang(
        uid=uid, name=uid, submitted_at=NOW - age, request=NODE, min_workers=workers, estimate=estimate, **facts
    )


def runs(uid: str, node: str = "n0", *, ends: float | None = HOUR, **rest: Any) -> RunningGang:
    ends_at = None if ends is None else NOW + ends
    facts = {"qos": QoS.STANDARD, "started_at": NOW - HOUR, **rest}
    return RunningGang(uid, "t", "a", (node,), NODE, ends_at=ends_at, **facts)


def fleet(*gangs: PendingGang | RunningGang, nodes: int = 1) -> Snapshot:
    return Snapshot(
        NOW,
        (cell(nodes),),
        (TenantState("t"),),
        tuple(gang for gang in gangs if isinstance(gang, PendingGang)),
        tuple(gang for gang in gangs if isinstance(gang, RunningGang)),
    )


def wait(snapshot: Snapshot, uid: str, policy: Policy = CALM, **effort: Any) -> float:
    told = forecast(snapshot, [uid], policy, Effort(**effort))[uid]
    assert told.at is not None
    return told.wait


def test_gang_with_a_place_starts_at_once() -> None:
    """What the next cycle starts is expected now."""
    assert wait(fleet(waits("g")), "g") == 0.0


def test_gang_waits_for_the_end_of_what_runs() -> None:
    """It starts when the place is free, and not before."""
    assert wait(fleet(waits("g"), runs("r", ends=1234.0)), "g") == 1234.0


def test_gangs_start_one_after_the_other() -> None:
    """What is admitted on the way runs for as long as it is expected to."""
    snapshot = fleet(waits("first", age=100.0, estimate=500.0), waits("second", estimate=500.0), runs("r", ends=900.0))
    told = forecast(snapshot, ["first", "second"], CALM, Effort(growth=0.0))
    assert [told[uid].wait for uid in ("first", "second")] == [900.0, 1400.0]


def test_what_is_further_off_is_told_more_coarsely_but_never_too_early() -> None:
    """Ends are taken together in steps that grow with the time played; a start is told at the end of its step."""
    ends = [100.0 * number for number in range(1, 40)]
    pending = [waits(f"g{number:02}", age=100.0 - number, estimate=9e9) for number in range(39)]
    running = [runs(f"r{number}", f"n{number}", ends=end) for number, end in enumerate(ends)]
    snapshot = fleet(*pending, *running, nodes=39)
    told = forecast(snapshot, [gang.uid for gang in pending], CALM, Effort(growth=0.5))
    for gang, end in zip(pending, ends, strict=True):
        assert end <= told[gang.uid].wait <= 1.5 * end + 60.0


def test_gang_beyond_the_horizon_is_said_to_be() -> None:
    """No moment is made up: it says until when it was played."""
    told = forecast(fleet(waits("g"), runs("r", ends=9 * 86_400.0)), ["g"], CALM)["g"]
    assert (told.at, told.until, range_of(told)) == (None, NOW + 7 * 86_400.0, "beyond the horizon")


def test_forecast_costs_no_more_cycles_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is bounded, and what was not reached is not told."""
    cycles = 0

    def counted(snapshot: Snapshot, policy: Policy) -> Any:
        nonlocal cycles
        cycles += 1
        return schedule(snapshot, policy)

    monkeypatch.setattr(sys.modules["helios.scheduler.forecast"], "schedule", counted)
    pending = [waits(f"g{number:02}", age=100.0 - number, estimate=400.0) for number in range(50)]
    told = forecast(fleet(*pending, runs("r", ends=400.0)), ["g49"], CALM, Effort(cycles=5, growth=0.0))["g49"]
    assert cycles == 5
    assert (told.at, told.until) == (None, NOW + 4 * 400.0)


def test_forecast_stops_once_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody pays for what was not asked."""
    cycles: list[float] = []

    def counted(snapshot: Snapshot, policy: Policy) -> Any:
        cycles.append(snapshot.now)
        return schedule(snapshot, policy)

    monkeypatch.setattr(sys.modules["helios.scheduler.forecast"], "schedule", counted)
    forecast(fleet(waits("g", age=1.0), waits("h"), runs("r")), ["g"], CALM)
    assert cycles == [NOW, NOW + HOUR]


@pytest.mark.parametrize("qos", [QoS.GUARANTEED, QoS.STANDARD])
def test_service_that_never_ends_gives_no_place(qos: QoS) -> None:
    """A guaranteed gang of which no end is known stays; other work is over some day."""
    told = forecast(fleet(waits("g"), runs("r", ends=None, qos=qos)), ["g"], CALM)["g"]
    assert (told.wait == math.inf) is (qos is QoS.GUARANTEED)
    assert told.at == (None if qos is QoS.GUARANTEED else NOW - HOUR + CALM.unknown_estimate)


def test_gang_that_outran_its_estimate_goes_on_for_as_long() -> None:
    """It is not taken to be over now: of heavy-tailed run times, what lasted long lasts longer."""
    assert wait(fleet(waits("g"), runs("r", ends=-700.0)), "g") == 700.0
    assert wait(fleet(waits("g"), runs("r", ends=0.0)), "g") == 60.0


def test_who_is_told_to_leave_makes_room_and_waits_again() -> None:
    """A guaranteed gang starts once the one that is stopped for it has left, and that one after it."""
    policy = Policy(elastic=False, defragmentation=False)
    snapshot = fleet(waits("urgent", qos=QoS.GUARANTEED, estimate=500.0), runs("r", qos=QoS.PREEMPTIBLE, ends=9000.0))
    snapshot = replace(snapshot, pending=(*snapshot.pending, waits("last", qos=QoS.PREEMPTIBLE, estimate=99_999.0)))
    told = forecast(snapshot, ["urgent", "last"], policy)
    assert told["urgent"].wait == policy.leaving
    assert told["last"].wait > 9000.0


def test_cell_that_is_held_off_is_asked_again_later() -> None:
    """It starts when the cell may be asked again, though nothing ends."""
    held = waits("g", held_off=(("a", NOW + 300.0),))
    assert wait(fleet(held), "g") == 300.0


def test_forecast_changes_nothing_and_says_the_same_again() -> None:
    """It is pure: the snapshot is decided as before."""
    snapshot = fleet(waits("g", age=5.0), waits("h"), runs("r"))
    before = schedule(snapshot, CALM).admits
    assert forecast(snapshot, ["h"], CALM) == forecast(snapshot, ["h"], CALM)
    assert schedule(snapshot, CALM).admits == before == ()


def test_gang_that_does_not_wait_is_refused() -> None:
    """Nothing is said of what is not in the queue."""
    with pytest.raises(KeyError, match="r"):
        forecast(fleet(waits("g"), runs("r")), ["g", "r"], CALM)
