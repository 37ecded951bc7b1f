"""The life of a job, wherever it is lived: on the fleet (helios.control) or on a virtual clock (helios.simulator).

    Pending -> Queued -> Admitted -> Starting -> Running -> Succeeded | Failed | Cancelled
    Admitted, Starting, Running -> Preempting -> Recovering -> Admitted (next epoch)
    Pending -> Running -> Succeeded | Failed | Cancelled     (what only makes other jobs: an array, a schedule)

Who lives it keeps the state and says why it moves; which moves there are, which ends are tried again, and for how long
a cell without room is left alone, is said here once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from helios.spec import Retry


class JobState(StrEnum):
    PENDING = "Pending"
    QUEUED = "Queued"
    ADMITTED = "Admitted"
    STARTING = "Starting"
    RUNNING = "Running"
    PREEMPTING = "Preempting"
    RECOVERING = "Recovering"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def over(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
_ENDS = TERMINAL | {JobState.RECOVERING}
_AGAIN = frozenset({JobState.PENDING, JobState.QUEUED, JobState.RUNNING})
ALLOWED: Mapping[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.QUEUED: frozenset({JobState.ADMITTED, JobState.CANCELLED, JobState.FAILED}),
    JobState.ADMITTED: _ENDS | {JobState.STARTING, JobState.RUNNING, JobState.PREEMPTING},
    JobState.STARTING: _ENDS | {JobState.RUNNING, JobState.PREEMPTING},
    JobState.RUNNING: _ENDS | {JobState.PREEMPTING},
    JobState.PREEMPTING: _ENDS,
    JobState.RECOVERING: TERMINAL | {JobState.ADMITTED, JobState.RECOVERING},
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: _AGAIN,
    JobState.CANCELLED: _AGAIN,
}

NEVER_RETRIED = frozenset({"InvalidConfig", "NoSpace", "RetriesSpent", "SecretUnreadable"})
"""Reasons that the same start again cannot cure."""
START_LOST = "StartLost"
"""A start that left no trace."""
FENCED = "Fenced"
"""A start under an epoch below what its cell has seen, as after a restore: the next one is nearer to it."""
STOPPED = "Stopped"
"""An end that was asked for on the cell, as `helios down` does."""
CELL_DELETED = "CellDeleted"
CAPACITY_ERROR, PARTIAL_START = "CapacityError", "PartialStart"
PREEMPTED, DRAINED, NODE_LOST = "Preempted", "Drained", "NodeLost"
RECLAIMED, RESIZED, DEFRAGMENTED = "Reclaimed", "Resized", "Defragmented"
ENGINE_LOST = "EngineLost"
HELD_OFF = frozenset({CAPACITY_ERROR, PARTIAL_START})
"""Ends after which the cell is not asked again at once: it had no room, whatever its nodes seemed to say."""
NOT_CHARGED = HELD_OFF | {
    START_LOST,
    FENCED,
    STOPPED,
    ENGINE_LOST,
    PREEMPTED,
    RECLAIMED,
    RESIZED,
    DEFRAGMENTED,
    DRAINED,
    NODE_LOST,
}
"""Ends that are no failure of the program, so they take none of its `retry.maxRetries`."""
BY_SCHEDULER = frozenset({PREEMPTED, RECLAIMED, RESIZED, DEFRAGMENTED})
"""Stops for the good of others or of the gang itself: no job is given up for how often that was done to it."""
FIRST_HOLD_OFF_S, LONGEST_HOLD_OFF_S = 5.0, 300.0
MAX_RESTARTS = 100
"""Restarts after which a job is given up, the scheduler's stops left out: one that takes its engine down must not do so
forever."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often a job began again.

    Attributes:
        failures: those that count against `retry.maxRetries`.
        restarts: for whatever reason.
        by_reason: restarts by the reason of the end before.
    """

    failures: int
    restarts: int
    by_reason: Mapping[str, int]

    @property
    def unasked(self) -> int:
        """Restarts that the scheduler did not ask for."""
        return self.restarts - sum(self.by_reason.get(reason, 0) for reason in BY_SCHEDULER)

    def after(self, reason: str, *, charged: bool) -> "Tally":
        """The tally with one more restart after an end for this reason."""
        by_reason = {**self.by_reason, reason: self.by_reason.get(reason, 0) + 1}
        return Tally(self.failures + charged, self.restarts + 1, by_reason)


def step(state: JobState, to: JobState, *, of: str, reason: str) -> JobState:
    """The state `to`, where a job `of` that name may move to it from `state`; AssertionError where it may not."""
    if to not in ALLOWED[state]:
        raise AssertionError(f"job {of}: no transition {state} -> {to} ({reason})")
    return to


def is_charged(retry: Retry, reason: str) -> bool:
    """Whether an end for this reason takes one of the job's `maxRetries`."""
    return reason not in NOT_CHARGED and reason not in retry.by_reason


def spent(tally: Tally, retry: Retry, reason: str) -> str | None:
    """None where a job is to be tried again after an end for this reason; else what to say of its tries."""
    limit = retry.by_reason.get(reason)
    if limit is not None:
        count = tally.by_reason.get(reason, 0)
        if count >= limit:
            return f"(restarted {_times(count)} for {reason}; retry.byReason allows {limit})"
    elif reason in NEVER_RETRIED:
        return ""
    elif reason not in NOT_CHARGED and tally.failures >= retry.max_retries:
        return f"(restarted {_times(tally.failures)}; retry.maxRetries is {retry.max_retries})"
    if reason not in BY_SCHEDULER and tally.unasked >= MAX_RESTARTS:
        return f"(restarted {_times(tally.unasked)}, which is the most there is)"
    return None


def hold_off_s(times: int) -> float:
    """Seconds for which a cell is not asked again that had no room `times` times before."""
    return min(FIRST_HOLD_OFF_S * float(2**times), LONGEST_HOLD_OFF_S)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
