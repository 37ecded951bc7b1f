"""An owner gets its own quota back from those who borrow it: all of it, from nobody else, and once."""

from dataclasses import replace
from typing import Any

from helios.scheduler import (
    CellState,
    Cycle,
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
from helios.spec import QoS

EIGHT = Request(accelerator="H100", accelerators=8)


def cell(name: str, *nodes: str) -> CellState:
    return CellState(name, Readiness.READY, tuple(Node(node, "p", 9000, 1 << 40, {"H100": 8}) for node in nodes))


def tenants(**nominal: int) -> tuple[TenantState, ...]:
    return tuple(TenantState(name, {"H100": QuotaState(quota)}, "lab") for name, quota in nominal.items())


def waits(uid: str, tenant: str = "owner", workers: int = 1, **more: Any) -> PendingGang:
    facts: dict[str, Any] = {"submitted_at": -500.0, "estimate": 600.0} | more
    return PendingGang(
        uid, uid, tenant, QoS.STANDARD, 0, request=EIGHT, min_workers=workers, max_workers=workers, **facts
    )


def holds(uid: str, node: str, tenant: str = "guest", *, cell: str = "a", **more: Any) -> RunningGang:
    facts: dict[str, Any] = {"qos": QoS.STANDARD, "started_at": -9000.0, "checkpointed_at": -1.0, "ends_at": 9e4} | more
    return RunningGang(uid, tenant, cell, (node,), EIGHT, restart_s=10.0, **facts)


def stopped(cycle: Cycle) -> list[str]:
    return sorted(change.uid for change in cycle.changes)


def test_owner_of_an_overdrawn_cohort_gets_all_that_it_lacks() -> None:
    """A quota was lowered: who holds beyond it leaves until the owner may start, and then it does."""
    gangs = (holds("b1", "n1"), holds("b2", "n2"), holds("kept", "n3", "other"))
    cells, known = (cell("a", "n1", "n2", "n3"),), tenants(owner=8, guest=0, other=8)
    snapshot = Snapshot(0.0, cells, known, (waits("mine"),), gangs)
    cycle = schedule(snapshot)
    assert stopped(cycle) == ["b1", "b2"]
    assert cycle.waits["mine"].reason == "MakingRoom"
    after = schedule(replace(snapshot, running=gangs[2:]))
    assert [admit.uid for admit in after.admits] == ["mine"]


def test_nobody_is_stopped_where_the_owner_could_not_start_even_then() -> None:
    """One of the borrowers may not be stopped yet: the other's leaving would be of no use."""
    gangs = (holds("b1", "n1"), holds("young", "n2", started_at=-60.0))
    cycle = schedule(Snapshot(0.0, (cell("a", "n1", "n2"),), tenants(owner=8, guest=0), (waits("mine"),), gangs))
    assert stopped(cycle) == []
    assert cycle.waits["mine"].reason == "QuotaExceeded"


def test_quota_comes_back_from_other_cells_than_the_place() -> None:
    """There is room in one cell, and who borrows the quota runs in another."""
    cells = (cell("a", "n1"), cell("b", "n2"))
    cycle = schedule(
        Snapshot(0.0, cells, tenants(owner=8, guest=0), (waits("mine", cells=("b",)),), (holds("b1", "n1"),))
    )
    assert stopped(cycle) == ["b1"]


def test_who_keeps_to_its_own_quota_makes_no_room() -> None:
    """Half of what the guest holds is its own: that half stays, though the owner's gang does not fit without it."""
    gangs = (holds("b1", "n1"), holds("b2", "n2"))
    known = tenants(owner=16, guest=8)
    both = Snapshot(0.0, (cell("a", "n1", "n2"),), known, (waits("mine", workers=2),), gangs)
    assert stopped(schedule(both)) == []
    elsewhere = replace(both, cells=(cell("a", "n1", "n2"), cell("b", "n3")), pending=(waits("mine"), waits("more")))
    assert len(stopped(schedule(elsewhere))) == 1


def test_what_leaves_already_is_not_asked_for_again() -> None:
    """While the first borrower writes its checkpoint nobody else is stopped for the same quota."""
    known = tenants(owner=8, lender=8, guest=0)
    gangs = (holds("b1", "n1"), holds("b2", "n2"))
    snapshot = Snapshot(0.0, (cell("a", "n1", "n2"),), known, (waits("mine"),), gangs)
    (first,) = stopped(schedule(snapshot))
    leaving = tuple(replace(gang, leaving_at=60.0) if gang.uid == first else gang for gang in gangs)
    assert stopped(schedule(replace(snapshot, now=5.0, running=leaving))) == []
