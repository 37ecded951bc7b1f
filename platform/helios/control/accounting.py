"""Where every GPU-second of every allocation went: the ledger that controllers keep, and what is read out of it.

    step(before, after, now) -> (record to save, rows to save with it)      around every save of a job or service
    next_due(record) -> when silence turns idle                             for the controller's next look
    usage(allocations, by=..., since=..., until=..., now=...) -> rows       `helios usage`, GET /v1/usage
    Meter(allocations)                                                      the counters of GET /metrics

What each bucket means is in `helios.control.ledger`.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from helios.control.ledger import IDLE_AFTER_S, Bucket, Ledger, next_due, step
from helios.errors import InputError, nearest
from helios.store.records import Allocation

__all__ = ["IDLE_AFTER_S", "Bucket", "Ledger", "Meter", "next_due", "settled_before", "step", "usage"]

Labels = tuple[str, str, str]
"""Bucket, tenant, cell."""
Resource = Literal["gpu", "cpu"]
_GROUPS = ("tenant", "cell", "job")


def usage(
    allocations: Iterable[Allocation], *, by: str, since: float, until: float, now: float, resource: Resource = "gpu"
) -> list[dict[str, Any]]:
    """What allocations came to between `since` and `until`, by tenant, cell or job; the largest first.

    The bucket that goes on in an open allocation is known to the moment, and cut at the window's ends. Of the buckets
    before that only their sums are known: where the window cuts that part of an allocation, each of them counts with
    the share of the part that lies in the window. So the buckets of a row always add up to the time that its resources
    were held in the window, and are exact for allocations that lie in it entirely.

    Args:
        allocations: any; those outside the window, and those that hold nothing of the resource, are left out.
        by: `tenant`, `cell`, or `job` (jobs and services by kind and name, all their starts together).
        since: seconds since the epoch; `until` likewise. Nothing after `now` is counted.
        now: until when open allocations are reckoned.
        resource: `gpu` for device-seconds, `cpu` for core-seconds.

    Returns:
        Rows of `name`, `kind` (by job only), `tenant` (by job only), `allocations` (how many), `seconds` (resource
        seconds by bucket, every bucket in the order of `Bucket`) and `total`.

    Raises:
        InputError: another `by`, or a window that ends before it begins.
    """
    if by not in _GROUPS:
        near = nearest(by, _GROUPS)
        hint = f"did you mean {near!r}?" if near else ""
        raise InputError(f"usage by {by!r}: expected one of {', '.join(_GROUPS)}", hint=hint)
    if until < since:
        raise InputError(f"usage until {until:.0f} begins only at {since:.0f}", hint="give a `since` before `until`")
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for item in allocations:
        amount = item.gpus if resource == "gpu" else item.millicpus / 1000
        spent = _within(item, since, min(until, now), now)
        if not amount or spent is None:
            continue
        row = rows.setdefault(_group(item, by), _row(item, by))
        row["allocations"] += 1
        for bucket, wall in spent.items():
            row["seconds"][bucket] += wall * amount
    for row in rows.values():
        row["total"] = math.fsum(row["seconds"].values())
    return sorted(rows.values(), key=lambda row: (-row["total"], row["name"]))


def _group(item: Allocation, by: str) -> tuple[str, ...]:
    groups = {"tenant": (item.tenant,), "cell": (item.cell,), "job": (item.tenant, item.kind, item.name)}
    return groups[by]


def _row(item: Allocation, by: str) -> dict[str, Any]:
    whose = {"kind": item.kind, "tenant": item.tenant} if by == "job" else {}
    zeros = {str(bucket): 0.0 for bucket in Bucket}
    return {"name": _group(item, by)[-1], **whose, "allocations": 0, "seconds": zeros, "total": 0.0}


def _within(item: Allocation, since: float, until: float, now: float) -> dict[str, float] | None:
    """Wall seconds of the allocation in the window by bucket; None where it does not meet the window."""
    closed = item.closed_at is not None
    end = item.since if closed else max(now, item.since)
    if item.opened_at >= until or end <= since:
        return None
    settled = item.since - item.opened_at
    inside = _overlap((item.opened_at, item.since), (since, until))
    share = 1.0 if inside == settled else inside / settled
    spent = {bucket: wall * share for bucket, wall in item.seconds.items()}
    if not closed:
        spent[item.bucket] = spent.get(item.bucket, 0.0) + _overlap((item.since, end), (since, until))
    return spent


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def settled_before(allocations: Iterable[Allocation], moment: float) -> dict[Labels, float]:
    """GPU-seconds by (bucket, tenant, cell) of what was closed before a moment: they never change again."""
    totals: dict[Labels, float] = defaultdict(float)
    for row in allocations:
        if row.closed_at is not None and row.closed_at < moment:
            for bucket, wall in row.seconds.items():
                totals[bucket, row.tenant, row.cell] += wall * row.gpus
    return totals


class Meter:
    """GPU-seconds by bucket, tenant and cell as counters that go on from what the store knows; not thread-safe.

    Made from allocations when a replica begins to lead; then told of every row after it was saved. Where the past is
    long, the meter begins with what was open at a moment or closed since (`store.allocations(since=moment)`), and
    `settled_before` of the rest is added when it is there.

    Args:
        since: allocations that were closed before it are left out; they are what `settled_before` counts.
    """

    def __init__(self, allocations: Iterable[Allocation], *, since: float = 0.0) -> None:
        self._open: dict[tuple[str, int], Allocation] = {}
        self._over: set[tuple[str, int]] = set()
        self._settled: dict[Labels, float] = defaultdict(float)
        self._shown: dict[Labels, float] = {}
        for row in allocations:
            if row.closed_at is None or row.closed_at >= since:
                self.take([row])
                if row.closed_at is not None and since:
                    self._over.add((row.uid, row.epoch))

    def take(self, rows: Iterable[Allocation]) -> None:
        """Take in rows, each newer than what was taken of the same allocation before, or the same."""
        for row in rows:
            key = (row.uid, row.epoch)
            if key in self._over:
                continue
            known = self._open.pop(key, None)
            for bucket, wall in row.seconds.items():
                earlier = known.seconds.get(bucket, 0.0) if known else 0.0
                self._settled[bucket, row.tenant, row.cell] += (wall - earlier) * row.gpus
            if row.closed_at is None:
                self._open[key] = row

    def add(self, totals: Mapping[Labels, float]) -> None:
        """Add what was counted elsewhere."""
        for labels, seconds in totals.items():
            self._settled[labels] += seconds

    def advance(self, now: float) -> dict[Labels, float]:
        """What came to each (bucket, tenant, cell) since the last call; the first one gives all of it.

        Time that is found to belong to another bucket afterwards is not taken back: the first bucket stands still
        until it has caught up.
        """
        totals = dict(self._settled)
        for row in self._open.values():
            labels = (row.bucket, row.tenant, row.cell)
            totals[labels] = totals.get(labels, 0.0) + max(0.0, now - row.since) * row.gpus
        grown = {labels: total - self._shown.get(labels, 0.0) for labels, total in totals.items()}
        grown = {labels: gain for labels, gain in grown.items() if gain > 0}
        self._shown |= {labels: totals[labels] for labels in grown}
        return grown
