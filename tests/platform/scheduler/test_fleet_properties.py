"""A `Fleet` that was told changes one by one says what a snapshot of the same facts says."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from helios.scheduler import (
    Admit,
    CellState,
    Cycle,
    Fleet,
    Headroom,
    Node,
    PendingGang,
    Preempt,
    QuotaState,
    Readiness,
    Request,
    Resize,
    RunningGang,
    Snapshot,
    TenantState,
    Topology,
    schedule,
)
from helios.scheduler.book import Book
from helios.scheduler.fleet import sums_of
from helios.spec import QoS

EXAMPLES = int(os.environ.get("HELIOS_EXAMPLES", "100"))
NOW = 100_000.0
CELLS, TENANTS, UIDS = ("a", "b"), ("t", "u", "v"), tuple(f"g{number}" for number in range(9))
NODES = ("n0", "n1", "n2", "n3")
REQUESTS = (
    Request(millicpus=1000),
    Request(millicpus=500, accelerator="H100", accelerators=1),
    Request(millicpus=500, memory=1, accelerator="H100", accelerators=2),
    Request(accelerator="H100", accelerators=4),
    Request(accelerator="H100", share=250),
    Request(accelerator="A100", accelerators=1),
)
AGES = st.sampled_from([10.0, 500.0, 5_000.0, 90_000.0])


def nodes() -> st.SearchStrategy[tuple[Node, ...]]:
    made = [
        st.builds(
            Node,
            name=st.just(name),
            pool=st.just("pool"),
            millicpus=st.sampled_from([2000, 8000]),
            memory=st.just(4),
            accelerators=st.sampled_from([{}, {"H100": 4}, {"H100": 8}, {"A100": 2, "H100": 2}]),
            healthy=st.sampled_from([True, True, True, False]),
            cordoned=st.sampled_from([False, False, False, True]),
            topology=st.builds(Topology, rack=st.sampled_from(["", "r1", "r2"])),
            spare=st.sampled_from([False, False, False, True]),
        )
        for name in NODES
    ]
    return st.tuples(*made).flatmap(lambda made: st.integers(1, len(made)).map(lambda count: made[:count]))


def cells() -> st.SearchStrategy[CellState]:
    readiness = st.sampled_from([Readiness.READY, Readiness.READY, *Readiness])
    return st.builds(CellState, st.sampled_from(CELLS), readiness, nodes())


def tenants() -> st.SearchStrategy[TenantState]:
    quota = st.builds(QuotaState, st.integers(0, 8), st.none() | st.integers(0, 4), st.none() | st.integers(0, 4))
    granted = st.fixed_dictionaries({"H100": st.integers(0, 8) | quota}, optional={"A100": quota})
    usage = st.sampled_from([0.0, 1e5])
    return st.builds(
        TenantState, st.sampled_from(TENANTS), st.none() | granted, st.sampled_from(["", "c"]), st.just(1.0), usage
    )


@st.composite
def pending(draw: st.DrawFn) -> PendingGang:
    low, uid = draw(st.integers(1, 4)), draw(st.sampled_from(UIDS))
    return PendingGang(
        uid=uid,
        name=uid,
        tenant=draw(st.sampled_from(TENANTS)),
        qos=draw(st.sampled_from(list(QoS))),
        priority=draw(st.integers(0, 2)),
        submitted_at=NOW - draw(AGES),
        request=draw(st.sampled_from(REQUESTS)),
        min_workers=low,
        max_workers=low + draw(st.integers(0, 2)),
        estimate=draw(st.sampled_from([None, 300.0, 20_000.0])),
        recovering=draw(st.booleans()),
        spread=draw(st.sampled_from(["", "", "s"])),
    )


@st.composite
def running(draw: st.DrawFn) -> RunningGang:
    """Not one that any scheduler would have placed: what a fleet is told is not its to judge."""
    places = draw(st.lists(st.sampled_from(NODES), min_size=1, max_size=3))
    request = draw(st.sampled_from(REQUESTS))
    devices = tuple(draw(st.integers(0, 1)) for _ in places) if request.share else ()
    started = draw(AGES)
    return RunningGang(
        draw(st.sampled_from(UIDS)),
        draw(st.sampled_from(TENANTS)),
        draw(st.sampled_from(CELLS)),
        tuple(places),
        request,
        devices,
        draw(st.sampled_from(list(QoS))),
        started_at=NOW - started,
        checkpointed_at=draw(st.sampled_from([None, NOW - started / 2])),
        ends_at=draw(st.sampled_from([None, NOW - 5, NOW + 100, NOW + 10_000])),
        restart_s=10.0,
        leaving_at=draw(st.sampled_from([None, None, NOW + 30])),
        min_workers=draw(st.integers(1, len(places))),
        max_workers=len(places) + draw(st.integers(0, 2)),
        spread=draw(st.sampled_from(["", "", "s"])),
    )


def said(cycle: Cycle) -> tuple[object, ...]:
    """All that a caller sees of a cycle."""
    return (cycle.admits, cycle.changes, cycle.reservations, cycle.next_look, dict(cycle.waits))


def noted(book: Book) -> tuple[object, ...]:
    """What a cell's book knows of its gangs."""
    free = {kind: devices.tolist() for kind, devices in book.free.items()}
    return (free, book.gangs, book.ends(), book.leaving, book.elastic, +book.spreads)


