"""Who may be asked for room, looked up in arrays: the same as asking each running gang by itself."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
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
)
from helios.scheduler.candidates import Candidates
from helios.scheduler.holders import COLUMNS, Holders
from helios.scheduler.lines import Shape, shape_of
from helios.scheduler.queue import QOS_ORDER
from helios.scheduler.scratch import Scratch
from helios.spec import QoS

NOW = 100_000.0
WHOLE, PART = Request(1000, 2**30, "H100", 1), Request(1000, 2**30, "H100", share=500)
TIMES = st.none() | st.sampled_from([NOW - 20_000, NOW - 5000, NOW - 1801, NOW - 600, NOW - 60, NOW])


@st.composite
def gangs(draw: st.DrawFn) -> RunningGang:
    """Anything that a snapshot may hold, on a node that is there or gone."""
    request, nodes = draw(st.sampled_from([WHOLE, WHOLE, PART])), draw(st.integers(1, 4))
    return RunningGang(
        "",
        draw(st.sampled_from("ab")),
        draw(st.sampled_from(["east", "west"])),
        tuple(draw(st.sampled_from("xxyz")) for _ in range(nodes)),
        request,
        devices=tuple(range(nodes)) if request.share else (),
        qos=draw(st.sampled_from(QoS)),
        started_at=draw(TIMES),
        checkpointed_at=draw(TIMES),
        restart_s=draw(st.sampled_from([0.0, 90.0])),
        leaving_at=draw(st.sampled_from([None, None, None, NOW + 5])),
        min_workers=draw(st.integers(0, nodes)),
        max_workers=draw(st.sampled_from([0, 8])),
        preemptions=draw(st.sampled_from([0, 0, 5])),
    )


POLICIES = st.builds(
    Policy,
    elastic=st.booleans(),
    least_attained=st.sampled_from([0.0, 1.0, 2.0]),
    tenant_budget=st.sampled_from([1000, 3]),
    min_run=st.sampled_from([{}, {QoS.STANDARD: 1800.0, QoS.PREEMPTIBLE: 120.0}]),
)
SHAPES = st.builds(
    lambda qos, estimate: shape_of(PendingGang("p", "p", "a", qos, 0, NOW, WHOLE, 1, 1, estimate=estimate)),
    st.sampled_from(QoS),
    st.sampled_from([None, 60.0, 5000.0]),
)


def scene(running: Sequence[RunningGang], policy: Policy) -> Scratch:
    nodes = tuple(Node(name, "p", 64_000, 2**38, {"H100": 8}) for name in "xy")
    cells = tuple(CellState(name, Readiness.READY, nodes) for name in ("east", "west"))
    tenants = (TenantState("a", preemptions=4), TenantState("b"))
    return Scratch(Snapshot(NOW, cells, tenants, (), tuple(running)), policy)


def lost(gang: RunningGang, policy: Policy, at: float) -> float:
    since = policy.default_loss if gang.checkpointed_at is None else max(0.0, at - gang.checkpointed_at)
    return since + gang.restart_s


def askable_from(gang: RunningGang, policy: Policy) -> float:
    """From when on, by the rules in words: budgets, the class's minimum run, who was admitted this moment."""
    budget = gang.preemptions < policy.job_budget and (gang.tenant == "b" or policy.tenant_budget > 4)
    if gang.qos is QoS.GUARANTEED or gang.leaving_at is not None or not budget:
        return math.inf
    least = policy.min_run.get(gang.qos, 0.0)
    if gang.started_at is None:
        return NOW + least if least else math.inf
    return gang.started_at + least


def gives(gang: RunningGang, shape: Shape, policy: Policy, at: float) -> bool:
    """To a class above always; to its own its surplus, or its place where it is preemptible and ran for longer."""
    if gang.qos is not shape.qos:
        return QOS_ORDER[shape.qos] < QOS_ORDER[gang.qos]
    if len(gang.nodes) > gang.fewest and policy.elastic and not gang.request.share:
        return True
    if gang.qos is not QoS.PREEMPTIBLE or not policy.least_attained or shape.estimate is None:
        return False
    if gang.started_at is None or gang.checkpointed_at is None:
        return False
    return shape.estimate < (at - gang.started_at) / policy.least_attained - lost(gang, policy, at)


