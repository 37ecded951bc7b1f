"""Many cycles in a row, time that passes, and where on the network and in which cell a gang goes."""

import itertools
import math
import os
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from helios.scheduler import (
    CellState,
    Node,
    PendingGang,
    Policy,
    QuotaState,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    Topology,
    schedule,
)
from helios.spec import QoS

EXAMPLES = int(os.environ.get("HELIOS_EXAMPLES", "60"))
NOW = 1_000_000.0
TENANTS = tuple(TenantState(name) for name in "tuv")
STEP, PATIENCE = 50.0, 2_000.0
IMPATIENT = Policy(preemption=False, elastic=False, patience=dict.fromkeys(QoS, PATIENCE))


def cell_of(name: str, nodes: int) -> CellState:
    return CellState(
        name, Readiness.READY, tuple(Node(f"{name}{n}", "p", 8_000, 64, {"H100": 8}) for n in range(nodes))
    )


def gang(uid: str, request: Request, qos: QoS = QoS.STANDARD, *, workers: int = 1, at: float = NOW) -> PendingGang:
    return PendingGang(uid, uid, "t", qos, 0, at, request, workers, workers)


class Course:
    """A fleet that is played cycle by cycle; estimates are true, and who started is gone when it says."""

    def __init__(self, nodes: int) -> None:
        self.cells, self.now = (cell_of("a", nodes),), NOW
        self.pending: dict[str, PendingGang] = {}
        self.running: dict[str, RunningGang] = {}
        self.started: dict[str, float] = {}

    def step(self) -> None:
        self.running = {uid: one for uid, one in self.running.items() if (one.ends_at or math.inf) > self.now}
        snapshot = Snapshot(self.now, self.cells, TENANTS, tuple(self.pending.values()), tuple(self.running.values()))
        for admit in schedule(snapshot, IMPATIENT).admits:
            one = self.pending.pop(admit.uid)
            assert one.estimate is not None
            held = RunningGang(one.uid, one.tenant, "a", admit.nodes, one.request, qos=one.qos)
            self.running[one.uid] = replace(held, started_at=self.now, ends_at=self.now + one.estimate)
            self.started[one.uid] = self.now
        self.now += STEP


@settings(max_examples=8, deadline=None)
@given(
    st.integers(2, 3),
    st.sampled_from([QoS.STANDARD, QoS.PREEMPTIBLE]),
    st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([120.0, 300.0, 900.0])), min_size=3, max_size=6),
    st.booleans(),
)
def test_a_large_gang_is_not_starved_by_a_stream_of_small_ones(
    nodes: int, qos: QoS, kinds: list[tuple[int, float]], backfilled: bool
) -> None:
    """More small work arrives than there is room for, of higher priority: it starts once its patience has run out and
    what ran then is over.
    """
    longest = max(length for _, length in kinds)
    own = 300.0 if backfilled else 50_000.0
    big = replace(gang("big", Request(0, 0, "H100", 8), qos, workers=nodes), estimate=own)
    course, numbers, arrivals = Course(nodes), itertools.count(), itertools.cycle(kinds)
    bound = NOW + 1_000 + PATIENCE + longest + 2 * STEP
    while course.now <= bound and "big" not in course.started:
        while sum(one.request.accelerators for one in course.pending.values() if one.uid != "big") < 8 * nodes:
            devices, length = next(arrivals)
            small = gang(f"s{next(numbers)}", Request(0, 0, "H100", devices), QoS.STANDARD, at=course.now)
            course.pending[small.uid] = replace(small, tenant="u", priority=5, estimate=length)
        if course.now == NOW + 1_000:
            course.pending["big"] = replace(big, submitted_at=course.now)
        course.step()
    assert "big" in course.started


def test_there_is_a_look_when_others_may_be_stopped() -> None:
    """A guaranteed gang waits for the half hour of a standard one to be over."""
    held = RunningGang("r", "t", "a", ("a0",), Request(0, 0, "H100", 8), qos=QoS.STANDARD, started_at=NOW - 1_790)
    waits = gang("g", Request(0, 0, "H100", 8), QoS.GUARANTEED, at=NOW - 9_000)
    snapshot = Snapshot(NOW, (cell_of("a", 1),), TENANTS, (waits,), (held,))
    now, later = schedule(snapshot), schedule(replace(snapshot, now=NOW + 20))
    assert not now.changes
    assert [change.uid for change in later.changes] == ["r"]
    assert now.next_look <= NOW + 10


