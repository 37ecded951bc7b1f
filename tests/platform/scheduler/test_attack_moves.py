"""Room that is made: by stops on nodes that lack cores, by moves, and by borrowers of every cell."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from helios.scheduler import (
    Admit,
    CellState,
    Cycle,
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
    StopReason,
    TenantState,
    WaitReason,
    schedule,
)
from helios.spec import QoS

EXAMPLES = int(os.environ.get("HELIOS_EXAMPLES", "100"))
NOW = 1_000_000.0
FREE = tuple(TenantState(name) for name in "tuv")
STILL = Policy(preemption=False, elastic=False)
TIGHT = Policy(elastic=False)


def cell_of(name: str, nodes: int, readiness: Readiness = Readiness.READY) -> CellState:
    made = tuple(Node(f"{name}{number}", "p", 8_000, 64, {"H100": 8}) for number in range(nodes))
    return CellState(name, readiness, made)


def gang(uid: str, request: Request, qos: QoS = QoS.STANDARD, *, tenant: str = "t", workers: int = 1) -> PendingGang:
    return PendingGang(uid, uid, tenant, qos, 0, NOW - 3_000, request, workers, workers, estimate=100_000.0)


def held(
    uid: str, place: tuple[str, str], request: Request, qos: QoS = QoS.STANDARD, *, tenant: str = "t"
) -> RunningGang:
    """Old enough to be stopped, with a fresh checkpoint."""
    found = RunningGang(uid, tenant, place[0], place[1:], request, qos=qos, restart_s=10.0)
    return replace(found, started_at=NOW - 9_000, checkpointed_at=NOW - 60, ends_at=NOW + 90_000)


def begun(gang: PendingGang, admit: Admit) -> RunningGang:
    request = admit.request or gang.request
    return RunningGang(gang.uid, gang.tenant, admit.cell, admit.nodes, request, admit.devices, gang.qos)


def with_started(snapshot: Snapshot, first: Sequence[PendingGang]) -> tuple[Snapshot, int]:
    """The snapshot with these gangs on it, as many as have a place, one after the other; and how many have none."""
    missing = 0
    for one in first:
        admits = schedule(replace(snapshot, pending=(one,)), STILL).admits
        missing += not admits
        snapshot = replace(snapshot, running=(*snapshot.running, *(begun(one, admit) for admit in admits)))
    return snapshot, missing


def stopped(cycle: Cycle, reason: StopReason) -> list[Preempt]:
    return [change for change in cycle.changes if isinstance(change, Preempt) and change.reason is reason]


@st.composite
def short_of_cores(draw: st.DrawFn) -> Snapshot:
    """Nodes that run out of cores and memory as often as of devices, and gangs that may have others stopped."""
    cell = cell_of("a", draw(st.sampled_from([1, 1, 2, 3])))
    gangs: list[RunningGang] = []
    for node in cell.nodes:
        cores, memory, devices = node.millicpus, node.memory, 8
        for _ in range(draw(st.integers(1, 5))):
            request = Request(
                draw(st.sampled_from([0, 2_000, 6_000])), draw(st.sampled_from([0, 16, 60])), "H100",
                draw(st.sampled_from([1, 2, 4])),
            )  # fmt: skip
            request = draw(st.sampled_from([request, request, replace(request, accelerator="", accelerators=0)]))
            if request.millicpus <= cores and request.memory <= memory and request.accelerators <= devices:
                cores, memory = cores - request.millicpus, memory - request.memory
                devices -= request.accelerators
                qos = draw(st.sampled_from([QoS.PREEMPTIBLE, QoS.PREEMPTIBLE, QoS.STANDARD, QoS.GUARANTEED]))
                gangs.append(held(f"r{len(gangs)}", ("a", node.name), request, qos))
    waiting = []
    for number in range(draw(st.integers(1, 3))):
        devices = draw(st.sampled_from([0, 1, 2, 4]))
        request = Request(draw(st.sampled_from([2_000, 6_000, 8_000])), 16, "H100" * bool(devices), devices)
        waiting.append(gang(f"g{number}", request, QoS.GUARANTEED, workers=draw(st.integers(1, 2))))
    return Snapshot(NOW, (cell,), FREE, tuple(waiting), tuple(gangs))


@settings(max_examples=EXAMPLES, deadline=None)
@given(short_of_cores())
def test_stops_free_the_cores_and_the_memory_too(snapshot: Snapshot) -> None:
    """Once all have left, all fit for whom that was done, together and beside what was started."""
    cycle, asked = schedule(snapshot, TIGHT), {one.uid: one for one in snapshot.pending}
    gone = {change.uid for change in cycle.changes}
    helped = {change.beneficiary for change in cycle.changes}
    left = tuple(one for one in snapshot.running if one.uid not in gone)
    left += tuple(begun(asked[admit.uid], admit) for admit in cycle.admits)
    for uid in helped:
        alone = replace(snapshot, running=left, pending=(asked[uid],))
        assert [admit.uid for admit in schedule(alone, STILL).admits] == [uid]
    wants = [(one.request, one.min_workers) for one in map(asked.get, helped) if one is not None]
    wants += [(one.request, len(one.nodes)) for one in left]
    nodes = snapshot.cells[0].nodes
    assert sum(request.millicpus * count for request, count in wants) <= 8_000 * len(nodes)
    assert sum(request.memory * count for request, count in wants) <= 64 * len(nodes)
    assert sum(request.accelerators * count for request, count in wants) <= 8 * len(nodes)


@st.composite
def holes(draw: st.DrawFn) -> Snapshot:
    """A cell whose devices are free here and there, and a gang that wants a whole node or much of it."""
    cell = cell_of("a", draw(st.integers(2, 5)))
    gangs: list[RunningGang] = []
    for node in cell.nodes:
        free = 8
        for size in draw(st.lists(st.sampled_from([1, 2, 4]), max_size=3)):
            if size <= free:
                free -= size
                qos = draw(st.sampled_from([QoS.STANDARD] * 3 + [QoS.GUARANTEED]))
                gangs.append(held(f"r{len(gangs)}", ("a", node.name), Request(500, 0, "H100", size), qos))
    queue = (gang("g", Request(0, 0, "H100", draw(st.sampled_from([8, 8, 6, 4])))),)
    return Snapshot(NOW, (cell,), FREE, queue, tuple(gangs))


def assert_all_rehoused(snapshot: Snapshot) -> None:
    """Who starts, for whom others are moved, and those that are moved find places together, counted in devices."""
    cycle, asked = schedule(snapshot, TIGHT), {one.uid: one for one in snapshot.pending}
    moved = {change.uid for change in stopped(cycle, StopReason.DEFRAGMENTED)}
    if not moved:
        return
    helped = {change.beneficiary for change in cycle.changes if change.beneficiary}
    left = tuple(one for one in snapshot.running if one.uid not in moved)
    left += tuple(begun(asked[admit.uid], admit) for admit in cycle.admits)
    first = [asked[uid] for uid in sorted(helped)]
    then = sorted((one for one in snapshot.running if one.uid in moved), key=lambda one: (-one.held, one.uid))
    again = [gang(one.uid, one.request, workers=len(one.nodes)) for one in then]
    _, missing = with_started(replace(snapshot, running=left), [*first, *again])
    assert not missing


@settings(max_examples=EXAMPLES, deadline=None)
@given(holes())
def test_who_is_moved_for_one_gang_finds_another_place(snapshot: Snapshot) -> None:
    """Beside the gang that it was moved for."""
    assert_all_rehoused(snapshot)


def test_who_is_moved_for_one_gang_is_moved() -> None:
    """The property above says something: two halves of nodes make a whole one."""
    small = tuple(held(f"r{number}", ("a", f"a{number}"), Request(500, 0, "H100", 4)) for number in range(2))
    snapshot = Snapshot(NOW, (cell_of("a", 2),), FREE, (gang("g", Request(0, 0, "H100", 8)),), small)
    assert len(stopped(schedule(snapshot), StopReason.DEFRAGMENTED)) == 1
    assert_all_rehoused(snapshot)


def test_who_is_moved_for_two_gangs_finds_another_place() -> None:
    """Two whole nodes of three cannot be emptied where nine devices are held."""
    sizes = {"a0": (1, 1), "a1": (4,), "a2": (1, 1, 1)}
    small = tuple(
        held(f"{node}-{number}", ("a", node), Request(500, 0, "H100", size))
        for node, all_of_it in sizes.items()
        for number, size in enumerate(all_of_it)
    )
    queue = (gang("g", Request(0, 0, "H100", 8)), gang("h", Request(0, 0, "H100", 8)))
    assert_all_rehoused(Snapshot(NOW, (cell_of("a", 3),), FREE, queue, small))


@st.composite
def lent_out(draw: st.DrawFn) -> Snapshot:
    """Two or three cells on which others of the cohort hold more than is theirs; owners that want their own."""
    cells = tuple(cell_of(name, draw(st.integers(1, 2))) for name in "abc"[: draw(st.integers(2, 3))])
    gangs: list[RunningGang] = []
    for cell in cells:
        for node in cell.nodes:
            free = 8
            for size in draw(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=4)):
                if size <= free:
                    free -= size
                    qos = draw(st.sampled_from([QoS.STANDARD] * 5 + [QoS.PREEMPTIBLE, QoS.GUARANTEED]))
                    place, tenant = (cell.name, node.name), draw(st.sampled_from("uuvt"))
                    gangs.append(held(f"r{len(gangs)}", place, Request(0, 0, "H100", size), qos, tenant=tenant))
    total = draw(st.sampled_from([4, 6, 8])) * sum(len(cell.nodes) for cell in cells)
    shares = draw(st.sampled_from([(2, 1, 1), (1, 1, 0), (1, 2, 1)]))
    quotas = [QuotaState(total * share // sum(shares)) for share in shares]
    cohort = tuple(TenantState(name, {"H100": quota}, "c") for name, quota in zip("tuv", quotas, strict=True))
    queue = tuple(
        gang(f"g{number}", Request(0, 0, "H100", size), workers=draw(st.integers(1, 2)))
        for number, size in enumerate(draw(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=3)))
    )
    return Snapshot(NOW, cells, cohort, queue, tuple(gangs))


@settings(max_examples=EXAMPLES, deadline=None)
@given(lent_out())
def test_borrowers_of_every_cell_give_back_no_more_than_they_borrow(snapshot: Snapshot) -> None:
    """Each holds borrowed quota until it leaves; once all have left, the owner is within its own and has a place."""
    cycle = schedule(snapshot, TIGHT)
    gangs, asked = {one.uid: one for one in snapshot.running}, {one.uid: one for one in snapshot.pending}
    own = {tenant.name: quota.nominal for tenant in snapshot.tenants if (quota := tenant.quota("H100")) is not None}
    holds: Counter[str] = Counter()
    for one in snapshot.running:
        holds[one.tenant] += round(one.held) * (one.qos is not QoS.PREEMPTIBLE)
    reclaimed = stopped(cycle, StopReason.RECLAIMED)
    for tenant in {gangs[change.uid].tenant for change in reclaimed}:
        sizes = [round(gangs[change.uid].held) for change in reclaimed if gangs[change.uid].tenant == tenant]
        assert holds[tenant] - sum(sizes) + max(sizes) > own[tenant]
    for uid in {change.beneficiary for change in reclaimed}:
        gone = {change.uid for change in cycle.changes}
        left = tuple(one for one in snapshot.running if one.uid not in gone)
        left += tuple(begun(asked[admit.uid], admit) for admit in cycle.admits)
        after = schedule(replace(snapshot, running=left, pending=(asked[uid],)), STILL).admits
        assert [admit.uid for admit in after] == [uid]


@settings(max_examples=EXAMPLES, deadline=None)
@given(lent_out())
def test_without_any_one_borrower_the_owner_would_have_no_place_there(snapshot: Snapshot) -> None:
    """Were one of them to stay, quota would be lacking, or a place in that cell on no more nodes than it gets."""
    snapshot = replace(snapshot, pending=snapshot.pending[:1])
    (waits,) = snapshot.pending
    reclaimed = stopped(schedule(snapshot, TIGHT), StopReason.RECLAIMED)
    for change in reclaimed:
        gone = {other.uid for other in reclaimed}
        alone = replace(waits, cells=(change.place or change.cell,))
        left = tuple(one for one in snapshot.running if one.uid not in gone)
        stays = tuple(one for one in snapshot.running if one.uid not in gone - {change.uid})
        (as_planned,) = schedule(replace(snapshot, running=left, pending=(alone,)), STILL).admits
        admits = schedule(replace(snapshot, running=stays, pending=(alone,)), STILL).admits
        assert all(len(set(admit.nodes)) > len(set(as_planned.nodes)) for admit in admits)


def test_a_borrower_leaves_one_cell_for_a_place_in_another() -> None:
    """Quota is counted over all cells: what is lent comes back from where that costs least, and the place was free."""
    half = Request(0, 0, "H100", 4)
    busy = replace(held("r0", ("a", "a0"), half, tenant="u"), checkpointed_at=NOW - 900)
    borrowers = (busy, *(held(f"r{n}", ("b", "b0"), half, tenant="u") for n in (1, 2)))
    quotas = zip("tu", (QuotaState(4), QuotaState(8)), strict=True)
    cohort = tuple(TenantState(name, {"H100": quota}, "c") for name, quota in quotas)
    cells = (cell_of("a", 1), cell_of("b", 1))
    (change,) = schedule(Snapshot(NOW, cells, cohort, (gang("g", half),), borrowers)).changes
    assert isinstance(change, Preempt)
    assert (change.cell, change.place, change.reason) == ("b", "a", StopReason.RECLAIMED)


def test_no_borrower_leaves_that_need_not() -> None:
    """Eight have to be given back, by the one that holds eight: two of them are a place, and no other need leave."""
    sizes = (("a0", 1), ("a0", 2), ("a0", 4), ("a1", 8))
    borrowers = [
        held(f"r{number}", ("a", node), Request(0, 0, "H100", size), tenant="u")
        for number, (node, size) in enumerate(sizes)
    ]
    borrowers.append(held("r4", ("b", "b0"), Request(0, 0, "H100", 8), QoS.GUARANTEED, tenant="u"))
    cohort = tuple(
        TenantState(name, {"H100": QuotaState(own)}, "c") for name, own in zip("tuv", (9, 4, 4), strict=True)
    )
    owner = gang("g", Request(0, 0, "H100", 1), workers=2)
    snapshot = Snapshot(NOW, (cell_of("a", 2), cell_of("b", 1)), cohort, (owner,), tuple(borrowers))
    assert [change.uid for change in schedule(snapshot, TIGHT).changes] == ["r3"]


def test_headroom_is_held_where_work_may_start() -> None:
    """Not in a cell that cannot be seen, although it has more room."""
    whole = Request(500, 0, "H100", 8)
    snapshot = Snapshot(
        NOW,
        (cell_of("a", 2, Readiness.UNKNOWN), cell_of("b", 1)),
        FREE,
        (gang("g", whole),),
        headroom=(Headroom("s", "t", whole, 1),),
    )
    assert not schedule(snapshot).admits


def test_nothing_is_said_to_be_kept_where_quota_forbids_it() -> None:
    """It may have the A100 that is busy, and no H100, of which eight are free."""
    one, other = Request(0, 0, "H100", 1), Request(0, 0, "A100", 1)
    cell = CellState("a", Readiness.READY, (*cell_of("a", 1).nodes, Node("k", "p", 8_000, 64, {"A100": 1})))
    waits = replace(gang("g", one), alternatives=(other,))
    snapshot = Snapshot(NOW, (cell,), (TenantState("t", {"A100": 4}),), (waits,), (held("r", ("a", "k"), other),))
    assert schedule(snapshot).waits["g"].reason is WaitReason.WAITING_FOR_CAPACITY
