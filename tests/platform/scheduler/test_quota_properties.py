"""Quotas, borrowing and lending, by a ledger that is added up anew after each admission."""

import os
from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from helios.scheduler import (
    CellState,
    Node,
    PendingGang,
    QuotaState,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    WaitReason,
    schedule,
)
from helios.spec import QoS

EXAMPLES = int(os.environ.get("HELIOS_EXAMPLES", "100"))
TYPES, TENANTS = ("A100", "H100"), ("t", "u", "v", "w")
CELL = CellState(
    "a", Readiness.READY, tuple(Node(f"n{number}", "p", 64_000, 64, dict.fromkeys(TYPES, 8)) for number in range(4))
)
Held = Counter[tuple[str, str]]
"""Thousandths of devices by (tenant, type)."""

limits = st.none() | st.integers(0, 6)
states = st.builds(QuotaState, st.integers(0, 8), limits, limits)
quotas = states | states | st.integers(0, 8)
requests = st.builds(Request, accelerator=st.sampled_from(TYPES), accelerators=st.integers(1, 3)) | st.builds(
    Request, accelerator=st.sampled_from(TYPES), share=st.sampled_from([250, 500])
)


def tenant(name: str) -> st.SearchStrategy[TenantState]:
    both, some = st.fixed_dictionaries(dict.fromkeys(TYPES, quotas)), st.dictionaries(st.sampled_from(TYPES), quotas)
    granted = st.sampled_from([both] * 4 + [some, st.none()]).flatmap(lambda one: one)
    return st.builds(TenantState, st.just(name), granted, st.sampled_from(["c", "c", "c", ""]))


