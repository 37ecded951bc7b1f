"""Both stages on small fleets: the order of the queue, the choice of the cell, the nodes of a gang, and the reasons."""

from dataclasses import replace
from typing import Any

import pytest

from helios.scheduler import (
    Admit,
    CellState,
    Node,
    NodeReject,
    PendingGang,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    Wait,
    WaitReason,
    explain,
    schedule,
)
from helios.spec import QoS

GPU = Request(millicpus=1000, accelerator="H100", accelerators=1)
CPU = Request(millicpus=1000)


def node(name: str, gpus: int = 8, cpus: int = 64, **rest: Any) -> Node:
    return Node(name, "pool", cpus * 1000, 1 << 40, {"H100": gpus} if gpus else {}, **rest)


def cell(name: str, *nodes: Node, readiness: Readiness = Readiness.READY, message: str = "") -> CellState:
    return CellState(name, readiness, nodes, message)


def gang(uid: str, workers: int = 1, request: Request = GPU, **rest: Any) -> PendingGang:
    facts = {"qos": QoS.STANDARD, "priority": 0, "submitted_at": 0.0, "max_workers": workers, "tenant": "t", **rest}
    return PendingGang(uid=uid, name=uid, request=request, min_workers=workers, **facts)


def fleet(*cells: CellState, pending: Any = (), running: Any = (), quotas: dict[str, int] | None = None) -> Snapshot:
    return Snapshot(0.0, cells, (TenantState("t", quotas),), tuple(pending), tuple(running))


def admit(snapshot: Snapshot, uid: str) -> Admit:
    decision = next(decision for decision in schedule(snapshot) if decision.uid == uid)
    assert isinstance(decision, Admit)
    return decision


def wait(snapshot: Snapshot, uid: str) -> Wait:
    decision = next(decision for decision in schedule(snapshot) if decision.uid == uid)
    assert isinstance(decision, Wait)
    return decision


def test_queue_is_ordered_by_class_then_priority_then_age() -> None:
    """Guaranteed before standard before preemptible; within a class the higher, then the older."""
    pending = [
        gang("young", submitted_at=2.0),
        gang("old", submitted_at=1.0),
        gang("urgent", submitted_at=3.0, priority=1),
        gang("cheap", qos=QoS.PREEMPTIBLE, priority=9),
        gang("serving", qos=QoS.GUARANTEED, submitted_at=9.0),
    ]
    assert [decision.uid for decision in schedule(fleet(pending=pending))] == [
        "serving",
        "urgent",
        "old",
        "young",
        "cheap",
    ]


def test_last_place_goes_to_the_higher_class() -> None:
    """With room for one, the guaranteed gang has it although it came last."""
    pending = [gang("early", 8, submitted_at=0.0), gang("late", 8, submitted_at=9.0, qos=QoS.GUARANTEED)]
    snapshot = fleet(cell("a", node("n1")), pending=pending)
    assert admit(snapshot, "late").cell == "a"
    assert wait(snapshot, "early").reason is WaitReason.WAITING_FOR_CAPACITY


def test_whole_gang_decides_and_not_the_sum_of_what_is_free() -> None:
    """Two nodes with 4 free devices each hold no worker of 8, though 8 are free."""
    eight = replace(GPU, accelerators=8)
    running = [RunningGang("r", "t", "a", ("n1", "n2"), replace(GPU, accelerators=4))]
    snapshot = fleet(cell("a", node("n1"), node("n2")), pending=[gang("g", 1, eight)], running=running)
    decision = wait(snapshot, "g")
    assert decision.reason is WaitReason.WAITING_FOR_CAPACITY
    assert decision.cells[0].rejected == {NodeReject.ACCELERATORS: 2}


def test_gang_is_put_where_it_leaves_roomy_nodes_whole() -> None:
    """A small gang goes to the node that it fills, not to the empty one."""
    running = [RunningGang("r", "t", "a", ("n2",) * 6, GPU)]
    snapshot = fleet(cell("a", node("n1"), node("n2")), pending=[gang("g", 2)], running=running)
    assert admit(snapshot, "g").nodes == ("n2", "n2")


def test_large_gang_takes_few_nodes() -> None:
    """Twelve workers take one whole node and four places of the next."""
    snapshot = fleet(cell("a", node("n1"), node("n2"), node("n3")), pending=[gang("g", 12)])
    decision = admit(snapshot, "g")
    assert (decision.workers, len(set(decision.nodes))) == (12, 2)


def test_elastic_gang_gets_what_there_is_between_its_bounds() -> None:
    """Of 2 to 16 workers it gets the 8 that fit, and the reason says so; below its minimum it waits."""
    snapshot = fleet(cell("a", node("n1")), pending=[gang("g", 2, max_workers=16)])
    decision = admit(snapshot, "g")
    assert (decision.workers, decision.reason) == (8, "8 workers of up to 16 on 1 node")
    assert wait(fleet(cell("a", node("n1")), pending=[gang("g", 9, max_workers=16)]), "g").cells[0].fits == 8


def test_cell_with_most_workers_then_tightest_fit_is_chosen() -> None:
    """Elastic work goes where it is largest; equal places are decided by what they waste, then by name."""
    small, large = cell("a", node("n1", 4)), cell("b", node("n1", 8))
    assert admit(fleet(small, large, pending=[gang("g", 1, max_workers=8)]), "g").cell == "b"
    assert admit(fleet(large, small, pending=[gang("g", 4)]), "g").cell == "a"
    assert admit(fleet(cell("z", node("n1")), cell("y", node("n1")), pending=[gang("g", 4)]), "g").cell == "y"


