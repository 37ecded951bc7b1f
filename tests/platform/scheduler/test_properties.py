"""What holds for every fleet and every queue."""

import itertools
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from helios.scheduler import (
    Admit,
    CellState,
    Node,
    PendingGang,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    Wait,
    schedule,
)
from helios.scheduler.queue import QOS_ORDER
from helios.spec import QoS

TYPES = ("A100", "H100")


@st.composite
def requests(draw: st.DrawFn) -> Request:
    count = draw(st.integers(0, 4))
    return Request(
        millicpus=draw(st.integers(0, 4000)),
        memory=draw(st.integers(0, 8)),
        accelerator=draw(st.sampled_from(TYPES)) if count else "",
        accelerators=count,
    )


@st.composite
def cells(draw: st.DrawFn, name: str) -> CellState:
    nodes = tuple(
        Node(
            name=f"n{index}",
            pool="pool",
            millicpus=draw(st.integers(0, 8000)),
            memory=draw(st.integers(0, 16)),
            accelerators=draw(st.dictionaries(st.sampled_from(TYPES), st.integers(0, 8), max_size=2)),
            healthy=draw(st.booleans()) or draw(st.booleans()),
        )
        for index in range(draw(st.integers(0, 4)))
    )
    return CellState(name, draw(st.sampled_from([Readiness.READY, *Readiness])), nodes)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    fleet = tuple(draw(cells(name)) for name in ("a", "b", "c")[: draw(st.integers(0, 3))])
    tenants = tuple(
        TenantState(name, draw(st.none() | st.dictionaries(st.sampled_from(TYPES), st.integers(0, 8))))
        for name in ("t", "u")
    )
    pending = []
    for index in range(draw(st.integers(0, 6))):
        low = draw(st.integers(1, 4))
        pending.append(
            PendingGang(
                uid=f"g{index}",
                name=f"g{index}",
                tenant=draw(st.sampled_from(["t", "u", "stranger"])),
                qos=draw(st.sampled_from(list(QoS))),
                priority=draw(st.integers(-1, 1)),
                submitted_at=draw(st.floats(0, 3)),
                request=draw(requests()),
                min_workers=low,
                max_workers=low + draw(st.integers(0, 3)),
                cells=draw(st.sampled_from([(), (), ("a",), ("b", "c")])),
            )
        )
    return settled(Snapshot(10.0, fleet, tenants, tuple(pending), ()))


def settled(snapshot: Snapshot) -> Snapshot:
    """The first half of the queue as it runs already, the rest waiting: what a second cycle sees."""
    half = len(snapshot.pending) // 2
    first = replace(snapshot, pending=snapshot.pending[:half])
    running = tuple(gang_of(first, decision) for decision in schedule(first) if isinstance(decision, Admit))
    return replace(snapshot, pending=snapshot.pending[half:], running=running)


def gang_of(snapshot: Snapshot, decision: Admit) -> RunningGang:
    asked = {gang.uid: gang for gang in snapshot.pending}[decision.uid]
    return RunningGang(decision.uid, asked.tenant, decision.cell, decision.nodes, asked.request, qos=asked.qos)