@st.composite
def gangs(draw: st.DrawFn, uid: str) -> PendingGang:
    low = draw(st.integers(1, 3))
    return PendingGang(
        uid=uid,
        name=uid,
        tenant=draw(st.sampled_from([*TENANTS, *TENANTS, "stranger"])),
        qos=draw(st.sampled_from([QoS.STANDARD, *QoS])),
        priority=0,
        submitted_at=float(draw(st.integers(0, 9))),
        request=draw(requests),
        min_workers=low,
        max_workers=low + draw(st.integers(0, 4)),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """One cell with room; most tenants share a cohort; some gangs run, whether their quota allows it or not."""
    tenants = tuple(draw(tenant(name)) for name in TENANTS)
    pending = tuple(draw(gangs(f"g{number}")) for number in range(draw(st.integers(4, 10))))
    running = []
    for number in range(draw(st.integers(0, 4))):
        one = draw(gangs(f"r{number}"))
        places = tuple(f"n{number}" for _ in range(one.min_workers))
        devices = tuple(range(len(places))) if one.request.share else ()
        running.append(RunningGang(one.uid, one.tenant, "a", places, one.request, devices, one.qos))
    return Snapshot(10.0, (CELL,), tenants, pending, tuple(running))


def quota(snapshot: Snapshot, name: str, kind: str) -> QuotaState | None:
    """What it was granted; None where that is nothing. Only for tenants with quotas."""
    return {tenant.name: tenant for tenant in snapshot.tenants}.get(name, TenantState(name, {})).quota(kind)


def is_limited(snapshot: Snapshot, name: str) -> bool:
    return name not in {tenant.name for tenant in snapshot.tenants if tenant.quotas is None}


def held_by(running: Iterable[RunningGang]) -> Held:
    held: Held = Counter()
    for gang in running:
        if gang.qos is not QoS.PREEMPTIBLE:
            held[gang.tenant, gang.request.accelerator] += len(gang.nodes) * gang.request.thousandths
    return held


def steps(snapshot: Snapshot) -> Iterable[tuple[PendingGang, Held]]:
    """Each admission, with what was held after it."""
    asked, held = {gang.uid: gang for gang in snapshot.pending}, held_by(snapshot.running)
    for admit in schedule(snapshot).admits:
        gang = asked[admit.uid]
        if gang.qos is not QoS.PREEMPTIBLE:
            held[gang.tenant, gang.request.accelerator] += admit.workers * gang.request.thousandths
        yield gang, held.copy()


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_tenant_that_is_given_something_stays_within_nominal_and_borrowing(snapshot: Snapshot) -> None:
    """Alone it stays within its nominal quota; in a cohort within that and its borrowing limit."""
    for gang, held in steps(snapshot):
        if gang.qos is QoS.PREEMPTIBLE or not is_limited(snapshot, gang.tenant):
            continue
        kind = gang.request.accelerator
        granted = quota(snapshot, gang.tenant, kind)
        assert granted is not None
        cohort = {tenant.name: tenant.cohort for tenant in snapshot.tenants}.get(gang.tenant, "")
        beyond = held[gang.tenant, kind] - granted.nominal * 1000
        assert beyond <= 0 or cohort
        assert beyond <= 0 or granted.borrowing is None or beyond <= granted.borrowing * 1000


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_cohort_borrows_no_more_than_lenders_leave_idle_and_lend(snapshot: Snapshot) -> None:
    """After each admission in it, unless it was overdrawn before and the admission did not add to that."""
    before = held_by(snapshot.running)
    for gang, held in steps(snapshot):
        kind = gang.request.accelerator
        cohorts = {tenant.name: tenant.cohort for tenant in snapshot.tenants if tenant.quotas is not None}
        cohort = cohorts.get(gang.tenant, "")
        if cohort:
            members = [name for name, other in cohorts.items() if other == cohort]
            assert overdraft(snapshot, members, kind, held) <= max(0, overdraft(snapshot, members, kind, before))
        before = held


def overdraft(snapshot: Snapshot, members: Iterable[str], kind: str, held: Held) -> int:
    """Thousandths that are borrowed beyond what is left idle and lent."""
    borrowed = lent = 0
    for name in members:
        granted = quota(snapshot, name, kind)
        if granted is None:
            continue
        idle = granted.nominal * 1000 - held[name, kind]
        borrowed += max(0, -idle)
        lent += max(0, idle if granted.lending is None else min(idle, granted.lending * 1000))
    return borrowed - lent


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_type_that_was_not_granted_is_refused_and_no_quotas_are_no_limit(snapshot: Snapshot) -> None:
    """Every class needs the grant; a tenant that nobody set quotas for never waits for one; else the reason says so."""
    cycle = schedule(snapshot)
    for gang in snapshot.pending:
        wait, limited = cycle.waits.get(gang.uid), is_limited(snapshot, gang.tenant)
        granted = not limited or quota(snapshot, gang.tenant, gang.request.accelerator) is not None
        exceeded = wait is not None and wait.reason is WaitReason.QUOTA_EXCEEDED
        assert exceeded or granted
        assert not exceeded or limited
        assert not exceeded or not granted or gang.qos is not QoS.PREEMPTIBLE


@settings(max_examples=EXAMPLES, deadline=None)
@given(snapshots())
def test_gang_that_waits_for_quota_would_exceed_it(snapshot: Snapshot) -> None:
    """Nobody waits for quota that is there: its fewest workers would break a limit. Preemptible work is in no sum."""
    cycle, held = schedule(snapshot), held_by(snapshot.running)
    for _, after in steps(snapshot):
        held = after
    for gang in snapshot.pending:
        wait, kind = cycle.waits.get(gang.uid), gang.request.accelerator
        granted = quota(snapshot, gang.tenant, kind) if is_limited(snapshot, gang.tenant) else None
        if wait is None or wait.reason is not WaitReason.QUOTA_EXCEEDED or granted is None:
            continue
        cohorts = {tenant.name: tenant.cohort for tenant in snapshot.tenants if tenant.quotas is not None}
        own = cohorts[gang.tenant]
        members = [name for name, cohort in cohorts.items() if cohort == own] if own else [gang.tenant]
        more = held.copy()
        more[gang.tenant, kind] += gang.min_workers * gang.request.thousandths
        beyond = more[gang.tenant, kind] - granted.nominal * 1000
        too_much = beyond > 0 and granted.borrowing is not None and beyond > granted.borrowing * 1000
        assert too_much or overdraft(snapshot, members, kind, more) > 0
