"""Closing a curriculum's parent run in the tracker: outside the tick, level-triggered, never given up silently."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from helios.ports import Clock, Tracker
from helios.store import Event, EventType, Record

RETRY_S = 10.0
_Result = TypeVar("_Result")


class DaemonExecutor(Executor):
    """A daemon thread a call: unlike a thread pool, a call that hangs does not hold up the end of the process."""

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        future: Future[_Result] = Future()

        def call() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - handed to whoever asks the future
                future.set_exception(error)

        threading.Thread(target=call, name="helios-tracker", daemon=True).start()
        return future


class RunCloser:
    """Calls the tracker beside the control loop: a tracker that hangs delays nothing but itself."""

    def __init__(self, tracker: Tracker | None, clock: Clock, executor: Executor | None = None) -> None:
        self._tracker = tracker
        self._clock = clock
        self._executor = executor or DaemonExecutor()
        self._calls: dict[str, Future[None]] = {}
        self._not_before: dict[str, float] = {}

    def close_run(self, record: Record) -> tuple[bool, list[Event]]:
        """Ask for, or look after, the end of this curriculum's run: whether it is closed, and what went wrong."""
        if self._tracker is None:
            return True, []
        ending = f"{record.uid}/{record.status.get('finishedAt')}"
        call = self._calls.get(ending)
        if call is None:
            if self._clock.now() < self._not_before.get(ending, 0.0):
                return False, []
            succeeded = record.state == "Succeeded"
            call = self._executor.submit(self._tracker.end_curriculum, record.uid, succeeded=succeeded)
            self._calls[ending] = call
        if not call.done():
            return False, []
        del self._calls[ending]
        error = call.exception()
        if error is None:
            return True, []
        self._not_before[ending] = self._clock.now() + RETRY_S
        message = f"the tracker did not close the run, tried again in {RETRY_S:.0f} s: {error}"
        return False, [Event(record.kind, record.name, record.uid, "TrackerFailed", message, EventType.WARNING)]
