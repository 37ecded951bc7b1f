"""Who is stopped, shrunk or moved for whom, on fleets that are full."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helios.scheduler import (
    CellState,
    Change,
    Cycle,
    Node,
    PendingGang,
    Policy,
    Preempt,
    QuotaState,
    Readiness,
    Request,
    Resize,
    RunningGang,
    Snapshot,
    StopReason,
    TenantState,
    schedule,
)
from helios.scheduler.codec import decided as decided_of
from helios.scheduler.preemption import Rooms
from helios.scheduler.queue import QOS_ORDER
from helios.spec import QoS

EXAMPLES = int(os.environ.get("HELIOS_EXAMPLES", "150"))
NOW = 1_000_000.0
KIND, TENANTS, DEVICES = "H100", ("t", "u", "v"), 8
POLICY = Policy(preemption_tokens=2, tenant_budget=2, job_budget=2)
AGES = st.sampled_from([200_000.0, 20_000.0, 5_000.0, 2_000.0, 200.0, 30.0])


def cell_of(name: str, nodes: int) -> CellState:
    made = tuple(Node(f"{name}{number}", "pool", 8_000, 64, {KIND: DEVICES}) for number in range(nodes))
    return CellState(name, Readiness.READY, made)


@st.composite
def tenants(draw: st.DrawFn, name: str) -> TenantState:
    limits = st.none() | st.none() | st.integers(0, 16)
    quotas = draw(st.none() | st.builds(QuotaState, st.sampled_from([4, 8, 12, 16, 24]), limits, limits))
    granted = None if quotas is None else {KIND: quotas}
    return TenantState(
        name, granted, draw(st.sampled_from(["", "c", "c"])), preemptions=draw(st.sampled_from([0, 0, 0, 1, 2]))
    )


@st.composite
def running(draw: st.DrawFn, uid: str, cell: str, places: tuple[str, ...], devices: int) -> RunningGang:
    age = draw(AGES)
    return RunningGang(
        uid,
        draw(st.sampled_from(TENANTS)),
        cell,
        places,
        Request(draw(st.sampled_from([0, 500, 1000])), 0, KIND, devices),
        (),
        draw(st.sampled_from([QoS.PREEMPTIBLE] * 3 + [QoS.STANDARD] * 3 + [QoS.GUARANTEED])),
        started_at=draw(st.sampled_from([NOW - age] * 9 + [None])),
        checkpointed_at=draw(st.sampled_from([None, NOW - age / 10])),
        ends_at=draw(st.sampled_from([None, NOW + 60, NOW + 5_000, NOW + 90_000])),
        restart_s=draw(st.sampled_from([0.0, 60.0])),
        leaving_at=draw(st.sampled_from([None] * 9 + [NOW + 30])),
        min_workers=draw(st.integers(1, len(places))),
        max_workers=len(places) + draw(st.integers(0, 1)),
        preemptions=draw(st.sampled_from([0] * 7 + [1, 2])),
    )


@st.composite
def pending(draw: st.DrawFn, uid: str) -> PendingGang:
    low = draw(st.integers(1, 4))
    return PendingGang(
        uid=uid,
        name=uid,
        tenant=draw(st.sampled_from(TENANTS)),
        qos=draw(st.sampled_from(list(QoS))),
        priority=draw(st.integers(0, 1)),
        submitted_at=NOW - draw(AGES),
        request=Request(500, 0, KIND, draw(st.sampled_from([1, 2, 4, 8]))),
        min_workers=low,
        max_workers=low + draw(st.integers(0, 1)),
        cells=draw(st.sampled_from([(), (), ("a",)])),
        estimate=draw(st.sampled_from([None, 100.0, 3_000.0, 100_000.0])),
        promised=draw(st.sampled_from([None] * 6 + [("a", NOW + 30), ("b", NOW - 60), ("a", NOW - 600)])),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Nodes that are nearly full of gangs, of one node or of two, and a few gangs that wait."""
    cells = (cell_of("a", draw(st.integers(1, 3))), cell_of("b", draw(st.integers(0, 2))))
    gangs: list[RunningGang] = []
    for cell in cells:
        free = {node.name: DEVICES for node in cell.nodes}
        for node in cell.nodes:
            while free[node.name] and draw(st.sampled_from([True] * 14 + [False])):
                devices = draw(st.sampled_from([size for size in (8, 4, 2, 1) if size <= free[node.name]]))
                peers = [name for name, left in free.items() if left >= devices and name != node.name]
                count = draw(st.integers(1, free[node.name] // devices))
                places = (node.name,) * count + tuple(peers[: draw(st.integers(0, 1))])
                for name in places:
                    free[name] -= devices
                gangs.append(draw(running(f"r{len(gangs)}", cell.name, places, devices)))
    waiting = tuple(draw(pending(f"g{number}")) for number in range(draw(st.integers(1, 5))))
    return Snapshot(NOW, cells, tuple(draw(tenants(name)) for name in TENANTS), waiting, tuple(gangs))


def asked_to_give(cycle: Cycle) -> list[Change]:
    """Changes that cost the gang something, for another one."""
    return [change for change in cycle.changes if change.beneficiary]


def test_work_without_devices_is_stopped_for_guaranteed_work_without_devices() -> None:
    """Its loss is no device-seconds, and its wait is worth none: only what goes at any cost has others stopped."""
    cores = Request(millicpus=8_000)
    held = RunningGang("r", "t", "a", ("a0",), cores, qos=QoS.PREEMPTIBLE, started_at=NOW - 5_000)
    for qos in QoS:
        gang = PendingGang("g", "g", "t", qos, 0, NOW - 5_000, cores, 1, 1, estimate=60.0)
        changes = schedule(Snapshot(NOW, (cell_of("a", 1),), (TenantState("t"),), (gang,), (held,))).changes
        assert [change.uid for change in changes] == (["r"] if qos is QoS.GUARANTEED else [])


def test_a_gang_that_gives_room_does_not_grow_in_the_same_cycle() -> None:
    """It gives up workers for one whose promise cannot be kept, while devices are left beside it that it could use."""
    one, two = Request(accelerator=KIND, accelerators=1), Request(accelerator=KIND, accelerators=2)
    held = RunningGang(
        "r",
        "t",
        "a",
        ("a1",) * 8,
        one,
        qos=QoS.PREEMPTIBLE,
        started_at=NOW - 200_000,
        ends_at=NOW + 90_000,
        min_workers=1,
        max_workers=12,
    )
    other = RunningGang("s", "t", "a", ("a0",) * 5, one, qos=QoS.GUARANTEED, started_at=NOW - 200_000)
    gang = PendingGang("g", "g", "t", QoS.GUARANTEED, 0, NOW - 200_000, two, 2, 2, promised=("a", NOW + 30))
    cycle = schedule(Snapshot(NOW, (cell_of("a", 2),), (TenantState("t"),), (gang,), (held, other)), POLICY)
    assert [(change.uid, change.beneficiary) for change in cycle.changes] == [("r", "g")]


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_nobody_is_asked_that_is_guaranteed_new_leaving_or_out_of_budget(snapshot: Snapshot) -> None:
    """Each gang is asked for one thing at most; growth of a gang is not a request to give."""
    gangs, cycle = {gang.uid: gang for gang in snapshot.running}, schedule(snapshot, POLICY)
    assert max(Counter(change.uid for change in cycle.changes).values(), default=1) == 1
    budget = {tenant.name: tenant.preemptions for tenant in snapshot.tenants}
    for change in cycle.changes:
        gang = gangs[change.uid]
        assert gang.leaving_at is None
        assert change.cell == gang.cell
        if change.beneficiary:
            assert gang.qos is not QoS.GUARANTEED
            assert gang.started_at is not None
            assert NOW - gang.started_at >= POLICY.min_run[gang.qos]
            assert gang.preemptions < POLICY.job_budget
            assert budget[gang.tenant] < POLICY.tenant_budget


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_who_is_stopped_for_whom_is_in_the_table(snapshot: Snapshot) -> None:
    """The rows of docs/concepts/scheduling.md, one by one; none of it costs more than the rows allow."""
    gangs, waiting = {gang.uid: gang for gang in snapshot.running}, {gang.uid: gang for gang in snapshot.pending}
    for change in asked_to_give(schedule(snapshot, POLICY)):
        victim, gainer = gangs[change.uid], waiting[change.beneficiary]
        if isinstance(change, Resize):
            assert change.reason is StopReason.RESIZED
            assert QOS_ORDER[gainer.qos] <= QOS_ORDER[victim.qos]
            assert victim.fewest <= change.workers == len(change.nodes) < len(victim.nodes)
            assert not Counter(change.nodes) - Counter(victim.nodes)
        elif change.reason is StopReason.RECLAIMED:
            assert is_borrower(victim, gainer, snapshot)
        elif change.reason is StopReason.PREEMPTED:
            above = QOS_ORDER[gainer.qos] < QOS_ORDER[victim.qos]
            assert above or ran_for_longer_than_newcomer_takes(victim, gainer, change)
        else:
            assert change.reason is StopReason.DEFRAGMENTED
            assert victim.held < gainer.min_workers * gainer.request.devices


def is_borrower(victim: RunningGang, owner: PendingGang, snapshot: Snapshot) -> bool:
    """It needs quota, its tenant holds more than its own, and the owner of the same cohort less than its own."""
    tenants = {tenant.name: tenant for tenant in snapshot.tenants}
    mine, theirs = tenants[owner.tenant], tenants[victim.tenant]
    held = quota_held(snapshot)
    own, lent = mine.quota(KIND), theirs.quota(KIND)
    if victim.qos is QoS.PREEMPTIBLE or own is None or lent is None or not mine.cohort:
        return False
    needs = owner.min_workers * owner.request.devices
    same = mine.cohort == theirs.cohort and mine.name != theirs.name
    return same and held[theirs.name] > lent.nominal and held[mine.name] + needs <= own.nominal


def quota_held(snapshot: Snapshot) -> Counter[str]:
    """Devices that count against quota, by tenant."""
    held: Counter[str] = Counter()
    for gang in snapshot.running:
        if gang.qos is not QoS.PREEMPTIBLE:
            held[gang.tenant] += round(gang.held)
    return held


def ran_for_longer_than_newcomer_takes(victim: RunningGang, gainer: PendingGang, change: Preempt) -> bool:
    assert victim.started_at is not None
    short = gainer.estimate is not None and gainer.estimate + change.cost / victim.held < NOW - victim.started_at
    return short and victim.qos is gainer.qos is QoS.PREEMPTIBLE


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_what_is_stopped_costs_less_than_the_wait_is_worth_and_few_are_helped(snapshot: Snapshot) -> None:
    """Six hours of wait are worth `urgency` each device-second; a token for each gang that others are stopped for."""
    waiting = {gang.uid: gang for gang in snapshot.pending}
    cycle = schedule(snapshot, POLICY)
    cost: Counter[str] = Counter()
    for change in asked_to_give(cycle):
        cost[change.beneficiary] += change.cost  # type: ignore[assignment]  # a sum of seconds
    assert len(cost) <= POLICY.preemption_tokens
    assert not cost.keys() & {admit.uid for admit in cycle.admits}
    for uid, lost in cost.items():
        gang = waiting[uid]
        gain = gang.min_workers * gang.request.devices * 6 * 3600 * POLICY.urgency.get(gang.qos, 1.0)
        assert lost < gain or gang.qos is QoS.GUARANTEED
        assert gang.qos is not QoS.PREEMPTIBLE or NOW - gang.submitted_at >= POLICY.preempt_after[gang.qos]


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_each_gang_is_decided_on_once_and_holds_what_is_there(snapshot: Snapshot) -> None:
    """With promises as without: one decision a gang, no node beyond its devices, the same decisions again."""
    cycle = schedule(snapshot, POLICY)
    decided = [admit.uid for admit in cycle.admits] + [gang.uid for gangs, _ in cycle.lines for gang in gangs]
    assert sorted(decided) == sorted(gang.uid for gang in snapshot.pending)
    held = Counter[tuple[str, str]]()
    for gang in (*after(replace(snapshot, running=()), cycle).running, *snapshot.running):
        for node in gang.nodes:
            held[gang.cell, node] += gang.request.accelerators
    assert max(held.values(), default=0) <= DEVICES
    assert decided_of(schedule(snapshot, POLICY)) == decided_of(cycle)


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_room_that_is_made_is_enough(snapshot: Snapshot) -> None:
    """Once all have left who were told to, each for whom they were starts, or one that stands before it has a place."""
    cycle = schedule(snapshot, POLICY)
    helped = {change.beneficiary for change in asked_to_give(cycle)}
    moved = any(change.reason is StopReason.DEFRAGMENTED for change in cycle.changes)
    if not helped or moved:
        return
    later = after(snapshot, cycle)
    later = replace(later, running=tuple(gang for gang in later.running if gang.leaving_at is None))
    found, standing = schedule(later, POLICY), place_in_line(later)
    started = {admit.uid for admit in found.admits}
    placed = started | {reservation.uid for reservation in found.reservations}
    for uid in helped - started:
        assert any(standing[other] < standing[uid] for other in placed - {uid})


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_what_was_found_for_equals_is_what_would_be_found_again(snapshot: Snapshot) -> None:
    """A look that is kept within a cycle never answers for a gang that differs in what matters."""
    waiting = [_like(snapshot.pending[0], gang) for gang in snapshot.pending]
    snapshot = replace(snapshot, pending=tuple(waiting))
    kept = schedule(snapshot, POLICY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rooms, "once", lambda self, site, more, look: look())
        fresh = schedule(snapshot, POLICY)
    assert (kept.admits, kept.changes, kept.reservations) == (fresh.admits, fresh.changes, fresh.reservations)


def test_what_a_long_gang_may_not_stop_a_short_one_behind_it_may() -> None:
    """Of one size and class: the look for the first is none for the second."""
    held = RunningGang(
        "r", "t", "a", ("a0",) * 2, Request(0, 0, KIND, 4), qos=QoS.PREEMPTIBLE, started_at=NOW - 9_000,
        checkpointed_at=NOW - 9,
    )  # fmt: skip
    long = PendingGang("l", "l", "t", QoS.PREEMPTIBLE, 1, NOW - 5_000, Request(0, 0, KIND, 4), 2, 2, estimate=90_000.0)
    short = replace(long, uid="s", name="s", priority=0, estimate=100.0)
    cycle = schedule(Snapshot(NOW, (cell_of("a", 1),), (TenantState("t"),), (long, short), (held,)))
    assert [(change.uid, change.beneficiary) for change in cycle.changes] == [("r", "s")]


def test_work_that_never_wrote_a_checkpoint_is_stopped_for_a_higher_class_and_not_for_its_own() -> None:
    """It would begin again; and the charge for it is limited, so that what hides checkpoints is not safe either."""
    held = RunningGang("r", "t", "a", ("a0",), Request(0, 0, KIND, 8), qos=QoS.PREEMPTIBLE, started_at=NOW - 400_000)
    short = PendingGang("s", "s", "t", QoS.PREEMPTIBLE, 0, NOW - 90_000, held.request, 1, 1, estimate=100.0)
    fleet = Snapshot(NOW, (cell_of("a", 1),), (TenantState("t"),), (short,), (held,))
    assert schedule(fleet).changes == ()
    saved = replace(held, checkpointed_at=NOW - 9)
    assert [change.uid for change in schedule(replace(fleet, running=(saved,))).changes] == ["r"]
    above = replace(fleet, pending=(replace(short, qos=QoS.STANDARD),))
    assert [change.uid for change in schedule(above).changes] == ["r"]


def test_growing_is_charged_what_a_gang_without_checkpoints_begins_again() -> None:
    """Of 100,000 s that are left, twice the workers save nearly half; 60,000 s that are done again are more."""
    held = RunningGang(
        "r", "t", "a", ("a0",), Request(0, 0, KIND, 8), qos=QoS.STANDARD, started_at=NOW - 60_000,
        ends_at=NOW + 100_000, restart_s=60.0, min_workers=1, max_workers=2,
    )  # fmt: skip
    grown = {}
    for name, gang in {
        "never saved": held,
        "saved": replace(held, checkpointed_at=NOW - 1_000),
        "has just begun": replace(held, started_at=NOW - 5_000),
    }.items():
        cycle = schedule(Snapshot(NOW, (cell_of("a", 2),), (TenantState("t"),), (), (gang,)))
        grown[name] = [change.workers for change in cycle.changes if isinstance(change, Resize)]
    assert grown == {"never saved": [], "saved": [2], "has just begun": [2]}


def _like(first: PendingGang, gang: PendingGang) -> PendingGang:
    return replace(gang, request=first.request, min_workers=first.min_workers, max_workers=first.max_workers)


def after(snapshot: Snapshot, cycle: Cycle) -> Snapshot:
    """What the changes lead to, as a snapshot; who was admitted runs."""
    waiting = {gang.uid: gang for gang in snapshot.pending}
    changes = {change.uid: change for change in cycle.changes}
    gangs = [left for gang in snapshot.running for left in _left(gang, changes.get(gang.uid))]
    for admit in cycle.admits:
        gang = waiting.pop(admit.uid)
        gangs.append(RunningGang(admit.uid, gang.tenant, admit.cell, admit.nodes, gang.request, qos=gang.qos))
    return replace(snapshot, pending=tuple(waiting.values()), running=tuple(gangs))


def _left(gang: RunningGang, change: Change | None) -> Iterable[RunningGang]:
    if change is None:
        return (gang,)
    return (replace(gang, nodes=change.nodes),) if isinstance(change, Resize) else ()


def place_in_line(snapshot: Snapshot) -> dict[str, int]:
    """The order of the queue, by which gang starts where there is room for all."""
    many = tuple(replace(cell, nodes=_many(cell.nodes)) for cell in (cell_of("a", 40),))
    unlimited = tuple(replace(tenant, quotas=None) for tenant in snapshot.tenants)
    anywhere = tuple(replace(gang, cells=()) for gang in snapshot.pending)
    order = schedule(replace(snapshot, cells=many, running=(), tenants=unlimited, pending=anywhere), POLICY).admits
    return {admit.uid: number for number, admit in enumerate(order)}


def _many(nodes: Sequence[Node]) -> tuple[Node, ...]:
    return tuple(replace(node, millicpus=1 << 40) for node in nodes)