def admitted(snapshot: Snapshot) -> list[Admit]:
    return [decision for decision in schedule(snapshot) if isinstance(decision, Admit)]


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_no_node_is_ever_oversubscribed(snapshot: Snapshot) -> None:
    """Running and newly admitted together fit every node in every resource; only ready cells, healthy nodes."""
    new = [gang_of(snapshot, decision) for decision in admitted(snapshot)]
    used: Counter[tuple[str, str, str]] = Counter()
    for gang in (*snapshot.running, *new):
        for name in gang.nodes:
            used[gang.cell, name, "cpu"] += gang.request.millicpus
            used[gang.cell, name, "memory"] += gang.request.memory
            used[gang.cell, name, gang.request.accelerator] += gang.request.accelerators
    for cell in snapshot.cells:
        for node in cell.nodes:
            assert used[cell.name, node.name, "cpu"] <= node.millicpus
            assert used[cell.name, node.name, "memory"] <= node.memory
            assert all(used[cell.name, node.name, type_] <= node.accelerators.get(type_, 0) for type_ in TYPES)
    healthy = {
        (cell.name, node.name)
        for cell in snapshot.cells
        for node in cell.nodes
        if node.healthy and cell.readiness is Readiness.READY
    }
    assert {(gang.cell, name) for gang in new for name in gang.nodes} <= healthy


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_gang_is_all_or_nothing_where_it_may_be(snapshot: Snapshot) -> None:
    """Between its bounds, one node a worker, in one cell that it allows."""
    asked = {gang.uid: gang for gang in snapshot.pending}
    for decision in admitted(snapshot):
        gang = asked[decision.uid]
        assert gang.min_workers <= decision.workers == len(decision.nodes) <= gang.max_workers
        assert not gang.cells or decision.cell in gang.cells


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_quota_is_never_exceeded(snapshot: Snapshot) -> None:
    """What a tenant's work of the upper classes holds after the cycle is within its quota, or no more than before."""
    qos = {gang.uid: gang.qos for gang in snapshot.pending}
    new = [gang_of(snapshot, admit) for admit in admitted(snapshot) if qos[admit.uid] is not QoS.PREEMPTIBLE]
    old = [gang for gang in snapshot.running if gang.qos is not QoS.PREEMPTIBLE]
    tenants = {tenant.name: tenant for tenant in snapshot.tenants}
    for name, type_ in itertools.product(("t", "u", "stranger"), TYPES):
        tenant = tenants.get(name, TenantState(name, {}))
        quota = tenant.quota(type_)
        taken = sum(gang.request.accelerators * len(gang.nodes) for gang in new if _is(gang, name, type_))
        held = sum(gang.request.accelerators * len(gang.nodes) for gang in old if _is(gang, name, type_))
        limit = 0 if quota is None else quota.nominal
        assert tenant.quotas is None or not taken or held + taken <= limit


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_order_respects_the_classes(snapshot: Snapshot) -> None:
    """Nobody waits for what a lower class was given: without the lower classes, all decisions are the same."""
    admits = schedule(snapshot).admits
    asked = {gang.uid: gang for gang in snapshot.pending}
    ranks = [QOS_ORDER[asked[admit.uid].qos] for admit in admits]
    assert ranks == sorted(ranks)
    for rank in QOS_ORDER.values():
        upper = replace(snapshot, pending=tuple(gang for gang in snapshot.pending if QOS_ORDER[gang.qos] <= rank))
        assert schedule(upper).admits == tuple(admit for admit in admits if QOS_ORDER[asked[admit.uid].qos] <= rank)


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_decisions_depend_on_facts_and_not_on_their_order(snapshot: Snapshot) -> None:
    """Reversed cells, queue and running gangs give the same decisions; every gang gets exactly one."""
    shuffled = replace(
        snapshot,
        cells=tuple(reversed(snapshot.cells)),
        pending=tuple(reversed(snapshot.pending)),
        running=tuple(reversed(snapshot.running)),
    )
    assert schedule(shuffled) == schedule(snapshot)
    assert sorted(decision.uid for decision in schedule(snapshot)) == sorted(gang.uid for gang in snapshot.pending)


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_waiting_gang_has_a_reason_that_is_true(snapshot: Snapshot) -> None:
    """A gang that waits for capacity would start on the empty fleet; one that never fits would not."""
    asked = {gang.uid: gang for gang in snapshot.pending}
    unlimited = tuple(TenantState(name) for name in ("t", "u", "stranger"))
    for decision in schedule(snapshot):
        if isinstance(decision, Wait) and decision.cells:
            alone = Snapshot(0.0, snapshot.cells, unlimited, (asked[decision.uid],))
            starts = isinstance(schedule(alone).decisions[0], Admit)
            assert starts == (decision.reason == "WaitingForCapacity")


def _is(gang: RunningGang, tenant: str, type_: str) -> bool:
    return gang.tenant == tenant and gang.request.accelerator == type_
