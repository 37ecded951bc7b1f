"""An owner gets its own quota back from those who borrow it: all of it, from nobody else, and once."""

import os
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

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

EXAMPLES = int(os.environ.get("HELIOS_EXAMPLES", "20"))
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


def test_what_was_given_back_is_not_lent_again_before_its_owner_has_it() -> None:
    """Who was stopped has waited for longer than anybody may; it goes first, but for quota of its own alone."""
    owner = waits("mine", promised=("a", 20.0))
    old = waits("old", "guest", submitted_at=-100_000.0)
    cells = (cell("a", "n1"),)
    cycle = schedule(Snapshot(0.0, cells, tenants(owner=8, guest=0), (old, owner)))
    assert [admit.uid for admit in cycle.admits] == ["mine"]
    assert cycle.waits["old"].reason == "QuotaExceeded"
    within_its_own = Snapshot(0.0, cells, tenants(owner=8, guest=8), (old, owner))
    assert [admit.uid for admit in schedule(within_its_own).admits] == ["old"]
    lapsed = replace(owner, promised=("a", -1_000.0))
    after = schedule(Snapshot(0.0, cells, tenants(owner=8, guest=0), (old, lapsed)))
    assert [admit.uid for admit in after.admits] == ["old"]


def test_only_what_is_promised_is_not_lent() -> None:
    """Of three nodes that their owner leaves idle one is promised to it; two are lent."""
    guests = tuple(waits(f"g{number}", "guest", submitted_at=-100_000.0) for number in range(3))
    owner = waits("mine", promised=("a", 20.0))
    known = tenants(owner=24, guest=0)
    cycle = schedule(Snapshot(0.0, (cell("a", "n1", "n2", "n3"),), known, (*guests, owner)))
    assert sorted(admit.uid for admit in cycle.admits) == ["g0", "g1", "mine"]


def test_of_borrowers_without_checkpoints_the_one_that_has_begun_last_leaves() -> None:
    """A place is free, and only quota is lent: all are charged the same, and that one loses the least."""
    gangs = tuple(
        holds(f"b{number}", f"n{number}", started_at=began, checkpointed_at=None)
        for number, began in enumerate((-90_000.0, -3_000.0, -20_000.0))
    )
    cells, known = (cell("a", "n0", "n1", "n2", "n3"),), tenants(owner=24, guest=0)
    assert stopped(schedule(Snapshot(0.0, cells, known, (waits("mine"),), gangs))) == ["b1"]


class Course:
    """A cell that is played a minute a cycle: who is stopped is gone in the next and waits again, with all to do."""

    def __init__(self, nodes: int) -> None:
        self.cells = (cell("a", *(f"n{number}" for number in range(nodes))),)
        self.tenants = tenants(owner=8 * nodes, guest=0)
        self.now, self.known = 0.0, dict[str, PendingGang]()
        self.pending, self.running = dict[str, PendingGang](), dict[str, RunningGang]()
        self.stops: list[tuple[float, str, str]] = []

    def submit(self, gang: PendingGang) -> None:
        self.known[gang.uid] = self.pending[gang.uid] = gang

    def step(self) -> None:
        for uid, one in tuple(self.running.items()):
            if one.leaving_at is not None or (one.ends_at or 0.0) <= self.now:
                del self.running[uid]
                self.pending |= {uid: self.known[uid]} if one.leaving_at is not None else {}
        fleet, queue = tuple(self.running.values()), tuple(self.pending.values())
        cycle = schedule(Snapshot(self.now, self.cells, self.tenants, queue, fleet))
        for admit in cycle.admits:
            gang = self.pending.pop(admit.uid)
            started = holds(gang.uid, "", gang.tenant, started_at=self.now, checkpointed_at=None)
            ends = self.now + (gang.estimate or 0.0)
            stops = sum(uid == gang.uid for _, uid, _ in self.stops)
            self.running[gang.uid] = replace(started, nodes=admit.nodes, ends_at=ends, preemptions=stops)
        for change in cycle.changes:
            self.stops.append((self.now, change.uid, change.beneficiary))
            self.running[change.uid] = replace(self.running[change.uid], leaving_at=self.now + 60)
            helped = self.pending[change.beneficiary]
            self.pending[helped.uid] = replace(helped, promised=("a", self.now + 60))
        self.now += 60


arrivals = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 2), st.integers(1, 60)), min_size=1, max_size=4)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.integers(1, 2), min_size=1, max_size=4), arrivals)
def test_borrowers_are_stopped_for_a_gang_once_and_come_again_after_it(
    guests: list[int], owners: list[tuple[int, int, int]]
) -> None:
    """They never end, have waited for long, and ask again at once for the place that they have just left."""
    course = Course(4)
    for number, workers in enumerate(guests):
        course.submit(waits(f"g{number}", "guest", workers, submitted_at=-100_000.0, estimate=1e6))
    for minute in range(150):
        for number, (arrives, workers, lasts) in enumerate(owners):
            if arrives == minute:
                course.submit(waits(f"o{number}", "owner", workers, submitted_at=course.now, estimate=60.0 * lasts))
        course.step()
    rounds = {(at, helped) for at, _, helped in course.stops}
    assert len(rounds) == len({helped for _, helped in rounds})