def test_there_is_no_look_for_who_is_never_stopped() -> None:
    """Of a class that stays, stopped as often as may be, leaving already, or of a tenant of which too many were."""
    young = RunningGang("r", "t", "a", ("a0",), Request(0, 0, "H100", 8), qos=QoS.STANDARD, started_at=NOW - 60)
    waits = gang("g", Request(0, 0, "H100", 8), QoS.GUARANTEED, at=NOW - 9_000)
    snapshot = Snapshot(NOW, (cell_of("a", 1),), TENANTS, (waits,), (young,))
    assert schedule(snapshot).next_look == NOW + 1_740
    spared = (
        replace(young, qos=QoS.GUARANTEED),
        replace(young, preemptions=5),
        replace(young, leaving_at=NOW - 1),
    )
    for one in spared:
        assert schedule(replace(snapshot, running=(one,))).next_look == math.inf
    spent = replace(snapshot, tenants=(replace(TENANTS[0], preemptions=1_000),))
    assert schedule(spent).next_look == math.inf
    above = replace(waits, qos=QoS.PREEMPTIBLE)
    assert schedule(replace(snapshot, pending=(above,))).next_look != NOW + 1_740


@st.composite
def young_ones(draw: st.DrawFn) -> Snapshot:
    """Full nodes of a cohort whose gangs have begun lately or long ago, and gangs that wait for them or their quota."""
    nodes, whole = draw(st.integers(1, 3)), Request(0, 0, "H100", 8)
    ages = st.sampled_from([10.0, 100.0, 150.0, 600.0, 1_790.0, 9_000.0])
    gangs = []
    for number in range(nodes):
        size = draw(st.sampled_from([8, 8, 4]))
        for part in range(draw(st.integers(1, 8 // size))):
            began = NOW - draw(ages)
            one = RunningGang(f"r{number}{part}", draw(st.sampled_from("tuv")), "a", (f"a{number}",), whole)
            gangs.append(
                replace(
                    one,
                    request=replace(whole, accelerators=size),
                    qos=draw(st.sampled_from([QoS.STANDARD, QoS.STANDARD, QoS.PREEMPTIBLE])),
                    started_at=began,
                    checkpointed_at=draw(st.sampled_from([began, None])),
                )
            )
    waiting = tuple(
        replace(
            gang(f"g{n}", replace(whole, accelerators=draw(st.sampled_from([8, 4]))), draw(st.sampled_from(list(QoS)))),
            tenant=draw(st.sampled_from("tuv")),
            submitted_at=NOW - 5_000,
            estimate=100_000.0,
        )
        for n in range(draw(st.integers(1, 2)))
    )
    cohort = tuple(TenantState(name, {"H100": QuotaState(draw(st.sampled_from([0, 8, 16])))}, "c") for name in "tuv")
    tenants = draw(st.sampled_from([TENANTS, cohort]))
    return Snapshot(NOW, (cell_of("a", nodes),), tenants, waiting, tuple(gangs))


@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(young_ones(), st.floats(0.0, 1.0))
def test_nobody_is_stopped_before_the_next_look(snapshot: Snapshot, part: float) -> None:
    """While nothing changes but the time. None makes room for its like, which time alone brings, too."""
    policy = Policy(least_attained=0.0)
    cycle = schedule(snapshot, policy)
    if not cycle.admits and not cycle.changes:
        later = min(NOW + 9_000, cycle.next_look)
        assert later > NOW
        moment = min(NOW + part * (later - NOW), later - 0.001)
        assert not schedule(replace(snapshot, now=moment), policy).changes


@st.composite
def held_off(draw: st.DrawFn) -> Snapshot:
    """Nodes of which some are free, and gangs that may not start yet: their cell refused them, or others go first."""
    nodes = draw(st.integers(1, 4))
    gangs = tuple(
        RunningGang(f"r{n}", "t", "a", (f"a{n}",), Request(0, 0, "H100", 8), ends_at=NOW + 9_000, leaving_at=leaves)
        for n, leaves in enumerate(draw(st.lists(st.sampled_from([None, NOW + 40]), max_size=nodes)))
    )
    until = st.sampled_from([(), (("a", NOW + 30),), (("a", NOW + 300),)])
    waiting = tuple(
        replace(
            gang(f"g{n}", Request(0, 0, "H100", 8), workers=draw(st.integers(1, 2)), at=NOW - 100 * n),
            held_off=draw(until),
            promised=draw(st.sampled_from([None, None, ("a", NOW + 40)])),
            estimate=draw(st.sampled_from([100.0, 20_000.0])),
        )
        for n in range(draw(st.integers(1, 4)))
    )
    return Snapshot(NOW, (cell_of("a", nodes),), TENANTS, waiting, gangs)


@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(held_off(), st.floats(0.0, 1.0))
def test_nothing_starts_before_the_next_look(snapshot: Snapshot, part: float) -> None:
    """While nothing changes but the time, no gang has a place that it had not before; ends that were missed aside."""
    cycle = schedule(snapshot, IMPATIENT)
    if not cycle.admits:
        later = min(NOW + 1_000, cycle.next_look) - 1.0
        moment = NOW + part * max(0.0, later - NOW)
        asked_again = tuple(
            replace(one, held_off=tuple(held for held in one.held_off if held[1] > moment)) for one in snapshot.pending
        )
        assert not schedule(replace(snapshot, now=moment, pending=asked_again), IMPATIENT).admits


@st.composite
def networks(draw: st.DrawFn) -> CellState:
    """Nodes of different fullness, in racks of blocks of fabrics."""
    names = st.sampled_from(["1", "2"])
    nodes = [
        Node(
            f"n{number}",
            "p",
            8_000,
            64,
            {"H100": draw(st.integers(0, 4))},
            topology=Topology(*draw(st.tuples(names, names, names))),
        )
        for number in range(draw(st.integers(2, 10)))
    ]
    return CellState("a", Readiness.READY, tuple(nodes))


@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(networks(), st.integers(1, 8), st.sampled_from([1, 2]))
def test_a_gang_has_the_narrowest_domain_that_holds_it(cell: CellState, workers: int, devices: int) -> None:
    """One node, else one rack, one block, one fabric; a rack is one of its block and a block one of its fabric."""
    waits = gang("g", Request(0, 0, "H100", devices), workers=workers)
    admits = schedule(Snapshot(NOW, (cell,), TENANTS, (waits,))).admits
    fits = {node.name: node.accelerators["H100"] // devices for node in cell.nodes}
    places = {node.name: domains(node) for node in cell.nodes}
    assert bool(admits) == (sum(fits.values()) >= workers)
    for admit in admits:
        assert all(count <= fits[name] for name, count in Counter(admit.nodes).items())
        for level in range(4):
            rooms: Counter[tuple[str, ...]] = Counter()
            for name, count in fits.items():
                rooms[places[name][level]] += count
            if max(rooms.values()) >= workers:
                assert len({places[name][level] for name in admit.nodes}) == 1
                break


def domains(node: Node) -> tuple[tuple[str, ...], ...]:
    """Of a node, from the narrowest; equal names in other domains are others."""
    where = node.topology
    block = (where.fabric, where.block)
    return ((node.name,), (*block, where.rack), block, block[:1])


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(1, 2))
def test_replicas_are_spread_over_cells_that_cost_the_same(here: int, there: int, workers: int) -> None:
    """A gang goes where fewer of its kind are, though the other cell were the fuller one."""
    one = Request(0, 0, "H100", 1)
    counts = {"a": here, "b": there}
    gangs = tuple(
        RunningGang(f"{name}{n}", "t", name, (f"{name}0",), one, spread="s", started_at=NOW - 9)
        for name, count in counts.items()
        for n in range(count)
    )
    waits = replace(gang("g", one, workers=workers), spread="s")
    (admit,) = schedule(Snapshot(NOW, (cell_of("a", 1), cell_of("b", 1)), TENANTS, (waits,), gangs)).admits
    assert counts[admit.cell] == min(counts.values())
