"""One scheduling cycle, on one page."""

from helios.scheduler import quota
from helios.scheduler.decisions import Admit, Decision, Wait
from helios.scheduler.free import Free
from helios.scheduler.global_stage import choose, ordered
from helios.scheduler.snapshot import PendingGang, Snapshot, TenantState


def schedule(snapshot: Snapshot) -> tuple[Decision, ...]:
    """Decide for every pending gang, in queue order.

    A gang that waits holds nothing back: those behind it may start where it cannot.
    """
    # 1. What is free once everything that runs, or was admitted, has what it holds.
    free = Free(snapshot)
    tenants = {tenant.name: tenant for tenant in snapshot.tenants}
    decisions: list[Decision] = []
    # What had no place a moment ago has none now: within a cycle the free resources only shrink.
    refused: dict[tuple[object, ...], Wait] = {}
    # 2. The queue in its order.
    for gang in ordered(snapshot.pending):
        # 3. May the tenant hold this much?
        tenant = tenants.get(gang.tenant) or TenantState(gang.tenant, {})
        allowed, over_quota = quota.check(gang, tenant, free)
        if allowed is None:
            assert over_quota is not None
            decisions.append(over_quota)
            continue
        # 4. Stage one asks stage two of every cell for a place, and takes the best.
        shape = (gang.request, gang.min_workers, gang.cells, gang.held_off)
        if shape in refused:
            same = refused[shape]
            decisions.append(Wait(gang.uid, same.reason, same.message, same.cells))
            continue
        fit = choose(allowed, snapshot.cells, free)
        if isinstance(fit, Wait):
            refused[shape] = fit
            decisions.append(fit)
            continue
        # 5. What it was given is gone for the next in line.
        free.take(gang.tenant, fit.cell, fit.nodes, gang.request)
        decisions.append(Admit(gang.uid, fit.cell, fit.nodes, len(fit.nodes), _reason(gang, fit.nodes)))
    return tuple(decisions)


def _reason(gang: PendingGang, nodes: tuple[str, ...]) -> str:
    wanted = f" of up to {gang.max_workers}" if len(nodes) < gang.max_workers else ""
    workers = "1 worker" if len(nodes) == 1 else f"{len(nodes)} workers"
    machines = "1 node" if len(set(nodes)) == 1 else f"{len(set(nodes))} nodes"
    return f"{workers}{wanted} on {machines}"
