"""Random fleets with all that there is: shares, cpu-only work, alternatives, cohorts, headroom, promises."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helios.scheduler import (
    Admit,
    CellState,
    Headroom,
    Node,
    PendingGang,
    Policy,
    Preempt,
    QuotaState,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    Topology,
    WaitReason,
    explain,
    schedule,
)
from helios.scheduler.codec import canonical, decided, read, record
from helios.spec import CapacityType, QoS

EXAMPLES = int(os.environ.get("HELIOS_EXAMPLES", "60"))
NOW = 1_000_000.0
PATIENT = Policy(preemption=False, elastic=False)
TENANTS = ("t", "u", "v")
REQUESTS = (
    Request(500, 1, "H100", 1),
    Request(500, 1, "H100", 2),
    Request(500, 1, "H100", 4),
    Request(500, 1, "H100", 8),
    Request(0, 0, "A100", 1),
    Request(100, 0, "H100", share=250),
    Request(100, 0, "H100", share=400),
    Request(2_000, 2),
    Request(6_000, 1),
)
AGES = st.sampled_from([200_000.0, 20_000.0, 5_000.0, 2_000.0, 200.0, 30.0])
HARDWARE: tuple[dict[str, int], ...] = ({"H100": 8}, {"H100": 8}, {"H100": 4}, {"A100": 4, "H100": 2}, {})


@dataclass
class Left:
    """What is free on a node; devices that are shared by how much of each is taken."""

    millicpus: int
    memory: int
    whole: Counter[str]
    shared: list[int] = field(default_factory=list)

    def take(self, request: Request) -> tuple[int, ...] | None:
        """The device, for a share, of a worker that fits; None for one that does not."""
        if request.millicpus > self.millicpus or request.memory > self.memory:
            return None
        kind, device = request.accelerator, -1
        if request.share:
            device = next((number for number, used in enumerate(self.shared) if used + request.share <= 1000), -1)
        opens = request.accelerators or int(request.share > 0 and device < 0)
        if opens > self.whole[kind]:
            return None
        self.whole[kind] -= opens
        self.millicpus -= request.millicpus
        self.memory -= request.memory
        if not request.share:
            return ()
        if device < 0:
            device = len(self.shared)
            self.shared.append(0)
        self.shared[device] += request.share
        return (device,)


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Node:
    rarely = st.sampled_from([False] * 9 + [True])
    places = st.sampled_from(["1", "2"])
    topology = Topology(draw(places), draw(places), draw(places))
    totals = draw(st.sampled_from(HARDWARE))
    return Node(name, "p", 8_000, 64, totals, not draw(rarely), draw(rarely), topology=topology)


@st.composite
def cells(draw: st.DrawFn, name: str) -> CellState:
    return CellState(
        name,
        draw(st.sampled_from([Readiness.READY] * 5 + [Readiness.UNKNOWN])),
        tuple(draw(nodes(f"{name}{number}")) for number in range(draw(st.integers(1, 4)))),
        prices=draw(st.sampled_from([{}, {("H100", CapacityType.RESERVED): 2.0}])),
        egress=draw(st.sampled_from([0.0, 0.09])),
    )


@st.composite
def running(
    draw: st.DrawFn, uid: str, place: tuple[str, str], request: Request, devices: tuple[int, ...]
) -> RunningGang:
    age = draw(AGES)
    return RunningGang(
        uid,
        draw(st.sampled_from(TENANTS)),
        place[0],
        place[1:],
        request,
        devices,
        draw(st.sampled_from([QoS.PREEMPTIBLE] * 3 + [QoS.STANDARD] * 3 + [QoS.GUARANTEED])),
        started_at=NOW - age,
        checkpointed_at=draw(st.sampled_from([None, NOW - age / 10])),
        ends_at=draw(st.sampled_from([None, NOW - 30, NOW + 60, NOW + 5_000, NOW + 90_000])),
        restart_s=10.0,
        leaving_at=draw(st.sampled_from([None] * 9 + [NOW + 30])),
        max_workers=draw(st.sampled_from([0, 0, 2])),
        spread=draw(st.sampled_from(["", "", "s"])),
    )


@st.composite
def pending(draw: st.DrawFn, uid: str) -> PendingGang:
    low = draw(st.integers(1, 4))
    return PendingGang(
        uid,
        uid,
        draw(st.sampled_from(TENANTS)),
        draw(st.sampled_from(list(QoS))),
        draw(st.integers(0, 1)),
        NOW - draw(AGES),
        draw(st.sampled_from(REQUESTS)),
        low,
        low + draw(st.integers(0, 2)),
        draw(st.sampled_from([(), (), ("a",), ("b",)])),
        alternatives=draw(st.sampled_from([(), (), REQUESTS[:1], REQUESTS[4:5]])),
        data=draw(st.sampled_from([(), (("a", 50.0),)])),
        estimate=draw(st.sampled_from([None, 100.0, 3_000.0, 100_000.0])),
        spread=draw(st.sampled_from(["", "", "s"])),
        promised=draw(st.sampled_from([None] * 5 + [("a", NOW + 30)])),
    )


@st.composite
def tenants(draw: st.DrawFn, name: str) -> TenantState:
    limits = st.none() | st.integers(0, 8)
    quota = st.builds(QuotaState, st.sampled_from([2, 4, 8, 12]), limits, limits)
    granted = st.fixed_dictionaries({"H100": quota}, optional={"A100": st.integers(0, 4)})
    usage = draw(st.sampled_from([0.0, 0.1, 123.456, 1e5]))
    cohort, weight = draw(st.sampled_from(["", "c", "c"])), draw(st.sampled_from([1.0, 2.5]))
    return TenantState(name, draw(st.none() | granted), cohort, weight, usage)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Up to three cells, all that runs there in its place, and a queue."""
    made = tuple(draw(cells(name)) for name in "abc"[: draw(st.integers(1, 3))])
    gangs: list[RunningGang] = []
    for cell in made:
        for node in cell.nodes:
            left = Left(node.millicpus, node.memory, Counter(node.accelerators))
            for request in draw(st.lists(st.sampled_from(REQUESTS), max_size=5)):
                devices = left.take(request)
                if devices is not None:
                    gangs.append(draw(running(f"r{len(gangs)}", (cell.name, node.name), request, devices)))
    return Snapshot(
        NOW,
        made,
        tuple(draw(tenants(name)) for name in TENANTS),
        tuple(draw(pending(f"g{number}")) for number in range(draw(st.integers(1, 6)))),
        tuple(gangs),
        draw(st.sampled_from([(), (), (Headroom("s", "t", REQUESTS[2], 2),)])),
        draw(st.sampled_from([None, None, NOW - 5])),
    )


