"""Headroom of services: what each has needed, what it will probably need soon, and what its tenant may have held.

All of it is in the service's record, so that it outlives whoever leads: `status.load` is what its cell said last,
`status.demand` the load hour by hour, `status.headroom` what is to be held and why.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from helios.scheduler import Headroom, Snapshot
from helios.scheduler.fleet import sums_of
from helios.scheduler.headroom import STEP_S, Demand, forecast, replicas_to_hold
from helios.spec import ServiceSpec
from helios.store import Record

_MOST_LOAD = 1e6
_FIELDS = ("load", "demand", "headroom")


def heard(record: Record, progress: Mapping[str, Any]) -> Record:
    """The record with the load that its cell reports: a number of replicas' worth of work; anything else says nothing.

    Hundredths count, so that a load that hardly moves is not written at every look.
    """
    load = progress.get("load")
    if isinstance(load, bool) or not isinstance(load, int | float) or not 0 <= load <= _MOST_LOAD:
        return record
    rounded = round(float(load), 2)
    return record if record.status.get("load") == rounded else record.with_status(load=rounded)


def looked_at(record: Record, spec: ServiceSpec, now: float) -> Record:
    """The record with its demand brought up to now, and what follows from that."""
    if spec.headroom is None or record.deleting:
        gone = {name: None for name in _FIELDS if name in record.status}
        return record.with_status(**gone) if gone else record
    # Where no cell ever said a load, what people ask for is all that is known of the demand.
    load = float(record.status.get("load", spec.replicas))
    demand = _read(record.status.get("demand"))
    demand = Demand.begin(now, load) if demand is None else demand.sampled(now, load)
    expected = forecast(demand, now, lead_s=spec.headroom.lead, quantile=spec.headroom.quantile)
    wanted = replicas_to_hold(expected, replicas=spec.replicas, most=spec.headroom.max)
    held = {
        "replicas": wanted if spec.replicas else 0,  # what was scaled to zero was switched off
        "expected": round(expected.load, 2),
        "quantile": spec.headroom.quantile,
        "basis": str(expected.basis),
        "rises": expected.rises,
        "signal": "load" if "load" in record.status else "replicas",
    }
    found = {"demand": _written(demand), "headroom": held}
    same = all(record.status.get(name) == value for name, value in found.items())
    return record if same else record.with_status(**found)


def next_due(record: Record) -> float | None:
    """When the next hour begins, for which another forecast holds; seconds since the epoch."""
    demand = record.status.get("demand")
    return None if demand is None else (int(demand["hour"]) + 1) * STEP_S


def within_quota(wanted: Iterable[Headroom], snapshot: Snapshot) -> tuple[Headroom, ...]:
    """Of what is wanted, what its tenants could use within their own quota beside what they hold; by name.

    What is borrowed is others', so nothing is held on it.
    """
    if not (wanted := tuple(wanted)):
        return ()
    quotas = {tenant.name: tenant for tenant in snapshot.tenants}
    used = Counter(sums_of(snapshot).held)
    found = []
    for one in sorted(wanted, key=lambda one: (one.tenant, one.service)):
        request, tenant = one.request, quotas.get(one.tenant)
        replicas = one.replicas
        if tenant is not None and tenant.quotas is not None and request.thousandths:
            quota, key = tenant.quota(request.accelerator), (one.tenant, request.accelerator)
            left = (0 if quota is None else quota.nominal * 1000) - used[key]
            replicas = max(0, min(replicas, left // request.thousandths))
            used[key] += replicas * request.thousandths
        if replicas:
            found.append(replace(one, replicas=replicas))
    return tuple(found)


def _written(demand: Demand) -> dict[str, Any]:
    """As JSON; series as one text each, which is a line and not hundreds in what people are shown."""
    opens, peaks = (" ".join(f"{load:.10g}" for load in series) for series in (demand.opens, demand.peaks))
    return {"hour": demand.hour, "load": demand.load, "opens": opens, "peaks": peaks}


def _read(found: Mapping[str, Any] | None) -> Demand | None:
    if not found:
        return None
    opens, peaks = (tuple(map(float, found[name].split())) for name in ("opens", "peaks"))
    return Demand(found["hour"], found["load"], opens, peaks)
