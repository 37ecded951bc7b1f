"""A run's outcomes and samples as arrays, so that the metrics of a hundred thousand jobs take seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from helios.errors import InputError
from helios.simulator.outcomes import RunResult, Sample
from helios.spec import QoS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]

_FLOATS = (
    "gpus",
    "most_gpus",
    "submitted_s",
    "run_s",
    "started_s",
    "ended_s",
    "queued_s",
    "productive",
    "starting",
    "recomputed",
    "idle",
    "failed",
)
_INTS = ("preemptions", "restarts", "racks")


@dataclass(frozen=True)
class Jobs:
    """Outcomes as columns of one length; the fields are those of `JobOutcome`, missing times are NaN.

    Attributes:
        measured: submitted within the window, and not to warm up.
        present: share of what a job held that it held within the window.
        over_s: when the run was over, the same for all: what was unfinished then took at least until then.
    """

    job_id: Names
    tenant: Names
    qos: Names
    gpus: Floats
    most_gpus: Floats
    submitted_s: Floats
    run_s: Floats
    started_s: Floats
    ended_s: Floats
    queued_s: Floats
    productive: Floats
    starting: Floats
    recomputed: Floats
    idle: Floats
    failed: Floats
    preemptions: Ints
    restarts: Ints
    racks: Ints
    succeeded: Bools
    measured: Bools
    present: Floats
    over_s: Floats

    def __len__(self) -> int:
        return len(self.gpus)

    def where(self, which: Bools | Ints) -> Self:
        """These rows: a mask, or their numbers in the order wanted."""
        return type(self)(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    @cached_property
    def ended(self) -> Bools:
        return ~np.isnan(self.ended_s)

    @cached_property
    def ends(self) -> Bools:
        """Whether it ends by itself at all; a service does not, and has no completion time."""
        return np.isfinite(self.run_s) | self.ended

    @cached_property
    def started(self) -> Bools:
        return ~np.isnan(self.started_s)

    @cached_property
    def completion_s(self) -> Floats:
        """From submission to the end; of an unfinished job the least that it can still become."""
        least = np.maximum(self.over_s - self.submitted_s, self.queued_s + self.run_s)
        return np.where(self.ended, self.ended_s - self.submitted_s, least)

    @cached_property
    def delay_s(self) -> Floats:
        """Seconds in the queue, all waits together; of a job that never started at least from submission to the end."""
        waited = np.maximum(self.queued_s, self.over_s - self.submitted_s)
        return np.where(self.started, self.queued_s, waited)

    @cached_property
    def widest(self) -> Floats:
        """Devices with which it takes no longer than `run_s`."""
        return np.maximum(self.gpus, self.most_gpus)

    @cached_property
    def held(self) -> Floats:
        """Device-seconds that it was given."""
        return self.productive + self.lost

    @cached_property
    def lost(self) -> Floats:
        """Device-seconds that it was given and that came to nothing."""
        return self.starting + self.recomputed + self.idle + self.failed


@dataclass(frozen=True, slots=True)
class Fleet:
    """Samples as arrays [moment, cell]; each holds until the next, the last until the window ends.

    Attributes:
        weight_s: seconds of the window for which each sample stands [moment].
        waiting: whether any gang waits [moment].
    """

    at_s: Floats
    weight_s: Floats
    cells: tuple[str, ...]
    allocated: Floats
    productive: Floats
    healthy: Floats
    stranded: Floats
    waiting: Bools


def over_at(result: RunResult) -> float:
    """Seconds after which a run was over: its last sample or end of a job, and not before its window."""
    ends = (outcome.ended_s for outcome in result.outcomes if outcome.ended_s is not None)
    last = max((sample.at_s for sample in result.samples), default=0.0)
    return max(result.window[1], last, max(ends, default=0.0))


def jobs_of(result: RunResult) -> Jobs:
    outcomes, (since, until) = result.outcomes, result.window
    over = over_at(result)
    columns: dict[str, Any] = {
        name: np.array([getattr(each, name) for each in outcomes], dtype=np.float64)  # None becomes NaN
        for name in _FLOATS
    }
    columns |= {name: np.array([getattr(each, name) for each in outcomes], dtype=np.int64) for name in _INTS}
    submitted = columns["submitted_s"]
    warm = np.array([each.warm_up for each in outcomes], dtype=np.bool_)
    return Jobs(
        job_id=np.array([each.job_id for each in outcomes], dtype=np.str_),
        tenant=np.array([each.tenant for each in outcomes], dtype=np.str_),
        qos=np.array([each.qos.value for each in outcomes], dtype=np.str_),
        succeeded=np.array([each.succeeded for each in outcomes], dtype=np.bool_),
        measured=~warm & (submitted >= since) & (submitted < until),
        present=_present(result, columns["started_s"], columns["ended_s"], over),
        over_s=np.full(len(outcomes), over),
        **columns,
    )


def _present(result: RunResult, started: Floats, ended: Floats, over: float) -> Floats:
    """Share of each job's device-seconds within the window: by its stays, or by its whole span where none was kept."""
    since, until = result.window
    last = np.where(np.isnan(ended), over, ended)
    span = last - started
    inside = np.clip(last, since, until) - np.clip(started, since, until)
    if result.stays:
        index = {outcome.job_id: number for number, outcome in enumerate(result.outcomes)}
        stays = [stay for stay in result.stays if stay.job_id in index]
        owner = np.array([index[stay.job_id] for stay in stays], dtype=np.int64)
        gpus = np.array([stay.gpus for stay in stays])
        first = np.array([stay.since_s for stay in stays])
        leave = np.array([stay.until_s for stay in stays])
        known = np.bincount(owner, minlength=len(started)) > 0
        whole = np.bincount(owner, gpus * (leave - first), minlength=len(started))
        part = np.clip(leave, since, until) - np.clip(first, since, until)
        span = np.where(known, whole, span)
        inside = np.where(known, np.bincount(owner, gpus * part, minlength=len(started)), inside)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = inside / span
    return np.nan_to_num(share, nan=0.0, posinf=0.0, neginf=0.0)


def fleet_of(result: RunResult) -> Fleet:
    """Arrays of a run's samples.

    Raises:
        InputError: no sample stands for any part of the window, or no device was healthy in it.
    """
    samples, (since, until) = result.samples, result.window
    at = np.array([sample.at_s for sample in samples], dtype=np.float64)
    weight = np.diff(np.clip(np.append(at, until), since, until))
    cells = tuple(sorted({cell for sample in samples for cell in sample.healthy}))
    healthy = _by_cell(samples, cells, "healthy")
    if not weight.sum() > 0 or not (weight @ healthy).sum() > 0:
        raise InputError(
            f"the run of {result.policy!r} at load {result.load:g}, seed {result.seed}, has no sample of a healthy "
            f"device in its window of {since:g} s to {until:g} s"
        )
    return Fleet(
        at_s=at,
        weight_s=weight,
        cells=cells,
        allocated=_by_cell(samples, cells, "allocated"),
        productive=_by_cell(samples, cells, "productive"),
        healthy=healthy,
        stranded=_by_cell(samples, cells, "stranded"),
        waiting=np.array([any(sample.pending.values()) for sample in samples], dtype=np.bool_),
    )


def _by_cell(samples: Sequence[Sample], cells: tuple[str, ...], name: str) -> Floats:
    rows = [[getattr(sample, name).get(cell, 0.0) for cell in cells] for sample in samples]
    return np.array(rows, dtype=np.float64).reshape(len(samples), len(cells))


def of_class(jobs: Jobs, qos: QoS) -> Bools:
    return np.asarray(jobs.qos == qos.value, dtype=np.bool_)
