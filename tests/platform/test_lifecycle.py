"""The life of a job is one, wherever it is lived."""

import pytest

from helios import lifecycle
from helios.lifecycle import ALLOWED, MAX_RESTARTS, TERMINAL, JobState, Tally, hold_off_s, is_charged, spent, step
from helios.spec import Retry

NONE = Tally(0, 0, {})


def test_moves_that_are_not_allowed_are_errors() -> None:
    """Each names the job, the states and the reason."""
    for state, allowed in ALLOWED.items():
        for to in JobState:
            if to in allowed:
                assert step(state, to, of="j", reason="r") is to
            else:
                with pytest.raises(AssertionError, match=f"job j: no transition {state} -> {to} \\(why\\)"):
                    step(state, to, of="j", reason="why")


def test_states_that_are_over_are_the_terminal_ones() -> None:
    """What is over is left only by a rerun, and success not even by that."""
    assert {state for state in JobState if state.over} == TERMINAL
    assert not ALLOWED[JobState.SUCCEEDED]


@pytest.mark.parametrize(
    "reason",
    [lifecycle.PREEMPTED, lifecycle.RECLAIMED, lifecycle.RESIZED, lifecycle.DEFRAGMENTED, lifecycle.NODE_LOST],
)
def test_what_is_no_failure_of_the_program_takes_no_retry(reason: str) -> None:
    """A job without a single retry outlives whatever the platform does to it."""
    retry = Retry(max_retries=0)
    assert not is_charged(retry, reason)
    assert spent(Tally(0, 50, {reason: 50}), retry, reason) is None


@pytest.mark.parametrize("reason", sorted(lifecycle.BY_SCHEDULER))
def test_the_schedulers_own_stops_end_no_job(reason: str) -> None:
    """The bound on restarts is for what begins again by its own doing; a job may set a limit for a reason."""
    moved = Tally(0, 5 * MAX_RESTARTS, {reason: 5 * MAX_RESTARTS})
    assert spent(moved, Retry(max_retries=0), reason) is None
    assert spent(moved, Retry(max_retries=0), "EngineLost") is None
    lost = Tally(0, 6 * MAX_RESTARTS, {reason: 5 * MAX_RESTARTS, "EngineLost": MAX_RESTARTS})
    assert spent(lost, Retry(max_retries=0), "EngineLost") == "(restarted 100 times, which is the most there is)"
    assert spent(lost, Retry(max_retries=0), reason) is None
    limited = Retry(max_retries=0, by_reason={reason: 3})
    assert spent(moved, limited, reason) == f"(restarted 500 times for {reason}; retry.byReason allows 3)"


def test_failures_of_the_program_take_retries_until_none_is_left() -> None:
    """With a limit of its own a reason is counted apart."""
    retry = Retry(max_retries=1, by_reason={"Killed": 0})
    assert spent(NONE, retry, "Error") is None
    once = NONE.after("Error", charged=is_charged(retry, "Error"))
    assert once == Tally(1, 1, {"Error": 1})
    assert spent(once, retry, "Error") == "(restarted once; retry.maxRetries is 1)"
    assert spent(NONE, retry, "Killed") == "(restarted 0 times for Killed; retry.byReason allows 0)"
    assert spent(NONE, retry, "InvalidConfig") == ""


def test_cell_without_room_is_left_alone_for_longer_each_time() -> None:
    """Twice as long, five minutes at most, and no number is too large."""
    assert [hold_off_s(times) for times in (0, 1, 2, 6, 99)] == [5.0, 10.0, 20.0, 300.0, 300.0]
