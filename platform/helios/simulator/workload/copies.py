"""Week-shifted copies of a trace's tenants, superposed until their demand is what was asked for.

Sizes and durations are never touched. A copy is all jobs of one tenant, moved by whole weeks around the weeks that may
be drawn from, so that hours, weekdays and bursts stay as they were. Which tenants are copied is drawn with replacement.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from helios.errors import InputError
from helios.simulator.traces.table import Bools, Floats, Ints
from helios.simulator.traces.trace import WEEK_S, Trace
from helios.simulator.workload.windows import Window

JITTER_S = 1800.0
"""A copy is moved by up to so much more or less than whole weeks: a tenant that is drawn more often than there are
weeks would else submit twice in the same second."""
TOLERANCE = 0.01
"""The demand that is reached differs by no more than this share of what was asked for."""
CLOSE = 0.001
"""Jobs are looked for until the demand is as close as this."""
MAX_COPIES = 20_000
MAX_THINNED = 20


@dataclass(frozen=True)
class Pool:
    """The weeks that may be drawn from, as a circle: after the last comes the first.

    Attributes:
        first_s: where they begin in the trace.
        length_s: of the circle.
        rows: rows of the trace that each tenant has in them; tenants without are left out.
    """

    trace: Trace
    first_s: float
    length_s: float
    rows: tuple[Ints, ...]

    @classmethod
    def of(cls, trace: Trace, weeks: range) -> "Pool":
        first, length = weeks.start * WEEK_S, len(weeks) * WEEK_S
        inside = (trace.submitted_s >= first) & (trace.submitted_s < first + length)
        found = [np.flatnonzero(inside & (trace.tenant == place)) for place in range(len(trace.tenants))]
        return cls(trace, first, length, tuple(rows for rows in found if len(rows)))

    @property
    def weeks(self) -> int:
        return round(self.length_s / WEEK_S)


@dataclass(frozen=True)
class Copy:
    """Jobs of one tenant, `[J]` each.

    Attributes:
        tenant: its name with a number, since each copy is a tenant of its own.
        rows: of the trace.
        submitted_s: seconds since the run begins; 0 for what began before.
        duration_s: seconds of work, of what began before those that are left.
        elapsed_s: seconds that it ran before second 0; 0 for what did not.
        demand: device-seconds that it would use within the measured window if it started at once.
        even: numbers drawn evenly from [0, 1) for whatever is made up for a job, `[J, COLUMNS]`.
        habit: one such number for the tenant.
    """

    tenant: str
    rows: Ints
    submitted_s: Floats
    duration_s: Floats
    elapsed_s: Floats
    demand: Floats
    even: Floats
    habit: float

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, keep: Bools) -> "Copy":
        """The same with some of its jobs."""
        return replace(
            self,
            rows=self.rows[keep],
            submitted_s=self.submitted_s[keep],
            duration_s=self.duration_s[keep],
            elapsed_s=self.elapsed_s[keep],
            demand=self.demand[keep],
            even=self.even[keep],
        )


COLUMNS = 16
"""Numbers drawn for each job. The last decides which jobs of a thinned copy stay."""


def draw_copies(pool: Pool, window: Window, seed: int) -> Iterator[Copy]:
    """Copies without end; the same seed gives the same, whatever load they are drawn for.

    Raises:
        InputError: the run is longer than the weeks that may be drawn from.
    """
    if window.horizon_s > pool.length_s:
        lasts, weeks = window.horizon_s / WEEK_S, pool.weeks
        raise InputError(f"the run lasts {lasts:.1f} weeks, but there are {weeks} weeks for {window.phase.value}")
    if not pool.rows:
        raise InputError(f"{pool.trace.file or pool.trace.name} has no job in the weeks for {window.phase.value}")
    stream = [seed, list(type(window.phase)).index(window.phase)]
    drawn = [0] * len(pool.rows)
    for number in range(MAX_COPIES):
        dice = np.random.default_rng([*stream, number])
        which, jitter, habit = dice.random(3).tolist()
        place = int(which * len(pool.rows))
        # A tenant's copies go through all weeks, in an order of their own, before a week comes again.
        cycle, turn = divmod(drawn[place], pool.weeks)
        order = np.argsort(np.random.default_rng([*stream, place, cycle, 1]).random(pool.weeks))
        drawn[place] += 1
        offset = float(order[turn]) * WEEK_S + (2 * jitter - 1) * JITTER_S
        rows = pool.rows[place]
        name = f"{pool.trace.tenants[pool.trace.tenant[rows[0]]]}-{drawn[place]}"
        yield _shifted(pool, rows, offset, window, dice, tenant=name, habit=habit)


def superpose(copies: Iterable[Copy], wanted: float) -> list[Copy]:
    """Copies with a demand of `wanted` device-seconds together; the last is thinned, job by job at random.

    Where no job of that one is small enough for what is missing then, the next are thinned as well.

    Raises:
        InputError: no selection of jobs comes within a hundredth of it.
    """
    taken: list[Copy] = []
    missing, thinned = wanted, 0
    for copy in copies:
        whole = float(copy.demand.sum()) <= missing
        part = copy if whole else _thinned(copy, missing, wanted)
        missing -= float(part.demand.sum())
        if len(part):
            taken.append(part)
        thinned += not whole
        if thinned and (missing <= CLOSE * wanted or thinned == MAX_THINNED):
            break
    if missing > TOLERANCE * wanted:
        message = f"no selection of jobs has a demand of {wanted:.4g} device-seconds; the nearest has"
        hint = "the fleet is too small for this trace's jobs, or the trace has too few"
        raise InputError(f"{message} {wanted - missing:.4g}", hint=hint)
    return taken


def _shifted(
    pool: Pool, rows: Ints, offset: float, window: Window, dice: np.random.Generator, *, tenant: str, habit: float
) -> Copy:
    trace = pool.trace
    at = np.mod(trace.submitted_s[rows] - pool.first_s + offset, pool.length_s)
    duration = trace.duration_s[rows]
    # What was submitted in an earlier round of the circle and is not over at second 0.
    rounds = np.arange(int(np.ceil(duration.max() / pool.length_s)) + 1)
    ran = pool.length_s * (rounds[:, None] + 1) - at
    began = np.broadcast_to(np.arange(len(rows)), ran.shape)[ran < duration]
    new = np.flatnonzero(at < window.horizon_s)
    every = np.concatenate([began, new])
    elapsed: Floats = np.concatenate([ran[ran < duration], np.zeros(len(new))])
    submitted = np.where(elapsed > 0, 0.0, at[every])
    left = duration[every] - elapsed
    low, high = window.span
    used: Floats = np.maximum(0.0, np.minimum(submitted + left, high) - np.maximum(submitted, low))
    demand = used * trace.devices[rows[every]]
    even = dice.random((len(every), COLUMNS))
    return Copy(tenant, rows[every], submitted, left, elapsed, demand, even, habit)


def _thinned(copy: Copy, wanted: float, whole: float) -> Copy:
    """Jobs in a random order until the next would be too much, then whichever still fit."""
    order = np.argsort(copy.even[:, -1])
    demand = copy.demand[order]
    keep = np.cumsum(demand) <= wanted
    missing = wanted - float(demand[keep].sum())
    for one in np.flatnonzero(~keep & (demand > 0)).tolist():
        if missing <= CLOSE * whole:
            break
        if demand[one] <= missing:
            keep[one] = True
            missing -= float(demand[one])
    kept = np.zeros(len(copy), np.bool_)
    kept[order[keep]] = True
    return copy.only(kept)