@pytest.mark.parametrize(
    ("cells", "request_", "workers", "allowed", "reason"),
    [
        ((), GPU, 1, (), WaitReason.NO_CELL),
        ((cell("a", node("n1")),), GPU, 1, ("b",), WaitReason.CELL_NOT_ALLOWED),
        ((cell("a", node("n1"), readiness=Readiness.NOT_READY),), GPU, 1, (), WaitReason.CELL_NOT_READY),
        ((cell("a", node("n1"), readiness=Readiness.UNKNOWN),), GPU, 1, (), WaitReason.CELL_UNKNOWN),
        ((cell("a", node("n1", gpus=0)),), GPU, 1, (), WaitReason.NO_CELL_HAS_ACCELERATOR),
        ((cell("a", node("n1")),), Request(millicpus=65_000), 1, (), WaitReason.WORKER_DOES_NOT_FIT),
        ((cell("a", node("n1")),), GPU, 9, (), WaitReason.GANG_DOES_NOT_FIT),
        ((cell("a", node("n1", healthy=False)),), GPU, 1, (), WaitReason.NODES_CLOSED),
    ],
)
def test_each_obstacle_has_its_own_reason_and_its_own_way_out(
    cells: Any, request_: Request, workers: int, allowed: Any, reason: WaitReason
) -> None:
    """Whatever holds a gang back has a typed reason, and `explain` says what would unblock it."""
    snapshot = fleet(*cells, pending=[gang("g", workers, request_, cells=allowed)])
    decision = wait(snapshot, "g")
    assert decision.reason is reason
    why = explain(snapshot, "g")
    assert (why.reason, why.position, why.ahead) == (reason, 1, 0)
    assert why.unblock


def test_mixed_refusals_are_summed_up_by_the_nearest_to_being_solved() -> None:
    """A full cell that could hold the gang says more than one that never can; all verdicts are there."""
    full = cell("full", node("n1"))
    running = [RunningGang("r", "t", "full", ("n1",) * 8, GPU)]
    snapshot = fleet(cell("cpu", node("n1", gpus=0)), full, pending=[gang("g", 8)], running=running)
    decision = wait(snapshot, "g")
    assert decision.reason is WaitReason.WAITING_FOR_CAPACITY
    assert [verdict.cell for verdict in decision.cells] == ["cpu", "full"]
    assert explain(snapshot, "g").unblock == (
        "add a node pool with H100 to a cell, or submit without spec.resources.accelerators",
        "wait until work on cell full ends: 0 of 8 workers fit now",
    )


def test_quota_counts_all_cells_and_shrinks_what_is_elastic() -> None:
    """Devices held anywhere count; an elastic gang takes what the quota leaves."""
    running = [RunningGang("r", "t", "gone", ("n9",) * 4, GPU)]
    elastic = gang("g", 1, max_workers=8)
    snapshot = fleet(cell("a", node("n1")), pending=[elastic], running=running, quotas={"H100": 6})
    assert admit(snapshot, "g").workers == 2
    over = fleet(cell("a", node("n1")), pending=[gang("g", 3)], running=running, quotas={"H100": 6})
    assert wait(over, "g").message == "tenant 't' may hold 6 H100 and holds 4; this needs 3 more"
    assert "nominalQuota of tenant 't'" in explain(over, "g").unblock[0]


def test_type_without_quota_is_refused_where_quotas_are_set() -> None:
    """A tenant with quotas was granted only what they name; CPU work needs none; no quotas at all means no limit."""
    cells = cell("a", node("n1"))
    refused = wait(fleet(cells, pending=[gang("g")], quotas={"A100": 8}), "g")
    assert (refused.reason, refused.message) == (WaitReason.QUOTA_EXCEEDED, "tenant 't' was granted no H100")
    assert admit(fleet(cells, pending=[gang("g", 1, CPU)], quotas={"A100": 8}), "g").workers == 1
    assert admit(fleet(cells, pending=[gang("g")], quotas=None), "g").workers == 1


def test_gang_that_is_next_is_said_to_be_admissible() -> None:
    """`explain` between two cycles does not invent a reason to wait."""
    why = explain(fleet(cell("a", node("n1")), pending=[gang("g")]), "g")
    assert (why.reason, why.unblock) == ("Admissible", ())
    with pytest.raises(KeyError):
        explain(fleet(), "nobody")


@pytest.mark.parametrize(
    ("quotas", "workers", "said"),
    [
        ({"A100": 8}, 1, ("grant tenant 'team' some H100: add it to spec.quotas with a nominalQuota",)),
        ({"H100": 2}, 4, ("raise spec.quotas[H100]", "ask for 2 H100 or fewer")),
        ({"H100": 4}, 4, ("raise spec.quotas[H100]", "wait until other work of tenant 'team' gives back its H100")),
    ],
)
def test_advice_about_quotas_is_advice_that_helps(quotas: dict[str, int], workers: int, said: tuple[str, ...]) -> None:
    """Waiting is no advice for what was never granted, nor for more than the whole quota."""
    tenant = TenantState("team", quotas)
    running = RunningGang("r", "team", "a", ("n1",), GPU)
    snapshot = Snapshot(
        now=0.0,
        cells=(cell("a", node("n1")),),
        tenants=(tenant,),
        pending=(replace(gang("g", workers, GPU), tenant="team"),),
        running=(running,),
    )
    unblock = explain(snapshot, "g").unblock
    assert len(unblock) == len(said)
    assert all(sentence.startswith(expected) for sentence, expected in zip(unblock, said, strict=True))
