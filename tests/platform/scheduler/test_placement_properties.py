"""Places, checked by an oracle that counts node by node and device by device, in plain Python."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from helios.scheduler import (
    Admit,
    CellState,
    Node,
    PendingGang,
    Policy,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    Topology,
    schedule,
)
from helios.spec import CapacityType, QoS

EXAMPLES = int(os.environ.get("HELIOS_EXAMPLES", "100"))
NOW = 1_000_000.0
CELLS, TYPES = ("a", "b", "c"), ("A100", "H100")
TYPE_SETS: tuple[tuple[CapacityType, ...], ...] = ((), (), (CapacityType.RESERVED,), (CapacityType.PREEMPTIBLE,))
POLICY = Policy()

requests = st.builds(
    Request,
    st.sampled_from([0, 500, 3000]),
    st.integers(0, 6),
    st.sampled_from(TYPES),
    st.sampled_from([1, 2, 4]),
) | st.builds(
    Request, st.sampled_from([100, 500]), st.integers(0, 2), st.just("H100"), share=st.sampled_from([250, 400])
)
bare = st.builds(Request, st.sampled_from([500, 3000]), st.integers(0, 6))


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Node:
    return Node(
        name,
        "pool",
        draw(st.sampled_from([2_000, 8_000])),
        draw(st.sampled_from([4, 16])),
        draw(st.sampled_from([{}, {"H100": 2}, {"H100": 4}, {"H100": 8}, {"A100": 4, "H100": 1}])),
        healthy=draw(st.sampled_from([True, True, True, False])),
        cordoned=draw(st.sampled_from([False, False, False, True])),
        capacity_type=draw(st.sampled_from(list(CapacityType))),
        topology=Topology(draw(st.sampled_from(["r1", "r2"])), draw(st.sampled_from(["b1", "b2"]))),
        spare=draw(st.sampled_from([False, False, True])),
    )


@st.composite
def gangs(draw: st.DrawFn, uid: str) -> PendingGang:
    low, request = draw(st.integers(1, 4)), draw(requests | requests | bare)
    return PendingGang(
        uid=uid,
        name=uid,
        tenant="t",
        qos=draw(st.sampled_from(list(QoS))),
        priority=0,
        submitted_at=NOW - draw(st.sampled_from([5.0, 1_000.0, 100_000.0])),
        request=request,
        min_workers=low,
        max_workers=low + draw(st.integers(0, 3)),
        cells=draw(st.sampled_from([(), (), ("a",), ("b", "c")])),
        held_off=draw(st.sampled_from([(), (), (), (("a", NOW + 60),)])),
        alternatives=tuple(draw(st.lists(requests, max_size=1))),
        capacity_types=draw(st.sampled_from(TYPE_SETS)),
        estimate=draw(st.sampled_from([None, 100.0, 10_000.0])),
        recovering=draw(st.booleans()),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Up to three cells, on which runs what two earlier cycles started, and a queue."""
    cells = []
    for name in CELLS[: draw(st.integers(1, 3))]:
        readiness = draw(st.sampled_from([Readiness.READY] * 4 + [Readiness.NOT_READY, Readiness.UNKNOWN]))
        cells.append(
            CellState(name, readiness, tuple(draw(nodes(f"n{each}")) for each in range(draw(st.integers(1, 4)))))
        )
    queue = tuple(draw(gangs(f"g{number}")) for number in range(draw(st.integers(2, 9))))
    running: tuple[RunningGang, ...] = ()
    for batch in (queue[0:2], queue[2:4]):
        running = Course(Snapshot(NOW - 5_000, tuple(cells), (TenantState("t"),), batch, running)).running
    return Snapshot(NOW, tuple(cells), (TenantState("t"),), queue[4:], running)


