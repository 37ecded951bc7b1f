"""Runs of a study side by side, each in a process of its own, in the order in which they were asked for."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, TypeVar

from helios.errors import HeliosError, InputError, Problem, SpecError, UnavailableError
from helios.simulator.engine import OnProgress
from helios.simulator.study import Case, Done, Lab, Study

T = TypeVar("T")
LOOK_S = 0.2
AHEAD = 2
"""Runs for each process that are begun or wait; more would be kept in memory, fewer would leave processes idle."""
YOUNG_OBJECTS = 100_000
"""New objects after which cyclic garbage is looked for."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """An error of ours on its way between processes: its own class need not survive that."""

    problems: tuple[Problem, ...]
    message: str
    hint: str


class _StoppedError(Exception):
    """Nobody wants the run any more."""


def run_all(
    study: Study,
    cases: Iterable[Case],
    *,
    processes: int,
    finish: Callable[[Done], T],
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[T]:
    """Run cases and give what `finish` makes of each, in their order.

    A case is asked for when a process is about to be free, so that a generator may end early. When the iteration ends,
    however it ends, no process is left.

    Args:
        finish: what to do with a run in the process that made it; a function of a module, or a partial of one.
        on_progress: is told several times a second how many runs are done, parts of runs among them.

    Raises:
        InputError: as `Lab.run` does.
        UnavailableError: a process died.
    """
    if processes < 1:
        raise InputError(f"expected 1 process or more, got {processes}")
    context = multiprocessing.get_context("spawn")
    board = context.RawArray("d", AHEAD * processes + 1)  # a share done for each run under way; last: whether to stop
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_open, initargs=(study, board))
    try:
        yield from _in_order(pool, iter(cases), board, finish, on_progress)
    except BrokenProcessPool as error:
        raise UnavailableError(
            "a process that simulated was ended from outside", hint="short of memory? --jobs 1 needs the least"
        ) from error
    finally:
        board[-1] = 1.0
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor,
    cases: Iterator[Case],
    board: MutableSequence[float],
    finish: Callable[[Done], T],
    on_progress: Callable[[float], None] | None,
) -> Iterator[T]:
    slots = len(board) - 1
    under_way: deque[Future[T | _Refused]] = deque()
    asked = given = 0
    while True:
        while len(under_way) < slots and (case := next(cases, None)) is not None:
            board[asked % slots] = 0.0
            with _undisturbed():
                under_way.append(pool.submit(_run, case, asked % slots, finish))
            asked += 1
        if not under_way:
            return
        while (found := _result(under_way[0])) is None:
            if on_progress is not None:
                on_progress(given + sum(board[:slots]))
        under_way.popleft()
        board[given % slots] = 0.0
        given += 1
        if on_progress is not None:
            on_progress(given + sum(board[:slots]))
        if isinstance(found[0], _Refused):
            raise _raised(found[0])
        yield found[0]


def _result(future: Future[T]) -> tuple[T] | None:
    """What a run came to, if it did within a moment."""
    try:
        return (future.result(timeout=LOOK_S),)
    except NotYet:
        if future.done():  # the run itself raised such an error
            raise
        return None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Processes that begin here never see Ctrl-C: the one that began them does, and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raised(refused: _Refused) -> HeliosError:
    if refused.problems:
        return SpecError(refused.problems, hint=refused.hint)
    return InputError(refused.message, hint=refused.hint)


# In a process that simulates -----------------------------------------------------------------------------------------

_OPEN: dict[str, Any] = {}
"""The lab and the board of this process."""


def _open(study: Study, board: MutableSequence[float]) -> None:
    # A run makes little cyclic garbage, and Python's own threshold has it looked for all the time.
    gc.set_threshold(YOUNG_OBJECTS)
    _OPEN.update(lab=Lab(study), board=board)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End with the process that began this one, even where that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _run(case: Case, slot: int, finish: Callable[[Done], T]) -> T | _Refused:
    lab: Lab = _OPEN["lab"]
    board: MutableSequence[float] = _OPEN["board"]
    try:
        return finish(lab.run(case, on_progress=_posted(board, slot)))
    except SpecError as error:
        return _Refused(error.problems, "", error.hint)
    except HeliosError as error:
        return _Refused((), error.message, error.hint)


def _posted(board: MutableSequence[float], slot: int) -> OnProgress:
    def post(share: float) -> None:
        if board[-1]:
            raise _StoppedError
        board[slot] = share

    return post
