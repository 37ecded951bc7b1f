"""What is worth knowing of a drawn workload, as numbers and as sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields

import numpy as np

from helios.simulator.traces.trace import DAY_S, WEEK_S
from helios.simulator.workload.burstiness import Burstiness, burstiness
from helios.simulator.workload.copies import Copy, Pool
from helios.simulator.workload.windows import Window


def facts_of(copies: Sequence[Copy], pool: Pool, capacity: float, window: Window) -> dict[str, float]:
    """Figures of a workload; loads and shares of GPU time are of the measured window.

    Args:
        copies: that it is made of.
        pool: that they were drawn from.
        capacity: devices of the fleet, by their speed.
        window: that is measured.
    """
    rows, submitted, left, elapsed, demand = (
        np.concatenate([getattr(copy, name) for copy in copies])
        for name in ("rows", "submitted_s", "duration_s", "elapsed_s", "demand")
    )
    devices = pool.trace.devices[rows]
    low, high = window.span
    whole = capacity * window.measured_s
    measured = (submitted >= low) & (submitted < high) & (elapsed == 0)
    work = devices * left
    long, late = left > window.measured_s, submitted + left > window.horizon_s
    of_pool = np.concatenate(pool.rows)
    lasts, weight = pool.trace.duration_s[of_pool], pool.trace.work[of_pool]
    figures = {
        "load": float(demand.sum()) / whole,
        "submitted_load": float(work[measured].sum()) / whole,
        "jobs": len(rows),
        "measured_jobs": int(measured.sum()),
        "carried_jobs": int((elapsed > 0).sum()),
        "carried_devices": float(devices[elapsed > 0].sum()),
        "long_share_of_work": float(weight[lasts > window.measured_s].sum() / weight.sum()),
        "long_jobs": int((measured & long).sum()),
        "endless_jobs": int((measured & late).sum()),
        "endless_share_of_work": float(work[measured & late].sum() / work[measured].sum()) if measured.any() else 0.0,
    }
    # What began before the run is put back to when it began.
    after = burstiness(submitted - elapsed, left + elapsed, devices, window.span)
    return figures | _named("before", before(pool, window)) | _named("after", after)


def before(pool: Pool, window: Window) -> Burstiness:
    """Burstiness of the weeks that are drawn from: the mean over stretches as long as the measured window."""
    rows = np.concatenate(pool.rows)
    at, lasts = pool.trace.submitted_s[rows] - pool.first_s, pool.trace.duration_s[rows]
    rounds = np.arange(-int(np.ceil(lasts.max() / pool.length_s)), 2) * pool.length_s
    submitted = (rounds[:, None] + at).ravel()
    lasts, devices = np.tile(lasts, len(rounds)), np.tile(pool.trace.devices[rows], len(rounds))
    starts = [week * WEEK_S for week in range(pool.weeks)]
    found = [burstiness(submitted, lasts, devices, (start, start + window.measured_s)) for start in starts]
    return Burstiness(*np.mean([astuple(one) for one in found], axis=0).tolist())


def notes_of(facts: Mapping[str, float], pool: Pool, window: Window) -> tuple[str, ...]:
    """The figures as sentences."""
    first = round(pool.first_s / WEEK_S) + 1
    drawn = (
        f"Drawn for {window.phase.value} from weeks {first} to {first + pool.weeks - 1}: {facts['tenants']:.0f} "
        f"week-shifted copies of tenants, {facts['jobs']:.0f} jobs; no size or duration is changed."
    )
    load = (
        f"Load {facts['load']:.3f}: the devices that would be in use within the measured {window.measured_s / DAY_S:g} "
        "days if every job started at once, over the fleet's. All work submitted then is "
        f"{facts['submitted_load']:.3f} of capacity."
    )
    carried = (
        f"{facts['carried_jobs']:.0f} jobs on {facts['carried_devices']:.0f} devices began before the run; what is "
        "left of each is there at second 0, and none is measured."
    )
    long = (
        f"Jobs longer than the measured window have {facts['long_share_of_work']:.1%} of the trace's GPU time. They "
        f"are not clipped: {facts['endless_jobs']:.0f} of {facts['measured_jobs']:.0f} measured jobs, with "
        f"{facts['endless_share_of_work']:.1%} of their GPU time, would not end within the run if all started at once."
    )
    homes = (
        f"Homes and quotas by true demand: the fullest cell has {facts['homes_fullest']:.3f} times the fleet's load; "
        f"{facts['quotas_below_gang']:.0f} tenants have a quota below their largest gang."
    )
    return (
        drawn,
        load,
        carried,
        long,
        f"Burstiness before: {_burstiness(facts, 'before')}; after: {_burstiness(facts, 'after')}.",
        homes,
        "QoS classes, estimates, checkpoints, restarts, elasticity, failures, data and homes are synthetic.",
    )


def _named(prefix: str, found: Burstiness) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in asdict(found).items()}


def _burstiness(facts: Mapping[str, float], prefix: str) -> Burstiness:
    return Burstiness(*(facts[f"{prefix}_{each.name}"] for each in fields(Burstiness)))