def said(snapshot: Snapshot, policy: Policy | None = None) -> str:
    return canonical(decided(schedule(snapshot, policy or Policy())))


def started(gang: PendingGang, admit: Admit) -> RunningGang:
    request = admit.request or gang.request
    return RunningGang(gang.uid, gang.tenant, admit.cell, admit.nodes, request, admit.devices, gang.qos)


def assert_holds(node: Node, gangs: Iterable[RunningGang]) -> None:
    """Cores, memory, devices: whole ones and those that are shared are not the same, and no device is overfull."""
    millicpus = memory = 0
    devices: Counter[str] = Counter()
    shares: Counter[tuple[str, int]] = Counter()
    for gang in gangs:
        for number, name in enumerate(gang.nodes):
            if name == node.name:
                millicpus += gang.request.millicpus
                memory += gang.request.memory
                devices[gang.request.accelerator] += gang.request.accelerators
                if gang.request.share:
                    shares[gang.request.accelerator, gang.devices[number]] += gang.request.share
    devices.update(kind for kind, _ in shares)
    assert millicpus <= node.millicpus
    assert memory <= node.memory
    assert max(shares.values(), default=0) <= 1000
    assert all(count <= node.accelerators.get(kind, 0) for kind, count in devices.items() if kind)


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots(), st.randoms(use_true_random=False))
def test_order_of_what_is_known_decides_nothing(snapshot: Snapshot, random: Random) -> None:
    """Cells, tenants, queue and running gangs in any order: all that is decided and said is the same, bit by bit."""
    mixed: dict[str, Any] = {
        name: tuple(random.sample(getattr(snapshot, name), len(getattr(snapshot, name))))
        for name in ("cells", "tenants", "pending", "running")
    }
    assert said(replace(snapshot, **mixed)) == said(snapshot)


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots(), st.sampled_from([Policy(), Policy(backfill=False, preemption=False, least_attained=0.1)]))
def test_what_was_recorded_is_decided_again(snapshot: Snapshot, policy: Policy) -> None:
    """A snapshot that went through JSON text gives the same decisions, bit by bit."""
    text = canonical(record(snapshot, policy, schedule(snapshot, policy)))
    again, by, before = read(json.loads(text))
    assert (again, by) == (snapshot, policy)
    assert said(again, by) == canonical(before)


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_what_runs_and_what_starts_fits_every_node(snapshot: Snapshot) -> None:
    """With shares, cpu-only work and alternatives on the same nodes; nothing starts where nothing may."""
    asked = {gang.uid: gang for gang in snapshot.pending}
    new = [started(asked[admit.uid], admit) for admit in schedule(snapshot).admits]
    for cell in snapshot.cells:
        for node in cell.nodes:
            assert_holds(node, (gang for gang in (*snapshot.running, *new) if gang.cell == cell.name))
            if not node.healthy or node.cordoned or cell.readiness is not Readiness.READY:
                assert all(node.name not in gang.nodes for gang in new if gang.cell == cell.name)


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_who_others_are_stopped_for_fits_once_they_are_gone(snapshot: Snapshot) -> None:
    """A cpu-only gang, a share, a whole device: what leaves for it is enough, beside all that was started."""
    asked, cycle = {gang.uid: gang for gang in snapshot.pending}, schedule(snapshot, Policy(elastic=False))
    stops = [change for change in cycle.changes if isinstance(change, Preempt)]
    gone = {stop.uid for stop in stops} | {gang.uid for gang in snapshot.running if gang.leaving_at is not None}
    new = tuple(started(asked[admit.uid], admit) for admit in cycle.admits)
    rest = tuple(gang for gang in snapshot.running if gang.uid not in gone) + new
    for stop in stops:
        cell = stop.place or stop.cell
        gang = replace(asked[stop.beneficiary], cells=(cell,), promised=None)
        free = tuple(TenantState(name) for name in TENANTS)
        later = Snapshot(NOW, snapshot.cells, free, (gang,), rest)
        assert [admit.uid for admit in schedule(later, PATIENT).admits] == [gang.uid]


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_nobody_is_told_to_wait_for_what_nobody_holds(snapshot: Snapshot) -> None:
    """Whoever is over quota waits for work of its tenant or its cohort only where that is there, or starts now."""
    cycle = schedule(snapshot)
    placed = {admit.uid for admit in cycle.admits} | set(cycle.own)
    counted = [gang for gang in snapshot.running if gang.qos is not QoS.PREEMPTIBLE and gang.request.accelerator]
    holders = {gang.tenant for gang in counted}
    holders |= {gang.tenant for gang in snapshot.pending if gang.uid in placed and gang.qos is not QoS.PREEMPTIBLE}
    cohort = {tenant.name: tenant.cohort for tenant in snapshot.tenants}
    for uid, wait in cycle.waits.items():
        if wait.reason is WaitReason.QUOTA_EXCEEDED:
            tenant = next(gang.tenant for gang in snapshot.pending if gang.uid == uid)
            peers = {name for name in TENANTS if cohort[name] and cohort[name] == cohort[tenant] and name != tenant}
            for sentence in explain(snapshot, uid).unblock:
                assert not sentence.startswith("wait until other work of tenant") or tenant in holders
                assert not sentence.startswith("wait until other tenants") or peers & holders


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_rejected_nodes_are_counted_once(snapshot: Snapshot) -> None:
    """A verdict gives each node that takes no worker one reason; what fits is on the others."""
    for wait in schedule(snapshot).waits.values():
        for verdict in wait.cells:
            assert sum(verdict.rejected.values()) <= verdict.nodes
            assert not verdict.fits or sum(verdict.rejected.values()) < verdict.nodes


