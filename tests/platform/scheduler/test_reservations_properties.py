"""A reservation is a promise: with estimates that hold, its gang starts no later, whatever comes behind it."""

import os
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from helios.scheduler import (
    CellState,
    Node,
    PendingGang,
    Policy,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    schedule,
)
from helios.spec import QoS

EXAMPLES = int(os.environ.get("HELIOS_EXAMPLES", "100"))
POLICY = Policy(preemption=False, elastic=False, short_first=0.0, fair_share=0.0, defragmentation=False)
"""One class by age: nobody who comes later has better standing."""


@st.composite
def arrivals(draw: st.DrawFn, count: int) -> tuple[PendingGang, ...]:
    """Estimates are upper edges of their buckets, so that what is foreseen is what happens."""
    gangs, now = [], 0.0
    for number in range(count):
        now += draw(st.sampled_from([0.0, 1.0, 40.0, 300.0]))
        workers = draw(st.integers(1, 4))
        gangs.append(
            PendingGang(
                uid=f"g{number:02}",
                name=f"g{number}",
                tenant="t",
                qos=QoS.STANDARD,
                priority=0,
                submitted_at=now,
                request=Request(draw(st.sampled_from([0, 1000])), 0, "H100", draw(st.sampled_from([1, 2, 4, 8]))),
                min_workers=workers,
                max_workers=workers,
                cells=draw(st.sampled_from([(), (), (), ("a",)])),
                estimate=draw(st.sampled_from([64.0, 128.0, 512.0, 2048.0])),
            )
        )
    return tuple(gangs)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[CellState, ...]:
    sizes = {name: draw(st.integers(1, 3)) for name in ("a", "b")[: draw(st.integers(1, 2))]}
    return tuple(
        CellState(
            name, Readiness.READY, tuple(Node(f"n{each}", "pool", 8_000, 64, {"H100": 8}) for each in range(size))
        )
        for name, size in sizes.items()
    )


@dataclass(frozen=True)
class Promise:
    """At `made`, the gang was to start at `at`; `is_first` where nobody that waited then had waited for longer."""

    uid: str
    made: float
    at: float
    is_first: bool


class Course:
    """The fleet from one event to the next: a gang comes, or one is over."""

    def __init__(self, cells: tuple[CellState, ...], gangs: tuple[PendingGang, ...], policy: Policy = POLICY) -> None:
        self._cells, self._policy = cells, policy
        self._to_come = list(gangs)
        self._pending: dict[str, PendingGang] = {}
        self._running: dict[str, RunningGang] = {}
        self.promises: list[Promise] = []
        self.started: dict[str, float] = {}

    def run(self) -> None:
        while self._to_come or self._running:
            ends = [gang.ends_at for gang in self._running.values() if gang.ends_at is not None]
            now = min([*ends, *(gang.submitted_at for gang in self._to_come[:1])])
            self._running = {uid: gang for uid, gang in self._running.items() if gang.ends_at != now}
            while self._to_come and self._to_come[0].submitted_at == now:
                gang = self._to_come.pop(0)
                self._pending[gang.uid] = gang
            self._cycle(now)

    def _cycle(self, now: float) -> None:
        waiting, running = tuple(self._pending.values()), tuple(self._running.values())
        cycle = schedule(Snapshot(now, self._cells, (TenantState("t"),), waiting, running), self._policy)
        for admit in cycle.admits:
            gang = self._pending.pop(admit.uid)
            assert gang.estimate is not None
            facts: dict[str, Any] = {"qos": gang.qos, "started_at": now, "ends_at": now + gang.estimate}
            place = (admit.uid, gang.tenant, admit.cell, admit.nodes, gang.request)
            self._running[admit.uid] = RunningGang(*place, **facts)
            self.started[admit.uid] = now
        first = min(self._pending, default="")
        for reservation in cycle.reservations:
            self.promises.append(Promise(reservation.uid, now, reservation.at, is_first=reservation.uid == first))
            assert reservation.at > now
            assert len(reservation.nodes) == self._pending[reservation.uid].min_workers


Fleet = tuple[CellState, ...]
Arrivals = tuple[PendingGang, ...]
queues = st.integers(4, 12).flatmap(arrivals)


def course_of(cells: Fleet, gangs: Arrivals) -> Course:
    course = Course(cells, gangs)
    course.run()
    return course


@settings(max_examples=EXAMPLES, deadline=None)
@given(fleets(), queues)
def test_first_of_the_queue_starts_no_later_than_promised(cells: Fleet, gangs: Arrivals) -> None:
    """Each promise to the gang that has waited longest is kept, whatever comes, ends or passes it meanwhile."""
    course = course_of(cells, gangs)
    for promise in course.promises:
        assert not promise.is_first or course.started[promise.uid] <= promise.at


@settings(max_examples=EXAMPLES, deadline=None)
@given(fleets(), queues)
def test_only_who_stands_before_it_delays_a_gang_that_has_a_reservation(cells: Fleet, gangs: Arrivals) -> None:
    """A gang that starts after its promise saw an older one start in between; younger ones never cost it a second."""
    course = course_of(cells, gangs)
    for promise in course.promises:
        if course.started[promise.uid] > promise.at:
            elders = [at for uid, at in course.started.items() if uid < promise.uid]
            assert any(promise.made < at <= course.started[promise.uid] for at in elders)


@settings(max_examples=EXAMPLES, deadline=None)
@given(fleets(), queues)
def test_every_gang_that_fits_some_cell_starts(cells: Fleet, gangs: Arrivals) -> None:
    """Nobody is left over when the last is through, but those that no cell could hold were it empty."""
    course = course_of(cells, gangs)
    for gang in gangs:
        open_cells = [cell for cell in cells if not gang.cells or cell.name in gang.cells]
        fits = [len(cell.nodes) * (8 // gang.request.accelerators) >= gang.min_workers for cell in open_cells]
        assert (gang.uid in course.started) == any(fits)