class Told(RuleBasedStateMachine):
    """Beside the fleet, the facts as plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.cells: dict[str, CellState] = {}
        self.tenants: dict[str, TenantState] = {}
        self.gangs: dict[str, PendingGang | RunningGang] = {}
        self.headroom: tuple[Headroom, ...] = ()
        self.last_preemption: float | None = None
        self.seen: tuple[Snapshot, tuple[object, ...]] | None = None

    @initialize(
        each=st.tuples(cells(), cells(), tenants(), tenants()), gangs=st.lists(pending() | running(), min_size=4)
    )
    def begin(
        self,
        each: tuple[CellState, CellState, TenantState, TenantState],
        gangs: Sequence[PendingGang | RunningGang],
    ) -> None:
        self.put_cell(each[0])
        self.put_cell(each[1])
        self.put_tenant(each[2])
        self.put_tenant(each[3])
        self.put(gangs)

    @rule(gangs=st.lists(pending() | running(), min_size=1, max_size=5))
    def put(self, gangs: Sequence[PendingGang | RunningGang]) -> None:
        for gang in gangs:
            self.fleet.put(gang)
            self.gangs[gang.uid] = gang

    @rule(uid=st.sampled_from(UIDS), news=running())
    def report(self, uid: str, news: RunningGang) -> None:
        """A gang that keeps its place says something else of itself."""
        gang = self.gangs.get(uid)
        if isinstance(gang, RunningGang):
            known = replace(
                gang,
                started_at=news.started_at,
                checkpointed_at=news.checkpointed_at,
                ends_at=news.ends_at,
                leaving_at=news.leaving_at,
                max_workers=len(gang.nodes) + news.max_workers,
            )
            self.put([known])

    @rule(uid=st.sampled_from(UIDS))
    def drop(self, uid: str) -> None:
        self.fleet.drop(uid)
        self.gangs.pop(uid, None)

    @rule(cell=cells())
    def put_cell(self, cell: CellState) -> None:
        self.fleet.put_cell(cell)
        self.cells[cell.name] = cell

    @rule(name=st.sampled_from(CELLS))
    def drop_cell(self, name: str) -> None:
        self.fleet.drop_cell(name)
        self.cells.pop(name, None)

    @rule(tenant=tenants())
    def put_tenant(self, tenant: TenantState) -> None:
        self.fleet.put_tenant(tenant)
        self.tenants[tenant.name] = tenant

    @rule(name=st.sampled_from(TENANTS))
    def drop_tenant(self, name: str) -> None:
        self.fleet.drop_tenant(name)
        self.tenants.pop(name, None)

    @rule(replicas=st.integers(0, 3))
    def put_headroom(self, replicas: int) -> None:
        self.headroom = (Headroom("s", "t", REQUESTS[1], replicas),) if replicas else ()
        self.fleet.put_headroom(self.headroom)

    @rule(last=st.sampled_from([None, NOW - 1]))
    def preempted(self, last: float | None) -> None:
        self.fleet.last_preemption = self.last_preemption = last

    @rule()
    def obey(self) -> None:
        """What a cycle decides is done, and the fleet is told of it."""
        cycle = schedule(self.fleet.snapshot(NOW))
        for admit in cycle.admits:
            gang = self.gangs[admit.uid]
            assert isinstance(gang, PendingGang)
            self.put([started(gang, admit)])
        for change in cycle.changes:
            gang = self.gangs[change.uid]
            assert isinstance(gang, RunningGang)
            self.put([changed(gang, change)])

    @invariant()
    def says_the_same(self) -> None:
        snapshot = self.fleet.snapshot(NOW)
        found = said(schedule(snapshot))
        plain = self.plain(sorted(self.gangs))
        assert {name: noted(book) for name, book in sums_of(snapshot).books.items()} == {
            name: noted(book) for name, book in sums_of(plain).books.items()
        }
        assert found == said(schedule(plain))
        assert found == said(schedule(self.plain(sorted(self.gangs, reverse=True))))
        if self.seen is not None:
            before, what = self.seen
            assert said(schedule(before)) == what, "a snapshot changed after it was taken"
        self.seen = snapshot, found

    def plain(self, uids: Sequence[str]) -> Snapshot:
        gangs = [self.gangs[uid] for uid in uids]
        return Snapshot(
            NOW,
            tuple(self.cells.values()),
            tuple(self.tenants.values()),
            tuple(gang for gang in gangs if isinstance(gang, PendingGang)),
            tuple(gang for gang in gangs if isinstance(gang, RunningGang)),
            self.headroom,
            self.last_preemption,
        )


def started(gang: PendingGang, admit: Admit) -> RunningGang:
    facts: dict[str, Any] = {"devices": admit.devices, "qos": gang.qos, "spread": gang.spread, "started_at": NOW}
    return RunningGang(admit.uid, gang.tenant, admit.cell, admit.nodes, admit.request or gang.request, **facts)


def changed(gang: RunningGang, change: Preempt | Resize) -> RunningGang:
    if isinstance(change, Preempt):
        return replace(gang, leaving_at=NOW + 60)
    return replace(gang, nodes=change.nodes, started_at=NOW)


Told.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=12, deadline=None)
TestFleetSaysWhatItsFactsSay = Told.TestCase