LENT = (TenantState("t", {"H100": QuotaState(4)}, "c"), TenantState("u", {"H100": QuotaState(4)}, "c"))
ONE_NODE = (CellState("a", Readiness.READY, (Node("n", "p", 8_000, 64, {"H100": 8}),)),)


@pytest.mark.parametrize(
    ("tenants", "devices", "advice"),
    [
        (LENT[::-1], 1, "wait until other work of tenant 't' gives back its H100"),
        (LENT, 2, "wait until other tenants of cohort 'c' give back H100"),
        (LENT, 9, "ask for 8 H100 or fewer: no wait makes room for more"),
        ((replace(LENT[0], cohort=""), LENT[1]), 5, "ask for 4 H100 or fewer: no wait makes room for more"),
        ((LENT[0], replace(LENT[1], quotas={"H100": QuotaState(4, lending=1)})), 6, "ask for 5 H100 or fewer"),
    ],
)
def test_advice_counts_what_a_cohort_could_lend(tenants: tuple[TenantState, ...], devices: int, advice: str) -> None:
    """Who holds nothing is not told to wait for itself; nobody is told to wait for more than there will ever be."""
    gang = PendingGang("g", "g", "t", QoS.STANDARD, 0, NOW - 9, Request(0, 0, "H100", 1), devices, devices)
    holder = tenants[1].name
    held = RunningGang("r", holder, "a", ("n",), Request(0, 0, "H100", 8), qos=QoS.STANDARD, started_at=NOW - 9)
    raised, *others = explain(Snapshot(NOW, ONE_NODE, tenants, (gang,), (held,)), "g").unblock
    assert raised.startswith("raise spec.quotas[H100].nominalQuota of tenant 't'")
    assert [sentence.startswith(advice) for sentence in others] == [True]