@given(st.lists(gangs(), max_size=12), POLICIES, SHAPES)
def test_arrays_say_what_the_rules_say(running: list[RunningGang], policy: Policy, shape: Shape) -> None:
    """Who is open, who is young and until when, who gives something to a shape, and in which order they are asked."""
    named = [replace(gang, uid=f"r{number:02d}") for number, gang in enumerate(running)]
    scratch, starts = scene(named, policy), {gang.uid: askable_from(gang, policy) for gang in named}
    found = Candidates("H100", scratch)
    rows = {gang.uid: row for row, gang in enumerate(found.gangs)}
    opened = {gang.uid for gang in named if starts[gang.uid] <= NOW}
    young = {uid for uid, at in starts.items() if NOW < at < math.inf}
    assert {found.gangs[row].uid for row in found.open} == opened
    assert {found.gangs[row].uid for row in found.young} == young
    useful = {}
    for gang in named:
        if gang.uid in opened | young:
            useful[gang.uid] = gives(gang, shape, policy, max(NOW, starts[gang.uid]))
            assert found.gives(shape)[rows[gang.uid]] == useful[gang.uid]
    for cell in ("east", "west"):
        here = {gang.uid for gang in named if gang.cell == cell}
        assert {found.gangs[row].uid for row in found.open_in(cell)} == opened & here
        for below in (0.0, 2.0):
            small = {gang.uid for gang in named if gang.held < below}
            first = min((starts[uid] for uid in young & here if useful[uid] or uid in small), default=math.inf)
            assert found.useful_from(shape, {cell: below}) == first
    free = [scratch.book(cell).free["H100"] for cell in ("east", "west")]
    for row, holds in enumerate(found.may_hold(np.arange(len(found.gangs)), np.concatenate(free), 4)):
        gang = found.gangs[row]
        if len(set(gang.nodes)) > 1 or gang.nodes[0] == "z":
            assert holds
        else:
            assert holds == (free[gang.cell == "west"]["xy".index(gang.nodes[0])] + gang.held >= 4)
    of = {gang.uid: gang for gang in named}
    expected = sorted(opened, key=lambda uid: (-QOS_ORDER[of[uid].qos], cheapest(of[uid], policy), uid))
    assert [found.gangs[row].uid for row in found.ranked] == expected


def cheapest(gang: RunningGang, policy: Policy) -> float:
    """Seconds that each device loses that comes free, as a whole or by shrinking."""
    cost, surplus = lost(gang, policy, NOW), len(gang.nodes) - gang.fewest
    return min(cost, cost * gang.fewest / surplus) if surplus else cost


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans(), gangs()), max_size=60))
def test_rows_are_kept_up(steps: list[tuple[str, bool, RunningGang]]) -> None:
    """Whoever comes, goes or has news, each has one row that says what one made anew would; a copy stays as it was."""
    kept, known = Holders(), dict[str, RunningGang]()
    copied, then = kept.copy(), dict[str, RunningGang]()
    for uid, stays, gang in steps:
        if stays and uid in known:
            known[uid] = replace(gang, uid=uid)
            kept.renew(known[uid])
            continue
        kept.drop(uid)
        known.pop(uid, None)
        if stays:
            known[uid] = replace(gang, uid=uid)
            kept.put(known[uid])
        elif len(known) % 3 == 0:
            copied, then = kept.copy(), known.copy()
    for table, gangs_then in ((kept, known), (copied, then)):
        may = {uid for uid, gang in gangs_then.items() if gang.qos is not QoS.GUARANTEED and gang.leaving_at is None}
        assert {gang.uid for gang in table.gangs} == may
        for gang, row in zip(table.gangs, table.rows, strict=True):
            alone = Holders()
            alone.put(gangs_then[gang.uid])
            assert row.tolist() == pytest.approx(alone.rows[0].tolist(), abs=0, rel=0, nan_ok=True)
            assert row[COLUMNS.index("workers")] == len(gang.nodes)