class Course:
    """A snapshot with what a cycle admits on it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.asked = {gang.uid: gang for gang in snapshot.pending}
        self.admits = schedule(snapshot, POLICY).admits
        self.new = tuple(self.started(admit) for admit in self.admits)
        self.running = (*snapshot.running, *self.new)

    def started(self, admit: Admit) -> RunningGang:
        gang, request = self.asked[admit.uid], admit.request
        assert request is not None
        place = (admit.uid, gang.tenant, admit.cell, admit.nodes, request, admit.devices, gang.qos)
        ends_at = None if gang.estimate is None else self.snapshot.now + gang.estimate
        return RunningGang(*place, started_at=self.snapshot.now, ends_at=ends_at)


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_nothing_is_held_twice(snapshot: Snapshot) -> None:
    """Cores, memory, whole devices, thousandths of each shared device: what runs and what starts fit every node."""
    for cell in snapshot.cells:
        for node in cell.nodes:
            here = [gang for gang in Course(snapshot).running if gang.cell == cell.name]
            assert_holds(node, here)


def assert_holds(node: Node, gangs: Iterable[RunningGang]) -> None:
    """Whole devices and devices that are shared are not the same ones."""
    millicpus = memory = 0
    whole: Counter[str] = Counter()
    shares: Counter[tuple[str, int]] = Counter()
    for gang in gangs:
        request = gang.request
        assert len(gang.devices) == (len(gang.nodes) if request.share else 0)
        for worker, name in enumerate(gang.nodes):
            if name == node.name:
                millicpus, memory = millicpus + request.millicpus, memory + request.memory
                whole[request.accelerator] += request.accelerators
                if request.share:
                    shares[request.accelerator, gang.devices[worker]] += request.share
    assert millicpus <= node.millicpus
    assert memory <= node.memory
    assert all(held <= 1000 for held in shares.values())
    whole.update(kind for kind, _ in shares)
    assert all(count <= node.accelerators.get(kind, 0) for kind, count in whole.items())
    assert all(0 <= device < node.accelerators.get(kind, 0) for kind, device in shares)


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_gang_is_whole_and_where_it_may_be(snapshot: Snapshot) -> None:
    """Between its bounds, in one ready cell that it allows and that did not refuse it, on nodes open to it."""
    course = Course(snapshot)
    cells = {cell.name: cell for cell in snapshot.cells}
    assert len({admit.uid for admit in course.admits}) == len(course.admits)
    for admit in course.admits:
        gang, cell = course.asked[admit.uid], cells[admit.cell]
        assert gang.min_workers <= admit.workers == len(admit.nodes) <= gang.max_workers
        assert admit.request in (gang.request, *gang.alternatives)
        assert cell.readiness is Readiness.READY
        assert not gang.cells or cell.name in gang.cells
        assert cell.name not in dict(gang.held_off)
        for node in cell.nodes:
            assert node.name not in admit.nodes or is_open(node, gang)


def is_open(node: Node, gang: PendingGang) -> bool:
    """Whether the node takes new work, and this gang's. `guaranteed` work is kept off what a provider takes back."""
    asked = not gang.capacity_types or node.capacity_type in gang.capacity_types
    of_class = gang.qos is not QoS.GUARANTEED or node.capacity_type is not CapacityType.PREEMPTIBLE
    asks_for_the_rest = gang.capacity_types == (CapacityType.PREEMPTIBLE,)
    takes = node.healthy and not node.cordoned and (gang.recovering or not node.spare)
    return takes and asked and (of_class or asks_for_the_rest)


def one_worker(node: Node, request: Request) -> int:
    """Workers that an empty node holds, one added after the other."""
    count = 0
    while count < 8:
        devices = tuple(worker // (1000 // request.share) for worker in range(count + 1)) if request.share else ()
        gang = RunningGang("x", "t", "a", (node.name,) * (count + 1), request, devices)
        try:
            assert_holds(node, [gang])
        except AssertionError:
            return count
        count += 1
    return count


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots(), gangs("only"))
def test_gang_alone_starts_where_it_fits_and_in_one_rack_where_one_holds_it(
    snapshot: Snapshot, gang: PendingGang
) -> None:
    """On an empty fleet it starts if some cell holds it; one of a fixed size is in one node or rack if it can be."""
    gang = replace(gang, max_workers=gang.min_workers, alternatives=())
    course = Course(replace(snapshot, pending=(gang,), running=()))
    rooms = {
        cell.name: [(node, one_worker(node, gang.request)) for node in cell.nodes if is_open(node, gang)]
        for cell in snapshot.cells
        if cell.readiness is Readiness.READY
        and (not gang.cells or cell.name in gang.cells)
        and cell.name not in dict(gang.held_off)
    }
    fitting = [name for name, room in rooms.items() if sum(count for _, count in room) >= gang.min_workers]
    assert bool(fitting) == bool(course.admits)
    for admit in course.admits:
        room = rooms[admit.cell]
        racks: Counter[Topology] = Counter()
        for node, count in room:
            racks[node.topology] += count
        used = {node.topology for node, _ in room if node.name in admit.nodes}
        if max(count for _, count in room) >= gang.min_workers:
            assert len(set(admit.nodes)) == 1
        elif max(racks.values()) >= gang.min_workers:
            assert len(used) == 1
