"""Whether a tenant may hold more devices: nominal quota, checked over all cells together."""

from dataclasses import replace

from helios.scheduler.decisions import Wait, WaitReason
from helios.scheduler.free import Free
from helios.scheduler.snapshot import PendingGang, TenantState


def check(gang: PendingGang, tenant: TenantState, free: Free) -> tuple[PendingGang, None] | tuple[None, Wait]:
    """Return the gang, shrunk to what the quota allows, or why the quota holds it back."""
    request = gang.request
    if not request.accelerators or tenant.quotas is None:
        return gang, None
    kind = request.accelerator
    quota = tenant.quotas.get(kind)
    if quota is None:
        message = f"tenant {tenant.name!r} was granted no {kind}"
        return None, Wait(gang.uid, WaitReason.QUOTA_EXCEEDED, message)
    held = free.held(tenant.name, kind)
    workers = (quota - held) // request.accelerators
    if workers < gang.min_workers:
        needs = gang.min_workers * request.accelerators
        message = f"tenant {tenant.name!r} may hold {quota} {kind} and holds {held}; this needs {needs} more"
        return None, Wait(gang.uid, WaitReason.QUOTA_EXCEEDED, message)
    return replace(gang, max_workers=min(gang.max_workers, workers)), None
