"""A place that others left for a gang is that gang's until it starts, unless somebody above it needs it."""

from dataclasses import replace
from typing import Any

import pytest

from helios.scheduler import (
    CellState,
    Node,
    PendingGang,
    QuotaState,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    schedule,
)
from helios.scheduler.policy import Policy
from helios.spec import QoS

EIGHT = Request(accelerator="H100", accelerators=8)
UNTIL = 60.0
LEAVING = Policy().leaving


def cell(name: str, *nodes: str) -> CellState:
    return CellState(name, Readiness.READY, tuple(Node(node, "p", 9000, 1 << 40, {"H100": 8}) for node in nodes))


def waits(uid: str, qos: QoS = QoS.STANDARD, **more: Any) -> PendingGang:
    facts: dict[str, Any] = {"priority": 0, "submitted_at": -500.0, "estimate": 50_000.0} | more
    return PendingGang(uid, uid, "t", qos, request=EIGHT, min_workers=1, max_workers=1, **facts)


def spot(uid: str, node: str, **more: Any) -> RunningGang:
    facts: dict[str, Any] = {"qos": QoS.PREEMPTIBLE, "started_at": -9e3, "checkpointed_at": -1.0, "ends_at": 9e4} | more
    return RunningGang(uid, "v", more.pop("cell", "c"), (node,), EIGHT, restart_s=10.0, **facts)


TENANTS = (TenantState("t"), TenantState("v"))
HELPED = waits("helped", promised=("c", UNTIL))
SHORT = waits("short", estimate=64.0)
"""Goes before by its figure, and is of the same class."""


def look(now: float, *queue: PendingGang, held: tuple[RunningGang, ...] = (), **more: Any) -> Snapshot:
    return replace(Snapshot(now, (cell("c", "n1"),), TENANTS, queue, held), **more)


def started(snapshot: Snapshot) -> list[str]:
    return [admit.uid for admit in schedule(snapshot).admits]


@pytest.mark.parametrize("other", [SHORT, replace(SHORT, uid="twin", estimate=50_000.0, submitted_at=-900.0)])
def test_no_equal_takes_the_place(other: PendingGang) -> None:
    """Neither while it is left nor once it is free, be it shorter, or older and alike. Without the promise it would."""
    leaving = (spot("s", "n1", leaving_at=UNTIL),)
    cycle = schedule(look(5.0, HELPED, other, held=leaving))
    assert cycle.waits["helped"].reason == "MakingRoom"
    assert (cycle.reservations[0].uid, cycle.reservations[0].at, cycle.changes) == ("helped", UNTIL, ())
    assert started(look(UNTIL, HELPED, other)) == ["helped"]
    assert started(look(UNTIL, replace(HELPED, promised=None), other)) == [other.uid]


def test_what_comes_free_piece_by_piece_is_kept() -> None:
    """The first of two nodes is free already: nobody behind the gang starts there meanwhile."""
    wide = replace(HELPED, min_workers=2, max_workers=2)
    cells = (cell("c", "n1", "n2", "n3"),)
    held = (spot("s", "n2", leaving_at=UNTIL), spot("old", "n3", qos=QoS.GUARANTEED))
    assert started(look(5.0, wide, SHORT, held=held, cells=cells)) == []
    assert started(look(5.0, wide, SHORT, held=held[:1], cells=cells)) == ["helped"]
    assert started(look(UNTIL, wide, SHORT, held=held[1:], cells=cells)) == ["helped"]


@pytest.mark.parametrize(
    "above",
    [
        waits("above", QoS.GUARANTEED),
        waits("above", priority=1),
        waits("above", submitted_at=-90_000.0),  # urgent
    ],
)
def test_who_stands_above_goes_before(above: PendingGang) -> None:
    """A promise is worth something among equals alone."""
    assert started(look(UNTIL, HELPED, above)) == ["above"]


def test_promise_is_never_against_quota() -> None:
    """Whose quota was lowered meanwhile has no claim."""
    none = (TenantState("t", {"H100": QuotaState(0)}), TENANTS[1], TenantState("u"))
    assert started(look(UNTIL, HELPED, replace(SHORT, tenant="u"), tenants=none)) == ["short"]


def test_promise_lapses() -> None:
    """A while after all should have left the gang is one of many again; the cycle says when to look."""
    end = UNTIL + LEAVING
    waiting = look(end - 1, HELPED, SHORT, held=(spot("s", "n1", qos=QoS.GUARANTEED),))
    assert schedule(waiting).next_look <= end
    assert started(look(end, HELPED, SHORT)) == ["helped"]
    assert started(look(end + 1, HELPED, SHORT)) == ["short"]


def test_nobody_else_is_stopped_for_whom_others_leave_already() -> None:
    """Though one that goes before it has the cell's reservation; once the place is lost, others are asked again."""
    cells = (cell("c", "n1", "n2", "n3"),)
    first = waits("first", submitted_at=-90_000.0)
    held = (spot("s", "n1", leaving_at=UNTIL), spot("r", "n2", ends_at=30.0, qos=QoS.GUARANTEED), spot("x", "n3"))
    cycle = schedule(look(5.0, HELPED, first, held=held, cells=cells))
    assert "helped" not in {change.beneficiary for change in cycle.changes}
    gone = (spot("g", "n1", qos=QoS.GUARANTEED), *held[1:])
    cycle = schedule(look(5.0, HELPED, held=gone, cells=cells))
    assert [(change.uid, change.beneficiary) for change in cycle.changes] == [("x", "helped")]


def test_room_that_is_kept_is_not_given_away_by_another_plan() -> None:
    """Who comes behind has others stopped, and not the place that the first was promised."""
    cells = (cell("c", "n1", "n2"),)
    held = (spot("s", "n1", leaving_at=UNTIL), spot("x", "n2"))
    cycle = schedule(look(5.0, HELPED, SHORT, held=held, cells=cells))
    assert [(change.uid, change.beneficiary) for change in cycle.changes] in ([], [("x", "short")])
    assert cycle.waits["helped"].reason == "MakingRoom"
