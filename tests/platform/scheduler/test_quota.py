"""Quota where a gang could be given several things, shares its devices, or has room made for it."""

from typing import Any

import pytest

from helios.scheduler import (
    CellState,
    Fleet,
    Node,
    PendingGang,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    schedule,
)
from helios.scheduler.lines import shape_of
from helios.scheduler.policy import Policy
from helios.scheduler.preemption import Rooms
from helios.scheduler.scratch import Scratch
from helios.spec import QoS

H100, A100 = Request(accelerator="H100", accelerators=8), Request(accelerator="A100", accelerators=8)
TENTH = Request(accelerator="H100", share=100)


def cell(**nodes: dict[str, int]) -> CellState:
    return CellState("c", Readiness.READY, tuple(Node(name, "p", 9000, 1 << 40, has) for name, has in nodes.items()))


def waiting(uid: str, tenant: str = "t", request: Request = H100, workers: int = 1, **more: Any) -> PendingGang:
    facts: dict[str, Any] = {"qos": QoS.STANDARD, "priority": 0, "submitted_at": -500.0, "estimate": 600.0} | more
    return PendingGang(uid, uid, tenant, request=request, min_workers=workers, max_workers=workers, **facts)


def running(uid: str, node: str, request: Request = H100, **more: Any) -> RunningGang:
    facts: dict[str, Any] = {
        "qos": QoS.PREEMPTIBLE,
        "started_at": -9000.0,
        "checkpointed_at": -1.0,
        "ends_at": 90_000.0,
    } | more
    return RunningGang(uid, "v", "c", (node,), request, restart_s=10.0, **facts)


FULL = cell(n1={"H100": 8}, n2={"H100": 8})
LONG = (running("a", "n1"), running("b", "n2"))


def test_nobody_is_stopped_for_more_than_quota_allows() -> None:
    """Of a tenant that may hold one gang, one has room made for it; of one that may hold none, none. They hear why."""
    tenants = (TenantState("t", {"H100": 8}), TenantState("u", {"H100": 0}), TenantState("v"))
    queue = (waiting("t1"), waiting("t2", submitted_at=-490.0), waiting("u1", "u", submitted_at=-480.0))
    cycle = schedule(Snapshot(0.0, (FULL,), tenants, queue, LONG))
    assert [change.beneficiary for change in cycle.changes] == ["t1"]
    assert cycle.waits["t1"].reason == "MakingRoom"
    assert cycle.waits["u1"].message == "tenant 'u' may hold 0 H100 and holds 0; this needs 8 more"


def test_alternative_needs_quota_of_its_own() -> None:
    """What quota does not allow is not given in the place of what was asked for; another tenant's may be."""
    both = (A100,)
    tenants = (TenantState("t", {"H100": 8, "A100": 0}), TenantState("u", {"H100": 8, "A100": 8}))
    queue = (waiting("t1", alternatives=both), waiting("u1", "u", alternatives=both, submitted_at=-400.0))
    cycle = schedule(Snapshot(0.0, (cell(n1={"A100": 8}),), tenants, queue))
    assert [admit.uid for admit in cycle.admits] == ["u1"]


def test_alternative_is_given_where_quota_allows_nothing_else() -> None:
    """The first choice is over quota, the second is not."""
    tenants = (TenantState("t", {"H100": 0, "A100": 8}),)
    cycle = schedule(Snapshot(0.0, (cell(n1={"H100": 8, "A100": 8}),), tenants, (waiting("t1", alternatives=(A100,)),)))
    assert [admit.request for admit in cycle.admits] == [A100]


def test_no_place_is_reserved_beyond_quota() -> None:
    """An alternative that quota forbids is not kept free, though it would be free first."""
    fleet = cell(n1={"H100": 8}, n2={"A100": 8})
    held = (running("h", "n1", qos=QoS.GUARANTEED), running("a", "n2", A100, qos=QoS.GUARANTEED, ends_at=100.0))
    for quotas, node in (({"H100": 8}, "n1"), ({"H100": 8, "A100": 8}, "n2")):
        gang = waiting("x", alternatives=(A100,))
        cycle = schedule(Snapshot(0.0, (fleet,), (TenantState("t", quotas), TenantState("v")), (gang,), held))
        assert [kept.nodes for kept in cycle.reservations] == [(node,)]


@pytest.mark.parametrize("sizes", [(3, 7), (1, 2, 7), (9, 1), (10,)])
def test_ten_tenths_are_one_device(sizes: tuple[int, ...]) -> None:
    """Shares are counted in whole thousandths: no rounding holds the last of them back."""
    queue = tuple(waiting(f"g{place}", request=TENTH, workers=size) for place, size in enumerate(sizes))
    cycle = schedule(Snapshot(0.0, (FULL,), (TenantState("t", {"H100": 1}),), queue))
    assert sorted(admit.uid for admit in cycle.admits) == [gang.uid for gang in queue]


def test_devices_that_come_free_are_of_the_kind_that_is_given() -> None:
    """Who holds H100 makes no room for A100, though one node has both."""
    held = (running("h", "n1"), running("a", "n1", A100, qos=QoS.GUARANTEED))
    gang = waiting("x", alternatives=(A100,))
    snapshot = Snapshot(0.0, (cell(n1={"H100": 8, "A100": 8}),), (TenantState("t"), TenantState("v")), (gang,), held)
    plan = Rooms(Scratch(snapshot, Policy())).plan(gang, shape_of(gang), (H100, A100))
    assert plan is not None
    assert [victim.gang.uid for victim in plan.victims] == ["h"]
    assert plan.fit.request == H100


def test_room_is_made_by_rank_and_not_by_the_order_of_facts() -> None:
    """Of tenants alike but for age the oldest is helped, in whatever order the fleet was told of them."""
    queue = [waiting(f"{name}1", name, submitted_at=-500.0 - place) for place, name in enumerate("pqrs")]
    for order in (queue, queue[::-1]):
        fleet = Fleet()
        fleet.put_cell(cell(n1={"H100": 8}))
        fleet.put(LONG[0])
        for gang in order:
            fleet.put(gang)
        for name in "pqrsv":
            fleet.put_tenant(TenantState(name))
        cycle = schedule(fleet.snapshot(0.0))
        assert [change.beneficiary for change in cycle.changes] == ["s1"]
        assert [gang.uid for gang in cycle.lines[0][0]] == ["s1", "r1", "q1", "p1"]


def test_guaranteed_work_is_not_even_stopped_to_grow() -> None:
    """Growing is a checkpoint and a restart; standard work on idle nodes takes it, guaranteed work is left alone."""
    for qos, grown in ((QoS.GUARANTEED, []), (QoS.STANDARD, [2])):
        gang = running("e", "n1", qos=qos, min_workers=1, max_workers=2)
        cycle = schedule(Snapshot(0.0, (FULL,), (TenantState("v"),), (), (gang,)))
        assert [getattr(change, "workers", None) for change in cycle.changes] == grown
