"""Closing a curriculum's parent run in the tracker: outside the tick, level-triggered, never given up silently."""

from concurrent.futures import Executor, Future, ThreadPoolExecutor

from helios.ports import Clock, Tracker
from helios.store import Event, EventType, Record

RETRY_S = 10.0


class RunCloser:
    """Calls the tracker beside the control loop: a tracker that hangs delays nothing but itself."""

    def __init__(self, tracker: Tracker | None, clock: Clock, executor: Executor | None = None) -> None:
        self._tracker = tracker
        self._clock = clock
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="helios-tracker")
        self._calls: dict[str, Future[None]] = {}
        self._not_before: dict[str, float] = {}

    def close_run(self, record: Record) -> tuple[bool, list[Event]]:
        """Ask for, or look after, the end of this curriculum's run: whether it is closed, and what went wrong."""
        if self._tracker is None:
            return True, []
        call = self._calls.get(record.uid)
        if call is None:
            if self._clock.now() < self._not_before.get(record.uid, 0.0):
                return False, []
            succeeded = record.state == "Succeeded"
            call = self._executor.submit(self._tracker.end_curriculum, record.uid, succeeded=succeeded)
            self._calls[record.uid] = call
        if not call.done():
            return False, []
        del self._calls[record.uid]
        error = call.exception()
        if error is None:
            return True, []
        self._not_before[record.uid] = self._clock.now() + RETRY_S
        message = f"the tracker did not close the run, tried again in {RETRY_S:.0f} s: {error}"
        return False, [Event(record.kind, record.name, record.uid, "TrackerFailed", message, EventType.WARNING)]

    def shutdown(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
